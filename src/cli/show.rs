//! Results as plain tables on the terminal.

use anyhow::Result;
use codelora::Experiment;
use codelora::bench::pass_at_k::Interval;
use codelora::bench::report::{EvaluationRecord, checkpoint_rows};
use codelora::bench::twins::{TwinsRecord, Written};
use codelora::decide;
use codelora::experiment::Rule;
use codelora::model::audit::{Finding, Floor};
use codelora::phases::base_model::BaseModel;
use codelora::phases::corpus::Prepared;
use codelora::phases::data_collection::DataCollection;
use codelora::phases::decisions::Decisions;
use codelora::phases::evaluation::Evaluation;
use codelora::phases::import::Imported;
use codelora::phases::judging::Judged;
use codelora::phases::lora::Lora;
use codelora::phases::pretraining::PretrainRecord;
use codelora::phases::training::Training;
use codelora::phases::walk::Walk;
use codelora::sandbox::Outcome;
use codelora::train::metrics::TrainingRecord;
use codelora::train::sweep::SweepRecord;

/// The whole walk: one table a phase, the verdicts last.
pub fn walk(experiment: &Experiment, walk: &Walk) -> Result<()> {
    println!("\n{}\n", experiment.config.question);
    data(&walk.data)?;
    base(&walk.base)?;
    lora(&walk.lora)?;
    training(&walk.training)?;
    evaluation(&walk.evaluation)?;
    decisions(&walk.decisions)?;
    let times: Vec<String> = walk.seconds.iter().map(|(phase, seconds)| format!("{phase} {seconds:.0} s")).collect();
    println!("time: {}", times.join(", "));
    println!("figures: {}", experiment.config.paths.figures.display());
    println!("run: {}", experiment.config.paths.run.display());
    Ok(())
}

/// Phase 1.
pub fn data(collection: &DataCollection) -> Result<()> {
    let record = &collection.record;
    let mut rows =
        vec![words(["source", "read", "converted", "verified", "usable", "train", "validation", "held-out"])];
    for s in &record.sources {
        let counts = [s.read, s.converted, s.verified, s.usable, s.train, s.validation, s.held_out];
        rows.push(std::iter::once(s.source.name().to_string()).chain(counts.map(|n| n.to_string())).collect());
    }
    let r = record;
    let totals = [r.read, r.converted, r.verified, r.usable, r.train, r.validation, r.held_out];
    rows.push(std::iter::once("all".to_string()).chain(totals.map(|n| n.to_string())).collect());
    table("data collection", &rows);
    Ok(())
}

/// Phase 0.
pub fn base(base: &BaseModel) -> Result<()> {
    findings("base model", base.record.audit.findings());
    Ok(())
}

/// Another model's reported losses.
pub fn floor(floor: &Floor) -> Result<()> {
    findings("the log", [floor.finding()]);
    Ok(())
}

/// An imported base.
pub fn imported(imported: &Imported) -> Result<()> {
    println!("{} parameters, weights {}\n", imported.parameters, imported.digest);
    findings("imported base", imported.findings.clone());
    Ok(())
}

fn findings(title: &str, findings: impl IntoIterator<Item = Finding>) {
    let mut rows = vec![words(["audit", "verdict", "finding"])];
    for finding in findings {
        rows.push(vec![finding.audit, if finding.sound { "sound" } else { "UNSOUND" }.into(), finding.says]);
    }
    table(title, &rows);
}

/// The twins.
pub fn twins(record: &TwinsRecord) -> Result<()> {
    let mut rows = vec![words(["twin", "last loss", "above the floor", "collapsed", "parses", "passes", "causality"])];
    for (name, twin) in [("with a mask", &record.masked), ("without", &record.unmasked)] {
        let last = twin.training.steps.last().map_or(f64::NAN, |row| row.loss);
        rows.push(vec![
            name.into(),
            format!("{last:.3}"),
            format!("{:.3}", last - record.floor),
            percent(twin.share(|written| written.outcome == Outcome::Collapsed)),
            percent(twin.share(Written::parses)),
            percent(twin.share(|written| written.outcome == Outcome::Passed)),
            if twin.causality.finding().sound { "sound" } else { "UNSOUND" }.into(),
        ]);
    }
    table("twins", &rows);
    for (name, twin) in [("with a mask", &record.masked), ("without", &record.unmasked)] {
        if let Some(written) = twin.written.first() {
            println!("── {name}\n{}{}\n", written.prompt, written.completion);
        }
    }
    Ok(())
}

/// Phase 2.
pub fn lora(proof: &Lora) -> Result<()> {
    let record = &proof.record;
    let rows = vec![
        words(["measure", "value"]),
        vec!["trainable parameters".into(), record.trainable.to_string()],
        vec![
            "share of all parameters".into(),
            format!("{:.2} %", 100.0 * record.trainable as f64 / record.total as f64),
        ],
    ];
    table("LoRA", &rows);
    Ok(())
}

/// Phase 3, training.
pub fn training(run: &Training) -> Result<()> {
    let mut rows = vec![words(["step", "train loss (nats/token)", "validation loss", "passes", "parses", "collapsed"])];
    for row in &run.record.evaluations {
        let mut cells =
            vec![row.step.to_string(), format!("{:.4}", row.train_loss), format!("{:.4}", row.validation_loss)];
        let checked =
            row.generated.as_ref().map(|check| [check.pass_rate, check.syntax_valid_rate, check.collapse_rate]);
        cells.extend(checked.map_or_else(|| words(["–"; 3]), |shares| shares.map(percent).to_vec()));
        rows.push(cells);
    }
    table("training", &rows);
    let TrainingRecord { kept_step, tokens_seen, ref stop, .. } = run.record;
    println!("{stop}");
    let padding = 100.0 * run.record.padding();
    println!(
        "kept step {kept_step}, {tokens_seen} supervised tokens seen, padding {padding:.1} % of what was computed\n"
    );
    Ok(())
}

/// A sweep.
pub fn sweep(record: &SweepRecord) {
    table(&format!("sweep of {}", record.experiment), &record.table());
    println!(
        "mean ± standard deviation [lowest, highest] over seeds; loss in nats/token, {:.4} before training",
        record.loss_before
    );
}

/// Phase 4, evaluation.
pub fn evaluation(evaluation: &Evaluation) -> Result<()> {
    table("evaluation", &checkpoint_rows(&evaluation.record));
    let change = &evaluation.record.change;
    let Interval { estimate, low, high, .. } = change.difference.scaled(100.0);
    println!("change in pass@1: {estimate:+.1} points [{low:+.1}, {high:+.1}], p = {:.3}\n", change.p_value);
    Ok(())
}

/// The same checkpoints at several temperatures: pass@1 is best at low ones, pass@k for large k at higher ones (Chen et al.
/// 2021, section 3.3).
pub fn temperatures(records: &[EvaluationRecord]) {
    let share = |interval: &Interval| {
        let Interval { estimate, low, high, .. } = interval.scaled(100.0);
        format!("{estimate:.1} % [{low:.1}, {high:.1}]")
    };
    let header =
        ["temperature", "checkpoint", "samples", "pass@1", "pass@10", "solved once", "valid syntax", "collapsed"];
    let mut rows = vec![words(header)];
    for record in records {
        for result in [&record.before, &record.after] {
            rows.push(vec![
                record.protocol.temperature.to_string(),
                result.name.clone(),
                record.protocol.samples.to_string(),
                share(&result.pass_at_1),
                result.pass_at_10.as_ref().map_or("–".into(), share),
                format!("{} of {}", result.solved_once, result.tasks.len()),
                percent(result.syntax_valid.estimate),
                percent(result.collapsed.estimate),
            ]);
        }
    }
    table("temperatures", &rows);
}

/// Samples made elsewhere.
pub fn judged(judged: &Judged) -> Result<()> {
    let result = &judged.result;
    let Interval { estimate, low, high, .. } = result.pass_at_1.scaled(100.0);
    let mut rows = vec![words(["measure", "value"])];
    rows.push(vec!["tasks".into(), result.tasks.len().to_string()]);
    rows.push(vec!["samples".into(), result.attempts.to_string()]);
    rows.push(vec!["pass@1".into(), format!("{estimate:.1} % [{low:.1}, {high:.1}]")]);
    rows.push(vec!["solved at least once".into(), result.solved_once.to_string()]);
    rows.extend(result.outcomes.iter().map(|(outcome, count)| vec![format!("samples: {outcome}"), count.to_string()]));
    rows.push(vec!["seconds".into(), format!("{:.1}", result.seconds)]);
    table(&format!("samples of {}", result.name), &rows);
    Ok(())
}

/// The decision points: the verdicts as a table, then what follows from each.
pub fn decisions(decisions: &Decisions) -> Result<()> {
    let mut rows = vec![words(["gate", "rule", "value", "verdict"])];
    for decision in &decisions.record.decisions {
        let sign = match decision.gate.rule {
            Rule::AtLeast => "≥",
            Rule::AtMost => "≤",
        };
        let gate = &decision.gate;
        let rule = format!("{sign} {}", decide::threshold(&gate.metric, gate.threshold));
        let value = decide::shown(&gate.metric, &decision.value);
        rows.push(vec![gate.name.clone(), rule, value, decision.verdict.name().to_string()]);
    }
    table("decisions", &rows);
    for decision in &decisions.record.decisions {
        let needed = decision.still_needed().map_or(String::new(), |needed| format!(". {needed}"));
        println!("   {}: {}{needed}", decision.gate.name, decision.action);
    }
    println!();
    Ok(())
}

/// A corpus: what each origin gave, and what came of it.
pub fn corpus(prepared: &Prepared) -> Result<()> {
    let mut rows = vec![words(["origin", "licence", "files", "kept", "MB kept", "pairs", "left out"])];
    for o in &prepared.origins {
        let reasons: Vec<String> = o.rejected.iter().map(|(why, count)| format!("{count} {why}")).collect();
        rows.push(vec![
            o.origin.clone(),
            o.licence.clone(),
            o.files.to_string(),
            o.kept.to_string(),
            format!("{:.1}", o.bytes as f64 / 1e6),
            o.pairs.to_string(),
            reasons.join(", "),
        ]);
    }
    if !prepared.origins.is_empty() {
        table("origins", &rows);
    }
    let mut rows = vec![words(["source", "documents", "held out", "MB", "tokens", "held-out tokens"])];
    for s in prepared.corpus.statistics() {
        let counts = [s.documents, s.held_out].map(|count| count.to_string());
        let tokens = [s.tokens, s.held_out_tokens].map(|count| count.to_string());
        rows.push(
            [vec![s.source], counts.to_vec(), vec![format!("{:.1}", s.bytes as f64 / 1e6)], tokens.to_vec()].concat(),
        );
    }
    table("corpus", &rows);
    Ok(())
}

/// A pre-training run.
pub fn pretraining(record: &PretrainRecord) -> Result<()> {
    let mut rows = vec![words(["held-out source", "nats/token", "bits/byte"])];
    for loss in &record.held_out {
        rows.push(vec![
            loss.source.clone(),
            format!("{:.4}", loss.nats_per_token),
            format!("{:.4}", loss.bits_per_byte),
        ]);
    }
    table("pre-training", &rows);
    println!("{} parameters, {} tokens seen\n", record.parameters, record.training.tokens_seen);
    Ok(())
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(String::from).to_vec()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Prints rows under a title; the first is the header, columns are as wide as they need.
fn table(title: &str, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    println!("── {title}");
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("   {}", cells.join("  ").trim_end());
        if index == 0 {
            println!("   {}", "─".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)));
        }
    }
    println!();
}
