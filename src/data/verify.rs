//! Executes every sample and believes only the result.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::cache::Cache;
use crate::data::task::Task;
use crate::error::Result;
use crate::progress::Progress;
use crate::python;
use crate::sandbox::{Execution, Limits, Outcome, Program, Sandbox};
use crate::seed::sha256;

/// A body that solves nothing. When it passes, passing proves nothing.
pub const EMPTY_BODY: &str = "    return None\n";

/// Programs between two writes of the cache, so that an interrupted run loses little.
const CHUNK: usize = 512;

/// Most timed-out programs that get a second try alone: on a busy machine a few miss the limit through no fault of theirs.
const SECOND_TRIES: usize = 16;

/// What the tests say of one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// The task's id.
    pub id: String,
    /// What became of prompt + solution under the tests.
    pub outcome: Outcome,
    /// Message of the exception or the failing test; empty when passed.
    pub message: String,
    /// Wall time in seconds.
    pub seconds: f64,
    /// What became of prompt + [`EMPTY_BODY`] under the same tests.
    pub empty_body: Outcome,
}

impl Verification {
    /// Whether the solution passes and the empty body fails.
    pub fn proven(&self) -> bool {
        self.outcome == Outcome::Passed && self.empty_body != Outcome::Passed
    }
}

/// Runs each task's solution, and the empty body, under its tests. Results are cached by content.
///
/// # Errors
/// When the sandbox cannot be set up or the machine fails; never because of what a sample does.
pub fn verify(tasks: &[Task], limits: Limits, cache_file: &Path) -> Result<Vec<Verification>> {
    let mut programs: Vec<Program> = tasks.iter().map(|task| task.program(&task.solution)).collect();
    programs.extend(tasks.iter().map(|task| task.program(EMPTY_BODY)));
    let results = execute_cached(&programs, limits, cache_file, "verify")?;
    let (solutions, empty) = results.split_at(tasks.len());
    let verification = |((task, execution), empty): ((&Task, &Execution), &Execution)| Verification {
        id: task.id.clone(),
        outcome: execution.outcome.clone(),
        message: execution.message.clone(),
        seconds: execution.seconds,
        empty_body: empty.outcome.clone(),
    };
    Ok(tasks.iter().zip(solutions).zip(empty).map(verification).collect())
}

/// Runs programs on all cores, looking first into a cache file; keeps their order.
///
/// # Errors
/// As [`verify`].
pub(crate) fn execute_cached(
    programs: &[Program],
    limits: Limits,
    cache_file: &Path,
    label: &str,
) -> Result<Vec<Execution>> {
    let mut cache: Cache<Execution> = Cache::open(cache_file);
    let salt = format!("{limits:?}{}", python::interpreter()?.display());
    let key = |program: &Program| {
        let parts = (&salt, &program.code, &program.setup, &program.tests);
        sha256(serde_json::to_string(&parts).unwrap_or_default())
    };
    let keys: Vec<String> = programs.iter().map(key).collect();
    let missing: Vec<usize> = (0..keys.len()).filter(|&index| cache.get(&keys[index]).is_none()).collect();
    if !missing.is_empty() {
        let sandbox = Sandbox::new(limits)?;
        let progress = Progress::new(label, missing.len());
        let mut second_tries = SECOND_TRIES;
        for chunk in missing.chunks(CHUNK) {
            let batch: Vec<Program> = chunk.iter().map(|&index| programs[index].clone()).collect();
            let executions = sandbox.run_all(&batch, &progress)?;
            for (&index, mut execution) in chunk.iter().zip(executions) {
                if execution.outcome == Outcome::TimedOut && second_tries > 0 {
                    second_tries -= 1;
                    execution = sandbox.run(&programs[index])?;
                }
                cache.insert(keys[index].clone(), execution);
            }
            cache.save()?;
        }
        progress.finish();
    }
    Ok(keys.iter().filter_map(|key| cache.get(key).cloned()).collect())
}
