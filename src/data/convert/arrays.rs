//! Files of arrays: NumPy's `.npz`, the field's pickles, MNIST's idx files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::group::{Group, is_gray};
use super::split_name;
use crate::data::decode;
use crate::{Error, Result};

/// The most classes of idx files, whose labels are bytes.
pub(super) const MAX_IDX_CLASSES: usize = 256;

/// Labels of a file: numbers where all classes are called by numbers in ascending order, else names.
enum Labels<'a> {
    Numbers(Vec<i64>),
    Names(Vec<&'a str>),
}

impl<'a> Labels<'a> {
    fn of(group: &'a Group) -> Labels<'a> {
        let number = |class: &String| class.parse::<i64>().ok().filter(|number| number.to_string() == *class);
        let numbers: Option<Vec<i64>> = group.classes.iter().map(number).collect();
        let of = |label: &u32| *label as usize;
        match numbers.filter(|numbers| numbers.is_sorted()) {
            Some(numbers) => Labels::Numbers(group.labels.iter().map(|label| numbers[of(label)]).collect()),
            None => Labels::Names(group.labels.iter().map(|label| group.classes[of(label)].as_str()).collect()),
        }
    }
}

/// Calls `each` with the bytes of every picture, all of one side, which the first call gets to know, too.
fn for_each(
    group: &Group,
    channels: usize,
    mut each: impl FnMut(usize, &[u8]) -> Result<()>,
    done: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let mut first = None;
    for i in 0..group.labels.len() {
        let picture = group.pixels(i)?;
        let own = picture.width() as usize;
        let side = *first.get_or_insert(own);
        if own != side {
            let why = format!(
                "is {own} x {own} but the pictures before it are {side} x {side}, and an array has one \
                               size; set the side to resize them all"
            );
            return Err(Error::data(group.path(i), why));
        }
        if channels == 1 && !is_gray(&picture) {
            return Err(Error::data(group.path(i), "has colour, and idx files are gray; write npz or pickle"));
        }
        let bytes = picture.into_raw();
        match channels {
            1 => each(side, &bytes.iter().step_by(3).copied().collect::<Vec<u8>>())?,
            _ => each(side, &bytes)?,
        }
        done(i)?;
    }
    Ok(())
}

/// The side of the first picture, which all must have.
fn side(group: &Group) -> Result<usize> {
    let side = group.pixels(0)?.width() as usize;
    // What cannot be read again is not written.
    decode::reserve(&group.path(0), group.labels.len(), side).map(|_| side)
}

/// The bytes of a `.npy` before its values.
fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let shape = axes.join(", ") + if axes.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // The values begin at a multiple of 64, behind a line break.
    let length = (text.len() + 11).next_multiple_of(64) - 10;
    text += &" ".repeat(length - 1 - text.len());
    [&b"\x93NUMPY\x01\0"[..], &(length as u16).to_le_bytes(), text.as_bytes(), b"\n"].concat()
}

/// Writes `SPLIT.npz` into `folder`, with `images` and `labels`.
pub(super) fn npz(group: &Group, folder: &Path, out: &Path, done: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
    let name = format!("{}.npz", group.split.map_or("data", split_name));
    let path = out.join(&name);
    let failed = |source| Error::io(&path, "cannot write the arrays", source);
    let zipped = |error: zip::result::ZipError| failed(error.into());
    let mut zip = ZipWriter::new(BufWriter::new(File::create_new(folder.join(&name)).map_err(failed)?));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    let (n, side) = (group.labels.len(), side(group)?);
    zip.start_file("images.npy", options).map_err(zipped)?;
    zip.write_all(&header("|u1", &[n, side, side, 3])).map_err(failed)?;
    for_each(group, 3, |_, bytes| zip.write_all(bytes).map_err(failed), done)?;
    zip.start_file("labels.npy", options).map_err(zipped)?;
    match Labels::of(group) {
        Labels::Numbers(numbers) => {
            zip.write_all(&header("<i8", &[n])).map_err(failed)?;
            numbers.iter().try_for_each(|number| zip.write_all(&number.to_le_bytes())).map_err(failed)?;
        }
        Labels::Names(names) => {
            let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(1).max(1);
            zip.write_all(&header(&format!("<U{longest}"), &[n])).map_err(failed)?;
            for name in names {
                let mut words: Vec<u32> = name.chars().map(u32::from).collect();
                words.resize(longest, 0);
                words.iter().try_for_each(|word| zip.write_all(&word.to_le_bytes())).map_err(failed)?;
            }
        }
    }
    let file = zip.finish().map_err(zipped)?.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}

/// Writes `SPLIT.pickle` into `folder`: a dict of `data` and `labels` in protocol 4, the first that holds more than 4 GiB.
pub(super) fn pickle(
    group: &Group,
    folder: &Path,
    out: &Path,
    done: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let name = format!("{}.pickle", group.split.map_or("data", split_name));
    let path = out.join(&name);
    let failed = |source| Error::io(&path, "cannot write the pickle", source);
    let mut file = BufWriter::new(File::create_new(folder.join(&name)).map_err(failed)?);
    let (n, side) = (group.labels.len(), side(group)?);
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let int = |number: usize| [&b"J"[..], &(number as i32).to_le_bytes()].concat();
    let before = [
        &b"\x80\x04}("[..],
        &text("data"),
        // numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b"b"), which every version has.
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(",
        &int(n),
        &int(side),
        &int(side),
        &int(3),
        // The shape; numpy.dtype("u1", False, True) with its state; not in Fortran's order; the bytes.
        b"tcnumpy\ndtype\n",
        &text("u1"),
        b"\x89\x88\x87R(K\x03",
        &text("|"),
        b"NNN",
        &int(u32::MAX as usize),
        &int(u32::MAX as usize),
        b"K\x00tb\x89\x8e",
        &((n * side * side * 3) as u64).to_le_bytes(),
    ];
    file.write_all(&before.concat()).map_err(failed)?;
    for_each(group, 3, |_, bytes| file.write_all(bytes).map_err(failed), done)?;
    file.write_all(&[&b"tb"[..], &text("labels"), b"]("].concat()).map_err(failed)?;
    match Labels::of(group) {
        Labels::Numbers(numbers) => {
            let number = |number: &i64| file.write_all(&[&b"\x8a\x08"[..], &number.to_le_bytes()].concat());
            numbers.iter().try_for_each(number).map_err(failed)?;
        }
        Labels::Names(names) => names.iter().try_for_each(|name| file.write_all(&text(name))).map_err(failed)?,
    }
    file.write_all(b"eu.").map_err(failed)?;
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)
}

/// Writes `SPLIT-images-idx3-ubyte` and `SPLIT-labels-idx1-ubyte` into `folder`; the label of a class is its number in
/// `numbers`.
pub(super) fn idx(
    group: &Group,
    folder: &Path,
    out: &Path,
    numbers: &[u8],
    done: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let before = group.split.map_or("data", split_name);
    let (images, labels) = (format!("{before}-images-idx3-ubyte"), format!("{before}-labels-idx1-ubyte"));
    let path = out.join(&images);
    let failed = |source| Error::io(&path, "cannot write the idx files", source);
    let size =
        |n: usize| u32::try_from(n).map(u32::to_be_bytes).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()));
    let (n, side) = (size(group.labels.len())?, size(side(group)?)?);
    let mut file = BufWriter::new(File::create_new(folder.join(&images)).map_err(failed)?);
    file.write_all(&[[0, 0, 8, 3], n, side, side].concat()).map_err(failed)?;
    for_each(group, 1, |_, bytes| file.write_all(bytes).map_err(failed), done)?;
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
    let labelled: Vec<u8> = group.labels.iter().map(|&label| numbers[label as usize]).collect();
    let mut file = File::create_new(folder.join(&labels)).map_err(failed)?;
    file.write_all(&[&[0, 0, 8, 1][..], &n, &labelled].concat()).map_err(failed)?;
    file.sync_all().map_err(failed)
}
