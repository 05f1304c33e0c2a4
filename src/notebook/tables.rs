//! Records as tables.

use polars::prelude::{Column, df};

use super::attempts::verdict;
use super::code::without_gaps;
use super::{Badge, Html, badge, beside, code, count, percent, python, rows_of, short, table};
use crate::bench::report::escape;
use crate::bench::twins::{Twin, TwinsRecord, Written};
use crate::decide::{Decision, DecisionRecord, Remark, Verdict, fails, shown, threshold};
use crate::error::Result;
use crate::experiment::{Experiment, GateConfig, Rule};
use crate::model::audit::{AuditRecord, Finding};
use crate::phases::base_model::BaseRecord;
use crate::phases::cost::Cost;
use crate::phases::lora::{AdaptedLayer, LoraRecord};
use crate::phases::memorise::MemoriseRecord;
use crate::phases::training::WrittenAt;
use crate::sandbox::Outcome;
use crate::train::metrics::{EvaluationRow, GeneratedCheck, TrainingRecord};

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
        ("parameters".into(), count(record.parameters)),
    ];
    if let Some(pretraining) = &record.pretraining {
        rows.push(("tokens seen in pre-training".into(), count(pretraining.tokens_seen())));
        for loss in &pretraining.held_out {
            rows.push((format!("held-out loss, {} (nats/token)", loss.source), short(loss.nats_per_token)));
        }
    }
    let (names, values): (Vec<String>, Vec<String>) = rows.into_iter().unzip();
    Ok(table(&df!("property" => names, "value" => values)?))
}

/// What the audits found.
pub fn findings(record: &AuditRecord) -> Html {
    let verdict = |sound| if sound { badge("✓ sound", Badge::Good) } else { badge("✗ unsound", Badge::Bad) };
    rows_of(
        ["audit", "verdict", "finding"],
        record.findings().iter().map(|Finding { audit, sound, says }| [escape(audit), verdict(*sound), escape(says)]),
    )
}

/// The twins side by side: what each wrote for the same prompt. Shown is the first sample from `index` on in which only the
/// masked twin's parses, where there is one, else the sample at `index`.
pub fn twins(record: &TwinsRecord, index: usize) -> Html {
    let pairs = record.masked.written.iter().zip(&record.unmasked.written).enumerate().skip(index);
    let telling = pairs.filter(|(_, (masked, unmasked))| masked.parses() && !unmasked.parses());
    let shown = telling.map(|(place, _)| place).next().unwrap_or(index);
    let side = |twin: &Twin| {
        let written = twin.written.get(shown);
        let html = |written: &Written| {
            let text = without_gaps(&format!("{}{}", written.prompt, written.completion));
            format!("{}<p>{}</p>", code(&text, false).0, parsed(written))
        };
        Html(written.map(html).unwrap_or_default())
    };
    beside(("with a mask", side(&record.masked)), ("without", side(&record.unmasked)))
}

/// Whether what a twin wrote parses, and else why not.
fn parsed(written: &Written) -> &'static str {
    match written.outcome {
        Outcome::SyntaxError => "✗ does not parse",
        Outcome::Empty => "✗ wrote nothing",
        Outcome::Collapsed => "✗ collapsed into repetition",
        _ => "✓ parses",
    }
}

/// What was proven of the adapter.
///
/// # Errors
/// As the table library.
pub fn proofs(record: &LoraRecord) -> Result<Html> {
    let proofs = &record.proofs;
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

/// The gates that stand in the experiment file for one phase, or with "" for all, as they were declared before the run. Between the
/// two thresholds a gate is inconclusive.
pub fn gates(experiment: &Experiment, phase: &str) -> Html {
    let of_phase = |gate: &&GateConfig| phase.is_empty() || gate.metric.split('.').next() == Some(phase);
    let of_phase = experiment.config.gates.iter().filter(of_phase);
    rows_of(
        ["gate", "passes when", "fails", "why"],
        of_phase.map(|gate| {
            let sign = match gate.rule {
                Rule::AtLeast => "≥",
                Rule::AtMost => "≤",
            };
            let threshold = unbroken(&threshold(&gate.metric, gate.threshold));
            let rule = format!("<code>{}</code> {sign}\u{a0}{threshold}", escape(&gate.metric));
            [escape(&gate.name), rule, unbroken(&fails(gate)), escape(&gate.reason)]
        }),
    )
}

/// A number with its unit on one line.
fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// The badge of a verdict.
pub(super) fn of_verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Pass => badge("✓ pass", Badge::Good),
        Verdict::Fail => badge("✗ fail", Badge::Bad),
        Verdict::Inconclusive => badge("? inconclusive", Badge::Open),
    }
}

/// Verdicts as badges, each beside its value, what follows from it and what would settle it; below them the quality
/// limits that the data misses.
pub fn verdicts(record: &DecisionRecord) -> Html {
    let Html(mut html) = rows_of(
        ["gate", "verdict", "value [95 % interval]", "what follows"],
        record.decisions.iter().map(|decision| {
            let needed = decision.still_needed().map_or(String::new(), |needed| format!("<br>{}", escape(&needed)));
            let follows = escape(&decision.action) + &needed;
            [
                escape(&decision.gate.name),
                of_verdict(decision.verdict),
                shown(&decision.gate.metric, &decision.value),
                follows,
            ]
        }),
    );
    if !record.missed.is_empty() {
        let missed = escape(&record.missed.join("; "));
        html += &format!("<p>Quality limits missed, which no gate judges: {missed}.</p>");
    }
    Html(html)
}

/// What persons decided: name, date and remark under each gate, as `decisions.md` in the run's folder has them.
///
/// # Errors
/// As the table library.
pub fn remarks(record: &DecisionRecord) -> Result<Html> {
    let column = |of: fn(&Remark) -> &String| {
        let cell =
            |decision: &Decision| decision.remark.as_ref().map_or("–".to_string(), |remark| of(remark).clone());
        record.decisions.iter().map(cell).collect::<Vec<_>>()
    };
    Ok(table(&df!(
        "gate" => record.decisions.iter().map(|decision| decision.gate.name.clone()).collect::<Vec<_>>(),
        "verdict" => record.decisions.iter().map(|decision| decision.verdict.name()).collect::<Vec<_>>(),
        "decided by" => column(|remark| &remark.name),
        "on" => column(|remark| &remark.date),
        "remark" => column(|remark| &remark.remark),
    )?))
}

/// What each phase cost; energy only where it was asked for.
///
/// # Errors
/// As the table library.
pub fn costs(costs: &[Cost]) -> Result<Html> {
    let column = |of: fn(&Cost) -> String| costs.iter().map(of).collect::<Vec<_>>();
    let mut frame = df!(
        "phase" => column(|cost| cost.phase.clone()),
        "work" => column(|cost| cost.work.clone()),
        "seconds" => costs.iter().map(|cost| cost.seconds.round()).collect::<Vec<f64>>(),
    )?;
    if costs.iter().any(|cost| cost.watt_hours.is_some()) {
        let energy: Vec<Option<f64>> = costs.iter().map(|cost| cost.watt_hours).collect();
        frame = frame.hstack(&[Column::new("energy (Wh, estimated)".into(), energy)])?;
    }
    Ok(table(&frame))
}

/// What was learned of the adapter by training it on one batch.
///
/// # Errors
/// As the table library.
pub fn memorised(record: &MemoriseRecord) -> Result<Html> {
    let end = |losses: Option<&f64>| losses.map_or("–".into(), |loss| short(*loss));
    let rows = [
        ("samples in the batch", record.samples.to_string()),
        ("supervised tokens", record.tokens.to_string()),
        ("trainable parameters", count(record.trainable)),
        ("loss before (nats/token)", end(record.losses.first())),
        ("loss after", end(record.losses.last())),
        ("steps", record.losses.len().to_string()),
        ("base weights unchanged by it, to the bit", yes(record.base_unchanged)),
    ];
    let (names, values): (Vec<&str>, Vec<String>) = rows.into_iter().unzip();
    Ok(table(&df!("one batch" => names, "result" => values)?))
}

/// What the model wrote for the same task while it was trained, step by step.
pub fn samples(rows: &[WrittenAt]) -> Html {
    let Some(first) = rows.first() else {
        return Html("<p>This run kept none of what the model wrote while it was trained.</p>".into());
    };
    rows_of(
        ["step", &format!("what it wrote for {}", first.task), "verdict"],
        rows.iter()
            .filter(|row| row.task == first.task)
            .map(|row| [row.step.to_string(), python(row.body.trim_end()).0, verdict(&row.outcome)]),
    )
}

fn yes(holds: bool) -> String {
    if holds { "✓ yes" } else { "✗ no" }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pass_at_k::Interval;

    fn committed<T: serde::de::DeserializeOwned>(name: &str) -> T {
        let file = format!("{}/figures/records/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    #[test]
    fn the_twins_are_shown_where_they_differ() {
        let mut record: TwinsRecord = committed("twins");
        // The first pair tells nothing, the second what it is about.
        record.masked.written.truncate(2);
        record.unmasked.written.truncate(2);
        for (twin, outcomes) in [
            (&mut record.masked, [Outcome::SyntaxError, Outcome::WrongAnswer]),
            (&mut record.unmasked, [Outcome::SyntaxError, Outcome::Collapsed]),
        ] {
            twin.written.iter_mut().zip(outcomes).for_each(|(written, outcome)| written.outcome = outcome);
        }
        let html = twins(&record, 0).0;
        let (masked, unmasked) = html.split_once("<b>without</b>").unwrap();
        assert!(masked.contains("✓ parses") && unmasked.contains("✗ collapsed"), "{html}");
        record.masked.written.truncate(1);
        assert!(twins(&record, 0).0.contains("✗ does not parse"), "the sample that was asked for");
        assert!(!twins(&record, 1_000).0.contains("parse"));
    }

    #[test]
    fn a_verdict_says_what_it_rests_on_and_what_would_settle_it() {
        let mut record: DecisionRecord = committed("decisions");
        let decision = &mut record.decisions[0];
        (decision.gate.metric, decision.verdict) = ("evaluation.change.difference".into(), Verdict::Inconclusive);
        (decision.value, decision.unit) = (Interval { estimate: 0.5, low: 0.25, high: 0.75, n: 20 }, "tasks".into());
        decision.more_needed = Some(1);
        record.missed = vec!["duplicate rate 0.221 is above 0.150".into()];
        let html = verdicts(&record).0;
        for part in ["+50.0 points [+25.0, +75.0]", "About 1 more task beside the 20", "no gate judges: duplicate rate"]
        {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
    }

    #[test]
    fn a_gate_says_where_it_fails() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/data/experiments/quick.toml");
        let html = gates(&Experiment::open(file).unwrap(), "evaluation").0;
        for part in ["≥\u{a0}80\u{a0}%", "below\u{a0}50\u{a0}%", "≤\u{a0}5\u{a0}%", "above\u{a0}20\u{a0}%"] {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
    }
}
