//! The metric log as TensorBoard reads it: `events.out.tfevents.*` beside `metrics.jsonl`.
//!
//! A file is a row of records as TFRecord frames them: length, its masked CRC-32C, an `Event` as protocol buffers encode it,
//! its masked CRC-32C. Every start of a run writes a file of its own, as TensorBoard's writers do, and one that continues says
//! so with a `SessionLog`: readers then forget what an earlier start wrote from that step on.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::metrics::Record;
use crate::files::run_folder::{EVENTS_PREFIX, EVENTS_SUFFIX};
use crate::{Error, Result};

/// What the first event says: readers know the form by it.
const VERSION: &str = "brain.Event:2";

/// The table of CRC-32C (Castagnoli, reflected), by byte.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ crc >> 8)
}

/// TFRecord's mask, for checksums of what holds checksums.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The fields that an event has, by their numbers in `event.proto` and `summary.proto`.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, field: u64, value: u64) -> Message {
        varint(field << 3, &mut self.0);
        varint(value, &mut self.0);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Message {
        varint(field << 3 | 1, &mut self.0);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u64, value: f32) -> Message {
        varint(field << 3 | 5, &mut self.0);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Message {
        varint(field << 3 | 2, &mut self.0);
        varint(value.len() as u64, &mut self.0);
        self.0.extend(value);
        self
    }
}

/// The event files of one start of a run.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    path: PathBuf,
}

/// Wall time, seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl EventLog {
    /// Begins a file in `folder` for a run that continues after `resumed_step` finished steps, or begins.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn open(folder: &Path, resumed_step: Option<u64>) -> Result<EventLog> {
        // Readers take the files in the order of their names: a second one within a second has to come later.
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let last = names.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix(EVENTS_PREFIX)?.split('.').next()?.parse::<u64>().ok()
        });
        let last = last.max();
        // A run that begins again beside the events of a lost device, of which readers keep nothing then.
        let resumed_step = resumed_step.or(last.map(|_| 0));
        let second = last.map_or(0, |last| last.saturating_add(1)).max(now() as u64);
        let path = folder.join(format!("{EVENTS_PREFIX}{second:010}{EVENTS_SUFFIX}"));
        let created = File::create_new(&path);
        let file = created.map_err(|e| Error::io(&path, "cannot begin the events for TensorBoard", e))?;
        let mut log = EventLog { file, path };
        log.event(Message::default().double(1, now()).bytes(3, VERSION.as_bytes()))?;
        if let Some(step) = resumed_step {
            // SessionLog.status = START, from the first step that is written again.
            let start = Message::default().varint(1, 1);
            log.event(Message::default().double(1, now()).varint(2, step + 1).bytes(7, &start.0))?;
        }
        Ok(log)
    }

    fn event(&mut self, event: Message) -> Result<()> {
        let length = (event.0.len() as u64).to_le_bytes();
        let mut bytes = Vec::with_capacity(event.0.len() + 16);
        bytes.extend(length);
        bytes.extend(masked(&length).to_le_bytes());
        bytes.extend(&event.0);
        bytes.extend(masked(&event.0).to_le_bytes());
        // One write for a record: a reader that follows the file sees whole ones.
        self.file.write_all(&bytes).map_err(|e| Error::io(&self.path, "cannot extend the events for TensorBoard", e))
    }

    /// Appends a record: a scalar for each of its numbers.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let named = record.losses.iter().map(|(name, value)| match name.as_str() {
            "grad_norm" => (name.clone(), *value),
            name => (format!("loss/{name}"), *value),
        });
        let mut scalars: Vec<(String, f32)> = named.collect();
        scalars.push(("accuracy/train".into(), 100.0 * record.accuracy));
        scalars.push(("lr".into(), record.lr));
        scalars.push(("images_per_second".into(), record.images_per_second));
        scalars.push(("epoch".into(), record.epoch as f32));
        if let Some(score) = &record.validation {
            scalars.push(("val/1-shot".into(), score.one_shot_pct as f32));
            scalars.push(("val/5-shot".into(), score.five_shot_pct as f32));
        }
        let summary = scalars.iter().fold(Message::default(), |summary, (tag, value)| {
            summary.bytes(1, &Message::default().bytes(1, tag.as_bytes()).float(2, *value).0)
        });
        self.event(Message::default().double(1, now()).varint(2, record.step).bytes(5, &summary.0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The fields of a message, by number: a varint, or the bytes of what is of fixed or of given length.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
        fn number(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = number(&mut bytes);
            let (value, length) = match key & 7 {
                0 => (number(&mut bytes), 0),
                1 => (0, 8),
                5 => (0, 4),
                2 => (0, number(&mut bytes) as usize),
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, value, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        found
    }

    /// The events of a file, whose checksums hold.
    fn events(path: &Path) -> Vec<Vec<(u64, u64, Vec<u8>)>> {
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(data).to_le_bytes());
            found.push(fields(data));
            rest = &rest[16 + length..];
        }
        found
    }

    fn record(step: u64) -> Record {
        Record {
            step,
            epoch: 2,
            lr: 0.05,
            losses: [("total".to_owned(), 1.5), ("ce".to_owned(), 1.25), ("grad_norm".to_owned(), 3.0)].into(),
            accuracy: 0.5,
            images_per_second: 123.0,
            validation: None,
        }
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the usual check value.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        // As TensorFlow's crc32c_test has it: the mask of the checksum of "foo" is not that checksum, nor masked twice.
        assert_ne!(masked(b"foo"), crc32c(b"foo"));
    }

    #[test]
    fn events_hold_what_was_logged() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path(), None).unwrap();
        log.write(&record(10)).unwrap();
        log.write(&record(300)).unwrap();
        let path = log.path.clone();
        let all = events(&path);
        assert_eq!(all.len(), 3);
        assert_eq!(all[0][1], (3, 0, VERSION.as_bytes().to_vec()));
        assert_eq!((all[2][1].0, all[2][1].1), (2, 300));
        let mut scalars = BTreeMap::new();
        for (field, _, value) in fields(&all[1][2].2) {
            assert_eq!(field, 1);
            let parts = fields(&value);
            scalars.insert(
                String::from_utf8(parts[0].2.clone()).unwrap(),
                f32::from_le_bytes(parts[1].2.clone().try_into().unwrap()),
            );
        }
        let wanted: [(&str, f32); 7] = [
            ("loss/total", 1.5),
            ("loss/ce", 1.25),
            ("grad_norm", 3.0),
            ("accuracy/train", 50.0),
            ("lr", 0.05),
            ("images_per_second", 123.0),
            ("epoch", 2.0),
        ];
        assert_eq!(scalars, wanted.map(|(tag, value)| (tag.to_owned(), value)).into());

        let again = EventLog::open(folder.path(), Some(200)).unwrap();
        assert!(again.path > path, "readers take files in the order of their names");
        let all = events(&again.path);
        assert_eq!((all[1][1].0, all[1][1].1), (2, 201));
        assert_eq!(all[1][2], (7, 0, vec![8, 1]), "SessionLog.START");
    }
}
