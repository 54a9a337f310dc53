//! `views`: pictures as a training step shows them to the network, on one sheet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::fit::{Fit, Given, Run, load};
use super::{Session, data_options, sheet_file, warn_of, within};
use crate::data::sheet::{Cell, Sheet, colours};
use crate::data::{self, ImageSet, fitted_side};
use crate::files::replace_file;
use crate::progress::Progress;
use crate::settings::{Config, Matrix, Tune};
use crate::train::recipe::Choice;
use crate::train::record::views_of;
use crate::train::shown::shown;
use crate::{Error, Result};

/// The largest side at which pictures are shown whose side no setting says.
const MOST_SIDE: usize = 84;
/// Views of an image that are enough to see what happens at random.
const ENOUGH: usize = 8;

/// A sheet of views.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewsRequest {
    /// The settings. Without `pictures` their `data.source` has the images, of which some of the training split are taken.
    pub config: Config,
    /// As [`TrainRequest::given`](super::train::TrainRequest::given).
    pub given: Option<Given>,
    /// Picture files, or folders, zip and tar files of them, instead.
    pub pictures: Vec<PathBuf>,
    /// The PNG file to write.
    pub out: PathBuf,
    /// How many images.
    pub number: usize,
    /// Steps in a row that each image is shown at; none: as many as it takes for eight views.
    pub draws: Option<usize>,
    /// The first of the steps, counted from 0.
    pub step: u32,
}

/// A sheet that was written.
#[derive(Clone, Debug, Serialize)]
pub struct ViewsOutcome {
    /// The PNG file.
    pub sheet: PathBuf,
    /// Images on it.
    pub images: usize,
    /// Transforms of each.
    pub transforms: usize,
    /// Steps that each is shown at.
    pub draws: usize,
    /// Side of the images in pixels.
    pub side: usize,
    /// The transform set, `baseline` for one plain view.
    pub set: String,
    /// The settings that a recipe chose.
    pub chosen: Vec<Choice>,
}

/// `n` images of a set, spread over its classes.
pub(super) fn spread(images: &ImageSet, n: usize) -> ImageSet {
    let by_class = images.by_class();
    let classes = by_class.len().max(1);
    let chosen: Vec<usize> = match by_class.is_empty() {
        true => (0..n.min(images.len())).collect(),
        // The first image of classes spread over all, then the second, and so on.
        false => {
            let wanted = n.min(classes);
            let of_classes: Vec<&Vec<u32>> = (0..wanted).map(|i| &by_class[i * classes / wanted]).collect();
            let deepest = by_class.iter().map(Vec::len).max().unwrap_or(0);
            let all = (0..deepest).flat_map(|k| of_classes.iter().filter_map(move |own| own.get(k)));
            all.take(n).map(|&image| image as usize).collect()
        }
    };
    let mut few = ImageSet { side: images.side, class_names: images.class_names.clone(), ..ImageSet::default() };
    for i in chosen {
        few.names.push(images.names[i].clone());
        few.labels.extend(images.labels.get(i));
        few.pixels.extend_from_slice(images.image(i));
    }
    few
}

/// Draws the sheet and writes it.
///
/// # Errors
/// A request, settings or pictures that cannot be used; a file that cannot be written; what the device refuses.
pub fn run(request: &ViewsRequest, session: &Session, progress: &mut dyn Progress) -> Result<ViewsOutcome> {
    sheet_file("request.out", &request.out, "views.png")?;
    within("request.number", request.number, 1, 64)?;
    request.draws.map_or(Ok(()), |draws| within("request.draws", draws, 1, 64))?;
    let mut config = request.config.clone();
    config.run.out = None;
    config.validate()?;
    let mut kernels = session.open(Tune::Off, Matrix::Off, progress)?;
    let mut fit = Fit::default();
    let images = match request.pictures.is_empty() {
        true => {
            let begun = Instant::now();
            let given = request.given.as_ref().filter(|given| given.recipe);
            let software = kernels.gpu().is_software();
            let data = Arc::new(load(&config, given, software)?);
            warn_of(&data, progress);
            if let Some(given) = given {
                let run = Run { given, data: &data, novel: None, validation: None, begun };
                run.settings(&mut config, software, &mut fit)?;
                config.validate()?;
            }
            spread(&data, request.number)
        }
        false => {
            let mut options = data_options(&config.data, None);
            options.side_most = options.side.is_none().then_some(MOST_SIDE);
            let images = data::load_unlabelled(&request.pictures, &options);
            spread(&images?, request.number)
        }
    };
    if images.is_empty() {
        return Err(Error::data(&config.data.source, "there is no picture to show: name a data set or pictures"));
    }
    config.check_side(images.side).map_err(|error| match request.pictures.is_empty() {
        true => error,
        false => Error::Setting {
            key: "data.side",
            got: images.side.to_string(),
            wanted: format!("a side that a network takes ({error})"),
            suggestion: vec![crate::error::Change::Set("data.side", fitted_side(images.side, MOST_SIDE).to_string())],
        },
    })?;
    let (_, views, rotations) = views_of(&config);
    let transforms = views * rotations;
    let draws = request.draws.unwrap_or_else(|| ENOUGH.div_ceil(transforms).max(1));
    let all = shown(&mut kernels, &config, &images, request.step, draws as u32)?;

    let per_image = transforms * draws;
    // A whole number of rows for each image, the original first.
    let columns = 1 + transforms.min(16) * if transforms <= 8 { (16 / transforms).min(draws) } else { 1 };
    // Small pictures are enlarged by a whole factor.
    let side = images.side.clamp(1, 96) as u32;
    let tile = side * (96 / side);
    let mut sheet = Sheet::new().columns(columns).tile(tile);
    let some_left_out = all.iter().any(|view| !view.in_step);
    for (image, views) in all.chunks(per_image).enumerate() {
        let class = images.labels.get(image).and_then(|&label| images.class_names.get(label as usize));
        sheet.section(match class {
            Some(class) => format!("{class}: {}", images.names[image]),
            None => images.names[image].clone(),
        });
        sheet.push(Cell::of_words(images.image(image), images.side, "the image").framed(colours::PLAIN));
        for view in views {
            let step = if draws > 1 { format!(" step {}", view.step + 1) } else { String::new() };
            let cell = Cell::of_words(&view.pixels, view.side, format!("{}{step}", view.transform));
            sheet.push(if some_left_out && view.in_step { cell.framed(colours::GOOD) } else { cell });
        }
    }
    replace_file(&request.out, "cannot write the sheet", &sheet.to_png()?)?;
    Ok(ViewsOutcome {
        sheet: request.out.clone(),
        images: images.len(),
        transforms,
        draws,
        side: images.side,
        set: match transforms {
            1 => "baseline".into(),
            _ => config.method.transforms.to_string(),
        },
        chosen: fit.choices,
    })
}
