//! Proves: checkpoints have equal bytes for equal state, survive failed writes, and what cannot be read
//! or does not fit is refused with one sentence.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ieq_wgpu::train::checkpoint::{Checkpoint, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

fn sample() -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    for i in 0..40_usize {
        let data = (0..i * 3).map(|x| (x as f32 * 0.37).sin()).collect();
        checkpoint.tensors.insert(format!("layer{}.0.conv{i}.weight", i % 4), Tensor::f32([i, 3], data));
        checkpoint.metadata.insert(format!("key \"{i}\" ü"), format!("value\n{i}"));
    }
    checkpoint.tensors.insert("train.step".into(), Tensor::i64([], vec![i64::MAX]));
    checkpoint.tensors.insert("scalar".into(), Tensor::f32([], vec![-0.0]));
    checkpoint
}

fn error_of(path: &Path) -> String {
    let error = Checkpoint::load(path).unwrap_err();
    assert_eq!(ieq_wgpu::cli::sentence::exit_code(&error), 2);
    let text = error.to_string();
    assert!(text.starts_with(&path.display().to_string()) && !text.contains('\n'), "{text}");
    text
}

#[test]
fn what_is_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    for checkpoint in [sample(), Checkpoint::default()] {
        checkpoint.save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), checkpoint);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // The permissions of any new file of this user.
        std::fs::write(folder.path().join("plain"), "").unwrap();
        let mode = |name: &str| folder.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode("a.safetensors"), mode("plain"));
    }
}

/// Metadata and tensors go through hash maps in the library, each with its own random order.
#[test]
fn equal_state_gives_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let mut first = Vec::new();
    for round in 0..100 {
        let checkpoint = if round % 2 == 0 { sample() } else { Checkpoint::load(&path).unwrap() };
        checkpoint.save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        if round == 0 {
            first.clone_from(&bytes);
        }
        assert!(bytes == first, "round {round}");
    }
    // Any reader of the format, PyTorch's among them, finds the parts where they belong.
    let file = SafeTensors::deserialize(&first).unwrap();
    let (header, about) = SafeTensors::read_metadata(&first).unwrap();
    assert_eq!(header % 8, 0);
    let metadata = about.metadata().clone().unwrap();
    assert_eq!((metadata["format"].as_str(), metadata["key \"3\" ü"].as_str()), ("pt", "value\n3"));
    assert_eq!(file.len(), sample().tensors.len());
    assert_eq!(file.tensor("train.step").unwrap().dtype(), Dtype::I64);
}

#[test]
fn a_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    sample().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let cuts = [1, 7, 8, 9, 15, 16, 100, header, header + 7, header + 8, header + 9, whole.len() - 1];
    for cut in cuts {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let text = error_of(&path);
        assert!(text.contains("copy it again") || text.contains("is not a"), "{cut}: {text}");
    }
    let write = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        error_of(&path)
    };
    assert!(write(b"").contains("is empty"));
    let with_length = |n: u64| [&n.to_le_bytes()[..], &whole[8..]].concat();
    for length in [0, 1, 8, header as u64 - 1, header as u64 + 1, 1 << 20, 1 << 31, 1 << 62, u64::MAX - 7, u64::MAX] {
        write(&with_length(length));
    }
    assert!(write(&with_length(u64::MAX)).contains("cut short"));
    assert!(write(&[whole.as_slice(), b"tail"].concat()).contains("not a complete"));
    assert!(write(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").contains("not a safetensors file"));
    let zip = write(b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0archive/data.pkl");
    assert!(zip.contains("zip") && zip.contains("again"), "{zip}");
    let pickle = write(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.");
    assert!(pickle.contains("cut off") && pickle.contains("again"), "{pickle}");
    let pickle = write(b"\x80\x04\x95\x10\0\0\0\0\0\0\0}.");
    assert!(pickle.contains("pickle") && pickle.contains("save_file"), "{pickle}");
    let not_json = [&16_u64.to_le_bytes()[..], b"{\"a\": not json}} "].concat();
    assert!(write(&not_json).contains("JSON"));
}

/// Every single damaged byte of the header either is refused or still gives a whole checkpoint.
#[test]
fn no_damaged_header_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let mut small = Checkpoint::default();
    small.tensors.insert("w".into(), Tensor::f32([2, 3], vec![1.0; 6]));
    small.metadata.insert("seed".into(), "1".into());
    small.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            std::fs::write(&path, bytes).unwrap();
            if let Ok(read) = Checkpoint::load(&path) {
                for tensor in read.tensors.values() {
                    assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
                }
            }
        }
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(error_of(folder.path()).contains("is a folder"));
    assert!(error_of(&folder.path().join("absent")).contains("cannot read the checkpoint"));
    let say = |path: &Path| sample().save(path).unwrap_err().to_string();
    assert!(say(folder.path()).contains("there is a folder or a device"));
    // No such folder, and a file where the folder should be: root can write to a read-only folder, so
    // that case needs another stand-in.
    assert!(say(&folder.path().join("absent/a")).contains("cannot write the checkpoint"));
    let file = folder.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    assert!(say(&file.join("a")).contains("cannot write the checkpoint"));
    assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    #[cfg(target_os = "linux")]
    {
        assert!(say(Path::new("/dev/full")).contains("device"));
        assert!(error_of(Path::new("/dev/zero")).contains("device"));
        // Nothing can be created here, by root neither.
        assert!(say(Path::new("/proc/a.safetensors")).contains("cannot write the checkpoint"));
    }
}

/// A full disk, with the system's limit on file sizes in its place: the write fails half way.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_checkpoint() {
    const FOLDER: &str = "IEQ_TEST_FULL_DISK";
    let mut large = Checkpoint::default();
    large.tensors.insert("w".into(), Tensor::f32([1 << 18], vec![1.0; 1 << 18]));
    if let Some(folder) = std::env::var_os(FOLDER) {
        // The child, whose files end at 64 KiB.
        let error = large.save(Path::new(&folder).join("last.safetensors")).unwrap_err();
        assert_eq!(ieq_wgpu::cli::sentence::exit_code(&error), 2);
        let text = error.to_string();
        assert!(text.contains("last.safetensors: cannot write the checkpoint: "), "{text}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    sample().save(&path).unwrap();
    // Its words go through pipes: the limit also holds for a file that the tests are written to.
    let child = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact a_full_disk_leaves_the_old_checkpoint"])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(Checkpoint::load(&path).unwrap(), sample());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // Without the limit it goes through.
    large.save(&path).unwrap();
    assert_eq!(Checkpoint::load(&path).unwrap(), large);
}

#[test]
fn a_diverged_state_does_not_replace_a_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    sample().save(&path).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut broken = sample();
        broken.tensors.insert("w".into(), Tensor::f32([2], vec![0.0, bad]));
        let error = broken.save(&path).unwrap_err();
        assert_eq!(ieq_wgpu::cli::sentence::exit_code(&error), 1);
        assert!(error.to_string().contains("w is not finite at element 1"), "{error}");
    }
    let mut broken = sample();
    broken.tensors.insert("w".into(), Tensor::f32([3], vec![0.0; 2]));
    assert_eq!(ieq_wgpu::cli::sentence::exit_code(&broken.save(&path).unwrap_err()), 101);
    assert_eq!(Checkpoint::load(&path).unwrap(), sample());
}

#[test]
fn other_number_types_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let f64s: Vec<u8> = [1.5_f64, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let i32s: Vec<u8> = [-7_i32, 9].iter().flat_map(|x| x.to_le_bytes()).collect();
    let cases: [(&str, Dtype, &[u8], TensorData); 8] = [
        ("f64", Dtype::F64, &f64s, TensorData::F32(vec![1.5, -2.0])),
        ("f16", Dtype::F16, &[0x00, 0x3e, 0x00, 0xc0], TensorData::F32(vec![1.5, -2.0])),
        ("bf16", Dtype::BF16, &[0xc0, 0x3f, 0x00, 0xc0], TensorData::F32(vec![1.5, -2.0])),
        ("i32", Dtype::I32, &i32s, TensorData::I64(vec![-7, 9])),
        ("u8", Dtype::U8, &[0, 255], TensorData::I64(vec![0, 255])),
        ("i8", Dtype::I8, &[0, 255], TensorData::I64(vec![0, -1])),
        ("u16", Dtype::U16, &[0, 1, 255, 255], TensorData::I64(vec![256, 65535])),
        ("bool", Dtype::BOOL, &[1, 0], TensorData::I64(vec![1, 0])),
    ];
    let views: BTreeMap<&str, TensorView<'_>> =
        cases.iter().map(|(name, dtype, bytes, _)| (*name, TensorView::new(*dtype, vec![2], bytes).unwrap())).collect();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned()), ("a".to_owned(), "b".to_owned())]);
    std::fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
    let read = Checkpoint::load(&path).unwrap();
    for (name, _, _, want) in cases {
        assert_eq!(read.tensors[name], Tensor { shape: vec![2], data: want }, "{name}");
    }
    assert_eq!(read.metadata, BTreeMap::from([("a".to_owned(), "b".to_owned())]));

    let refuse = |dtype, bytes: &[u8]| {
        let view = TensorView::new(dtype, vec![1], bytes).unwrap();
        std::fs::write(&path, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
        error_of(&path)
    };
    assert!(refuse(Dtype::U64, &[0; 8]).contains("save it as float32"));
    assert!(refuse(Dtype::F8_E4M3, &[0]).contains("save it as float32"));
    assert!(refuse(Dtype::F64, &1e300_f64.to_le_bytes()).contains("not finite in f32"));
    assert!(refuse(Dtype::F32, &f32::NAN.to_le_bytes()).contains("not finite"));
}

#[test]
fn a_misfit_names_the_tensors_and_the_way_out() {
    let mut checkpoint = Checkpoint::default();
    for (name, shape) in
        [("a", vec![2, 3]), ("b", vec![4]), ("train.bank", vec![5]), ("bn.num_batches_tracked", vec![])]
    {
        let size = shape.iter().product();
        checkpoint.tensors.insert(name.into(), Tensor::f32(shape, vec![0.0; size]));
    }
    let want = |list: &[(&str, &[usize])]| -> Vec<(String, Vec<usize>)> {
        list.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    };
    let fits = want(&[("a", &[2, 3]), ("b", &[4])]);
    checkpoint.check_against("x", &fits).unwrap();
    checkpoint.check_contains("x", &fits[..1]).unwrap();
    let say = |list: &[(&str, &[usize])]| {
        let text = checkpoint.check_against("run/best.safetensors", &want(list)).unwrap_err().to_string();
        assert!(text.starts_with("run/best.safetensors: does not fit the network: "), "{text}");
        assert!(
            text.ends_with("set the backbone, widths, classes, transforms and embedding it was trained with"),
            "{text}"
        );
        text
    };
    assert!(say(&[("a", &[2, 3])]).contains(": unexpected b;"));
    assert!(say(&[("a", &[3, 2]), ("b", &[4])]).contains("a ([2, 3] in the file, [3, 2] in the network)"));
    let many = say(&[("a", &[2, 3]), ("b", &[4]), ("c", &[]), ("d", &[]), ("e", &[]), ("f", &[]), ("g", &[])]);
    assert!(many.contains("missing c, d, e and 2 more;"), "{many}");
    assert!(checkpoint.check_contains("x", &want(&[("c", &[])])).is_err());
    checkpoint.tensors.insert("b".into(), Tensor::i64([4], vec![0; 4]));
    assert!(checkpoint.check_against("x", &fits).unwrap_err().to_string().contains("whole numbers"));
}

#[test]
fn the_prefix_of_parallel_training_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let mut teacher = Checkpoint::default();
    teacher.tensors.insert("module.layer1.0.conv1.weight".into(), Tensor::f32([1], vec![1.0]));
    teacher.tensors.insert("module.classifier.bias".into(), Tensor::f32([1], vec![2.0]));
    teacher.save(&path).unwrap();
    let names: Vec<String> = Checkpoint::load(&path).unwrap().tensors.into_keys().collect();
    assert_eq!(names, ["classifier.bias", "layer1.0.conv1.weight"]);
    // Other wrappers, and several.
    for prefix in ["model.", "state_dict.model.", "module.net."] {
        let mut wrapped = Checkpoint::default();
        wrapped.tensors.insert(format!("{prefix}classifier.bias"), Tensor::f32([1], vec![2.0]));
        wrapped.save(&path).unwrap();
        assert!(Checkpoint::load(&path).unwrap().tensors.contains_key("classifier.bias"), "{prefix}");
    }
    // Only when it is before every name.
    teacher.tensors.insert("other".into(), Tensor::f32([1], vec![3.0]));
    teacher.save(&path).unwrap();
    assert!(Checkpoint::load(&path).unwrap().tensors.contains_key("module.classifier.bias"));
    // What compiling adds goes wherever it stands, but not where that gives one name twice.
    teacher.tensors.insert("layer1._orig_mod.weight".into(), Tensor::f32([1], vec![4.0]));
    teacher.save(&path).unwrap();
    assert!(Checkpoint::load(&path).unwrap().tensors.contains_key("layer1.weight"));
    teacher.tensors.insert("layer1.weight".into(), Tensor::f32([1], vec![5.0]));
    teacher.save(&path).unwrap();
    assert!(error_of(&path).contains("layer1.weight twice"));
}
