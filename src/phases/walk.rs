//! Every phase in order, and the figures and the table at the end.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde::de::DeserializeOwned;

use crate::artifact;
use crate::bench::report::EvaluationRecord;
use crate::data::quality::DataRecord;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::figures::chart::Chart;
use crate::figures::{self, Figure};
use crate::phases::base_model::{self, BaseModel};
use crate::phases::data_collection::{self, DataCollection};
use crate::phases::decisions::{self, Decisions};
use crate::phases::evaluation::{self, Evaluation};
use crate::phases::lora::{self, Lora, LoraRecord};
use crate::phases::memorise::MemoriseRecord;
use crate::phases::sweep;
use crate::phases::training::{self, Training};
use crate::train::metrics::TrainingRecord;
use crate::train::sweep::SweepRecord;

/// What the whole walk leaves behind.
pub struct Walk {
    /// Phase 1.
    pub data: DataCollection,
    /// Phase 0.
    pub base: BaseModel,
    /// Phase 2.
    pub lora: Lora,
    /// Phase 3, training.
    pub training: Training,
    /// Phase 4, evaluation.
    pub evaluation: Evaluation,
    /// The decision points.
    pub decisions: Decisions,
    /// Wall time of each phase in seconds, in order.
    pub seconds: Vec<(&'static str, f64)>,
}

/// Walks every phase of an experiment, computing what is not there yet, and draws every figure.
///
/// # Errors
/// Those of the phases; what earlier phases left stays and is reopened by the next walk.
pub fn run(exp: &Experiment) -> Result<Walk> {
    let mut seconds = Vec::new();
    let data = timed("data", &mut seconds, || data_collection::run(exp))?;
    let base = timed("base", &mut seconds, || base_model::run(exp))?;
    let lora = timed("lora", &mut seconds, || lora::run(exp))?;
    let training = timed("training", &mut seconds, || training::run(exp))?;
    let evaluation = timed("evaluation", &mut seconds, || evaluation::run(exp))?;
    let decisions = timed("decisions", &mut seconds, || decisions::run(exp))?;
    timed("figures", &mut seconds, || figures(exp))?;
    Ok(Walk { data, base, lora, training, evaluation, decisions, seconds })
}

fn timed<T>(
    name: &'static str,
    seconds: &mut Vec<(&'static str, f64)>,
    phase: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    let result = phase()?;
    seconds.push((name, start.elapsed().as_secs_f64()));
    Ok(result)
}

/// Publishes the run's records beside the figures and draws every figure from them; without a run, from the records
/// that lie there. Returns how many figures were drawn. Runs no model.
///
/// # Errors
/// When a record cannot be read or a figure cannot be drawn.
pub fn figures(exp: &Experiment) -> Result<usize> {
    for name in ["data", "base", "twins", "lora", "memorise", "training", "evaluation", "decisions"] {
        publish(exp, name, &exp.record_file(name))?;
    }
    for (name, file) in sweep::records(exp) {
        publish(exp, &name, &file)?;
    }
    let mut charts = Vec::new();
    charts.extend(of_record(exp, "twins", figures::twins::all)?);
    charts.extend(of_record(exp, "base", base_model::charts)?);
    charts.extend(of_record(exp, "data", |record: &DataRecord| figures::data::all(record))?);
    charts.extend(of_record(exp, "lora", |record: &LoraRecord| vec![record.chart()])?);
    charts.extend(of_record(exp, "memorise", |record: &MemoriseRecord| vec![record.chart()])?);
    charts.extend(of_record(exp, "training", |record: &TrainingRecord| figures::training::all(record))?);
    charts.extend(of_record(exp, "evaluation", |record: &EvaluationRecord| figures::evaluation::all(record))?);
    for name in published_sweeps(exp) {
        charts.extend(of_record(exp, &name, |record: &SweepRecord| figures::sweep::all(record, &name))?);
    }
    let figures: Vec<Figure> = charts.iter().map(figures::draw).collect::<Result<_>>()?;
    let folder = exp.path(&exp.config.paths.figures);
    for figure in &figures {
        figure.save(&folder)?;
    }
    figures::write_captions(&folder, &figures)?;
    Ok(figures.len())
}

/// Names of the sweeps whose records lie beside the figures.
fn published_sweeps(exp: &Experiment) -> Vec<String> {
    let folder = exp.published_record("sweep");
    let entries = folder.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(String::from));
    let mut names: Vec<String> = names.filter(|name| name.starts_with("sweep")).collect();
    names.sort();
    names
}

fn publish(exp: &Experiment, name: &str, file: &Path) -> Result<()> {
    if !file.is_file() {
        return Ok(());
    }
    let bytes = fs::read(file).map_err(Error::io("read", file))?;
    artifact::write_atomic(&exp.published_record(name), |writer| writer.write_all(&bytes))
}

fn of_record<T: DeserializeOwned>(
    exp: &Experiment,
    name: &str,
    charts: impl Fn(&T) -> Vec<Chart>,
) -> Result<Vec<Chart>> {
    let file = exp.published_record(name);
    if !file.is_file() {
        return Ok(Vec::new());
    }
    Ok(charts(&artifact::read_json(&file)?))
}
