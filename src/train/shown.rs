//! Images as a training step shows them to the network, as pictures: the same numbers and the same kernel, and the
//! normalisation taken back.

use super::record::{DataShape, net_spec, phase_spec, record_views, view_sampler, views_of};
use crate::Result;
use crate::data::ImageSet;
use crate::gpu::kernel::Kernels;
use crate::ops::views::{PARAMETER_WORDS, pack_pixel};
use crate::settings::Config;
use crate::tape::exec::{Arenas, Executor};
use crate::tape::{Graph, Type};

/// A view of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The image: its position among those asked for, which is also its place in the batch.
    pub image: usize,
    /// The step, counted from 0.
    pub step: u32,
    /// The number of the transform; 0 is the plain one.
    pub transform: usize,
    /// Whether the step shows it: with `method.views` below the number of transforms some are left out.
    pub in_step: bool,
    /// Its side in pixels: the image's, or a smaller one with `method.scale`.
    pub side: usize,
    /// RGBA8 words, row by row.
    pub pixels: Vec<u32>,
}

/// Every transform of every image as steps `from`, `from + 1`, ... of a run show it: `draws` of them. Ordered by image,
/// then step, then transform.
///
/// # Errors
/// [`crate::Error::Argument`] when the images are not whole; [`crate::Error::Device`] when the device fails.
pub async fn shown_async(
    kernels: &mut Kernels,
    config: &Config,
    images: &ImageSet,
    from: u32,
    draws: u32,
) -> Result<Vec<Shown>> {
    images.validate()?;
    let side = images.side;
    let shown_side = config.method.network_side(side);
    let size = shown_side * shown_side;
    let (_, views, rotations) = views_of(config);
    let transforms = views * rotations;
    let sampler = view_sampler(config, side);
    let classes = images.n_classes().max(2);
    let shape = DataShape { side, classes, images: images.len().max(config.optimiser.batch + 1) };
    let spec = phase_spec(&net_spec(config, classes), config, shape, false);

    // Each row has its own parameters, as where views are drawn: the same bits as all transforms at once.
    let rows = transforms * draws as usize;
    let mut graph = Graph::new();
    let stored = graph.input("images", Type::u32([1, side, side]));
    let index = graph.input("view index", Type::u32([rows]));
    let parameters = graph.input("view parameters", Type::u32([rows, PARAMETER_WORDS]));
    let x = record_views(&mut graph, config, side, (1, 1), [stored, index, parameters])?;
    graph.keep(x);
    let executor = Executor::new_async(kernels, &mut Arenas::new(), graph).await?;
    executor.write_async(index, &vec![0_u32; rows]).await?;

    let mut all = Vec::new();
    for image in 0..images.len() {
        let mut words = Vec::with_capacity(rows * PARAMETER_WORDS);
        let mut about = Vec::with_capacity(rows);
        for step in (0..draws).map(|draw| from.saturating_add(draw)) {
            let further = match spec.drawn {
                true if image < spec.viewed => sampler.further(step, image, spec.copies.saturating_sub(1)),
                true => Vec::new(),
                false => (1..transforms).collect(),
            };
            for transform in 0..transforms {
                words.extend(sampler.under(step, image, transform).words());
                about.push((step, transform, transform == 0 || further.contains(&transform)));
            }
        }
        executor.write_async(stored, images.image(image)).await?;
        executor.write_async(parameters, &words).await?;
        executor.submit_async().await?;
        let seen: Vec<f32> = executor.read_async(x).await?;
        for ((step, transform, in_step), planes) in about.into_iter().zip(seen.chunks(3 * size)) {
            let channel = |c: usize, pixel: usize| {
                let value = f64::from(planes[c * size + pixel]) * config.data.std[c] + config.data.mean[c];
                (255.0 * value).round().clamp(0.0, 255.0) as u8
            };
            let pixels = (0..size).map(|pixel| pack_pixel([0, 1, 2].map(|c| channel(c, pixel)))).collect();
            all.push(Shown { image, step, transform, in_step, side: shown_side, pixels });
        }
    }
    Ok(all)
}

/// As [`shown_async`]; blocks.
///
/// # Errors
/// As [`shown_async`].
#[cfg(not(target_arch = "wasm32"))]
pub fn shown(kernels: &mut Kernels, config: &Config, images: &ImageSet, from: u32, draws: u32) -> Result<Vec<Shown>> {
    pollster::block_on(shown_async(kernels, config, images, from, draws))
}
