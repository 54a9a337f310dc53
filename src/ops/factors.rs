//! How the factors of a product are rounded for units that multiply matrices.

/// How a factor of a product is rounded. Sums are f32 in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    /// To half precision: 11 bits.
    F16,
    /// To two numbers of half precision, the second of which holds what the first leaves: 22 bits, of which three products of
    /// four are summed.
    F32x3,
}

impl Factors {
    /// Products that are summed for one.
    pub(super) fn products(self) -> u64 {
        match self {
            Factors::F16 => 1,
            Factors::F32x3 => 3,
        }
    }

    /// As [`Operation::algorithm`](super::Operation::algorithm).
    pub(super) fn algorithm(self) -> &'static str {
        match self {
            Factors::F16 => "matrix f16",
            Factors::F32x3 => "matrix f32x3",
        }
    }

    /// How far a factor is rounded, as a share of it: by half of the last bit. Two parts are within what f32 sums allow.
    pub(crate) fn rounding(self) -> f64 {
        match self {
            Factors::F16 => 2_f64.powi(-11),
            Factors::F32x3 => 0.0,
        }
    }
}
