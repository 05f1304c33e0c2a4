//! The section `[data]`: what phase 1 collects, what it rejects, how it divides the rest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A family of rows that phase 1 collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// HumanEval, from the external folder.
    Humaneval,
    /// MBPP, from the external folder.
    Mbpp,
    /// Our own tasks in HumanEval's schema.
    EmbeddedHumaneval,
    /// Our own tasks in MBPP's schema.
    EmbeddedMbpp,
    /// Generated exercises.
    Exercises,
    /// Samples made elsewhere, from [`DataConfig::import`].
    Imported,
}

impl Source {
    /// The name used in files and tables, e.g. `embedded_mbpp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Humaneval => "humaneval",
            Self::Mbpp => "mbpp",
            Self::EmbeddedHumaneval => "embedded_humaneval",
            Self::EmbeddedMbpp => "embedded_mbpp",
            Self::Exercises => "exercises",
            Self::Imported => "imported",
        }
    }
}

/// Phase 1: what is collected, what is rejected, how it is split.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The sources, in the order of precedence among duplicates.
    pub sources: Vec<Source>,
    /// How many exercises to generate.
    #[serde(default)]
    pub exercises: usize,
    /// Files of families they are drawn from, without `.toml`; empty: all of `data/exercises`.
    #[serde(default)]
    pub exercise_files: Vec<String>,
    /// JSONL of samples made elsewhere, in the raw schema of `v2_raw`.
    #[serde(default)]
    pub import: Option<PathBuf>,
    /// Seconds a sample's tests may take.
    pub time_limit_s: f64,
    /// Longest body, in lines.
    pub max_body_lines: usize,
    /// Longest sample: prompt + solution + EOS, in tokens of the base's vocabulary.
    pub max_tokens: usize,
    /// Largest cyclomatic complexity of a "simple" sample.
    pub max_complexity: usize,
    /// Most distinct names that a "simple" sample binds: parameters, variables, functions.
    #[serde(default = "many_names")]
    pub max_names: usize,
    /// Modules a sample may import; empty: all of Python's standard library.
    #[serde(default)]
    pub dependencies: Vec<String>,
    /// Similarity (Jaccard, token 5-grams) from which two samples are near-duplicates.
    pub near_duplicate: f64,
    /// Vocabulary that counts the tokens; absent: `tokenizer.json` of the base folder.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// Task files besides the benchmark whose functions must not be training data either.
    #[serde(default)]
    pub keep_out: Vec<PathBuf>,
    /// What a good collection must reach; when it does not, a worklist for curation by hand is written.
    #[serde(default)]
    pub quality: QualityLimits,
    /// How the verified samples are divided.
    pub split: SplitConfig,
}

fn many_names() -> usize {
    20
}

/// What a good collection must reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityLimits {
    /// Least share of converted rows that pass their own tests.
    pub verified_rate: f64,
    /// Largest share of verified samples that repeat an earlier one.
    pub duplicate_rate: f64,
    /// Largest share of verified samples that repeat the benchmark.
    pub contaminated_rate: f64,
}

impl Default for QualityLimits {
    /// 95 % verified; 15 % duplicates and 15 % contaminated, both about twice what the public datasets show.
    fn default() -> Self {
        Self { verified_rate: 0.95, duplicate_rate: 0.15, contaminated_rate: 0.15 }
    }
}

/// How the verified samples are divided.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// Which rows may train.
    pub plan: SplitPlan,
    /// Most samples in train; 0 means no limit.
    pub train: usize,
    /// Samples in validation.
    pub validation: usize,
}

/// Which rows may train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitPlan {
    /// The earlier attempt's plan: HumanEval and all of MBPP in one pot, stratified by source. Nothing is held out.
    Pooled,
    /// HumanEval + MBPP 1–10 and 511–974 train; validation from MBPP 11–70; MBPP 71–510 held out.
    Honest,
}
