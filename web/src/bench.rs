//! How fast the kernels of a training step run on the browser's device.

use ieq_wgpu::bench::{Options, run_async};
use ieq_wgpu::progress::{Progress, StepReport};
use ieq_wgpu::settings::Config;
use js_sys::Promise;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use crate::engine::Engine;
use crate::{clock, json, of_engine};

#[wasm_bindgen]
extern "C" {
    /// Who is told how far a measurement is.
    pub type Watcher;
    /// Part `done` of `total` is finished.
    #[wasm_bindgen(method)]
    fn advance(this: &Watcher, done: f64, total: f64);
    /// Whether to end it.
    #[wasm_bindgen(method)]
    fn stop(this: &Watcher) -> bool;
}

impl Progress for Watcher {
    fn step(&mut self, _: &StepReport) {}

    fn advance(&mut self, _: &str, done: u64, total: u64) {
        Watcher::advance(self, done as f64, total as f64);
    }

    fn note(&mut self, _: &str) {}

    fn warn(&mut self, _: &str) {}

    fn stop_requested(&self) -> bool {
        self.stop()
    }
}

/// Checks and times the kernels of the demo's training step, and the step: the document that `bench --json` of the program
/// has, as JSON.
#[wasm_bindgen]
pub fn bench(engine: &Engine, mut watcher: Watcher) -> Promise {
    let engine = engine.clone();
    future_to_promise(async move {
        let config = Config::from_preset("demo").map_err(of_engine)?;
        let options = Options {
            config,
            sides: vec![28],
            rows: None,
            shapes: Vec::new(),
            kernels: true,
            filter: String::new(),
            step: true,
            samples: None,
            check: true,
            time: true,
        };
        let mut kernels = engine.kernels();
        let run = run_async(&options, &mut kernels, clock, &mut watcher).await.map_err(of_engine)?;
        engine.keep(kernels);
        Ok(json(&run)?.into())
    })
}
