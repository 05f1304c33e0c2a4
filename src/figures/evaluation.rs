//! Figures of phase 4, evaluation.

use std::collections::BTreeSet;
use std::iter;

use super::chart::{Bars, Chart, Plot};
use crate::bench::pass_at_k::Interval;
use crate::bench::report::{CheckpointResult, EvaluationRecord};

/// Every figure of the evaluation phase, in the order of the notebook.
pub fn all(record: &EvaluationRecord) -> Vec<Chart> {
    vec![pass_rate(record), tasks(record), outcomes(record), earlier_protocol(record)]
}

fn ends(interval: &Interval) -> (f64, f64) {
    (interval.low, interval.high)
}

/// pass@1 before and after, with intervals; pass@10 where ten samples of each task were drawn.
pub fn pass_rate(record: &EvaluationRecord) -> Chart {
    let of_ten = record.before.pass_at_10.is_some() && record.after.pass_at_10.is_some();
    let group = |result: &CheckpointResult| {
        let values: Vec<Interval> = iter::once(result.pass_at_1).chain(result.pass_at_10.filter(|_| of_ten)).collect();
        (
            (result.name.clone(), values.iter().map(|v| v.estimate).collect::<Vec<_>>()),
            values.iter().map(ends).collect::<Vec<_>>(),
        )
    };
    let (groups, intervals) = [&record.before, &record.after].map(group).into_iter().unzip();
    Chart {
        name: "evaluation-pass-rate".into(),
        title: "Does the adapter help on tasks it has never seen?".into(),
        caption: format!(
            "{} over {} tasks with {} samples each, with task-clustered 95 % intervals, in brackets behind the values. Paired permutation test of the change in pass@1: p = {:.3}.",
            if of_ten { "pass@1 and pass@10 (unbiased estimator)" } else { "pass@1" },
            record.before.tasks.len(),
            record.protocol.samples,
            record.change.p_value
        ),
        plot: Plot::Bars(Bars {
            x: "share of tasks solved".into(),
            labels: ["pass@1", "pass@10"].into_iter().take(1 + usize::from(of_ten)).map(String::from).collect(),
            groups,
            intervals,
            x_at_least: 1.0,
            percent: true,
            ..Bars::default()
        }),
    }
}

/// Pass rate of each task before and after.
pub fn tasks(record: &EvaluationRecord) -> Chart {
    let both = [&record.before, &record.after];
    let group = |result: &CheckpointResult| {
        (result.name.clone(), result.tasks.iter().map(|task| task.pass_at_1.estimate).collect::<Vec<_>>())
    };
    let of_tasks = |result: &CheckpointResult| result.tasks.iter().map(|task| ends(&task.pass_at_1)).collect();
    Chart {
        name: "evaluation-tasks".into(),
        title: "Which tasks are solved?".into(),
        caption: format!(
            "Share of {} samples that pass every test, for each task of the benchmark, with Wilson 95 % intervals: what the same task would give again.",
            record.protocol.samples
        ),
        plot: Plot::Bars(Bars {
            x: "samples that pass".into(),
            labels: record.before.tasks.iter().map(|task| task.function.clone()).collect(),
            groups: both.map(group).into(),
            intervals: both.map(of_tasks).into(),
            x_at_least: 1.0,
            percent: true,
            ..Bars::default()
        }),
    }
}

/// What became of every attempt.
pub fn outcomes(record: &EvaluationRecord) -> Chart {
    let both = [&record.before, &record.after];
    let kinds: BTreeSet<&String> = both.iter().flat_map(|result| result.outcomes.keys()).collect();
    let groups = both.map(|result| {
        let share = |kind: &&String| *result.outcomes.get(*kind).unwrap_or(&0) as f64 / result.attempts.max(1) as f64;
        (result.name.clone(), kinds.iter().map(share).collect())
    });
    Chart {
        name: "evaluation-outcomes".into(),
        title: "How do attempts end?".into(),
        caption: "Outcome of every attempt, as a share of all attempts of the checkpoint.".into(),
        plot: Plot::Bars(Bars {
            x: "share of attempts".into(),
            labels: kinds.iter().map(|kind| kind.replace('_', " ")).collect(),
            groups: groups.into(),
            percent: true,
            x_at_least: 1.0,
            ..Bars::default()
        }),
    }
}

/// The earlier attempt solved 0 of 20 tasks, drawn once: its upper end is 20 · (1 − 0.025^(1/20)) (Clopper–Pearson).
fn earlier_attempt() -> Interval {
    Interval { estimate: 0.0, low: 0.0, high: 20.0 * (1.0 - 0.025f64.powf(1.0 / 20.0)), n: 20 }
}

/// Tasks solved under the earlier attempt's protocol, beside what that attempt reached.
pub fn earlier_protocol(record: &EvaluationRecord) -> Chart {
    let rows = [
        ("earlier attempt", earlier_attempt()),
        ("base", record.v1_before.solved),
        ("base + LoRA", record.v1_after.solved),
    ];
    Chart {
        name: "evaluation-earlier-protocol".into(),
        title: "What would the earlier attempt's protocol have said?".into(),
        caption: format!(
            "Tasks of {} solved with one sample each, two worked examples before the prompt, temperature 0.8, top-k 40: mean over {} draws with 95 % intervals, in brackets behind the values. The earlier attempt drew once and solved none, which leaves an upper bound of 16.8 %.",
            record.v1_after.tasks,
            record.v1_after.draws.len()
        ),
        plot: Plot::Bars(Bars {
            x: "tasks solved".into(),
            labels: rows.iter().map(|(label, _)| label.to_string()).collect(),
            groups: vec![("solved".into(), rows.iter().map(|(_, solved)| solved.estimate).collect())],
            intervals: vec![rows.iter().map(|(_, solved)| ends(solved)).collect()],
            x_at_least: record.v1_after.tasks as f64,
            digits: Some(1),
            ..Bars::default()
        }),
    }
}
