//! The section `[train]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::optimizer::{Compute, OptimizerConfig};

/// How the adapter is trained.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimiser settings.
    #[serde(flatten)]
    pub optimizer: OptimizerConfig,
    /// Samples in a step.
    pub batch_size: usize,
    /// Micro-batches summed into one step.
    pub accumulation: usize,
    /// The device and the type of floats it computes in; the weights themselves are always f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// Label smoothing ε.
    pub label_smoothing: f64,
    /// Steps between evaluations and checkpoints.
    pub eval_every: usize,
    /// Evaluations without improvement before the run stops; 0 never stops.
    pub patience: usize,
    /// Share of collapsed completions at an evaluation above which the run stops; absent: one half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collapse_alarm: Option<f64>,
    /// JSONL of samples to train on, in place of phase 1's.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// JSONL of samples to validate on, in place of phase 1's.
    #[serde(default)]
    pub validation: Option<PathBuf>,
    /// Train on this many samples, the first of a fixed shuffle; absent: on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// Seed of the adapter, the batches and dropout, where it is not the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}
