//! Training in the page: settings chosen by the recipe of the program, and the run itself.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ieq_wgpu::data::{ImageSet, Statistics, fitted_side};
use ieq_wgpu::fewshot::reference::Source;
use ieq_wgpu::progress::StepReport;
use ieq_wgpu::settings::{Config, Recipe, put, setting};
use ieq_wgpu::train::checkpoint::Checkpoint;
use ieq_wgpu::train::init::{Init, blocks};
use ieq_wgpu::train::recipe::{self, Choice};
use ieq_wgpu::train::record::DataShape;
use ieq_wgpu::train::validation::{self, Validated};
use ieq_wgpu::train::{Extractor, Observer, Trainer, reference};
use js_sys::{Promise, Uint8Array};
use serde::Serialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use crate::engine::Engine;
use crate::network::{Network, words};
use crate::{Answer, clock, fault, json, of_engine};

/// Fewest classes of which some are held out for validation, and the share of them.
const CLASSES_TO_HOLD_OUT: usize = 10;
const SHARE: usize = 5;
/// Images of a class that episodes of five shots want.
const LEAST: usize = 6;

/// The side for a run from scratch, of pictures whose shorter side is `shorter` pixels in the middle.
#[wasm_bindgen]
pub fn side_for(shorter: usize, software: bool) -> usize {
    fitted_side(shorter, recipe::side_most(software, None))
}

/// Labelled pictures of a run.
#[wasm_bindgen]
pub struct Pictures {
    images: ImageSet,
}

#[wasm_bindgen]
impl Pictures {
    /// None yet, of `classes`; `original_side`: the shorter side that the pictures have in the middle.
    #[wasm_bindgen(constructor)]
    pub fn new(side: usize, classes: Vec<String>, original_side: usize) -> Answer<Pictures> {
        let images = ImageSet::new(side, Vec::new(), Vec::new(), classes, Vec::new()).map_err(of_engine)?;
        Ok(Pictures { images: ImageSet { original_side: Some(original_side), ..images } })
    }

    /// Adds a picture: `pixels` as `square` made them, and the number of its class.
    pub fn add(&mut self, pixels: &[u8], label: u32) -> Answer<()> {
        let images = &mut self.images;
        if pixels.len() != 4 * images.side * images.side || label as usize >= images.n_classes() {
            return Err(fault("internal", "a picture of a run has another size, or no class"));
        }
        images.names.push(images.names.len().to_string());
        images.pixels.extend(words(pixels));
        images.labels.push(label);
        Ok(())
    }

    /// The pixels of picture `i`, as they were added.
    pub fn pixels(&self, i: usize) -> Vec<u8> {
        let size = self.images.side * self.images.side;
        let pixels = self.images.pixels.chunks_exact(size.max(1)).nth(i).unwrap_or_default();
        pixels.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Pictures that are trained on, and those that the run is validated on, where there are enough; and why.
fn divided(all: &ImageSet) -> (ImageSet, Option<ImageSet>, String) {
    let by_class = all.by_class();
    let enough: Vec<usize> = (0..by_class.len()).filter(|&class| by_class[class].len() >= LEAST).collect();
    let chosen = |images: ImageSet| validation::chosen(&images).ok();
    if by_class.len() >= CLASSES_TO_HOLD_OUT && enough.len() >= SHARE {
        let n = (by_class.len() / SHARE).min(enough.len());
        let held: Vec<usize> = (0..n).map(|i| enough[i * enough.len() / n]).collect();
        let of = |wanted: bool| {
            let classes = (0..by_class.len()).filter(|class| held.contains(class) == wanted);
            all.subset(classes.map(|class| (class, by_class[class].as_slice())))
        };
        if let Some(few) = chosen(of(true)) {
            let why = format!(
                "scored on the classes {}, which it is not trained on",
                few.class_names.iter().map(|name| format!("\u{201c}{name}\u{201d}")).collect::<Vec<_>>().join(", ")
            );
            return (keep_side(of(false), all), Some(few), why);
        }
    }
    // Pictures of classes that it is trained on: every fifth, where that leaves enough of both.
    let rich = |class: &usize| by_class[*class].len() >= LEAST * SHARE;
    if (0..by_class.len()).filter(rich).count() > 1 {
        let part = |held: bool| -> Vec<Vec<u32>> {
            let of = |class: usize| {
                let images = by_class[class].iter().copied().enumerate();
                let own = images.filter(|(i, _)| (rich(&class) && i % SHARE == SHARE - 1) == held);
                own.map(|(_, image)| image).collect()
            };
            (0..by_class.len()).map(of).collect()
        };
        let set = |part: &[Vec<u32>]| {
            let classes = part.iter().enumerate().filter(|(_, images)| !images.is_empty());
            all.subset(classes.map(|(class, images)| (class, images.as_slice())))
        };
        if let Some(few) = chosen(set(&part(true))) {
            let why = "scored on every fifth picture of the larger classes, which it is not trained on".into();
            return (keep_side(set(&part(false)), all), Some(few), why);
        }
    }
    let why = "not scored on the way: that wants 10 classes of 6 pictures, or 2 of 30".into();
    (all.clone(), None, why)
}

fn keep_side(images: ImageSet, all: &ImageSet) -> ImageSet {
    ImageSet { original_side: all.original_side, ..images }
}

/// A setting for the page.
#[derive(Serialize)]
struct Shown {
    key: &'static str,
    value: String,
    why: String,
}

impl From<Choice> for Shown {
    fn from(choice: Choice) -> Shown {
        Shown { key: choice.key, value: choice.shown(), why: choice.reason }
    }
}

#[derive(Serialize)]
struct Plan {
    settings: Vec<Shown>,
    steps: u32,
    rows: u64,
    classes: usize,
    images: usize,
    config: String,
}

/// Settings for a run, as the program chooses them without a preset, as JSON with the configuration; `from`: the network
/// that it starts with, whose name is `from_name`; `steps`: 0 for a length that suits.
#[wasm_bindgen]
pub fn plan_run(
    pictures: &Pictures,
    from: Option<Network>,
    from_name: String,
    steps: u32,
    seed: u32,
    software: bool,
) -> Answer<String> {
    let (images, _, held_out) = divided(&pictures.images);
    if images.n_classes() < 2 {
        return Err(fault("usage", "training tells classes apart: give two classes with pictures, or more"));
    }
    let mut given = toml::Table::new();
    let mut give = |key: &'static str, value: toml::Value| put(&mut given, key, value);
    give("run.seed", i64::from(seed).into());
    // What the page exports its pictures as.
    give("data.source", "project.zip".into());
    let mut settings = Vec::new();
    if let Some(network) = &from {
        let Some((backbone, widths)) = blocks(&network.weights()) else {
            return Err(fault("data", "this network has no blocks that a run could start from: start from scratch"));
        };
        let widths: Vec<toml::Value> = widths.into_iter().map(|width| toml::Value::Integer(width as i64)).collect();
        give("model.backbone", backbone.to_string().into());
        give("model.widths", widths.into());
        give("run.init", from_name.clone().into());
        let why = "its blocks are taken over; the heads are made anew for your classes".into();
        settings.push(Shown { key: "run.init", value: from_name, why });
    }
    if steps > 0 {
        give("optimiser.length", toml::Table::from_iter([("steps".to_owned(), i64::from(steps).into())]).into());
    }
    let mut config = Config::default();
    config.recipe = Recipe::Auto;
    config.lay(&given).map_err(of_engine)?;
    let statistics = Statistics::of(&images);
    let shape = DataShape::of(&images);
    let lay = |config: &mut Config, choices| recipe::lay(config, &given, choices).map_err(of_engine);
    let choices = recipe::from_pictures(config.recipe, &config, &statistics);
    let mut chosen = lay(&mut config, choices)?;
    let ink = recipe::is_ink(&statistics);
    let choices = recipe::from_recipe(config.recipe, &config, &given, (images.len(), ink)).map_err(of_engine)?;
    chosen.extend(lay(&mut config, choices)?);
    chosen.extend(recipe::auto_length(&mut config, &given, shape, software).map_err(of_engine)?);
    config.validate().map_err(of_engine)?;
    let steps = config.schedule(shape.side, shape.images).map_err(of_engine)?.total_steps;
    settings.extend(chosen.into_iter().map(Shown::from));
    settings.push(Shown { key: "validation", value: String::new(), why: held_out });
    debug_assert!(settings.iter().all(|shown| shown.key == "validation" || setting(shown.key).is_some()));
    json(&Plan {
        settings,
        steps,
        rows: recipe::rows_of(&config, shape.side, steps.into()),
        classes: images.n_classes(),
        images: images.len(),
        config: config.to_json().map_err(of_engine)?,
    })
}

/// A run on the device.
#[wasm_bindgen]
pub struct Run {
    /// Taken out while it trains.
    trainer: Rc<RefCell<Option<Trainer>>>,
    images: Arc<ImageSet>,
    steps: u32,
}

/// What the worker is told: functions of JavaScript.
#[wasm_bindgen]
extern "C" {
    /// Who is told what a run does.
    pub type Listener;
    /// The losses of a step were read: a report as JSON.
    #[wasm_bindgen(method, catch)]
    fn step(this: &Listener, report: String) -> Result<(), JsValue>;
    /// The bytes of a checkpoint, and whether it is of the network that validated best.
    #[wasm_bindgen(method, catch)]
    fn checkpoint(this: &Listener, bytes: Uint8Array, best: bool) -> Result<(), JsValue>;
    /// A score on the validation pictures, as JSON.
    #[wasm_bindgen(method, catch)]
    fn validation(this: &Listener, score: String) -> Result<(), JsValue>;
    /// Whether the run should stop after the step under way.
    #[wasm_bindgen(method)]
    fn stop(this: &Listener) -> bool;
}

struct Told {
    listener: Listener,
    /// What the listener has thrown.
    thrown: Option<JsValue>,
}

impl Told {
    /// What JavaScript threw ends the run, and is thrown again there.
    fn heard(&mut self, result: Result<(), JsValue>) -> ieq_wgpu::Result<()> {
        result.map_err(|thrown| {
            self.thrown = Some(thrown);
            ieq_wgpu::Error::Internal("the page could not go on".into())
        })
    }

    fn json<T: Serialize>(value: &T) -> ieq_wgpu::Result<String> {
        serde_json::to_string(value).map_err(|e| ieq_wgpu::Error::Internal(e.to_string()))
    }
}

impl Observer for Told {
    fn on_step(&mut self, report: &StepReport) -> ieq_wgpu::Result<()> {
        let result = self.listener.step(Self::json(report)?);
        self.heard(result)
    }

    fn on_checkpoint(&mut self, checkpoint: &Checkpoint) -> ieq_wgpu::Result<()> {
        let bytes = checkpoint.to_bytes()?;
        let result = self.listener.checkpoint(bytes.as_slice().into(), false);
        self.heard(result)
    }

    fn on_validation(&mut self, score: &Validated, _: bool) -> ieq_wgpu::Result<()> {
        let result = self.listener.validation(Self::json(score)?);
        self.heard(result)
    }

    fn on_best(&mut self, checkpoint: &Checkpoint) -> ieq_wgpu::Result<()> {
        let bytes = checkpoint.to_bytes()?;
        let result = self.listener.checkpoint(bytes.as_slice().into(), true);
        self.heard(result)
    }

    fn stop_requested(&self) -> bool {
        self.listener.stop()
    }
}

#[wasm_bindgen]
impl Run {
    /// A run with the configuration of [`plan_run`]: at its first step, or with `checkpoint` where that was. `from`: the
    /// network that a new run starts with. It takes the pictures and frees them.
    pub fn open(
        engine: &Engine,
        pictures: Pictures,
        config: String,
        from: Option<Network>,
        checkpoint: Option<Vec<u8>>,
    ) -> Promise {
        let engine = engine.clone();
        let (images, few, _) = divided(&pictures.images);
        drop(pictures);
        future_to_promise(async move {
            let name = Path::new("the run");
            let mut config = Config::from_json(&config, name).map_err(of_engine)?;
            // Checkpoints are asked for by time, and losses as often as the page draws them.
            (config.run.checkpoint_every, config.run.log_every) = (0, if engine.software() { 1 } else { 10 });
            let init = config.run.init.clone().unwrap_or_else(|| PathBuf::from("network"));
            let images = Arc::new(images);
            let trainer = Trainer::new_async(engine.kernels(), &config, images.clone(), None, Some(clock)).await;
            let mut trainer = trainer.map_err(of_engine)?;
            if let Some(few) = few {
                trainer.validate_on_async(Arc::new(few)).await.map_err(of_engine)?;
            }
            match (checkpoint, from) {
                (Some(bytes), _) => {
                    let checkpoint = Checkpoint::from_bytes(name, &bytes).map_err(of_engine)?;
                    trainer.restore_async(name, &checkpoint).await.map_err(of_engine)?;
                }
                (None, Some(network)) => {
                    let init = Init { path: init, weights: network.weights() };
                    trainer.take_over_async(Arc::new(init)).await.map_err(of_engine)?;
                }
                (None, None) => {}
            }
            engine.keep(trainer.kernels().clone());
            let steps = trainer.total_steps();
            Ok(Run { trainer: Rc::new(RefCell::new(Some(trainer))), images, steps }.into())
        })
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// A checkpoint of the run as a network to answer with: how similar pictures are to it is measured and noted, on pictures
    /// that it was validated on, or else on some that it was trained on.
    pub fn network(&self, engine: &Engine, bytes: Vec<u8>) -> Promise {
        let (engine, images) = (engine.clone(), self.images.clone());
        let held_out = self.trainer.borrow().as_ref().and_then(|trainer| trainer.validation_images().cloned());
        future_to_promise(async move {
            let name = Path::new("the trained network");
            let mut checkpoint = Checkpoint::from_bytes(name, &bytes).map_err(of_engine)?;
            let (of, source) = match held_out.as_deref().and_then(reference::some) {
                Some(few) => (Some(few), Source::HeldOut),
                None => (reference::some(&images), Source::TrainedOn),
            };
            if let Some(few) = of {
                let opened = Extractor::open_async(engine.kernels(), name, &checkpoint, false, Some(clock)).await;
                let (extractor, _) = opened.map_err(of_engine)?;
                let found = reference::measure_async(&extractor, &few, source).await.map_err(of_engine)?;
                if let Some(found) = found {
                    reference::put(&found, &mut checkpoint).map_err(of_engine)?;
                }
            }
            Ok(Uint8Array::from(checkpoint.to_bytes().map_err(of_engine)?.as_slice()).into())
        })
    }

    /// The settings in effect, as JSON: those to open it with again.
    pub fn config(&self) -> Answer<String> {
        self.with(|trainer| trainer.fitted().config.to_json())
    }

    /// Steps that are done.
    pub fn done(&self) -> Answer<u32> {
        self.with(|trainer| Ok(trainer.steps_done()))
    }

    fn with<T>(&self, what: impl FnOnce(&Trainer) -> ieq_wgpu::Result<T>) -> Answer<T> {
        match self.trainer.borrow().as_ref() {
            Some(trainer) => what(trainer).map_err(of_engine),
            None => Err(fault("usage", "the run is at work: pause it first")),
        }
    }

    /// Trains on until the end, or until `listener` asks to stop. Its promise: whether the run is over.
    pub fn train(&self, listener: Listener) -> Promise {
        let place = self.trainer.clone();
        future_to_promise(async move {
            let Some(mut trainer) = place.borrow_mut().take() else {
                return Err(fault("usage", "the run is at work already"));
            };
            let mut told = Told { listener, thrown: None };
            let result = async {
                // Where the curve begins: the network as it is before the first step.
                if trainer.steps_done() == 0
                    && let Some(score) = trainer.validated_async().await?
                {
                    told.on_validation(&score, false)?;
                }
                trainer.train_async(&mut told).await
            };
            let result = result.await;
            *place.borrow_mut() = Some(trainer);
            match (result, told.thrown) {
                (_, Some(thrown)) => Err(thrown),
                (result, None) => result.map(JsValue::from).map_err(of_engine),
            }
        })
    }
}
