//! Phase 5: holds every record against the gates that were declared before the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::artifact;
use crate::bench::pass_at_k::Interval;
use crate::decide::{Decision, DecisionRecord, Evidence, Remark, Verdict, find, judge, parse_remarks, render};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, GateConfig, Phase};
use crate::seed::sha256;

/// What phase 5 leaves behind.
#[derive(Debug, Clone)]
pub struct Decisions {
    /// Every gate with its verdict and evidence.
    pub record: DecisionRecord,
}

/// Judges all gates from the records of the phases before, and writes `records/decisions.json` and, in the run's folder,
/// `decisions.json` and `decisions.md`. What persons wrote into the page is carried over. Nothing here is expensive, so
/// the verdicts are always made anew.
///
/// # Errors
/// [`Error::Invalid`] when a gate names a record or a metric that is not there; [`Error::Mismatch`] when a record was made
/// by another experiment; [`Error::Io`]; [`Error::Malformed`].
pub fn run(exp: &Experiment) -> Result<Decisions> {
    let (page_file, json_file) = (exp.run_file("decisions.md"), exp.run_file("decisions.json"));
    let mut remarks: BTreeMap<String, Remark> = BTreeMap::new();
    if json_file.exists() {
        let old: DecisionRecord = artifact::read_json(&json_file)?;
        remarks.extend(old.earlier_remarks);
        remarks.extend(old.decisions.into_iter().filter_map(|old| Some((old.gate.name, old.remark?))));
    }
    if page_file.exists() {
        // The page is where persons write, so its word is the newer one.
        let page = fs::read_to_string(&page_file).map_err(Error::io("read", &page_file))?;
        remarks.extend(parse_remarks(&page));
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = exp.config.gates.iter().find(|gate| !names.insert(&gate.name)) {
        let what = format!("{}: two gates are named {:?}", exp.file.display(), twice.name);
        return Err(Error::invalid(what, "give every gate a name of its own; remarks are kept by it"));
    }
    let mut records = BTreeMap::new();
    let decide = |gate: &GateConfig| decide(exp, gate, &mut records, &mut remarks);
    let decisions = exp.config.gates.iter().map(decide).collect::<Result<Vec<_>>>()?;
    let record = DecisionRecord {
        digest: exp.digest(Phase::Decisions),
        experiment: exp.config.name.clone(),
        question: exp.config.question.clone(),
        decisions,
        missed: missed(&records),
        earlier_remarks: remarks,
    };
    artifact::write_json(&exp.record_file("decisions"), &record)?;
    artifact::write_json(&json_file, &record)?;
    let page = render(&record);
    artifact::write_atomic(&page_file, |writer| writer.write_all(page.as_bytes()))?;
    Ok(Decisions { record })
}

/// Judges the gates of one phase alone, such as `data`, from its record. Writes nothing: the page of all gates is [`run`]'s.
///
/// # Errors
/// As [`run`].
pub fn of_phase(exp: &Experiment, phase: &str) -> Result<DecisionRecord> {
    let (mut records, mut remarks) = (BTreeMap::new(), BTreeMap::new());
    let gates = exp.config.gates.iter().filter(|gate| gate.metric.split('.').next() == Some(phase));
    let decisions = gates.map(|gate| decide(exp, gate, &mut records, &mut remarks)).collect::<Result<Vec<_>>>()?;
    Ok(DecisionRecord {
        digest: exp.digest(Phase::Decisions),
        experiment: exp.config.name.clone(),
        question: exp.config.question.clone(),
        decisions,
        missed: missed(&records),
        earlier_remarks: BTreeMap::new(),
    })
}

fn decide(
    exp: &Experiment,
    gate: &GateConfig,
    records: &mut BTreeMap<String, (Value, Evidence)>,
    remarks: &mut BTreeMap<String, Remark>,
) -> Result<Decision> {
    let fault = |what: String| {
        let place = format!("{}: the gate {:?} asks for {}", exp.file.display(), gate.name, gate.metric);
        Error::invalid(format!("{place}, but {what}"), "name a metric as <phase>.<path in records/<phase>.json>")
    };
    let (name, path) = gate.metric.split_once('.').ok_or_else(|| fault("a metric is <phase>.<path>".into()))?;
    if !records.contains_key(name) {
        records.insert(
            name.to_string(),
            open(exp, name).map_err(|error| match error {
                Error::Io { .. } => fault(format!("there is no record of {name}: run that phase first")),
                other => other,
            })?,
        );
    }
    let (record, evidence) = &records[name];
    let value = derived(name, path, record).map_or_else(|| find(record, path), Ok).map_err(fault)?;
    let (verdict, more_needed) = judge(gate, &value);
    let action = match verdict {
        Verdict::Pass => gate.on_pass.clone(),
        Verdict::Fail => gate.on_fail.clone(),
        Verdict::Inconclusive => format!("look closer before choosing between: {}; {}", gate.on_pass, gate.on_fail),
    };
    let remark = remarks.remove(&gate.name);
    let (gate, unit, evidence) = (gate.clone(), unit(record, &value), evidence.clone());
    Ok(Decision { gate, value, verdict, more_needed, unit, action, evidence, remark })
}

/// The quality limits that the data misses, where its record was opened.
fn missed(records: &BTreeMap<String, (Value, Evidence)>) -> Vec<String> {
    let missed = records.get("data").and_then(|(record, _)| record["missed"].as_array());
    missed.into_iter().flatten().filter_map(|limit| limit.as_str().map(String::from)).collect()
}

/// A record's JSON and its digest; it must be this experiment's.
fn open(exp: &Experiment, name: &str) -> Result<(Value, Evidence)> {
    let file = exp.record_file(name);
    let bytes = fs::read(&file).map_err(Error::io("read", &file))?;
    let record: Value = artifact::read_json(&file)?;
    let phase = [
        ("data", Phase::Data),
        ("base", Phase::Base),
        ("lora", Phase::Lora),
        ("training", Phase::Training),
        ("evaluation", Phase::Evaluation),
    ];
    if let Some((_, phase)) = phase.into_iter().find(|(known, _)| *known == name) {
        let (expected, found) = (exp.digest(phase), record["digest"].as_str().unwrap_or("no digest").to_string());
        if expected != found {
            let what = format!("the experiment that made {}", file.display());
            return Err(Error::Mismatch { what, expected, found, remedy: "run the phases again with --force".into() });
        }
    }
    let shown = file.strip_prefix(&exp.root).unwrap_or(&file).display().to_string();
    Ok((record, Evidence { file: shown, sha256: sha256(bytes) }))
}

/// What `value` counts: intervals over tasks have as many observations as the benchmark has tasks, others one for each
/// sample.
fn unit(record: &Value, value: &Interval) -> String {
    let tasks = record["after"]["tasks"].as_array().map(Vec::len);
    if tasks == Some(value.n) { "tasks" } else { "samples" }.into()
}

/// Metrics that are computed from a record rather than written in it.
///
/// - `lora.trainable_share`: trainable parameters of all parameters, in [0, 1].
/// - `training.validation_loss_fall`: validation loss before the first step minus that of the step that was kept, in
///   nats/token.
fn derived(name: &str, path: &str, record: &Value) -> Option<Interval> {
    match (name, path) {
        ("lora", "trainable_share") => Some(Interval::exact(
            record["trainable"].as_f64()? / record["total"].as_f64().filter(|total| *total > 0.0)?,
        )),
        ("training", "validation_loss_fall") => {
            let rows = record["evaluations"].as_array()?;
            let loss = |row: &Value| row["validation_loss"].as_f64();
            let kept = rows.iter().find(|row| row["step"] == record["kept_step"])?;
            Some(Interval::exact(loss(rows.first()?)? - loss(kept)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const EXPERIMENT: &str = include_str!("../../data/experiments/quick.toml");

    fn experiment(folder: &std::path::Path, gates: &str) -> Experiment {
        let head = EXPERIMENT.split("[[gate]]").next().unwrap();
        let file = folder.join("quick.toml");
        fs::write(&file, format!("{head}\n{gates}")).unwrap();
        fs::write(folder.join("Cargo.toml"), "").unwrap();
        Experiment::open(file).unwrap()
    }

    fn gate(name: &str, metric: &str) -> String {
        format!(
            "[[gate]]\nname = \"{name}\"\nmetric = \"{metric}\"\nrule = \"at_least\"\nthreshold = 500\n\
             reason = \"r\"\non_pass = \"go\"\non_fail = \"stop\"\n"
        )
    }

    #[test]
    fn gates_are_judged_and_a_persons_words_survive_reruns() {
        let folder = tempfile::tempdir().unwrap();
        let exp = experiment(
            folder.path(),
            &(gate("enough", "data.verified") + &gate("falls", "training.validation_loss_fall")),
        );
        let data = json!({"digest": exp.digest(Phase::Data), "verified": 512, "missed": ["too few"]});
        artifact::write_json(&exp.record_file("data"), &data).unwrap();
        let missing = run(&exp).unwrap_err().to_string();
        assert!(missing.contains("no record of training"), "{missing}");
        let rows = json!([{"step": 0, "validation_loss": 2.0}, {"step": 9, "validation_loss": 0.5}, {"step": 20, "validation_loss": 0.7}]);
        let training = json!({"digest": exp.digest(Phase::Training), "kept_step": 9, "evaluations": rows});
        artifact::write_json(&exp.record_file("training"), &training).unwrap();
        let record = run(&exp).unwrap().record;
        assert_eq!(record.decisions[0].verdict, Verdict::Pass);
        assert_eq!(record.decisions[1].value.estimate, 1.5);
        assert_eq!(record.overall(), Verdict::Fail);
        assert_eq!(record.missed, ["too few"]);
        assert!(of_phase(&exp, "training").unwrap().missed.is_empty());

        let page_file = exp.run_file("decisions.md");
        let page = fs::read_to_string(&page_file).unwrap().replacen("- Name:", "- Name: Ada", 1);
        fs::write(&page_file, page).unwrap();
        let again = run(&exp).unwrap().record;
        assert_eq!(again.decisions[0].remark.as_ref().unwrap().name, "Ada");
        fs::remove_file(&page_file).unwrap();
        assert!(run(&exp).unwrap().record.decisions[0].remark.is_some(), "kept in the JSON too");
        let exp = experiment(folder.path(), &gate("falls", "training.validation_loss_fall"));
        assert_eq!(run(&exp).unwrap().record.earlier_remarks["enough"].name, "Ada");
    }

    #[test]
    fn faults_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let exp = experiment(folder.path(), &gate("enough", "data.verifed"));
        artifact::write_json(&exp.record_file("data"), &json!({"digest": "another", "verified": 1})).unwrap();
        assert!(run(&exp).unwrap_err().to_string().contains("--force"));
        let data = json!({"digest": exp.digest(Phase::Data), "verified": 1});
        artifact::write_json(&exp.record_file("data"), &data).unwrap();
        let error = run(&exp).unwrap_err().to_string();
        assert!(error.contains("verifed") && error.contains("there is digest, verified"), "{error}");
        let exp = experiment(folder.path(), &(gate("a", "data.verified") + &gate("a", "data.verified")));
        assert!(run(&exp).unwrap_err().to_string().contains("two gates"));
    }
}
