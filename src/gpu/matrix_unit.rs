//! Units that multiply matrices: which of them an adapter may have.
//!
//! Drivers list sizes and types, but the lanes of a subgroup only as a least and a most number, and some list what gives
//! wrong numbers. So these are candidates: `ops::check::find_matrix_unit` tries them.

use super::adapter::INTEL;

/// A unit that multiplies matrices of half precision, with sums in f32, as kernels know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixUnit {
    /// Rows, columns and terms of its matrices.
    pub side: u32,
    /// Lanes of the subgroups that hold them.
    pub lanes: u32,
}

impl MatrixUnit {
    /// No unit: the kernels for units by ordinary arithmetic, which is slow and gives the numbers of units.
    pub const SCALAR: MatrixUnit = MatrixUnit { side: 1, lanes: 1 };

    /// The kinds that there are kernels for.
    pub const KNOWN: [MatrixUnit; 4] = [
        MatrixUnit { side: 16, lanes: 32 },
        MatrixUnit { side: 16, lanes: 64 },
        MatrixUnit { side: 8, lanes: 32 },
        MatrixUnit { side: 8, lanes: 8 },
    ];
}

impl std::fmt::Display for MatrixUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{0} x {0} matrices in subgroups of {1} lanes", self.side, self.lanes)
    }
}

/// What kernels for matrix units need.
pub(super) const MATRIX_FEATURES: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);

/// The kinds of matrix unit that an adapter may have.
pub fn matrix_units(adapter: &wgpu::Adapter) -> Vec<MatrixUnit> {
    let info = adapter.get_info();
    // Intel's driver gives wrong numbers for 16 x 16 matrices on some generations, at times.
    if !adapter.features().contains(MATRIX_FEATURES) || info.vendor == INTEL {
        return Vec::new();
    }
    let properties = adapter.cooperative_matrix_properties();
    let has = |unit: &MatrixUnit| {
        let is_listed = properties.iter().any(|p| {
            [p.m_size, p.n_size, p.k_size] == [unit.side; 3]
                && p.ab_type == wgpu::CooperativeScalarType::F16
                && p.cr_type == wgpu::CooperativeScalarType::F32
        });
        is_listed && (info.subgroup_min_size..=info.subgroup_max_size).contains(&unit.lanes)
    };
    MatrixUnit::KNOWN.into_iter().filter(has).collect()
}
