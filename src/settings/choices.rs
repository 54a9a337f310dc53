//! The types of settings that are a choice: by name, or of one form among several.

use serde::{Deserialize, Serialize};

use super::names::named;

named! {
    /// The feature extractor.
    pub enum Backbone {
        /// Residual blocks of three 3x3 convolutions, averaged at the end; four of them are ResNet-12.
        Resnet12 = "resnet12",
        /// Blocks of one 3x3 convolution, flattened at the end; four of them are Conv4.
        Conv4 = "conv4",
    }
}

impl Backbone {
    /// Channels per block as published: 64, 160, 320, 640 for ResNet-12 and 64 four times for Conv4.
    pub fn default_widths(self) -> Vec<usize> {
        match self {
            Backbone::Resnet12 => vec![64, 160, 320, 640],
            Backbone::Conv4 => vec![64; 4],
        }
    }
}

named! {
    /// What is trained.
    pub enum Method {
        /// Class, transform and instance losses over all transforms of an image.
        Ier = "ier",
        /// Cross-entropy on one augmented view of an image.
        Baseline = "baseline",
    }
}

named! {
    /// Where the settings come from that nobody gave.
    pub enum Recipe {
        /// The published method's own numbers.
        Paper = "paper",
        /// What spends the run's length best, by the pictures and the device.
        Auto = "auto",
    }
}

named! {
    /// What to do when the device is lost: reset by the system, unplugged, or taken away.
    pub enum OnDeviceLost {
        /// End with the command that resumes the run.
        Stop = "stop",
        /// Open the device again and continue from the last checkpoint, a bounded number of times.
        Resume = "resume",
    }
}

named! {
    /// How the fastest of several kernels for the same work is found.
    pub enum Tune {
        /// Quick on a GPU, off on a software adapter, whose order is known.
        Auto = "auto",
        /// By the kind of device alone.
        Off = "off",
        /// By measuring those that suit the device, once for each size.
        Quick = "quick",
        /// By measuring all, thoroughly, whatever was chosen before.
        Full = "full",
    }
}

named! {
    /// How the outputs of convolutions are stored until the backward pass; all arithmetic is f32.
    pub enum Activations {
        /// As they are computed.
        F32 = "f32",
        /// Rounded to half precision: half the memory, other numbers.
        F16 = "f16",
    }
}

named! {
    /// Whether 3 x 3 convolutions with many channels are computed by Winograd's minimal filtering, with less than half of
    /// the multiplications; the numbers differ within rounding.
    pub enum Winograd {
        /// On a software adapter, where it was measured to be faster; a run keeps what its first device made of it. A
        /// plan, which has no device, counts it as on: a little more memory.
        Auto = "auto",
        /// On every adapter.
        On = "on",
        /// On none.
        Off = "off",
    }
}

impl Winograd {
    /// What `auto` is on such an adapter.
    pub fn resolved(self, software: bool) -> Self {
        match (self, software) {
            (Winograd::Auto, true) => Winograd::On,
            (Winograd::Auto, false) => Winograd::Off,
            (given, _) => given,
        }
    }
}

named! {
    /// Whether the products of a training step are computed by units that multiply matrices of half precision.
    pub enum Matrix {
        /// In f32, as everywhere.
        Off = "off",
        /// Factors rounded to half precision: 11 bits; sums in f32.
        F16 = "f16",
        /// Factors as two numbers of half precision: 22 bits, close to f32, for three times the products.
        F32x3 = "f32x3",
        /// [`Matrix::F32x3`] on a device whose units give right numbers and are faster; a run keeps what its first device
        /// made of it.
        Auto = "auto",
    }
}

impl Matrix {
    /// What `auto` is on a device that has such units, or has none that pay.
    pub fn resolved(self, units: bool) -> Self {
        match (self, units) {
            (Matrix::Auto, true) => Matrix::F32x3,
            (Matrix::Auto, false) => Matrix::Off,
            (given, _) => given,
        }
    }
}

named! {
    /// What batch norm normalises with where a batch is split into micro-batches.
    pub enum BatchStatistics {
        /// The statistics of the whole batch: but for rounding and what is drawn per micro-batch the numbers of a batch in one
        /// piece.
        Exact = "exact",
        /// The statistics of each micro-batch, as replicas on several GPUs have them.
        Micro = "micro",
    }
}

named! {
    /// How the learning rate goes over a run.
    pub enum LrSchedule {
        /// It falls by a factor at given points.
        Steps = "steps",
        /// It falls along half a cosine wave, to nearly 0 at the end of the run.
        Cosine = "cosine",
        /// It rises to its highest value and falls to nearly 0, each along half a cosine wave.
        OneCycle = "one-cycle",
    }
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Passes over the training images; an incomplete last batch is dropped.
    Epochs(u32),
    /// Training steps.
    Steps(u32),
}

/// When the learning rate falls; an empty list keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayAt {
    /// After each of these numbers of passes over the training images.
    Epochs(Vec<u32>),
    /// After each of these shares of the run.
    Fractions(Vec<f64>),
    /// After each of these numbers of steps, whatever the length of the run.
    Steps(Vec<u32>),
}
