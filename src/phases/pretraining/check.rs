//! What a base writes while it is trained: loss alone once hid a model that wrote nothing but newlines.

use crate::bench::run::{Attempt, AttemptLog, attempts};
use crate::data::embedded;
use crate::data::task::Task;
use crate::error::Result;
use crate::experiment::{BenchConfig, Experiment};
use crate::model::transformer::Transformer;
use crate::progress::Progress;
use crate::sandbox::{Limits, Sandbox};
use crate::tokenizer::Tokenizer;
use crate::train::metrics::GeneratedCheck;

/// Simple tasks outside the benchmark, solved greedily at each evaluation. The benchmark itself is left for the end, so that
/// nothing is chosen by it.
pub(super) struct Check {
    tasks: Vec<Task>,
    sandbox: Sandbox,
    config: BenchConfig,
}

impl Check {
    /// Prepares the check; nothing where this system has no sandbox, which is said once.
    pub(super) fn new(exp: &Experiment) -> Result<Option<Self>> {
        let config =
            BenchConfig { samples: 1, best_of: 1, temperature: 0.0, adapter: None, ..exp.config.bench.clone() };
        match Sandbox::new(Limits::seconds(config.time_limit_s)) {
            Ok(sandbox) => Ok(Some(Self { tasks: embedded::other40()?, sandbox, config })),
            Err(error) => {
                println!("what the model writes is not run: {error}");
                Ok(None)
            }
        }
    }

    /// Lets the model solve the tasks, and shows one attempt.
    pub(super) fn run(&self, model: &Transformer, tokenizer: &Tokenizer, step: usize) -> Result<GeneratedCheck> {
        let progress = Progress::new("generated check", self.tasks.len());
        let log = AttemptLog::in_memory();
        let seed = step as u64;
        let found =
            attempts(model, tokenizer, &self.tasks, &self.config, seed, &self.sandbox, log, &progress)?.attempts;
        if let Some(attempt) = found.get(step / 100 % found.len().max(1)) {
            self.show(attempt);
        }
        Ok(GeneratedCheck::of(found.iter().map(|attempt| (&attempt.outcome, attempt.tokens))))
    }

    fn show(&self, attempt: &Attempt) {
        let prompt = self.tasks.iter().find(|task| task.id == attempt.task).map_or("", |task| task.prompt.as_str());
        let text = format!("{prompt}{}", attempt.completion);
        let lines: Vec<&str> = text.lines().take(14).collect();
        println!("    {}\n    ({:?})", lines.join("\n    "), attempt.outcome);
    }
}
