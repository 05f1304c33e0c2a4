//! What two models write that differ in nothing but the mask: the record of the miniature reproduction.

use serde::{Deserialize, Serialize};

use crate::bench::collapse::Shape;
use crate::bench::run::Attempt;
use crate::data::task::Task;
use crate::model::audit::{Causality, Floor, Leak};
use crate::model::config::ArchConfig;
use crate::sandbox::Outcome;
use crate::train::metrics::TrainingRecord;

/// Both twins, and what they were made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TwinsRecord {
    /// Digest of everything the twins depend on.
    pub digest: String,
    /// The shape of both; only `attention` differs.
    pub arch: ArchConfig,
    /// Exercises they were trained on.
    pub exercises: usize,
    /// Label smoothing ε, the earlier attempt's.
    pub label_smoothing: f64,
    /// The lowest loss that ε allows, nats per token.
    pub floor: f64,
    /// The twin that sees itself and what came before.
    pub masked: Twin,
    /// The twin that sees the whole sequence, as the earlier attempt's model did.
    pub unmasked: Twin,
}

/// One twin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Twin {
    /// Its training; the loss of a step includes label smoothing.
    pub training: TrainingRecord,
    /// What moved when a token changed.
    pub causality: Causality,
    /// Its loss with and without the mask, whatever it was trained with.
    pub leak: Leak,
    /// Its reported losses against the floor.
    pub floor: Floor,
    /// What it wrote.
    pub written: Vec<Written>,
}

impl Twin {
    /// Share of what it wrote for which `holds`, in [0, 1].
    pub fn share(&self, holds: impl Fn(&Written) -> bool) -> f64 {
        self.written.iter().filter(|written| holds(written)).count() as f64 / self.written.len().max(1) as f64
    }
}

/// One completion: enough to measure collapse anew under other thresholds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// The task's id.
    pub task: String,
    /// What the model was given.
    pub prompt: String,
    /// What it wrote.
    pub completion: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Tokens written.
    pub tokens: usize,
    /// Measures of collapse.
    pub shape: Shape,
}

impl Written {
    /// An attempt at one of `tasks`, without what only the benchmark needs.
    pub fn new(tasks: &[Task], attempt: Attempt) -> Self {
        let prompt = tasks.iter().find(|task| task.id == attempt.task).map(|task| task.prompt.clone());
        Self {
            task: attempt.task,
            prompt: prompt.unwrap_or_default(),
            completion: attempt.completion,
            outcome: attempt.outcome,
            tokens: attempt.tokens,
            shape: attempt.shape,
        }
    }

    /// Whether Python could parse it and something stood in it.
    pub fn parses(&self) -> bool {
        !matches!(self.outcome, Outcome::SyntaxError | Outcome::Empty | Outcome::Collapsed)
    }
}
