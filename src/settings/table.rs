//! The table of settings: one row per setting. Structs, defaults, ranges, flags, help texts, and what a resumed run may
//! change are all made from it, so a new setting is a row here and its use.

use std::path::PathBuf;

use super::byte_size::ByteSize;
use super::choices::{
    Activations, Backbone, BatchStatistics, DecayAt, Length, LrSchedule, Matrix, Method, OnDeviceLost, Recipe, Tune,
    Winograd,
};
use super::drop_block::DropBlockSize;
use super::macros::settings;
use super::row::{Chooser, Effect, Flag, flag, switch};
use super::time_span::TimeSpan;
use super::transforms::TransformSet;
use super::values::{End, Leaf, Range, Read, Value, list};

/// A row of the table.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Setting {
    /// The key in files, such as `optimiser.lr`.
    pub key: &'static str,
    /// The heading of its flags in the help.
    pub heading: &'static str,
    /// The flags that give it a value, the usual one first.
    pub flags: &'static [Flag],
    /// What it changes.
    pub effect: Effect,
    /// Who may choose it where the user did not.
    pub chooser: Chooser,
    /// The names that it may have, where it has one.
    pub names: &'static [&'static str],
    docs: &'static [&'static str],
    read: Read,
    pub(super) get: fn(&Config) -> Option<toml::Value>,
    pub(super) set: fn(&mut Config, toml::Value) -> Result<(), toml::de::Error>,
    pub(super) copy: fn(&mut Config, &Config),
    pub(super) same: fn(&Config, &Config) -> bool,
    pub(super) leaves: fn(&Config) -> Vec<Leaf>,
    pub(super) form: fn(&Config) -> &'static str,
}

impl Setting {
    /// What `flag` does, for a line of help.
    pub fn short_help(&self, flag: &Flag) -> String {
        let text = self.long_help(flag);
        text.split("\n\n").next().unwrap_or_default().trim_end_matches('.').to_owned()
    }

    /// What `flag` does, in full, paragraphs with an empty line between them.
    pub fn long_help(&self, flag: &Flag) -> String {
        if !flag.help.is_empty() {
            return flag.help.to_owned();
        }
        let paragraphs = self.docs.split(|line| line.trim().is_empty());
        let joined = paragraphs.map(|lines| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "));
        joined.collect::<Vec<_>>().join("\n\n")
    }

    /// How a word of `flag` is read.
    pub fn reader(&self, flag: &Flag) -> Read {
        flag.read.unwrap_or(self.read)
    }

    /// The flags, without dashes, that give the setting, or its form whose key is `key`, a value.
    pub fn flag_names(&self, key: &str) -> Vec<&'static str> {
        let of = |flag: &&Flag| !flag.hidden && (self.key == key || flag.form_key == key);
        self.flags.iter().filter(of).map(|flag| flag.name).collect()
    }

    /// The value in `config` as help shows it.
    pub fn shown(&self, config: &Config) -> String {
        match (self.get)(config) {
            None => "not set".into(),
            Some(toml::Value::String(text)) => text,
            Some(value) => value.to_string().replace(['{', '}', '[', ']', ' '], "").replace('=', " "),
        }
    }
}

/// Every setting, in the order in which they are listed to people.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    ROWS.iter().flatten()
}

/// The setting with this key, or with the key of one of its forms (`optimiser.length.steps`).
pub fn setting(key: &str) -> Option<&'static Setting> {
    let form = |flag: &Flag| !flag.form.is_empty() && flag.form_key == key;
    settings().find(|it| it.key == key || it.flags.iter().any(form))
}

/// Whether a run may be resumed with another value of the setting: it changes no number.
pub fn may_change_on_resume(key: &str) -> bool {
    setting(key).is_some_and(|it| it.effect != Effect::Numbers)
}

/// The flags, without dashes, of what a resumed run may change; all except that of the run folder, which names the run.
pub fn flags_for_resume() -> impl Iterator<Item = &'static str> {
    let free = settings().filter(|it| it.effect != Effect::Numbers && it.key != "run.out");
    free.flat_map(|it| it.flags).filter(|flag| !flag.hidden).map(|flag| flag.name)
}

/// The most blocks that a backbone may have: each halves the image, whose side is at most [`MAX_SIDE`].
pub const MAX_BLOCKS: usize = 8;

/// The largest side of an image.
pub const MAX_SIDE: usize = 1024;

const MAX_SEED: u64 = i64::MAX as u64;
const MAX_BYTES: u64 = 1 << 53;
/// A year.
const MAX_SECONDS: u64 = 366 * 86_400;
const STEPS: Range = Range::Whole(1, u32::MAX as u64);
const SHARE: Range = Range::Real(End::Without(0.0), End::Without(1.0));
const RISING_STEPS: Range = Range::List { least: 0, most: 10_000, rising: true, each: &STEPS };
const RISING_SHARES: Range = Range::List { least: 0, most: 10_000, rising: true, each: &SHARE };
const WIDTHS: Range = Range::List { least: 1, most: MAX_BLOCKS, rising: false, each: &Range::Whole(1, 4096) };

settings! {
    /// Everything a run depends on besides its data.
    struct Config at [] under "Data" {
        /// Settings to start from
        ///
        /// Without --preset, --config, --recipe and --data: demo. With --data alone the settings come from the pictures:
        /// see --recipe. A --config file that names neither preset nor recipe = "auto" starts from the published method's
        /// own numbers.
        preset: Option<String> = None, [Numbers, User, flag("preset", "NAME").on_screen()];
        /// Settings without a preset: auto or paper
        ///
        /// auto, the default for --data without --preset and --config: image side, mean, deviation, batch, widths, length
        /// and losses are chosen by the pictures, the device and --time. paper: the published losses, transforms and
        /// schedule, with side, mean, deviation and largest batch by the pictures. What is chosen is said with its reason
        /// and saved with the run; a flag or a line of --config wins.
        recipe: Recipe = Recipe::Paper, [Numbers, User, flag("recipe", "NAME")];
        /// Which images, and how they are prepared.
        data: DataConfig = DataConfig::default(), [];
        /// The network.
        model: ModelConfig = ModelConfig::default(), [];
        /// Transforms and losses.
        method: MethodConfig = MethodConfig::default(), [];
        /// Distillation from a teacher.
        distill: DistillConfig = DistillConfig::default(), [];
        /// Batch, length and learning rate.
        optimiser: OptimiserConfig = OptimiserConfig::default(), [];
        /// Seed, folder, memory and how often something is said or saved.
        run: RunConfig = RunConfig::default(), [];
    }

    /// Which images, and how they are prepared.
    struct DataConfig at [data] under "Data" {
        /// glyphs (embedded), or the path of images
        ///
        /// The path of class folders or a zip or tar of them, of idx files, pickles, .npz or .npy files, or of a folder
        /// of such files; or webdataset's shards, 'x-{000000..000099}.tar'. glyphs are drawn by the program and need no file.
        source: String = "glyphs".into(),
            [Numbers, User, flag("data", "SRC").range(Range::NotEmpty, &["glyphs", "a folder"]).on_screen()];
        /// Image side, pixels
        ///
        /// Where it is not set: the images' own side.
        side: Option<usize> = None, [Numbers, User, flag("side", "S").whole(1, MAX_SIDE as u64, &["32"])];
        /// Zero padding before the random crop, pixels
        ///
        /// Where it is not set: an eighth of the side, at most 8.
        crop_padding: Option<usize> = None,
            [Numbers, User, flag("crop-padding", "P").whole(0, MAX_SIDE as u64, &["4"])];
        /// Channel means, of images in 0..1; one number or three
        ///
        /// Subtracted from images that are scaled to 0..1.
        mean: [f64; 3] = [0.472141, 0.453308, 0.409961],
            [Numbers, User, flag("mean", "R,G,B").closed(0.0, 1.0, &["0.5"])];
        /// Channel deviations, of images in 0..1; one number or three
        ///
        /// Images are divided by them after the means are subtracted.
        std: [f64; 3] = [0.277184, 0.26775, 0.28449],
            [Numbers, User, flag("std", "R,G,B").closed(1e-6, 1.0, &["0.25"])];
        /// Train without mirroring images at random
        ///
        /// For pictures whose mirror image means something else, such as letters. --flip switches it back on over a file that
        /// switches it off.
        flip: bool = true, [Numbers, User, switch("no-flip", false), switch("flip", true).hidden()];
        /// Strength of the random changes of colour: 0 for none
        ///
        /// Brightness, contrast and saturation are each multiplied by a factor within this of 1, in random order.
        jitter: f64 = 0.4, [Numbers, User, flag("jitter", "F").closed(0.0, 1.0, &["0.4"])];
        /// Seed of the class split where the data has none
        split_seed: u64 = 0, [Numbers, User, flag("split-seed", "N").whole(0, MAX_SEED, &["0"])];
        /// File that lists the split's classes
        ///
        /// JSON with a list of class names under each of train, val and novel; or a CSV table of images and labels,
        /// beside the tables of the other splits or with a column named split.
        split_file: Option<PathBuf> = None,
            [Numbers, User, flag("split-file", "FILE").range(Range::NotEmpty, &["split.json"])];
    }

    /// The network.
    struct ModelConfig at [model] under "Model" {
        /// resnet12 or conv4
        ///
        /// Another backbone than the preset's brings its published widths, unless they are given.
        backbone: Backbone = Backbone::Resnet12, [Numbers, User, flag("backbone", "NAME")];
        /// Channels per block, as many blocks as numbers
        ///
        /// From 1 to 8 blocks, each of which halves the image; the last number is the size of the embedding.
        widths: Vec<usize> = Backbone::Resnet12.default_widths(),
            [Numbers, User, flag("widths", "W,W,..").range(WIDTHS, &["64,64,64,64"])];
        /// Outputs of the invariance head
        projection: usize = 64, [Numbers, User, flag("projection", "N").whole(1, 4096, &["64"])];
        /// Dropout probability after the first half of the blocks
        dropout: f64 = 0.1, [Numbers, User, flag("dropout", "P").below(0.0, 1.0, &["0.1"])];
        /// DropBlock after the second half of the blocks.
        drop_block: DropBlockConfig = DropBlockConfig::default(), [];
    }

    /// DropBlock after the second half of the blocks.
    struct DropBlockConfig at [model.drop_block] under "Model" {
        /// Share dropped by DropBlock, after the second half of the blocks
        ///
        /// The share of the map once the ramp is over; 0 switches DropBlock off.
        rate: f64 = 0.1, [Numbers, User, flag("drop-block-rate", "P").below(0.0, 1.0, &["0.1"])];
        /// Side of DropBlock's squares, pixels of the feature map, or auto
        size: DropBlockSize = DropBlockSize::Auto,
            [Numbers, User, flag("drop-block-size", "N|auto").whole(1, MAX_SIDE as u64, &["2"])];
        /// Steps over which DropBlock's share grows from 0 to its rate
        ramp_steps: u32 = 40_000,
            [Numbers, User, flag("drop-block-ramp-steps", "N").whole(1, 100_000_000, &["40000"])];
    }

    /// Transforms and losses.
    struct MethodConfig at [method] under "Method" {
        /// ier (the full method) or baseline (cross-entropy only)
        kind: Method = Method::Ier, [Numbers, User, flag("method", "NAME")];
        /// rot4, crop4, rot4xcrop4, affine-K, projective-K
        ///
        /// The transforms that every image is shown under: 4, 4, 16, and K from 2 to 64 fixed warps.
        transforms: TransformSet = TransformSet::Rot4Crop4,
            [Numbers, User, flag("transforms", "SET").whole(2, 64, &["affine-8"])];
        /// Views of an image per step, the plain one among them
        ///
        /// The others are drawn anew for each image and step from the transforms of the set; what is not drawn is not
        /// computed. 1 shows images plain, without a transform loss. Where it is not set: all transforms.
        views: Option<usize> = None, [Numbers, User, flag("views", "M").whole(1, 64, &["2"])];
        /// Share of a step's images that get more than the plain view
        view_share: f64 = 1.0, [Numbers, User, flag("view-share", "F").above(0.0, 1.0, &["0.25"])];
        /// Side of the training pictures that the network sees, as a share
        ///
        /// The views of a step are made at the full side and averaged down to this share of it, rounded to whole pixels;
        /// each block halves them, so four blocks need 16. A step's time falls with the area. Progressive resizing is a
        /// small share that grows: --scale 0.625 --phases "0.5: scale=1". Validation, evaluation and embedding see the full
        /// side, so Conv4, which flattens its last map, cannot be trained at another.
        scale: f64 = 1.0, [Numbers, User, flag("scale", "F").above(0.0, 1.0, &["0.625"])];
        /// Weight of the class loss
        ///
        /// 0 switches it off, as --no-cross-entropy does.
        weight_class: f64 = 1.0, [Numbers, User, flag("weight-class", "W").closed(0.0, 1e6, &["1"])];
        /// Weight of the transform loss, in place of gamma
        ///
        /// 0 switches it off, as --no-equivariance does. Where it is not set: --gamma.
        weight_equivariance: Option<f64> = None,
            [Numbers, User, flag("weight-equivariance", "W").closed(0.0, 1e6, &["0.1"])];
        /// Weight of the contrastive loss, in place of gamma
        ///
        /// 0 switches it off, as --no-invariance does. Where it is not set: --gamma.
        weight_invariance: Option<f64> = None,
            [Numbers, User, flag("weight-invariance", "W").closed(0.0, 1e6, &["0.02"])];
        /// Classify a class's four rotations as classes of their own
        ///
        /// The classifier then has four outputs per class, and accuracy is that of class and rotation together. Needs a
        /// set with rotations. --no-joint-labels switches it off over a file that switches it on.
        joint_labels: bool = false,
            [Numbers, User, switch("joint-labels", true), switch("no-joint-labels", false).hidden()];
        /// Weight of the equivariance and invariance losses
        ///
        /// Each may have one of its own: --weight-equivariance, --weight-invariance. 0 still computes both losses, for
        /// the log alone.
        gamma: f64 = 1.0, [Numbers, User, flag("gamma", "W").closed(0.0, 1e6, &["1"])];
        // Below 1e-4 the exponents of the loss leave what f32 holds.
        /// Temperature of the contrastive loss
        tau: f64 = 1.0, [Numbers, User, flag("tau", "T").closed(1e-4, 1e6, &["1"])];
        /// Negatives drawn from the memory bank each step
        ///
        /// Fewer where the data set is smaller.
        negatives: usize = 6400, [Numbers, User, flag("negatives", "K").whole(1, 1_000_000, &["6400"])];
        /// Share of a memory-bank row that an update keeps
        bank_momentum: f64 = 0.99, [Numbers, User, flag("bank-momentum", "M").closed(0.0, 1.0, &["0.99"])];
        /// Draw negatives only among this many recently written rows
        ///
        /// The first write of a bank row then replaces it, and an image is compared with its bank row only once that has
        /// been written. Where it is not set: negatives are all rows, which begin at random.
        bank_recent: Option<usize> = None,
            [Numbers, User, flag("bank-recent", "N").whole(1, 1_000_000, &["1024"])];
        /// Method settings from a share of the run on, SHARE: key=value, ..
        ///
        /// Phases with a semicolon between them, such as "0.4: views=2, view_share=0.5; 0.7: views=1". Each lies over the one
        /// before. SHARE counts steps, and their arithmetic where phases differ in scale; so do warm-up and cosine then. May change: scale, views, view_share, weight_class, weight_equivariance, weight_invariance, gamma, tau,
        /// negatives, bank_momentum, label_smoothing, cross_entropy, equivariance, invariance; with --method baseline only
        /// scale and label_smoothing. A phase begins a new pass over the images, and its batch is the largest whose rows are
        /// no more than those of --batch before.
        phases: Vec<String> = Vec::new(), [Numbers, User, flag("phases", "LIST")];
        /// Share of each class target that is spread over all classes
        label_smoothing: f64 = 0.0, [Numbers, User, flag("label-smoothing", "E").below(0.0, 1.0, &["0.1"])];
        /// Train without the class loss
        ///
        /// --cross-entropy switches it back on over a file that switches it off.
        cross_entropy: bool = true,
            [Numbers, User, switch("no-cross-entropy", false), switch("cross-entropy", true).hidden()];
        /// Train without the transform loss
        ///
        /// --equivariance switches it back on over a file that switches it off.
        equivariance: bool = true,
            [Numbers, User, switch("no-equivariance", false), switch("equivariance", true).hidden()];
        /// Train without the contrastive loss
        ///
        /// --invariance switches it back on over a file that switches it off.
        invariance: bool = true, [Numbers, User, switch("no-invariance", false), switch("invariance", true).hidden()];
    }

    /// Distillation: a student learns from its own losses and from a teacher's outputs.
    struct DistillConfig at [distill] under "Distillation" {
        /// Students, each the teacher of the next
        generations: u32 = 1, [Numbers, User, flag("generations", "N").whole(1, 1000, &["1"]).on_screen()];
        /// Train the teacher first, with this share of the length
        ///
        /// Without --teacher: the students share the rest of --steps or --epochs. The teacher's run goes to the folder
        /// teacher, the students' to generation-1 and so on. 0 is for a teacher that is given.
        teacher_share: f64 = 0.0, [Numbers, User, flag("teacher-share", "F").below(0.0, 1.0, &["0.4"])];
        /// The length of a teacher and its students together, where this run is a part of it; saved with the run.
        whole: Option<Length> = None, [];
        /// Temperature of both divergences
        temperature: f64 = 4.0, [Numbers, User, flag("distill-temperature", "T").closed(1e-3, 1e6, &["4"])];
        /// Weight of the student's own losses
        weight_loss: f64 = 1.0, [Numbers, User, flag("weight-loss", "W").closed(0.0, 1e6, &["1"])];
        /// Weight of the sum of the four terms below
        weight_distill: f64 = 1.0, [Numbers, User, flag("weight-distill", "W").closed(0.0, 1e6, &["1"])];
        /// Weight of the divergence between class outputs
        kl_class: f64 = 1.0, [Numbers, User, flag("kl-class", "W").closed(0.0, 1e6, &["1"])];
        /// Weight of the divergence between transform outputs
        kl_transform: f64 = 1.0, [Numbers, User, flag("kl-transform", "W").closed(0.0, 1e6, &["1"])];
        /// Weight of the squared difference of the invariance head
        mse_invariant: f64 = 1.0, [Numbers, User, flag("mse-invariant", "W").closed(0.0, 1e6, &["1"])];
        /// Weight of the squared difference of embeddings
        ///
        /// In the authors' code, not in their paper.
        mse_feature: f64 = 1.0, [Numbers, User, flag("mse-feature", "W").closed(0.0, 1e6, &["1"])];
    }

    /// Batch, length, and stochastic gradient descent with momentum.
    struct OptimiserConfig at [optimiser] under "Optimiser" {
        /// Images per step (rows: times the transforms)
        batch: usize = 64, [Numbers, User, flag("batch", "B").whole(1, MAX_SEED, &["16"]).on_screen()];
        /// `{ epochs = N }` or `{ steps = N }`.
        length: Length = Length::Epochs(65), [
            Numbers,
            User,
            flag("epochs", "N")
                .help("Length in passes over the images")
                .form("epochs", "optimiser.length.epochs", u32::read)
                .whole(1, 1_000_000, &["65"])
                .on_screen(),
            flag("steps", "N")
                .help("Length in steps")
                .form("steps", "optimiser.length.steps", u32::read)
                .whole(1, 1_000_000_000, &["400"])
                .on_screen()
        ];
        /// Learning rate; the highest of the run
        lr: f64 = 0.05, [Numbers, User, flag("lr", "R").above(0.0, 100.0, &["0.05"])];
        /// Course of the learning rate: steps, cosine or one-cycle
        ///
        /// steps: it falls by the factor of --decay at given points. cosine: along half a cosine wave to nearly 0 at the end
        /// of the run. one-cycle: from a 25th of --lr up to it in the first 30 % of the run, then down to nearly 0.
        schedule: LrSchedule = LrSchedule::Steps, [Numbers, User, flag("schedule", "NAME")];
        /// Share of the run over which the rate rises linearly to --lr
        ///
        /// The first step has more than 0. Not with --schedule one-cycle, which rises by itself.
        warmup: f64 = 0.0, [Numbers, User, flag("warmup", "F").below(0.0, 1.0, &["0.1"])];
        /// Momentum
        momentum: f64 = 0.9, [Numbers, User, flag("momentum", "M").below(0.0, 1.0, &["0.9"])];
        /// Nesterov's momentum: go where the momentum will have led
        ///
        /// --no-nesterov switches it back off over a file that switches it on.
        nesterov: bool = false, [Numbers, User, switch("nesterov", true), switch("no-nesterov", false).hidden()];
        /// Weight decay, on every parameter unless --no-decay-norm
        weight_decay: f64 = 5e-4, [Numbers, User, flag("weight-decay", "W").closed(0.0, 1.0, &["0.0005"])];
        /// Largest Euclidean norm of the gradients of a step
        ///
        /// It is that of all tensors together. Larger gradients are scaled down to it; the log has the norm before that.
        /// Where it is not set: no limit.
        clip_norm: Option<f64> = None, [Numbers, User, flag("clip-norm", "N").above(0.0, 1e6, &["5"])];
        /// No weight decay on batch norms and biases
        ///
        /// That is on tensors with one dimension. --decay-norm switches it back on over a file that switches it off.
        decay_norm: bool = true, [Numbers, User, switch("no-decay-norm", false), switch("decay-norm", true).hidden()];
        /// Decay of a moving average of the weights, such as 0.99; 0 for none
        ///
        /// The average is what is scored, exported and taught by; it has the running statistics, too, and is updated after
        /// every step. A checkpoint has both.
        average: f64 = 0.0, [Numbers, User, flag("average", "D").below(0.0, 1.0, &["0.99"])];
        /// `{ epochs = [60] }`, `{ fractions = [0.6, 0.8] }` or `{ steps = [960, 1280] }`; an empty list keeps the rate.
        decay_at: DecayAt = DecayAt::Epochs(vec![60]), [
            Numbers,
            User,
            flag("decay-at-epochs", "N,..")
                .help("Lower the rate after these epochs, or none")
                .form("epochs", "optimiser.decay_at.epochs", list::<u32>)
                .range(RISING_STEPS, &["30,40,50"]),
            flag("decay-at-fractions", "F,..")
                .help("Lower the rate after these shares of the run, or none")
                .form("fractions", "optimiser.decay_at.fractions", list::<f64>)
                .range(RISING_SHARES, &["0.6,0.8"]),
            flag("decay-at-steps", "N,..")
                .help("Lower the rate after these steps, or none")
                .form("steps", "optimiser.decay_at.steps", list::<u32>)
                .range(RISING_STEPS, &["960,1280"])
        ];
        /// Factor on the learning rate of the blocks that --init took over
        ///
        /// The heads learn at the whole rate.
        backbone_rate: f64 = 1.0, [Numbers, User, flag("backbone-rate", "F").closed(0.0, 100.0, &["0.1"])];
        /// First blocks, of those that --init took over, that stay as they are
        ///
        /// Their batch norms run in evaluation mode, as they do when the network is used, and nothing is dropped in them. No
        /// gradient is computed for them, so a step is shorter.
        freeze: usize = 0, [Numbers, User, flag("freeze", "N").whole(0, MAX_BLOCKS as u64, &["2"])];
        /// Factor on the rate at each of these points; --schedule steps
        decay: f64 = 0.1, [Numbers, User, flag("decay", "F").above(0.0, 1.0, &["0.1"])];
    }

    /// Seed, folder, memory and how often something is said or saved.
    struct RunConfig at [run] under "Run" {
        /// Seed of every random choice
        seed: u64 = 0, [Numbers, User, flag("seed", "N").whole(0, MAX_SEED, &["0"])];
        /// Run folder
        ///
        /// Where it is not set: runs/ and the name of the preset, without a preset that of the data.
        out: Option<PathBuf> = None,
            [Neither, User, flag("out", "FOLDER").short('o').range(Range::NotEmpty, &["runs/mine"]).on_screen()];
        /// Time that the command takes, such as 20m or 8h
        ///
        /// In place of --steps and --epochs: a short calibration on the device measures steps, then the number of steps is
        /// fixed, without a preset the widths, too, and the run ends annealed, with its data read and its network scored
        /// within the time. What was measured is kept in the user's cache (IEQ_CACHE_DIR names another folder): from the
        /// second time on the same command makes the same run.
        time: Option<TimeSpan> = None,
            [Numbers, User, flag("time", "TIME").whole(1, MAX_SECONDS, &["20m", "8h"]).on_screen()];
        /// Length in rows through the network: views of images
        ///
        /// In place of --steps and --epochs. A row of a smaller picture (--scale) counts by its area, so that runs of equal
        /// rows do equal arithmetic. The number of steps follows, and is saved with the run.
        rows: Option<u64> = None, [Numbers, User, flag("rows", "N").whole(1, 1 << 50, &["51200"])];
        /// Checkpoint or run folder to start from
        ///
        /// The blocks are taken over, and must be the same; so is each head that fits, and one that does not, such as the
        /// classifier of another number of classes, is made anew. What was done is listed. Any .safetensors or .pth file
        /// with PyTorch's names will do. Of a run folder the network that validated best, or else the last one. Without a preset
        /// the recipe takes backbone and widths from there. `shipped` is the network of the program's own that suits the
        /// pictures. To resume the run the file is not needed.
        init: Option<PathBuf> = None,
            [Numbers, User, flag("init", "FILE|FOLDER").range(Range::NotEmpty, &["runs/other"])];
        /// Steps between checkpoints; 0 for one at the end
        checkpoint_every: u32 = 200, [Neither, User, flag("checkpoint-every", "N")];
        /// Steps between readings of the losses
        log_every: u32 = 10, [Neither, User, flag("log-every", "N").whole(1, 1_000_000, &["10"])];
        /// Write the log for TensorBoard, too
        ///
        /// As events.out.tfevents.* beside metrics.jsonl: losses, accuracy, rate, throughput, validation. A run that continues
        /// begins another file, and no step stands twice. Off by default: report.html shows the same without a server.
        tensorboard: bool = false,
            [Neither, User, switch("tensorboard", true), switch("no-tensorboard", false).hidden()];
        /// Steps between validations; 0 for none
        ///
        /// Scores the network on 600 fixed episodes of the validation classes, where the data has them, and keeps the best one
        /// (by the mean of 1-shot and 5-shot accuracy) as best.safetensors beside checkpoint.safetensors, the last one. It
        /// changes no number of the training. What takes a run folder takes the best; --resume goes on from the last.
        validate_every: u32 = 0, [Neither, User, flag("validate-every", "N")];
        /// Validations without gain that end the run; 0 for never
        ///
        /// A gain is more than the noise: half of the interval over the episodes. Two validations in a row without gain
        /// also end it where the step had no row wrong. A run with an annealed rate gains most at its end: leave it off.
        patience: u32 = 0, [Neither, User, flag("patience", "N")];
        /// Longest time that one submission holds the device, ms
        ///
        /// A step is cut into submissions by measured time, so that a desktop stays responsive and no watchdog resets the
        /// device; the numbers stay the same. 0 leaves every step in one piece.
        slice_ms: u32 = 100, [Neither, User, flag("slice-ms", "MS").whole(0, 60_000, &["100"])];
        /// Images per pass; the gradients of a batch's passes add up
        ///
        /// Splits the batch into micro-batches, which with --bn micro need less memory; it must divide --batch. The losses are
        /// means over the whole batch. Several ranks (mpirun) share the micro-batches out; without this flag as many as there
        /// are ranks.
        micro_batch: Option<usize> = None, [Numbers, Budget, flag("micro-batch", "N").whole(1, MAX_SEED, &["8"])];
        /// Convolutions to compute again instead of keeping them
        ///
        /// The backward pass then recomputes the output of this many convolutions, those that are cheapest for their size
        /// first, which needs less memory and more time; the numbers stay the same.
        recompute: usize = 0, [Memory, Budget, flag("recompute", "N").whole(0, 1_000_000, &["0"])];
        /// Storage of the outputs of convolutions: f32 or f16
        ///
        /// f16 keeps them in half precision until the backward pass: half the memory, other numbers; all arithmetic stays
        /// f32. Maps with rows of an odd length stay f32, too.
        activations: Activations = Activations::F32, [Numbers, Budget, flag("activations", "TYPE")];
        /// Batch norm of a split batch: exact or micro
        ///
        /// exact: statistics of the whole batch, so that all its micro-batches are computed at once. micro: statistics of each
        /// micro-batch, as the replicas of the authors' runs on several GPUs have them; each moves the running statistics in
        /// turn. Without this flag ranks have micro, and one process is to be told where it splits a batch.
        batch_norm: BatchStatistics = BatchStatistics::Exact, [Numbers, User, flag("bn", "KIND")];
        /// Winograd's convolution: auto, on or off
        ///
        /// Computes 3 x 3 convolutions of 64 channels or more with less than half of the multiplications; the numbers
        /// differ within rounding. auto is on for a software adapter, where it was measured to be faster, and off on a
        /// GPU; plan counts it as on, which takes a little more memory.
        winograd: Winograd = Winograd::Auto, [Numbers, Device, flag("winograd", "WHEN")];
        /// Products on matrix units: off, f16, f32x3 or auto
        ///
        /// Many GPUs multiply matrices of half precision in units of their own. f16 rounds the factors of convolutions, heads
        /// and similarities to 11 bits, f32x3 takes 22 in two parts; sums are f32. auto is f32x3 where the device's units give
        /// right numbers and are faster, else off; plan counts it as off. Experimental: Vulkan with
        /// VK_KHR_cooperative_matrix, and Metal. Only steps of training have it.
        matrix: Matrix = Matrix::Off, [Numbers, Device, flag("matrix", "KIND")];
        /// Choice among kernels: auto, off, quick or full
        ///
        /// quick measures the kernels that suit the device once for each size, full measures all of them anew; what was
        /// chosen is kept in the user's cache (IEQ_CACHE_DIR names another folder) and with the run, which auto and quick
        /// resume with. off goes by the kind of device. auto is quick on a GPU and off on a software adapter.
        tune: Tune = Tune::Auto, [Neither, User, flag("tune", "EFFORT")];
        /// Most memory on the device, such as 4GiB
        ///
        /// A run that needs more is made to fit: streamed images first, then recomputed convolutions, which change no
        /// number, then half-precision activations, then with --bn micro the largest micro-batches that fit. What was
        /// chosen, and its cost, is said and saved with the run.
        memory_budget: Option<ByteSize> = None,
            [Memory, User, flag("memory-budget", "SIZE").whole(1, MAX_BYTES, &["4GiB"]).on_screen()];
        /// Device lost: stop or resume
        ///
        /// stop: end with the command that resumes. resume: open the device again and continue from the last checkpoint,
        /// at most three times.
        on_device_lost: OnDeviceLost = OnDeviceLost::Stop, [Neither, User, flag("on-device-lost", "WHAT")];
        /// The settings of this section that `memory_budget` or the device chose, not the user, each with the value that
        /// the user gave where that is not the default (`recompute = 2`); saved with the run.
        chosen: Vec<String> = Vec::new(), [];
        /// The settings that the recipe or `run.time` chose, each with its reason (`data.mean: measured on 640 training
        /// images`); saved with the run.
        reasons: Vec<String> = Vec::new(), [];
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn leaves(prefix: &str, value: &serde_json::Value, out: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(map) if setting(prefix).is_none() => {
                for (key, value) in map {
                    leaves(&if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") }, value, out);
                }
            }
            _ => {
                out.insert(prefix.to_owned());
            }
        }
    }

    #[test]
    fn every_leaf_of_the_configuration_is_a_row() {
        let mut found = BTreeSet::new();
        leaves("", &serde_json::to_value(Config::default()).unwrap(), &mut found);
        // Not the user's to set.
        let own = ["run.chosen", "run.reasons", "distill.whole"];
        assert!(own.into_iter().all(|key| found.remove(key)));
        let keys: Vec<_> = settings().map(|row| row.key.to_owned()).collect();
        assert_eq!(keys.len(), found.len(), "a key stands twice");
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), found);
    }

    #[test]
    fn every_row_has_a_flag_of_its_own_and_help() {
        let mut names = BTreeSet::new();
        for row in settings() {
            assert!(!row.flags.is_empty(), "{}", row.key);
            for flag in row.flags {
                assert!(names.insert(flag.name), "--{} stands twice", flag.name);
                let (short, long) = (row.short_help(flag), row.long_help(flag));
                assert!(!short.is_empty() && long.starts_with(&short), "--{}: {short}", flag.name);
                let most = if flag.on_screen { 50 } else { 70 };
                assert!(short.len() <= most && !short.contains('`'), "--{}: {short}", flag.name);
                assert_eq!(flag.constant.is_some(), flag.value.is_empty(), "--{}", flag.name);
                assert!(row.flags.len() == 1 || flag.constant.is_some() || !flag.form.is_empty(), "--{}", flag.name);
                let form_key = format!("{}.{}", row.key, flag.form);
                assert!(flag.form.is_empty() && flag.form_key.is_empty() || flag.form_key == form_key, "{form_key}");
            }
        }
    }

    #[test]
    fn defaults_lie_in_their_ranges_and_read_back() {
        let default = Config::default();
        default.validate().unwrap();
        let mut empty = Config::default();
        empty.optimiser.lr = 7.0;
        for row in settings() {
            row.check(&default).unwrap();
            if let Some(value) = (row.get)(&default) {
                (row.set)(&mut empty, value).unwrap();
            }
            assert!((row.same)(&empty, &default), "{}", row.key);
        }
        assert_eq!(empty, default);
    }

    /// The words just outside a range.
    fn outside(range: &Range) -> Vec<String> {
        let up = |x: f64| (x + x.abs().max(1.0)).to_string();
        let down = |x: f64| (x - x.abs().max(1.0)).to_string();
        match range {
            Range::Any => Vec::new(),
            Range::Whole(low, high) => {
                [low.checked_sub(1), high.checked_add(1)].into_iter().flatten().map(|n| n.to_string()).collect()
            }
            Range::Real(low, high) => {
                let ends = [(low, down as fn(f64) -> String), (high, up)];
                let mut words = vec!["nan".to_owned()];
                for (end, beyond) in ends {
                    words.push(match end {
                        End::With(x) => beyond(*x),
                        End::Without(x) => x.to_string(),
                    });
                }
                words
            }
            Range::NotEmpty => vec![String::new()],
            Range::List { least, most, rising, each } => {
                let mut words = outside(each);
                if *most < 100 {
                    words.push(vec!["1"; most + 1].join(","));
                }
                assert!(*least <= 1);
                if *rising {
                    words.extend(["0.5,0.2".to_owned(), "3,3".into()]);
                }
                words
            }
        }
    }

    /// Either the word cannot be read, or what it means is refused by the range.
    fn refused(row: &Setting, flag: &Flag, word: &str) -> bool {
        let Ok(value) = row.reader(flag)(word) else { return true };
        let mut layer = toml::Table::new();
        super::super::put(&mut layer, if flag.form_key.is_empty() { row.key } else { flag.form_key }, value);
        let mut config = Config::default();
        config.lay(&layer).is_err() || row.check(&config).is_err()
    }

    #[test]
    fn every_range_refuses_what_lies_outside_and_takes_its_examples() {
        for (row, flag) in settings().flat_map(|row| row.flags.iter().map(move |flag| (row, flag))) {
            for word in outside(&flag.range) {
                let word = if row.key == "method.transforms" { format!("affine-{word}") } else { word };
                assert!(refused(row, flag, &word), "--{} {word}", flag.name);
            }
            for example in flag.examples.iter().filter(|example| !example.contains(' ')) {
                assert!(!refused(row, flag, example), "--{} {example}", flag.name);
            }
            assert_eq!(flag.range == Range::Any, flag.examples.is_empty(), "--{}", flag.name);
        }
    }

    /// What may change is what changes no number: with the names of today, so that a new row is a decision.
    #[test]
    fn a_resumed_run_may_change_what_changes_no_number() {
        let flags: Vec<_> = flags_for_resume().collect();
        let wanted = [
            "checkpoint-every",
            "log-every",
            "tensorboard",
            "validate-every",
            "patience",
            "slice-ms",
            "recompute",
            "tune",
            "memory-budget",
            "on-device-lost",
        ];
        assert_eq!(flags, wanted);
        assert!(may_change_on_resume("run.out") && !may_change_on_resume("optimiser.lr"));
        assert!(!may_change_on_resume("optimiser.length.steps") && !may_change_on_resume("nonsense"));
    }

    #[test]
    fn values_are_shown_as_flags_take_them() {
        let demo = Config::from_preset("demo").unwrap();
        for (key, shown) in [
            ("optimiser.lr", "0.05"),
            ("optimiser.length", "steps 500"),
            ("optimiser.schedule", "cosine"),
            ("optimiser.weight_decay", "0.0005"),
            ("model.widths", "8,16,32,64"),
            ("model.drop_block.size", "auto"),
            ("run.memory_budget", "not set"),
            ("method.cross_entropy", "true"),
            ("data.source", "glyphs"),
        ] {
            assert_eq!(setting(key).unwrap().shown(&demo), shown, "{key}");
        }
    }
}
