//! A network that embeds pictures.

use std::path::Path;
use std::rc::Rc;

use ieq_wgpu::data::{ImageSet, Statistics, square_words};
use ieq_wgpu::fewshot::Reference;
use ieq_wgpu::progress::Silent;
use ieq_wgpu::settings::Config;
use ieq_wgpu::train::checkpoint::Checkpoint;
use ieq_wgpu::train::features::Layer;
use ieq_wgpu::train::{Extractor, reference};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::engine::Engine;
use crate::{Answer, clock, json, of_engine};

/// Pictures of a pass.
const BATCH: usize = 32;

/// A picture that the browser has decoded, `[height, width, 4]`, as the network takes it: its middle, resized as the program
/// does it, `side * side` RGBA words as bytes.
#[wasm_bindgen]
pub fn square(rgba: &[u8], width: u32, height: u32, side: usize) -> Answer<Vec<u8>> {
    let words = square_words(rgba, (width, height), side).map_err(of_engine)?;
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

/// RGBA words of bytes.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// The network of a checkpoint on a device.
#[wasm_bindgen]
pub struct Network {
    inner: Rc<Inner>,
}

struct Inner {
    extractor: Extractor,
    /// For one picture: a pass costs as much whatever part of it is wanted.
    single: Extractor,
    config: Config,
    checkpoint: Checkpoint,
    reference: Option<Reference>,
}

#[derive(Serialize)]
struct About {
    side: usize,
    width: usize,
    preset: Option<String>,
    widths: Vec<usize>,
    measured: bool,
}

#[wasm_bindgen]
impl Network {
    /// Reads a checkpoint, as `train` and this page write them; `name` is for messages.
    pub async fn open(engine: &Engine, name: String, bytes: Vec<u8>) -> Answer<Network> {
        let engine = engine.clone();
        let path = Path::new(&name);
        let checkpoint = Checkpoint::from_bytes(path, &bytes).map_err(of_engine)?;
        drop(bytes);
        let open = async |batch| {
            let opened = Extractor::open_batch_async(engine.kernels(), path, &checkpoint, false, Some(clock), batch);
            opened.await.map_err(of_engine)
        };
        let (extractor, config) = open(BATCH).await?;
        let (single, _) = open(1).await?;
        let reference = reference::of(path, &checkpoint).map_err(of_engine)?;
        Ok(Network { inner: Rc::new(Inner { extractor, single, config, checkpoint, reference }) })
    }

    /// The same network once more, for a function that takes one and frees it.
    pub fn again(&self) -> Network {
        Network { inner: self.inner.clone() }
    }

    /// Side of its pictures, numbers per row, and what it is, as JSON.
    pub fn about(&self) -> Answer<String> {
        let Inner { extractor, config, reference, .. } = &*self.inner;
        json(&About {
            side: extractor.side(),
            width: extractor.width(Layer::Feature).unwrap_or(0),
            preset: config.preset.clone(),
            widths: config.model.widths.clone(),
            measured: reference.is_some(),
        })
    }

    /// The most pictures of one call of [`Network::embed`] that cost one pass.
    pub fn batch(&self) -> usize {
        self.inner.extractor.batch()
    }

    /// Rows `[pictures, width]` of pictures that [`square`] made, back to back.
    pub fn embed(&self, pixels: Vec<u8>) -> js_sys::Promise {
        let inner = self.inner.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            let side = inner.extractor.side();
            let pixels: Vec<u32> = words(&pixels).collect();
            let names = vec![String::new(); pixels.len() / (side * side).max(1)];
            let images = ImageSet { side, pixels, names, ..ImageSet::default() };
            let extractor = if images.len() == 1 { &inner.single } else { &inner.extractor };
            let rows = extractor.features_async(&images, Layer::Feature, None, &mut Silent).await;
            Ok(js_sys::Float32Array::from(rows.map_err(of_engine)?.as_slice()).into())
        })
    }

    /// What the answers on few pictures rest on, as JSON: measured with this network, or what is usual where that is not
    /// known, or does not hold for such pictures (`pixels`: some of them, as [`square`] made them).
    pub fn reference(&self, shipped: bool, pixels: &[u8]) -> Answer<String> {
        let side = self.inner.extractor.side();
        let pixels: Vec<u32> = words(pixels).collect();
        let names = vec![String::new(); pixels.len() / (side * side).max(1)];
        let statistics = Statistics::of(&ImageSet { side, pixels, names, ..ImageSet::default() });
        let holds = !shipped || statistics.images == 0 || reference::holds_for(&statistics);
        let [r, g, b] = self.inner.config.data.mean;
        let typical = || Reference::typical(r == g && g == b);
        json(&self.inner.reference.clone().filter(|_| holds).unwrap_or_else(typical))
    }

    /// The bytes of its checkpoint.
    pub fn bytes(&self) -> Answer<Vec<u8>> {
        self.inner.checkpoint.to_bytes().map_err(of_engine)
    }

    pub(crate) fn weights(&self) -> Checkpoint {
        self.inner.checkpoint.clone()
    }
}
