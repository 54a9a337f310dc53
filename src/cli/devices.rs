//! `devices`.

use super::Context;
use super::report::table;
use crate::Result;
use crate::jobs::devices::{self, DeviceEntry};
use crate::settings::ByteSize;

/// List adapters with their limits and features
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu devices --json")]
pub struct Args {}

/// Lists the adapters.
pub fn run(_: Args, context: &Context) -> Result<()> {
    let outcome = devices::run(&context.session)?;
    context
        .report
        .result("devices", &outcome, || outcome.adapters.iter().map(device_text).collect::<Vec<_>>().join("\n\n"))
}

/// The limits that count bytes; the others are numbers of something.
const BYTES: [&str; 3] = ["maxBufferSize", "maxStorageBufferBindingSize", "maxComputeWorkgroupStorageSize"];

fn device_text(device: &DeviceEntry) -> String {
    let value = |name: &&str, value: u64| match BYTES.contains(name) {
        true => ByteSize(value).rounded(),
        false => value.to_string(),
    };
    let mut rows: Vec<_> = device.limits.iter().map(|(name, n)| vec![format!("    {name}"), value(name, *n)]).collect();
    rows.push(vec!["    features".into(), device.features.join(" ")]);
    let chosen = if device.chosen { " (chosen)" } else { "" };
    let DeviceEntry { index, name, backend, kind, driver, .. } = device;
    format!("{index}  {name}{chosen}\n    {backend}, {kind}, {driver}\n{}", table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit_and_other_limits_none() {
        let device = DeviceEntry {
            index: 0,
            name: "lavapipe".into(),
            backend: "vulkan".into(),
            kind: "cpu".into(),
            driver: "Mesa".into(),
            chosen: true,
            limits: [("maxBufferSize", 2 << 30), ("maxSubgroupSize", 8)].into(),
            features: vec!["subgroup".into()],
        };
        assert_eq!(
            device_text(&device),
            "0  lavapipe (chosen)\n    vulkan, cpu, Mesa\n    maxBufferSize    2.0 GiB\n    maxSubgroupSize  8\n    \
             features         subgroup"
        );
    }
}
