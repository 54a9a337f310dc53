//! What a network makes of novel classes, for a report: confusion, a map, neighbours. From features alone; no device.

use image::RgbImage;

use crate::Result;
use crate::data::ImageSet;
use crate::data::sheet::{fitted, picture};
use crate::fewshot::projection::principal;
use crate::fewshot::{Features, l2_normalise};
use crate::page::novel::{Near, Novel, Pair, Point};

/// Classes and images of each that are looked at, spread over all.
const LOOKED_AT: (usize, usize) = (100, 20);
/// Classes of the matrix; classes and images of each on the map.
const MATRIX: usize = 20;
const MAP: (usize, usize) = (12, 14);
/// Images whose neighbours are shown, and how many; pairs that are confused most.
const NEAR: (usize, usize) = (8, 7);
const PAIRS: usize = 8;

/// Thumbnails that a page shares, each once.
#[derive(Debug, Default)]
pub(super) struct Thumbnails {
    /// Their side.
    pub side: u32,
    /// The pictures.
    pub pictures: Vec<RgbImage>,
}

/// The largest side of a thumbnail.
const THUMBNAIL: u32 = 32;

impl Thumbnails {
    /// For images of `side` pixels: those of up to 32 are kept as they are.
    pub fn new(side: usize) -> Thumbnails {
        Thumbnails { side: (side as u32).clamp(1, THUMBNAIL), pictures: Vec::new() }
    }

    /// Takes in an image's words; its position.
    pub fn add(&mut self, words: &[u32], side: usize) -> usize {
        self.pictures.push(fitted(&picture(words, side), self.side));
        self.pictures.len() - 1
    }
}

/// `n` of `0..all`, spread evenly.
fn spread(all: usize, n: usize) -> impl Iterator<Item = usize> {
    let n = n.min(all);
    (0..n).map(move |i| i * all / n.max(1))
}

/// Looks at the features `[images, width]` of novel classes, which are scaled to length 1 first.
///
/// # Errors
/// [`crate::Error::Shape`] where features and images do not fit together.
pub(super) fn analyse(images: &ImageSet, features: &[f32], width: usize, thumbnails: &mut Thumbnails) -> Result<Novel> {
    let by_class = images.by_class();
    let classes: Vec<usize> = spread(by_class.len(), LOOKED_AT.0).filter(|&class| by_class[class].len() > 1).collect();
    let mut rows: Vec<f32> = Vec::new();
    // Of each row: its image, and its class as a position in `classes`.
    let mut about: Vec<(usize, usize)> = Vec::new();
    for (position, &class) in classes.iter().enumerate() {
        for &image in by_class[class].iter().take(LOOKED_AT.1) {
            rows.extend_from_slice(
                features.get(image as usize * width..(image as usize + 1) * width).unwrap_or_default(),
            );
            about.push((image as usize, position));
        }
    }
    l2_normalise(&mut rows, width.max(1));
    let features = Features::new(&rows, width)?;
    let row = |i: usize| features.row(i).unwrap_or_default();
    let name =
        |position: usize| classes.get(position).map_or(String::new(), |&class| images.class_names[class].clone());

    // The nearest class mean, the row itself left out of its own.
    let mut sums = vec![vec![0.0_f64; width]; classes.len()];
    let mut counts = vec![0_usize; classes.len()];
    for (i, &(_, class)) in about.iter().enumerate() {
        sums[class].iter_mut().zip(row(i)).for_each(|(sum, &x)| *sum += f64::from(x));
        counts[class] += 1;
    }
    let squares: Vec<f64> = sums.iter().map(|sum| sum.iter().map(|x| x * x).sum()).collect();
    let nearest: Vec<usize> = about
        .iter()
        .enumerate()
        .map(|(i, &(_, own))| {
            let own_square: f64 = row(i).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let distance = |class: usize| {
                let product: f64 = sums[class].iter().zip(row(i)).map(|(s, &x)| s * f64::from(x)).sum();
                let (n, product, square) = match class == own {
                    true => {
                        (counts[class] as f64 - 1.0, product - own_square, squares[class] - 2.0 * product + own_square)
                    }
                    false => (counts[class] as f64, product, squares[class]),
                };
                square / (n * n) - 2.0 * product / n
            };
            let all = (0..classes.len()).map(|class| (class, distance(class)));
            all.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(own, |(class, _)| class)
        })
        .collect();
    let mut confused = vec![vec![0_usize; classes.len()]; classes.len()];
    about.iter().zip(&nearest).for_each(|(&(_, own), &said)| confused[own][said] += 1);
    let right: usize = (0..classes.len()).map(|class| confused[class][class]).sum();
    let share = |own: usize, said: usize| confused[own][said] as f64 / counts[own].max(1) as f64;

    let first_of = |class: usize| about.iter().position(|(_, own)| *own == class).map_or(0, |i| about[i].0);
    let mut shown: Vec<Option<usize>> = vec![None; images.len()];
    let mut thumbnail = |image: usize, thumbnails: &mut Thumbnails| match shown[image] {
        Some(position) => position,
        None => *shown[image].insert(thumbnails.add(images.image(image), images.side)),
    };

    let mut worst: Vec<(usize, usize)> = (0..classes.len())
        .flat_map(|a| (0..classes.len()).map(move |b| (a, b)))
        .filter(|&(a, b)| a != b && confused[a][b] > 0)
        .collect();
    worst.sort_by(|&(a, b), &(c, d)| share(c, d).total_cmp(&share(a, b)).then((a, b).cmp(&(c, d))));
    let pairs = worst.iter().take(PAIRS).map(|&(a, b)| Pair {
        classes: (name(a), name(b)),
        thumbnails: (thumbnail(first_of(a), thumbnails), thumbnail(first_of(b), thumbnails)),
        share: share(a, b),
    });
    let pairs = pairs.collect();

    let on_map: Vec<usize> = spread(classes.len(), MAP.0).collect();
    let mut mapped: Vec<(usize, usize)> = Vec::new();
    for (position, &class) in on_map.iter().enumerate() {
        let of_class = about.iter().enumerate().filter(|(_, (_, own))| *own == class).take(MAP.1);
        mapped.extend(of_class.map(|(i, _)| (i, position)));
    }
    let chosen: Vec<f32> = mapped.iter().flat_map(|&(i, _)| row(i).iter().copied()).collect();
    let projection = principal(Features::new(&chosen, width)?);
    let ends = |axis: usize| {
        let all = || projection.coordinates.iter().map(|at| at[axis]);
        (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max))
    };
    let ends = [ends(0), ends(1)];
    let points = mapped.iter().zip(&projection.coordinates).map(|(&(i, class), at)| Point {
        at: [0, 1].map(|axis| match ends[axis].1 - ends[axis].0 {
            size if size > 0.0 => (at[axis] - ends[axis].0) / size,
            _ => 0.5,
        }),
        class,
        thumbnail: thumbnail(about[i].0, thumbnails),
        name: images.names[about[i].0].clone(),
        nearest: nearest[i],
    });
    let points = points.collect();

    let mut near = Vec::new();
    for class in spread(classes.len(), NEAR.0) {
        let Some(query) = about.iter().position(|(_, own)| *own == class) else { continue };
        let cosine = |i: usize| row(query).iter().zip(row(i)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let mut others: Vec<(usize, f64)> = (0..about.len()).filter(|&i| i != query).map(|i| (i, cosine(i))).collect();
        others.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let image = about[query].0;
        let found = others.iter().take(NEAR.1).map(|&(i, cosine)| {
            let (image, of) = about[i];
            (thumbnail(image, thumbnails), cosine, name(of), of == class)
        });
        let found = found.collect();
        let label = (name(class), images.names[image].clone());
        near.push(Near { thumbnail: thumbnail(image, thumbnails), label, found });
    }

    let in_matrix: Vec<usize> = spread(classes.len(), MATRIX).collect();
    let of_all = match classes.len() < by_class.len() {
        true => format!("{} of the {} novel classes, spread evenly", classes.len(), by_class.len()),
        false => format!("All {} novel classes", classes.len()),
    };
    Ok(Novel {
        about: format!("{of_all}, with up to {} images of each: {} in all.", LOOKED_AT.1, about.len()),
        classes: (0..classes.len()).map(name).collect(),
        accuracy: right as f64 / about.len().max(1) as f64,
        matrix: in_matrix.iter().map(|&a| in_matrix.iter().map(|&b| share(a, b)).collect()).collect(),
        in_matrix,
        pairs,
        on_map,
        points,
        explained: projection.explained,
        near,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn classes_that_lie_apart_are_told_apart() {
        let (classes, each, side) = (30, 4, 2);
        let n = classes * each;
        let labels: Vec<u32> = (0..n).map(|i| (i / each) as u32).collect();
        let names = (0..n).map(|i| format!("image {i}")).collect();
        let class_names = (0..classes).map(|c| format!("<class {c}>")).collect();
        let images =
            ImageSet::new(side, vec![0xff00_00ff; n * side * side], labels.clone(), class_names, names).unwrap();
        // One direction for each class, with the last image of class 0 in that of class 1.
        let mut features = vec![0.0; n * classes];
        for (i, &label) in labels.iter().enumerate() {
            features[i * classes + label as usize] = 2.0;
            features[i * classes + (label as usize + 1 + i % 3) % classes] = 0.1;
        }
        let last = (each - 1) * classes;
        features[last..last + classes].fill(0.0);
        features[last + 1] = 1.0;
        let mut thumbnails = Thumbnails::new(side);
        let novel = analyse(&images, &features, classes, &mut thumbnails).unwrap();
        assert_eq!((novel.classes.len(), novel.in_matrix.len(), novel.on_map.len()), (30, 20, 12));
        assert!((novel.accuracy - 119.0 / 120.0).abs() < 1e-9, "{}", novel.accuracy);
        assert_eq!(novel.pairs.len(), 1);
        assert_eq!(novel.pairs[0].classes, ("<class 0>".to_owned(), "<class 1>".to_owned()));
        assert_eq!(novel.points.len(), 12 * each);
        assert!(novel.points.iter().all(|point| point.at.iter().all(|x| (0.0..=1.0).contains(x))));
        assert_eq!(novel.near.len(), 8);
        assert!(novel.near[1].found[..each - 1].iter().all(|(_, cosine, _, own)| *own && *cosine > 0.9));
        assert!(thumbnails.pictures.len() < n);
        assert_eq!(novel, analyse(&images, &features, classes, &mut Thumbnails::new(side)).unwrap());
    }
}
