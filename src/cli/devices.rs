//! `devices`.

use serde::Serialize;

use super::engine::{self, DeviceEntry};
use super::report::{Report, bytes, table};
use crate::Result;

#[derive(Serialize)]
struct Body<'a> {
    adapters: &'a [DeviceEntry],
}

/// Lists the adapters.
pub fn run(adapter: Option<&str>, report: Report) -> Result<()> {
    let adapters = engine::devices(adapter)?;
    report.result("devices", &Body { adapters: &adapters }, || {
        adapters.iter().map(device_text).collect::<Vec<_>>().join("\n\n")
    })
}

/// The limits that count bytes; the others are numbers of something.
const BYTES: [&str; 3] = ["maxBufferSize", "maxStorageBufferBindingSize", "maxComputeWorkgroupStorageSize"];

fn device_text(device: &DeviceEntry) -> String {
    let mut rows: Vec<_> = device
        .limits
        .iter()
        .map(|(name, value)| {
            vec![format!("    {name}"), if BYTES.contains(name) { bytes(*value) } else { value.to_string() }]
        })
        .collect();
    rows.push(vec!["    features".into(), device.features.join(" ")]);
    let chosen = if device.chosen { " (chosen)" } else { "" };
    format!(
        "{}  {}{chosen}\n    {}, {}, {}\n{}",
        device.index,
        device.name,
        device.backend,
        device.kind,
        device.driver,
        table(&rows)
    )
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
