//! The names of a network's tensors under what PyTorch's programs make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{Error, Result};

/// What compiled models, sharded training and checkpointed activations of PyTorch put between the parts of names.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// What data-parallel training, averaged models, Lightning and nested dicts put before every name. They nest.
const AROUND: [&str; 6] = ["module.", "model.", "net.", "network.", "state_dict.", "model_state_dict."];
/// The counter of PyTorch's averaged models.
const AVERAGED: &str = "n_averaged";
/// What the first block's names begin with.
const FIRST_BLOCK: &str = "layer1.";
/// The heads of a network, with that which torchvision and others call `fc`.
const HEADS: [&str; 4] = ["classifier.", "eq_head.", "inv_head.", FC];
const FC: &str = "fc.";
const CLASSIFIER: &str = "classifier.";

/// The refusal of a file in which two tensors have one name.
pub(super) fn twice(path: &Path, name: &str) -> Error {
    Error::data(path, format!("has {name} twice, plain and in a wrapper of PyTorch; save the state of one network"))
}

/// The tensors of a network under its own names, without what wrappers add. With `parts` the network may be a part of a
/// larger module, as a Lightning module's `encoder`: then that part and its heads.
///
/// # Errors
/// [`Error::Data`] where a name is there twice, or several networks are.
pub(super) fn network<T>(path: &Path, tensors: BTreeMap<String, T>, parts: bool) -> Result<BTreeMap<String, T>> {
    let plain = |name: String| name.split('.').filter(|part| !WRAPPERS.contains(part)).collect::<Vec<_>>().join(".");
    let mut network: Vec<(String, T)> = tensors.into_iter().map(|(name, tensor)| (plain(name), tensor)).collect();
    // The counter of averaged models lies beside the module that they wrap.
    let is_around = |prefix: &str, network: &[(String, T)]| {
        network.iter().any(|(name, _)| name.starts_with(prefix))
            && network.iter().all(|(name, _)| name.starts_with(prefix) || name == AVERAGED)
    };
    while let Some(prefix) = AROUND.into_iter().find(|prefix| is_around(prefix, &network)) {
        network.retain(|(name, _)| name != AVERAGED);
        network.iter_mut().for_each(|(name, _)| *name = name[prefix.len()..].to_owned());
    }
    if parts {
        take_part(path, &mut network)?;
    }
    let has = |network: &[(String, T)], begins: &str| network.iter().any(|(name, _)| name.starts_with(begins));
    // A block that is not the one of a sequence.
    let is_bare = has(&network, "layer1.conv1.");
    let is_fc = has(&network, FC) && !has(&network, CLASSIFIER);
    for (name, _) in &mut network {
        if is_bare && let Some((block, rest)) = name.split_once('.').filter(|(block, _)| block.starts_with("layer")) {
            *name = format!("{block}.0.{rest}");
        } else if is_fc && let Some(rest) = name.strip_prefix(FC) {
            *name = format!("{CLASSIFIER}{rest}");
        }
    }
    let mut all = BTreeMap::new();
    for (name, tensor) in network {
        if all.insert(name.clone(), tensor).is_some() {
            return Err(twice(path, &name));
        }
    }
    Ok(all)
}

/// Where the blocks lie in a part of a module, that part without its name, and the heads beside it.
fn take_part<T>(path: &Path, network: &mut Vec<(String, T)>) -> Result<()> {
    let part = |name: &str| Some(name[..name.find(&format!(".{FIRST_BLOCK}"))? + 1].to_owned());
    if network.iter().any(|(name, _)| name.starts_with(FIRST_BLOCK)) {
        return Ok(());
    }
    let parts: BTreeSet<String> = network.iter().filter_map(|(name, _)| part(name)).collect();
    let mut parts = parts.into_iter();
    let Some(own) = parts.next() else { return Ok(()) };
    if let Some(other) = parts.next() {
        return Err(Error::data(
            path,
            format!("holds several networks ({own}{FIRST_BLOCK}.., {other}{FIRST_BLOCK}..); save the state of one"),
        ));
    }
    network.retain(|(name, _)| name.starts_with(&own) || HEADS.iter().any(|head| name.starts_with(head)));
    for (name, _) in network {
        if let Some(rest) = name.strip_prefix(&own) {
            *name = rest.to_owned();
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn names(given: &[&str]) -> Result<String> {
        let tensors = given.iter().map(|name| ((*name).to_owned(), ())).collect();
        network(Path::new("x"), tensors, true).map(|all| all.into_keys().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn names_of_wrappers_and_of_other_programs() {
        for (given, own) in [
            (&["layer1.0.conv1.weight", "fc.weight"][..], "classifier.weight layer1.0.conv1.weight"),
            (&["module._orig_mod.layer1.0.conv1.weight", "n_averaged"], "layer1.0.conv1.weight"),
            (
                &["model.encoder.layer1.0.conv1.weight", "model.classifier.weight"],
                "classifier.weight layer1.0.conv1.weight",
            ),
            (
                &["encoder.layer1.conv1.weight", "encoder.layer4.downsample.0.weight", "criterion.weight"],
                "layer1.0.conv1.weight layer4.0.downsample.0.weight",
            ),
            (&["layer1.0.weight", "fc.weight", "classifier.bias"], "classifier.bias fc.weight layer1.0.weight"),
            (&["weight"], "weight"),
        ] {
            assert_eq!(names(given).unwrap(), own);
        }
        let two = names(&["student.layer1.0.weight", "teacher.layer1.0.weight"]).unwrap_err().to_string();
        assert!(two.contains("student.layer1..") && two.contains("save the state of one"), "{two}");
        let twice = names(&["a.layer1.0.weight", "a._orig_mod.layer1.0.weight"]).unwrap_err().to_string();
        assert!(twice.contains("layer1.0.weight twice"), "{twice}");
    }
}
