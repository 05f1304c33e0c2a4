//! The section `[bench]`: how a checkpoint is measured.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::defaults::{is, is_once, once, one};
use super::optimizer::Compute;

/// How a checkpoint is measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchConfig {
    /// Task file.
    pub benchmark: PathBuf,
    /// Samples per task.
    pub samples: usize,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens with this probability mass; 1 keeps all.
    pub top_p: f64,
    /// Most tokens in a completion.
    pub max_new_tokens: usize,
    /// Prompt template: a name from [`crate::bench::tasks`].
    pub template: String,
    /// Seconds a program may run.
    pub time_limit_s: f64,
    /// Adapter folder to measure, in place of the run's own.
    #[serde(default)]
    pub adapter: Option<PathBuf>,
    /// Where completions are sampled, always in f32; absent: on the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// Round the matrices to eight bits, a scale a row, before sampling: on the processor only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eight_bits: bool,
    /// Keep tokens with at least this share of the likeliest token's probability; 0 keeps all.
    #[serde(default, skip_serializing_if = "is::<0>")]
    pub min_p: f64,
    /// Divides the logits of tokens that occurred before; 1 changes nothing.
    #[serde(default = "one", skip_serializing_if = "is::<1>")]
    pub repetition_penalty: f64,
    /// Strings that end a completion, besides the end of the function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Candidates drawn for every sample; the one with the highest mean ln p per token is the sample. 1 chooses nothing.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub best_of: usize,
    /// How often the earlier protocol's single sample is drawn, beside the declared protocol; 0 leaves it out.
    #[serde(default = "usual_v1_draws", skip_serializing_if = "is_usual")]
    pub v1_draws: usize,
}

/// Five draws: one alone says little, and five cost a quarter of the declared protocol's twenty samples.
fn usual_v1_draws() -> usize {
    5
}

fn is_usual(draws: &usize) -> bool {
    *draws == usual_v1_draws()
}
