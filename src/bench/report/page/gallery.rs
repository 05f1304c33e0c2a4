//! Attempts to look at: for each task and checkpoint every outcome once, with the test that failed.

use std::fmt::Write;

use crate::bench::report::highlight::{escape, highlight};
use crate::bench::report::{CheckpointResult, EvaluationRecord, outcome_name};
use crate::bench::run::Attempt;
use crate::data::task::Task;

/// Attempts shown for each task and checkpoint: every outcome once, the likeliest completion of each.
const SHOWN: usize = 4;

/// Characters shown of a completion that goes on and on.
const LONGEST: usize = 2_000;

pub(super) fn write(page: &mut String, record: &EvaluationRecord, tasks: &[Task], attempts: [&[Attempt]; 2]) {
    page.push_str(
        "<h2>Attempts</h2>\n<p class=\"note\">For each task and checkpoint every outcome once, by its likeliest completion. \
         Below it: the test that failed, or the exception.</p>\n",
    );
    for task in tasks {
        let counts = |result: &CheckpointResult| {
            let own = result.tasks.iter().find(|own| own.id == task.id);
            own.map_or("–".to_string(), |own| format!("{}/{}", own.c, own.n))
        };
        let _ = write!(
            page,
            "<details><summary><b>{}</b> {} before, {} after</summary><div id=\"{}\"></div>\
             <pre class=\"prompt\">{}</pre><div class=\"pair\">",
            escape(&task.entry_point),
            counts(&record.before),
            counts(&record.after),
            escape(&task.id),
            highlight(task.prompt.trim_end()),
        );
        for (name, attempts) in [&record.before.name, &record.after.name].into_iter().zip(attempts) {
            let _ = write!(page, "<div><h3>{}</h3>", escape(name));
            column(page, task, attempts);
            page.push_str("</div>");
        }
        page.push_str("</div></details>\n");
    }
}

/// One checkpoint's attempts at one task.
fn column(page: &mut String, task: &Task, attempts: &[Attempt]) {
    let mut own: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.task == task.id).collect();
    own.sort_by(|a, b| b.log_likelihood.total_cmp(&a.log_likelihood));
    let mut shown: Vec<&str> = Vec::new();
    for attempt in own {
        let outcome = outcome_name(&attempt.outcome);
        if shown.contains(&outcome) || shown.len() == SHOWN {
            continue;
        }
        shown.push(outcome);
        let written = if attempt.body.is_empty() { &attempt.completion } else { &attempt.body };
        let code = match written.trim_end() {
            "" => "<span class=\"c\">nothing but white space</span>".to_string(),
            code => highlight(&shortened(code)),
        };
        let _ = write!(
            page,
            "<div class=\"attempt\"><span class=\"badge {outcome}\">{}</span> <span class=\"facts\">{}/{} tests · {} · {} \
             tokens · ln p = {:.1}</span><pre>{code}</pre>",
            outcome.replace('_', " "),
            attempt.tests_passed,
            attempt.tests,
            attempt.finish.name().replace('_', " "),
            attempt.tokens,
            attempt.log_likelihood,
        );
        if !attempt.message.is_empty() {
            let _ = write!(page, "<div class=\"message\">{}</div>", escape(&shortened(&attempt.message)));
        }
        page.push_str("</div>");
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}\n…", &text[..end]),
        None => text.to_string(),
    }
}
