//! Fixed workloads, timed: what `codelora bench-speed` measures and peers are measured on.
//!
//! Covered: training steps, sampling, decoding, phase 1, the vocabulary; one figure each, the median of repeats, as a row of
//! `benches/records/<workload>.csv`. Each workload runs in a process of its own when the command line walks them, so that peak
//! memory is its own. Not covered: what a notebook cell costs, and other programs (`benches/peers/`).

mod inputs;
mod record;
mod workloads;

use std::path::PathBuf;

pub use record::{Row, read, splice, table, write};

use crate::error::{Error, Result};
use crate::experiment::{Compute, Experiment};
use crate::model::device;

/// A fixed piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// LoRA steps on the 29M architecture, batches of 8 real samples.
    LoraStep,
    /// Full pre-training steps of the 29M architecture, 8 × 256 tokens.
    FullStep29m,
    /// Full pre-training steps of the shipped base's architecture, 8 × 256 tokens.
    FullStepSmall,
    /// Full pre-training steps of the 29M architecture on a CUDA device in bf16, 64 × 256 tokens.
    FullStepCuda,
    /// 20 prompts × 20 samples × up to 100 tokens with the shipped base.
    Sampling,
    /// The same prompts one after another, greedily.
    Decode,
    /// The same with matrices rounded to eight bits.
    DecodeEightBits,
    /// Phase 1 on every row of the public datasets.
    Data,
    /// Training a vocabulary of 2,048 tokens.
    BpeTrain,
    /// Encoding with the shipped vocabulary.
    BpeEncode,
}

impl Workload {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::LoraStep,
        Self::FullStep29m,
        Self::FullStepSmall,
        Self::FullStepCuda,
        Self::Sampling,
        Self::Decode,
        Self::DecodeEightBits,
        Self::Data,
        Self::BpeTrain,
        Self::BpeEncode,
    ];

    /// Its name on the command line and in the records, e.g. `lora-step`.
    pub fn name(self) -> &'static str {
        match self {
            Self::LoraStep => "lora-step",
            Self::FullStep29m => "full-step-29m",
            Self::FullStepSmall => "full-step-small",
            Self::FullStepCuda => "full-step-cuda",
            Self::Sampling => "sampling",
            Self::Decode => "decode",
            Self::DecodeEightBits => "decode-eight-bits",
            Self::Data => "data",
            Self::BpeTrain => "bpe-train",
            Self::BpeEncode => "bpe-encode",
        }
    }

    /// What it is, for the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::LoraStep => "LoRA step, 29M, batch 8 of real samples",
            Self::FullStep29m => "full training step, 29M, 8 × 256",
            Self::FullStepSmall => "full training step, small base, 8 × 256",
            Self::FullStepCuda => "full training step, 29M, 64 × 256, CUDA bf16",
            Self::Sampling => "sampling, 20 prompts × 20 samples × 100 tokens",
            Self::Decode => "greedy decoding, one stream",
            Self::DecodeEightBits => "greedy decoding, one stream, weights in eight bits",
            Self::Data => "phase 1 on all public rows",
            Self::BpeTrain => "training a vocabulary of 2,048",
            Self::BpeEncode => "encoding",
        }
    }

    /// The unit of its figure; more is better in all of them.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Data => "rows/s",
            Self::BpeTrain | Self::BpeEncode => "MB/s",
            _ => "tokens/s",
        }
    }

    /// The workload of a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] that lists the names.
    pub fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("there is no workload `{name}`"), format!("choose among {names}"))
        })
    }
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Times each workload is repeated; the figure is the median.
    pub repeat: usize,
    /// Megabytes of text for the vocabulary's workloads.
    pub megabytes: usize,
    /// Folder of the records.
    pub records: PathBuf,
}

/// Measures one workload and writes its row. `None` when it needs the public datasets or a CUDA device and they are not at hand.
///
/// # Errors
/// Those of the phases measured; [`Error::Io`] of the records.
pub fn run(exp: &Experiment, workload: Workload, options: &Options) -> Result<Option<Row>> {
    if options.repeat == 0 || options.megabytes == 0 {
        return Err(Error::invalid("nothing is measured with a repeat or a size of 0", "give at least 1"));
    }
    if workload == Workload::Data && !exp.has_external() {
        return Ok(None);
    }
    if workload == Workload::FullStepCuda && device::open(Compute::CudaBf16).is_err() {
        return Ok(None);
    }
    let (rates, card) = workloads::measure(exp, workload, options)?;
    let mut row = Row::new(workload, "codelora", median(&rates), rates.len());
    if let Some(card) = card {
        (row.machine, row.peak_mib) = (card.name, card.held_mib.round());
    }
    write(&options.records, std::slice::from_ref(&row))?;
    Ok(Some(row))
}

/// The middle of the rates, or the mean of the two in the middle. Of no rates it is not a number.
fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    let half = rates.len() / 2;
    match rates.get(half) {
        None => f64::NAN,
        Some(&upper) if rates.len() % 2 == 1 => upper,
        Some(&upper) => (rates[half - 1] + upper) / 2.0,
    }
}

/// Writes what peers need to do the same work on the same tokens: `lora.json`, `full.json`, `prompts.json`.
///
/// # Errors
/// As [`run`].
pub fn export(exp: &Experiment, folder: &std::path::Path) -> Result<()> {
    inputs::export(exp, folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_two_is_between_them() {
        assert_eq!(median(&[3.0, 1.0]), 2.0);
        assert_eq!(median(&[5.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }
}
