//! Lists the adapters of this machine and chooses one.

use crate::{Error, Result};

/// The environment variable by which programs and tests let a user name an adapter. Nothing here reads it.
pub const ADAPTER_VARIABLE: &str = "IEQ_ADAPTER";

/// Numbers of the PCI register of vendors, as adapters report them.
pub(super) const AMD: u32 = 0x1002;
pub(super) const INTEL: u32 = 0x8086;

/// The adapter the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// A discrete GPU before an integrated one, before any other kind, before a software rasteriser; among equals the
    /// first listed.
    #[default]
    Best,
    /// The position in the list of adapters, or where there is no such position a part of the name: "4090".
    Index(usize),
    /// Case-insensitive part of the adapter's name, backend or driver.
    Name(String),
}

impl AdapterChoice {
    /// Reads what the user wrote: nothing or empty is [`AdapterChoice::Best`], a number is a position,
    /// anything else part of a name.
    pub fn parse(text: Option<&str>) -> Self {
        match text.map(str::trim) {
            None | Some("") => AdapterChoice::Best,
            Some(text) => match text.parse() {
                Ok(index) => AdapterChoice::Index(index),
                Err(_) => AdapterChoice::Name(text.to_lowercase()),
            },
        }
    }
}

/// One adapter with what it reports about itself.
pub struct Listed {
    /// Name, backend, kind, driver.
    pub info: wgpu::AdapterInfo,
    /// The adapter itself.
    pub adapter: wgpu::Adapter,
}

/// One line about an adapter: name, backend, kind and driver.
pub fn describe(info: &wgpu::AdapterInfo) -> String {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software on the CPU",
        wgpu::DeviceType::Other => "other",
    };
    let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ");
    format!("{} ({:?}, {kind}, {})", info.name, info.backend, driver.trim())
}

/// All adapters with compute shaders, in a stable order, of the back ends that are named.
///
/// Where none are named, OpenGL is asked only if nothing else answers: it shows the same hardware once more, and
/// looking for it can print complaints of the display system.
pub async fn list_async(backends: Option<wgpu::Backends>) -> Vec<Listed> {
    let found = async |backends: wgpu::Backends| -> Vec<Listed> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends;
        let instance = wgpu::Instance::new(descriptor);
        let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await.into_iter();
        adapters
            .filter(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS))
            .map(|adapter| Listed { info: adapter.get_info(), adapter })
            .collect()
    };
    if let Some(backends) = backends {
        return found(backends).await;
    }
    let native = found(wgpu::Backends::all() - wgpu::Backends::GL).await;
    if native.is_empty() { found(wgpu::Backends::GL).await } else { native }
}

/// As [`list_async`]; blocks.
#[cfg(not(target_arch = "wasm32"))]
pub fn list(backends: Option<wgpu::Backends>) -> Vec<Listed> {
    pollster::block_on(list_async(backends))
}

/// Picks one adapter: it, and why. `turn`: which of those that are as good as the first choice, counted from it and
/// around.
///
/// # Errors
/// [`Error::NoAdapter`] when there is none, or none that the choice names; the message lists what there is.
pub async fn choose_async(
    choice: &AdapterChoice,
    backends: Option<wgpu::Backends>,
    turn: usize,
) -> Result<(Listed, String)> {
    let mut all = list_async(backends).await;
    let (index, why) = position(&all, choice)?;
    let kinds: Vec<_> = all.iter().map(|a| (describe(&a.info), a.info.device_type, a.info.backend)).collect();
    let alike = alike(&kinds, index, choice);
    let index = alike.get(turn % alike.len().max(1)).copied().unwrap_or(index);
    Ok((all.swap_remove(index), why))
}

/// The positions of the adapters that may take the place of that at `index`, it first: those of its kind and back end,
/// from it on and around, as far as their descriptions have the name that was asked for; of a number only it.
fn alike(all: &[(String, wgpu::DeviceType, wgpu::Backend)], index: usize, choice: &AdapterChoice) -> Vec<usize> {
    let own = &all[index];
    let suits = |at: &usize| {
        let (name, kind, backend) = &all[*at];
        (kind, backend) == (&own.1, &own.2)
            && match choice {
                AdapterChoice::Best => true,
                AdapterChoice::Name(part) => name.to_lowercase().contains(part),
                AdapterChoice::Index(_) => *at == index,
            }
    };
    (index..all.len()).chain(0..index).filter(suits).collect()
}

/// The position of the chosen adapter in a list, and why it is chosen.
///
/// # Errors
/// As [`choose_async`].
pub fn position(all: &[Listed], choice: &AdapterChoice) -> Result<(usize, String)> {
    let kinds: Vec<_> = all.iter().map(|a| (describe(&a.info), a.info.device_type)).collect();
    position_among(&kinds, choice)
}

/// As [`position`], of descriptions and kinds of adapters.
fn position_among(all: &[(String, wgpu::DeviceType)], choice: &AdapterChoice) -> Result<(usize, String)> {
    if all.is_empty() {
        return Err(Error::NoAdapter(
            "no GPU adapter with compute shaders was found: install a Vulkan driver (on Debian and Ubuntu \
             `apt-get install mesa-vulkan-drivers`, which also brings a software adapter)"
                .into(),
        ));
    }
    let names: Vec<String> = all.iter().enumerate().map(|(i, (name, _))| format!("{i}: {name}")).collect();
    let named = |part: &str| all.iter().position(|(name, _)| name.to_lowercase().contains(part));
    Ok(match choice {
        AdapterChoice::Index(index) if *index < all.len() => (*index, "asked for by number".to_string()),
        AdapterChoice::Index(index) => match named(&index.to_string()) {
            Some(position) => (position, format!("asked for as \"{index}\"")),
            None => {
                return Err(Error::NoAdapter(format!(
                    "there is no adapter {index}, and no adapter's name contains it; there are: {}",
                    names.join("; ")
                )));
            }
        },
        AdapterChoice::Name(name) => match named(name) {
            Some(index) => (index, format!("asked for as {name:?}")),
            None => {
                return Err(Error::NoAdapter(format!(
                    "no adapter's name contains {name:?}; there are: {}",
                    names.join("; ")
                )));
            }
        },
        AdapterChoice::Best => {
            let rank = |kind: wgpu::DeviceType| match kind {
                wgpu::DeviceType::DiscreteGpu => 0,
                wgpu::DeviceType::IntegratedGpu => 1,
                wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
                wgpu::DeviceType::Cpu => 3,
            };
            let index = (0..all.len()).min_by_key(|&i| rank(all[i].1)).unwrap_or(0);
            (index, format!("best of {}", all.len()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_take_turns_among_adapters_that_are_alike() {
        use wgpu::{Backend, DeviceType};
        let all = [
            ("llvmpipe".to_string(), DeviceType::Cpu, Backend::Vulkan),
            ("RTX 4090".to_string(), DeviceType::DiscreteGpu, Backend::Vulkan),
            ("RTX 4090".to_string(), DeviceType::DiscreteGpu, Backend::Gl),
            ("RTX 3080".to_string(), DeviceType::DiscreteGpu, Backend::Vulkan),
            ("RTX 4090".to_string(), DeviceType::DiscreteGpu, Backend::Vulkan),
        ];
        let of = |index, word| alike(&all, index, &AdapterChoice::parse(word));
        assert_eq!(of(1, None), [1, 3, 4]);
        assert_eq!(of(3, None), [3, 4, 1]);
        assert_eq!(of(1, Some("rtx 4090")), [1, 4]);
        assert_eq!(of(4, Some("4")), [4]);
        assert_eq!(of(0, Some("llvm")), [0]);
    }

    #[test]
    fn a_number_is_a_position_and_else_a_part_of_a_name() {
        let all = [
            ("llvmpipe (Vulkan, software on the CPU)".to_string(), wgpu::DeviceType::Cpu),
            ("NVIDIA GeForce RTX 4090 (Vulkan, discrete GPU)".to_string(), wgpu::DeviceType::DiscreteGpu),
            ("NVIDIA GeForce RTX 3080 (Vulkan, discrete GPU)".to_string(), wgpu::DeviceType::DiscreteGpu),
        ];
        let at = |word: &str| position_among(&all, &AdapterChoice::parse(Some(word))).map(|(index, _)| index);
        for (word, index) in [("", 1), ("0", 0), ("2", 2), ("4090", 1), ("3080", 2), ("rtx 30", 2), (" LLVM ", 0)] {
            assert_eq!(at(word).ok(), Some(index), "{word:?}");
        }
        for word in ["5", "5090", "radeon"] {
            let error = at(word).expect_err("there is no such adapter").to_string();
            assert!(error.contains(word) && error.contains("1: NVIDIA GeForce RTX 4090"), "{error}");
        }
        let none = position_among(&[], &AdapterChoice::Best).expect_err("there are none").to_string();
        assert!(none.contains("no GPU adapter"), "{none}");
    }
}
