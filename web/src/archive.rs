//! A project as one zip of class folders, written to and read from the browser's files as a stream: its size is not bound
//! by memory.

use std::io::{self, Read, Seek, SeekFrom, Write};

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::{Answer, fault, json};

#[wasm_bindgen]
extern "C" {
    /// A file that is written from its beginning.
    pub type Sink;
    /// Writes bytes at a place.
    #[wasm_bindgen(method, catch)]
    fn write(this: &Sink, bytes: Uint8Array, at: f64) -> Result<(), JsValue>;

    /// A file that is read.
    pub type Source;
    /// Bytes from `at` up to `end`.
    #[wasm_bindgen(method, catch)]
    fn read(this: &Source, at: f64, end: f64) -> Result<Uint8Array, JsValue>;
    /// Its length.
    #[wasm_bindgen(method)]
    fn size(this: &Source) -> f64;
}

fn broken(thrown: JsValue) -> io::Error {
    let text = js_sys::Error::from(thrown).message();
    io::Error::other(String::from(text))
}

/// The writer's end, buffered by the caller.
struct Out {
    sink: Sink,
    at: u64,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes.into(), self.at as f64).map_err(broken)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pieces in which a file is read.
const PIECE: u64 = 1 << 18;

struct In {
    source: Source,
    size: u64,
    at: u64,
    piece: Vec<u8>,
    /// Where the piece begins.
    first: u64,
}

impl Read for In {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let within = |at: u64, first: u64, piece: &[u8]| at >= first && at < first + piece.len() as u64;
        if self.at >= self.size || out.is_empty() {
            return Ok(0);
        }
        if !within(self.at, self.first, &self.piece) {
            let end = (self.at + PIECE.max(out.len() as u64)).min(self.size);
            self.piece = self.source.read(self.at as f64, end as f64).map_err(broken)?.to_vec();
            self.first = self.at;
        }
        let piece = &self.piece[(self.at - self.first) as usize..];
        let n = piece.len().min(out.len());
        out[..n].copy_from_slice(&piece[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for In {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::other("a place before the beginning of the file"))?;
        Ok(self.at)
    }
}

fn of_zip(error: impl std::fmt::Display) -> JsValue {
    fault("data", &format!("the zip cannot be used: {error}"))
}

/// A zip that is being written.
#[wasm_bindgen]
pub struct ZipOut {
    zip: ZipWriter<zip::write::StreamWriter<io::BufWriter<Out>>>,
}

#[wasm_bindgen]
impl ZipOut {
    /// An empty one.
    #[wasm_bindgen(constructor)]
    pub fn new(sink: Sink) -> ZipOut {
        ZipOut { zip: ZipWriter::new_stream(io::BufWriter::with_capacity(1 << 18, Out { sink, at: 0 })) }
    }

    /// Adds a file. Pictures are compressed already: the bytes go in as they are.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Answer<()> {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        self.zip.start_file(name, options).map_err(of_zip)?;
        self.zip.write_all(bytes).map_err(of_zip)
    }

    /// Writes the end.
    pub fn finish(self) -> Answer<()> {
        self.zip.finish().map_err(of_zip)?.flush().map_err(of_zip)
    }
}

/// A zip that is read.
#[wasm_bindgen]
pub struct ZipIn {
    zip: ZipArchive<In>,
}

/// The most bytes of a picture in a zip.
const MOST: u64 = 256 << 20;

#[wasm_bindgen]
impl ZipIn {
    /// Reads its list of files.
    #[wasm_bindgen(constructor)]
    pub fn new(source: Source) -> Answer<ZipIn> {
        let size = source.size() as u64;
        let source = In { source, size, at: 0, piece: Vec::new(), first: 0 };
        Ok(ZipIn { zip: ZipArchive::new(source).map_err(of_zip)? })
    }

    /// The names of its files in order, as JSON; folders end in `/`.
    pub fn names(&self) -> Answer<String> {
        let name = |i| self.zip.name_for_index(i).and_then(Result::ok).unwrap_or_default();
        json(&(0..self.zip.len()).map(name).collect::<Vec<_>>())
    }

    /// The bytes of file `i`.
    pub fn read(&mut self, i: usize) -> Answer<Vec<u8>> {
        let file = self.zip.by_index(i).map_err(of_zip)?;
        if file.size() > MOST {
            return Err(fault("data", &format!("it has {} bytes, and a picture has at most {MOST}", file.size())));
        }
        let mut bytes = Vec::new();
        // The size that it claims is not believed.
        file.take(MOST + 1).read_to_end(&mut bytes).map_err(of_zip)?;
        match bytes.len() as u64 > MOST {
            true => Err(fault("data", &format!("it has more than the {MOST} bytes that a picture has at most"))),
            false => Ok(bytes),
        }
    }
}
