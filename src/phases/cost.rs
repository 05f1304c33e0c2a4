//! What the phases cost, read from the records they left. Measures nothing itself.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::artifact;
use crate::bench::report::EvaluationRecord;
use crate::bench::twins::TwinsRecord;
use crate::data::quality::DataRecord;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::phases::base_model::BaseRecord;
use crate::phases::lora::LoraRecord;
use crate::phases::memorise::MemoriseRecord;
use crate::train::metrics::TrainingRecord;

/// What one phase cost when it was computed; reopening it costs next to nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// The phase.
    pub phase: String,
    /// What was done in that time.
    pub work: String,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Energy in watt-hours: seconds · watts / 3600. Absent unless somebody says how many watts the machine draws.
    pub watt_hours: Option<f64>,
}

/// The cost of every phase whose record tells it. Energy is off by default (`None`): a guess is not a measurement. With
/// `Some(watts)`, the mean draw of the whole machine as a meter shows it, it is estimated.
///
/// # Errors
/// [`Error::Invalid`] for watts that are not positive; [`Error::Malformed`] for a record that cannot be read.
pub fn of(exp: &Experiment, watts: Option<f64>) -> Result<Vec<Cost>> {
    if let Some(watts) = watts.filter(|watts| !(watts.is_finite() && *watts > 0.0)) {
        return Err(Error::invalid(format!("{watts} watts"), "pass the machine's mean draw, or None"));
    }
    let mut costs = Vec::new();
    let mut add = |phase: &str, work: String, seconds: f64| {
        let watt_hours = watts.map(|watts| seconds * watts / 3600.0);
        costs.push(Cost { phase: phase.into(), work, seconds, watt_hours });
    };
    if let Some(base) = read::<BaseRecord>(exp, "base")?
        && let Some(pretraining) = base.pretraining
    {
        let (training, all) = (&pretraining.training, pretraining.tokens_seen() as f64 / 1e6);
        let tokens = match training.tokens_seen as f64 / 1e6 {
            last if pretraining.start.is_some() => format!("the last {last:.2}M of {all:.2}M tokens"),
            only => format!("{only:.2}M tokens"),
        };
        let work = format!("{} steps, {tokens}, once", training.kept_step);
        add("0 · pre-training the base", work, training.seconds);
    }
    if let Some(twins) = read::<TwinsRecord>(exp, "twins")? {
        let (masked, unmasked) = (&twins.masked.training, &twins.unmasked.training);
        add("0 · training the twins", format!("2 × {} steps", masked.kept_step), masked.seconds + unmasked.seconds);
    }
    if let Some(data) = read::<DataRecord>(exp, "data")? {
        let seconds = data.seconds.iter().map(|(_, seconds)| seconds).sum();
        add("1 · collecting the data", format!("{} rows converted and run", data.converted), seconds);
    }
    if let Some(lora) = read::<LoraRecord>(exp, "lora")? {
        let work = format!("an adapter of {} parameters, attached and proven", lora.trainable);
        add("2 · proving the adapter", work, lora.seconds);
    }
    if let Some(memorised) = read::<MemoriseRecord>(exp, "memorise")? {
        let work = format!("{} steps on one batch of {}", memorised.losses.len(), memorised.samples);
        add("2 · learning one batch by heart", work, memorised.seconds);
    }
    if let Some(training) = read::<TrainingRecord>(exp, "training")? {
        let work = format!("{} steps, {} supervised tokens", training.steps.len(), training.tokens_seen);
        add("3 · training the adapter", work, training.seconds);
    }
    if let Some(evaluation) = read::<EvaluationRecord>(exp, "evaluation")? {
        let drawn = |draws: usize, tasks: usize| draws * tasks;
        let (v1, attempts) = (&evaluation.v1_after, evaluation.before.attempts + evaluation.after.attempts);
        let all = attempts + 2 * drawn(v1.draws.len(), v1.tasks);
        add("4 · evaluating both checkpoints", format!("{all} programs written and run"), evaluation.seconds);
    }
    Ok(costs)
}

fn read<T: DeserializeOwned>(exp: &Experiment, name: &str) -> Result<Option<T>> {
    let file = exp.record_file(name);
    let there: &Path = &file;
    there.is_file().then(|| artifact::read_json(there)).transpose()
}
