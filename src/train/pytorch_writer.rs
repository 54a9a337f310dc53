//! A network as a file that `torch.load(.., weights_only=True)` reads: the zip that PyTorch writes since 1.6, with the pickle
//! `{"model": state dict, "metadata": {..}}`. Equal networks give equal bytes.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::checkpoint::{Checkpoint, TensorData};
use super::pytorch::{METADATA, STATE};
use crate::{Error, Result};

/// The folder in the zip that everything lies in, as PyTorch calls it.
const FOLDER: &str = "archive";
/// PyTorch maps numbers into memory where they lie at multiples of so many bytes.
const ALIGNMENT: u16 = 64;

/// A pickle of protocol 2 that grows.
struct Pickle(Vec<u8>);

impl Pickle {
    fn op(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.op(b"X");
        self.op(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.op(text.as_bytes());
    }

    fn integer(&mut self, n: usize) {
        match i32::try_from(n) {
            Ok(n) => {
                self.op(b"J");
                self.op(&n.to_le_bytes());
            }
            Err(_) => {
                self.op(b"\x8a\x09");
                self.op(&(n as u64).to_le_bytes());
                self.op(&[0]);
            }
        }
    }

    fn tuple(&mut self, items: impl IntoIterator<Item = usize>) {
        self.op(b"(");
        items.into_iter().for_each(|n| self.integer(n));
        self.op(b"t");
    }

    /// A tensor in storage `key`, in C order.
    fn tensor(&mut self, key: usize, class: &str, shape: &[usize], count: usize) {
        self.op(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.op(format!("ctorch\n{class}\n").as_bytes());
        self.text(&key.to_string());
        self.text("cpu");
        self.integer(count);
        self.op(b"tQ");
        self.integer(0);
        self.tuple(shape.iter().copied());
        let mut strides = vec![1_usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
        }
        self.tuple(strides);
        // Needs no gradient, has no hooks.
        self.op(b"\x89ccollections\nOrderedDict\n)RtR");
    }
}

impl Checkpoint {
    /// The bytes of a PyTorch file with all tensors and the metadata.
    ///
    /// # Errors
    /// [`Error::Internal`] where a tensor's shape and numbers do not fit together, or the zip cannot be made.
    pub fn to_pytorch(&self) -> Result<Vec<u8>> {
        let internal = |why: &dyn std::fmt::Display| Error::Internal(format!("cannot encode a PyTorch file: {why}"));
        let mut pickle = Pickle(b"\x80\x02}(".to_vec());
        pickle.text(STATE);
        pickle.op(b"ccollections\nOrderedDict\n)R(");
        for (key, (name, tensor)) in self.tensors.iter().enumerate() {
            let count = tensor.shape.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis));
            if count != Some(tensor.data.len()) {
                return Err(internal(&format!("{name} of shape {:?}", tensor.shape)));
            }
            let class = match tensor.data {
                TensorData::F32(_) => "FloatStorage",
                TensorData::I64(_) => "LongStorage",
            };
            pickle.text(name);
            pickle.tensor(key, class, &tensor.shape, tensor.data.len());
        }
        pickle.op(b"u");
        pickle.text(METADATA);
        pickle.op(b"}(");
        for (key, value) in &self.metadata {
            pickle.text(key);
            pickle.text(value);
        }
        pickle.op(b"uu.");
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(ALIGNMENT);
        let mut put = |name: &str, content: &[u8]| {
            writer.start_file(format!("{FOLDER}/{name}"), options).map_err(|error| internal(&error))?;
            writer.write_all(content).map_err(|error| internal(&error))
        };
        put("data.pkl", &pickle.0)?;
        put("byteorder", b"little")?;
        for (key, tensor) in self.tensors.values().enumerate() {
            put(&format!("data/{key}"), &tensor.bytes())?;
        }
        put("version", b"3\n")?;
        Ok(writer.finish().map_err(|error| internal(&error))?.into_inner())
    }
}
