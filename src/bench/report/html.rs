//! One self-contained page: no script, no link, nothing loaded. Everything a model wrote is escaped.

use std::fmt::Write;

use crate::bench::pass_at_k::Interval;
use crate::bench::report::highlight::{escape, highlight};
use crate::bench::report::tables::{checkpoint_rows, task_rows};
use crate::bench::report::{EvaluationRecord, outcome_name};
use crate::bench::run::Attempt;
use crate::data::task::Task;

/// Attempts shown for each task and checkpoint: every outcome once, the likeliest completion of each.
const SHOWN: usize = 4;

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#262626}
table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ddd;padding:.25em .8em;text-align:left}
td.number{text-align:right;font-variant-numeric:tabular-nums}
pre{background:#f6f6f6;padding:.6em .8em;border-radius:4px;overflow-x:auto;margin:.4em 0;font-size:13px}
.given{opacity:.55}.k{color:#7a2a8c;font-weight:600}.s{color:#00694f}.c{color:#6b6b6b;font-style:italic}.n{color:#1f4e9c}
.badge{display:inline-block;border-radius:4px;padding:0 .5em;color:#fff;background:#7a5600}
.badge.passed{background:#00694f}.badge.wrong_answer,.badge.collapsed{background:#a01c1c}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1em}@media(max-width:50em){.pair{grid-template-columns:1fr}}
summary{cursor:pointer}.message{white-space:pre-wrap;font:13px monospace;color:#a01c1c;margin:.2em 0}";

/// The page of a measurement: what was found, by task and checkpoint, and a gallery of attempts with the failing test.
pub fn html_page(record: &EvaluationRecord, tasks: &[Task], before: &[Attempt], after: &[Attempt]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Benchmark: {title}</title><style>{STYLE}</style></head><body>\n\
         <h1>Benchmark: {title}</h1>\n",
        title = escape(&record.benchmark)
    );
    summary(&mut page, record);
    table(&mut page, "Checkpoints", &checkpoint_rows(record));
    table(&mut page, "Tasks", &task_rows(record));
    page.push_str("<h2>Attempts</h2>\n");
    page.push_str(
        "<p>The body is everything a model wrote up to the first line that begins in column zero; white space at the end is \
         dropped, nothing is repaired. Pale: the prompt. For each task every outcome is shown once, by its likeliest \
         completion.</p>\n",
    );
    for (index, task) in tasks.iter().enumerate() {
        let counts = |result: &crate::bench::report::CheckpointResult| {
            result.tasks.get(index).map_or(String::new(), |task| format!("{}/{}", task.c, task.n))
        };
        let (b, a) = (counts(&record.before), counts(&record.after));
        let _ = write!(
            page,
            "<details><summary><b>{}</b>: {b} before, {a} after</summary><div class=\"pair\">",
            escape(&task.entry_point)
        );
        for (name, attempts) in [(&record.before.name, before), (&record.after.name, after)] {
            let _ = write!(page, "<div><h4>{}</h4>", escape(name));
            gallery(&mut page, task, attempts);
            page.push_str("</div>");
        }
        page.push_str("</div></details>\n");
    }
    page.push_str("</body></html>\n");
    page
}

fn summary(page: &mut String, record: &EvaluationRecord) {
    let (change, protocol, test) = (&record.change, &record.protocol, &record.self_test);
    let _ = write!(
        page,
        "<p>pass@1 changed by {} from {} to {} (paired permutation test over tasks: p = {:.4}).</p>\n\
         <p>Protocol: template <code>{}</code>, {} samples a task, temperature {}, top-k {}, top-p {}, at most {} tokens, \
         seed {}.</p>\n\
         <p>Self-test: {} of {} canonical solutions passed, {} of {} corrupted ones.</p>\n",
        interval(&change.difference),
        interval(&record.before.pass_at_1),
        interval(&record.after.pass_at_1),
        change.p_value,
        escape(&protocol.template),
        protocol.samples,
        protocol.temperature,
        protocol.top_k,
        protocol.top_p,
        protocol.max_new_tokens,
        protocol.seed,
        test.canonical_passed,
        test.canonical,
        test.mutated_passed,
        test.mutated,
    );
    for (what, names) in [("Better", &change.better), ("Worse", &change.worse)] {
        if !names.is_empty() {
            let _ = writeln!(page, "<p>{what} after: {}.</p>", escape(&names.join(", ")));
        }
    }
    for layer in record.protections.iter().filter(|layer| layer.missing.is_some()) {
        let why = layer.missing.as_deref().unwrap_or_default();
        let _ = writeln!(page, "<p>Missing protection {}: {}.</p>", escape(&layer.name), escape(why));
    }
}

fn table(page: &mut String, title: &str, rows: &[Vec<String>]) {
    let _ = write!(page, "<h2>{}</h2>\n<table>", escape(title));
    for (index, row) in rows.iter().enumerate() {
        page.push_str("<tr>");
        for (column, text) in row.iter().enumerate() {
            let text = escape(text);
            let _ = match (index, column) {
                (0, _) => write!(page, "<th>{text}</th>"),
                (_, 0) => write!(page, "<td>{text}</td>"),
                _ => write!(page, "<td class=\"number\">{text}</td>"),
            };
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn gallery(page: &mut String, task: &Task, attempts: &[Attempt]) {
    let mut own: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.task == task.id).collect();
    own.sort_by(|a, b| b.log_likelihood.total_cmp(&a.log_likelihood));
    let mut shown: Vec<&str> = Vec::new();
    for attempt in own {
        let outcome = outcome_name(&attempt.outcome);
        if shown.contains(&outcome) || shown.len() == SHOWN {
            continue;
        }
        shown.push(outcome);
        let text = if attempt.body.is_empty() { &attempt.completion } else { &attempt.body };
        let _ = write!(
            page,
            "<p><span class=\"badge {outcome}\">{outcome}</span> {}/{} tests, {}, {} tokens, ln p = {:.1}</p>\
             <pre><span class=\"given\">{}</span>{}</pre>",
            attempt.tests_passed,
            attempt.tests,
            attempt.finish.name(),
            attempt.tokens,
            attempt.log_likelihood,
            highlight(&task.prompt),
            highlight(text),
        );
        if !attempt.message.is_empty() {
            let _ = write!(page, "<div class=\"message\">{}</div>", escape(&attempt.message));
        }
    }
}

/// `12.3 % [4.5, 20.1]`.
fn interval(interval: &Interval) -> String {
    let Interval { estimate, low, high, .. } = interval.scaled(100.0);
    format!("{estimate:.1} % [{low:.1}, {high:.1}]")
}
