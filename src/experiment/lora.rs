//! The section `[lora]`.

use serde::{Deserialize, Serialize};

use super::defaults::one;

/// The adapter (Hu et al. 2021).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank r of the update.
    pub rank: usize,
    /// Scale numerator: the update is α/r · B·A.
    pub alpha: f64,
    /// Dropout on the adapter's input, in training only.
    pub dropout: f64,
    /// Names of the linear layers to adapt (`qkv`, `out_proj`, `fc1`, `fc2`, `lm_head`) or a preset
    /// (`attention`, `all-linear`).
    pub targets: Vec<String>,
    /// Scale by α/√r instead of α/r (rank-stabilised LoRA).
    #[serde(default)]
    pub rslora: bool,
    /// Weight-decomposed adaptation (DoRA).
    #[serde(default)]
    pub dora: bool,
    /// Learning-rate ratio of B to A (LoRA+).
    #[serde(default = "one")]
    pub lr_ratio: f64,
    /// Rank for single targets, where it differs from `rank`.
    #[serde(default)]
    pub rank_pattern: std::collections::BTreeMap<String, usize>,
    /// Alpha for single targets, where it differs from `alpha`.
    #[serde(default)]
    pub alpha_pattern: std::collections::BTreeMap<String, f64>,
}
