//! One self-contained page: no script, no link outside, nothing loaded. Everything a model wrote is escaped.

mod charts;
mod gallery;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::bench::report::highlight::escape;
use crate::bench::report::tables::{checkpoint_rows, percent, points, protocol_words};
use crate::bench::report::{EvaluationRecord, outcome_name};
use crate::bench::run::Attempt;
use crate::data::task::Task;

const STYLE: &str = include_str!("style.css");

/// The page of a measurement: what was found, by checkpoint and by task, what changed, how it was measured, and a gallery
/// of attempts with the failing test.
pub fn html_page(record: &EvaluationRecord, tasks: &[Task], before: &[Attempt], after: &[Attempt]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>Benchmark: {title}</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>Benchmark: {title}</h1>\n",
        title = escape(&record.benchmark)
    );
    summary(&mut page, record);
    charts::outcomes(&mut page, [&record.before, &record.after]);
    charts::tasks(&mut page, record);
    changes(&mut page, before, after);
    page.push_str("<h2>Every measure</h2>\n");
    table(&mut page, &checkpoint_rows(record));
    method(&mut page, record);
    gallery::write(&mut page, record, tasks, [before, after]);
    page.push_str("</body></html>\n");
    page
}

fn summary(page: &mut String, record: &EvaluationRecord) {
    let (before, after, change) = (&record.before, &record.after, &record.change);
    let _ = writeln!(
        page,
        "<p><b>{}</b> solves {} at pass@1, <b>{}</b> {}: a change of {} (paired permutation test over {} tasks: \
         p = {:.3}). Brackets hold 95 % intervals.</p>",
        escape(&before.name),
        percent(&before.pass_at_1),
        escape(&after.name),
        percent(&after.pass_at_1),
        points(&change.difference),
        before.tasks.len(),
        change.p_value,
    );
}

/// What became of the same task and sample, drawn with the same seed, under the other checkpoint.
fn changes(page: &mut String, before: &[Attempt], after: &[Attempt]) {
    let then: BTreeMap<(&str, usize), &Attempt> = before.iter().map(|a| ((a.task.as_str(), a.sample), a)).collect();
    let mut moves: BTreeMap<[&str; 2], usize> = BTreeMap::new();
    for attempt in after {
        let Some(earlier) = then.get(&(attempt.task.as_str(), attempt.sample)) else { continue };
        let names = [outcome_name(&earlier.outcome), outcome_name(&attempt.outcome)];
        if names[0] != names[1] {
            *moves.entry(names).or_default() += 1;
        }
    }
    let moved: usize = moves.values().sum();
    let _ = write!(
        page,
        "<h2>What changed</h2>\n<p>The same task and sample with the same seed, before and after: {moved} of {} attempts \
         ended differently.</p>\n",
        after.len()
    );
    let mut moves: Vec<_> = moves.into_iter().collect();
    moves.sort_by_key(|(names, count)| (std::cmp::Reverse(*count), *names));
    let badge = |name: &str| format!("<span class=\"badge {name}\">{}</span>", name.replace('_', " "));
    if !moves.is_empty() {
        page.push_str("<table><tr><th>before</th><th>after</th><th class=\"number\">attempts</th></tr>\n");
        for ([from, to], count) in moves {
            let (from, to) = (badge(from), badge(to));
            let _ = writeln!(page, "<tr><td>{from}</td><td>{to}</td><td class=\"number\">{count}</td></tr>");
        }
        page.push_str("</table>\n");
    }
}

fn method(page: &mut String, record: &EvaluationRecord) {
    let test = &record.self_test;
    let _ = write!(
        page,
        "<h2>How it was measured</h2>\n<p>Protocol: {}.</p>\n\
         <p>The body is everything a model wrote up to the first line that begins in column zero and is no closing bracket; \
         white space at the end is dropped, nothing is repaired. The program that is run is prompt and body; it has passed \
         when every test held, proven by a secret number that the tests' process gives away at the end.</p>\n\
         <p>Self-test: {} of {} canonical solutions passed, {} of {} corrupted ones; {} canonical solutions were taken for \
         collapsed text.</p>\n",
        escape(&protocol_words(&record.protocol)),
        test.canonical_passed,
        test.canonical,
        test.mutated_passed,
        test.mutated,
        test.false_alarms,
    );
    let missing: Vec<_> = record.protections.iter().filter(|layer| layer.missing.is_some()).collect();
    let in_force: Vec<&str> =
        record.protections.iter().filter(|layer| layer.missing.is_none()).map(|layer| layer.name.as_str()).collect();
    let _ = writeln!(page, "<p>Protections in force: {}.</p>", escape(&in_force.join(", ")));
    for layer in missing {
        let why = layer.missing.as_deref().unwrap_or_default();
        let _ = writeln!(page, "<p>Missing protection {}: {}.</p>", escape(&layer.name), escape(why));
    }
}

fn table(page: &mut String, rows: &[Vec<String>]) {
    page.push_str("<div class=\"wide\"><table>");
    for (index, row) in rows.iter().enumerate() {
        page.push_str("<tr>");
        for (column, text) in row.iter().enumerate() {
            let text = escape(text);
            let _ = match (index, column) {
                (0, 0) => write!(page, "<th>{text}</th>"),
                (0, _) => write!(page, "<th class=\"number\">{text}</th>"),
                (_, 0) => write!(page, "<td>{text}</td>"),
                _ => write!(page, "<td class=\"number\">{text}</td>"),
            };
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}
