//! Estimate and rule give a verdict. Knows no tensors.
//!
//! A gate stands in the experiment file before the run. It passes only when the whole interval of its metric clears the
//! threshold: an estimate alone proves nothing.

mod metric;
mod page;
mod shown;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bench::pass_at_k::Interval;
use crate::experiment::{GateConfig, Rule};

pub use metric::find;
pub use page::{parse_remarks, render};
pub use shown::{fails, shown, threshold};

/// What the gates said; written as `records/decisions.json` and `decisions.json` of the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Digest of the experiment's sections that this depends on.
    pub digest: String,
    /// The experiment's name.
    pub experiment: String,
    /// The question the experiment answers.
    pub question: String,
    /// Every gate, in the file's order.
    pub decisions: Vec<Decision>,
    /// Quality limits that the data misses, in words. No gate rests on them; they call for a person's judgement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<String>,
    /// Remarks on gates that are no longer declared, by gate name; a person's word is never dropped.
    #[serde(default)]
    pub earlier_remarks: BTreeMap<String, Remark>,
}

impl DecisionRecord {
    /// The whole walk's verdict: fail when a gate fails, else inconclusive when one is, else pass.
    pub fn overall(&self) -> Verdict {
        let verdicts: Vec<Verdict> = self.decisions.iter().map(|decision| decision.verdict).collect();
        let worst = [Verdict::Fail, Verdict::Inconclusive].into_iter().find(|verdict| verdicts.contains(verdict));
        worst.unwrap_or(Verdict::Pass)
    }
}

/// One gate, judged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decision {
    /// The gate as it was declared before the run.
    pub gate: GateConfig,
    /// The metric's value; `low` = `high` = `estimate` for a count.
    pub value: Interval,
    /// The judgement.
    pub verdict: Verdict,
    /// Observations beyond those made that would settle an inconclusive verdict, if the estimate stays; absent when no
    /// number would.
    pub more_needed: Option<usize>,
    /// What is observed, in the plural: `tasks`, `samples`, ….
    #[serde(default)]
    pub unit: String,
    /// What follows, from the gate.
    pub action: String,
    /// The file the metric was read from.
    pub evidence: Evidence,
    /// A person's word on it; survives re-runs.
    #[serde(default)]
    pub remark: Option<Remark>,
}

impl Decision {
    /// What would settle an inconclusive verdict, as a sentence; nothing for the others.
    pub fn still_needed(&self) -> Option<String> {
        if self.verdict != Verdict::Inconclusive {
            return None;
        }
        let exact = self.value.low == self.value.high;
        let unit = if self.unit.is_empty() { "observations" } else { &self.unit };
        let one = unit.trim_end_matches('s');
        Some(match self.more_needed {
            Some(1) if exact => format!("1 more {one} is needed."),
            Some(more) if exact => format!("{more} more {unit} are needed."),
            Some(more) => {
                let more = about(more);
                let unit = if more == 1 { one } else { unit };
                format!("About {more} more {unit} beside the {} would settle it if the estimate stays.", self.value.n)
            }
            None if exact => "It lies between the two thresholds: a person must choose.".into(),
            None => format!("More {unit} alone would not settle it: the estimate lies between the two thresholds."),
        })
    }
}

/// Two significant digits: the number rests on an estimate, and does not bear more.
fn about(number: usize) -> usize {
    let unit = 10usize.pow(number.max(1).ilog10().saturating_sub(1));
    (number + unit / 2) / unit * unit
}

/// The judgement of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval clears the threshold.
    Pass,
    /// The interval lies on the wrong side of the failing threshold.
    Fail,
    /// Neither.
    Inconclusive,
}

impl Verdict {
    /// `pass`, `fail` or `inconclusive`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// A file and what it held when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Path relative to the project's root.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// A person's word on a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// Who.
    pub name: String,
    /// When, as written by the person.
    pub date: String,
    /// What.
    pub remark: String,
}

/// Holds a value against a gate: the verdict, and for an inconclusive one how many more observations would settle it.
pub fn judge(gate: &GateConfig, value: &Interval) -> (Verdict, Option<usize>) {
    // Seen from the gate, larger is better: "at most" is "at least" on the mirrored axis.
    let sign = match gate.rule {
        Rule::AtLeast => 1.0,
        Rule::AtMost => -1.0,
    };
    let (estimate, threshold) = (sign * value.estimate, sign * gate.threshold);
    let failing = sign * gate.fail_below.unwrap_or(gate.threshold);
    let (low, high) = match gate.rule {
        Rule::AtLeast => (value.low, value.high),
        Rule::AtMost => (-value.high, -value.low),
    };
    if low >= threshold {
        return (Verdict::Pass, None);
    }
    if high < failing {
        return (Verdict::Fail, None);
    }
    let whole = |number: f64| number == number.trunc();
    let more = if low == high {
        // Of a count that must be large the difference is missing; another number does not change by looking again.
        let counted = gate.rule == Rule::AtLeast && whole(estimate) && whole(threshold);
        counted.then_some((threshold - estimate) as usize)
    } else {
        // An interval shrinks with the square root of the observations. Between the two thresholds nothing settles it.
        let (distance, half) = if estimate >= threshold {
            (estimate - threshold, estimate - low)
        } else {
            (failing - estimate, high - estimate)
        };
        let needed = value.n as f64 * (half / distance).powi(2);
        (distance > 0.0 && needed.is_finite())
            .then(|| needed.ceil() as usize)
            // Where the interval touches the threshold already, one more may do.
            .map(|needed| needed.saturating_sub(value.n).max(1))
    };
    (Verdict::Inconclusive, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(rule: Rule, threshold: f64, fail_below: Option<f64>) -> GateConfig {
        GateConfig {
            name: "g".into(),
            metric: "m".into(),
            rule,
            threshold,
            fail_below,
            reason: String::new(),
            on_pass: "go".into(),
            on_fail: "stop".into(),
        }
    }

    fn interval(low: f64, estimate: f64, high: f64, n: usize) -> Interval {
        Interval { estimate, low, high, n }
    }

    #[test]
    fn the_plans_decision_point() {
        let gate = gate(Rule::AtLeast, 500.0, Some(400.0));
        let verdict = |count| judge(&gate, &Interval::exact(count));
        assert_eq!(verdict(500.0), (Verdict::Pass, None));
        assert_eq!(verdict(499.0), (Verdict::Inconclusive, Some(1)));
        assert_eq!(verdict(400.0), (Verdict::Inconclusive, Some(100)));
        assert_eq!(verdict(399.0), (Verdict::Fail, None));
        let loss = self::gate(Rule::AtLeast, 0.05, Some(0.0));
        assert_eq!(judge(&loss, &Interval::exact(0.04)), (Verdict::Inconclusive, None), "a loss is no count");
    }

    #[test]
    fn an_interval_must_clear_the_threshold() {
        let at_least = gate(Rule::AtLeast, 0.5, None);
        assert_eq!(judge(&at_least, &interval(0.5, 0.6, 0.7, 100)).0, Verdict::Pass);
        assert_eq!(judge(&at_least, &interval(0.3, 0.4, 0.49, 100)).0, Verdict::Fail);
        // Half-width 0.2 at 100 observations, distance 0.1: four times as many are needed.
        assert_eq!(judge(&at_least, &interval(0.4, 0.6, 0.8, 100)), (Verdict::Inconclusive, Some(300)));
        assert_eq!(judge(&at_least, &interval(0.2, 0.4, 0.6, 100)), (Verdict::Inconclusive, Some(300)));
        assert_eq!(judge(&at_least, &interval(0.4, 0.5, 0.6, 100)), (Verdict::Inconclusive, None));
        assert_eq!(judge(&at_least, &interval(0.3, 0.4, 0.5, 100)), (Verdict::Inconclusive, Some(1)), "it touches");
        let partial = gate(Rule::AtLeast, 5.0, Some(1.0));
        assert_eq!(judge(&partial, &interval(2.0, 3.0, 4.0, 400)), (Verdict::Inconclusive, None), "between the two");
        let at_most = gate(Rule::AtMost, 0.05, Some(0.1));
        assert_eq!(judge(&at_most, &interval(0.0, 0.01, 0.05, 400)).0, Verdict::Pass);
        assert_eq!(judge(&at_most, &interval(0.11, 0.2, 0.3, 400)).0, Verdict::Fail);
        assert_eq!(judge(&at_most, &interval(0.04, 0.07, 0.12, 400)), (Verdict::Inconclusive, None));
        assert_eq!(judge(&at_most, &interval(0.01, 0.03, 0.07, 100)), (Verdict::Inconclusive, Some(300)));
    }

    fn decision(verdict: Verdict) -> Decision {
        Decision {
            gate: gate(Rule::AtLeast, 1.0, None),
            value: Interval::exact(1.0),
            verdict,
            more_needed: None,
            unit: String::new(),
            action: String::new(),
            evidence: Evidence { file: String::new(), sha256: String::new() },
            remark: None,
        }
    }

    #[test]
    fn what_is_needed_is_said_in_good_english() {
        let needed = |value, more| {
            let (unit, more_needed) = ("tasks".into(), Some(more));
            Decision { value, unit, more_needed, ..decision(Verdict::Inconclusive) }.still_needed().unwrap()
        };
        let wide = interval(0.0, 0.1, 0.2, 20);
        assert_eq!(needed(Interval::exact(499.0), 1), "1 more task is needed.");
        assert_eq!(needed(Interval::exact(498.0), 2), "2 more tasks are needed.");
        assert!(needed(wide, 1).starts_with("About 1 more task beside the 20"));
        assert!(needed(wide, 35_712).starts_with("About 36000 more tasks"));
        assert_eq!(decision(Verdict::Pass).still_needed(), None);
    }

    #[test]
    fn the_walk_is_as_good_as_its_worst_gate() {
        let record = |verdicts: &[Verdict]| DecisionRecord {
            digest: String::new(),
            experiment: String::new(),
            question: String::new(),
            decisions: verdicts.iter().map(|verdict| decision(*verdict)).collect(),
            missed: Vec::new(),
            earlier_remarks: BTreeMap::new(),
        };
        assert_eq!(record(&[Verdict::Pass, Verdict::Pass]).overall(), Verdict::Pass);
        assert_eq!(record(&[Verdict::Pass, Verdict::Inconclusive]).overall(), Verdict::Inconclusive);
        assert_eq!(record(&[Verdict::Fail, Verdict::Inconclusive]).overall(), Verdict::Fail);
    }
}
