//! From attempts to the record: counts, rates and their intervals.

use std::collections::BTreeMap;

use crate::bench::pass_at_k::{Interval, difference_bootstrap, paired_permutation, pass_at_k, task_bootstrap, wilson};
use crate::bench::report::{CheckpointResult, Comparison, Draw, Protocol, ShapeSummary, TaskResult, V1Result};
use crate::bench::run::{Attempt, Measured};
use crate::data::task::Task;
use crate::experiment::BenchConfig;
use crate::generate::mean_log_likelihood;
use crate::sandbox::Outcome;

/// Outcomes by name, what is nearest to a solution first.
pub(super) const OUTCOMES: [&str; 9] = [
    "passed",
    "wrong_answer",
    "exception",
    "name_error",
    "timed_out",
    "out_of_memory",
    "syntax_error",
    "empty",
    "collapsed",
];

/// The name of an outcome in tables: `passed`, `wrong_answer`, `exception`, …
pub fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::WrongAnswer => "wrong_answer",
        Outcome::Exception(_) => "exception",
        Outcome::NameError => "name_error",
        Outcome::SyntaxError => "syntax_error",
        Outcome::Empty => "empty",
        Outcome::Collapsed => "collapsed",
        Outcome::TimedOut => "timed_out",
        Outcome::OutOfMemory => "out_of_memory",
    }
}

impl Protocol {
    /// How completions are drawn under a configuration.
    pub fn new(config: &BenchConfig, seed: u64) -> Self {
        Self {
            template: config.template.clone(),
            samples: config.samples,
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
            min_p: config.min_p,
            repetition_penalty: config.repetition_penalty,
            stop: config.stop.clone(),
            best_of: config.best_of,
            eight_bits: config.eight_bits,
            max_new_tokens: config.max_new_tokens,
            seed,
        }
    }
}

impl CheckpointResult {
    /// Sums up the attempts of one checkpoint.
    pub fn new(name: &str, tasks: &[Task], measured: &Measured, seed: u64) -> Self {
        let attempts = &measured.attempts;
        let tasks: Vec<TaskResult> = tasks.iter().map(|task| TaskResult::new(task, attempts)).collect();
        let count = |holds: &dyn Fn(&Attempt) -> bool| attempts.iter().filter(|attempt| holds(attempt)).count();
        let share = |holds: &dyn Fn(&Attempt) -> bool| wilson(count(holds), attempts.len());
        let mean =
            |value: &dyn Fn(&Attempt) -> f64| attempts.iter().map(value).sum::<f64>() / attempts.len().max(1) as f64;
        // With every task tried equally often the mean of the tasks' rates is the pooled rate. Tasks are fixed here, and
        // drawing within fixed tasks varies less than drawing from the pool, so the pool's interval errs on the safe side.
        let expected_solved = share(&|a| a.outcome == Outcome::Passed).scaled(tasks.len() as f64);
        Self {
            name: name.into(),
            attempts: attempts.len(),
            pass_at_1: rate(&tasks, 1, seed).unwrap_or(wilson(0, 0)),
            pass_at_10: rate(&tasks, 10, seed),
            pass_at_1_likeliest: likeliest(&tasks, attempts, seed),
            expected_solved,
            solved_once: tasks.iter().filter(|task| task.c > 0).count(),
            outcomes: counts(attempts.iter().map(|attempt| outcome_name(&attempt.outcome))),
            finishes: counts(attempts.iter().map(|attempt| attempt.finish.name())),
            syntax_valid: share(&|a| !matches!(a.outcome, Outcome::SyntaxError | Outcome::Empty | Outcome::Collapsed)),
            non_trivial: share(&|a| a.shape.non_trivial),
            collapsed: share(&|a| a.outcome == Outcome::Collapsed),
            shape: ShapeSummary {
                repeated_pieces: mean(&|a| a.shape.repeated_pieces as f64),
                repeated_characters: mean(&|a| a.shape.repeated_characters as f64),
                stuttered_words: mean(&|a| a.shape.stuttered_words as f64),
                distinct_4: mean(&|a| a.shape.distinct_4),
                whitespace: mean(&|a| a.shape.whitespace),
            },
            tokens: attempts.iter().map(|attempt| attempt.tokens).sum(),
            generation_seconds: measured.speed.seconds,
            tokens_per_second: measured.speed.tokens_per_second(),
            seconds: measured.seconds,
            tasks,
        }
    }
}

impl TaskResult {
    fn new(task: &Task, attempts: &[Attempt]) -> Self {
        let own: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.task == task.id).collect();
        let c = own.iter().filter(|attempt| attempt.outcome == Outcome::Passed).count();
        Self {
            id: task.id.clone(),
            function: task.entry_point.clone(),
            n: own.len(),
            c,
            pass_at_1: wilson(c, own.len()),
            outcomes: counts(own.iter().map(|attempt| outcome_name(&attempt.outcome))),
        }
    }
}

/// Mean over tasks of pass@k; `None` when a task has fewer than k samples.
fn rate(tasks: &[TaskResult], k: usize, seed: u64) -> Option<Interval> {
    let rates: Option<Vec<f64>> = tasks.iter().map(|task| pass_at_k(task.n, task.c, k)).collect();
    rates.map(|rates| task_bootstrap(&rates, seed))
}

/// Mean over tasks of whether the likeliest sample passes; `None` when there is nothing to choose or to choose by.
fn likeliest(tasks: &[TaskResult], attempts: &[Attempt], seed: u64) -> Option<Interval> {
    let mean = |attempt: &Attempt| mean_log_likelihood(attempt.log_likelihood, attempt.tokens);
    let passes = |task: &TaskResult| {
        // Of equals the first sample, whatever became of it.
        let own = attempts.iter().rev().filter(|attempt| attempt.task == task.id && attempt.tokens > 0);
        own.max_by(|a, b| mean(a).total_cmp(&mean(b))).map(|best| f64::from(u8::from(best.outcome == Outcome::Passed)))
    };
    let rates: Option<Vec<f64>> = tasks.iter().map(passes).collect();
    rates.filter(|_| tasks.iter().any(|task| task.n > 1)).map(|rates| task_bootstrap(&rates, seed))
}

fn counts(names: impl Iterator<Item = &'static str>) -> BTreeMap<String, usize> {
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name.to_string()).or_default() += 1;
        counts
    })
}

/// After against before, paired by task; both have the same tasks in the same order.
pub fn compare(before: &CheckpointResult, after: &CheckpointResult, seed: u64) -> Comparison {
    let share = |task: &TaskResult| task.c as f64 / task.n.max(1) as f64;
    let pairs = before.tasks.iter().zip(&after.tasks);
    let differences: Vec<f64> = pairs.map(|(b, a)| share(a) - share(b)).collect();
    let named = |holds: &dyn Fn(f64) -> bool| {
        let tasks = after.tasks.iter().zip(&differences).filter(|(_, d)| holds(**d));
        tasks.map(|(task, _)| task.function.clone()).collect()
    };
    Comparison {
        difference: difference_bootstrap(&differences, seed),
        p_value: paired_permutation(&differences, seed),
        better: named(&|d| d > 0.0),
        worse: named(&|d| d < 0.0),
        same: named(&|d| d == 0.0),
    }
}

/// The earlier protocol's result from `config.samples` draws of one sample per task. Without a draw nothing is known, and
/// the interval says so.
pub fn v1_result(config: &BenchConfig, tasks: &[Task], measured: &Measured, seed: u64) -> V1Result {
    let passed = |draw: usize, task: &Task| {
        let mut own = measured.attempts.iter().filter(|a| a.sample == draw && a.task == task.id);
        own.any(|a| a.outcome == Outcome::Passed)
    };
    let draws = (0..config.samples).map(|draw| {
        let solved = tasks.iter().filter(|task| passed(draw, task)).count();
        Draw { draw, solved, share: wilson(solved, tasks.len()) }
    });
    let solved = |task| (0..config.samples).filter(|draw| passed(*draw, task)).count() as f64;
    let rates: Vec<f64> = tasks.iter().map(|task| solved(task) / config.samples as f64).collect();
    let share = if config.samples == 0 { wilson(0, 0) } else { task_bootstrap(&rates, seed) };
    V1Result {
        protocol: Protocol { samples: 1, ..Protocol::new(config, seed) },
        draws: draws.collect(),
        tasks: tasks.len(),
        solved: share.scaled(tasks.len() as f64),
    }
}
