//! `codelora base`: its arguments, and what they ask for.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use codelora::Experiment;
use codelora::phases::import::Import;
use codelora::phases::{base_model, corpus, import, pretraining, twins};

use super::arguments::Common;
use super::{open, require_external, show, stop_on_request};

/// Arguments of `base`.
#[derive(Args)]
pub struct BaseArgs {
    #[command(subcommand)]
    pub verb: BaseVerb,
}

/// What to do with a base.
#[derive(Subcommand)]
pub enum BaseVerb {
    /// Prove that the base is causal, honest about its loss, and trainable.
    #[command(
        after_help = "Examples:\n  codelora base audit\n  codelora base audit --log v1_log.jsonl --log-smoothing 0.1 --log-vocabulary 8000"
    )]
    Audit(AuditArgs),
    /// Make a base folder of a PyTorch checkpoint, safetensors or a Hugging Face Starcoder2 folder.
    #[command(
        after_help = "Example:\n  codelora base import --checkpoint model.pt --arch-json arch.json --tokenizer-path tokenizer.json --output data/base/mine"
    )]
    Import(ImportArgs),
    /// Train two models that differ in nothing but the causal mask: the earlier failure in miniature.
    Twins(Common),
    /// Gather, clean, tokenise and count the text of a base, without training.
    #[command(
        after_help = "Example:\n  codelora base corpus --experiment data/experiments/base-29m.toml --folder ~/code --output data/runs/mine"
    )]
    Corpus(CorpusArgs),
    /// Train a base from an experiment file with a [base.pretrain] section.
    Train {
        #[command(flatten)]
        common: Common,
        /// Go on from the saved state.
        #[arg(long)]
        resume: bool,
        /// Save the state and stop after this many minutes.
        #[arg(long, value_name = "M")]
        minutes: Option<f64>,
    },
}

/// Arguments of `base audit`.
#[derive(Args)]
pub struct AuditArgs {
    #[command(flatten)]
    pub common: Common,
    /// Also hold another model's log (JSONL with step and train_loss, val_loss or loss) against its floor.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Label smoothing that the log's losses were computed with.
    #[arg(long, value_name = "E", default_value_t = 0.1)]
    pub log_smoothing: f64,
    /// Vocabulary that the label smoothing was spread over.
    #[arg(long, value_name = "N", default_value_t = 8000)]
    pub log_vocabulary: usize,
}

/// Arguments of `base corpus`.
#[derive(Args)]
pub struct CorpusArgs {
    #[command(flatten)]
    pub common: Common,
    /// Folder of Python files that joins the corpus; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub folder: Vec<PathBuf>,
    /// Recipe of packages, in place of the experiment's.
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Run folder, in place of the experiment's.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

impl CorpusArgs {
    /// The experiment with the arguments in place of what its file says.
    pub fn apply(self, mut experiment: Experiment) -> Result<Experiment> {
        let here = std::env::current_dir()?;
        if let Some(pretrain) = &mut experiment.config.base.pretrain {
            pretrain.folders.extend(self.folder.iter().map(|folder| here.join(folder)));
            pretrain.recipe = self.recipe.map(|file| here.join(file)).or(pretrain.recipe.take());
        }
        experiment.config.paths.run = self.output.map_or(experiment.config.paths.run, |folder| here.join(folder));
        Ok(experiment)
    }
}

/// Arguments of `base import`.
#[derive(Args)]
pub struct ImportArgs {
    /// Weights: .pt, .safetensors, or a Hugging Face folder.
    #[arg(long, value_name = "PATH")]
    pub checkpoint: PathBuf,
    /// Architecture file [default: what a Hugging Face folder says].
    #[arg(long, value_name = "FILE")]
    pub arch_json: Option<PathBuf>,
    /// Vocabulary [default: tokenizer.json of a Hugging Face folder].
    #[arg(long, value_name = "FILE")]
    pub tokenizer_path: Option<PathBuf>,
    /// The base folder to write.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Overwrite a base that lies there.
    #[arg(long)]
    pub force: bool,
}

impl ImportArgs {
    /// The request.
    pub fn import(self) -> Import {
        Import {
            checkpoint: self.checkpoint,
            arch: self.arch_json,
            tokenizer: self.tokenizer_path,
            output: self.output,
            force: self.force,
        }
    }
}

/// Audits, imports, gathers or trains, as was asked for.
pub fn run(args: BaseArgs) -> Result<()> {
    match args.verb {
        BaseVerb::Audit(args) => audit(&args),
        BaseVerb::Import(args) => show::imported(&import::run(&args.import())?),
        BaseVerb::Twins(common) => {
            stop_on_request();
            show::twins(&twins::run(&open(&common)?)?)
        }
        BaseVerb::Corpus(args) => {
            let experiment = open(&args.common)?;
            show::corpus(&corpus::run(&with_benchmarks(args.apply(experiment)?)?)?)
        }
        BaseVerb::Train { common, resume, minutes } => {
            stop_on_request();
            let experiment = with_benchmarks(open(&common)?)?;
            show::pretraining(&pretraining::run(&experiment, pretraining::Options { resume, minutes })?)
        }
    }
}

/// Audits the experiment's base, and the log of another where one is named.
fn audit(args: &AuditArgs) -> Result<()> {
    let experiment = open(&args.common)?;
    let base = base_model::run(&experiment)?;
    let log = args.log.as_ref();
    let floor = log.map(|log| base_model::audit_log(&experiment, log, args.log_smoothing, args.log_vocabulary));
    show::base(&base)?;
    floor.transpose()?.map_or(Ok(()), |floor| show::floor(&floor))
}

/// Sees to it that the public benchmarks are there when a corpus of more than the standard library must be held against them.
fn with_benchmarks(experiment: Experiment) -> Result<Experiment> {
    let pretrain = experiment.config.base.pretrain.as_ref();
    let wanted = pretrain.is_some_and(|pretrain| pretrain.recipe.is_some() || !pretrain.folders.is_empty());
    if wanted {
        require_external(&experiment)?;
    }
    Ok(experiment)
}
