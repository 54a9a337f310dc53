//! Bad input, as a user gives it: real files to the real program. Each case ends in its documented exit code and
//! one sentence that names the thing and the way out, prints nothing on stdout, and leaves every file as it was.
//!
//! What needs no file at all (a flag out of its range) is in `tests/cli.rs`, the dialects of data in `tests/data.rs`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use ieq_wgpu::train::checkpoint::{Checkpoint, Tensor};
use image::{ImageFormat, RgbImage};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

/// Stands for a training run of two steps into the folder `new`, its data last.
const TRAIN: &str = "TRAIN";
const TRAIN_WORDS: &str = "train --recipe paper --no-eval --backbone conv4 --widths 4,4,4,4 --projection 8 --transforms rot4 \
                           --negatives 4 --batch 4 --steps 2 --decay-at-fractions 0.6,0.8 --out new --data";

/// Words of the command line, exit code, and what stderr must say: the thing, and the way out.
type Case = (&'static str, i32, &'static [&'static str]);

const DATA: &[Case] = &[
    ("TRAIN absent", 2, &["absent: cannot read the data", "give a folder"]),
    ("TRAIN note.txt", 2, &["note.txt: is neither a zip", "give one of these"]),
    ("TRAIN one.png", 2, &["one.png: is one image", "give the folder"]),
    ("TRAIN data/none", 2, &["data/none:", "class folder"]),
    ("TRAIN data/hollow", 2, &["data/hollow/train/nothing: is a class folder without images", "remove it"]),
    ("TRAIN data/one-class", 2, &["data/one-class: the train split has one class", "add classes"]),
    ("TRAIN data/flat", 2, &["data/flat: the train split has one class", "add classes"]),
    ("TRAIN data/cut", 2, &["data/cut/train/train0/x.png: cannot be decoded", "replace it or remove it"]),
    ("TRAIN data/zero-bytes", 2, &["data/zero-bytes/train/train0/x.png: cannot be decoded", "replace it"]),
    ("TRAIN data/text", 2, &["data/text/train/train0/x.png: cannot be decoded", "replace it"]),
    ("TRAIN data/no-pixels", 2, &["data/no-pixels/train/train0/x.png: cannot be decoded", "replace it"]),
    ("TRAIN data/20000-square", 2, &["data/20000-square/train/train0/x.png: is too large", "shrink it"]),
    ("TRAIN data/20000-wide", 2, &["data/20000-wide/train/train0/x.png: is too large", "shrink it"]),
    ("TRAIN data/2-to-31", 2, &["data/2-to-31/train/train0/x.png: is too large", "shrink it"]),
    ("TRAIN data/foreign-file", 2, &["data/foreign-file/train/train0/x.toml: lies among images", "png, jpg"]),
    ("TRAIN data/two", 2, &["--batch (optimiser.batch) 4", "2 training images", "take 2 or fewer"]),
    ("TRAIN data/ok --batch 32", 2, &["batch of 32", "no negatives", "smaller --batch"]),
    ("TRAIN data/ok --batch 33", 2, &["--batch (optimiser.batch) 33", "take 32 or fewer"]),
    ("TRAIN data/flat3 --split-file absent", 2, &["absent: cannot read the split file", "look at the path"]),
    ("TRAIN data/flat3 --split-file note.txt", 2, &["note.txt:"]),
    ("TRAIN glyphs --split-file nine.json", 2, &["nine.json: cannot be used", "leave the split file out"]),
    ("TRAIN bomb.zip", 2, &["bomb.zip/train/a/0.png: unpacks to more than 200 times", "remove it"]),
    ("TRAIN cut.zip", 2, &["cut.zip: is not a whole zip", "again"]),
    ("TRAIN hostile.pickle", 2, &["hostile.pickle: refers to os.system", "only NumPy arrays"]),
    ("TRAIN cut.pickle", 2, &["cut.pickle:", "again"]),
    ("TRAIN cut.idx", 2, &["cut.idx"]),
    ("TRAIN run/checkpoint.safetensors", 2, &["run/checkpoint.safetensors: is neither", "give one of these"]),
];

#[cfg(unix)]
const UNIX_DATA: &[Case] = &[
    ("TRAIN data/loop", 2, &["data/loop/train/again", "leads back", "remove the link"]),
    ("TRAIN data/dangling", 2, &["data/dangling/train/train0/x.png: cannot be opened", "remove it if it is a link"]),
    ("TRAIN /dev/zero", 2, &["/dev/zero: is a device or a pipe", "give a file or a folder"]),
    ("embed run pipe.png", 2, &["pipe.png: is a device or a pipe", "give a file or a folder"]),
    ("train --config /dev/zero", 2, &["/dev/zero: is too long for a configuration", "name a TOML file"]),
    ("eval /dev/zero", 2, &["/dev/zero: there is no such file", "name a checkpoint"]),
];

const SETTINGS: &[Case] = &[
    ("TRAIN data/ok --lr nan", 2, &["--lr (optimiser.lr) must be above 0", "try 0.05"]),
    ("TRAIN data/ok --batch 1000000000", 2, &["--batch (optimiser.batch) 1000000000", "images or fewer"]),
    ("TRAIN data/ok --tau 1e-30", 2, &["--tau (method.tau) must be at least 0.0001", "try 1"]),
    (
        "train --recipe paper --data data/ok --schedule cosine --decay 0.5",
        2,
        &["--decay (optimiser.decay) has no effect", "leave --decay out"],
    ),
    (
        "train --recipe paper --data data/ok --schedule one-cycle --warmup 0.1",
        2,
        &["--warmup 0.1 (optimiser.warmup) would", "add --warmup 0"],
    ),
    ("TRAIN data/ok --average 1", 2, &["--average (optimiser.average) must be at least 0 and below 1", "try 0.99"]),
    ("TRAIN data/ok --clip-norm 0", 2, &["--clip-norm (optimiser.clip_norm) must be above 0", "try 5"]),
    ("TRAIN data/ok --label-smoothing 1", 2, &["--label-smoothing (method.label_smoothing) must be", "try 0.1"]),
    ("plan --phases 0.5:kind=baseline", 2, &["--phases (method.phases) must be about settings", "not kind"]),
    ("plan --phases 0.5:views=two", 2, &["--phases (method.phases) must be one with a value for views", "not two"]),
    ("plan --phases views=2", 2, &["--phases (method.phases) must be of the form SHARE: key", "0.5: views = 1"]),
    (
        "plan --method baseline --phases 0.5:views=1",
        2,
        &["has one loss and one view (scale, label_smoothing), not views"],
    ),
    ("plan --scale 0", 2, &["--scale (method.scale) must be above 0 and at most 1", "try 0.625"]),
    ("plan --scale 0.3", 2, &["--scale (method.scale) must be one that shows the network at least 16", "is 8 pixels"]),
    (
        "plan --phases 0.5:scale=0.3",
        2,
        &["--phases (method.phases) must be one whose scale shows the network at least 16"],
    ),
    ("plan --scale 0.75 --backbone conv4 --side 32", 2, &["--backbone conv4 (model.backbone) flattens it", "try 1"]),
    ("train --rows 0", 2, &["--rows (run.rows) must be from 1", "try 51200"]),
    ("train --rows 9 --steps 3", 2, &["--rows (run.rows)", "leave --rows out", "leave --steps out"]),
    ("train --rows 9 --time 5m", 2, &["--time (run.time)", "leave --rows out", "leave --time out"]),
    ("plan --views 9 --transforms crop4", 2, &["--views (method.views) must be from 1 to 4", "crop4"]),
    ("plan --joint-labels --transforms crop4", 2, &["needs rotations, and crop4 has none", "--transforms rot4"]),
    ("plan --view-share 0", 2, &["--view-share (method.view_share) must be above 0", "try 0.25"]),
    ("plan --bank-recent 0", 2, &["--bank-recent (method.bank_recent) must be from 1", "try 1024"]),
    ("TRAIN data/ok --tau inf", 2, &["--tau (method.tau)", "try 1"]),
    ("train --time 5m --steps 3", 2, &["--time (run.time)", "leave --time out", "leave --steps out"]),
    ("train --preset demo --recipe auto", 2, &["the preset demo has its own settings", "leave --recipe out"]),
    ("TRAIN data/ok --side 5", 2, &["--side (data.side) must be at least 16"]),
    ("TRAIN data/ok --side 1", 2, &["--side (data.side) must be at least 16"]),
    ("TRAIN data/ok --widths 0,4,4,4", 2, &["--widths (model.widths) must be from 1 to 4096", "try 64"]),
    // A step that no memory holds; an adapter says so by its limits or when it has run out.
    ("TRAIN glyphs --widths 4096,4096,4096,4096 --batch 64", 3, &["has 3288334336 bytes", "smaller --batch"]),
    ("TRAIN glyphs --widths 4096,4096,4096,4096 --batch 512", 2, &["exceeds 2^30 elements", "smaller batch"]),
    // A rate that is allowed, and too high: the run ends itself.
    (
        "TRAIN data/ok --lr 100 --steps 400 --method baseline",
        1,
        &["not finite at or before step", "lower --lr (it is 100)"],
    ),
    ("plan --widths 4096,4096,4096,4096 --batch 512", 2, &["exceeds 2^30 elements", "smaller batch"]),
    ("plan --data absent", 2, &["absent: cannot read the data", "give a folder"]),
    // What no run can come of, no plan is made for.
    ("plan --data data/one-class", 2, &["data/one-class: the train split has one class", "add classes"]),
    (
        "plan --recipe paper --data data/two --batch 4",
        2,
        &["--batch (optimiser.batch) 4", "2 training images", "take 2 or fewer"],
    ),
    ("plan --recipe paper --data data/ok --batch 32", 2, &["batch of 32", "no negatives", "smaller --batch"]),
    ("plan --classes 5 --images 9 --batch 10", 2, &["--batch (optimiser.batch) 10", "9 training images"]),
    ("check --filter nonsense", 2, &["no check has `nonsense`", "`check` lists all"]),
];

const ADAPTERS: &[Case] = &[
    ("TRAIN data/ok --adapter 99", 3, &["there is no adapter 99", "there are: 0:"]),
    ("TRAIN data/ok --adapter abacus", 3, &["contains \"abacus\"", "there are: 0:"]),
    ("eval run --data data/ok --adapter 99 --ways 2 --queries 3", 3, &["there is no adapter 99"]),
    ("devices --adapter 99", 3, &["there is no adapter 99"]),
    ("check --adapter abacus", 3, &["contains \"abacus\""]),
];

const CHECKPOINTS: &[Case] = &[
    ("eval broken/cut", 2, &["broken/cut/checkpoint.safetensors: is not a complete", "copy it again"]),
    ("eval broken/empty", 2, &["broken/empty/checkpoint.safetensors: is empty", "copy it again"]),
    (
        "eval broken/foreign",
        2,
        &["broken/foreign/checkpoint.safetensors: its metadata has no \"config\"", "name a checkpoint"],
    ),
    ("eval one.png", 2, &["one.png: is not a safetensors file", "name a checkpoint"]),
    ("eval bomb.zip", 2, &["bomb.zip: is a zip archive, as PyTorch files are", "name a file that torch.save"]),
    ("eval hostile.pth", 2, &["hostile.pth: refers to os.system", "save the weights alone with torch.save"]),
    ("train --init hostile.pth --data data/ok", 2, &["hostile.pth: refers to os.system", "save the weights alone"]),
    ("eval cut.pth", 2, &["cut.pth: is cut off or damaged", "copy or download it again"]),
    ("embed packed.pth one.png", 2, &["packed.pth: was packed by another program", "save it again with torch.save"]),
    ("export hostile.pth --to safetensors --out new.safetensors", 2, &["hostile.pth: refers to os.system"]),
    ("export run --to pth --out note.txt", 2, &["note.txt: this file is there already", "--overwrite"]),
    ("export run --to pth --out absent/net.pth", 2, &["absent: there is no such folder", "create it first"]),
    ("export run --to pth --out data", 2, &["data: this is a folder", "name another (try network.pth)"]),
    ("export run --to pth --out new.pth --preset fc100", 2, &["it has settings of its own", "leave them out"]),
    ("export run --to pth --out new.pth --side 32", 2, &["--mean (data.mean)", "no tensor says it", "add --preset"]),
    ("export plain.pth --to pth --out new.pth --config side.toml", 2, &["--mean (data.mean)", "no tensor says it"]),
    ("export plain.pth --to pth --out new.pth --side 32 --mean 0.5", 2, &["--std (data.std)", "add --preset"]),
    (
        "export shipped:strokes --to pth --out new.pth --preset fc100",
        2,
        &["it has settings of its own", "leave them out"],
    ),
    ("predict --model two.zip --support data/flat3 one.png", 2, &["two.zip: is a zip archive", "has no data.pkl"]),
    ("export shipped --to pth --out new.pth", 2, &["name the network, as in shipped:strokes"]),
    ("export broken/shape --to onnx --out new.onnx", 2, &["does not fit the network: of another shape"]),
    ("convert data/ok --to tar --out data/ok/new", 2, &["data/ok/new: lies inside", "name a place outside"]),
    ("convert data/ok --to zip --out note.txt", 2, &["note.txt: is there already", "name another place"]),
    ("convert data/ok --to tar --shard-size 0 --out new", 2, &["--shard-size", "at least 1 (try 10000)"]),
    ("convert one.png --to tar --out new", 2, &["one.png: is one image", "the class folders"]),
    ("convert absent-{0-9}.tar --to npz --out new", 2, &["{0-9}, which is neither a range", "a range has two dots"]),
    ("convert data/ok --to jpeg --out new", 2, &["invalid value 'jpeg'", "--to"]),
    ("export run --to keras --out new.h5", 2, &["invalid value 'keras'", "--to"]),
    ("export broken/nan --to pth --out new.pth", 2, &["not finite", "use a checkpoint from before"]),
    ("export broken/missing --to pth --out new.pth", 2, &["does not fit the network: missing"]),
    ("inspect hostile.pth", 2, &["hostile.pth: refers to os.system"]),
    ("eval hostile.pickle", 2, &["hostile.pickle: is", "name a checkpoint"]),
    ("eval broken/overlapping", 2, &["broken/overlapping/checkpoint.safetensors: is not a complete", "copy it again"]),
    ("eval broken/overflowing", 2, &["broken/overflowing/checkpoint.safetensors: is not a complete", "copy it again"]),
    ("eval broken/nested", 2, &["broken/nested/checkpoint.safetensors: is not a complete", "copy it again"]),
    ("eval broken/announcing", 2, &["broken/announcing/checkpoint.safetensors: is cut short", "copy it again"]),
    (
        "eval broken/nan",
        2,
        &["broken/nan/checkpoint.safetensors: tensor", "not finite", "use a checkpoint from before"],
    ),
    (
        "eval broken/shape --ways 2 --queries 3",
        2,
        &["does not fit the network: of another shape", "set the backbone, widths"],
    ),
    ("eval broken/missing --ways 2 --queries 3", 2, &["does not fit the network: missing", "set the backbone, widths"]),
    (
        "eval broken/widths-0",
        2,
        &["broken/widths-0/checkpoint.safetensors: its configuration cannot be used", "--widths"],
    ),
    ("eval broken/no-json", 2, &["broken/no-json/checkpoint.safetensors: its configuration cannot be understood"]),
    (
        "eval broken/classes-0 --ways 2 --queries 3",
        2,
        &["broken/classes-0/checkpoint.safetensors: it claims 0 classes", "copy the checkpoint"],
    ),
    (
        "eval broken/classes-many --ways 2 --queries 3",
        2,
        &["broken/classes-many/checkpoint.safetensors: it claims 1000000000 classes"],
    ),
    ("embed broken/side-5 one.png", 2, &["broken/side-5/checkpoint.safetensors: its image side cannot be used"]),
    ("embed broken/side-huge one.png", 2, &["broken/side-huge/checkpoint.safetensors: its image side cannot be used"]),
    ("train --no-eval --resume broken/steps-over", 2, &["it claims 3 steps of 2", "use an earlier checkpoint"]),
    ("train --no-eval --resume broken/steps-below", 2, &["has no number \"step\"", "name a checkpoint"]),
    ("train --no-eval --resume broken/no-momentum", 2, &["does not fit the network: missing train.momentum"]),
    (
        "train --no-eval --resume broken/log",
        2,
        &["broken/log/metrics.jsonl: line 1 is not a metric record", "move the file away"],
    ),
    (
        "train --no-eval --resume run --data glyphs",
        2,
        &["--resume goes on with the settings of run", "data.source", "leave them out"],
    ),
    ("train --no-eval --resume run --lr 0.2", 2, &["optimiser.lr", "leave them out", "--out"]),
    ("train --no-eval --resume moved", 2, &["the run had 32 images, the data has 28", "give the data of the run"]),
    (
        "train --no-eval --resume repainted",
        2,
        &["repainted/checkpoint.safetensors: the run was begun with another data", "start a new run"],
    ),
    (
        "distill --no-eval --resume --teacher other --out students",
        2,
        &["begun with another teacher", "start a new run"],
    ),
    (
        "distill --no-eval --teacher run --data glyphs --out new",
        2,
        &["run/checkpoint.safetensors: does not fit the network", "classes"],
    ),
    (
        "distill --no-eval --teacher broken/cut --out new",
        2,
        &["broken/cut/checkpoint.safetensors: is not a complete", "copy it again"],
    ),
    ("distill --no-eval --teacher run --out run", 2, &["run: this is the teacher's own folder", "--out"]),
];

const EVALUATION: &[Case] = &[
    ("eval run --ways 100", 2, &["100-way episodes need 100 classes", "lower the ways"]),
    ("eval run --ways 2 --shots 1000", 2, &["1000 shots", "lower the ways, shots or queries"]),
    (
        "eval run --ways 2 --data data/two",
        2,
        &["need 16 images per class and class novel0 has 1", "choose another split"],
    ),
    // A run's split file goes with it to other data, so that no class which it trained on counts as novel.
    ("eval nine --data data/ok", 2, &["nine.json: puts \"class0\" into train", "--split-file names another, or none"]),
    ("eval nine --data glyphs", 2, &["nine.json: cannot be used", "--split-file names another, or none"]),
    (
        "eval nine --data ./data/nine --split-file none --ways 3 --queries 3",
        2,
        &["3-way episodes need 3 classes and the split has 2", "lower the ways"],
    ),
    ("embed nine --data data/ok", 2, &["nine.json: puts \"class0\" into train", "--split-file names another, or none"]),
    ("eval run --split-file absent", 2, &["absent: cannot read the split file", "look at the path"]),
    ("eval run --split nonsense", 2, &["unknown split \"nonsense\"", "choose train, val or novel"]),
    ("eval run --oneshot", 2, &["data/ok: there is no `oneshot` folder", "run01"]),
    (
        "eval run --episodes official --shots 99",
        2,
        &["5-way episodes need 5 classes and the split has 4", "choose fewer shots"],
    ),
    ("eval run --shots 1 --episodes note.txt", 2, &["note.txt: is not a safetensors file", "give one with episodes"]),
    (
        "eval run --shots 1 --episodes broken/cut/checkpoint.safetensors",
        2,
        &["is not a safetensors file", "give one with episodes"],
    ),
    (
        "eval run --shots 7 --episodes episodes/good",
        2,
        &["episodes/good: has no tensor 7shot (it has 1shot)", "choose other shots"],
    ),
    (
        "eval run --shots 1 --episodes episodes/beyond",
        2,
        &["32 is not the index of one of the 32 images", "choose the split"],
    ),
    ("eval run --shots 1 --episodes episodes/below", 2, &["-1 is not the index", "choose the split"]),
    ("eval run --shots 1 --episodes episodes/single", 2, &["shape [1, 2, 3]", "2 episodes"]),
    ("embed run note.txt", 2, &["note.txt", "holds no image", "png, jpg"]),
    ("embed run data/none", 2, &["data/none: holds no image", "png, jpg"]),
    ("embed run hostile.pickle", 2, &["hostile.pickle: holds arrays", "give images"]),
    ("embed run data/cut --strict", 2, &["data/cut/train/train0/x.png: cannot be decoded", "remove it"]),
    (
        "embed plain --shards absent-{0..3}.tar --out o",
        2,
        &["absent-0.tar: there is no such archive", "look at the pattern"],
    ),
    ("embed plain --shards data/ok --out one.png", 2, &["one.png: this is a file", "--out is a folder here"]),
    (
        "embed plain --shards data/ok/ data/ok --out o",
        2,
        &["data/ok: its embeddings would have the name", "each shard once"],
    ),
    ("embed plain --shards .. --out o", 2, &["..: this names no shard", "x-000000.tar"]),
    ("embed plain one.png --layer transform", 2, &["without this head", "choose another --layer"]),
    ("embed plain one.png --tolerance nan", 2, &["--tolerance must be at least 0", "as in 0.0001"]),
    ("embed plain one.png --compare absent.csv", 2, &["absent.csv: cannot read the embeddings", "look at the path"]),
    ("embed plain one.png --compare one.png", 2, &["one.png: its ending names no format", ".safetensors"]),
    ("embed plain one.png --compare six.json", 2, &["six.json: its ending names no format", ".csv"]),
    (
        "embed plain one.png --compare broken/cut/checkpoint.safetensors",
        2,
        &["broken/cut/checkpoint.safetensors: has no tensor embeddings", "name a file of embeddings"],
    ),
    (
        "embed plain one.png --compare broken/announcing/checkpoint.safetensors",
        2,
        &["is no whole file of embeddings", "copy it again"],
    ),
    (
        "embed plain one.png --compare other.csv",
        2,
        &["other.csv: is no table of embeddings", "its columns are path, e0"],
    ),
    ("ablate --variants neither --out new", 2, &["--variants has `neither`", "none, invariance, equivariance, both"]),
    (
        "ablate --variants distilled --out new",
        2,
        &["student of the network of both", "name both before it in --variants"],
    ),
    ("ablate --variants both,both --out new", 2, &["--variants has both twice"]),
    ("ablate --variants none --out data", 2, &["data: holds files that are no ablation's", "--out"]),
    ("ablate --variants none --out note.txt", 2, &["note.txt: this is a file", "--out wants a folder"]),
    ("audit absent --model plain", 2, &["absent: there is no such folder, zip or tar"]),
    ("audit note.txt --model plain", 2, &["note.txt: holds no image", "png, jpg"]),
    ("audit hostile.pickle --model plain", 2, &["hostile.pickle: holds arrays", "give images"]),
    ("audit cut.zip --model plain", 2, &["cut.zip: is not a whole zip", "again"]),
    ("audit data/none --model plain", 2, &["data/none: holds no image"]),
    ("audit data/ok --model absent", 2, &["absent: there is no such file", "name a checkpoint"]),
    ("audit data/ok --model one.png", 2, &["one.png: is not a safetensors file"]),
    ("audit data/ok --model plain --likeness 2", 2, &["--likeness must be from 0.5 to 1", "try 0.985"]),
    ("audit data/ok --model plain --likeness nan", 2, &["--likeness must be from 0.5 to 1"]),
    ("audit data/ok --model plain --label-ratio 1", 2, &["--label-ratio must be above 1", "try 20"]),
    (
        "audit data/ok --model plain --csv other.csv",
        2,
        &["other.csv: this file is no such table", "--csv would replace it", "name another"],
    ),
    ("audit data/ok --model plain --csv absent/x.csv", 2, &["absent: there is no such folder", "create it"]),
    ("audit data/ok --model plain --sheet data", 2, &["data: this is a folder", "--sheet wants to write a file"]),
    (
        "audit data/ok --model plain --sheet data/ok/train/train0/0.png",
        2,
        &["0.png: this file is no contact sheet", "--sheet would replace it", "name another"],
    ),
    (
        "audit data/ok --model plain --csv new.x --sheet new.x",
        2,
        &["--csv and --sheet name the same file, new.x", "two files"],
    ),
];

const ANSWERS: &[Case] = &[
    ("predict --model run --support data/flat3 absent.png", 2, &["absent.png: there is no such file or folder"]),
    ("predict --model run --support absent one.png", 2, &["absent: there is no such file or folder"]),
    ("predict --model absent --support data/flat3 one.png", 2, &["absent: there is no such file", "name a checkpoint"]),
    (
        "predict --model shipped:nonsense --support data/flat3 one.png",
        2,
        &["shipped:nonsense: this build ships no network", "a checkpoint or"],
    ),
    ("predict --model run one.png", 2, &["there is no support", "--support names a folder", "--add a class"]),
    ("predict --model run --support data/flat3/class0 one.png", 2, &["lies in no class folder", "--support wants"]),
    ("predict --model run --support data/flat one.png --unknown off", 2, &["the one class only", "--unknown 0.05"]),
    ("predict --model run --support data/flat3 one.png --unknown 2", 2, &["--unknown must be a share", "try 0.05"]),
    ("predict --model run --support data/flat3 one.png --unknown nan", 2, &["--unknown must be a share", "try 0.05"]),
    ("predict --model run --support data/flat3 one.png --unknown some", 2, &["a share such as 0.05, or off"]),
    ("predict --model run --add =one.png one.png", 2, &["--add =one.png has no name", "try cat=a.png"]),
    ("predict --model run --add cat one.png", 2, &["NAME=PICTURE is wanted", "cat=a.png"]),
    ("predict --model run --add cat=absent.png one.png", 2, &["absent.png: there is no such file"]),
    ("predict --model run --support data/cut note.txt", 2, &["note.txt: holds no image", "png, jpg"]),
    ("predict --model run --support data/none one.png", 2, &["data/none: holds no image", "png, jpg"]),
    ("predict --model run --support hostile.pickle one.png", 2, &["hostile.pickle: holds arrays", "give images"]),
    (
        "predict --model run --support data/flat3 one.png --csv note.txt",
        2,
        &["note.txt: this file is no such table", "--csv would replace it", "name another"],
    ),
    (
        "predict --model run --support data/flat3 one.png --save note.txt",
        2,
        &["note.txt: this file is no support", "--save would replace it", "name another"],
    ),
    (
        "predict --model run --support data/flat3 --save run/checkpoint.safetensors",
        2,
        &["run/checkpoint.safetensors: this file is no support", "name another"],
    ),
    (
        "predict --model run --support data/flat3 one.png --copy-to one.png",
        2,
        &["one.png: this is a file", "--copy-to wants a folder"],
    ),
    (
        "predict --model run --support data/flat3 data/ok --copy-to data/ok/sorted",
        2,
        &["data/ok/sorted: lies in data/ok", "name a --copy-to elsewhere"],
    ),
    (
        "predict --model run --add cat=data/ok one.png --copy-to data/ok/new/sorted",
        2,
        &["data/ok/new/sorted: lies in data/ok", "name a --copy-to elsewhere"],
    ),
    (
        "predict --model run --support data/flat3 one.png --csv new.x --save new.x",
        2,
        &["name the same file, new.x", "two files"],
    ),
    ("neighbors absent.png --in data/flat3 --model run", 2, &["absent.png: there is no such file", "name one picture"]),
    ("neighbors data --in data/flat3 --model run", 2, &["data: this is no file", "name one picture"]),
    ("neighbors two.zip --in data/flat3 --model run", 2, &["two.zip: holds 2 pictures", "name one picture"]),
    ("neighbors note.txt --in data/flat3 --model run", 2, &["note.txt: holds no image", "png, jpg"]),
    ("neighbors one.png --in absent --model run", 2, &["absent: there is no such file or folder", "--in wants"]),
    ("neighbors one.png --in data/flat3 --model run -k 0", 2, &["--k must be from 1"]),
    ("neighbors one.png --in data/flat3 --model shipped:nonsense", 2, &["this build ships no network"]),
    ("neighbors one.png --in data/flat3 --model run --csv note.txt", 2, &["no such table", "--csv would replace it"]),
    ("neighbors one.png --in text.npy --model run", 2, &["text.npy: is no", "name another"]),
    ("neighbors one.png --in wide.npy --model run", 2, &["wide.npy: has 3 columns", "--model"]),
    ("neighbors one.png --in flat.npy --model run", 2, &["flat.npy: holds an array of shape [2]", "rows x columns"]),
    (
        "neighbors one.png --in data/flat3 --model run --sheet data/flat3/class0/0.png",
        2,
        &["0.png: this file is no contact sheet", "--sheet would replace it"],
    ),
    ("neighbors one.png --in data/flat3 --model run --sheet note.txt", 2, &["note.txt: this file is no contact sheet"]),
    (
        "neighbors one.png --in data/flat3 --model run --csv new --sheet ./new",
        2,
        &["--csv and --sheet name the same file, new", "two files"],
    ),
];

const SEEING: &[Case] = &[
    ("views absent", 2, &["absent: cannot read the data", "give a folder"]),
    ("views data/cut", 2, &["data/cut/train/train0/x.png: cannot be decoded", "replace it or remove it"]),
    ("views note.txt one.png", 2, &["note.txt", "image"]),
    ("views one.png --number 0", 2, &["--number must be from 1 to 64, got 0"]),
    ("views one.png --draws 65", 2, &["--draws must be from 1 to 64, got 65"]),
    ("views data/ok --data data/ok", 2, &["both name pictures", "leave one of them out"]),
    ("views one.png --out absent/v.png", 2, &["absent: there is no such folder", "create it first"]),
    ("views one.png --out data", 2, &["data: this is a folder", "name another"]),
    ("views one.png --out one.png", 2, &["one.png: this file is no contact sheet", "--out would replace it"]),
    ("report absent", 2, &["absent: this is no run folder", "name one that `train` wrote"]),
    ("report data/ok", 2, &["data/ok: this is no run folder", "name one"]),
    ("report run --files-only --out note.txt", 2, &["note.txt: this file is no report", "name another with --out"]),
    ("report run --files-only --out absent/r.html", 2, &["absent: there is no such folder", "create it first"]),
    ("inspect absent", 2, &["absent: there is no such file or folder", "name a run folder"]),
    ("inspect note.txt", 2, &["note.txt: is neither a zip", "give one of these"]),
    ("inspect data/none", 2, &["data/none:", "class folder"]),
    ("compare run", 2, &["1 run folder is named", "name 2 to 32"]),
    ("compare run absent", 2, &["absent: this is no run folder", "name ones"]),
    ("compare run run --svg absent/c.svg", 2, &["absent: there is no such folder", "create it first"]),
    ("completions csh", 2, &["invalid value 'csh'"]),
    ("man absent", 2, &["absent: there is no such folder", "create it first"]),
    ("TRAIN data/ok --tui", 2, &["--tui wants a terminal", "leave it out"]),
];

const OUTPUT: &[Case] = &[
    ("TRAIN data/ok --out note.txt/run", 2, &["note.txt: this is a file", "--out wants a folder"]),
    ("TRAIN data/ok --out run", 2, &["run: this folder holds a run", "--resume", "--overwrite"]),
    (
        "TRAIN data/ok --out blocked --overwrite",
        2,
        &["blocked/checkpoint.safetensors: cannot remove the run", "--out names another"],
    ),
    (
        "embed run one.png --out data",
        2,
        &["data: this is a folder", "--out wants to write a file", "try embeddings.npy"],
    ),
    ("embed run one.png --out list.npy", 2, &["list.txt: this is a folder", "name another"]),
    ("embed run one.png --out one.png", 2, &["one.png: this file is one of the inputs", "name another"]),
    (
        "embed run data/ok --out data/ok/train/train0/0.png",
        2,
        &["0.png: this file is one of the inputs", "name another"],
    ),
    ("embed run one.png --out other.csv", 2, &["other.csv: this file holds no embeddings", "name another --out"]),
    ("embed run one.png --out answers.csv", 2, &["answers.csv: this file holds no embeddings", "name another --out"]),
    (
        "embed run one.png --out run/checkpoint.safetensors",
        2,
        &["run/checkpoint.safetensors: this file holds no embeddings", "name another --out"],
    ),
    (
        "embed run one.png --out begun.npy",
        2,
        &["begun.npy.part: this is what an earlier call", "--resume", "or remove"],
    ),
    ("embed run one.png --out begun.npy --resume", 2, &["begun.npy.part: this is no part file", "name another --out"]),
    ("embed run one.png --out note.npy", 2, &["note.txt: this file is no list of an array", "name another --out"]),
    ("train --resume run --out other", 2, &["--resume goes on in run", "names other", "leave one of them out"]),
    ("embed run one.png --out note.txt/x.npy", 2, &["note.txt: there is no such folder", "create it"]),
];

/// Paths where nobody can write, root neither.
#[cfg(target_os = "linux")]
const LINUX_OUTPUT: &[Case] = &[
    ("TRAIN data/ok --out /proc/run", 2, &["/proc/run: cannot create the run folder", "--out names another"]),
    ("TRAIN data/ok --out /dev/full", 2, &["/dev/full: this is a file", "--out wants a folder"]),
    ("embed run one.png --out /dev/full", 2, &["/dev/full: this is a folder or a device", "name another"]),
    ("embed run one.png --out /proc/x.npy", 2, &["/proc/x.npy: cannot write the embeddings", "look at the path"]),
];

fn cases() -> Vec<Case> {
    #[allow(unused_mut, reason = "some systems add cases")]
    let mut all = [DATA, SETTINGS, ADAPTERS, CHECKPOINTS, EVALUATION, ANSWERS, SEEING, OUTPUT].concat();
    #[cfg(unix)]
    all.extend(UNIX_DATA);
    #[cfg(target_os = "linux")]
    all.extend(LINUX_OUTPUT);
    all
}

// ---- the files --------------------------------------------------------------------------------------

fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn png(side: u32, seed: u8) -> Vec<u8> {
    let image = RgbImage::from_fn(side, side, |x, y| image::Rgb([(x as u8 * 9) ^ seed, y as u8 * 5, seed]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A picture that claims a size which it does not hold; the check sum of its header is right.
fn claiming(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(4, 0);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut sum = flate2::Crc::new();
    sum.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.sum().to_be_bytes());
    bytes
}

/// Split folders with `classes` classes of `images` images in each.
fn tree(root: &Path, name: &str, classes: u32, images: u32) {
    for split in ["train", "novel"] {
        for class in 0..classes {
            for i in 0..images {
                let seed = (16 * class + i + u32::from(split == "novel") * 100) as u8;
                write(root, &format!("data/{name}/{split}/{split}{class}/{i}.png"), png(28, seed));
            }
        }
    }
}

/// A good tree except for one picture.
fn tree_with(root: &Path, name: &str, odd: &str, bytes: impl AsRef<[u8]>) {
    tree(root, name, 4, 2);
    write(root, &format!("data/{name}/train/train0/{odd}"), bytes);
}

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, bytes) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn safetensors_of(header: &str, body: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), body].concat()
}

fn episodes(root: &Path, name: &str, shape: [usize; 3], indices: &[i64]) {
    let bytes: Vec<u8> = indices.iter().flat_map(|i| i.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::I64, shape.to_vec(), &bytes).unwrap();
    write(root, &format!("episodes/{name}"), safetensors::serialize([("1shot", view)], None).unwrap());
}

fn make_data(root: &Path) {
    tree(root, "ok", 4, 8);
    tree(root, "one-class", 1, 8);
    tree(root, "two", 2, 1);
    tree(root, "hollow", 3, 2);
    std::fs::create_dir_all(root.join("data/hollow/train/nothing")).unwrap();
    std::fs::create_dir_all(root.join("data/none")).unwrap();
    for class in 0..3 {
        for i in 0..4 {
            write(root, &format!("data/flat3/class{class}/{i}.png"), png(28, i));
        }
    }
    for class in 0..9 {
        for i in 0..4 {
            write(root, &format!("data/nine/class{class}/{i}.png"), png(28, 4 * class + i));
        }
    }
    let nine = r#"{"train": ["class0", "class1", "class2"], "val": ["class6", "class7", "class8"],
        "novel": ["class3", "class4", "class5"]}"#;
    write(root, "nine.json", nine);
    tree(root, "lone", 4, 8);
    for class in 1..4 {
        std::fs::remove_dir_all(root.join(format!("data/lone/novel/novel{class}"))).unwrap();
    }
    tree(root, "no-novel", 4, 8);
    std::fs::remove_dir_all(root.join("data/no-novel/novel")).unwrap();
    write(root, "data/flat/only/0.png", png(28, 0));
    let whole = png(28, 1);
    tree_with(root, "cut", "x.png", &whole[..whole.len() / 2]);
    tree_with(root, "zero-bytes", "x.png", b"");
    tree_with(root, "text", "x.png", b"this is no picture");
    tree_with(root, "no-pixels", "x.png", claiming(0, 0));
    tree_with(root, "20000-square", "x.png", claiming(20_000, 20_000));
    tree_with(root, "20000-wide", "x.png", claiming(20_000, 1));
    tree_with(root, "2-to-31", "x.png", claiming(i32::MAX as u32, i32::MAX as u32));
    tree_with(root, "foreign-file", "x.toml", b"a = 1");
    write(root, "one.png", png(28, 3));
    write(root, "note.txt", b"a note");
    write(root, "text.npy", b"a note");
    for (name, shape) in [("wide", "(1, 3)"), ("flat", "(2,)")] {
        let header = format!("{:<117}\n", format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"));
        let bytes = [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &[0, 0, 128, 63].repeat(3)].concat();
        write(root, &format!("{name}.npy"), bytes);
        write(root, &format!("{name}.txt"), b"a.png\n");
    }
    write(root, "other.csv", b"name,age\nme,9\n");
    write(root, "answers.csv", b"path,label,probability,cat\na.png,cat,1.0,1.0\n");
    write(root, "begun.npy.part", b"a diary");
    write(root, "bomb.zip", zip_of(&[("train/a/0.png", &vec![0; 64 << 20])]));
    let zip = zip_of(&[("train/a/0.png", &whole)]);
    write(root, "two.zip", zip_of(&[("a/0.png", &whole), ("a/1.png", &png(28, 1))]));
    write(root, "cut.zip", &zip[..zip.len() / 2]);
    write(root, "hostile.pickle", b"cos\nsystem\n(S'touch owned'\ntR.");
    write(root, "side.toml", "[data]\nside = 32\n");
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch/plain.pth");
    write(root, "plain.pth", std::fs::read(plain).unwrap());
    write(root, "packed.pth", zip_of(&[("net/data.pkl", b"N.")]));
    let stream = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    write(root, "hostile.pth", [&stream[..], b"cos\nsystem\n(S'touch owned'\ntR."].concat());
    write(root, "cut.pth", [&stream[..], b"\x80\x02M\xe9"].concat());
    write(root, "cut.pickle", b"\x80\x02}q\x00(U\x04data");
    write(root, "cut.idx", [0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28, 1, 2, 3]);
    std::fs::create_dir_all(root.join("list.txt")).unwrap();
    std::fs::create_dir_all(root.join("blocked/checkpoint.safetensors")).unwrap();
    episodes(root, "good", [2, 2, 3], &[0, 1, 2, 8, 9, 10, 3, 4, 5, 11, 12, 13]);
    episodes(root, "beyond", [2, 2, 3], &[0, 1, 2, 8, 9, 10, 3, 4, 5, 11, 12, 32]);
    episodes(root, "below", [2, 2, 3], &[0, 1, 2, 8, 9, 10, 3, 4, 5, 11, 12, -1]);
    episodes(root, "single", [1, 2, 3], &[0, 1, 2, 8, 9, 10]);
    #[cfg(unix)]
    {
        tree(root, "loop", 4, 2);
        std::os::unix::fs::symlink("..", root.join("data/loop/train/again")).unwrap();
        tree(root, "dangling", 4, 2);
        std::os::unix::fs::symlink("nowhere.png", root.join("data/dangling/train/train0/x.png")).unwrap();
        assert!(Command::new("mkfifo").arg(root.join("pipe.png")).status().unwrap().success());
    }
}

fn make_runs(root: &Path) {
    let train = |data: &str, out: &str, more: &str| {
        let output = run(root, &format!("{TRAIN} {data} --out {out} {more}"), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    };
    train("data/ok", "run", "");
    train("data/ok", "plain", "--method baseline");
    train("data/ok", "other", "--seed 9");
    train("data/nine", "nine", "--split-file nine.json");
    tree(root, "moving", 4, 8);
    train("data/moving", "moved", "");
    tree(root, "painted", 4, 8);
    train("data/painted", "repainted", "");
    write(root, "data/painted/train/train2/3.png", png(28, 200));
    for class in 0..4 {
        std::fs::remove_file(root.join(format!("data/moving/train/train{class}/7.png"))).unwrap();
    }

    let output = run(root, "distill --no-eval --teacher run --out students", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let good = root.join("run/checkpoint.safetensors");
    let bytes = std::fs::read(&good).unwrap();
    let log = std::fs::read(root.join("run/metrics.jsonl")).unwrap();
    let file = |name: &str| format!("broken/{name}/checkpoint.safetensors");
    let raw = |name: &str, bytes: &[u8]| drop(write(root, &file(name), bytes));
    raw("cut", &bytes[..bytes.len() - 100]);
    raw("empty", b"");
    let four = r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#;
    raw("foreign", &safetensors_of(&format!("{{\"a\":{four}}}"), &[0; 16]));
    raw("overlapping", &safetensors_of(&format!("{{\"a\":{four},\"b\":{four}}}"), &[0; 16]));
    let wide = r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}"#;
    raw("overflowing", &safetensors_of(wide, &[0; 16]));
    raw("nested", &safetensors_of(&format!("{{\"a\":{}", "[".repeat(100_000)), &[]));
    raw("announcing", &[&(u64::MAX / 2).to_le_bytes()[..], b"{\"a\":1}         "].concat());
    // The last four bytes of the file are the last number of its last tensor.
    raw("nan", &[&bytes[..bytes.len() - 4], &f32::NAN.to_le_bytes()].concat());

    let changed = |name: &str, change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = Checkpoint::load(&good).unwrap();
        change(&mut checkpoint);
        std::fs::create_dir_all(root.join("broken").join(name)).unwrap();
        checkpoint.save(root.join(file(name))).unwrap();
        write(root, &format!("broken/{name}/metrics.jsonl"), &log);
    };
    let with = |key: &'static str, value: &'static str| {
        move |checkpoint: &mut Checkpoint| drop(checkpoint.metadata.insert(key.into(), value.into()))
    };
    changed("classes-0", &with("classes", "0"));
    changed("classes-many", &with("classes", "1000000000"));
    changed("side-5", &with("side", "5"));
    changed("side-huge", &with("side", "99999999"));
    changed("steps-over", &with("step", "3"));
    changed("steps-below", &with("step", "-1"));
    changed("no-json", &with("config", "{"));
    changed("widths-0", &|checkpoint| {
        let config = checkpoint.metadata["config"].replace("[4,4,4,4]", "[4,4,4,0]");
        checkpoint.metadata.insert("config".into(), config);
    });
    changed("shape", &|checkpoint| {
        let first = checkpoint.tensors.keys().find(|name| name.ends_with(".weight")).unwrap().clone();
        checkpoint.tensors.insert(first, Tensor::f32([2, 2], vec![0.0; 4]));
    });
    changed("missing", &|checkpoint| drop(checkpoint.tensors.remove("classifier.weight").unwrap()));
    changed("no-momentum", &|checkpoint| drop(checkpoint.tensors.remove("train.momentum.classifier.weight").unwrap()));
    changed("log", &|_| ());
    write(root, "broken/log/metrics.jsonl", b"nonsense\n");
    std::fs::copy(root.join("run/config.toml"), root.join("broken/log/config.toml")).unwrap();
}

/// The folder with all of it, made once.
fn files() -> &'static Path {
    static FILES: OnceLock<TempDir> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        make_data(folder.path());
        make_runs(folder.path());
        folder
    });
    FILES.get().unwrap().path()
}

// ---- the cases --------------------------------------------------------------------------------------

fn command(folder: &Path, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
    // Where there is no session, as in a container, Wayland's library would complain on stderr.
    command.current_dir(folder).stdin(Stdio::null()).env("XDG_RUNTIME_DIR", folder);
    for word in words.replace(TRAIN, TRAIN_WORDS).split_whitespace() {
        command.arg(word);
    }
    command
}

/// Runs the words; a flag that is given twice counts the last time, as in a shell with an alias.
fn run(folder: &Path, words: &str, variables: &[(&str, &str)]) -> Output {
    let words = words.replace(TRAIN, TRAIN_WORDS);
    let mut kept: Vec<&str> = words.split_whitespace().collect();
    for at in (0..kept.len()).rev() {
        if kept[at].starts_with("--") && kept[at + 1..].contains(&kept[at]) {
            kept.drain(at..at + 2);
        }
    }
    command(folder, &kept.join(" ")).envs(variables.iter().copied()).output().unwrap()
}

/// Every path below `folder` with its size and time of change.
fn state(folder: &Path) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let about = path.symlink_metadata().unwrap();
            if about.is_dir() {
                folders.push(path.clone());
            }
            // The time of a folder changes with a file that comes and goes in it.
            let time = if about.is_dir() { std::time::UNIX_EPOCH } else { about.modified().unwrap() };
            found.insert(path, (if about.is_dir() { 0 } else { about.len() }, time));
        }
    }
    found
}

/// What is wrong with the answer to `words`, if anything.
fn judge(output: &Output, code: i32, needles: &[&str]) -> Option<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    // What the parser of the command line refuses ends with indented hints and the way to the help.
    let said = stderr.split("\n\nFor more information").next().unwrap_or_default();
    let last = said.trim_end().lines().rfind(|line| !line.is_empty() && !line.starts_with(' ')).unwrap_or_default();
    let flat = |text: &str| text.replace('\\', "/");
    let missing: Vec<_> = needles.iter().filter(|needle| !flat(last).contains(&flat(needle))).collect();
    let wrong = if output.status.code() != Some(code) {
        format!("exit {:?}, not {code}", output.status.code())
    } else if !last.starts_with("error: ") {
        "the last line is no error".into()
    } else if stderr.matches("error: ").count() > 1 {
        "more than one error".into()
    } else if !missing.is_empty() {
        format!("nothing of {missing:?}")
    } else if !output.stdout.is_empty() {
        "words on stdout".into()
    } else {
        return None;
    };
    Some(format!("{wrong}\n    {}", stderr.trim_end().replace('\n', "\n    ")))
}

#[test]
fn every_refusal_names_the_thing_and_the_way_out() {
    let folder = files();
    let mut before = state(folder);
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 90, "{} cases", cases.len());
    for (words, code, needles) in &cases {
        let output = run(folder, words, &[]);
        if let Some(what) = judge(&output, *code, needles) {
            wrong.push(format!("{words}: {what}"));
        }
        if *code == 1 {
            // A run that began and failed on its way leaves its folder; nothing else may be in it.
            std::fs::remove_dir_all(folder.join("new")).unwrap();
        }
        let after = state(folder);
        for path in before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)) {
            wrong.push(format!("{words}: {} was changed", path.display()));
        }
        // Each case starts from the files as they are now.
        let _ = std::fs::remove_dir_all(folder.join("new"));
        before = state(folder);
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Another spelling of the data's path, and the classes are the split file's still: in `eval` as in `embed`.
#[test]
fn a_run_takes_its_split_file_along() {
    let out = tempfile::tempdir().unwrap();
    let output = run(files(), "eval nine --data ./data/nine --ways 3 --shots 1 --queries 3 --n-episodes 2", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for (split_file, classes) in [("", "345"), (" --split-file nine.json", "345"), (" --split-file none", "??")] {
        let array = out.path().join("novel.npy").display().to_string();
        let output = run(files(), &format!("embed nine --data ./data/nine --out {array}{split_file}"), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let list = std::fs::read_to_string(out.path().join("novel.txt")).unwrap();
        let mut found: Vec<char> = list.lines().map(|name| name.chars().nth("class".len()).unwrap()).collect();
        found.dedup();
        assert_eq!(found.len(), classes.len(), "{list}");
        assert!(classes == "??" || found.iter().collect::<String>() == classes, "{list}");
    }
}

/// Data with too few novel classes is trained on with a warning; a target accuracy needs them.
#[test]
fn a_run_that_cannot_be_scored_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for (i, (data, why)) in [
        ("lone", "data/lone: 2-way episodes need 2 classes and the split has 1"),
        ("no-novel", "data/no-novel: has no folder for the novel split (it has train)"),
    ]
    .into_iter()
    .enumerate()
    {
        let out = folder.path().join(i.to_string()).display().to_string();
        let words = format!("{TRAIN_WORDS} data/{data} --quiet").replace("--no-eval ", "").replace("new", &out);
        let output = run(files(), &format!("{words} --min-acc 50"), &[]);
        let wrong = judge(&output, 2, &["--min-acc wants a score on novel classes", why, "leave it out"]);
        assert!(wrong.is_none() && !Path::new(&out).exists(), "{wrong:?}");
        let output = run(files(), &words, &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let warning = format!("warning: the run is not scored on novel classes: {why}");
        assert!(stderr.starts_with(&warning) && stderr.lines().count() == 1, "{stderr}");
        assert!(!String::from_utf8(output.stdout).unwrap().contains("accuracy"));
    }
}

/// Where no driver answers the program says which package brings one.
#[cfg(target_os = "linux")]
#[test]
fn without_a_driver_the_way_to_one_is_said() {
    // Vulkan alone, so that OpenGL does not step in, and no driver for it.
    let variables = [("VK_DRIVER_FILES", "/nowhere"), ("VK_ICD_FILENAMES", "/nowhere"), ("WGPU_BACKEND", "vulkan")];
    for words in ["devices", "check", "TRAIN data/ok"] {
        let output = run(files(), words, &variables);
        let wrong = judge(&output, 3, &["no GPU adapter", "WGPU_BACKEND=vulkan", "unset it", "mesa-vulkan-drivers"]);
        assert!(wrong.is_none(), "{words}: {wrong:?}");
    }
    let output = run(files(), "devices", &[("IEQ_ADAPTER", "abacus")]);
    assert_eq!(judge(&output, 3, &["contains \"abacus\""]), None);
}

/// A disk that is full: stdout, and a checkpoint that does not fit the system's limit on the size of files.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_spoils_nothing() {
    for words in ["plan --backbone conv4", "plan --json", "devices", "devices --json"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command(files(), words).stdout(full).output().unwrap();
        let wrong = judge(&output, 2, &["stdout: cannot write the result", "make room"]);
        assert!(wrong.is_none(), "{words}: {wrong:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let data = files().join("data/ok");
    let wide = format!("{TRAIN_WORDS} {}", data.display()).replace("4,4,4,4", "64,64,64,64");
    let begun = run(folder.path(), &wide.replace("--out new", "--out run"), &[]);
    assert_eq!(begun.status.code(), Some(0), "{}", String::from_utf8_lossy(&begun.stderr));
    // 256 KiB: SwiftShader keeps its compiled code in files, and dies of a limit below 128 KiB.
    let limited = |words: &str| {
        let mut shell = Command::new("sh");
        shell.current_dir(folder.path()).env("XDG_RUNTIME_DIR", folder.path());
        shell.arg("-c").arg("ulimit -f 512; exec \"$0\" \"$@\"");
        shell.arg(env!("CARGO_BIN_EXE_ieq-wgpu"));
        shell.args(words.replace(TRAIN, TRAIN_WORDS).split_whitespace()).output().unwrap()
    };
    // A new run: it ends at its first checkpoint, and leaves no half of one.
    let output = limited(&wide);
    let wrong = judge(&output, 2, &["new/checkpoint.safetensors: cannot write the checkpoint", "raise the limit"]);
    assert!(wrong.is_none(), "{wrong:?}");
    let names = |run: &str| -> Vec<_> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path().join(run)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("new"), ["config.toml", "metrics.jsonl", "report.html", "report.json"]);
    // An array of 34 x 32 rows of 64 numbers, over an older one that stays.
    write(folder.path(), "all.npy", b"old");
    let before = state(folder.path());
    let pictures = format!("{} ", data.display()).repeat(34);
    let output = limited(&format!("embed run {pictures} --out all.npy"));
    let wrong = judge(&output, 2, &["all.npy: cannot write the embeddings", "raise the limit"]);
    assert!(wrong.is_none(), "{wrong:?}");
    assert!(state(folder.path()) == before, "half of an array was left");
}

/// Odd, and good: 1 x 1 pictures, names with line breaks and names that are no text.
#[cfg(unix)]
#[test]
fn odd_pictures_and_names_are_taken() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for class in 0..2 {
        for i in 0..4 {
            write(root, &format!("tiny/train/class{class}/{i}.png"), png(1, i));
            write(root, &format!("tiny/train/Stra\u{df}e \u{1f642}{class}/{i}\n.png"), png(40, i));
        }
    }
    let strange = root.join("tiny/train").join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    std::fs::create_dir(&strange).unwrap();
    for i in 0..4 {
        std::fs::write(strange.join(format!("{i}.png")), png(28, i)).unwrap();
    }
    let output = run(root, &format!("{TRAIN} tiny"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let output = run(root, "embed new tiny --out all.npy", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let list = std::fs::read_to_string(root.join("all.txt")).unwrap();
    assert_eq!(list.lines().count(), 20, "one line per image:\n{list}");
    assert!(list.contains("3\\n.png"), "{list}");
}

/// A reader that leaves, or was never there, changes nothing about the work.
#[cfg(unix)]
#[test]
fn a_closed_stdout_does_not_stop_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let words = format!("{TRAIN} {}", files().join("data/ok").display()).replace(TRAIN, TRAIN_WORDS);
    let output = Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", "exec \"$0\" \"$@\" >&- 2>&-", env!("CARGO_BIN_EXE_ieq-wgpu")])
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    Checkpoint::load(folder.path().join("new/checkpoint.safetensors")).unwrap();
}
