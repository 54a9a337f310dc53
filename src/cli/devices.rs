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

fn device_text(device: &DeviceEntry) -> String {
    let mut rows: Vec<_> = device
        .limits
        .iter()
        .map(|(name, value)| {
            let sized = name.ends_with("_size") && *value >= 1024;
            vec![format!("    {name}"), if sized { bytes(*value) } else { value.to_string() }]
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
