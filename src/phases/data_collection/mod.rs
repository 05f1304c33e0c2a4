//! Phase 1: collects rows, proves each one, explains each rejection, and divides what is left.
//!
//! `steps` is the way of a row, a `candidate`, through the checks; `summary` counts what came of them; `files` is what
//! the phase leaves behind and reopens.

mod candidate;
mod files;
mod steps;
mod summary;

use std::collections::BTreeMap;

use crate::data::filter::Rejection;
use crate::data::quality::DataRecord;
use crate::data::task::{Sample, Task};
use crate::data::worklist;
use crate::error::Result;
use crate::experiment::{Experiment, Rule};

/// What phase 1 leaves behind.
#[derive(Debug, Clone)]
pub struct DataCollection {
    /// Every task in train, validation or held-out, with its tests, in the order of the sources.
    pub tasks: Vec<Task>,
    /// The rows of `v2_train.jsonl`.
    pub train: Vec<Sample>,
    /// The rows of `v2_val.jsonl`.
    pub validation: Vec<Sample>,
    /// The rows of `v2_held_out.jsonl`: tasks that nothing is trained on.
    pub held_out: Vec<Task>,
    /// The rows of `rejects.jsonl`.
    pub rejections: Vec<Rejection>,
    /// What the figures and tables show.
    pub record: DataRecord,
}

/// Collects, verifies, filters and divides the samples, or reopens what an earlier run of the same experiment left.
///
/// Whatever the digest does not know (the datasets, the vocabulary, the benchmark, the decisions in the worklist) is
/// hashed beside it: when one of these changed, the samples are collected anew.
///
/// # Errors
/// When an input is missing, when artifacts of another experiment or changed by hand are in the way, and when the
/// machine fails. A bad row is not an error: it is a [`Rejection`].
pub fn run(exp: &Experiment) -> Result<DataCollection> {
    let inputs = files::inputs(exp)?;
    if !exp.force
        && let Some(collection) = files::reopen(exp, &inputs)?
    {
        return Ok(collection);
    }
    let summary::Outcome { raw, mut collection } = steps::collect(exp)?;
    collection.record.content_sha256 = files::content_sha256(&collection)?;
    if wants_curation(exp, &collection.record) {
        let path = exp.data_file(files::WORKLIST);
        let items = worklist::propose(worklist::read(&path)?, &collection.rejections);
        if !items.is_empty() {
            crate::artifact::write_jsonl(&path, &items)?;
            // From the project's root: notebooks keep what is printed, and are the same on every machine.
            let shown = path.strip_prefix(&exp.root).unwrap_or(&path).display();
            println!("a person's judgement is wanted: {} rows in {shown}{}", items.len(), missed(&collection.record));
        }
    }
    files::write(exp, &raw, &collection, inputs)?;
    Ok(collection)
}

/// The quality limits that are missed, as the end of a sentence.
fn missed(record: &DataRecord) -> String {
    if record.missed.is_empty() { String::new() } else { format!("; missed: {}", record.missed.join("; ")) }
}

/// Whether a gate on the data fails or a quality limit is missed.
fn wants_curation(exp: &Experiment, record: &DataRecord) -> bool {
    let metrics: BTreeMap<String, f64> = record.metrics();
    let missed = exp.config.gates.iter().any(|gate| match (metrics.get(&gate.metric), gate.rule) {
        (Some(value), Rule::AtLeast) => *value < gate.threshold,
        (Some(value), Rule::AtMost) => *value > gate.threshold,
        (None, _) => false,
    });
    missed || !record.missed.is_empty()
}
