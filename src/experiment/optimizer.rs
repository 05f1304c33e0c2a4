//! What pre-training and adaptation share: optimiser, schedule, device.

use serde::{Deserialize, Serialize};

use super::defaults::is;

/// Optimiser and schedule, shared by pre-training and adaptation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    /// The rule of a step.
    #[serde(default, rename = "optimizer", skip_serializing_if = "Stepping::is_adamw")]
    pub rule: Stepping,
    /// Optimiser steps.
    pub steps: usize,
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
    /// Share of the steps, the last ones, over which the weights are averaged, in [0, 1): what is evaluated and left behind is
    /// then their mean. 0 averages nothing.
    #[serde(default, skip_serializing_if = "is::<0>")]
    pub average_last: f64,
}

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stepping {
    /// AdamW (Loshchilov & Hutter 2019) for every parameter.
    #[default]
    #[serde(rename = "adamw")]
    AdamW,
    /// Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for the others; on a processor.
    Muon,
}

impl Stepping {
    fn is_adamw(&self) -> bool {
        *self == Self::AdamW
    }
}

/// The learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays at the peak.
    Constant,
    /// Half a cosine down to zero.
    Cosine,
    /// A straight line down to zero.
    Linear,
    /// Stays at the peak, then falls linearly to zero over the last fifth (warm-up, stable, decay).
    Wsd,
}

/// Where a model is computed, and in which floats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compute {
    /// The processor, f32.
    #[default]
    Cpu,
    /// The first CUDA device, f32.
    Cuda,
    /// The first CUDA device, bf16 with f32 master weights.
    CudaBf16,
}
