//! Makes a base: vocabulary, corpus, training, and the folder that ships.
//!
//! The run lies in the experiment's run folder (`tokenizer.json`, `corpus/`, state, metrics) and can be stopped and resumed at
//! any time; whenever it stops in order, the base folder is written from the weights at hand.

mod card;
mod check;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::data::corpus::gather::OriginStatistics;
use crate::data::corpus::{Corpus, SourceStatistics, SourceStreams};
use crate::error::{Error, Result};
use crate::experiment::{Compute, Experiment, PretrainConfig, Stored};
use crate::model::checkpoint;
use crate::model::config::ArchConfig;
use crate::model::device;
use crate::model::init::init;
use crate::model::quantize::quantize;
use crate::model::transformer::Transformer;
use crate::phases::corpus::{self, Prepared};
use crate::phases::pretraining::check::Check;
use crate::seed::{self, sha256};
use crate::tokenizer::Tokenizer;
use crate::train::adamw::Betas;
use crate::train::job::{FixedSets, Job, Keep, check_settings, read_every};
use crate::train::loss::{bits_per_byte, mean_loss};
use crate::train::metrics::TrainingRecord;
use crate::train::trainer::fit;
use crate::train::windows::{Cut, Part, WindowBatches};

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Go on from the saved state, where there is one.
    pub resume: bool,
    /// Save the state and stop after this many minutes.
    pub minutes: Option<f64>,
}

/// Held-out loss on one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceLoss {
    /// `exercises`, `pairs` or `raw`.
    pub source: String,
    /// In nats per token.
    pub nats_per_token: f64,
    /// In bits per byte of text, which does not depend on the vocabulary.
    pub bits_per_byte: f64,
}

/// The base that a training went on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The experiment that made it.
    pub name: String,
    /// Digest of its weights.
    pub digest: String,
    /// Tokens that it had seen, over all of its own stages.
    pub tokens_seen: usize,
}

/// How a base came to be; `pretraining.json` in its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PretrainRecord {
    /// The settings.
    pub config: PretrainConfig,
    /// The experiment's seed.
    pub seed: u64,
    /// What it went on from, if not from fresh weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// Parameters of the model, a tied head counted once.
    pub parameters: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// What it was trained on.
    pub corpus: Vec<SourceStatistics>,
    /// Where its real code comes from; empty when that is the standard library alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<OriginStatistics>,
    /// Held-out loss by source, at the end.
    pub held_out: Vec<SourceLoss>,
    /// The run, with one step in [`PretrainRecord::THINNED_TO`].
    pub training: TrainingRecord,
    /// The machine: processor architecture, cores, system.
    pub hardware: String,
}

impl PretrainRecord {
    /// One step in this many is kept in the record.
    pub const THINNED_TO: usize = 10;

    /// Tokens seen in this training and in those it went on from.
    pub fn tokens_seen(&self) -> usize {
        self.training.tokens_seen + self.start.as_ref().map_or(0, |start| start.tokens_seen)
    }
}

/// Evaluation batches of each kind.
const FIXED_BATCHES: usize = 2;

/// Trains the base that the experiment's `[base.pretrain]` describes and writes its folder.
///
/// # Errors
/// [`Error::Invalid`] when the experiment has no such section or a run lies there already; those of [`fit`].
pub fn run(exp: &Experiment, options: Options) -> Result<PretrainRecord> {
    let config = corpus::settings(exp)?;
    check_settings("base.pretrain", &config.optimizer, config.label_smoothing, config.eval_every)?;
    let (raw, pairs) = (config.raw_share, config.pair_share);
    if !(raw >= 0.0 && pairs >= 0.0 && raw + pairs <= 1.0) {
        let what = format!("raw_share = {raw} and pair_share = {pairs} in [base.pretrain]");
        return Err(Error::invalid(what, "choose shares in [0, 1] whose sum is at most 1; exercises have the rest"));
    }
    let Prepared { tokenizer, corpus, origins } = corpus::run(exp)?;
    let mut arch = ArchConfig::load(&exp.path(&config.arch))?;
    if arch.vocab_size < tokenizer.vocabulary() {
        return Err(Error::Mismatch {
            what: format!("vocab_size in {}", config.arch.display()),
            expected: format!("at least {}", tokenizer.vocabulary()),
            found: arch.vocab_size.to_string(),
            remedy: "give the architecture as many rows as the vocabulary has tokens".into(),
        });
    }
    arch.max_seq_length = arch.max_seq_length.max(config.context);
    let (device, floats) = device::open(config.compute.unwrap_or_default())?;
    let parameters = init(&arch, &mut seed::rng(exp.config.seed, "base weights"), &device)?;
    let start =
        config.start.as_ref().map(|folder| go_on(&exp.path(folder), &arch, &parameters, &device)).transpose()?;
    let weights: BTreeMap<String, Tensor> =
        parameters.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    let model = Transformer::from_weights(&arch, &weights)?.computing_in(floats);

    let seed = exp.config.seed;
    let batches = windows(&corpus, config, seed, "pretrain", false)?;
    let held_out = windows(&corpus, config, seed, "held out", true)?;
    let fixed = FixedSets {
        train: windows(&corpus, config, seed, "fixed train", false)?.first(FIXED_BATCHES)?,
        validation: held_out.first(FIXED_BATCHES)?,
        tokens_per_byte: Some(tokens_per_byte(&corpus, config)),
    };
    let job = Job {
        name: exp.config.name.clone(),
        digest: digest(exp, config, &arch, start.as_ref())?,
        seed,
        optimizer: config.optimizer.clone(),
        betas: Betas::default(),
        lr_ratio: 1.0,
        label_smoothing: config.label_smoothing,
        eval_every: config.eval_every,
        patience: 0,
        keep: Keep::Last,
        collapse_alarm: f64::INFINITY,
        folder: exp.run_file("pretraining"),
        resume: options.resume,
        force: exp.force,
        minutes: options.minutes,
        checkpoint_every: Duration::from_secs(180),
        read_every: read_every(model.device()),
    };
    let check = Check::new(exp)?;
    let mut look = |step: usize| check.as_ref().map(|check| check.run(&model, &tokenizer, step)).transpose();
    let mut training = fit(&model, &parameters, &job, &batches, &fixed, &mut look)?;
    training.steps.retain(|row| row.step % PretrainRecord::THINNED_TO == 0);
    let record = PretrainRecord {
        config: config.clone(),
        seed,
        start,
        parameters: parameters.values().map(|v| v.elem_count()).sum(),
        vocabulary: tokenizer.vocabulary(),
        held_out: losses(&model, &corpus, config, &held_out)?,
        corpus: corpus.statistics(),
        origins,
        training,
        hardware: hardware(config),
    };
    write_folder(&exp.path(&exp.config.base.folder), &arch, &tokenizer, &model, &record)?;
    Ok(record)
}

/// Gives `parameters` the weights of the base in `folder`.
fn go_on(folder: &Path, arch: &ArchConfig, parameters: &BTreeMap<String, Var>, device: &Device) -> Result<Start> {
    let weights = checkpoint::load_with(arch, &folder.join("model.safetensors"), device)?.weights;
    for (key, var) in parameters {
        var.set(&weights[key].to_dtype(DType::F32)?)?;
    }
    let record: PretrainRecord = artifact::read_json(&folder.join("pretraining.json"))?;
    let tokens_seen = record.tokens_seen();
    Ok(Start { name: record.training.name, digest: checkpoint::digest(&weights)?, tokens_seen })
}

/// Windows over the sources by their shares.
fn windows(
    corpus: &Corpus,
    config: &PretrainConfig,
    seed: u64,
    purpose: &str,
    held_out: bool,
) -> Result<WindowBatches> {
    let part = |source: &SourceStreams| {
        let name = source.statistics.source.as_str();
        let (weight, cut) = (share(name, config), if name == "raw" { Cut::Anywhere } else { Cut::Packed });
        let stream = if held_out { &source.held_out } else { &source.train };
        Part { stream: stream.clone(), weight, cut }
    };
    let parts = corpus.sources.iter().map(part).collect();
    WindowBatches::new(parts, config.batch_size, config.context, seed, purpose)?.accumulated(config.accumulation)
}

/// The share of tokens that a source has in the mixture.
fn share(source: &str, config: &PretrainConfig) -> f64 {
    match source {
        "raw" => config.raw_share,
        "pairs" => config.pair_share,
        _ => 1.0 - config.raw_share - config.pair_share,
    }
}

/// Tokens of a source in a byte of its text.
fn density(source: &SourceStatistics) -> f64 {
    (source.tokens + source.held_out_tokens) as f64 / source.bytes.max(1) as f64
}

/// Tokens in a byte of the mixture: one token of it is so many bytes of each source.
fn tokens_per_byte(corpus: &Corpus, config: &PretrainConfig) -> f64 {
    let sources = corpus.sources.iter().map(|source| &source.statistics);
    let bytes = sources.map(|s| share(&s.source, config) / density(s)).filter(|bytes| bytes.is_finite());
    1.0 / bytes.sum::<f64>()
}

fn losses(
    model: &Transformer,
    corpus: &Corpus,
    config: &PretrainConfig,
    held_out: &WindowBatches,
) -> Result<Vec<SourceLoss>> {
    let mut losses = Vec::new();
    let drawn = corpus.sources.iter().filter(|source| share(&source.statistics.source, config) > 0.0);
    for (index, source) in drawn.enumerate() {
        let nats = mean_loss(model, &held_out.fixed(index, 64))?;
        let s = &source.statistics;
        losses.push(SourceLoss {
            source: s.source.clone(),
            nats_per_token: nats,
            bits_per_byte: bits_per_byte(nats, density(s)),
        });
    }
    Ok(losses)
}

/// SHA-256 over everything a state depends on, apart from the number of steps, which may grow, the average, which may begin
/// later, the device and the form on disk, which may change.
fn digest(exp: &Experiment, config: &PretrainConfig, arch: &ArchConfig, start: Option<&Start>) -> Result<String> {
    let (text, seed) = (corpus::digest(exp)?, exp.config.seed);
    let mut config = config.clone();
    config.optimizer.steps = 0;
    config.optimizer.average_last = 0.0;
    config.compute = None;
    config.stored = Stored::F16;
    Ok(sha256(serde_json::json!([config, seed, text, arch, start]).to_string()))
}

fn hardware(config: &PretrainConfig) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let floats = match config.compute.unwrap_or_default() {
        Compute::Cpu => "",
        Compute::Cuda => ", one CUDA device",
        Compute::CudaBf16 => ", one CUDA device in bf16",
    };
    format!("{} {}, {cores} cores{floats}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Writes the base folder: architecture, vocabulary, weights, record and card.
fn write_folder(
    folder: &Path,
    arch: &ArchConfig,
    tokenizer: &Tokenizer,
    model: &Transformer,
    record: &PretrainRecord,
) -> Result<()> {
    arch.save(&folder.join("arch.json"))?;
    tokenizer.save(&folder.join("tokenizer.json"))?;
    let header = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let (weights, floats) = match record.config.stored {
        Stored::F16 => (model.weights(), DType::F16),
        Stored::Int8 => (quantize(&model.weights())?, DType::F32),
    };
    checkpoint::save_safetensors(&weights, &folder.join("model.safetensors"), floats, &header)?;
    artifact::write_json(&folder.join("pretraining.json"), record)?;
    let card = card::card(arch, record);
    artifact::write_atomic(&folder.join("README.md"), |writer| writer.write_all(card.as_bytes()))
}
