//! The section `[base]`: the model that is adapted, and how it is made.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::defaults::{is_false, is_once, once};
use super::optimizer::{Compute, OptimizerConfig};

/// The base model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseConfig {
    /// Folder with `arch.json`, `tokenizer.json` and `model.safetensors`.
    pub folder: PathBuf,
    /// Architecture file in place of the folder's.
    #[serde(default)]
    pub arch: Option<PathBuf>,
    /// Tokenizer in place of the folder's.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// Weights in place of the folder's: `.safetensors`, or a PyTorch `.pt`.
    #[serde(default)]
    pub checkpoint: Option<PathBuf>,
    /// How the base is pre-trained; absent when it is only used.
    #[serde(default)]
    pub pretrain: Option<PretrainConfig>,
}

/// How a base model is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Architecture file.
    pub arch: PathBuf,
    /// Folder of a base whose weights and vocabulary training goes on from; absent: from fresh weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Size of the byte-level BPE vocabulary to train, or 0 to use `tokenizer.json` in the base folder.
    pub vocabulary: usize,
    /// Share of tokens drawn from raw code, in [0, 1]; the rest comes from exercises and docstring pairs.
    pub raw_share: f64,
    /// Share of tokens drawn from (signature + docstring → body) pairs of real code.
    pub pair_share: f64,
    /// Distinct exercises to generate.
    pub exercises: usize,
    /// Files of families they are drawn from, without `.toml`; empty: all of `data/exercises`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exercise_files: Vec<String>,
    /// Recipe of packages whose code joins the standard library's; see `data/corpus.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
    /// Folders of Python files that join it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<PathBuf>,
    /// Whether tests among those files are kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_tests: bool,
    /// Micro-batches summed into one step; `batch_size` sequences are divided among them.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub accumulation: usize,
    /// The device and the type of floats it computes in; the weights themselves are always f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// How the base folder keeps the weights.
    #[serde(default, skip_serializing_if = "Stored::is_f16")]
    pub stored: Stored,
    /// Optimiser settings.
    #[serde(flatten)]
    pub optimizer: OptimizerConfig,
    /// Sequences in a step.
    pub batch_size: usize,
    /// Tokens in a sequence.
    pub context: usize,
    /// Label smoothing ε: the target keeps 1 − ε, the rest is spread over the vocabulary.
    pub label_smoothing: f64,
    /// Steps between evaluations.
    pub eval_every: usize,
}

/// In what a base's weights lie on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stored {
    /// Two bytes a weight.
    #[default]
    F16,
    /// One byte a weight, a scale a row; see [`crate::model::quantize`].
    Int8,
}

impl Stored {
    fn is_f16(&self) -> bool {
        *self == Self::F16
    }
}
