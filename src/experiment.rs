//! An experiment file (TOML): every scientific value, stated with its reason before the run.
//!
//! A phase depends on some sections of the file; the digest of those sections is stamped on what the phase leaves
//! behind ([`Experiment::digest`]), so that an artifact of another experiment is never reused in silence.

mod base;
mod bench;
mod data;
mod defaults;
mod gate;
mod lora;
mod optimizer;
mod train;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};
use crate::seed::sha256;

pub use base::{BaseConfig, PretrainConfig, Stored};
pub use bench::BenchConfig;
pub use data::{DataConfig, QualityLimits, Source, SplitConfig, SplitPlan};
pub use gate::{GateConfig, Rule};
pub use lora::LoraConfig;
pub use optimizer::{Compute, OptimizerConfig, Schedule, Stepping};
pub use train::TrainConfig;

/// Where the public datasets are looked for and downloaded to, unless the user names a folder: below the project's root.
pub const EXTERNAL: &str = "data/external";

/// An experiment, opened: its configuration, where it stands and whether artifacts must be recomputed.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// The parsed file.
    pub config: Config,
    /// The project's root: the nearest ancestor of the file that holds `Cargo.toml`, else the working folder.
    pub root: PathBuf,
    /// The experiment file itself.
    pub file: PathBuf,
    /// Folder with `HumanEval.jsonl` and `mbpp.jsonl`; `data/external` unless the user names another.
    pub external: PathBuf,
    /// Recompute artifacts even when they are there.
    pub force: bool,
}

/// The parsed experiment file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Short name; also the name of the run.
    pub name: String,
    /// The question this experiment answers, in one sentence.
    pub question: String,
    /// The seed from which every generator is derived.
    pub seed: u64,
    /// Where artifacts go.
    pub paths: Paths,
    /// Phase 1.
    pub data: DataConfig,
    /// The base model that is adapted.
    pub base: BaseConfig,
    /// The adapter.
    pub lora: LoraConfig,
    /// How the adapter is trained.
    pub train: TrainConfig,
    /// How it is measured.
    pub bench: BenchConfig,
    /// Gates, declared before the run.
    #[serde(rename = "gate")]
    pub gates: Vec<GateConfig>,
}

/// Folders of an experiment, relative to the project's root.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    /// Converted samples and splits: `v2_raw/*.jsonl`, `v2_train.jsonl`, `v2_val.jsonl`.
    pub data: PathBuf,
    /// The run: metrics, adapter, attempts, decisions.
    pub run: PathBuf,
    /// Figures, and under `records/` a copy of the numbers they are drawn from.
    pub figures: PathBuf,
}

/// The phases, in the order of the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Collect, verify, filter and split samples.
    Data,
    /// Load and audit the base model.
    Base,
    /// Attach and prove the adapter.
    Lora,
    /// Train the adapter.
    Training,
    /// Measure before and after.
    Evaluation,
    /// Judge the gates.
    Decisions,
}

impl Experiment {
    /// Opens an experiment file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Malformed`] with the line when a key is unknown, missing or of
    /// the wrong type.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let text = fs::read_to_string(file).map_err(Error::io("read", file))?;
        let config: Config = toml::from_str(&text).map_err(|e| {
            let line = e.span().map(|span| text[..span.start].matches('\n').count() + 1);
            Error::malformed(file, line, e.message().to_string(), "compare with data/experiments/quick.toml")
        })?;
        let file = file.canonicalize().map_err(Error::io("read", file))?;
        let root = match file.ancestors().find(|folder| folder.join("Cargo.toml").is_file()) {
            Some(root) => root.to_path_buf(),
            None => std::env::current_dir().map_err(Error::io("read", "."))?,
        };
        let external = root.join(EXTERNAL);
        Ok(Self { config, root, file, external, force: false })
    }

    /// The same experiment with artifacts recomputed.
    #[must_use]
    pub fn forced(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// The same experiment with another external folder.
    #[must_use]
    pub fn with_external(mut self, folder: impl Into<PathBuf>) -> Self {
        self.external = folder.into();
        self
    }

    /// A path of the file, made absolute at the project's root.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// A file of the run's folder.
    pub fn run_file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path(&self.config.paths.run).join(name)
    }

    /// A file of the data folder.
    pub fn data_file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path(&self.config.paths.data).join(name)
    }

    /// The base's architecture file.
    pub fn arch_file(&self) -> PathBuf {
        self.base_file(&self.config.base.arch, "arch.json")
    }

    /// The base's tokenizer.
    pub fn tokenizer_file(&self) -> PathBuf {
        self.base_file(&self.config.base.tokenizer, "tokenizer.json")
    }

    /// The base's weights.
    pub fn checkpoint_file(&self) -> PathBuf {
        self.base_file(&self.config.base.checkpoint, "model.safetensors")
    }

    fn base_file(&self, named: &Option<PathBuf>, usual: &str) -> PathBuf {
        named.as_ref().map_or_else(|| self.path(&self.config.base.folder).join(usual), |file| self.path(file))
    }

    /// The folder of the adapter that is measured: the run's own unless another is named.
    pub fn adapter_folder(&self) -> PathBuf {
        self.config.bench.adapter.as_ref().map_or_else(|| self.run_file("adapter"), |folder| self.path(folder))
    }

    /// The seed of the adapter, the batches and dropout.
    pub fn train_seed(&self) -> u64 {
        self.config.train.seed.unwrap_or(self.config.seed)
    }

    /// Whether the experiment reads the public datasets.
    pub fn needs_external(&self) -> bool {
        self.config.data.sources.iter().any(|source| matches!(source, Source::Humaneval | Source::Mbpp))
    }

    /// Whether the external folder has the public datasets.
    pub fn has_external(&self) -> bool {
        ["HumanEval.jsonl", "mbpp.jsonl"].iter().all(|name| self.external.join(name).is_file())
    }

    /// The record of a phase in the run's folder: what the phase found, from which its figures are drawn.
    pub fn record_file(&self, name: &str) -> PathBuf {
        self.run_file("records").join(name).with_extension("json")
    }

    /// Removes a record that is about to be made anew under `force`: a run that is stopped midway must not leave the old one to be
    /// taken for its own.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn forget(&self, record: &Path) -> Result<()> {
        if self.force { artifact::remove(record) } else { Ok(()) }
    }

    /// The copy of a record beside the figures, from which they can be drawn again without the run.
    pub fn published_record(&self, name: &str) -> PathBuf {
        self.path(&self.config.paths.figures).join("records").join(name).with_extension("json")
    }

    /// SHA-256 over the sections that `phase` depends on. Comments and layout of the file do not count.
    pub fn digest(&self, phase: Phase) -> String {
        let c = &self.config;
        let json = |value: serde_json::Result<serde_json::Value>| value.expect("a configuration is always JSON");
        let mut sections = vec![json(serde_json::to_value(c.seed)), json(serde_json::to_value(&c.base))];
        let mut add = |from: Phase, value| {
            if phase >= from {
                sections.push(json(value));
            }
        };
        if phase != Phase::Base {
            add(Phase::Data, serde_json::to_value(&c.data));
        }
        add(Phase::Lora, serde_json::to_value(&c.lora));
        add(Phase::Training, serde_json::to_value(&c.train));
        add(Phase::Evaluation, serde_json::to_value(&c.bench));
        add(Phase::Decisions, serde_json::to_value(&c.gates));
        sha256(serde_json::Value::Array(sections).to_string())
    }
}
