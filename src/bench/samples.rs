//! Completions in the formats of other harnesses: HumanEval's `samples.jsonl` and EvalPlus'.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::bench::run::Attempt;
use crate::data::task::Task;
use crate::error::{Error, Result};

/// A row of HumanEval's `samples.jsonl`: what follows the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HumanEvalSample {
    /// The id in the source, e.g. `HumanEval/0`; our own id where the task has no source.
    pub task_id: String,
    /// The body.
    pub completion: String,
}

/// A row of EvalPlus' samples: the whole program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalPlusSample {
    /// As in [`HumanEvalSample`].
    pub task_id: String,
    /// Prompt and body.
    pub solution: String,
}

/// The task's id in other harnesses.
pub fn foreign_id(task: &Task) -> &str {
    task.provenance.as_ref().map_or(&task.id, |provenance| &provenance.original_id)
}

/// Writes the bodies of attempts as HumanEval's samples.
///
/// # Errors
/// [`Error::Io`]; [`Error::Invalid`] for an attempt at an unknown task.
pub fn write_humaneval(path: &Path, tasks: &[Task], attempts: &[Attempt]) -> Result<()> {
    let tasks = by_own_id(tasks);
    let row = |attempt: &Attempt| {
        let task_id = foreign_id(known(&tasks, &attempt.task)?).to_string();
        Ok(HumanEvalSample { task_id, completion: attempt.body.clone() })
    };
    artifact::write_jsonl(path, attempts.iter().map(row).collect::<Result<Vec<_>>>()?)
}

/// Writes the programs of attempts as EvalPlus' samples.
///
/// # Errors
/// As [`write_humaneval`].
pub fn write_evalplus(path: &Path, tasks: &[Task], attempts: &[Attempt]) -> Result<()> {
    let tasks = by_own_id(tasks);
    let row = |attempt: &Attempt| {
        let task = known(&tasks, &attempt.task)?;
        Ok(EvalPlusSample { task_id: foreign_id(task).to_string(), solution: task.program(&attempt.body).code })
    };
    artifact::write_jsonl(path, attempts.iter().map(row).collect::<Result<Vec<_>>>()?)
}

/// Either kind of row.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sample {
    HumanEval(HumanEvalSample),
    EvalPlus(EvalPlusSample),
}

/// Reads samples of either kind as `(our task id, completion)`, ready for [`crate::bench::run::replay`].
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] with the line when a row is neither kind, names an unknown task, or is a whole program
/// that does not begin with the task's prompt.
pub fn read(path: &Path, tasks: &[Task]) -> Result<Vec<(String, String)>> {
    let by_id: BTreeMap<&str, &Task> = tasks.iter().map(|task| (foreign_id(task), task)).collect();
    let rows: Vec<Sample> = artifact::read_jsonl(path)?;
    let complete = |(number, row): (usize, Sample)| {
        let fault = |what: String| Error::malformed(path, number, what, "write samples for this benchmark's prompts");
        let (id, text, whole) = match row {
            Sample::HumanEval(row) => (row.task_id, row.completion, false),
            Sample::EvalPlus(row) => (row.task_id, row.solution, true),
        };
        let task = by_id.get(id.as_str()).ok_or_else(|| fault(format!("there is no task {id:?}")))?;
        if !whole {
            return Ok((task.id.clone(), text));
        }
        let body = text.strip_prefix(&task.prompt);
        let body = body.ok_or_else(|| fault(format!("the solution of {id} does not begin with its prompt")))?;
        Ok((task.id.clone(), body.to_string()))
    };
    (1..).zip(rows).map(complete).collect()
}

fn by_own_id(tasks: &[Task]) -> BTreeMap<&str, &Task> {
    tasks.iter().map(|task| (task.id.as_str(), task)).collect()
}

fn known<'a>(tasks: &BTreeMap<&str, &'a Task>, id: &str) -> Result<&'a Task> {
    let unknown = || Error::invalid(format!("an attempt at the unknown task {id:?}"), "name its benchmark file");
    tasks.get(id).copied().ok_or_else(unknown)
}
