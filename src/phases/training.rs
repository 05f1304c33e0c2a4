//! Phase 3: trains the adapter on the verified samples.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use candle_core::Device;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifact;
use crate::bench::run::{Attempt, AttemptLog, attempts};
use crate::data::task::{Sample, Task};
use crate::error::{Error, Result};
use crate::experiment::{BenchConfig, Experiment, Phase, Stepping};
use crate::model::device;
use crate::model::lora::{Adapter, load_peft};
use crate::model::transformer::Transformer;
use crate::phases::data_collection::{self, DataCollection};
use crate::phases::lora::{self, Lora};
use crate::progress::Progress;
use crate::sandbox::{Limits, Outcome, Sandbox};
use crate::seed::{self, sha256};
use crate::tokenizer::Tokenizer;
use crate::train::adamw::Betas;
use crate::train::batch::{SampleBatches, encode};
use crate::train::job::{FixedSets, Job, Keep, check_settings, read_every};
use crate::train::metrics::{GeneratedCheck, TrainingRecord};
use crate::train::trainer::fit;

/// What phase 3 leaves behind.
#[derive(Debug)]
pub struct Training {
    /// The base with the trained adapter on it.
    pub model: Transformer,
    /// The trained adapter.
    pub adapter: Adapter,
    /// The base's vocabulary.
    pub tokenizer: Tokenizer,
    /// What the figures and tables show.
    pub record: TrainingRecord,
}

/// Samples in each fixed subset on which the loss is compared over time.
const FIXED_SAMPLES: usize = 64;

/// Validation tasks that the model is asked to solve at each evaluation, once each and greedily.
const CHECKED_TASKS: usize = 24;

/// The adapter's name on the model, PEFT's own default.
const ADAPTER: &str = "default";

/// Share of collapsed completions that stops a run: half of what it writes is waste.
const COLLAPSE_ALARM: f64 = 0.5;

/// Trains the adapter, or goes on with a run that was stopped, or reopens one that is done. Leaves
/// `adapter/{adapter_config.json, adapter_model.safetensors}` in the run's folder.
///
/// # Errors
/// Those of phases 1 and 2 and of [`fit`]; [`Error::Mismatch`] when the record or the state there belongs to another
/// experiment, base or train split (remedy: `--force`).
pub fn run(exp: &Experiment) -> Result<Training> {
    let settings = &exp.config.train;
    check_settings("train", &settings.optimizer, settings.label_smoothing, settings.eval_every)?;
    if settings.optimizer.rule == Stepping::Muon {
        let remedy =
            "train the adapter with optimizer = \"adamw\"; Muon steps whole matrices of a base, in [base.pretrain]";
        return Err(Error::invalid("optimizer = \"muon\" in [train]", remedy));
    }
    let ratio = exp.config.lora.lr_ratio;
    if !(ratio.is_finite() && ratio > 0.0) {
        return Err(Error::invalid(format!("lr_ratio = {ratio} in [lora]"), "choose a ratio above 0"));
    }
    if let Some(alarm) = exp.config.train.collapse_alarm.filter(|alarm| !(0.0..=1.0).contains(alarm)) {
        let what = format!("collapse_alarm = {alarm} in [train]");
        return Err(Error::invalid(what, "choose a share in [0, 1]; at 1 it never sounds"));
    }
    // Only what belongs to this phase is made anew under `force`.
    let reuse = exp.clone().forced(false);
    // The adapter first: an impossible one is refused before minutes are spent on samples.
    let Lora { mut model, mut adapter, tokenizer, base_digest, .. } = lora::run(&reuse)?;
    let data = data_collection::run(&reuse)?;
    let (train, validation) = samples(exp, &data)?;
    let rows = sha256(json!([train, validation]).to_string());
    let digest = exp.digest(Phase::Training);
    let inputs = sha256(json!([digest, base_digest, rows]).to_string());
    let record_file = exp.record_file("training");
    if record_file.is_file() && !exp.force {
        let record: TrainingRecord = artifact::read_json(&record_file)?;
        if record.inputs != inputs {
            return Err(Error::Mismatch {
                what: format!("the experiment, base or samples behind {}", record_file.display()),
                expected: inputs,
                found: record.inputs,
                remedy: "use --force to train anew".into(),
            });
        }
        adapter.detach(&mut model)?;
        let adapter = load_peft(&mut model, ADAPTER, &exp.run_file("adapter"), &base_digest)?;
        return Ok(Training { model, adapter, tokenizer, record });
    }
    let _lock = lock(exp)?;
    exp.forget(&record_file)?;
    let context = exp.config.data.max_tokens.min(model.config().max_seq_length);
    let config = &exp.config.train;
    let batches = |samples, size, accumulation| {
        let encoded = encode(samples, &tokenizer, context)?;
        SampleBatches::new(encoded, size, accumulation, tokenizer.pad(), exp.train_seed())
    };
    let train_batches = batches(&train, config.batch_size, config.accumulation)?;
    if validation.is_empty() {
        let remedy = "hold some out with `validation` in [data.split], or name a file with `validation` in [train]";
        return Err(Error::invalid("there is no sample to validate on, by which the best step is chosen", remedy));
    }
    let validation_batches = batches(&validation, config.batch_size, 1)?;
    let fixed = FixedSets {
        train: train_batches.fixed_subset(FIXED_SAMPLES),
        validation: validation_batches.fixed_subset(validation.len()),
        tokens_per_byte: None,
    };
    let tasks = checked_tasks(&data, &validation);
    let sandbox = Sandbox::new(Limits::seconds(exp.config.bench.time_limit_s))?;
    let (device, floats) = device::open(config.compute.unwrap_or_default())?;
    let job = job(exp, inputs, &device);
    // The proofs ran on the CPU, and so does what follows; only the steps are taken elsewhere.
    let elsewhere = if device.is_cpu() { None } else { Some(lora::fresh_on(&reuse, &device, floats)?) };
    let (trained, taught) = elsewhere.as_ref().map_or((&model, &adapter), |(model, adapter)| (model, adapter));
    let mut check = |step: usize| generated_check(exp, trained, &tokenizer, &tasks, &sandbox, step);
    let mut record = fit(trained, &taught.parameters(), &job, &train_batches, &fixed, &mut check)?;
    record.digest = digest;
    taught.save_peft(&exp.run_file("adapter"), &base_digest)?;
    artifact::write_json(&record_file, &record)?;
    if elsewhere.is_some() {
        adapter.detach(&mut model)?;
        adapter = load_peft(&mut model, ADAPTER, &exp.run_file("adapter"), &base_digest)?;
    }
    Ok(Training { model, adapter, tokenizer, record })
}

/// The file that is locked while a process trains in the run's folder.
pub(super) fn lock_file(exp: &Experiment) -> PathBuf {
    exp.run_file("training.lock")
}

/// Keeps other processes out of the run's folder for as long as the file is held.
fn lock(exp: &Experiment) -> Result<File> {
    let path = lock_file(exp);
    fs::create_dir_all(exp.run_file("")).map_err(Error::io("create", exp.run_file("")))?;
    let open = File::options().create(true).append(true).open(&path);
    let file = open.map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => {
            let what = format!("another process trains in {}", exp.run_file("").display());
            Err(Error::invalid(what, "wait until it has ended, or name another folder with --output-dir"))
        }
    }
}

/// The samples to train on and to validate on: phase 1's, or the files that the experiment names instead.
fn samples(exp: &Experiment, data: &DataCollection) -> Result<(Vec<Sample>, Vec<Sample>)> {
    let read = |named: &Option<PathBuf>, usual: &[Sample]| match named {
        Some(file) => artifact::read_jsonl(&exp.path(file)),
        None => Ok(usual.to_vec()),
    };
    let config = &exp.config.train;
    let (mut train, validation) = (read(&config.data, &data.train)?, read(&config.validation, &data.validation)?);
    if let Some(samples) = config.samples {
        if !(1..=train.len()).contains(&samples) {
            return Err(Error::invalid(
                format!("{samples} training samples are asked for, but there are {}", train.len()),
                "lower `samples` in [train], or collect more in phase 1",
            ));
        }
        train.shuffle(&mut seed::rng(exp.config.seed, "training subset"));
        train.truncate(samples);
    }
    Ok((train, validation))
}

fn job(exp: &Experiment, digest: String, device: &Device) -> Job {
    let config = &exp.config.train;
    Job {
        name: exp.config.name.clone(),
        digest,
        seed: exp.train_seed(),
        optimizer: config.optimizer.clone(),
        betas: Betas { first: 0.9, second: 0.999 },
        lr_ratio: exp.config.lora.lr_ratio,
        label_smoothing: config.label_smoothing,
        eval_every: config.eval_every,
        patience: config.patience,
        keep: Keep::Best,
        collapse_alarm: config.collapse_alarm.unwrap_or(COLLAPSE_ALARM),
        folder: exp.run_file("training"),
        resume: !exp.force,
        force: exp.force,
        minutes: None,
        checkpoint_every: Duration::from_secs(120),
        read_every: read_every(device),
    }
}

/// The first of the validation samples that have tests.
fn checked_tasks(data: &DataCollection, validation: &[Sample]) -> Vec<Task> {
    let tasks: BTreeMap<&str, &Task> = data.tasks.iter().map(|task| (task.id.as_str(), task)).collect();
    let with_tests = validation.iter().filter_map(|sample| tasks.get(sample.id.as_str()));
    with_tests.take(CHECKED_TASKS).map(|&task| task.clone()).collect()
}

/// Lets the model solve validation tasks; none of them is the benchmark's.
fn generated_check(
    exp: &Experiment,
    model: &Transformer,
    tokenizer: &Tokenizer,
    tasks: &[Task],
    sandbox: &Sandbox,
    step: usize,
) -> Result<Option<GeneratedCheck>> {
    if tasks.is_empty() {
        return Ok(None);
    }
    let config = BenchConfig { samples: 1, best_of: 1, temperature: 0.0, ..exp.config.bench.clone() };
    let progress = Progress::new("generated check", tasks.len());
    let log = AttemptLog::in_memory();
    let found = attempts(model, tokenizer, tasks, &config, exp.config.seed, sandbox, log, &progress)?.attempts;
    keep_written(exp, step, &found)?;
    Ok(Some(GeneratedCheck::of(found.iter().map(|attempt| (&attempt.outcome, attempt.tokens)))))
}

/// What the model wrote for one validation task after so many steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WrittenAt {
    /// The step; 0 is before the first.
    pub step: usize,
    /// The task's id.
    pub task: String,
    /// The body it wrote.
    pub body: String,
    /// The verdict.
    pub outcome: Outcome,
}

/// Tasks whose completions are kept at each evaluation, to be read beside each other.
const KEPT_TASKS: usize = 4;

/// Adds what was written at `step` to `training/written.jsonl`; step 0 begins the file anew.
fn keep_written(exp: &Experiment, step: usize, found: &[Attempt]) -> Result<()> {
    let file = exp.run_file("training/written.jsonl");
    let mut rows: Vec<WrittenAt> = if step > 0 && file.is_file() { artifact::read_jsonl(&file)? } else { Vec::new() };
    // A resumed run evaluates some steps again.
    rows.retain(|row| row.step < step);
    let row = |attempt: &Attempt| WrittenAt {
        step,
        task: attempt.task.clone(),
        body: attempt.body.clone(),
        outcome: attempt.outcome.clone(),
    };
    rows.extend(found.iter().take(KEPT_TASKS).map(row));
    artifact::write_jsonl(&file, &rows)
}

/// What the model wrote while it was trained, by task and then by step; empty for a run that kept none.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`].
pub fn written(exp: &Experiment) -> Result<Vec<WrittenAt>> {
    let file = exp.run_file("training/written.jsonl");
    let mut rows: Vec<WrittenAt> = if file.is_file() { artifact::read_jsonl(&file)? } else { Vec::new() };
    rows.sort_by(|a, b| (&a.task, a.step).cmp(&(&b.task, b.step)));
    Ok(rows)
}
