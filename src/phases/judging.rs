//! Judges completions that were made elsewhere: no model, the same cut, the same sandbox, the same verdicts.

use std::collections::BTreeSet;
use std::path::Path;

use crate::artifact;
use crate::bench::report::CheckpointResult;
use crate::bench::run::{Attempt, Measured, replay};
use crate::bench::{samples, tasks};
use crate::data::task::Task;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::generate::Speed;
use crate::progress::Progress;
use crate::sandbox::{Limits, Sandbox};

/// What became of the samples.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The tasks that were attempted, in the benchmark's order.
    pub tasks: Vec<Task>,
    /// Every attempt, in the order of the samples.
    pub attempts: Vec<Attempt>,
    /// Their counts, rates and intervals.
    pub result: CheckpointResult,
}

/// Judges the samples of a file, in HumanEval's or EvalPlus' format, against the experiment's benchmark. Writes
/// `attempts.jsonl` and `result.json` into the run's folder.
///
/// # Errors
/// Those of [`samples::read`] and of the sandbox; [`Error::Malformed`] when the file holds no sample.
pub fn run(exp: &Experiment, file: &Path) -> Result<Judged> {
    let config = &exp.config.bench;
    let mut tasks = tasks::load(&exp.path(&config.benchmark))?;
    let completions = samples::read(file, &tasks)?;
    if completions.is_empty() {
        return Err(Error::malformed(file, None, "no sample in the file", "write one JSON object a line"));
    }
    let attempted: BTreeSet<&str> = completions.iter().map(|(task, _)| task.as_str()).collect();
    tasks.retain(|task| attempted.contains(task.id.as_str()));
    let sandbox = Sandbox::new(Limits::seconds(config.time_limit_s))?;
    let progress = Progress::new("judge", completions.len());
    let start = std::time::Instant::now();
    let attempts = replay(&tasks, &completions, &sandbox, &progress)?;
    progress.finish();
    let speed = Speed { tokens: 0, seconds: 0.0 };
    let measured = Measured { attempts, speed, seconds: start.elapsed().as_secs_f64() };
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let result = CheckpointResult::new(&name, &tasks, &measured, exp.config.seed);
    artifact::write_jsonl(&exp.run_file("attempts.jsonl"), &measured.attempts)?;
    artifact::write_json(&exp.run_file("result.json"), &result)?;
    Ok(Judged { tasks, attempts: measured.attempts, result })
}
