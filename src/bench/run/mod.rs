//! Samples a checkpoint on tasks, runs what it wrote, and keeps every attempt.
//!
//! Sampling and execution overlap: a completion goes to a worker as soon as its sequence ends. Each verdict is appended to
//! the log at once, so that a run that was stopped continues where it stood.

mod log;
mod verdicts;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::bench::collapse::{Shape, shape};
use crate::bench::extract::{body, has_statement};
use crate::bench::tasks::{Template, sampling};
use crate::data::task::Task;
use crate::error::{Error, Result};
use crate::experiment::BenchConfig;
use crate::generate::{Completion, Finish, Request, Speed, stream};
use crate::model::transformer::Transformer;
use crate::progress::Progress;
use crate::sandbox::{Outcome, Sandbox};
use crate::tokenizer::Tokenizer;

pub use log::AttemptLog;
pub use verdicts::Verdicts;

/// One completion of one task and what became of it: a row of `attempts.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The task's id.
    pub task: String,
    /// Which sample of the task, from 0.
    pub sample: usize,
    /// What the model wrote, without what stopped it.
    pub completion: String,
    /// The function body that was run ([`crate::bench::extract`]).
    pub body: String,
    /// Tokens written.
    pub tokens: usize,
    /// Why the completion ended.
    pub finish: Finish,
    /// ln p(completion | prompt) in nats.
    pub log_likelihood: f64,
    /// The verdict.
    pub outcome: Outcome,
    /// Message of the exception, or the failing test; empty when passed.
    pub message: String,
    /// Tests that held before the first failure.
    pub tests_passed: usize,
    /// Tests of the task.
    pub tests: usize,
    /// Wall time of the execution in seconds; 0 when nothing was run. A body that an earlier sample wrote has its seconds.
    pub seconds: f64,
    /// Measures of collapse.
    pub shape: Shape,
}

/// All attempts of one checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// By task in the order of the tasks, then by sample.
    pub attempts: Vec<Attempt>,
    /// Sampling speed; counts only what was written now, not what the log held.
    pub speed: Speed,
    /// Seconds from the first prompt to the last verdict.
    pub seconds: f64,
}

/// Draws `config.samples` completions of every task and runs them. With the same seed, every (task, sample) is the same in
/// any order and any batch. Attempts that `log` holds are not made again. Where the configuration says `best_of` > 1, each
/// sample is the likeliest of as many candidates, chosen before anything is run: no test has a say in it.
///
/// # Errors
/// [`Error::Invalid`] for an unknown template, impossible sampling settings or several greedy samples or candidates;
/// whatever the model, the sandbox and the log return.
#[allow(clippy::too_many_arguments)]
pub fn attempts(
    model: &Transformer,
    tokenizer: &Tokenizer,
    tasks: &[Task],
    config: &BenchConfig,
    seed: u64,
    sandbox: &Sandbox,
    log: AttemptLog,
    progress: &Progress,
) -> Result<Measured> {
    let start = Instant::now();
    let drawn = config.samples * config.best_of;
    if config.best_of == 0 {
        return Err(Error::invalid("the likeliest of no candidates", "set best_of to 1 or more"));
    }
    if config.temperature == 0.0 && drawn > 1 {
        return Err(Error::invalid(
            format!("{drawn} greedy samples of a task are one sample {drawn} times over"),
            "set samples = 1 and best_of = 1, or a temperature above 0",
        ));
    }
    let template = Template::named(&config.template)?;
    let (mut jobs, mut requests) = (Vec::new(), Vec::new());
    for task in tasks {
        for sample in (0..config.samples).filter(|sample| !log.holds(&task.id, *sample)) {
            jobs.push((task, sample));
            requests.extend((0..config.best_of).map(|candidate| {
                // The first candidate is the sample that is drawn when there is no choice.
                let number = if candidate == 0 { String::new() } else { format!(".{candidate}") };
                Request { key: format!("{}#{sample}{number}", task.id), prompt: template.render(task) }
            }));
        }
    }
    progress.add(tasks.len() * config.samples - jobs.len());
    let log = Mutex::new(log);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let (sender, receiver) = channel::<(usize, Completion)>();
    let receiver = Mutex::new(receiver);
    let verdicts = Verdicts::new(sandbox);
    let work = || {
        while let Some((index, completion)) = next(&receiver) {
            let (task, sample) = jobs[index];
            let made = judge(task, sample, completion, &verdicts);
            let kept = made.and_then(|attempt| lock(&log).push(attempt));
            progress.add(1);
            if let Err(error) = kept {
                lock(&failure).get_or_insert(error);
                return;
            }
        }
    };
    let speed = std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
        let mut candidates: BTreeMap<usize, BTreeMap<usize, Completion>> = BTreeMap::new();
        let speed = stream(model, tokenizer, &requests, &sampling(config, seed), |index, completion| {
            if let Some(error) = lock(&failure).take() {
                return Err(error);
            }
            let job = index / config.best_of;
            let of_job = candidates.entry(job).or_default();
            of_job.insert(index % config.best_of, completion);
            if of_job.len() == config.best_of
                && let Some(likeliest) = candidates.remove(&job).and_then(likeliest)
            {
                // The receiver outlives this scope, so sending cannot fail.
                drop(sender.send((job, likeliest)));
            }
            Ok(())
        });
        drop(sender);
        speed
    })?;
    if let Some(error) = lock(&failure).take() {
        return Err(error);
    }
    let log = log.into_inner().unwrap_or_else(PoisonError::into_inner);
    let attempts = log.finish(tasks, config.samples)?;
    Ok(Measured { attempts, speed, seconds: start.elapsed().as_secs_f64() })
}

/// Runs completions that were made elsewhere: `(task id, completion)`; samples of a task are numbered in their order.
///
/// # Errors
/// [`Error::Invalid`] for an unknown task; whatever the sandbox returns.
pub fn replay(
    tasks: &[Task],
    completions: &[(String, String)],
    sandbox: &Sandbox,
    progress: &Progress,
) -> Result<Vec<Attempt>> {
    use rayon::prelude::*;
    let by_id: BTreeMap<&str, &Task> = tasks.iter().map(|task| (task.id.as_str(), task)).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut jobs = Vec::new();
    for (id, text) in completions {
        let Some(task) = by_id.get(id.as_str()) else {
            return Err(Error::invalid(format!("a sample of the unknown task {id:?}"), "name its benchmark file"));
        };
        let count = counts.entry(id).or_default();
        jobs.push((*task, *count, text));
        *count += 1;
    }
    let verdicts = Verdicts::new(sandbox);
    jobs.into_par_iter()
        .map(|(task, sample, text)| {
            let (text, tokens) = (text.clone(), Vec::new());
            let completion = Completion { text, tokens, finish: Finish::EndOfSequence, log_likelihood: 0.0 };
            progress.add(1);
            judge(task, sample, completion, &verdicts)
        })
        .collect()
}

/// Cuts, runs and measures one completion.
///
/// Collapse is a verdict only of what failed: repetition that passes its tests is a solution.
///
/// # Errors
/// As [`Sandbox::run`].
pub fn judge(task: &Task, sample: usize, completion: Completion, verdicts: &Verdicts) -> Result<Attempt> {
    let body = body(&task.prompt, &completion.text);
    let shape = shape(&completion.text, &body);
    let mut attempt = Attempt {
        task: task.id.clone(),
        sample,
        tokens: completion.tokens.len(),
        completion: completion.text,
        body,
        finish: completion.finish,
        log_likelihood: completion.log_likelihood,
        outcome: Outcome::Empty,
        message: String::new(),
        tests_passed: 0,
        tests: task.tests.len(),
        seconds: 0.0,
        shape,
    };
    if has_statement(&attempt.body) {
        let execution = verdicts.of(task, &attempt.body)?;
        attempt.outcome = execution.outcome;
        attempt.message = execution.message;
        attempt.tests_passed = execution.tests_passed;
        attempt.seconds = execution.seconds;
    }
    if shape.collapsed && attempt.outcome != Outcome::Passed {
        attempt.outcome = Outcome::Collapsed;
    }
    Ok(attempt)
}

/// The candidate with the highest mean ln p per token; of equals the first.
fn likeliest(candidates: BTreeMap<usize, Completion>) -> Option<Completion> {
    let better = |a: &Completion, b: &Completion| a.mean_log_likelihood().total_cmp(&b.mean_log_likelihood());
    candidates.into_values().rev().max_by(better)
}

fn next(receiver: &Mutex<Receiver<(usize, Completion)>>) -> Option<(usize, Completion)> {
    lock(receiver).recv().ok()
}

/// A worker that panicked has left its data whole: every change here is one push.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
