//! The arguments of every verb.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use codelora::Experiment;
use codelora::phases::export;
use codelora::phases::import::Import;

use super::bench::BenchArgs;
use super::speed::SpeedArgs;

/// Verified samples, LoRA on candle, a benchmark one can believe.
///
/// Without a verb: walks every phase of the default experiment.
#[derive(Parser)]
#[command(name = "codelora", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// For a call without a verb.
    #[command(flatten)]
    pub common: Common,
}

/// What to do.
#[derive(Subcommand)]
pub enum Verb {
    /// Walk every phase: data, base, LoRA, training, evaluation, decisions.
    #[command(after_help = "Example:\n  codelora run --experiment data/experiments/v2.toml --external ~/datasets")]
    Run(Common),
    /// Phase 1: collect, verify, filter and split samples.
    #[command(after_help = "Example:\n  codelora data --experiment data/experiments/v2.toml --fetch")]
    Data(DataArgs),
    /// Phase 0: audit the base model, or train one.
    #[command(
        after_help = "Examples:\n  codelora base audit\n  codelora base train --experiment data/experiments/base-small.toml --minutes 60"
    )]
    Base(BaseArgs),
    /// Phases 2 and 3: attach the adapter, prove it, train it.
    #[command(after_help = "Example:\n  codelora train --max-steps 100 --lr 5e-4 --output-dir data/runs/try")]
    Train(TrainArgs),
    /// Train at every point of a grid, each in a process of its own, and compare with what the seed does.
    #[command(
        after_help = "Examples:\n  codelora sweep --rank 4,8,16 --seeds 1,2,3\n  codelora sweep --lr 3e-4,1e-3 --targets attention,all-linear --slurm --jobs 8"
    )]
    Sweep(SweepArgs),
    /// Phase 3: measure the base and the adapted model on a benchmark.
    #[command(
        after_help = "Examples:\n  codelora bench --report\n  codelora bench --protocol v1\n  codelora bench --benchmark data/benchmarks/other40.jsonl --samples 5\n  codelora bench --benchmark HumanEval.jsonl --judge samples.jsonl"
    )]
    Bench(BenchArgs),
    /// Judge the gates of the experiment from the records.
    #[command(after_help = "Example:\n  codelora decide --experiment data/experiments/quick.toml")]
    Decide(Common),
    /// Draw every figure again from the records, without running a model.
    #[command(after_help = "Example:\n  codelora figures")]
    Figures(Common),
    /// Set up Jupyter with a Rust kernel under the project and open the notebooks.
    #[command(after_help = "Examples:\n  codelora lab\n  codelora lab --execute 1 4")]
    Lab(LabArgs),
    /// Write the adapter, the base or the merged model for other tools.
    #[command(
        after_help = "Examples:\n  codelora export --output target/merged --merged\n  codelora export --hf target/starcoder2"
    )]
    Export(ExportArgs),
    /// Time fixed workloads and keep the figures under benches/records.
    #[command(
        after_help = "Examples:\n  codelora bench-speed --external data/external\n  codelora bench-speed --only lora-step,decode --repeat 9\n  codelora bench-speed --table"
    )]
    BenchSpeed(SpeedArgs),
}

/// Arguments of every phase.
#[derive(Args, Clone, Default)]
pub struct Common {
    /// Experiment file [default: data/experiments/quick.toml].
    #[arg(long, value_name = "FILE")]
    pub experiment: Option<PathBuf>,
    /// Folder with HumanEval.jsonl and mbpp.jsonl [default: data/external, downloaded when needed].
    #[arg(long, value_name = "DIR")]
    pub external: Option<PathBuf>,
    /// Recompute artifacts that are there already.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `data`.
#[derive(Args)]
pub struct DataArgs {
    #[command(flatten)]
    pub common: Common,
    /// Download the public datasets first.
    #[arg(long)]
    pub fetch: bool,
    /// Vocabulary that counts the tokens, instead of the base's.
    #[arg(long, value_name = "FILE")]
    pub tokenizer_path: Option<PathBuf>,
}

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

/// Arguments of `train`: the plan's own names, each an override of the experiment file.
#[derive(Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub common: Common,
    /// Base weights: .safetensors, or a PyTorch .pt.
    #[arg(long, value_name = "FILE")]
    pub init_checkpoint: Option<PathBuf>,
    /// Architecture of the base weights.
    #[arg(long, value_name = "FILE")]
    pub arch_json: Option<PathBuf>,
    /// Tokenizer of the base weights.
    #[arg(long, value_name = "FILE")]
    pub tokenizer_path: Option<PathBuf>,
    /// Train on these samples instead of phase 1's.
    #[arg(long, value_name = "FILE")]
    pub data_path: Option<PathBuf>,
    /// Validate on these samples instead of phase 1's.
    #[arg(long, value_name = "FILE")]
    pub val_path: Option<PathBuf>,
    /// Where the run goes.
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Optimiser steps.
    #[arg(long, value_name = "N")]
    pub max_steps: Option<usize>,
    /// Peak learning rate.
    #[arg(long)]
    pub lr: Option<f64>,
    /// Samples in a step.
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Steps between evaluations and checkpoints.
    #[arg(long, value_name = "N")]
    pub eval_interval: Option<usize>,
    /// Insist on going on from a saved state; a run that was stopped goes on in any case.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
}

/// Arguments of `sweep`. A value that is not named is the experiment's.
#[derive(Args)]
pub struct SweepArgs {
    #[command(flatten)]
    pub common: Common,
    /// Ranks; alpha grows with the rank.
    #[arg(long, value_name = "R,…", value_delimiter = ',')]
    pub rank: Vec<usize>,
    /// Peak learning rates.
    #[arg(long, value_name = "X,…", value_delimiter = ',')]
    pub lr: Vec<f64>,
    /// Targets; several layers of one point are joined by +, as in qkv+out_proj.
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    pub targets: Vec<String>,
    /// Numbers of training samples; 0 is all.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub samples: Vec<usize>,
    /// Seeds of the adapter, the batches and dropout.
    #[arg(long, value_name = "S,…", value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// Where the sweep goes; one that lies there goes on [default: the run's folder with -sweep].
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Points at a time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub jobs: usize,
    /// How often a point that failed is started again.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub retries: usize,
    /// Submit the points as a Slurm job array instead of running them here.
    #[arg(long)]
    pub slurm: bool,
    /// Run the point in this folder.
    #[arg(long, value_name = "DIR", hide = true)]
    pub point: Option<PathBuf>,
    /// Write the table and the figure of the sweep in this folder.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

/// Arguments of `lab`.
#[derive(Args)]
pub struct LabArgs {
    /// Execute notebooks headless, in order, and save them; all, or those with these numbers.
    #[arg(long, value_name = "N", num_args = 0..)]
    pub execute: Option<Vec<usize>>,
    /// Execute notebooks into copies under target/notebooks, and compare what they show with what is saved.
    #[arg(long, value_name = "N", num_args = 0.., conflicts_with = "execute")]
    pub check: Option<Vec<usize>>,
    /// Print where Jupyter listens instead of opening a browser.
    #[arg(long)]
    pub no_browser: bool,
    /// Render the notebooks as pages into target/site.
    #[arg(long)]
    pub html: bool,
    /// Print versions and what is missing.
    #[arg(long)]
    pub doctor: bool,
    /// Become the kernel of this Jupyter connection.
    #[arg(long, value_name = "FILE", hide = true)]
    pub kernel: Option<PathBuf>,
}

/// Arguments of `export`.
#[derive(Args)]
#[group(id = "where", required = true, multiple = false, args = ["output", "hf"])]
pub struct ExportArgs {
    #[command(flatten)]
    pub common: Common,
    /// Write the adapter here, in PEFT's layout; with --merged, a base folder.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Write a folder that transformers loads as Starcoder2ForCausalLM: the base and, under `adapter`, the adapter for it;
    /// with --merged, one model.
    #[arg(long, value_name = "DIR")]
    pub hf: Option<PathBuf>,
    /// Merge the adapter into the base.
    #[arg(long)]
    pub merged: bool,
}

impl DataArgs {
    /// The experiment with the arguments in place of what its file says.
    pub fn apply(&self, mut experiment: Experiment) -> Result<Experiment> {
        if let Some(file) = &self.tokenizer_path {
            experiment.config.data.tokenizer = Some(from_here(&experiment, file)?);
        }
        Ok(experiment)
    }
}

impl TrainArgs {
    /// Refuses to resume what was never begun.
    pub fn check(&self, experiment: &Experiment) -> Result<()> {
        let folder = experiment.run_file("training");
        if self.resume && !folder.join("state.safetensors").is_file() {
            anyhow::bail!(
                "there is no saved state in {}\n  remedy: name the run's --output-dir, or start without --resume",
                folder.display()
            );
        }
        Ok(())
    }

    /// The experiment with the arguments in place of what its file says.
    pub fn apply(&self, mut experiment: Experiment) -> Experiment {
        let config = &mut experiment.config;
        config.base.checkpoint = self.init_checkpoint.clone().or(config.base.checkpoint.take());
        config.base.arch = self.arch_json.clone().or(config.base.arch.take());
        config.base.tokenizer = self.tokenizer_path.clone().or(config.base.tokenizer.take());
        config.train.data = self.data_path.clone().or(config.train.data.take());
        config.train.validation = self.val_path.clone().or(config.train.validation.take());
        if let Some(folder) = &self.output_dir {
            config.paths.run = folder.clone();
            // Another run has its own figures and records; those of the experiment stay.
            config.paths.figures = folder.join("figures");
        }
        config.train.steps = self.max_steps.unwrap_or(config.train.steps);
        config.train.lr = self.lr.unwrap_or(config.train.lr);
        config.train.batch_size = self.batch_size.unwrap_or(config.train.batch_size);
        config.train.eval_every = self.eval_interval.unwrap_or(config.train.eval_every);
        experiment
    }
}

/// Puts an argument in its place, where it was given.
pub fn set<T>(place: &mut T, argument: Option<T>) {
    if let Some(value) = argument {
        *place = value;
    }
}

/// A path of the command line, which starts from the working folder, as the experiment wants it: from the project's root.
pub fn from_here(experiment: &Experiment, path: &Path) -> Result<PathBuf> {
    let whole = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path))?;
    Ok(whole.strip_prefix(&experiment.root).map(Path::to_path_buf).unwrap_or(whole))
}

impl ExportArgs {
    /// Writes the export.
    pub fn run(&self, experiment: &Experiment) -> Result<()> {
        if let Some(folder) = &self.hf {
            let adapter = export::hugging_face(experiment, folder, self.merged)?;
            let model = if self.merged { "merged model" } else { "base" };
            println!("{model} exported to {}", folder.display());
            if let Some(adapter) = adapter {
                println!("adapter for it exported to {}", adapter.display());
            }
        } else if let Some(folder) = &self.output {
            if self.merged {
                export::merged(experiment, folder)?;
            } else {
                export::adapter(experiment, folder)?;
            }
            println!("exported to {}", folder.display());
        }
        Ok(())
    }
}
