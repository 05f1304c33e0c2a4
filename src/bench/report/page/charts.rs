//! The page's pictures: outcomes as stacked bars, pass rates as bars with intervals.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::bench::pass_at_k::Interval;
use crate::bench::report::highlight::escape;
use crate::bench::report::summary::OUTCOMES;
use crate::bench::report::{CheckpointResult, EvaluationRecord, TaskResult};

/// Width and height of a rate's bar in pixels.
const BAR: (f64, f64) = (120.0, 14.0);

/// How the attempts of each checkpoint ended.
pub(super) fn outcomes(page: &mut String, results: [&CheckpointResult; 2]) {
    page.push_str("<h2>How attempts end</h2>\n");
    for result in results {
        let _ = write!(page, "<h3>{}: {} attempts</h3><div class=\"stack\">", escape(&result.name), result.attempts);
        for name in OUTCOMES {
            let count = *result.outcomes.get(name).unwrap_or(&0);
            let share = 100.0 * count as f64 / result.attempts.max(1) as f64;
            if count > 0 {
                // A narrow piece has no room for its number; the title has it.
                let label = if share >= 4.0 { count.to_string() } else { String::new() };
                let words = name.replace('_', " ");
                let _ = write!(
                    page,
                    "<span class=\"{name}\" style=\"width:{share:.2}%\" title=\"{words}: {count} ({share:.1} %)\">{label}</span>"
                );
            }
        }
        page.push_str("</div>\n");
    }
    page.push_str("<div class=\"legend\">");
    let there = |name: &&str| results.iter().any(|result| result.outcomes.contains_key(*name));
    for name in OUTCOMES.iter().filter(|name| there(name)) {
        let _ = write!(page, "<span><i class=\"{name}\"></i>{}</span>", name.replace('_', " "));
    }
    page.push_str("</div>\n");
}

/// Pass rates by task and checkpoint, with intervals, and what changed.
pub(super) fn tasks(page: &mut String, record: &EvaluationRecord) {
    let _ = write!(
        page,
        "<h2>Which tasks are solved</h2>\n<p class=\"note\">Share of samples that pass every test, with Wilson's 95 % \
         interval. A name leads to the attempts.</p>\n<div class=\"wide\"><table><tr><th>task</th><th>{}</th><th>{}</th>\
         <th class=\"number\">change in points</th></tr>\n",
        escape(&record.before.name),
        escape(&record.after.name),
    );
    let after: BTreeMap<&str, &TaskResult> = record.after.tasks.iter().map(|task| (task.id.as_str(), task)).collect();
    for before in &record.before.tasks {
        let Some(after) = after.get(before.id.as_str()) else { continue };
        let change = 100.0 * (after.pass_at_1.estimate - before.pass_at_1.estimate);
        let class = match change {
            change if change > 0.0 => " up",
            change if change < 0.0 => " down",
            _ => "",
        };
        let words = if change == 0.0 { "0".into() } else { format!("{change:+.0}") };
        let (id, name) = (escape(&before.id), escape(&before.function));
        let _ = writeln!(
            page,
            "<tr><td><a href=\"#{id}\"><code>{name}</code></a></td><td class=\"rate\">{}</td><td class=\"rate\">{}</td>\
             <td class=\"number{class}\">{words}</td></tr>",
            rate(before),
            rate(after),
        );
    }
    page.push_str("</table></div>\n");
}

/// A bar for the share, a line for its interval, and the counts.
fn rate(task: &TaskResult) -> String {
    let Interval { estimate, low, high, .. } = task.pass_at_1;
    let (width, height) = BAR;
    let (x, middle) = (|share: f64| width * share, height / 2.0);
    format!(
        "<svg width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{:.0} % [{:.0}, {:.0}]\">\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#f0f0ee\"/>\
         <rect width=\"{:.1}\" height=\"{height}\" fill=\"#7fb5a6\"/>\
         <path d=\"M{:.1} {middle}H{:.1}M{:.1} 4V{:.0}M{:.1} 4V{:.0}\" stroke=\"#262626\" fill=\"none\"/></svg>{}/{}",
        100.0 * estimate,
        100.0 * low,
        100.0 * high,
        x(estimate),
        x(low),
        x(high),
        x(low).max(0.5),
        height - 4.0,
        x(high).min(width - 0.5),
        height - 4.0,
        task.c,
        task.n,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::outcome_name;
    use crate::sandbox::Outcome;

    #[test]
    fn every_outcome_has_its_place() {
        let all = [
            Outcome::Passed,
            Outcome::WrongAnswer,
            Outcome::Exception(String::new()),
            Outcome::NameError,
            Outcome::SyntaxError,
            Outcome::Empty,
            Outcome::Collapsed,
            Outcome::TimedOut,
            Outcome::OutOfMemory,
        ];
        let style = include_str!("style.css");
        for name in all.iter().map(outcome_name) {
            assert!(OUTCOMES.contains(&name) && style.contains(&format!(".{name}{{")), "{name}");
        }
    }
}
