//! TensorBoard event files, beside the JSON Lines that are the record of a run.
//!
//! Covered: scalars, and the mark that makes TensorBoard forget the steps a resumed run takes again. Not covered: images,
//! text, histograms. The format is a file of records (`length, crc(length), data, crc(data)`, little-endian), each an
//! `Event` message of `tensorflow/core/util/event.proto`; the few fields needed are written by hand.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// The first event of every file.
const VERSION: &str = "brain.Event:2";

/// An event file that grows by whole records.
#[derive(Debug, Clone)]
pub struct EventFile {
    path: PathBuf,
}

impl EventFile {
    /// Begins a new event file in `folder` for a run that stands at `step`. Each call begins another file, as TensorBoard
    /// wants it; it shows the files of a folder as one run, without what earlier files say of steps after `step`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(folder: &Path, step: usize) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let now = now();
        // TensorBoard reads a folder's files in the order of their names.
        let name =
            |try_: usize| format!("events.out.tfevents.{:010}.codelora.{}.{try_}", now as u64, std::process::id());
        let path = (0..).map(|try_| folder.join(name(try_))).find(|path| !path.exists()).unwrap_or_default();
        let mut bytes = record(&event(now, 0, &Body::Version));
        bytes.extend(record(&event(now, step as i64 + 1, &Body::Start)));
        fs::write(&path, bytes).map_err(Error::io("write", &path))?;
        Ok(Self { path })
    }

    /// Appends scalars of one step, by tag such as `loss/validation`. What is not finite is left out.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn scalars(&self, step: usize, values: &[(&str, f64)]) -> Result<()> {
        let values: Vec<(&str, f64)> = values.iter().copied().filter(|(_, value)| value.is_finite()).collect();
        let bytes = record(&event(now(), step as i64, &Body::Scalars(&values)));
        let mut file = OpenOptions::new().append(true).open(&self.path).map_err(Error::io("open", &self.path))?;
        file.write_all(&bytes).map_err(Error::io("write", &self.path))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// What an event says.
enum Body<'a> {
    /// The version of the format.
    Version,
    /// The run begins at this step: whatever is known of it and of later steps no longer holds.
    Start,
    /// Numbers by tag.
    Scalars(&'a [(&'a str, f64)]),
}

/// An `Event`: 1 wall time, 2 step, then 3 version, 5 summary or 7 session log.
fn event(seconds: f64, step: i64, body: &Body) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend(seconds.to_le_bytes());
    bytes.push(2 << 3);
    varint(&mut bytes, step as u64);
    match body {
        Body::Version => field(&mut bytes, 3, VERSION.as_bytes()),
        // SessionLog: 1 status, of which 1 is START.
        Body::Start => field(&mut bytes, 7, &[1 << 3, 1]),
        Body::Scalars(values) => {
            let mut summary = Vec::new();
            for (tag, value) in *values {
                // Summary.Value: 1 tag, 2 simple_value.
                let mut one = Vec::new();
                field(&mut one, 1, tag.as_bytes());
                one.push(2 << 3 | 5);
                one.extend((*value as f32).to_le_bytes());
                field(&mut summary, 1, &one);
            }
            field(&mut bytes, 5, &summary);
        }
    }
    bytes
}

/// A length-delimited field.
fn field(bytes: &mut Vec<u8>, number: u8, content: &[u8]) {
    bytes.push(number << 3 | 2);
    varint(bytes, content.len() as u64);
    bytes.extend(content);
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// A record around an event.
fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(event);
    bytes.extend(masked_crc(event).to_le_bytes());
    bytes
}

/// The masked CRC of TensorFlow's record files: CRC-32C, turned right by 15 bits, plus a constant.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli 1993), bit by bit: a few hundred bytes a step need no table.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0u32, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // Test vectors of RFC 3720, appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn events_have_the_bytes_of_the_format() {
        let bytes = event(1.5, 300, &Body::Scalars(&[("a", 2.0)]));
        let mut expected = vec![0x09];
        expected.extend(1.5f64.to_le_bytes());
        expected.extend([0x10, 0xac, 0x02, 0x2a, 0x0a, 0x0a, 0x08, 0x0a, 0x01, b'a', 0x15]);
        expected.extend(2f32.to_le_bytes());
        assert_eq!(bytes, expected);
    }

    /// Reads a folder as TensorBoard does: `tag step value` a line.
    const READER: &str = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
run = EventAccumulator(sys.argv[1]); run.Reload()
for tag in sorted(run.Tags()['scalars']):
    for e in run.Scalars(tag): print(tag, e.step, round(e.value, 4))
";

    #[test]
    fn tensorboard_reads_a_resumed_run() {
        let Ok(python) = std::env::var("CODELORA_TENSORBOARD_PYTHON") else {
            eprintln!("skipped: CODELORA_TENSORBOARD_PYTHON names no Python with tensorboard");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let first = EventFile::create(folder.path(), 0).unwrap();
        for step in 1..=5 {
            first.scalars(step, &[("loss/batch", 1.0 / step as f64), ("no number", f64::NAN)]).unwrap();
        }
        // Killed after step 5, resumed from the state at step 3.
        let second = EventFile::create(folder.path(), 3).unwrap();
        second.scalars(4, &[("loss/batch", 0.5)]).unwrap();
        let output = std::process::Command::new(python)
            .args(["-W", "ignore", "-c", READER, folder.path().to_str().unwrap()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let expected = "loss/batch 1 1.0\nloss/batch 2 0.5\nloss/batch 3 0.3333\nloss/batch 4 0.5\n";
        assert_eq!(text, expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
}
