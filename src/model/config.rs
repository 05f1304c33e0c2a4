//! The architecture file (`arch.json`): what a transformer of ours can be, and every value it may not have.
//!
//! The layout is that of the earlier attempt, so its files load unchanged: the section `architecture` counts, other
//! sections (`experiment`, `rationale`, …) are notes. Four optional keys are ours: `tie_word_embeddings`, `attention`,
//! `rope_theta`, `norm_eps`.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};

/// The shape of a transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchConfig {
    /// Always `transformer`; other kinds were named by the earlier attempt and never built.
    pub arch_type: ArchType,
    /// Blocks.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_dim: usize,
    /// Attention heads; each has `hidden_dim / num_heads` dimensions.
    pub num_heads: usize,
    /// Width of the MLP as a multiple of `hidden_dim`; see [`ArchConfig::ffn_dim`].
    pub ffn_multiplier: f64,
    /// The norm before attention, before the MLP and before the head.
    pub normalization: Normalization,
    /// The non-linearity of the MLP.
    pub activation: Activation,
    /// How a token knows its place.
    pub position_encoding: PositionEncoding,
    /// Dropout on attention probabilities, in training only.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Dropout on what each sub-layer adds to the residual stream, in training only.
    #[serde(default)]
    pub residual_dropout: f64,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    pub max_seq_length: usize,
    /// The head is the embedding's own matrix.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Who sees whom.
    #[serde(default)]
    pub attention: Attention,
    /// Base θ of the rotary frequencies θ^(−2i/d) (Su et al. 2021, eq. 15).
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// ε of the norms.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f64,
    /// A note of the earlier attempt; read and kept, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// A note of the earlier attempt; only 0 is possible.
    #[serde(default)]
    pub pruning_ratio: f64,
}

/// The kind of model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchType {
    /// A pre-norm decoder.
    Transformer,
}

/// The norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalization {
    /// (x − mean) / √(var + ε) · weight + bias (Ba et al. 2016).
    LayerNorm,
    /// x / √(mean(x²) + ε) · weight (Zhang & Sennrich 2019).
    RmsNorm,
}

/// The MLP's non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// x · Φ(x), with the exact error function.
    Gelu,
    /// x · σ(x).
    Silu,
    /// gelu(gate) · up (Shazeer 2020).
    GeGlu,
    /// silu(gate) · up (Shazeer 2020).
    SwiGlu,
}

impl Activation {
    /// Whether half of `fc1` gates the other half.
    pub fn is_gated(self) -> bool {
        matches!(self, Self::GeGlu | Self::SwiGlu)
    }
}

/// How a token knows its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PositionEncoding {
    /// Queries and keys are turned by their position (Su et al. 2021), halves rotated against each other.
    Rope,
    /// A learned vector per position is added to the embedding (`position_embedding.weight`).
    Absolute,
}

/// Who sees whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// A token sees itself and what came before.
    #[default]
    Causal,
    /// A token sees the whole sequence. This is no language model; it exists to reproduce the earlier failure.
    Bidirectional,
}

fn default_rope_theta() -> f64 {
    10_000.0
}

fn default_norm_eps() -> f64 {
    1e-5
}

/// The file around the architecture.
#[derive(Deserialize)]
struct ArchFile {
    architecture: ArchConfig,
}

const REMEDY: &str = "correct the architecture file; data/base/small/arch.json is an example";

impl ArchConfig {
    /// Reads an architecture file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] with the line when a key is unknown, missing or has a value we do not build,
    /// and when the values do not fit each other.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let file: ArchFile =
            serde_json::from_str(&text).map_err(|e| Error::malformed(path, e.line(), e.to_string(), REMEDY))?;
        let config = file.architecture;
        if let Err((key, what)) = config.faults() {
            let line = text.lines().position(|line| line.contains(&format!("\"{key}\""))).map(|index| index + 1);
            return Err(Error::malformed(path, line, what, REMEDY));
        }
        Ok(config)
    }

    /// Writes the architecture file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        artifact::write_json(path, &serde_json::json!({ "architecture": self }))
    }

    /// Checks that the values fit each other.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the key.
    pub fn check(&self) -> Result<()> {
        self.faults().map_err(|(key, what)| Error::invalid(format!("{key}: {what}"), REMEDY))
    }

    /// The first key whose value cannot be built, and why.
    fn faults(&self) -> Result<(), (&'static str, String)> {
        let positive = [
            ("num_layers", self.num_layers),
            ("hidden_dim", self.hidden_dim),
            ("num_heads", self.num_heads),
            ("vocab_size", self.vocab_size),
            ("max_seq_length", self.max_seq_length),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err((key, format!("{key} must be at least 1")));
            }
        }
        if !self.hidden_dim.is_multiple_of(self.num_heads) {
            let (hidden, heads) = (self.hidden_dim, self.num_heads);
            return Err(("num_heads", format!("hidden_dim {hidden} cannot be divided among num_heads {heads}")));
        }
        if self.position_encoding == PositionEncoding::Rope && !self.head_dim().is_multiple_of(2) {
            return Err(("num_heads", format!("rope turns pairs, but a head has {} dimensions", self.head_dim())));
        }
        if !(self.ffn_multiplier.is_finite() && self.ffn_dim() >= 1 && self.ffn_multiplier <= 64.0) {
            return Err(("ffn_multiplier", format!("ffn_multiplier {} gives no usable width", self.ffn_multiplier)));
        }
        for (key, p) in [("attention_dropout", self.attention_dropout), ("residual_dropout", self.residual_dropout)] {
            if !(0.0..1.0).contains(&p) {
                return Err((key, format!("{key} {p} is no probability below 1")));
            }
        }
        if self.pruning_ratio != 0.0 {
            return Err(("pruning_ratio", format!("pruning_ratio {} was never built; only 0 is", self.pruning_ratio)));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(("norm_eps", format!("norm_eps {} is not in (0, 1)", self.norm_eps)));
        }
        if !(self.rope_theta > 1.0 && self.rope_theta.is_finite()) {
            return Err(("rope_theta", format!("rope_theta {} is not above 1", self.rope_theta)));
        }
        Ok(())
    }

    /// Dimensions of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_dim / self.num_heads
    }

    /// Width of the MLP: `round(hidden_dim × ffn_multiplier)`, gated or not. A gated `fc1` has twice as many rows, so
    /// that GEGLU and SwiGLU cost half as many parameters again as their plain forms.
    pub fn ffn_dim(&self) -> usize {
        (self.hidden_dim as f64 * self.ffn_multiplier).round() as usize
    }

    /// Rows of `fc1`.
    pub fn fc1_dim(&self) -> usize {
        if self.activation.is_gated() { 2 * self.ffn_dim() } else { self.ffn_dim() }
    }
}
