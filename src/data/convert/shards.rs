//! Webdataset's shards: tar archives of pictures, each beside its class.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use tar::{Builder, Header};

use super::group::Group;
use super::split_name;
use crate::data::split::Split;
use crate::data::webdataset;
use crate::{Error, Result};

/// Writes the pictures of a group into shards of at most `most` in `folder`; `out` is where the folder will be. A split
/// less shards are called `data`.
pub(super) fn write(
    group: &Group,
    folder: &Path,
    out: &Path,
    most: usize,
    done: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    for class in &group.classes {
        let is_plain = class.trim() == class && !class.starts_with('\u{feff}');
        if !is_plain || webdataset::checked(out, class).is_err() {
            let why = format!(
                "the class {class:?} cannot be written: that of a sample is one line of text, without blanks around it; \
                 rename it"
            );
            return Err(Error::data(out, why));
        }
    }
    // As webdataset's decoders have it: a .cls is a whole number, and text is in JSON.
    let is_number = |class: &String| class.parse::<i64>().is_ok_and(|number| number.to_string() == *class);
    let are_numbers = group.classes.iter().all(is_number);
    let note = |class: &str| match are_numbers {
        true => ("cls", class.to_owned()),
        false => ("json", serde_json::json!({ "label": class }).to_string()),
    };
    let notes: Vec<(&str, String)> = group.classes.iter().map(|class| note(class)).collect();
    let mut shard: Option<Shard> = None;
    for i in 0..group.labels.len() {
        if i % most == 0 {
            shard.take().map_or(Ok(()), Shard::finish)?;
            shard = Some(Shard::new(folder, out, group.split, i / most)?);
        }
        let Some(shard) = &mut shard else { continue };
        let file = group.file(i)?;
        shard.member(&format!("{i:08}.{}", file.ending), &file.bytes)?;
        let (ending, note) = &notes[group.labels[i] as usize];
        shard.member(&format!("{i:08}.{ending}"), note.as_bytes())?;
        done(i)?;
    }
    shard.map_or(Ok(()), Shard::finish)
}

struct Shard {
    builder: Builder<BufWriter<File>>,
    /// Where it will be.
    path: PathBuf,
}

impl Shard {
    fn new(folder: &Path, out: &Path, split: Option<Split>, number: usize) -> Result<Shard> {
        let name = format!("{}-{number:06}.tar", split.map_or("data", split_name));
        let path = out.join(&name);
        let file = File::create_new(folder.join(name)).map_err(|e| Error::io(&path, "cannot write the shard", e))?;
        Ok(Shard { builder: Builder::new(BufWriter::new(file)), path })
    }

    fn member(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        // Equal pictures give equal shards: no times, no owners.
        let mut header = Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let written = self.builder.append_data(&mut header, name, bytes);
        written.map_err(|e| Error::io(&self.path, "cannot write the shard", e))
    }

    fn finish(self) -> Result<()> {
        let failed = |e| Error::io(&self.path, "cannot write the shard", e);
        let file = self.builder.into_inner().map_err(failed)?;
        file.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)
    }
}
