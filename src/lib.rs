//! Few-shot image embeddings trained on any GPU: hand-written WGSL kernels, a tiny tape, one static plan.
//!
//! The crate trains a network whose features tell new classes apart from one or five examples, by the method of Rizve,
//! Khan, Khan and Shah (CVPR 2021), which `docs/method.md` describes. It runs on Vulkan, Metal and DX12 through
//! [wgpu](https://wgpu.rs), and on a software adapter where there is no GPU.
//!
//! # A tour
//!
//! [`gpu::Gpu`] is an opened device. A [`tape::Graph`] records operations ([`ops`]), forward and backward, and an
//! [`Executor`](tape::exec::Executor) plans its memory once, compiles its shaders, and then runs it any number of times
//! without allocating buffers:
//!
//! ```
//! use ieq_wgpu::gpu::{Gpu, device::Options, kernel::Kernels};
//! use ieq_wgpu::ops::{elementwise::Add, reduce::Mean};
//! use ieq_wgpu::tape::exec::{Arenas, Executor};
//! use ieq_wgpu::tape::{Graph, Type, backward::backward};
//!
//! // The mean of a - 2 b, and its gradient with respect to b.
//! let mut graph = Graph::new();
//! let a = graph.in_arena("a", "a", Type::f32([4]), false);
//! let b = graph.in_arena("b", "b", Type::f32([4]), true);
//! let sum = graph.one(Add { alpha: 1.0, beta: -2.0 }, &[a, b])?;
//! let mean = graph.one(Mean, &[sum])?;
//! let gradient = backward(&mut graph, mean)?[&b];
//! graph.keep(mean);
//! graph.keep(gradient);
//!
//! let mut kernels = Kernels::new(Gpu::open(&Options::default())?);
//! let executor = Executor::new(&mut kernels, &mut Arenas::new(), graph)?;
//! executor.write(a, &[1.0_f32, 2.0, 3.0, 4.0])?;
//! executor.write(b, &[0.5_f32, 0.5, 0.5, 0.5])?;
//! executor.submit()?;
//! assert_eq!(executor.read::<f32>(mean)?, [1.5]);
//! assert_eq!(executor.read::<f32>(gradient)?, [-0.5; 4]);
//! # Ok::<(), ieq_wgpu::Error>(())
//! ```
//!
//! A [`train::Trainer`] records a whole training step that way, from [`settings::Config`] and a [`data::ImageSet`], and
//! replays it for every batch. Its [`train::Extractor`] turns images into features, and [`fewshot`] scores them. All of
//! the state is a [`train::checkpoint::Checkpoint`], whose tensors have PyTorch's names:
//!
//! ```
//! use std::sync::Arc;
//!
//! use ieq_wgpu::data::ImageSet;
//! use ieq_wgpu::gpu::{Gpu, device::Options};
//! use ieq_wgpu::progress::Silent;
//! use ieq_wgpu::settings::Config;
//! use ieq_wgpu::train::{Extractor, Trainer, checkpoint::Checkpoint, features::Layer};
//!
//! // 40 images of 16 x 16 pixels in 4 classes, each of one grey.
//! let (side, classes) = (16, 4);
//! let pixels = (0..40 * side * side).map(|i| (60 * (i / (side * side) % classes)) as u32 * 0x01_0101 | 0xff << 24);
//! let labels = (0..40).map(|image| (image % classes) as u32).collect();
//! let class_names = (0..classes).map(|class| format!("grey {class}")).collect();
//! let names = (0..40).map(|image| format!("image {image}")).collect();
//! let images = Arc::new(ImageSet::new(side, pixels.collect(), labels, class_names, names)?);
//!
//! let mut config = Config::from_preset("demo")?;
//! config.data.side = Some(side);
//! config.model.widths = vec![8, 8, 8, 8];
//! config.method.negatives = 16;
//! let gpu = Gpu::open(&Options::default())?;
//! let mut trainer = Trainer::new(gpu.clone(), &config, images.clone(), None)?;
//! let report = trainer.step()?;
//! assert!(report.loss.is_finite());
//!
//! let bytes = trainer.checkpoint()?.to_bytes()?;
//! let checkpoint = Checkpoint::from_bytes("memory", &bytes)?;
//! let (extractor, _) = Extractor::open(gpu, "memory".as_ref(), &checkpoint, false)?;
//! let features = extractor.features(&images, Layer::Feature, None, &mut Silent)?;
//! assert_eq!(features.len(), 40 * 8);
//! # Ok::<(), ieq_wgpu::Error>(())
//! ```
//!
//! The folder `examples/` has more: training from arrays, a custom loss with its own WGSL, embeddings to a matrix.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | (none) | devices, operations, tape, network, training, few-shot evaluation, checkpoints as bytes |
//! | `reflect` | shaders of the caller, reflected when the program runs |
//! | `files` | files replaced in one step: checkpoints on disk |
//! | `resize` | decoded pictures to squares of a network's side |
//! | `formats` | readers of images, zips, idx, pickle and NumPy files |
//! | `parquet` | embeddings as Parquet |
//! | `bench` | times of kernels and steps, with what the device can do at best |
//! | `jobs` | what the program does, as requests and outcomes |
//! | `cli` (default) | the program `ieq-wgpu` |
//! | `mpi` | ranks that are processes, started by `mpirun` |
//!
//! # Layers
//!
//! Imports point downwards only, from file to file: `cli` → `jobs` → `page` → [`bench`](mod@bench) → [`train`] →
//! [`fewshot`] → [`data`] → [`ier`] → [`nn`] → [`tape`] and [`ops`] → [`gpu`] → [`ranks`] → [`random`] →
//! [`settings`] → [`progress`] → [`files`] → [`error`]. `ARCHITECTURE.md` is the map.

#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod error;
pub mod fewshot;
pub mod files;
pub mod gpu;
pub mod ier;
#[cfg(feature = "jobs")]
pub mod jobs;
pub mod nn;
pub mod ops;
#[cfg(feature = "jobs")]
pub mod page;
pub mod progress;
pub mod random;
pub mod ranks;
pub mod settings;
pub mod tape;
pub mod train;

pub use error::{Error, Result};
