//! One dispatch as data: which kernel, over what, how large, and the other ways to do the same.

use super::adapter::{AMD, INTEL};
use super::matrix_unit::MatrixUnit;

/// Invocations per workgroup of one-dimensional kernels; the shader's constant `WG`.
pub const WORKGROUP: u32 = 64;

/// Most workgroups along one axis that every adapter accepts.
const GRID_AXIS: u32 = 65_535;

/// What ends the name of a file whose kernels use subgroups.
pub(super) const SUBGROUP: &str = "_subgroup";

/// One value of a kernel's `Params`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// `u32`
    U32(u32),
    /// `i32`
    I32(i32),
    /// `f32`
    F32(f32),
    /// A size that no `u32` holds: a launch with it is refused when it is prepared.
    TooLarge(u64),
}

impl Scalar {
    /// The value of an unsigned integer, which is a size.
    pub fn size(self) -> Option<u32> {
        if let Scalar::U32(n) = self { Some(n) } else { None }
    }
}

impl From<u32> for Scalar {
    fn from(v: u32) -> Self {
        Scalar::U32(v)
    }
}
impl From<usize> for Scalar {
    fn from(v: usize) -> Self {
        u32::try_from(v).map_or(Scalar::TooLarge(v as u64), Scalar::U32)
    }
}
impl From<i32> for Scalar {
    fn from(v: i32) -> Self {
        Scalar::I32(v)
    }
}
impl From<f32> for Scalar {
    fn from(v: f32) -> Self {
        Scalar::F32(v)
    }
}

/// One dispatch. `B` names a buffer: a value of a graph or a region of a device buffer.
#[derive(Clone, Debug)]
pub struct Launch<B> {
    /// Stem of the WGSL file.
    pub shader: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// Pipeline-overridable constants.
    pub constants: Vec<(&'static str, f64)>,
    /// Values of `Params`, by member name.
    pub params: Vec<(&'static str, Scalar)>,
    /// Storage bindings, by variable name.
    pub bindings: Vec<(&'static str, B)>,
    /// Workgroups per axis.
    pub groups: [u32; 3],
    /// Whether more workgroups of fewer lanes do the same: [`Launch::set_divisible_workgroup`].
    pub divisible: bool,
    /// Other ways to do the same, the preferred one first. A device that can run none of them runs `entry`.
    pub alternatives: Vec<Alternative>,
}

/// Another entry point of a launch's file, with the same parameters, constants and bindings.
#[derive(Clone, Debug)]
pub struct Alternative {
    /// Entry point.
    pub entry: &'static str,
    /// Workgroups per axis.
    pub groups: [u32; 3],
    /// Fewest lanes of a subgroup with which it can share loads. Without subgroups it does not share them.
    pub lanes: u32,
    /// Accumulators per invocation.
    pub accumulators: u32,
    /// Bytes of workgroup memory; 0 where it uses none.
    pub memory: u32,
}

/// What a device offers to a kernel; it decides among the alternatives of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelBudget {
    /// Lanes per subgroup that kernels may count on to share loads; 0 without subgroups.
    pub lanes: u32,
    /// Most accumulators per invocation that are fast.
    pub accumulators: u32,
    /// Bytes of workgroup memory.
    pub memory: u32,
    /// Whether workgroup memory is faster than the caches.
    pub fast_memory: bool,
    /// Most lanes of a workgroup that can be divided.
    pub workgroup: u32,
    /// The unit that multiplies matrices, where there is one and it is used.
    pub matrix_unit: Option<MatrixUnit>,
}

impl KernelBudget {
    /// What an adapter can do where it is opened with these features and limits.
    pub fn of_adapter(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> Self {
        let subgroups = features.contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size >= 4;
        let lanes = if subgroups { info.subgroup_min_size } else { 0 };
        let accumulators = match (info.device_type, lanes, info.vendor) {
            // What does not fit the registers spills to the nearest cache, which costs a software adapter little.
            (wgpu::DeviceType::Cpu, 8.., _) => 320,
            // One with narrower vectors (SwiftShader) takes minutes to compile more.
            (wgpu::DeviceType::Cpu, ..) => 36,
            // A lane has 128 registers, and sums take twice as many as there are: they are added up in chains. More than
            // these spill.
            (_, _, INTEL) => 40,
            // Before RDNA, whose subgroups may have 32 lanes: 256 registers for all subgroups of a SIMD. With more sums
            // than these there is room for one subgroup, and nothing hides its waiting.
            (_, 64.., AMD) => 40,
            // A lane of other GPUs has up to 255 registers.
            _ => 72,
        };
        let memory = limits.max_compute_workgroup_storage_size;
        // A software adapter's workgroup memory is memory like any other. It computes the subgroups of a workgroup one after
        // the other, so workgroups of one are as fast, and of a kernel it then compiles one pipeline for all sizes.
        let fast_memory = info.device_type != wgpu::DeviceType::Cpu;
        let workgroup = if !fast_memory && lanes >= 8 { lanes } else { WORKGROUP };
        KernelBudget { lanes, accumulators, memory, fast_memory, workgroup, matrix_unit: None }
    }

    /// The names of the shaders that may stand behind a launch's, the preferred one first: the variant for the device's
    /// matrix unit, or for subgroups, where the device has them and there is one, and the shader itself.
    pub fn variants(&self, name: &str) -> Vec<String> {
        let matrix = self.matrix_unit.map(|MatrixUnit { side, lanes }| format!("{name}_{side}x{lanes}"));
        let subgroup = (self.lanes > 0).then(|| format!("{name}{SUBGROUP}"));
        matrix.into_iter().chain(subgroup).chain([name.to_owned()]).collect()
    }
}

impl<B> Launch<B> {
    /// A launch of `groups` workgroups of [`WORKGROUP`] invocations, folded over two axes.
    ///
    /// The shader recovers the linear group with `group_index` of `common/index.wgsl`.
    pub fn groups(shader: &'static str, entry: &'static str, groups: usize) -> Self {
        let constants = vec![("WG", f64::from(WORKGROUP))];
        let (params, bindings, alternatives) = (Vec::new(), Vec::new(), Vec::new());
        Launch { shader, entry, constants, params, bindings, groups: fold(groups), divisible: false, alternatives }
    }

    /// A launch of one invocation for each of `n` items.
    pub fn items(shader: &'static str, entry: &'static str, n: usize) -> Self {
        Self::groups(shader, entry, n.div_ceil(WORKGROUP as usize)).param("n", n)
    }

    /// Sets a member of `Params`.
    pub fn param(mut self, name: &'static str, value: impl Into<Scalar>) -> Self {
        self.params.push((name, value.into()));
        self
    }

    /// Changes a member of `Params` that was set.
    pub fn set(&mut self, name: &'static str, value: impl Into<Scalar>) {
        self.params.retain(|(other, _)| *other != name);
        self.params.push((name, value.into()));
    }

    /// Sets a pipeline-overridable constant.
    pub fn constant(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.constants.push((name, value.into()));
        self
    }

    /// Binds a buffer to a storage variable.
    pub fn bind(mut self, name: &'static str, buffer: B) -> Self {
        self.bindings.push((name, buffer));
        self
    }

    /// The same launch over other buffers.
    pub fn map<C>(&self, mut f: impl FnMut(&B) -> C) -> Launch<C> {
        Launch {
            shader: self.shader,
            entry: self.entry,
            constants: self.constants.clone(),
            params: self.params.clone(),
            bindings: self.bindings.iter().map(|(n, b)| (*n, f(b))).collect(),
            groups: self.groups,
            divisible: self.divisible,
            alternatives: self.alternatives.clone(),
        }
    }

    /// Another number of invocations in a workgroup than [`WORKGROUP`].
    pub fn set_workgroup(&mut self, lanes: u32) {
        self.constants.retain(|(name, _)| *name != "WG");
        self.constants.push(("WG", f64::from(lanes)));
    }

    /// As [`Launch::set_workgroup`], of a kernel whose lanes share nothing beyond their subgroup and which finds its place
    /// by `WG` and the number of its workgroup: a device may take a part of the lanes and as many more workgroups.
    pub fn set_divisible_workgroup(&mut self, lanes: u32) {
        self.set_workgroup(lanes);
        self.divisible = true;
    }

    /// Takes a part of the lanes where there are more than `most`.
    fn divide_workgroup(&mut self, most: u32) {
        let lanes = self.constants.iter().find(|(name, _)| *name == "WG").map_or(WORKGROUP, |(_, lanes)| *lanes as u32);
        if self.divisible && lanes > most && lanes.is_multiple_of(most) {
            self.set_workgroup(most);
            let parts = (lanes / most) as usize;
            self.groups = fold(self.groups.iter().fold(parts, |product, &axis| product.saturating_mul(axis as usize)));
        }
    }

    /// What a device can run, the preferred one first: the alternatives that are within its budget, or with `all` every
    /// one that it can run at all; then the launch itself. Each has the workgroup that the device takes.
    pub fn choices(&self, budget: KernelBudget, all: bool) -> Vec<Launch<B>>
    where
        B: Clone,
    {
        let can = |a: &&Alternative| (budget.lanes == 0 || a.lanes <= budget.lanes) && a.memory <= budget.memory;
        let is_fast =
            |a: &&Alternative| all || (a.accumulators <= budget.accumulators && (a.memory == 0 || budget.fast_memory));
        // A tile in workgroup memory is made for as many lanes as it has.
        let alternatives = self.alternatives.iter().filter(can).filter(is_fast);
        let alternatives = alternatives.map(|a| (a.entry, a.groups, self.divisible && a.memory == 0));
        let one = |(entry, groups, divisible)| {
            let mut launch = Launch { entry, groups, divisible, alternatives: Vec::new(), ..self.clone() };
            launch.divide_workgroup(budget.workgroup);
            launch
        };
        alternatives.chain([(self.entry, self.groups, self.divisible)]).map(one).collect()
    }

    /// `file.entry`, as it appears in plans, labels and reports.
    pub fn label(&self) -> String {
        format!("{}.{}", self.shader, self.entry)
    }
}

/// The largest workgroup size that wastes less than 1/8 of its invocations on `items`; otherwise the least wasteful one.
pub fn lanes_for(items: usize) -> usize {
    let sizes = [64, 32, 16, 8];
    let used = |lanes: &usize| items.next_multiple_of(*lanes);
    let good = sizes.into_iter().find(|lanes| 8 * used(lanes) < 9 * items);
    good.or_else(|| sizes.into_iter().min_by_key(used)).unwrap_or(WORKGROUP as usize)
}

/// Folds a number of workgroups into two axes, each within the limit that every adapter has.
pub fn fold(groups: usize) -> [u32; 3] {
    let groups = groups.max(1);
    let rows = groups.div_ceil(GRID_AXIS as usize);
    // What no adapter can run stays too large: the device refuses it.
    let axis = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    [axis(groups.div_ceil(rows)), axis(rows), 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::{AdapterInfo, Backend, DeviceType, Features, Limits};

    fn accumulators(device: DeviceType, vendor: u32, lanes: u32) -> u32 {
        let mut info = AdapterInfo::new(device, Backend::Vulkan);
        (info.vendor, info.subgroup_min_size) = (vendor, lanes);
        KernelBudget::of_adapter(&info, Features::SUBGROUP, &Limits::default()).accumulators
    }

    #[test]
    fn few_registers_hold_few_sums() {
        let (discrete, integrated) = (DeviceType::DiscreteGpu, DeviceType::IntegratedGpu);
        for (what, device, vendor, lanes, most) in [
            ("an H100", discrete, 0x10de, 32, 72),
            ("a Radeon of RDNA", integrated, AMD, 32, 72),
            ("a Radeon before it", integrated, AMD, 64, 40),
            ("Intel's", integrated, INTEL, 8, 40),
            ("Intel's of Xe2", discrete, INTEL, 16, 40),
            ("Apple's", integrated, 0, 32, 72),
            ("lavapipe", DeviceType::Cpu, 0x10005, 8, 320),
            ("SwiftShader", DeviceType::Cpu, 0x1ae0, 4, 36),
        ] {
            assert_eq!(accumulators(device, vendor, lanes), most, "{what}");
        }
    }

    #[test]
    fn a_software_adapter_divides_workgroups() {
        let mut info = AdapterInfo::new(DeviceType::Cpu, Backend::Vulkan);
        info.subgroup_min_size = 8;
        let budget = KernelBudget::of_adapter(&info, Features::SUBGROUP, &Limits::default());
        let mut launch = Launch::<()>::groups("conv2d", "backward_weight_8", 3);
        let other = |entry, groups, memory| Alternative { entry, groups, lanes: 0, accumulators: 36, memory };
        launch.alternatives =
            vec![other("backward_weight_16", [2, 1, 1], 0), other("backward_weight_3x3_64x16", [1, 1, 1], 1)];
        let sizes = |launch: &Launch<()>, budget| -> Vec<_> {
            let lanes = |launch: &Launch<()>| launch.constants.iter().find(|(name, _)| *name == "WG").map(|(_, n)| *n);
            launch.choices(budget, true).iter().map(|choice| (choice.groups[0], lanes(choice))).collect()
        };
        assert_eq!(
            sizes(&launch, budget),
            [(2, Some(64.0)), (1, Some(64.0)), (3, Some(64.0))],
            "not said to be divisible"
        );
        launch.set_divisible_workgroup(32);
        assert_eq!(sizes(&launch, budget), [(8, Some(8.0)), (1, Some(32.0)), (12, Some(8.0))]);
        info.device_type = DeviceType::DiscreteGpu;
        let budget = KernelBudget::of_adapter(&info, Features::SUBGROUP, &Limits::default());
        assert_eq!(sizes(&launch, budget), [(2, Some(32.0)), (1, Some(32.0)), (3, Some(32.0))]);
    }
}
