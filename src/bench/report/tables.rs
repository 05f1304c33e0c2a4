//! The same numbers as rows of text, Markdown and polars tables.

use polars::prelude::{Column, DataFrame};

use crate::bench::pass_at_k::Interval;
use crate::bench::report::summary::OUTCOMES;
use crate::bench::report::{CheckpointResult, EvaluationRecord, Protocol, V1Result, outcome_name};
use crate::bench::run::Attempt;
use crate::error::Result;

/// Header and rows: one measure a row, one checkpoint a column; what matters most comes first. A name ends with what its
/// interval resamples: tasks, for what to expect of other tasks, or the attempts at these.
pub fn checkpoint_rows(record: &EvaluationRecord) -> Vec<Vec<String>> {
    let both = [&record.before, &record.after];
    let mut rows = vec![row("measure [95 % interval]", both.map(|result| result.name.clone()))];
    let mut add = |name: &str, value: &dyn Fn(&CheckpointResult) -> String| rows.push(row(name, both.map(value)));
    add("pass@1 [over tasks]", &|result| percent(&result.pass_at_1));
    add("pass@10 [over tasks]", &|result| result.pass_at_10.as_ref().map_or("–".into(), percent));
    add("pass@1 of the likeliest sample [over tasks]", &|result| {
        result.pass_at_1_likeliest.as_ref().map_or("–".into(), percent)
    });
    add("expected to solve with one sample [over attempts]", &|result| {
        let Interval { estimate, low, high, .. } = result.expected_solved;
        format!("{estimate:.1} of {} [{low:.1}, {high:.1}]", result.tasks.len())
    });
    add("solved at least once", &|result| format!("{} of {}", result.solved_once, result.tasks.len()));
    let earlier = [&record.v1_before, &record.v1_after].map(earlier_protocol);
    rows.push(row("earlier protocol: solved [over tasks]", earlier));
    let mut add = |name: &str, value: &dyn Fn(&CheckpointResult) -> String| rows.push(row(name, both.map(value)));
    add("valid syntax [over attempts]", &|result| percent(&result.syntax_valid));
    add("non-trivial body [over attempts]", &|result| percent(&result.non_trivial));
    add("collapsed [over attempts]", &|result| percent(&result.collapsed));
    let there = |name: &&str| both.iter().any(|result| result.outcomes.contains_key(*name));
    for outcome in OUTCOMES.iter().filter(|name| there(name)) {
        let name = format!("attempts: {}", outcome.replace('_', " "));
        add(&name, &|result| result.outcomes.get(*outcome).unwrap_or(&0).to_string());
    }
    add("tokens/s", &|result| format!("{:.0}", result.tokens_per_second));
    add("distinct 4-grams", &|result| format!("{:.1} %", 100.0 * result.shape.distinct_4));
    add("white space", &|result| format!("{:.1} %", 100.0 * result.shape.whitespace));
    add("mean longest repetition: words and signs", &|result| format!("{:.1}", result.shape.repeated_pieces));
    add("mean longest repetition: characters", &|result| format!("{:.1}", result.shape.repeated_characters));
    add("words said twice in a row, a completion", &|result| format!("{:.2}", result.shape.stuttered_words));
    rows
}

/// What the earlier attempt's protocol solved, and how far its draws lie apart.
fn earlier_protocol(v1: &V1Result) -> String {
    if v1.draws.is_empty() {
        return "not drawn".into();
    }
    let Interval { estimate, low, high, .. } = v1.solved;
    let solved = || v1.draws.iter().map(|draw| draw.solved);
    let draws = match v1.draws.len() {
        1..=5 => format!("draws {}", solved().map(|count| count.to_string()).collect::<Vec<_>>().join(", ")),
        many => format!("{many} draws, {} to {}", solved().min().unwrap_or(0), solved().max().unwrap_or(0)),
    };
    format!("{estimate:.1} of {} [{low:.1}, {high:.1}]; {draws}", v1.tasks)
}

/// Header and rows: one task a row.
pub fn task_rows(record: &EvaluationRecord) -> Vec<Vec<String>> {
    let mut rows = vec![row("task", [&record.before, &record.after].map(|result| result.name.clone()))];
    for (before, after) in record.before.tasks.iter().zip(&record.after.tasks) {
        rows.push(row(
            &before.function,
            [before, after].map(|task| format!("{}/{} {}", task.c, task.n, percent(&task.pass_at_1))),
        ));
    }
    rows
}

fn row(name: &str, values: [String; 2]) -> Vec<String> {
    std::iter::once(name.to_string()).chain(values).collect()
}

/// `12.3 % [4.5, 20.1]`.
pub(super) fn percent(interval: &Interval) -> String {
    let Interval { estimate, low, high, .. } = interval.scaled(100.0);
    format!("{estimate:.1} % [{low:.1}, {high:.1}]")
}

/// A difference of shares in points: `+11.2 points [-0.8, +24.7]`.
pub(super) fn points(difference: &Interval) -> String {
    let Interval { estimate, low, high, .. } = difference.scaled(100.0);
    format!("{estimate:+.1} points [{low:+.1}, {high:+.1}]")
}

/// How completions were drawn, in words.
pub(super) fn protocol_words(protocol: &Protocol) -> String {
    let Protocol { template, samples, temperature, top_k, top_p, max_new_tokens, seed, .. } = protocol;
    let mut words = vec![
        format!("template {template}"),
        format!("{samples} samples a task"),
        format!("temperature {temperature}"),
        format!("at most {max_new_tokens} tokens"),
        format!("seed {seed}"),
    ];
    // What filters nothing is not worth a word.
    let filters = [
        (*top_k != 0, format!("top-k {top_k}")),
        (*top_p != 1.0, format!("top-p {top_p}")),
        (protocol.min_p != 0.0, format!("min-p {}", protocol.min_p)),
        (protocol.repetition_penalty != 1.0, format!("repetition penalty {}", protocol.repetition_penalty)),
        (protocol.best_of != 1, format!("each sample the likeliest of {}", protocol.best_of)),
        (protocol.eight_bits, "matrices in eight bits".into()),
        (!protocol.stop.is_empty(), format!("stops at {:?}", protocol.stop)),
    ];
    words.extend(filters.into_iter().filter(|(used, _)| *used).map(|(_, filter)| filter));
    words.join(", ")
}

/// The measurement in Markdown: what changed, the checkpoints' table, the tasks' table, and how it was measured.
pub fn markdown(record: &EvaluationRecord) -> String {
    let table = |rows: Vec<Vec<String>>| {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = format!("|{}\n", "---|".repeat(rows[0].len()));
        let body: String = rows[1..].iter().map(|row| line(row)).collect();
        format!("{}{rule}{body}", line(&rows[0]))
    };
    let (change, test) = (&record.change, &record.self_test);
    let mut page = format!(
        "# Benchmark: {}\n\npass@1 changed by {} (paired permutation test: p = {:.4}).\n\n",
        record.benchmark,
        points(&change.difference),
        change.p_value
    );
    for (what, names) in [("Better", &change.better), ("Worse", &change.worse)] {
        if !names.is_empty() {
            page.push_str(&format!("{what} after: {}.\n\n", names.join(", ")));
        }
    }
    page.push_str(&format!("{}\n{}\n", table(checkpoint_rows(record)), table(task_rows(record))));
    page.push_str(&format!("Protocol: {}.\n\n", protocol_words(&record.protocol)));
    page.push_str(&format!(
        "Self-test: {} of {} canonical solutions passed, {} of {} corrupted ones.\n",
        test.canonical_passed, test.canonical, test.mutated_passed, test.mutated
    ));
    page
}

/// One task a row: function, samples, passes and pass rate of both checkpoints.
///
/// # Errors
/// [`Error::Table`](crate::Error::Table).
pub fn task_table(record: &EvaluationRecord) -> Result<DataFrame> {
    let functions: Vec<&str> = record.before.tasks.iter().map(|task| task.function.as_str()).collect();
    let counts = |result: &CheckpointResult| -> Vec<u32> { result.tasks.iter().map(|task| task.c as u32).collect() };
    let rates = |result: &CheckpointResult| -> Vec<f64> { result.tasks.iter().map(|t| t.pass_at_1.estimate).collect() };
    let samples: Vec<u32> = record.before.tasks.iter().map(|task| task.n as u32).collect();
    let columns = vec![
        Column::new("function".into(), functions),
        Column::new("samples".into(), samples),
        Column::new("passed before".into(), counts(&record.before)),
        Column::new("passed after".into(), counts(&record.after)),
        Column::new("pass rate before".into(), rates(&record.before)),
        Column::new("pass rate after".into(), rates(&record.after)),
    ];
    Ok(DataFrame::new(record.before.tasks.len(), columns)?)
}

/// One measure a row, the checkpoints beside each other, as text with intervals.
///
/// # Errors
/// [`Error::Table`](crate::Error::Table).
pub fn checkpoint_table(record: &EvaluationRecord) -> Result<DataFrame> {
    let rows = checkpoint_rows(record);
    let column = |index: usize| {
        let values: Vec<&str> = rows[1..].iter().map(|row| row[index].as_str()).collect();
        Column::new(rows[0][index].as_str().into(), values)
    };
    Ok(DataFrame::new(rows.len() - 1, (0..3).map(column).collect())?)
}

/// One attempt a row: task, sample, outcome, tests passed, tokens, finish, ln p and body.
///
/// # Errors
/// [`Error::Table`](crate::Error::Table).
pub fn attempt_table(attempts: &[Attempt]) -> Result<DataFrame> {
    let text = |value: &dyn Fn(&Attempt) -> String| attempts.iter().map(value).collect::<Vec<String>>();
    let number = |value: &dyn Fn(&Attempt) -> usize| attempts.iter().map(|a| value(a) as u32).collect::<Vec<u32>>();
    let likelihoods: Vec<f64> = attempts.iter().map(|attempt| attempt.log_likelihood).collect();
    let columns = vec![
        Column::new("task".into(), text(&|a| a.task.clone())),
        Column::new("sample".into(), number(&|a| a.sample)),
        Column::new("outcome".into(), text(&|a| outcome_name(&a.outcome).into())),
        Column::new("tests passed".into(), number(&|a| a.tests_passed)),
        Column::new("tests".into(), number(&|a| a.tests)),
        Column::new("tokens".into(), number(&|a| a.tokens)),
        Column::new("finish".into(), text(&|a| a.finish.name().into())),
        Column::new("ln p".into(), likelihoods),
        Column::new("body".into(), text(&|a| a.body.clone())),
    ];
    Ok(DataFrame::new(attempts.len(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gate_asks_for_stands_above_what_is_mostly_zero() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/figures/records/evaluation.json");
        let record: EvaluationRecord = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let rows = checkpoint_rows(&record);
        let place = |start: &str| rows.iter().position(|row| row[0].starts_with(start)).expect(start);
        assert!(place("earlier protocol") < place("valid syntax"));
        assert!(place("attempts: passed") < place("attempts: wrong answer"));
        assert!(place("attempts: wrong answer") < place("mean longest repetition"));
        let attempts = record.after.outcomes.values().sum::<usize>();
        let shown = rows.iter().filter(|row| row[0].starts_with("attempts: "));
        assert_eq!(shown.map(|row| row[2].parse::<usize>().unwrap()).sum::<usize>(), attempts, "no outcome is lost");
        // Whatever has an interval says over what.
        let (with, without): (Vec<_>, Vec<_>) = rows[1..].iter().partition(|row| row[1].contains('['));
        assert!(with.iter().all(|row| row[0].contains("[over ")) && !without.iter().any(|row| row[2].contains('[')));
    }
}
