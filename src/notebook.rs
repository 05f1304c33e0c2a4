//! How results show themselves in a notebook; the only file that knows evcxr.
//!
//! evcxr shows a value by calling its inherent method `evcxr_display`, which prints the content between two marker
//! lines. The text inherits the page's colours, so tables read in light and dark themes alike.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use polars::prelude::{AnyValue, DataFrame, df};

use crate::bench::report::{escape, highlight};
use crate::bench::twins::{Twin, TwinsRecord};
use crate::decide::{Decision, DecisionRecord, Verdict};
use crate::error::Result;
use crate::experiment::{Experiment, Rule};
use crate::figures::chart::Chart;
use crate::figures::{Figure, draw};
use crate::model::audit::{AuditRecord, Finding};
use crate::phases::base_model::BaseRecord;
use crate::phases::lora::{AdaptedLayer, LoraRecord};
use crate::train::metrics::{EvaluationRow, GeneratedCheck, TrainingRecord};

/// Rows of a table shown at once; the rest folds away.
const ROWS: usize = 14;

/// A fragment of HTML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Html(pub String);

impl Html {
    /// Shows the fragment in a notebook.
    pub fn evcxr_display(&self) {
        content("text/html", &self.0);
    }
}

impl Figure {
    /// Shows the figure in a notebook, as SVG and as PNG; the reader takes what it can show best.
    pub fn evcxr_display(&self) {
        content("image/svg+xml", &self.svg);
        content("image/png", &STANDARD.encode(&self.png));
    }
}

impl DecisionRecord {
    /// Shows the gates and their verdicts in a notebook.
    pub fn evcxr_display(&self) {
        verdicts(self).evcxr_display();
    }
}

fn content(mime: &str, body: &str) {
    println!("EVCXR_BEGIN_CONTENT {mime}\n{body}\nEVCXR_END_CONTENT");
}

/// Draws a chart for display: `show(&figures::data::decision(&record))?`.
///
/// # Errors
/// As [`draw`].
pub fn show(chart: &Chart) -> Result<Figure> {
    draw(chart)
}

/// A table as HTML: numbers to the right, long tables folded.
pub fn table(frame: &DataFrame) -> Html {
    let columns = frame.columns();
    let mut head = String::new();
    for column in columns {
        let align = if column.dtype().is_primitive_numeric() { "right" } else { "left" };
        let _ = write!(head, "<th style=\"text-align:{align}\">{}</th>", escape(column.name()));
    }
    let row = |index: usize| {
        let mut cells = String::new();
        for column in columns {
            let value = column.get(index).unwrap_or(AnyValue::Null);
            let numeric = column.dtype().is_primitive_numeric();
            let align = if numeric { "right" } else { "left" };
            let _ = write!(cells, "<td style=\"text-align:{align}\">{}</td>", escape(&cell(&value)));
        }
        format!("<tr>{cells}</tr>")
    };
    let rows = |range: std::ops::Range<usize>| range.map(row).collect::<String>();
    let height = frame.height();
    let open = format!("<table><thead><tr>{head}</tr></thead><tbody>");
    let shown = rows(0..height.min(ROWS));
    let mut html = format!("{open}{shown}</tbody></table>");
    if height > ROWS {
        let rest = rows(ROWS..height);
        let more = height - ROWS;
        let _ = write!(html, "<details><summary>{more} more rows</summary>{open}{rest}</tbody></table></details>");
    }
    Html(html)
}

/// A cell's text: at most four significant decimals, nothing for a missing value.
fn cell(value: &AnyValue) -> String {
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Float64(number) => short(*number),
        AnyValue::Float32(number) => short(f64::from(*number)),
        AnyValue::String(text) => (*text).to_string(),
        other => other.to_string(),
    }
}

fn short(number: f64) -> String {
    let digits = if number == number.trunc() { 0 } else { (3 - number.abs().log10().floor() as i32).clamp(1, 6) };
    format!("{number:.*}", digits as usize)
}

/// What is known of the base: shape, size, training.
///
/// # Errors
/// As the table library.
pub fn base(record: &BaseRecord) -> Result<Html> {
    let arch = &record.arch;
    let mut rows = vec![
        ("layers".to_string(), arch.num_layers.to_string()),
        ("hidden size".into(), arch.hidden_dim.to_string()),
        ("heads".into(), arch.num_heads.to_string()),
        ("vocabulary".into(), record.vocabulary.to_string()),
        ("context (tokens)".into(), arch.max_seq_length.to_string()),
        ("parameters".into(), record.parameters.to_string()),
    ];
    if let Some(pretraining) = &record.pretraining {
        rows.push(("tokens seen in pre-training".into(), pretraining.training.tokens_seen.to_string()));
        for loss in &pretraining.held_out {
            rows.push((format!("held-out loss, {} (nats/token)", loss.source), short(loss.nats_per_token)));
        }
    }
    let (names, values): (Vec<String>, Vec<String>) = rows.into_iter().unzip();
    Ok(table(&df!("property" => names, "value" => values)?))
}

/// What the audits found.
///
/// # Errors
/// As the table library.
pub fn findings(record: &AuditRecord) -> Result<Html> {
    let findings = record.findings();
    let column = |of: fn(&Finding) -> String| findings.iter().map(of).collect::<Vec<_>>();
    Ok(table(&df!(
        "audit" => column(|finding| finding.audit.clone()),
        "verdict" => column(|finding| if finding.sound { "✓ sound" } else { "✗ unsound" }.into()),
        "finding" => column(|finding| finding.says.clone()),
    )?))
}

/// The twins side by side: what each wrote for the same prompt.
pub fn twins(record: &TwinsRecord, index: usize) -> Html {
    let side = |twin: &Twin| {
        let written = twin.written.get(index);
        written.map_or_else(|| Html(String::new()), |w| code(&format!("{}{}", w.prompt, w.completion), false))
    };
    beside(("with a mask", side(&record.masked)), ("without", side(&record.unmasked)))
}

/// What was proven of the adapter.
///
/// # Errors
/// As the table library.
pub fn proofs(record: &LoraRecord) -> Result<Html> {
    let proofs = &record.proofs;
    let yes = |holds: bool| if holds { "✓ yes" } else { "✗ no" }.to_string();
    let rows = [
        ("a fresh adapter leaves every logit as it was, to the bit", yes(proofs.fresh_equals_base)),
        ("adapter tensors that get a gradient", format!("{} of {}", proofs.with_gradient, proofs.tensors)),
        ("gradient against finite differences, relative error", format!("{:.1e}", proofs.gradient_error)),
        ("merged against unmerged, largest difference of a logit", format!("{:.1e}", proofs.merge_error)),
        ("base weights unchanged after merging and unmerging, to the bit", yes(proofs.base_unchanged)),
    ];
    let (names, values): (Vec<&str>, Vec<String>) = rows.into_iter().unzip();
    Ok(table(&df!("proof" => names, "result" => values)?))
}

/// Trainable parameters by layer.
///
/// # Errors
/// As the table library.
pub fn layers(record: &LoraRecord) -> Result<Html> {
    let count = |of: fn(&AdaptedLayer) -> usize| record.layers.iter().map(|layer| of(layer) as u64).collect::<Vec<_>>();
    Ok(table(&df!(
        "layer" => record.layers.iter().map(|layer| layer.name.clone()).collect::<Vec<_>>(),
        "inputs" => count(|layer| layer.input),
        "outputs" => count(|layer| layer.output),
        "rank" => count(|layer| layer.rank),
        "trainable" => count(|layer| layer.parameters),
        "of the layer's weights" => record.layers.iter().map(|l| percent(l.parameters as f64 / (l.input * l.output) as f64)).collect::<Vec<_>>(),
    )?))
}

/// Every evaluation of a training run.
///
/// # Errors
/// As the table library.
pub fn evaluations(record: &TrainingRecord) -> Result<Html> {
    let rows = &record.evaluations;
    let loss = |of: fn(&EvaluationRow) -> f64| rows.iter().map(of).collect::<Vec<f64>>();
    let share = |of: fn(&GeneratedCheck) -> f64| {
        rows.iter().map(|row| row.generated.as_ref().map(|check| percent(of(check)))).collect::<Vec<Option<String>>>()
    };
    Ok(table(&df!(
        "step" => rows.iter().map(|row| row.step as u64).collect::<Vec<_>>(),
        "train loss (nats/token)" => loss(|row| row.train_loss),
        "validation loss" => loss(|row| row.validation_loss),
        "passes its tests" => share(|check| check.pass_rate),
        "parses" => share(|check| check.syntax_valid_rate),
        "collapsed" => share(|check| check.collapse_rate),
    )?))
}

/// The files that verdicts rest on.
///
/// # Errors
/// As the table library.
pub fn evidence(record: &DecisionRecord) -> Result<Html> {
    let column = |of: fn(&Decision) -> String| record.decisions.iter().map(of).collect::<Vec<_>>();
    Ok(table(&df!(
        "gate" => column(|decision| decision.gate.name.clone()),
        "metric" => column(|decision| decision.gate.metric.clone()),
        "file" => column(|decision| decision.evidence.file.clone()),
        "SHA-256, first 12 digits" => column(|decision| decision.evidence.sha256.chars().take(12).collect()),
    )?))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The gates that stand in the experiment file for one phase, as they were declared before the run.
pub fn gates(experiment: &Experiment, phase: &str) -> Html {
    let mut rows = String::new();
    for gate in experiment.config.gates.iter().filter(|gate| gate.metric.split('.').next() == Some(phase)) {
        let sign = match gate.rule {
            Rule::AtLeast => "≥",
            Rule::AtMost => "≤",
        };
        let _ = write!(
            rows,
            "<tr><td style=\"text-align:left\">{}</td><td style=\"text-align:left\"><code>{}</code> {sign} {}</td>\
             <td style=\"text-align:left\">{}</td></tr>",
            escape(&gate.name),
            escape(&gate.metric),
            short(gate.threshold),
            escape(&gate.reason),
        );
    }
    Html(format!(
        "<table><thead><tr><th style=\"text-align:left\">gate</th><th style=\"text-align:left\">rule</th>\
         <th style=\"text-align:left\">why</th></tr></thead><tbody>{rows}</tbody></table>"
    ))
}

/// Verdicts as badges: coloured for the eye, worded for the colour-blind.
pub fn verdicts(record: &DecisionRecord) -> Html {
    let mut rows = String::new();
    for decision in &record.decisions {
        let (word, color) = match decision.verdict {
            Verdict::Pass => ("✓ pass", "#00694f"),
            Verdict::Fail => ("✗ fail", "#a01c1c"),
            Verdict::Inconclusive => ("? inconclusive", "#7a5600"),
        };
        let badge = format!(
            "<span style=\"background:{color};color:#fff;border-radius:4px;padding:1px 8px;white-space:nowrap\">{word}</span>"
        );
        let value = &decision.value;
        let estimate = if value.low == value.high {
            short(value.estimate)
        } else {
            format!("{} [{}, {}]", short(value.estimate), short(value.low), short(value.high))
        };
        let _ = write!(
            rows,
            "<tr><td style=\"text-align:left\">{}</td><td>{badge}</td><td style=\"text-align:right\">{estimate}</td>\
             <td style=\"text-align:left\">{}</td></tr>",
            escape(&decision.gate.name),
            escape(&decision.action),
        );
    }
    Html(format!(
        "<table><thead><tr><th style=\"text-align:left\">gate</th><th>verdict</th>\
         <th style=\"text-align:right\">value [95 % interval]</th><th style=\"text-align:left\">what follows</th></tr></thead>\
         <tbody>{rows}</tbody></table>"
    ))
}

/// Text as it is, in a fixed-width font; `visible` shows tabs, carriage returns and trailing spaces.
pub fn code(text: &str, visible: bool) -> Html {
    let text = if visible { text.replace('\t', "→   ").replace('\r', "␍") } else { text.to_string() };
    let text = escape(&text).replace('→', "<mark>→</mark>").replace('␍', "<mark>␍</mark>");
    Html(format!("<pre style=\"padding:8px 12px;border-left:3px solid #888\">{text}</pre>"))
}

/// Python with its syntax coloured.
pub fn python(text: &str) -> Html {
    let classes = [("k", "font-weight:600"), ("s", "color:#2e8b6f"), ("c", "opacity:.65"), ("n", "color:#3f76c4")];
    // Inline styles, because a notebook's page has no style sheet of ours; the colours read on light and dark ground.
    let code = classes.iter().fold(highlight(text), |code, (class, style)| {
        code.replace(&format!("<span class=\"{class}\">"), &format!("<span style=\"{style}\">"))
    });
    Html(format!("<pre style=\"padding:8px 12px;border-left:3px solid #888\">{code}</pre>"))
}

/// Two texts side by side under their names.
pub fn beside(left: (&str, Html), right: (&str, Html)) -> Html {
    let side = |(name, html): (&str, Html)| {
        format!("<div style=\"flex:1;min-width:0\"><b>{}</b>{}</div>", escape(name), html.0)
    };
    Html(format!("<div style=\"display:flex;gap:24px;align-items:flex-start\">{}{}</div>", side(left), side(right)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_table_folds_and_aligns_numbers() {
        let numbers: Vec<i64> = (0..40).collect();
        let names: Vec<String> = numbers.iter().map(|n| format!("<{n}>")).collect();
        let html = table(&df!("name" => names, "count" => numbers).unwrap()).0;
        assert!(html.contains("26 more rows"));
        assert!(html.contains("text-align:right\">39<"));
        assert!(html.contains("&lt;7&gt;") && !html.contains("<7>"));
    }

    #[test]
    fn short_keeps_four_significant_digits() {
        assert_eq!(short(0.123_456), "0.1235");
        assert_eq!(short(12.0), "12");
        assert_eq!(short(1234.567), "1234.6");
        assert_eq!(short(0.0), "0");
    }

    #[test]
    fn hidden_characters_become_visible() {
        let html = code("a\tb\r\n<x>", true).0;
        assert!(html.contains("→") && html.contains("␍") && html.contains("&lt;x&gt;"));
    }
}
