//! The sections `[[gate]]`, declared before the run.

use serde::{Deserialize, Serialize};

/// A gate: a metric, a rule, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Short name, e.g. `enough verified samples`.
    pub name: String,
    /// The metric, e.g. `data.verified` or `bench.after.pass_at_1`.
    pub metric: String,
    /// How the metric is held against the threshold.
    pub rule: Rule,
    /// The threshold.
    pub threshold: f64,
    /// Below this the verdict is `fail`, from here to the threshold `inconclusive`; absent: the threshold itself.
    #[serde(default)]
    pub fail_below: Option<f64>,
    /// Why this threshold.
    pub reason: String,
    /// What to do when it passes.
    pub on_pass: String,
    /// What to do when it fails.
    pub on_fail: String,
}

/// How a metric is held against its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The metric, or the lower end of its interval, is at least the threshold.
    AtLeast,
    /// The metric, or the upper end of its interval, is at most the threshold.
    AtMost,
}
