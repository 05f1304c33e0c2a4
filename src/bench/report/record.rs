//! The record of phase 4, from which tables, figures and gates are made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bench::pass_at_k::Interval;
use crate::sandbox::Protection;

/// What phase 4 measured; written as `records/evaluation.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Digest of the experiment's sections that this depends on.
    pub digest: String,
    /// The task file, relative to the project's root.
    pub benchmark: String,
    /// SHA-256 of the task file.
    pub benchmark_sha256: String,
    /// SHA-256 of every file the measurement depends on, by what it is: `base`, `adapter`, `tokenizer`, ….
    pub inputs: BTreeMap<String, String>,
    /// How completions were drawn.
    pub protocol: Protocol,
    /// The base model.
    pub before: CheckpointResult,
    /// The adapted model, on the same tasks with the same seeds.
    pub after: CheckpointResult,
    /// After against before, paired by task.
    pub change: Comparison,
    /// The earlier attempt's protocol on the base model.
    pub v1_before: V1Result,
    /// The earlier attempt's protocol on the adapted model.
    pub v1_after: V1Result,
    /// Whether the harness can tell right from wrong.
    pub self_test: SelfTest,
    /// The layers of the sandbox, present or missing.
    pub protections: Vec<Protection>,
    /// Wall time of the phase in seconds.
    pub seconds: f64,
}

/// How completions were drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Prompt template.
    pub template: String,
    /// Samples per task.
    pub samples: usize,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Kept tokens; 0 means all.
    pub top_k: usize,
    /// Kept probability mass.
    pub top_p: f64,
    /// Kept share of the likeliest token's probability; 0 means all.
    #[serde(default)]
    pub min_p: f64,
    /// Divisor of the logits of tokens that occurred before; 1 changes nothing.
    #[serde(default = "one")]
    pub repetition_penalty: f64,
    /// Strings that end a completion, besides the end of the function.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Candidates behind every sample, of which the likeliest was taken; 1 means no choice.
    #[serde(default = "single")]
    pub best_of: usize,
    /// Whether the matrices were rounded to eight bits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eight_bits: bool,
    /// Most tokens in a completion.
    pub max_new_tokens: usize,
    /// The seed.
    pub seed: u64,
}

fn one() -> f64 {
    1.0
}

fn single() -> usize {
    1
}

/// One checkpoint on one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointResult {
    /// E.g. `base` or `base + LoRA`.
    pub name: String,
    /// Every task, in the file's order.
    pub tasks: Vec<TaskResult>,
    /// Attempts in all.
    pub attempts: usize,
    /// Mean over tasks of pass@1, with the task-clustered 95 % interval: what to expect of *other* tasks like these.
    pub pass_at_1: Interval,
    /// Mean over tasks of pass@10, likewise; absent with fewer than 10 samples a task.
    pub pass_at_10: Option<Interval>,
    /// Mean over tasks of whether the sample with the highest mean ln p per token passes, likewise: what the model answers when
    /// it may choose among its samples by its own likelihood (Chen et al. 2021, section 3.3). Absent with one sample a task,
    /// or where the likelihoods are not known.
    #[serde(default)]
    pub pass_at_1_likeliest: Option<Interval>,
    /// Expected number of *these* tasks solved with one sample each, Σ c/n; Wilson's interval over attempts, which errs on the
    /// safe side.
    pub expected_solved: Interval,
    /// Tasks solved by at least one sample.
    pub solved_once: usize,
    /// Attempts by outcome name, e.g. `passed`, `wrong_answer`, `exception`.
    pub outcomes: BTreeMap<String, usize>,
    /// Attempts by finish reason.
    pub finishes: BTreeMap<String, usize>,
    /// Share of attempts that hold a statement, compile and are not collapsed, with Wilson's 95 % interval. (White space
    /// alone would compile: a docstring is a body.)
    pub syntax_valid: Interval,
    /// Share of attempts with a non-trivial body.
    pub non_trivial: Interval,
    /// Share of attempts called collapsed.
    pub collapsed: Interval,
    /// Means of the collapse measures.
    pub shape: ShapeSummary,
    /// Tokens written.
    pub tokens: usize,
    /// Seconds the sampling took.
    pub generation_seconds: f64,
    /// Sampling speed; 0 when every attempt was in the log already.
    pub tokens_per_second: f64,
    /// Seconds from the first prompt to the last verdict; execution overlaps sampling.
    pub seconds: f64,
}

/// One task under one checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task's id.
    pub id: String,
    /// The function under test.
    pub function: String,
    /// Samples.
    pub n: usize,
    /// Samples that passed.
    pub c: usize,
    /// c/n with Wilson's 95 % interval.
    pub pass_at_1: Interval,
    /// Samples by outcome name.
    pub outcomes: BTreeMap<String, usize>,
}

/// Two checkpoints on the same tasks, paired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Mean over tasks of pass@1 after − before, with the task-clustered 95 % interval.
    pub difference: Interval,
    /// Two-sided p-value of the paired permutation test over tasks.
    pub p_value: f64,
    /// Tasks whose pass rate rose.
    pub better: Vec<String>,
    /// Tasks whose pass rate fell.
    pub worse: Vec<String>,
    /// Tasks whose pass rate stayed.
    pub same: Vec<String>,
}

/// The earlier attempt's protocol: one sample per task, drawn several times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct V1Result {
    /// How completions were drawn; `samples` is 1.
    pub protocol: Protocol,
    /// One run of the protocol each.
    pub draws: Vec<Draw>,
    /// Tasks in the benchmark.
    pub tasks: usize,
    /// Tasks solved per draw, mean over draws, with the task-clustered 95 % interval.
    pub solved: Interval,
}

/// One run of the earlier protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// Which draw, from 0; part of every generator's name.
    pub draw: usize,
    /// Tasks solved.
    pub solved: usize,
    /// solved/tasks with Wilson's 95 % interval: what one run alone can say.
    pub share: Interval,
}

/// Means of the collapse measures over attempts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ShapeSummary {
    /// Mean of the pieces covered by back-to-back repetition.
    pub repeated_pieces: f64,
    /// Mean of the characters covered by back-to-back repetition inside a word.
    #[serde(default)]
    pub repeated_characters: f64,
    /// Mean number of words that directly follow themselves.
    #[serde(default)]
    pub stuttered_words: f64,
    /// Mean share of distinct 4-grams of words and signs.
    pub distinct_4: f64,
    /// Mean share of white space.
    pub whitespace: f64,
}

/// The harness measured on answers that are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// Canonical solutions tried.
    pub canonical: usize,
    /// Of these, passed: all must.
    pub canonical_passed: usize,
    /// Mutated solutions tried.
    pub mutated: usize,
    /// Of these, passed: none may.
    pub mutated_passed: usize,
    /// Canonical solutions that the thresholds of [`crate::bench::collapse`] take for collapsed text: false alarms.
    #[serde(default)]
    pub false_alarms: usize,
    /// Ids of the tasks that were judged wrongly.
    pub faults: Vec<String>,
}
