//! Phase 0: opens the base model and shows that it can be trusted.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::data::embedded;
use crate::data::task::Task;
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Phase};
use crate::figures;
use crate::figures::chart::Chart;
use crate::generate::{Completion, Request, Sampling, generate};
use crate::model::audit::{AuditRecord, Floor, Report, floor_of_log};
use crate::model::checkpoint::{self, Base};
use crate::model::config::ArchConfig;
use crate::model::transformer::Transformer;
use crate::phases::pretraining::PretrainRecord;
use crate::progress::Progress;
use crate::tokenizer::Tokenizer;

/// What phase 0 leaves behind.
#[derive(Debug)]
pub struct BaseModel {
    /// The shape.
    pub arch: ArchConfig,
    /// The vocabulary.
    pub tokenizer: Tokenizer,
    /// The weights, in f32.
    pub base: Base,
    /// What the figures and tables show.
    pub record: BaseRecord,
}

impl BaseModel {
    /// The transformer over these weights, frozen.
    ///
    /// # Errors
    /// As [`Transformer::new`].
    pub fn model(&self) -> Result<Transformer> {
        self.base.model()
    }
}

/// Completes our simple tasks outside the benchmark, the first `most` of them, greedily: what the base writes by itself.
/// Nothing is run.
///
/// # Errors
/// As [`generate`].
pub fn completions(base: &BaseModel, most: usize) -> Result<Vec<(Task, Completion)>> {
    let tasks: Vec<Task> = embedded::other40()?.into_iter().take(most).collect();
    let request = |task: &Task| Request { key: task.id.clone(), prompt: task.prompt.clone() };
    let requests: Vec<Request> = tasks.iter().map(request).collect();
    let sampling = Sampling::greedy(COMPLETED_TOKENS);
    let progress = Progress::new("completions", tasks.len());
    let written = generate(&base.model()?, &base.tokenizer, &requests, &sampling, &progress)?;
    Ok(tasks.into_iter().zip(written).collect())
}

/// Most tokens of a completion that is only looked at.
const COMPLETED_TOKENS: usize = 80;

/// What is known of the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// Digest of the experiment's sections that the base depends on.
    pub digest: String,
    /// Folder of the base, as the experiment names it.
    pub folder: String,
    /// SHA-256 of the weights.
    pub weights: String,
    /// The shape.
    pub arch: ArchConfig,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Parameters, a tied head counted once.
    pub parameters: usize,
    /// What the audits found.
    pub audit: AuditRecord,
    /// How it was trained, where the folder says so.
    pub pretraining: Option<PretrainRecord>,
}

/// Sequences and tokens of the code that the audits read.
const AUDITED: (usize, usize) = (4, 96);

/// Opens the base, holds it against its vocabulary, and writes the phase's record.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`] and [`Error::Mismatch`] of the folder's files; [`Error::Mismatch`] when the
/// vocabulary is larger than the embedding, or the record there belongs to another experiment or other weights.
pub fn run(exp: &Experiment) -> Result<BaseModel> {
    let (tokenizer, base) = open(exp)?;
    let folder = exp.path(&exp.config.base.folder);
    let record_file = exp.record_file("base");
    let digest = exp.digest(Phase::Base);
    if record_file.is_file() && !exp.force {
        let record: BaseRecord = artifact::read_json(&record_file)?;
        for (what, expected, found) in
            [("the experiment", &digest, &record.digest), ("the weights", &base.digest, &record.weights)]
        {
            if expected != found {
                return Err(Error::Mismatch {
                    what: format!("{what} behind {}", record_file.display()),
                    expected: expected.clone(),
                    found: found.clone(),
                    remedy: "use --force to audit this base anew".into(),
                });
            }
        }
        return Ok(BaseModel { arch: base.config.clone(), tokenizer, base, record });
    }
    let card = folder.join("pretraining.json");
    let pretraining: Option<PretrainRecord> = if card.is_file() { Some(artifact::read_json(&card)?) } else { None };
    let record = BaseRecord {
        digest,
        folder: exp.config.base.folder.display().to_string(),
        weights: base.digest.clone(),
        arch: base.config.clone(),
        vocabulary: tokenizer.vocabulary(),
        parameters: base.weights.values().map(|w| w.elem_count()).sum(),
        audit: AuditRecord::new(
            &base.model()?,
            &audited_code(&tokenizer, base.config.max_seq_length)?,
            pretraining.as_ref().and_then(|record| reported(record, base.config.vocab_size)),
            exp.config.seed,
        )?,
        pretraining,
    };
    artifact::write_json(&record_file, &record)?;
    Ok(BaseModel { arch: base.config.clone(), tokenizer, base, record })
}

/// The losses that the base's own training reported, against their floor: ε is spread over all `logits`.
fn reported(record: &PretrainRecord, logits: usize) -> Option<Floor> {
    let steps = record.training.steps.iter();
    let reports: Vec<Report> = steps.map(|row| (row.step as u64, "train_loss".to_string(), row.loss)).collect();
    let floor = Floor::of(&reports, record.config.label_smoothing, logits)?;
    // The curve is in the training's record already.
    Some(Floor { curves: BTreeMap::new(), ..floor })
}

/// Holds the losses of another model's log against the floor of its label smoothing, and leaves `records/floor.json` and the
/// figure `base-log` in the run's folder: the log is somebody else's, so nothing of it goes beside the published figures.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`] of the log; [`Error::Figure`].
pub fn audit_log(exp: &Experiment, log: &Path, smoothing: f64, vocabulary: usize) -> Result<Floor> {
    let floor = floor_of_log(log, smoothing, vocabulary)?;
    artifact::write_json(&exp.record_file("floor"), &floor)?;
    figures::draw(&figures::twins::log(&floor))?.save(&exp.run_file("figures"))?;
    Ok(floor)
}

/// Every figure of a base.
pub fn charts(record: &BaseRecord) -> Vec<Chart> {
    let training = record.pretraining.as_ref();
    let mut charts = figures::base::all(
        &record.audit,
        training.map(|training| &training.training),
        training.map_or(&[][..], |training| &training.corpus),
    );
    let origins = training.map(|training| &training.origins).filter(|origins| !origins.is_empty());
    charts.extend(origins.map(|origins| figures::base::origins(origins)));
    charts
}

/// The vocabulary and the weights of the experiment's base folder, held against each other.
///
/// # Errors
/// As [`run`].
pub fn open(exp: &Experiment) -> Result<(Tokenizer, Base)> {
    let weights = exp.checkpoint_file();
    if !weights.is_file() {
        return Err(Error::invalid(
            format!("there is no base model: {} is missing", weights.display()),
            "train one with `codelora base train --experiment data/experiments/base-small.toml`",
        ));
    }
    let tokenizer = Tokenizer::load(&exp.tokenizer_file())?;
    let base = checkpoint::load_with(&ArchConfig::load(&exp.arch_file())?, &weights, &Device::Cpu)?;
    fits(&tokenizer, &base.config, &exp.tokenizer_file())?;
    Ok((tokenizer, base))
}

/// Code that the audits read, from our own tasks: token ids `(batch, seq)`, `seq` at most `context`.
pub(crate) fn audited_code(tokenizer: &Tokenizer, context: usize) -> Result<Tensor> {
    let (batch, seq) = (AUDITED.0, AUDITED.1.min(context));
    let mut ids = Vec::with_capacity(batch * seq);
    for task in embedded::benchmark20()?.iter().cycle().take(batch * seq) {
        ids.extend(tokenizer.encode(&format!("{}{}", task.prompt, task.solution))?);
        ids.push(tokenizer.eos());
        if ids.len() >= batch * seq {
            break;
        }
    }
    ids.truncate(batch * seq);
    Ok(Tensor::from_vec(ids, (batch, seq), &Device::Cpu)?)
}

fn fits(tokenizer: &Tokenizer, arch: &ArchConfig, folder: &Path) -> Result<()> {
    if tokenizer.vocabulary() <= arch.vocab_size {
        return Ok(());
    }
    Err(Error::Mismatch {
        what: format!("vocabulary of {}", folder.display()),
        expected: format!("at most the {} rows of the embedding", arch.vocab_size),
        found: tokenizer.vocabulary().to_string(),
        remedy: "put the tokenizer.json that belongs to the weights beside them".into(),
    })
}
