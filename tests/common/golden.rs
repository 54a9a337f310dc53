//! Reader and checker of PyTorch's numbers: `FILE.safetensors` beside one `tolerances.json`.
//!
//! The folder is `tests/golden`, or the one that `IEQ_GOLDEN_DIR` names. Nothing here is a list of cases:
//! what a file holds is found by its tensors' names and its metadata. A check holds if both
//! `max|got - ref| <= atol` and `||got - ref|| <= rtol * ||ref||`; a NaN fails either.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;

/// Absolute tolerance of tensors that are zero in exact arithmetic, where no relative one has a meaning.
const ATOL_OF_ZERO: f64 = 5e-6;

/// A stored tensor; whole numbers are stored as exact f32.
#[derive(Clone, Debug)]
pub struct GoldenTensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Row-major numbers.
    pub data: Vec<f32>,
}

/// What a computed tensor may differ by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Largest absolute difference.
    pub atol: f64,
    /// Largest difference in Euclidean norm, relative to the reference's; `None` if that is zero in truth.
    pub rtol: Option<f64>,
}

/// An entry of `tolerances.json`: the tolerance and how far PyTorch's own f32 was from the reference.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tolerance: Tolerance,
    max_abs_ref: f64,
    f32_abs_err: f64,
    f32_rel_l2: f64,
}

/// One golden file.
#[derive(Debug)]
pub struct Golden {
    /// Its name, such as `ops.safetensors`.
    pub file: String,
    /// Its tensors by name, inputs and outputs.
    pub tensors: BTreeMap<String, GoldenTensor>,
    /// Its string metadata.
    pub metadata: BTreeMap<String, String>,
    entries: BTreeMap<String, Entry>,
    /// Entries of all files whose names begin with the same letters, for tensors without one of their own.
    like: Vec<(String, Entry)>,
}

/// What a golden file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Cases of single operations, losses and updates.
    Operations,
    /// Cases of augmented images.
    Views,
    /// Cases of few-shot classifiers.
    Classifiers,
    /// Training steps of a whole network.
    Training,
    /// The same with a teacher.
    Distillation,
    /// A network in evaluation mode.
    Embedding,
}

/// Golden files of another origin, in place of the repository's own.
pub const FOLDER_VARIABLE: &str = "IEQ_GOLDEN_DIR";

/// The repository's own golden files.
pub fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Where the golden files are.
pub fn folder() -> PathBuf {
    std::env::var_os(FOLDER_VARIABLE).map_or_else(own_folder, PathBuf::from)
}

/// Names of all golden files in `folder`, sorted.
pub fn files(folder: &Path) -> Result<Vec<String>, String> {
    let listing = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names: Vec<String> = listing
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    names.sort();
    Ok(names)
}

impl Golden {
    /// Opens `file` of `folder`.
    pub fn open(folder: &Path, file: &str) -> Result<Self, String> {
        let path = folder.join(file);
        let say = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let bytes = std::fs::read(&path).map_err(|e| say(&e))?;
        let parsed = SafeTensors::deserialize(&bytes).map_err(|e| say(&e))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| say(&e))?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let mut tensors = BTreeMap::new();
        for (name, view) in parsed.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(say(&format!("{name} is {}, not F32", view.dtype())));
            }
            let (chunks, _) = view.data().as_chunks::<4>();
            let data: Vec<f32> = chunks.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect();
            if data.iter().any(|x| !x.is_finite()) {
                return Err(say(&format!("{name} is not finite")));
            }
            tensors.insert(name.to_owned(), GoldenTensor { shape: view.shape().to_vec(), data });
        }
        let (entries, like) = read_entries(&folder.join("tolerances.json"), file)?;
        Ok(Golden { file: file.to_owned(), tensors, metadata, entries, like })
    }

    /// What the file holds, by its tensors' names.
    pub fn kind(&self) -> Result<Kind, String> {
        let any = |start: &str| self.tensors.keys().any(|name| name.starts_with(start));
        let part = |part: &str| self.cases().iter().any(|case| self.has(&format!("{case}.{part}")));
        Ok(match () {
            () if any("init.") && any("teacher.") => Kind::Distillation,
            () if any("init.") => Kind::Training,
            () if any("state.") => Kind::Embedding,
            () if part("support") => Kind::Classifiers,
            () if part("base") => Kind::Views,
            () if !self.cases().is_empty() => Kind::Operations,
            () => return Err(format!("{} is of an unknown kind: no tensor is of a case or a network", self.file)),
        })
    }

    /// The tensor `name`.
    pub fn get(&self, name: &str) -> Result<&GoldenTensor, String> {
        self.tensors.get(name).ok_or_else(|| format!("{}: there is no {name}", self.file))
    }

    /// The numbers of `name`.
    pub fn data(&self, name: &str) -> Result<&[f32], String> {
        Ok(&self.get(name)?.data)
    }

    /// The sizes of `name`.
    pub fn shape(&self, name: &str) -> Result<&[usize], String> {
        Ok(&self.get(name)?.shape)
    }

    /// Whether `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The numbers of `name` as indices, exactly.
    pub fn indices(&self, name: &str) -> Result<Vec<u32>, String> {
        let exact = |&x: &f32| (x >= 0.0 && x.fract() == 0.0 && x <= 16_777_216.0).then_some(x as u32);
        self.data(name)?
            .iter()
            .map(|x| exact(x).ok_or_else(|| format!("{}: {name} holds {x}, no index", self.file)))
            .collect()
    }

    /// The single number of `name`.
    pub fn scalar(&self, name: &str) -> Result<f32, String> {
        match self.data(name)? {
            [x] => Ok(*x),
            other => Err(format!("{}: {name} has {} numbers, not one", self.file, other.len())),
        }
    }

    /// The cases of a file of cases: what stands before the last dot of its tensors' names. A case's name may
    /// hold dots (`nce_tau0.1`), a tensor's part of it does not.
    pub fn cases(&self) -> BTreeSet<&str> {
        self.tensors.keys().filter_map(|name| name.rsplit_once('.')).map(|(case, _)| case).collect()
    }

    /// Names of the tensors with a listed tolerance, which are those to compute.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str).filter(|name| self.has(name))
    }

    /// The settings of `case`: the JSON document under its name in the metadata, `Null` if there is none.
    pub fn settings(&self, case: &str) -> Result<Value, String> {
        match self.metadata.get(case) {
            None => Ok(Value::Null),
            Some(text) => serde_json::from_str(text).map_err(|e| format!("{}: metadata of {case}: {e}", self.file)),
        }
    }

    /// A number of the file-wide metadata.
    pub fn number(&self, key: &str) -> Result<f64, String> {
        let text = self.metadata.get(key).ok_or_else(|| format!("{}: no {key} in the metadata", self.file))?;
        text.parse().map_err(|e| format!("{}: metadata {key} = {text:?}: {e}", self.file))
    }

    /// Whether the file trains a whole network; the rule differs.
    fn whole_model(&self) -> bool {
        matches!(self.kind(), Ok(Kind::Training | Kind::Distillation))
    }

    /// The tolerance of `name`: the listed one, or that of the rule in GOLDEN.md. The rule needs PyTorch's
    /// error; without an entry it is taken relative to size from the worst like-named tensor of this file or,
    /// if it has none, of files whose names begin alike (`conv3.gw` for a `conv9.gw`, `grad.*` for a `grad.x`);
    /// with none of those the rule's floor stands, which is the strictest it can give.
    pub fn tolerance(&self, name: &str) -> Result<Tolerance, String> {
        let tensor = self.get(name)?;
        if let Some(entry) = self.entries.get(name) {
            return Ok(entry.tolerance);
        }
        let whole_model = self.whole_model();
        let max_ref = tensor.data.iter().fold(0.0_f64, |m, &x| m.max(f64::from(x).abs()));
        let zero_in_truth = ["eq_head.0.bias", "eq_head.3.bias", "inv_head.0.bias", "inv_head.3.bias"];
        if whole_model && name.strip_prefix("grad.").is_some_and(|rest| zero_in_truth.contains(&rest)) {
            return Ok(Tolerance { atol: ATOL_OF_ZERO, rtol: None });
        }
        let wanted = role(name, whole_model);
        let alike = |(other, _): &(&String, &Entry)| role(other, whole_model) == wanted;
        let mut models: Vec<_> = self.entries.iter().filter(alike).collect();
        if models.is_empty() {
            models = self.like.iter().map(|(other, entry)| (other, entry)).filter(alike).collect();
        }
        let (mut rel_l2, mut rel_abs) = (0.0_f64, 0.0_f64);
        for (_, like) in models {
            // PyTorch's relative error of a true zero says nothing about the others.
            if like.tolerance.rtol.is_some() && like.max_abs_ref > 0.0 {
                rel_l2 = rel_l2.max(like.f32_rel_l2);
                rel_abs = rel_abs.max(like.f32_abs_err / like.max_abs_ref);
            }
        }
        Ok(rule(whole_model, max_ref, rel_abs * max_ref, rel_l2))
    }

    /// Whether `got` is the tensor `name` within its tolerance: the share of it that was used, or how far off
    /// `got` is.
    pub fn check(&self, name: &str, got: &[f32]) -> Result<f64, String> {
        self.check_with(name, got, self.tolerance(name)?)
    }

    /// As [`Golden::check`], within a tolerance of the caller's.
    pub fn check_with(&self, name: &str, got: &[f32], tolerance: Tolerance) -> Result<f64, String> {
        let want = self.get(name)?;
        let place = format!("{} {name}", self.file);
        compare(got, &want.data, tolerance).map_err(|message| format!("{place} {:?}: {message}", want.shape))
    }
}

/// The comparisons of one golden file.
#[derive(Debug)]
pub struct Report<'g> {
    golden: &'g Golden,
    compared: BTreeSet<String>,
    /// Why the file failed: a sentence for each tensor out of tolerance or not computed.
    pub failures: Vec<String>,
    worst: (f64, String),
}

impl<'g> Report<'g> {
    /// Nothing compared yet.
    pub fn new(golden: &'g Golden) -> Self {
        Report { golden, compared: BTreeSet::new(), failures: Vec::new(), worst: (0.0, "none".to_owned()) }
    }

    /// Compares a computed tensor, if the file has it.
    pub fn check(&mut self, name: &str, got: &[f32]) {
        if !self.golden.has(name) {
            return;
        }
        self.compared.insert(name.to_owned());
        match self.golden.check(name, got) {
            Ok(share) if share > self.worst.0 => self.worst = (share, name.to_owned()),
            Ok(_) => {}
            Err(message) => self.failures.push(message),
        }
    }

    /// Notes what kept a part of the file from being computed.
    pub fn fail(&mut self, part: &str, why: &str) {
        self.failures.push(format!("{} {part}: {why}", self.golden.file));
    }

    /// How many tensors were compared.
    pub fn compared(&self) -> usize {
        self.compared.len()
    }

    /// Fails every tensor that has a tolerance and was not computed, and a file of which nothing was.
    pub fn finish(mut self) -> Self {
        let missing: Vec<&str> = self.golden.outputs().filter(|name| !self.compared.contains(*name)).collect();
        for name in missing {
            self.fail(name, "it has a tolerance, and nothing computes it");
        }
        if self.compared.is_empty() {
            self.fail("", "nothing was compared");
        }
        self
    }
}

impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, compared, failed) = (&self.golden.file, self.compared(), self.failures.len());
        let (share, name) = &self.worst;
        write!(f, "{file}: {compared} compared, {failed} failed; nearest to its tolerance: {share:.2} of it, {name}")
    }
}

/// The listed tolerance of every output of `golden`, and the rule's from PyTorch's listed error.
pub fn listed_and_rule(golden: &Golden) -> Vec<(String, Tolerance, Tolerance)> {
    let whole_model = golden.whole_model();
    let entries = golden.entries.iter().filter(|(_, entry)| entry.tolerance.rtol.is_some());
    entries
        .map(|(name, entry)| {
            let by_rule = rule(whole_model, entry.max_abs_ref, entry.f32_abs_err, entry.f32_rel_l2);
            (name.clone(), entry.tolerance, by_rule)
        })
        .collect()
}

/// The tolerance rule of GOLDEN.md for a tensor of largest size `max_ref`, of which PyTorch's f32 was off
/// by `abs_err` at most and `rel_l2` in norm.
fn rule(whole_model: bool, max_ref: f64, abs_err: f64, rel_l2: f64) -> Tolerance {
    if whole_model {
        let rtol = (8.0 * rel_l2).max(1e-5);
        Tolerance { atol: (8.0 * abs_err).max(rtol * max_ref).max(1e-7), rtol: Some(rtol) }
    } else {
        let rounding = 8.0 * 2.0_f64.powi(-24) * max_ref;
        Tolerance { atol: (16.0 * abs_err).max(rounding).max(1e-7), rtol: Some((16.0 * rel_l2).max(1e-6)) }
    }
}

/// What tensors of one kind share: the first part of the name in a whole-model file, in a file of cases
/// the case without its number and the part after it.
fn role(name: &str, whole_model: bool) -> String {
    let (case, part) = name.split_once('.').unwrap_or((name, ""));
    if whole_model {
        case.to_owned()
    } else {
        format!("{}.{part}", case.trim_end_matches(|c: char| c.is_ascii_digit()))
    }
}

/// Whether `got` equals `want` within `tolerance`: the share of the tolerance that was used; the error, where
/// it is worst and what was allowed otherwise.
pub fn compare(got: &[f32], want: &[f32], tolerance: Tolerance) -> Result<f64, String> {
    if got.len() != want.len() {
        return Err(format!("{} numbers, the reference has {}", got.len(), want.len()));
    }
    let strange = got.iter().filter(|x| !x.is_finite()).count();
    if let Some(first) = got.iter().position(|x| !x.is_finite()) {
        return Err(format!("{strange} of {} numbers are not finite, the first is {first}: {}", got.len(), got[first]));
    }
    let (mut worst, mut at) = (0.0_f64, 0);
    let (mut off2, mut ref2) = (0.0_f64, 0.0_f64);
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(g) - f64::from(w)).abs();
        if off > worst || off.is_nan() {
            (worst, at) = (off, i);
        }
        off2 += off * off;
        ref2 += f64::from(w) * f64::from(w);
    }
    let (off, size) = (off2.sqrt(), ref2.sqrt());
    let within_atol = worst <= tolerance.atol;
    let within_rtol = tolerance.rtol.is_none_or(|rtol| off <= rtol * size);
    if within_atol && within_rtol {
        let share = |used: f64, allowed: f64| if used > 0.0 { used / allowed } else { 0.0 };
        return Ok(share(worst, tolerance.atol).max(tolerance.rtol.map_or(0.0, |rtol| share(off, rtol * size))));
    }
    let allowed = tolerance.rtol.map_or("any".to_owned(), |rtol| format!("{rtol:.1e}"));
    Err(format!(
        "max abs err {worst:.3e} at {at} (got {}, ref {}; allowed {:.1e}), rel L2 {:.3e} (allowed {allowed})",
        got.get(at).copied().unwrap_or_default(),
        want.get(at).copied().unwrap_or_default(),
        tolerance.atol,
        off / size,
    ))
}

/// An entry by its tensor's name.
type Named = (String, Entry);

/// The entries of `file`, none if the document does not know it; and those of all files named alike.
fn read_entries(path: &Path, file: &str) -> Result<(BTreeMap<String, Entry>, Vec<Named>), String> {
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| say(&e))?;
    let document: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&text).map_err(|e| say(&e))?;
    let letters = |name: &str| -> String { name.chars().take_while(|c| c.is_alphabetic()).collect() };
    let (mut own, mut like) = (BTreeMap::new(), Vec::new());
    for (other, listed) in document.into_iter().filter(|(other, _)| letters(other) == letters(file)) {
        for (name, entry) in listed {
            let need = |key: &str| entry.get(key).ok_or_else(|| say(&format!("{other} {name} has no {key}")));
            let number =
                |key: &str| need(key)?.as_f64().ok_or_else(|| say(&format!("{key} of {other} {name} is no number")));
            let rtol = if need("rel_l2_tol")?.is_null() { None } else { Some(number("rel_l2_tol")?) };
            let entry = Entry {
                tolerance: Tolerance { atol: number("atol")?, rtol },
                max_abs_ref: number("max_abs_ref")?,
                f32_abs_err: number("f32_abs_err")?,
                f32_rel_l2: number("f32_rel_l2")?,
            };
            if other == file {
                own.insert(name.clone(), entry);
            }
            like.push((name, entry));
        }
    }
    Ok((own, like))
}
