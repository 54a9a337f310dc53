//! Convolutions and one training step in burn on its wgpu backend; a JSON line for each time.
//!
//!     peer-burn conv:16x64x32x32:64:3 step:16,32,64,128:64:32 --samples 5
//!
//! conv:NxCxHxW:OUTPUTS:KERNEL is a padded convolution, forward and forward with both gradients.
//! step:WIDTHS:ROWS:SIDE is the training step that `ieq-wgpu bench --step` measures, from images on the device:
//! ResNet-12, three heads, cross-entropy twice, the contrastive loss with 6400 negatives, backward, SGD.

use std::time::Instant;

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::prelude::*;
use burn::tensor::activation::{leaky_relu, log_softmax, relu};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DeviceKind, Distribution};

const CLASSES: usize = 64;
const TRANSFORMS: usize = 16;
const PROJECTION: usize = 64;
const NEGATIVES: usize = 6400;

#[derive(Module, Debug)]
struct Block {
    convs: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
    shortcut: Conv2d,
    shortcut_norm: BatchNorm,
    pool: MaxPool2d,
}

impl Block {
    fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        let conv = |c_in: usize, kernel: usize| {
            let p = kernel / 2;
            Conv2dConfig::new([c_in, outputs], [kernel, kernel])
                .with_padding(PaddingConfig2d::Explicit(p, p, p, p))
                .with_bias(false)
                .init(device)
        };
        let norm = || BatchNormConfig::new(outputs).init(device);
        Block {
            convs: vec![conv(inputs, 3), conv(outputs, 3), conv(outputs, 3)],
            norms: vec![norm(), norm(), norm()],
            shortcut: conv(inputs, 1),
            shortcut_norm: norm(),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut h = x.clone();
        for (i, (conv, norm)) in self.convs.iter().zip(&self.norms).enumerate() {
            h = norm.forward(conv.forward(h));
            if i < 2 {
                h = leaky_relu(h, 0.1);
            }
        }
        let sum = h + self.shortcut_norm.forward(self.shortcut.forward(x));
        self.pool.forward(leaky_relu(sum, 0.1))
    }
}

#[derive(Module, Debug)]
struct Head {
    linears: Vec<Linear>,
    norms: Vec<BatchNorm>,
}

impl Head {
    fn new(width: usize, outputs: usize, device: &Device) -> Self {
        let linear = |outputs: usize| LinearConfig::new(width, outputs).init(device);
        let norm = || BatchNormConfig::new(width).init(device);
        Head { linears: vec![linear(width), linear(width), linear(outputs)], norms: vec![norm(), norm()] }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut h = x;
        for (linear, norm) in self.linears.iter().zip(&self.norms) {
            h = relu(norm.forward(linear.forward(h)));
        }
        self.linears[2].forward(h)
    }
}

#[derive(Module, Debug)]
struct Net {
    blocks: Vec<Block>,
    class: Linear,
    transform: Head,
    invariant: Head,
}

impl Net {
    fn new(widths: [usize; 4], device: &Device) -> Self {
        let inputs = [3, widths[0], widths[1], widths[2]];
        Net {
            blocks: inputs.iter().zip(widths).map(|(&i, o)| Block::new(i, o, device)).collect(),
            class: LinearConfig::new(widths[3], CLASSES).init(device),
            transform: Head::new(widths[3], TRANSFORMS, device),
            invariant: Head::new(widths[3], PROJECTION, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> [Tensor<2>; 3] {
        let map = self.blocks.iter().fold(x, |h, block| block.forward(h));
        let [rows, width, h, w] = map.dims();
        let feature = map.reshape([rows, width, h * w]).mean_dim(2).reshape([rows, width]);
        [
            self.class.forward(feature.clone()),
            self.transform.forward(feature.clone()),
            self.invariant.forward(feature),
        ]
    }
}

fn normalised(rows: Tensor<2>) -> Tensor<2> {
    let norms = (rows.clone() * rows.clone()).sum_dim(1).sqrt();
    rows / (norms + 1e-6)
}

fn median(mut times: Vec<f64>) -> (f64, f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0], times[times.len() - 1])
}

/// Times `work` after it ran twice: the first runs tune and compile, and how long that took is reported, too.
fn time(what: &str, pass: &str, flops: f64, samples: usize, mut work: impl FnMut()) {
    let begun = Instant::now();
    work();
    work();
    let tuning = begun.elapsed().as_secs_f64();
    let once = {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64()
    };
    let repeats = (0.05 / once).ceil().clamp(1.0, 1000.0) as usize;
    let times = (0..samples)
        .map(|_| {
            let begun = Instant::now();
            (0..repeats).for_each(|_| work());
            begun.elapsed().as_secs_f64() / repeats as f64
        })
        .collect();
    let (median, min, max) = median(times);
    println!(
        "{{\"peer\": \"burn\", \"what\": \"{what}\", \"pass\": \"{pass}\", \"median\": {median}, \"min\": {min}, \
         \"max\": {max}, \"gflops\": {}, \"tuning\": {tuning}}}",
        flops / median / 1e9
    );
}

fn sizes(text: &str, separator: char) -> Vec<usize> {
    text.split(separator).map(|n| n.parse().expect("a whole number is wanted")).collect()
}

fn convolution(what: &str, words: &[&str], samples: usize, plain: &Device) {
    let x: [usize; 4] = sizes(words[1], 'x').try_into().expect("conv wants NxCxHxW");
    let (outputs, kernel) = (sizes(words[2], 'x')[0], sizes(words[3], 'x')[0]);
    let flops = 2.0 * (x[0] * outputs * x[2] * x[3] * x[1] * kernel * kernel) as f64;
    let options = || ConvOptions::new([1, 1], [kernel / 2, kernel / 2], [1, 1], 1);
    let normal = Distribution::Normal(0.0, 1.0);
    let weight_shape = [outputs, x[1], kernel, kernel];
    let (image, weight) = (Tensor::<4>::random(x, normal, plain), Tensor::<4>::random(weight_shape, normal, plain));
    time(what, "forward", flops, samples, || {
        let y = conv2d(image.clone(), weight.clone(), None, options());
        plain.sync().expect("the device works");
        drop(y);
    });
    let device = plain.clone().autodiff();
    let image = Tensor::<4>::random(x, normal, &device).require_grad();
    let weight = Tensor::<4>::random(weight_shape, normal, &device).require_grad();
    let upstream = Tensor::<4>::random([x[0], outputs, x[2], x[3]], normal, &device);
    time(what, "forward and backward", 3.0 * flops, samples, || {
        let y = conv2d(image.clone(), weight.clone(), None, options());
        let gradients = (y * upstream.clone()).sum().backward();
        let made = (image.grad(&gradients), weight.grad(&gradients));
        device.sync().expect("the device works");
        assert!(made.0.is_some() && made.1.is_some());
    });
}

fn step(what: &str, words: &[&str], samples: usize, plain: &Device) {
    let widths: [usize; 4] = sizes(words[1], ',').try_into().expect("step wants four widths");
    let (rows, side) = (sizes(words[2], 'x')[0], sizes(words[3], 'x')[0]);
    let batch = rows / TRANSFORMS;
    let device = plain.clone().autodiff();
    let normal = Distribution::Normal(0.0, 1.0);
    let x = Tensor::<4>::random([rows, 3, side, side], normal, &device);
    let labels = |n: usize| {
        let words: Vec<i32> = (0..rows).map(|row| (row % n) as i32).collect();
        Tensor::<1, Int>::from_ints(words.as_slice(), &device)
    };
    let (classes, transforms) = (labels(CLASSES), labels(TRANSFORMS));
    let bank = normalised(Tensor::<2>::random([batch, PROJECTION], normal, &device));
    let negatives = normalised(Tensor::<2>::random([NEGATIVES, PROJECTION], normal, &device));
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let mut optimiser = SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new().with_momentum(0.9).with_dampening(0.0)))
        .with_weight_decay(Some(WeightDecayConfig::new(5e-4)))
        .init();
    let mut net = Some(Net::new(widths, &device));
    time(what, "step", 0.0, samples, || {
        let Some(current) = net.take() else { return };
        let [class, transform, invariant] = current.forward(x.clone());
        let z = normalised(invariant);
        let first = z.clone().slice([0..batch]).repeat_dim(0, TRANSFORMS - 1);
        let anchors = Tensor::cat(vec![bank.clone(), first], 0);
        let positive = (anchors * z.clone()).sum_dim(1);
        let scores = Tensor::cat(vec![positive, z.matmul(negatives.clone().transpose())], 1);
        let contrast = log_softmax(scores, 1).slice([0..rows, 0..1]).mean().neg();
        let loss = cross_entropy.forward(class, classes.clone())
            + cross_entropy.forward(transform, transforms.clone())
            + contrast;
        let gradients = GradientsParams::from_grads(loss.backward(), &current);
        net = Some(optimiser.step(0.05, current, gradients));
        let loss: f32 = loss.into_scalar();
        device.sync().expect("the device works");
        assert!(loss.is_finite(), "the loss of {what} is {loss}");
    });
}

fn main() {
    let mut samples = 5;
    let mut arguments = std::env::args().skip(1);
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    while let Some(argument) = arguments.next() {
        if argument == "--samples" {
            samples = arguments.next().and_then(|n| n.parse().ok()).expect("--samples wants a number");
            continue;
        }
        let words: Vec<&str> = argument.split(':').collect();
        match words[0] {
            "conv" => convolution(&argument, &words, samples, &device),
            "step" => step(&argument, &words, samples, &device),
            other => panic!("{other} is neither conv nor step"),
        }
    }
}
