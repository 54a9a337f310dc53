#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::ops::conv2d::Conv2d;
use ieq_wgpu::tape::backward::backward_from;
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::{Graph, Type};

fn main() {
    let gpu = Gpu::open(&Options::default()).unwrap();
    let n: usize = std::env::args().nth(1).map_or(16, |a| a.parse().unwrap());
    let reps: usize = std::env::args().nth(2).map_or(3, |a| a.parse().unwrap());
    for (c, o, s) in [(64, 64, 32), (64, 160, 16), (160, 320, 8), (320, 640, 4), (16, 16, 28), (64, 128, 3)] {
        let flops = 2.0 * (n * c * o * s * s * 9) as f64;
        let mut line = format!("{c}->{o} {s}x{s}: ");
        for which in 0..3 {
            let mut g = Graph::new();
            let x = g.in_arena("x", "x", Type::f32([n, c, s, s]), which == 1);
            let w = g.in_arena("w", "w", Type::f32([o, c, 3, 3]), which == 2);
            let y = g.one(Conv2d::new(1, 1), &[x, w]).unwrap();
            let dy = g.in_arena("dy", "dy", g.value(y).ty.clone(), false);
            if which > 0 {
                let grads = backward_from(&mut g, &[(y, dy)]).unwrap();
                for v in grads.values() { if *v != dy { g.keep(*v) } }
                g.nodes.remove(0);
            } else { g.keep(y); }
            let mut k = Kernels::new(gpu.clone());
            let ex = Executor::new(&mut k, &mut Arenas::new(), g).unwrap();
            let fill = |n: usize| (0..n).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 500.0).collect::<Vec<f32>>();
            ex.write(x, &fill(n * c * s * s)).unwrap();
            ex.write(w, &fill(o * c * 9)).unwrap();
            ex.write(dy, &fill(n * o * s * s)).unwrap();
            ex.submit();
            gpu.wait().unwrap();
            let start = cpu();
            let mut count = 0;
            while count < reps || cpu() - start < 0.4 {
                ex.submit();
                gpu.wait().unwrap();
                count += 1;
            }
            let best = (cpu() - start) / count as f64 / 2.0;
            line += &format!("{} {:.1} GFLOP/s  ", ["fwd", "dx", "dw"][which], flops / best / 1e9);
        }
        println!("{line}");
    }
}

fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
