//! What the worker of the page calls: the engine of `ieq-wgpu` behind names that JavaScript knows. It has no copy of
//! anything that the library has; it turns arrays and JSON into calls, and outcomes into JSON.
//!
//! Whatever may wait for the device returns a promise. A failure is an `Error` with a whole sentence as its message and a
//! `kind` as `PROTOCOL.md` lists them.

mod archive;
mod bench;
mod check;
mod engine;
mod network;
mod run;
mod see;
mod support;

use js_sys::{Error as JsError, Reflect};
use serde::Serialize;
use std::time::Duration;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn now() -> f64;
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(text: &str);
}

/// The browser's clock.
pub(crate) fn clock() -> Duration {
    Duration::from_secs_f64(now().max(0.0) / 1e3)
}

/// Called once when the module is loaded: a fault of the program itself goes to the console with its place.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| console_error(&info.to_string())));
}

/// The version of the engine.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// A result for JavaScript.
pub(crate) type Answer<T> = Result<T, JsValue>;

/// An error with a sentence and its kind.
pub(crate) fn fault(kind: &str, sentence: &str) -> JsValue {
    let error = JsError::new(sentence);
    // It cannot fail: the error is an object of our own.
    let _ = Reflect::set(&error, &"kind".into(), &kind.into());
    error.into()
}

/// An error of the engine for JavaScript.
pub(crate) fn of_engine(error: ieq_wgpu::Error) -> JsValue {
    use ieq_wgpu::Error;
    let kind = match &error {
        Error::DeviceLost(_) => "lost",
        Error::NoAdapter(_) | Error::Device(_) | Error::OutOfMemory { .. } | Error::TooLarge { .. } => "device",
        Error::Data { .. } | Error::NonFinite(_) | Error::Diverged { .. } => "data",
        Error::Internal(_) => "internal",
        _ => "usage",
    };
    fault(kind, &error.to_string())
}

/// A value as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Answer<String> {
    serde_json::to_string(value).map_err(|e| fault("internal", &e.to_string()))
}
