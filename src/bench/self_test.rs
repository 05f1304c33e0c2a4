//! The harness measured on answers that are known: right ones must pass, corrupted ones must not.

use rayon::prelude::*;

use crate::bench::collapse::shape;
use crate::bench::report::SelfTest;
use crate::bench::run::{Verdicts, judge};
use crate::data::task::Task;
use crate::error::Result;
use crate::generate::{Completion, Finish};
use crate::progress::Progress;
use crate::sandbox::{Outcome, Sandbox};

/// Ways to spoil a solution; whatever the task, none may pass.
const CORRUPTIONS: [fn(&str) -> String; 4] = [
    // Answers nothing.
    |_| "    return None\n".into(),
    // Ends the process as if all were well.
    |_| "    import os\n    os._exit(0)\n".into(),
    // The right answer, with a bracket left open.
    |solution| format!("{solution}    (\n"),
    // The right answer under a condition that never holds.
    |solution| {
        let inner: String = solution.lines().map(|line| format!("    {line}\n")).collect();
        format!("    if False:\n{inner}")
    },
];

/// Judges every task's canonical solution and its corruptions, through the same cut and the same sandbox as a model's
/// completions. Tasks without a solution are left out.
///
/// # Errors
/// As [`Sandbox::run`].
pub fn self_test(tasks: &[Task], sandbox: &Sandbox) -> Result<SelfTest> {
    let solved: Vec<&Task> = tasks.iter().filter(|task| !task.solution.is_empty()).collect();
    let progress = Progress::new("self-test", solved.len());
    let verdicts = Verdicts::new(sandbox);
    let judged: Vec<(bool, usize)> = solved
        .par_iter()
        .map(|task| {
            let passes = |text: String| -> Result<bool> {
                let completion =
                    Completion { text, tokens: Vec::new(), finish: Finish::EndOfSequence, log_likelihood: 0.0 };
                Ok(judge(task, 0, completion, &verdicts)?.outcome == Outcome::Passed)
            };
            let right = passes(task.solution.clone())?;
            let wrong = CORRUPTIONS.iter().map(|corrupt| passes(corrupt(&task.solution)));
            let wrong = wrong.collect::<Result<Vec<bool>>>()?.into_iter().filter(|passed| *passed).count();
            progress.add(1);
            Ok((right, wrong))
        })
        .collect::<Result<_>>()?;
    progress.finish();
    let faults = solved.iter().zip(&judged).filter(|(_, (right, wrong))| !right || *wrong > 0);
    Ok(SelfTest {
        canonical: solved.len(),
        canonical_passed: judged.iter().filter(|(right, _)| *right).count(),
        mutated: solved.len() * CORRUPTIONS.len(),
        mutated_passed: judged.iter().map(|(_, wrong)| wrong).sum(),
        false_alarms: solved.iter().filter(|task| shape(&task.solution, &task.solution).collapsed).count(),
        faults: faults.map(|(task, _)| task.id.clone()).collect(),
    })
}
