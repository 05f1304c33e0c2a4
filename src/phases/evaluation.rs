//! Phase 4: the base before and the adapted model after, on the same tasks with the same seeds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;

use crate::artifact;
use crate::bench::report::{
    CheckpointResult, EvaluationRecord, Protocol, SelfTest, compare, html_page, markdown, v1_result,
};
use crate::bench::run::{Attempt, AttemptLog, Measured, attempts};
use crate::bench::samples;
use crate::bench::self_test::self_test;
use crate::bench::tasks::{self, v1_protocol};
use crate::data::task::Task;
use crate::error::{Error, Result};
use crate::experiment::{BenchConfig, Compute, Experiment, Phase};
use crate::model::checkpoint::Base;
use crate::model::device;
use crate::model::lora;
use crate::model::transformer::Transformer;
use crate::phases::base_model;
use crate::progress::Progress;
use crate::sandbox::{Limits, Sandbox};
use crate::seed::sha256;
use crate::tokenizer::Tokenizer;

/// What phase 4 leaves behind.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// What was measured.
    pub record: EvaluationRecord,
    /// The benchmark's tasks.
    pub tasks: Vec<Task>,
    /// Every attempt of the base.
    pub before: Vec<Attempt>,
    /// Every attempt of the adapted model.
    pub after: Vec<Attempt>,
}

/// Where one checkpoint's attempts go and what they depend on.
struct Subject {
    name: &'static str,
    file: &'static str,
    model: Transformer,
    inputs: BTreeMap<String, String>,
}

/// Measures both checkpoints by the experiment's protocol and by the earlier attempt's, after the harness has shown on
/// known answers that it can tell right from wrong. Writes `attempts-*.jsonl`, `report.html` and `report.md` into the run's
/// folder and `records/evaluation.json`. A run that was stopped continues at the attempt where it stood.
///
/// # Errors
/// [`Error::Mismatch`] when the record or the attempts there were made with something else (remedy: `--force`);
/// [`Error::Invalid`] when the self-test fails; whatever loading, sampling and the sandbox return.
pub fn run(exp: &Experiment) -> Result<Evaluation> {
    let config = &exp.config.bench;
    let tasks = tasks::load(&exp.path(&config.benchmark))?;
    let (base_inputs, all_inputs) = inputs(exp)?;
    let record_file = exp.record_file("evaluation");
    if !exp.force && record_file.exists() {
        return reopen(exp, &record_file, &all_inputs, tasks);
    }
    let start = Instant::now();
    let (sandbox, self_test) = judge(exp, &tasks)?;
    let (tokenizer, base) = base_model::open(exp)?;
    let (device, _) = device::open(config.compute.unwrap_or_default())?;
    let model = rounded(base.model_on(&device)?, config)?;
    let before = Subject { name: "base", file: "before", model, inputs: base_inputs };
    let model = adapted(exp, &base, &device)?;
    let after = Subject { name: "base + LoRA", file: "after", model, inputs: all_inputs };
    // Only now that both checkpoints are open: what was measured before is not given up for one that cannot be.
    if exp.force {
        exp.forget(&record_file)?;
        for name in ["before", "after", "v1-before", "v1-after"] {
            AttemptLog::remove(&exp.run_file(format!("attempts-{name}.jsonl")))?;
        }
    }
    let v1 = v1_protocol(config, config.v1_draws);
    // Another seed than the experiment's own protocol, so that the two are independent looks at the same model.
    let (seed, v1_seed) = (exp.config.seed, exp.config.seed.wrapping_add(1));
    let measure = |subject: &Subject, prefix: &str, config: &BenchConfig, seed: u64| {
        measure(exp, subject, &format!("{prefix}{}", subject.file), &tokenizer, &tasks, config, seed, &sandbox)
    };
    let measured = [measure(&before, "", config, seed)?, measure(&after, "", config, seed)?];
    let v1_measured = [measure(&before, "v1-", &v1, v1_seed)?, measure(&after, "v1-", &v1, v1_seed)?];
    let results = [
        CheckpointResult::new(before.name, &tasks, &measured[0], seed),
        CheckpointResult::new(after.name, &tasks, &measured[1], seed),
    ];
    let change = compare(&results[0], &results[1], seed);
    let [v1_before, v1_after] = v1_measured.map(|measured| v1_result(&v1, &tasks, &measured, v1_seed));
    let [result_before, result_after] = results;
    let record = EvaluationRecord {
        digest: exp.digest(Phase::Evaluation),
        benchmark: config.benchmark.display().to_string(),
        benchmark_sha256: after.inputs["benchmark"].clone(),
        inputs: after.inputs,
        protocol: Protocol::new(config, seed),
        before: result_before,
        after: result_after,
        change,
        v1_before,
        v1_after,
        self_test,
        protections: sandbox.protections(),
        seconds: start.elapsed().as_secs_f64(),
    };
    artifact::write_json(&record_file, &record)?;
    let [before, after] = measured.map(|measured| measured.attempts);
    let evaluation = Evaluation { record, tasks, before, after };
    write_report(exp, &evaluation)?;
    Ok(evaluation)
}

/// Measures the adapted model alone, by the experiment's protocol and with its seed. The attempts stay in the run's folder.
///
/// # Errors
/// As [`run`].
pub fn adapted_alone(exp: &Experiment) -> Result<CheckpointResult> {
    let config = &exp.config.bench;
    let tasks = tasks::load(&exp.path(&config.benchmark))?;
    let (_, inputs) = inputs(exp)?;
    let (sandbox, _) = judge(exp, &tasks)?;
    let (tokenizer, base) = base_model::open(exp)?;
    let (device, _) = device::open(config.compute.unwrap_or_default())?;
    let model = adapted(exp, &base, &device)?;
    let subject = Subject { name: "base + LoRA", file: "after", model, inputs };
    let measured = measure(exp, &subject, subject.file, &tokenizer, &tasks, config, exp.config.seed, &sandbox)?;
    Ok(CheckpointResult::new(subject.name, &tasks, &measured, exp.config.seed))
}

/// The sandbox, after it has judged solutions that are known to be right and known to be wrong.
fn judge(exp: &Experiment, tasks: &[Task]) -> Result<(Sandbox, SelfTest)> {
    let sandbox = Sandbox::new(Limits::seconds(exp.config.bench.time_limit_s))?;
    let self_test = self_test(tasks, &sandbox)?;
    if !self_test.faults.is_empty() {
        let benchmark = exp.path(&exp.config.bench.benchmark);
        let what = format!("{}: the harness misjudges {}", benchmark.display(), self_test.faults.join(", "));
        return Err(Error::invalid(what, "correct the tests or the solutions of these tasks, or raise time_limit_s"));
    }
    Ok((sandbox, self_test))
}

/// Writes the page `report.html` and its tables as `report.md` into the run's folder; runs no model. Returns the files.
///
/// # Errors
/// [`Error::Io`].
pub fn write_report(exp: &Experiment, evaluation: &Evaluation) -> Result<[PathBuf; 2]> {
    let Evaluation { record, tasks, before, after } = evaluation;
    let files = [exp.run_file("report.html"), exp.run_file("report.md")];
    let texts = [html_page(record, tasks, before, after), markdown(record)];
    for (file, text) in files.iter().zip(texts) {
        artifact::write_atomic(file, |writer| writer.write_all(text.as_bytes()))?;
    }
    Ok(files)
}

/// Writes every attempt in the formats of other harnesses, HumanEval's and EvalPlus', into the run's folder. Returns the
/// files.
///
/// # Errors
/// As [`samples::write_humaneval`].
pub fn write_samples(exp: &Experiment, evaluation: &Evaluation) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (label, attempts) in [("before", &evaluation.before), ("after", &evaluation.after)] {
        let humaneval = exp.run_file(format!("samples-{label}.jsonl"));
        samples::write_humaneval(&humaneval, &evaluation.tasks, attempts)?;
        let evalplus = exp.run_file(format!("samples-{label}-evalplus.jsonl"));
        samples::write_evalplus(&evalplus, &evaluation.tasks, attempts)?;
        files.extend([humaneval, evalplus]);
    }
    Ok(files)
}

#[allow(clippy::too_many_arguments)]
fn measure(
    exp: &Experiment,
    subject: &Subject,
    label: &str,
    tokenizer: &Tokenizer,
    tasks: &[Task],
    config: &BenchConfig,
    seed: u64,
    sandbox: &Sandbox,
) -> Result<Measured> {
    let made_with = serde_json::json!([subject.inputs, config, seed]);
    let stamp = sha256(made_with.to_string());
    let log = AttemptLog::open(&exp.run_file(format!("attempts-{label}.jsonl")), &stamp)?;
    let progress = Progress::new(format!("attempts {label}"), tasks.len() * config.samples);
    let measured = attempts(&subject.model, tokenizer, tasks, config, seed, sandbox, log, &progress)?;
    progress.finish();
    Ok(measured)
}

/// SHA-256 of every file the measurement depends on: those of the base, and those of the adapted model.
fn inputs(exp: &Experiment) -> Result<(BTreeMap<String, String>, BTreeMap<String, String>)> {
    let digest = |name: &str, file: PathBuf| -> Result<(String, String)> {
        Ok((name.to_string(), sha256(fs::read(&file).map_err(Error::io("read", &file))?)))
    };
    let before = BTreeMap::from([
        digest("architecture", exp.arch_file())?,
        digest("base", exp.checkpoint_file())?,
        digest("benchmark", exp.path(&exp.config.bench.benchmark))?,
        digest("tokenizer", exp.tokenizer_file())?,
    ]);
    let adapter = exp.adapter_folder().join("adapter_model.safetensors");
    if !adapter.is_file() {
        let what = format!("there is no adapter to measure: {} is missing", adapter.display());
        return Err(Error::invalid(what, "train one with `codelora train`, or name another with --checkpoint DIR"));
    }
    let mut after = before.clone();
    let settings = exp.adapter_folder().join("adapter_config.json");
    after.extend([digest("adapter", adapter)?, digest("adapter settings", settings)?]);
    Ok((before, after))
}

/// The model in eight bits, where the measurement is to be made with that.
fn rounded(model: Transformer, config: &BenchConfig) -> Result<Transformer> {
    match (config.eight_bits, config.compute.unwrap_or_default()) {
        (false, _) => Ok(model),
        (true, Compute::Cpu) => model.in_eight_bits(),
        (true, _) => Err(Error::invalid(
            "eight_bits in [bench] together with a CUDA device",
            "leave `compute` out to sample on the processor, or leave out `eight_bits`",
        )),
    }
}

/// The base on `device` with the trained adapter merged into it.
fn adapted(exp: &Experiment, base: &Base, device: &Device) -> Result<Transformer> {
    let mut model = base.model_on(device)?;
    lora::load_peft(&mut model, "default", &exp.adapter_folder(), &base.digest)?.merge(&mut model)?;
    rounded(model, &exp.config.bench)
}

fn reopen(exp: &Experiment, file: &Path, inputs: &BTreeMap<String, String>, tasks: Vec<Task>) -> Result<Evaluation> {
    let record: EvaluationRecord = artifact::read_json(file)?;
    let mismatch = |what: String, expected: &str, found: &str| Error::Mismatch {
        what,
        expected: expected.into(),
        found: found.into(),
        remedy: "use --force to measure again".into(),
    };
    let digest = exp.digest(Phase::Evaluation);
    if record.digest != digest {
        let what = format!("the experiment that made {}", file.display());
        return Err(mismatch(what, &digest, &record.digest));
    }
    for (name, expected) in inputs {
        let found = record.inputs.get(name).map_or("nothing", String::as_str);
        if found != expected {
            let what = format!("the {name} that {} was measured with", file.display());
            return Err(mismatch(what, expected, found));
        }
    }
    let before = artifact::read_jsonl(&exp.run_file("attempts-before.jsonl"))?;
    let after = artifact::read_jsonl(&exp.run_file("attempts-after.jsonl"))?;
    Ok(Evaluation { record, tasks, before, after })
}
