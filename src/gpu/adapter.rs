//! Lists the adapters of this machine and chooses one.

use crate::{Error, Result};

/// Environment variable read when no `--adapter` is given.
pub const ADAPTER_VARIABLE: &str = "IEQ_ADAPTER";

/// The adapter the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// Discrete GPU before integrated GPU before any other kind before a software rasteriser;
    /// among equals the first listed.
    #[default]
    Best,
    /// The position in the list that `devices` prints.
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

/// All adapters with compute shaders, in a stable order (the order of the `devices` command).
///
/// OpenGL is asked only where nothing else answers, or where `WGPU_BACKEND=gl` asks for it: it shows the same
/// hardware once more, and looking for it can print complaints of the display system.
pub fn list() -> Vec<Listed> {
    let found = |backends: wgpu::Backends| -> Vec<Listed> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends;
        let instance = wgpu::Instance::new(descriptor.with_env());
        pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
            .into_iter()
            .filter(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS))
            .map(|adapter| Listed { info: adapter.get_info(), adapter })
            .collect()
    };
    let native = found(wgpu::Backends::all() - wgpu::Backends::GL);
    if native.is_empty() { found(wgpu::Backends::GL) } else { native }
}

/// Picks one adapter: it, and why.
///
/// # Errors
/// [`Error::NoAdapter`] when there is none, or none that the choice names; the message lists what there is.
pub fn choose(choice: &AdapterChoice) -> Result<(Listed, String)> {
    let mut all = list();
    let (index, why) = position(&all, choice)?;
    Ok((all.swap_remove(index), why))
}

/// The position of the chosen adapter in a list, and why it is chosen.
///
/// # Errors
/// As [`choose`].
pub fn position(all: &[Listed], choice: &AdapterChoice) -> Result<(usize, String)> {
    if all.is_empty() {
        if let Ok(backends) = std::env::var("WGPU_BACKEND") {
            return Err(Error::NoAdapter(format!(
                "no GPU adapter with compute shaders was found among those that WGPU_BACKEND={backends} allows: unset it, \
                 or install a driver for it (on Debian and Ubuntu `apt-get install mesa-vulkan-drivers`)"
            )));
        }
        return Err(Error::NoAdapter(
            "no GPU adapter with compute shaders was found: install a Vulkan driver (on Debian and Ubuntu \
             `apt-get install mesa-vulkan-drivers`, which also brings a software adapter)"
                .into(),
        ));
    }
    let names = || all.iter().enumerate().map(|(i, a)| format!("{i}: {}", describe(&a.info))).collect::<Vec<_>>();
    Ok(match choice {
        AdapterChoice::Index(index) if *index < all.len() => (*index, "asked for by number".to_string()),
        AdapterChoice::Index(index) => {
            return Err(Error::NoAdapter(format!("there is no adapter {index}; there are: {}", names().join("; "))));
        }
        AdapterChoice::Name(name) => match names().iter().position(|n| n.to_lowercase().contains(name)) {
            Some(index) => (index, format!("asked for as {name:?}")),
            None => {
                return Err(Error::NoAdapter(format!(
                    "no adapter's name contains {name:?}; there are: {}",
                    names().join("; ")
                )));
            }
        },
        AdapterChoice::Best => {
            let rank = |a: &Listed| match a.info.device_type {
                wgpu::DeviceType::DiscreteGpu => 0,
                wgpu::DeviceType::IntegratedGpu => 1,
                wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
                wgpu::DeviceType::Cpu => 3,
            };
            let index = (0..all.len()).min_by_key(|&i| rank(&all[i])).unwrap_or(0);
            (index, format!("best of {}", all.len()))
        }
    })
}
