//! The team's page: `decisions.md`, with room for a person's name, date and remark under every gate.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::decide::{DecisionRecord, Remark, fails, shown, threshold};
use crate::experiment::{GateConfig, Rule};

const NAME: &str = "- Name:";
const DATE: &str = "- Date:";
const REMARK: &str = "- Remark:";
const GONE: &str = "# Remarks on gates that are no longer declared";

/// The page as Markdown. What a person wrote into it is found again by [`parse_remarks`].
pub fn render(record: &DecisionRecord) -> String {
    let mut page = format!("# Decisions: {}\n\n{}\n\n", record.experiment, record.question);
    let _ = writeln!(
        page,
        "Overall: **{}**. The gates were declared in the experiment file before the run; ",
        record.overall().name()
    );
    page.push_str("a gate passes only when its whole 95 % interval clears the threshold.\n\n");
    page.push_str("Write your name, date and remark under a gate; they are kept when the page is written again.\n\n");
    page.push_str("| gate | value | rule | verdict |\n|---|---|---|---|\n");
    for decision in &record.decisions {
        let (gate, value) = (&decision.gate, &decision.value);
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            cell(&gate.name),
            shown(&gate.metric, value),
            rule(gate),
            decision.verdict.name()
        );
    }
    if !record.missed.is_empty() {
        let _ = writeln!(page, "\nQuality limits missed, which no gate judges: {}.", record.missed.join("; "));
    }
    for decision in &record.decisions {
        let (gate, value) = (&decision.gate, &decision.value);
        let _ = writeln!(page, "\n## {}\n", gate.name);
        let _ = writeln!(page, "Verdict: **{}**. {}\n", decision.verdict.name(), decision.action);
        let _ = writeln!(
            page,
            "`{}` is {}; the rule is {}. {}.",
            gate.metric,
            shown(&gate.metric, value),
            rule(gate),
            gate.reason
        );
        if let Some(needed) = decision.still_needed() {
            let _ = writeln!(page, "{needed}");
        }
        let _ = writeln!(page, "\nEvidence: `{}`, SHA-256 `{}`.\n", decision.evidence.file, decision.evidence.sha256);
        page.push_str(&room(decision.remark.as_ref()));
    }
    if !record.earlier_remarks.is_empty() {
        let _ = writeln!(page, "\n{GONE}");
    }
    for (gate, remark) in &record.earlier_remarks {
        let _ = writeln!(page, "\n## {gate}\n\n{}", room(Some(remark)));
    }
    page
}

/// What persons wrote under the gates of a page, by gate name. A remark may go over several lines and hold headings of its
/// own; it ends where the next gate's room for a name begins, or the part of the gates that are gone.
pub fn parse_remarks(page: &str) -> BTreeMap<String, Remark> {
    let mut remarks = BTreeMap::new();
    let mut sections: Vec<String> = Vec::new();
    for part in page.split("\n## ").skip(1) {
        match sections.last_mut() {
            Some(before) if !part.lines().any(|line| line.starts_with(NAME)) => *before += &format!("\n## {part}"),
            _ => sections.push(part.to_string()),
        }
    }
    for section in &sections {
        let (gate, rest) = section.split_once('\n').unwrap_or((section, ""));
        let rest = rest.split(&format!("\n{GONE}")).next().unwrap_or_default();
        let field = |mark: &str| rest.lines().find_map(|line| line.strip_prefix(mark)).unwrap_or_default().trim();
        let text = rest.split_once(&format!("\n{REMARK}")).map_or("", |(_, text)| text.trim());
        let remark = Remark { name: field(NAME).into(), date: field(DATE).into(), remark: text.into() };
        if !(remark.name.is_empty() && remark.date.is_empty() && remark.remark.is_empty()) {
            remarks.insert(gate.trim().to_string(), remark);
        }
    }
    remarks
}

fn room(remark: Option<&Remark>) -> String {
    let line = |mark: &str, text: Option<&String>| {
        format!("{mark} {}", text.map_or("", String::as_str)).trim_end().to_string()
    };
    let name = line(NAME, remark.map(|r| &r.name));
    let date = line(DATE, remark.map(|r| &r.date));
    let text = line(REMARK, remark.map(|r| &r.remark));
    format!("{name}\n{date}\n{text}\n")
}

fn rule(gate: &GateConfig) -> String {
    let words = match gate.rule {
        Rule::AtLeast => "at least",
        Rule::AtMost => "at most",
    };
    let passes = format!("{words} {}", threshold(&gate.metric, gate.threshold));
    if gate.fail_below.is_none() { passes } else { format!("{passes}, fails {}", fails(gate)) }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pass_at_k::Interval;
    use crate::decide::{Decision, Evidence, Verdict};

    fn record(gates: &[&str]) -> DecisionRecord {
        let decision = |name: &&str| Decision {
            gate: GateConfig {
                name: name.to_string(),
                metric: "data.verified".into(),
                rule: Rule::AtMost,
                threshold: 0.05,
                fail_below: Some(0.1),
                reason: "because".into(),
                on_pass: "go".into(),
                on_fail: "stop".into(),
            },
            value: Interval { estimate: 0.03, low: 0.0100001, high: 0.07, n: 100 },
            verdict: Verdict::Inconclusive,
            more_needed: Some(300),
            unit: "samples".into(),
            action: "collect more".into(),
            evidence: Evidence { file: "figures/records/data.json".into(), sha256: "ab".into() },
            remark: None,
        };
        DecisionRecord {
            digest: "d".into(),
            experiment: "quick".into(),
            question: "Does it?".into(),
            decisions: gates.iter().map(decision).collect(),
            missed: vec!["duplicate rate 0.221 is above 0.150".into()],
            earlier_remarks: BTreeMap::new(),
        }
    }

    #[test]
    fn a_persons_words_survive() {
        let mut first = record(&["enough | samples", "no collapse"]);
        assert!(parse_remarks(&render(&first)).is_empty(), "an untouched page holds no remark");
        let page = render(&first).replacen(
            "- Name:\n- Date:\n- Remark:\n",
            "- Name: Ada\n- Date: 2026-03-01\n- Remark: Looked at ten by hand.\n\n# As follows\n\n## By hand\n  All fine, see - Name: below.\n",
            1,
        );
        let remarks = parse_remarks(&page);
        assert_eq!(remarks.len(), 1);
        let ada = &remarks["enough | samples"];
        assert_eq!((ada.name.as_str(), ada.date.as_str()), ("Ada", "2026-03-01"));
        assert!(ada.remark.starts_with("Looked at ten") && ada.remark.ends_with("below."));
        first.decisions[0].remark = Some(ada.clone());
        assert_eq!(parse_remarks(&render(&first)), remarks, "and the run after that");
        let mut later = record(&["no collapse"]);
        later.earlier_remarks = remarks.clone();
        assert_eq!(parse_remarks(&render(&later)), remarks, "even when the gate is gone");
    }

    #[test]
    fn the_page_says_what_was_judged() {
        let page = render(&record(&["no collapse"]));
        for part in [
            "0.03 [0.01, 0.07]",
            "at most 0.05, fails above 0.1",
            "no gate judges: duplicate rate 0.221",
            "**inconclusive**",
            "About 300 more samples beside the 100",
            "SHA-256 `ab`",
            "because.",
        ] {
            assert!(page.contains(part), "{part} is missing from\n{page}");
        }
    }
}
