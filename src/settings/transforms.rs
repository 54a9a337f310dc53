//! The transform sets: what the equivariant head tells apart.

use std::fmt;
use std::str::FromStr;

use super::names::serde_as_text;

/// The transforms that the equivariant head tells apart. Transform m = rotations view + rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformSet {
    /// Rotations by 0, 90, 180 and 270 degrees counter-clockwise.
    Rot4,
    /// The whole image and three windows of two thirds.
    Crop4,
    /// Every window under every rotation.
    Rot4Crop4,
    /// That many fixed affine warps.
    Affine(u32),
    /// That many fixed projective warps.
    Projective(u32),
}

impl TransformSet {
    /// Views of an image, without their rotations.
    pub fn views(self) -> usize {
        match self {
            TransformSet::Rot4 => 1,
            TransformSet::Crop4 | TransformSet::Rot4Crop4 => 4,
            TransformSet::Affine(k) | TransformSet::Projective(k) => k as usize,
        }
    }

    /// Rotations of each view: 1 or 4.
    pub fn rotations(self) -> usize {
        match self {
            TransformSet::Rot4 | TransformSet::Rot4Crop4 => 4,
            TransformSet::Crop4 | TransformSet::Affine(_) | TransformSet::Projective(_) => 1,
        }
    }

    /// The number of transforms, M.
    pub fn n_transforms(self) -> usize {
        self.views() * self.rotations()
    }
}

impl fmt::Display for TransformSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransformSet::Rot4 => f.write_str("rot4"),
            TransformSet::Crop4 => f.write_str("crop4"),
            TransformSet::Rot4Crop4 => f.write_str("rot4xcrop4"),
            TransformSet::Affine(k) => write!(f, "affine-{k}"),
            TransformSet::Projective(k) => write!(f, "projective-{k}"),
        }
    }
}

impl FromStr for TransformSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = |k: &str| match k.parse() {
            Ok(k @ 2..=64) => Ok(k),
            _ => Err(format!("the number of warps must be from 2 to 64, got `{k}`")),
        };
        match (text, text.split_once('-')) {
            ("rot4", _) => Ok(TransformSet::Rot4),
            ("crop4", _) => Ok(TransformSet::Crop4),
            ("rot4xcrop4", _) => Ok(TransformSet::Rot4Crop4),
            (_, Some(("affine", k))) => count(k).map(TransformSet::Affine),
            (_, Some(("projective", k))) => count(k).map(TransformSet::Projective),
            _ => Err(format!(
                "rot4, crop4, rot4xcrop4, affine-K or projective-K (as in affine-8) is wanted, got `{text}`"
            )),
        }
    }
}

serde_as_text!(TransformSet);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for set in [TransformSet::Rot4, TransformSet::Crop4, TransformSet::Affine(16), TransformSet::Projective(64)] {
            assert_eq!(set.to_string().parse(), Ok(set));
            assert_eq!(set.n_transforms(), set.views() * set.rotations());
        }
        assert_eq!(TransformSet::Rot4Crop4.n_transforms(), 16);
        assert_eq!("affine-16".parse(), Ok(TransformSet::Affine(16)));
        for wrong in ["", "rot", "affine", "affine-", "affine-1", "affine-65", "projective--3", "rot4-4"] {
            assert!(wrong.parse::<TransformSet>().is_err(), "{wrong}");
        }
    }
}
