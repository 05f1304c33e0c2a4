//! The arguments of every verb.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use codelora::Experiment;
use codelora::phases::export;

use super::base::BaseArgs;
use super::bench::BenchArgs;
use super::speed::SpeedArgs;
use super::train::TrainArgs;

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
    /// Phase 4: measure the base and the adapted model on a benchmark.
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
    #[command(
        after_help = "Examples:\n  codelora lab\n  codelora lab --execute 1 4\n  codelora lab --experiment data/experiments/v2.toml"
    )]
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
    /// Measure every point's adapter on the experiment's benchmark as well; no setting is ranked by it.
    #[arg(long)]
    pub bench: bool,
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
    /// Walk this experiment, in copies of the notebooks under notebooks/own; one that is there keeps what was written into it.
    #[arg(long, value_name = "FILE")]
    pub experiment: Option<PathBuf>,
    /// Folder with HumanEval.jsonl and mbpp.jsonl, for an experiment that needs them.
    #[arg(long, value_name = "DIR", requires = "experiment")]
    pub external: Option<PathBuf>,
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
