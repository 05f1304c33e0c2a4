//! Makes a base: vocabulary, corpus, training, and the folder that ships.
//!
//! The run lies in the experiment's run folder (`tokenizer.json`, `corpus/`, state, metrics) and can be stopped and resumed at
//! any time; whenever it stops in order, the base folder is written from the weights at hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::data::corpus::{Corpus, SourceStatistics, Texts};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, PretrainConfig};
use crate::model::checkpoint;
use crate::model::config::ArchConfig;
use crate::model::init::init;
use crate::model::transformer::Transformer;
use crate::seed::{self, sha256};
use crate::tokenizer::Tokenizer;
use crate::train::job::{FixedSets, Job, Keep};
use crate::train::loss::mean_loss;
use crate::train::metrics::TrainingRecord;
use crate::train::optimizer::Betas;
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

/// How a base came to be; `pretraining.json` in its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PretrainRecord {
    /// The settings.
    pub config: PretrainConfig,
    /// The experiment's seed.
    pub seed: u64,
    /// Parameters of the model, a tied head counted once.
    pub parameters: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// What it was trained on.
    pub corpus: Vec<SourceStatistics>,
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
}

/// Evaluation batches of each kind.
const FIXED_BATCHES: usize = 2;

/// Trains the base that the experiment's `[base.pretrain]` describes and writes its folder.
///
/// # Errors
/// [`Error::Invalid`] when the experiment has no such section or a run lies there already; those of [`fit`].
pub fn run(exp: &Experiment, options: Options) -> Result<PretrainRecord> {
    let config = exp.config.base.pretrain.as_ref().ok_or_else(|| {
        Error::invalid(
            format!("{} does not say how a base is trained", exp.file.display()),
            "add [base.pretrain]; data/experiments/base-small.toml is an example",
        )
    })?;
    let (tokenizer, corpus) = prepare(exp, config)?;
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
    let parameters = init(&arch, &mut seed::rng(exp.config.seed, "base weights"), &Device::Cpu)?;
    let weights: BTreeMap<String, Tensor> =
        parameters.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    let model = Transformer::from_weights(&arch, &weights)?;

    let seed = exp.config.seed;
    let batches = windows(&corpus, config, seed, "pretrain", false)?;
    let held_out = windows(&corpus, config, seed, "held out", true)?;
    let fixed = FixedSets {
        train: windows(&corpus, config, seed, "fixed train", false)?.first(FIXED_BATCHES)?,
        validation: held_out.first(FIXED_BATCHES)?,
    };
    let job = Job {
        name: exp.config.name.clone(),
        digest: digest(config, seed),
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
    };
    let mut training = fit(&model, &parameters, &job, &batches, &fixed, &mut |_| Ok(None))?;
    training.steps.retain(|row| row.step % PretrainRecord::THINNED_TO == 0);
    let record = PretrainRecord {
        config: config.clone(),
        seed,
        parameters: parameters.values().map(|v| v.elem_count()).sum(),
        vocabulary: tokenizer.vocabulary(),
        held_out: losses(&model, &corpus, &held_out)?,
        corpus: corpus.statistics(),
        training,
        hardware: hardware(),
    };
    write_folder(&exp.path(&exp.config.base.folder), &arch, &tokenizer, &model, &record)?;
    Ok(record)
}

/// The vocabulary and the corpus of the run, made at the first call and opened at later ones.
fn prepare(exp: &Experiment, config: &PretrainConfig) -> Result<(Tokenizer, Corpus)> {
    let folder = exp.run_file("corpus");
    let vocabulary = exp.run_file("tokenizer.json");
    if vocabulary.is_file() && Corpus::exists(&folder) {
        return Ok((Tokenizer::load(&vocabulary)?, Corpus::open(&folder)?));
    }
    println!("collecting {} exercises and the standard library", config.exercises);
    let texts = Texts::collect(exp.config.seed, config.exercises)?;
    let tokenizer = match (vocabulary.is_file(), config.vocabulary) {
        (true, _) => Tokenizer::load(&vocabulary)?,
        (false, 0) => Tokenizer::load(&exp.path(&exp.config.base.folder).join("tokenizer.json"))?,
        (false, size) => {
            println!("training a vocabulary of {size} tokens");
            Tokenizer::train(texts.all(), size)?
        }
    };
    tokenizer.save(&vocabulary)?;
    println!("tokenising");
    let corpus = Corpus::build(&folder, &tokenizer, &texts)?;
    for source in corpus.statistics() {
        println!("  {:<10} {:>7} documents  {:>9} tokens", source.source, source.documents, source.tokens);
    }
    Ok((tokenizer, corpus))
}

/// Windows over the sources by their shares.
fn windows(
    corpus: &Corpus,
    config: &PretrainConfig,
    seed: u64,
    purpose: &str,
    held_out: bool,
) -> Result<WindowBatches> {
    let part = |source: &crate::data::corpus::SourceStreams| {
        let (weight, cut) = match source.statistics.source.as_str() {
            "raw" => (config.raw_share, Cut::Anywhere),
            "pairs" => (config.pair_share, Cut::Packed),
            _ => (1.0 - config.raw_share - config.pair_share, Cut::Packed),
        };
        let stream = if held_out { &source.held_out } else { &source.train };
        Part { stream: stream.clone(), weight, cut }
    };
    let parts = corpus.sources.iter().map(part).collect();
    WindowBatches::new(parts, config.batch_size, config.context, seed, purpose)
}

fn losses(model: &Transformer, corpus: &Corpus, held_out: &WindowBatches) -> Result<Vec<SourceLoss>> {
    let mut losses = Vec::new();
    for (index, source) in corpus.sources.iter().enumerate().take(held_out.parts()) {
        let nats = mean_loss(model, &held_out.fixed(index, 64))?;
        let s = &source.statistics;
        let tokens_per_byte = (s.tokens + s.held_out_tokens) as f64 / s.bytes.max(1) as f64;
        losses.push(SourceLoss {
            source: s.source.clone(),
            nats_per_token: nats,
            bits_per_byte: nats * tokens_per_byte / std::f64::consts::LN_2,
        });
    }
    Ok(losses)
}

/// SHA-256 over everything a state depends on, apart from the number of steps, which may grow.
fn digest(config: &PretrainConfig, seed: u64) -> String {
    let mut config = config.clone();
    config.optimizer.steps = 0;
    sha256(serde_json::json!([config, seed]).to_string())
}

fn hardware() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH)
}

/// Writes the base folder: architecture, vocabulary, weights in f16, record and card.
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
    checkpoint::save_safetensors(&model.weights(), &folder.join("model.safetensors"), DType::F16, &header)?;
    artifact::write_json(&folder.join("pretraining.json"), record)?;
    let card = card(arch, record);
    artifact::write_atomic(&folder.join("README.md"), |writer| writer.write_all(card.as_bytes()))
}

/// The model card.
fn card(arch: &ArchConfig, record: &PretrainRecord) -> String {
    let training = &record.training;
    let mut text = format!(
        "# {}\n\nA causal Python model of {:.2}M parameters, trained from scratch by this project on generated exercises and \
         Python's own standard library. It is small and knows little; it exists so that the whole experiment runs on two \
         cores.\n\n\
         | | |\n|---|---|\n\
         | shape | {} layers × {} hidden × {} heads, vocabulary {}, context {} |\n\
         | tokens seen | {:.2}M in {} steps of {} × {} |\n\
         | schedule | peak learning rate {}, {} warm-up steps, {:?}, weight decay {}, clip {} |\n\
         | time | {:.0} minutes on {} |\n\
         | seed | {} |\n\n## Corpus\n\n| source | documents | tokens | held-out nats/token | held-out bits/byte |\n|---|---|---|---|---|\n",
        training.name,
        record.parameters as f64 / 1e6,
        arch.num_layers,
        arch.hidden_dim,
        arch.num_heads,
        record.vocabulary,
        arch.max_seq_length,
        training.tokens_seen as f64 / 1e6,
        training.kept_step,
        record.config.batch_size,
        record.config.context,
        record.config.optimizer.lr,
        record.config.optimizer.warmup_steps,
        record.config.optimizer.schedule,
        record.config.optimizer.weight_decay,
        record.config.optimizer.clip,
        training.seconds / 60.0,
        record.hardware,
        record.seed,
    );
    for source in &record.corpus {
        let loss = record.held_out.iter().find(|loss| loss.source == source.source);
        let (nats, bits) = loss.map_or((f64::NAN, f64::NAN), |l| (l.nats_per_token, l.bits_per_byte));
        text += &format!("| {} | {} | {} | {nats:.3} | {bits:.3} |\n", source.source, source.documents, source.tokens);
    }
    text += "\nMixture by tokens: ";
    let exercises = 1.0 - record.config.raw_share - record.config.pair_share;
    text += &format!(
        "{:.0} % exercises, {:.0} % docstring pairs, {:.0} % raw code. No function of the benchmark's names is in it.\n\n\
         Made by `codelora base train --experiment data/experiments/base-small.toml`. Weights: MIT OR Apache-2.0; the \
         standard library is under the PSF licence.\n",
        100.0 * exercises,
        100.0 * record.config.pair_share,
        100.0 * record.config.raw_share
    );
    text
}
