//! The section `[train]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::defaults::is;
use super::optimizer::{Compute, Schedule};

/// How the adapter is trained.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Samples in a step.
    pub batch_size: usize,
    /// Micro-batches summed into one step.
    pub accumulation: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm.
    pub clip: f64,
    /// Share of the steps, the last ones, over which the adapter is averaged, in [0, 1); 0 averages nothing.
    #[serde(default, skip_serializing_if = "is::<0>")]
    pub average_last: f64,
    /// The device and the type of floats it computes in; the weights themselves are always f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// Label smoothing ε.
    pub label_smoothing: f64,
    /// Steps between evaluations and checkpoints.
    pub eval_every: usize,
    /// Evaluations without improvement before the run stops; 0 never stops.
    pub patience: usize,
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
