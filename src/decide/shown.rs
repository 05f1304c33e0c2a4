//! How a gate's numbers are written: shares in percent, differences of shares in points, losses with their unit, and
//! everything else to three significant digits.

use crate::bench::pass_at_k::Interval;
use crate::experiment::{GateConfig, Rule};

/// What a metric measures, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A share in [0, 1].
    Share,
    /// A difference of shares.
    Points,
    /// Nats per token.
    Loss,
    /// A count, or something unknown.
    Number,
}

impl Kind {
    fn of(metric: &str) -> Self {
        // The ends of an interval are of its kind.
        let name = metric.rsplit('.').find(|part| !["estimate", "low", "high"].contains(part)).unwrap_or_default();
        let is_share = name.starts_with("pass_at_")
            || ["share", "_rate"].iter().any(|end| name.ends_with(end))
            || ["syntax_valid", "non_trivial", "collapsed", "distinct_4", "whitespace"].contains(&name);
        match name {
            _ if is_share => Self::Share,
            "difference" => Self::Points,
            _ if name.contains("loss") => Self::Loss,
            _ => Self::Number,
        }
    }
}

/// A metric's value with its interval, where it has one: `95.0 % [92.4, 96.7]`, `+11.2 points [+0.8, +24.7]`.
pub fn shown(metric: &str, value: &Interval) -> String {
    let kind = Kind::of(metric);
    let number = |value: f64| match kind {
        Kind::Share => decimal(100.0 * value),
        Kind::Points => signed(100.0 * value, decimal),
        Kind::Loss | Kind::Number => three_digits(value),
    };
    let estimate = with_unit(kind, number(value.estimate));
    if value.low == value.high {
        return estimate;
    }
    format!("{estimate} [{}, {}]", number(value.low), number(value.high))
}

/// A threshold as it was declared: `80 %`, `+1 point`, `500`.
pub fn threshold(metric: &str, value: f64) -> String {
    let kind = Kind::of(metric);
    let number = match kind {
        Kind::Share => three_digits(100.0 * value),
        Kind::Points => signed(100.0 * value, three_digits),
        Kind::Loss | Kind::Number => three_digits(value),
    };
    with_unit(kind, number)
}

/// Where a gate fails: `below 400`, or `above 20 %` where less is better. From there to the threshold it is inconclusive.
pub fn fails(gate: &GateConfig) -> String {
    let side = match gate.rule {
        Rule::AtLeast => "below",
        Rule::AtMost => "above",
    };
    format!("{side} {}", threshold(&gate.metric, gate.fail_below.unwrap_or(gate.threshold)))
}

fn with_unit(kind: Kind, number: String) -> String {
    match kind {
        Kind::Share => number + " %",
        Kind::Points if number == "+1" || number == "-1" => number + " point",
        Kind::Points => number + " points",
        Kind::Loss => number + " nats/token",
        Kind::Number => number,
    }
}

fn signed(value: f64, number: fn(f64) -> String) -> String {
    if value > 0.0 { format!("+{}", number(value)) } else { number(value) }
}

/// One decimal; more where that would say zero of what is not.
fn decimal(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.05 { three_digits(value) } else { format!("{value:.1}") }
}

fn three_digits(value: f64) -> String {
    // 100 · 0.15 is not quite 15.
    let whole = value.round();
    if (value - whole).abs() <= 1e-9 * whole.abs() {
        return format!("{whole}");
    }
    if value.abs() < 1e-3 {
        return format!("{value:.2e}");
    }
    let decimals = (2 - value.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_unit_that_their_metric_has() {
        let interval = |estimate, low, high| Interval { estimate, low, high, n: 20 };
        let difference = interval(0.1125, -0.0076, 0.2471);
        assert_eq!(shown("evaluation.change.difference", &difference), "+11.2 points [-0.8, +24.7]");
        let valid = interval(0.95, 0.924_036, 0.967_402);
        assert_eq!(shown("evaluation.after.syntax_valid", &valid), "95.0 % [92.4, 96.7]");
        assert_eq!(shown("evaluation.after.pass_at_1.low", &Interval::exact(0.0004)), "0.04 %");
        assert_eq!(shown("lora.trainable_share", &Interval::exact(0.046_081)), "4.6 %");
        assert_eq!(shown("training.validation_loss_fall", &Interval::exact(0.040_426)), "0.0404 nats/token");
        assert_eq!(shown("evaluation.after.expected_solved", &interval(14.63, 13.741, 15.47)), "14.6 [13.7, 15.5]");
        assert_eq!(shown("data.verified", &Interval::exact(1621.0)), "1621");
        assert_eq!(shown("base.pretraining.lr", &Interval::exact(1.24e-5)), "1.24e-5");
    }

    #[test]
    fn thresholds_are_as_they_were_declared() {
        assert_eq!(threshold("lora.trainable_share", 0.15), "15 %");
        assert_eq!(threshold("evaluation.change.difference", 0.01), "+1 point");
        assert_eq!(threshold("evaluation.change.difference", 0.0), "0 points");
        assert_eq!(threshold("data.duplicate_rate", 0.125), "12.5 %");
        assert_eq!(threshold("data.verified", 500.0), "500");
    }
}
