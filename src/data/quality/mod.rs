//! The record of phase 1: everything its figures and its notebook show.

mod tables;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::duplicates::Cluster;
use crate::data::filter::Reason;
use crate::experiment::{QualityLimits, Source, SplitPlan};

/// What phase 1 found. Written as `data.json` among the records; holds counts and ids, never a dataset's text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// The experiment's name.
    pub name: String,
    /// Digest of the sections that phase 1 depends on.
    pub digest: String,
    /// SHA-256 over the written splits: two runs with the same value trained on the same rows.
    pub content_sha256: String,
    /// Rows that came in.
    pub read: usize,
    /// Rows that became a task with prompt and solution.
    pub converted: usize,
    /// Tasks that pass their own tests, and fail them with the body `return None`.
    pub verified: usize,
    /// Verified samples within the token limit.
    pub within_tokens: usize,
    /// Verified samples that contamination checks, filters and duplicates left.
    pub usable: usize,
    /// Samples in train.
    pub train: usize,
    /// Samples in validation.
    pub validation: usize,
    /// Tasks held out.
    pub held_out: usize,
    /// The same counts for each source, in the experiment's order.
    pub sources: Vec<SourceCounts>,
    /// What the earlier attempt reached: its converted MBPP samples that pass their own tests.
    pub earlier: EarlierAttempt,
    /// Rejected rows by reason and source.
    pub rejections: BTreeMap<Reason, BTreeMap<Source, usize>>,
    /// One entry for each converted row, in order.
    pub samples: Vec<SampleFacts>,
    /// Groups of two and more verified samples that repeat each other, within and across sources.
    pub clusters: Vec<Cluster>,
    /// The limits that the experiment sets, for the lines in the figures.
    pub limits: SimpleLimits,
    /// Which quality limits are missed, in words; empty when all hold.
    pub missed: Vec<String>,
    /// How the samples were divided.
    pub plan: SplitPlan,
    /// Seconds that each step took, in order.
    pub seconds: Vec<(String, f64)>,
}

/// Counts of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// The family of rows.
    pub source: Source,
    /// Rows that came in.
    pub read: usize,
    /// Rows that became a task.
    pub converted: usize,
    /// Tasks that pass their own tests.
    pub verified: usize,
    /// Verified samples within the token limit.
    pub within_tokens: usize,
    /// Samples left after all checks.
    pub usable: usize,
    /// Samples in train.
    pub train: usize,
    /// Samples in validation.
    pub validation: usize,
    /// Tasks held out.
    pub held_out: usize,
}

/// The earlier attempt's converted MBPP samples, counted by running their own tests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EarlierAttempt {
    /// Samples that pass.
    pub verified: usize,
    /// Samples converted.
    pub converted: usize,
}

/// Limits of a "simple" sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SimpleLimits {
    /// Tokens with EOS.
    pub tokens: usize,
    /// Body lines.
    pub body_lines: usize,
    /// Cyclomatic complexity.
    pub complexity: usize,
    /// Names bound.
    pub names: usize,
    /// Similarity from which two samples are near-duplicates, in [0, 1].
    pub near_duplicate: f64,
}

/// What became of a converted row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fate", content = "reason")]
pub enum Fate {
    /// In `v2_train.jsonl`.
    Train,
    /// In `v2_val.jsonl`.
    Validation,
    /// In `v2_held_out.jsonl`.
    HeldOut,
    /// In `rejects.jsonl`.
    Rejected(Reason),
}

/// Measurements of one converted row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleFacts {
    /// The task's id.
    pub id: String,
    /// The family of rows.
    pub source: Source,
    /// The source's own split, where it has one.
    pub official_split: Option<String>,
    /// Lines of the body, blank lines and comments not counted.
    pub body_lines: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the solution.
    pub solution_tokens: usize,
    /// Tokens of prompt, solution and EOS.
    pub total_tokens: usize,
    /// Words of the docstring.
    pub docstring_words: usize,
    /// Cyclomatic complexity (McCabe 1976) of the most complex function: 1 + branches.
    pub complexity: usize,
    /// Distinct names that the program binds: parameters, variables, functions.
    pub names: usize,
    /// Modules imported, by their first name, sorted.
    pub imports: Vec<String>,
    /// Those of them that Python's standard library does not hold.
    pub foreign_imports: Vec<String>,
    /// Whether the sample passes its tests.
    pub verified: bool,
    /// Seconds its tests took.
    pub seconds: f64,
    /// What became of it.
    #[serde(flatten)]
    pub fate: Fate,
}

/// The earlier attempt: 340 of its 879 converted MBPP samples pass their own tests (counted from its published files).
pub const EARLIER: EarlierAttempt = EarlierAttempt { verified: 340, converted: 879 };

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl DataRecord {
    /// Rows rejected for one reason, over all sources.
    pub fn rejected(&self, reason: Reason) -> usize {
        self.rejections.get(&reason).map_or(0, |by_source| by_source.values().sum())
    }

    /// Share of converted rows that pass their own tests, in [0, 1].
    pub fn verified_rate(&self) -> f64 {
        share(self.verified, self.converted)
    }

    /// Share of verified samples that repeat an earlier one, in [0, 1].
    pub fn duplicate_rate(&self) -> f64 {
        share(self.rejected(Reason::Duplicate), self.verified)
    }

    /// Share of verified samples that repeat the benchmark, in [0, 1].
    pub fn contaminated_rate(&self) -> f64 {
        let reasons = [Reason::BenchmarkName, Reason::BenchmarkTree, Reason::BenchmarkBehaviour];
        share(reasons.into_iter().map(|reason| self.rejected(reason)).sum(), self.verified)
    }

    /// The limits that this collection misses, in words.
    pub fn missed_limits(&self, limits: &QualityLimits) -> Vec<String> {
        let (verified, duplicates) = (self.verified_rate(), self.duplicate_rate());
        let mut missed = Vec::new();
        if verified < limits.verified_rate {
            missed.push(format!("verified rate {verified:.3} is below {:.3}", limits.verified_rate));
        }
        if duplicates > limits.duplicate_rate {
            missed.push(format!("duplicate rate {duplicates:.3} is above {:.3}", limits.duplicate_rate));
        }
        let contaminated = self.contaminated_rate();
        if contaminated > limits.contaminated_rate {
            missed.push(format!("contaminated rate {contaminated:.3} is above {:.3}", limits.contaminated_rate));
        }
        missed
    }

    /// The numbers that a gate can name, such as `data.verified`.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let counts = [
            ("read", self.read),
            ("converted", self.converted),
            ("verified", self.verified),
            ("within_tokens", self.within_tokens),
            ("usable", self.usable),
            ("train", self.train),
            ("validation", self.validation),
            ("held_out", self.held_out),
        ];
        let rates = [
            ("verified_rate", self.verified_rate()),
            ("duplicate_rate", self.duplicate_rate()),
            ("contaminated_rate", self.contaminated_rate()),
        ];
        let counts = counts.into_iter().map(|(name, count)| (name, count as f64));
        counts.chain(rates).map(|(name, value)| (format!("data.{name}"), value)).collect()
    }
}

impl Fate {
    /// The fate in words: the split, or the reason of the rejection.
    pub fn label(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::HeldOut => "held out",
            Self::Rejected(reason) => reason.label(),
        }
    }
}
