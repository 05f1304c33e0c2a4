//! The earlier failure in miniature: two models that differ in nothing but the mask, trained side by side.
//!
//! Same weights at the start, same batches, same label smoothing. The twin without a mask sees the token it is asked for:
//! its loss falls to the floor that smoothing leaves, and it has learned to copy, not to write.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use candle_core::{Device, Tensor};
use serde::Serialize;
use serde_json::json;

use crate::artifact;
use crate::bench::run::{AttemptLog, attempts};
use crate::bench::twins::{Twin, TwinsRecord, Written};
use crate::data::corpus::TokenStream;
use crate::data::exercises;
use crate::data::task::Task;
use crate::error::{Error, Result};
use crate::experiment::{BenchConfig, Experiment, OptimizerConfig, Schedule, Stepping};
use crate::model::audit::{self, Floor, Report, smoothing_floor};
use crate::model::config::{Activation, ArchConfig, ArchType, Attention, Normalization, PositionEncoding};
use crate::model::init::init;
use crate::model::transformer::Transformer;
use crate::progress::Progress;
use crate::sandbox::{Limits, Sandbox};
use crate::seed::{self, sha256};
use crate::tokenizer::Tokenizer;
use crate::train::adamw::Betas;
use crate::train::job::{FixedSets, Job, Keep};
use crate::train::trainer::fit;
use crate::train::windows::{Cut, Part, WindowBatches};

/// The earlier attempt's label smoothing.
const SMOOTHING: f64 = 0.1;

/// How much the twins are given.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Scale {
    /// Exercises to train on: more than the twins see, so that nothing can be learned by heart.
    pub exercises: usize,
    /// Exercises behind those, which both twins are asked to solve.
    pub asked: usize,
    /// Completions of each.
    pub samples: usize,
    /// Tokens in a sequence: two exercises and more.
    pub context: usize,
    /// Sequences in a step.
    pub batch: usize,
    /// Steps: enough for the unmasked twin to find the answer it is shown.
    pub steps: usize,
    /// One step in this many is kept in the record.
    pub thinned_to: usize,
}

impl Default for Scale {
    /// A minute or two on two cores.
    fn default() -> Self {
        Self { exercises: 12_000, asked: 30, samples: 2, context: 128, batch: 8, steps: 400, thinned_to: 4 }
    }
}

/// Trains both twins, lets them write, and leaves `records/twins.json`; reopens what is there.
///
/// # Errors
/// Those of [`fit`], of sampling and of the sandbox; [`Error::Mismatch`] when the record there was made otherwise.
pub fn run(exp: &Experiment) -> Result<TwinsRecord> {
    run_at(exp, Scale::default())
}

/// As [`run`], larger or smaller.
///
/// # Errors
/// As [`run`].
pub fn run_at(exp: &Experiment, scale: Scale) -> Result<TwinsRecord> {
    let tokenizer = Tokenizer::load(&exp.tokenizer_file())?;
    let arch = arch(&tokenizer);
    let optimizer = optimizer(scale.steps);
    let tasks = exercises::generate(exp.config.seed, scale.exercises + scale.asked, &[])?;
    let (known, asked) = tasks.split_at(scale.exercises.min(tasks.len().saturating_sub(scale.asked)));
    let sampling = sampling(exp, scale.samples);
    let inputs = json!([exp.config.seed, arch, optimizer, SMOOTHING, scale, sampling, tasks]);
    let vocabulary = exp.tokenizer_file();
    let vocabulary = sha256(fs::read(&vocabulary).map_err(Error::io("read", &vocabulary))?);
    let digest = sha256(format!("{inputs}{vocabulary}"));
    let record_file = exp.record_file("twins");
    if record_file.is_file() && !exp.force {
        let record: TwinsRecord = artifact::read_json(&record_file)?;
        if record.digest != digest {
            return Err(Error::Mismatch {
                what: format!("the experiment or the vocabulary behind {}", record_file.display()),
                expected: digest,
                found: record.digest,
                remedy: "use --force to train the twins anew".into(),
            });
        }
        return Ok(record);
    }
    exp.forget(&record_file)?;
    let stream = |name: &str, tasks: &[Task]| {
        let documents = tasks.iter().map(|task| {
            let mut tokens = tokenizer.encode(&format!("{}{}", task.prompt, task.solution))?;
            tokens.push(tokenizer.eos());
            Ok(tokens)
        });
        TokenStream::write(&exp.run_file("twins").join(name), documents)
    };
    let (train, unseen) = (stream("train", known)?, stream("unseen", asked)?);
    let windows = |stream: &TokenStream, purpose| {
        let part = Part { stream: stream.clone(), weight: 1.0, cut: Cut::Packed };
        WindowBatches::new(vec![part], scale.batch, scale.context, exp.config.seed, purpose)
    };
    let nursery = Nursery {
        exp,
        scale,
        tokenizer: &tokenizer,
        batches: windows(&train, "twins")?,
        fixed: FixedSets {
            train: windows(&train, "twins, fixed")?.first(2)?,
            validation: windows(&unseen, "twins, unseen")?.first(2)?,
            tokens_per_byte: None,
        },
        asked,
        sampling,
        optimizer,
        digest: &digest,
    };
    let record = TwinsRecord {
        floor: smoothing_floor(SMOOTHING, arch.vocab_size),
        masked: nursery.raise("masked", &arch)?,
        unmasked: nursery.raise("unmasked", &ArchConfig { attention: Attention::Bidirectional, ..arch.clone() })?,
        exercises: known.len(),
        label_smoothing: SMOOTHING,
        digest: digest.clone(),
        arch,
    };
    artifact::write_json(&record_file, &record)?;
    Ok(record)
}

/// Two layers: one head that looks a position ahead is all that copying needs.
fn arch(tokenizer: &Tokenizer) -> ArchConfig {
    ArchConfig {
        arch_type: ArchType::Transformer,
        num_layers: 2,
        hidden_dim: 128,
        num_heads: 4,
        ffn_multiplier: 3.0,
        normalization: Normalization::LayerNorm,
        activation: Activation::Gelu,
        position_encoding: PositionEncoding::Rope,
        attention_dropout: 0.0,
        residual_dropout: 0.0,
        vocab_size: tokenizer.vocabulary(),
        max_seq_length: 256,
        tie_word_embeddings: true,
        attention: Attention::Causal,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        quantization: None,
        pruning_ratio: 0.0,
    }
}

fn optimizer(steps: usize) -> OptimizerConfig {
    OptimizerConfig {
        rule: Stepping::AdamW,
        steps,
        lr: 4e-3,
        warmup_steps: steps / 10,
        schedule: Schedule::Cosine,
        weight_decay: 0.1,
        clip: 1.0,
        average_last: 0.0,
    }
}

/// The earlier attempt's sampling on bare prompts: its two worked examples do not fit the context.
fn sampling(exp: &Experiment, samples: usize) -> BenchConfig {
    BenchConfig {
        compute: None,
        samples,
        temperature: 0.8,
        top_k: 40,
        top_p: 1.0,
        max_new_tokens: 100,
        best_of: 1,
        template: "bare".into(),
        adapter: None,
        ..exp.config.bench.clone()
    }
}

/// What both twins are given.
struct Nursery<'a> {
    exp: &'a Experiment,
    scale: Scale,
    tokenizer: &'a Tokenizer,
    batches: WindowBatches,
    fixed: FixedSets,
    asked: &'a [Task],
    sampling: BenchConfig,
    optimizer: OptimizerConfig,
    digest: &'a str,
}

impl Nursery<'_> {
    fn raise(&self, name: &str, arch: &ArchConfig) -> Result<Twin> {
        let seed = self.exp.config.seed;
        // The same generator for both: twins begin alike.
        let parameters = init(arch, &mut seed::rng(seed, "twins"), &Device::Cpu)?;
        let weights: BTreeMap<String, Tensor> =
            parameters.iter().map(|(key, weight)| (key.clone(), weight.as_tensor().clone())).collect();
        let model = Transformer::from_weights(arch, &weights)?;
        let job = Job {
            name: format!("twin, {name}"),
            digest: self.digest.into(),
            seed,
            optimizer: self.optimizer.clone(),
            betas: Betas::default(),
            lr_ratio: 1.0,
            label_smoothing: SMOOTHING,
            eval_every: self.scale.steps.div_ceil(4),
            patience: 0,
            keep: Keep::Last,
            collapse_alarm: f64::INFINITY,
            folder: self.exp.run_file("twins").join(name),
            resume: !self.exp.force,
            force: self.exp.force,
            minutes: None,
            checkpoint_every: Duration::from_secs(120),
            read_every: 1,
        };
        let mut training = fit(&model, &parameters, &job, &self.batches, &self.fixed, &mut |_| Ok(None))?;
        let reports: Vec<Report> =
            training.steps.iter().map(|row| (row.step as u64, "train_loss".to_string(), row.loss)).collect();
        let floor = Floor::of(&reports, SMOOTHING, arch.vocab_size)
            .ok_or_else(|| Error::invalid("a twin took no step", "run again with --force"))?;
        training.steps.retain(|row| row.step == 1 || row.step % self.scale.thinned_to == 0);
        let unseen = &self.fixed.validation[0];
        let ids = Tensor::from_slice(&unseen.ids, (unseen.rows, unseen.seq), &Device::Cpu)?;
        Ok(Twin {
            causality: audit::causality(&model, &ids.narrow(0, 0, 1)?)?,
            leak: audit::leak(&model, &ids)?,
            floor: Floor { curves: BTreeMap::new(), ..floor },
            written: self.write(name, &model)?,
            training,
        })
    }

    fn write(&self, name: &str, model: &Transformer) -> Result<Vec<Written>> {
        let sandbox = Sandbox::new(Limits::seconds(self.sampling.time_limit_s))?;
        let progress = Progress::new(format!("what the {name} twin writes"), self.asked.len() * self.scale.samples);
        let (log, seed) = (AttemptLog::in_memory(), self.exp.config.seed);
        let found = attempts(model, self.tokenizer, self.asked, &self.sampling, seed, &sandbox, log, &progress)?;
        progress.finish();
        Ok(found.attempts.into_iter().map(|attempt| Written::new(self.asked, attempt)).collect())
    }
}
