//! Every kernel against its f64 twin, on the browser's own device.

use ieq_wgpu::ops::{cases, check};
use js_sys::Promise;
use serde::Serialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use crate::engine::Engine;
use crate::{json, of_engine};

#[derive(Serialize)]
struct Outcome {
    name: String,
    passed: bool,
    /// None where it is no finite number.
    error: Option<f64>,
    tolerance: f64,
    worst: String,
}

/// Number of cases.
#[wasm_bindgen]
pub fn check_cases() -> usize {
    cases().len()
}

/// Runs case `i` and compares what every node made, as JSON.
#[wasm_bindgen]
pub fn check_case(engine: &Engine, i: usize) -> Promise {
    let engine = engine.clone();
    future_to_promise(async move {
        let Some(case) = cases().into_iter().nth(i) else { return Ok(JsValue::NULL) };
        let mut kernels = engine.kernels();
        let found = check::run_async(&case, &mut kernels).await.map_err(of_engine)?;
        engine.keep(kernels);
        let (passed, error) = (found.passed(), Some(found.error).filter(|error| error.is_finite()));
        Ok(json(&Outcome { name: found.name, passed, error, tolerance: found.tolerance, worst: found.worst })?.into())
    })
}
