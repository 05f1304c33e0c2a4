//! Attempts at tasks: one from prompt to verdict, a gallery of many, and what changed between two checkpoints.

use std::collections::BTreeSet;

use polars::prelude::df;

use super::{Badge, Html, badge, diff, percent, python, rows_of, table};
use crate::bench::report::{EvaluationRecord, escape, outcome_name};
use crate::bench::run::Attempt;
use crate::data::task::Task;
use crate::error::{Error, Result};
use crate::generate::Completion;
use crate::phases::evaluation::Evaluation;
use crate::sandbox::{Limits, Outcome, Sandbox};

/// One attempt from prompt to verdict: what the model was given, what it wrote, how that differs from the solution we know,
/// and what the tests said.
///
/// # Errors
/// [`Error::Invalid`] when the attempt's task is not among the evaluation's.
pub fn attempt(evaluation: &Evaluation, attempt: &Attempt) -> Result<Html> {
    let task = task_of(evaluation, attempt)?;
    let written = if attempt.body.trim().is_empty() { &attempt.completion } else { &attempt.body };
    let tests = format!("{} of {} tests held before the first failure", attempt.tests_passed, attempt.tests);
    let tests = if attempt.outcome == Outcome::Passed { format!("all {} tests held", attempt.tests) } else { tests };
    let said = if attempt.message.is_empty() { String::new() } else { format!("<br>{}", escape(&attempt.message)) };
    Ok(rows_of(
        ["step", &task.id],
        [
            ["the prompt".to_string(), python(task.prompt.trim_end()).0],
            [format!("what the model wrote, {} tokens", attempt.tokens), python(written.trim_end()).0],
            ["against our own solution".into(), diff(task.solution.trim_end(), written.trim_end()).0],
            ["the verdict".into(), format!("{} {tests}{said}", verdict(&attempt.outcome))],
        ],
    ))
}

/// A body written for a task, judged in the sandbox at this moment: the prompt, the body, and what the tests say of both
/// together.
///
/// # Errors
/// When the sandbox cannot be set up.
pub fn judge(task: &Task, body: &str) -> Result<Html> {
    let execution = Sandbox::new(Limits::seconds(JUDGED_SECONDS))?.run(&task.program(body))?;
    let said = if execution.message.is_empty() { String::new() } else { format!("<br>{}", escape(&execution.message)) };
    let tests = format!("{} of {} tests held{said}", execution.tests_passed, task.tests.len());
    Ok(rows_of(
        ["step", &task.id],
        [
            ["the prompt".to_string(), python(task.prompt.trim_end()).0],
            ["a body".into(), python(body.trim_end()).0],
            ["the tests, which no model sees".into(), python(&task.tests.join("\n")).0],
            ["the verdict".into(), format!("{} {tests}", verdict(&execution.outcome))],
        ],
    ))
}

/// Seconds that an example may take: a right one takes milliseconds.
const JUDGED_SECONDS: f64 = 5.0;

/// What the base writes by itself for simple tasks.
pub fn completions(written: &[(Task, Completion)]) -> Html {
    rows_of(
        ["task", "prompt and completion", "ends by"],
        written.iter().map(|(task, completion)| {
            let code = python(&format!("{}{}", task.prompt, completion.text.trim_end())).0;
            [escape(&task.entry_point), code, completion.finish.name().replace('_', " ")]
        }),
    )
}

/// For each outcome one attempt of the adapted model, the likeliest, at most `most`.
///
/// # Errors
/// As [`attempt`].
pub fn gallery(evaluation: &Evaluation, most: usize) -> Result<Html> {
    let mut attempts: Vec<&Attempt> = evaluation.after.iter().collect();
    attempts.sort_by(|a, b| b.log_likelihood.total_cmp(&a.log_likelihood));
    let mut seen = BTreeSet::new();
    attempts.retain(|attempt| seen.insert(outcome_name(&attempt.outcome)));
    let row = |attempt: &&Attempt| {
        let task = task_of(evaluation, attempt)?;
        let written = if attempt.body.trim().is_empty() { &attempt.completion } else { &attempt.body };
        let code = python(&format!("{}{}", task.prompt, written.trim_end())).0;
        let said = escape(&attempt.message);
        Ok([escape(&task.entry_point), code, format!("{}<br>{said}", verdict(&attempt.outcome))])
    };
    let rows = attempts.iter().take(most).map(row).collect::<Result<Vec<_>>>()?;
    Ok(rows_of(["task", "attempt", "verdict"], rows))
}

/// What changed between the two checkpoints, by the paired test.
///
/// # Errors
/// As the table library.
pub fn change(record: &EvaluationRecord) -> Result<Html> {
    let change = &record.change;
    let value = change.difference.scaled(100.0);
    let names = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
    let rows = [
        ("change of pass@1 (points)", format!("{:+.1} [{:.1}, {:.1}]", value.estimate, value.low, value.high)),
        ("paired permutation test over tasks", format!("p = {:.3}", change.p_value)),
        ("better after", names(&change.better)),
        ("worse after", names(&change.worse)),
        ("the same", format!("{} tasks", change.same.len())),
        ("mean longest repetition before (words and signs)", format!("{:.1}", record.before.shape.repeated_pieces)),
        ("and after", format!("{:.1}", record.after.shape.repeated_pieces)),
        ("white space, mean share before", percent(record.before.shape.whitespace)),
        ("and after", percent(record.after.shape.whitespace)),
    ];
    let (names, values): (Vec<&str>, Vec<String>) = rows.into_iter().unzip();
    Ok(table(&df!("comparison" => names, "result" => values)?))
}

pub(super) fn verdict(outcome: &Outcome) -> String {
    let name = outcome_name(outcome).replace('_', " ");
    match outcome {
        Outcome::Passed => badge("✓ passed", Badge::Good),
        Outcome::TimedOut | Outcome::OutOfMemory => badge(&format!("? {name}"), Badge::Open),
        _ => badge(&format!("✗ {name}"), Badge::Bad),
    }
}

fn task_of<'a>(evaluation: &'a Evaluation, attempt: &Attempt) -> Result<&'a Task> {
    let task = evaluation.tasks.iter().find(|task| task.id == attempt.task);
    task.ok_or_else(|| {
        Error::invalid(format!("there is no task {}", attempt.task), "pass an attempt of this evaluation")
    })
}
