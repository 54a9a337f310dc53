//! A broken shader is an error with the file and the line under `shaders/`, whoever finds it: the template, naga or the
//! driver.

use ieq_wgpu::Error;
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::{Kernels, Region};
use ieq_wgpu::gpu::shader::{SOURCES, Shader, reflect};
use ieq_wgpu::gpu::{AdapterChoice, Launch, adapter::ADAPTER_VARIABLE};

/// A file of the crate with `to` in place of the first `part`, and the line where it stands.
fn broken(file: &str, part: &str, to: &str) -> (String, u32) {
    let (_, text) = SOURCES.iter().find(|(name, _)| *name == file).expect("the file is known");
    assert!(text.contains(part), "{file} has no {part:?}");
    let text = text.replacen(part, to, 1);
    let line = text.lines().position(|line| line.contains(to)).expect("it is there") as u32 + 1;
    (text, line)
}

fn place(error: &Error) -> (&str, u32, &str) {
    match error {
        Error::Shader { file, line, message } => (file, *line, message),
        other => panic!("no error of a shader: {other:?}"),
    }
}

#[test]
fn a_mistake_in_a_template_names_its_line() {
    let (text, line) = broken("sgd", "#import common/finite", "#import common/infinite");
    let error = reflect("sgd", Some(&text)).err().expect("there is no such file");
    let (file, at, message) = place(&error);
    assert_eq!((file, at), ("shaders/sgd.wgsl", line), "{message}");
    assert!(message.contains("common/infinite"), "{message}");
}

#[test]
fn naga_names_the_line_of_the_source() {
    // Behind two imports, and in the imports themselves: by the parser and by the validator.
    for (file, part, to, of) in [
        ("sgd", "gradient[i]", "gradients[i]", "gradients"),
        ("sgd", "let i = item_index", "let i: f32 = item_index", "f32"),
        ("sgd", "velocity[i] = select(old, v, finite);", "velocity[i] = i;", ""),
    ] {
        let (text, line) = broken(file, part, to);
        let error = reflect(file, Some(&text)).err().expect("the text is wrong");
        let (named, at, message) = place(&error);
        assert_eq!((named, at), ("shaders/sgd.wgsl", line), "{message}");
        assert!(message.contains(of), "{message}");
        assert!(error.to_string().starts_with(&format!("shaders/sgd.wgsl:{line}: ")), "{error}");
    }
    // A caller's own text that imports the crate's files.
    let error = Shader::from_source("mine", "#import common/index\n\nfn f() -> u32 { return 1.5; }\n").err();
    let error = error.expect("1.5 is no u32");
    assert_eq!(place(&error).1, 3, "{error}");
}

#[test]
fn the_driver_names_the_line_of_the_source() {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let gpu = Gpu::open(&Options { choice, ..Options::default() }).expect("a GPU test needs an adapter");
    let text = "#import common/index\n
        @group(0) @binding(0) var<storage, read_write> y: array<f32>;\n
        @compute @workgroup_size(SIZE)
        fn fill(@builtin(local_invocation_index) i: u32) { y[i] = 1.0; }\n";
    let prepare = |text: &str, change: &dyn Fn(&mut Shader)| {
        let mut shader = Shader::from_source("mine", text).expect("the text is right");
        change(&mut shader);
        let mut kernels = Kernels::new(gpu.clone());
        kernels.add(shader).expect("the name is free");
        let buffer = gpu.buffer("y", 256).expect("it fits");
        let y = Region { buffer, offset: 0, bytes: 256 };
        kernels.prepare(&Launch::groups("mine", "fill", 1).bind("y", y.clone()), &y.buffer, 0)
    };
    let small = text.replace("SIZE", "64");
    prepare(&small, &|_| {}).expect("it runs");
    // A text that the tables were not read from: the device's own front end finds the mistake.
    let error = prepare(&small, &|shader| shader.text = shader.text.replace("= 1.0", "= one").into());
    let error = error.err().expect("`one` is unknown");
    let (file, line, message) = place(&error);
    assert_eq!((file, line), ("mine", 6), "{message}");
    assert!(message.contains("one"), "{message}");
    // A text that is right, and a pipeline that the device does not make.
    let large = gpu.limits().max_compute_invocations_per_workgroup + 1;
    let error = prepare(&text.replace("SIZE", &large.to_string()), &|_| {}).err().expect("it is too large");
    let (file, line, message) = place(&error);
    assert_eq!((file, line), ("mine", 6), "{message}");
    assert!(message.contains("mine.fill"), "{message}");
}
