//! An experiment file (TOML): every scientific value, stated with its reason before the run.
//!
//! A phase depends on some sections of the file; the digest of those sections is stamped on what the phase leaves
//! behind ([`Experiment::digest`]), so that an artifact of another experiment is never reused in silence.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::seed::sha256;

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

/// A family of rows that phase 1 collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// HumanEval, from the external folder.
    Humaneval,
    /// MBPP, from the external folder.
    Mbpp,
    /// Our own tasks in HumanEval's schema.
    EmbeddedHumaneval,
    /// Our own tasks in MBPP's schema.
    EmbeddedMbpp,
    /// Generated exercises.
    Exercises,
    /// Samples made elsewhere, from [`DataConfig::import`].
    Imported,
}

impl Source {
    /// The name used in files and tables, e.g. `embedded_mbpp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Humaneval => "humaneval",
            Self::Mbpp => "mbpp",
            Self::EmbeddedHumaneval => "embedded_humaneval",
            Self::EmbeddedMbpp => "embedded_mbpp",
            Self::Exercises => "exercises",
            Self::Imported => "imported",
        }
    }
}

/// Phase 1: what is collected, what is rejected, how it is split.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The sources, in the order of precedence among duplicates.
    pub sources: Vec<Source>,
    /// How many exercises to generate.
    #[serde(default)]
    pub exercises: usize,
    /// Files of families they are drawn from, without `.toml`; empty: all of `data/exercises`.
    #[serde(default)]
    pub exercise_files: Vec<String>,
    /// JSONL of samples made elsewhere, in the raw schema of `v2_raw`.
    #[serde(default)]
    pub import: Option<PathBuf>,
    /// Seconds a sample's tests may take.
    pub time_limit_s: f64,
    /// Longest body, in lines.
    pub max_body_lines: usize,
    /// Longest sample: prompt + solution + EOS, in tokens of the base's vocabulary.
    pub max_tokens: usize,
    /// Largest cyclomatic complexity of a "simple" sample.
    pub max_complexity: usize,
    /// Most distinct names that a "simple" sample binds: parameters, variables, functions.
    #[serde(default = "many_names")]
    pub max_names: usize,
    /// Modules a sample may import; empty: all of Python's standard library.
    #[serde(default)]
    pub dependencies: Vec<String>,
    /// Similarity (Jaccard, token 5-grams) from which two samples are near-duplicates.
    pub near_duplicate: f64,
    /// Vocabulary that counts the tokens; absent: `tokenizer.json` of the base folder.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// Task files besides the benchmark whose functions must not be training data either.
    #[serde(default)]
    pub keep_out: Vec<PathBuf>,
    /// What a good collection must reach; when it does not, a worklist for curation by hand is written.
    #[serde(default)]
    pub quality: QualityLimits,
    /// How the verified samples are divided.
    pub split: SplitConfig,
}

fn many_names() -> usize {
    20
}

/// What a good collection must reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityLimits {
    /// Least share of converted rows that pass their own tests.
    pub verified_rate: f64,
    /// Largest share of verified samples that repeat an earlier one.
    pub duplicate_rate: f64,
    /// Largest share of verified samples that repeat the benchmark.
    pub contaminated_rate: f64,
}

impl Default for QualityLimits {
    /// 95 % verified; 15 % duplicates and 15 % contaminated, both about twice what the public datasets show.
    fn default() -> Self {
        Self { verified_rate: 0.95, duplicate_rate: 0.15, contaminated_rate: 0.15 }
    }
}

/// How the verified samples are divided.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// Which rows may train.
    pub plan: SplitPlan,
    /// Most samples in train; 0 means no limit.
    pub train: usize,
    /// Samples in validation.
    pub validation: usize,
}

/// Which rows may train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitPlan {
    /// The earlier attempt's plan: HumanEval and all of MBPP in one pot, stratified by source. Nothing is held out.
    Pooled,
    /// HumanEval + MBPP 1–10 and 511–974 train; validation from MBPP 11–70; MBPP 71–510 held out.
    Honest,
}

/// The base model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseConfig {
    /// Folder with `arch.json`, `tokenizer.json` and `model.safetensors`.
    pub folder: PathBuf,
    /// Architecture file in place of the folder's.
    #[serde(default)]
    pub arch: Option<PathBuf>,
    /// Tokenizer in place of the folder's.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// Weights in place of the folder's: `.safetensors`, or a PyTorch `.pt`.
    #[serde(default)]
    pub checkpoint: Option<PathBuf>,
    /// How the base is pre-trained; absent when it is only used.
    #[serde(default)]
    pub pretrain: Option<PretrainConfig>,
}

/// How a base model is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Architecture file.
    pub arch: PathBuf,
    /// Folder of a base whose weights and vocabulary training goes on from; absent: from fresh weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Size of the byte-level BPE vocabulary to train, or 0 to use `tokenizer.json` in the base folder.
    pub vocabulary: usize,
    /// Share of tokens drawn from raw code, in [0, 1]; the rest comes from exercises and docstring pairs.
    pub raw_share: f64,
    /// Share of tokens drawn from (signature + docstring → body) pairs of real code.
    pub pair_share: f64,
    /// Distinct exercises to generate.
    pub exercises: usize,
    /// Files of families they are drawn from, without `.toml`; empty: all of `data/exercises`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exercise_files: Vec<String>,
    /// Recipe of packages whose code joins the standard library's; see `data/corpus.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
    /// Folders of Python files that join it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<PathBuf>,
    /// Whether tests among those files are kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_tests: bool,
    /// Micro-batches summed into one step; `batch_size` sequences are divided among them.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub accumulation: usize,
    /// The device and the type of floats it computes in; the weights themselves are always f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// How the base folder keeps the weights.
    #[serde(default, skip_serializing_if = "Stored::is_f16")]
    pub stored: Stored,
    /// Optimiser settings.
    #[serde(flatten)]
    pub optimizer: OptimizerConfig,
    /// Sequences in a step.
    pub batch_size: usize,
    /// Tokens in a sequence.
    pub context: usize,
    /// Label smoothing ε: the target keeps 1 − ε, the rest is spread over the vocabulary.
    pub label_smoothing: f64,
    /// Steps between evaluations.
    pub eval_every: usize,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn once() -> usize {
    1
}

fn is_once(value: &usize) -> bool {
    *value == 1
}

/// In what a base's weights lie on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stored {
    /// Two bytes a weight.
    #[default]
    F16,
    /// One byte a weight, a scale a row; see [`crate::model::quantize`].
    Int8,
}

impl Stored {
    fn is_f16(&self) -> bool {
        *self == Self::F16
    }
}

/// Where a model is computed, and in which floats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compute {
    /// The processor, f32.
    #[default]
    Cpu,
    /// The first CUDA device, f32.
    Cuda,
    /// The first CUDA device, bf16 with f32 master weights.
    CudaBf16,
}

/// Optimiser and schedule, shared by pre-training and adaptation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm.
    pub clip: f64,
    /// Share of the steps, the last ones, over which the weights are averaged, in [0, 1): what is evaluated and left behind is
    /// then their mean. 0 averages nothing.
    #[serde(default, skip_serializing_if = "is::<0>")]
    pub average_last: f64,
}

/// The learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays at the peak.
    Constant,
    /// Half a cosine down to zero.
    Cosine,
    /// A straight line down to zero.
    Linear,
    /// Stays at the peak, then falls linearly to zero over the last fifth (warm-up, stable, decay).
    Wsd,
}

/// The adapter (Hu et al. 2021).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank r of the update.
    pub rank: usize,
    /// Scale numerator: the update is α/r · B·A.
    pub alpha: f64,
    /// Dropout on the adapter's input, in training only.
    pub dropout: f64,
    /// Names of the linear layers to adapt (`qkv`, `out_proj`, `fc1`, `fc2`, `lm_head`) or a preset
    /// (`attention`, `all-linear`).
    pub targets: Vec<String>,
    /// Scale by α/√r instead of α/r (rank-stabilised LoRA).
    #[serde(default)]
    pub rslora: bool,
    /// Weight-decomposed adaptation (DoRA).
    #[serde(default)]
    pub dora: bool,
    /// Learning-rate ratio of B to A (LoRA+).
    #[serde(default = "one")]
    pub lr_ratio: f64,
    /// Rank for single targets, where it differs from `rank`.
    #[serde(default)]
    pub rank_pattern: std::collections::BTreeMap<String, usize>,
    /// Alpha for single targets, where it differs from `alpha`.
    #[serde(default)]
    pub alpha_pattern: std::collections::BTreeMap<String, f64>,
}

fn one() -> f64 {
    1.0
}

/// How the adapter is trained.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Samples in a step.
    pub batch_size: usize,
    /// Micro-batches summed into one step.
    pub accumulation: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm.
    pub clip: f64,
    /// Share of the steps, the last ones, over which the adapter is averaged, in [0, 1); 0 averages nothing.
    #[serde(default, skip_serializing_if = "is::<0>")]
    pub average_last: f64,
    /// The device and the type of floats it computes in; the weights themselves are always f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// Label smoothing ε.
    pub label_smoothing: f64,
    /// Steps between evaluations and checkpoints.
    pub eval_every: usize,
    /// Evaluations without improvement before the run stops; 0 never stops.
    pub patience: usize,
    /// JSONL of samples to train on, in place of phase 1's.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// JSONL of samples to validate on, in place of phase 1's.
    #[serde(default)]
    pub validation: Option<PathBuf>,
    /// Train on this many samples, the first of a fixed shuffle; absent: on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// Seed of the adapter, the batches and dropout, where it is not the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// How a checkpoint is measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchConfig {
    /// Task file.
    pub benchmark: PathBuf,
    /// Samples per task.
    pub samples: usize,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens with this probability mass; 1 keeps all.
    pub top_p: f64,
    /// Most tokens in a completion.
    pub max_new_tokens: usize,
    /// Prompt template: a name from [`crate::bench::tasks`].
    pub template: String,
    /// Seconds a program may run.
    pub time_limit_s: f64,
    /// Adapter folder to measure, in place of the run's own.
    #[serde(default)]
    pub adapter: Option<PathBuf>,
    // What stands at its default is left out of the digest: a file that does not name it is the experiment it was.
    /// Where completions are sampled, always in f32; absent: on the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// Keep tokens with at least this share of the likeliest token's probability; 0 keeps all.
    #[serde(default, skip_serializing_if = "is::<0>")]
    pub min_p: f64,
    /// Divides the logits of tokens that occurred before; 1 changes nothing.
    #[serde(default = "one", skip_serializing_if = "is::<1>")]
    pub repetition_penalty: f64,
    /// Strings that end a completion, besides the end of the function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Candidates drawn for every sample; the one with the highest mean ln p per token is the sample. 1 chooses nothing.
    #[serde(default = "single", skip_serializing_if = "is_single")]
    pub best_of: usize,
    /// How often the earlier protocol's single sample is drawn, beside the declared protocol; 0 leaves it out.
    #[serde(default = "usual_v1_draws", skip_serializing_if = "is_usual")]
    pub v1_draws: usize,
}

/// Five draws: one alone says little, and five cost a quarter of the declared protocol's twenty samples.
fn usual_v1_draws() -> usize {
    5
}

fn is_usual(draws: &usize) -> bool {
    *draws == usual_v1_draws()
}

fn single() -> usize {
    1
}

fn is_single(count: &usize) -> bool {
    *count == single()
}

fn is<const VALUE: u8>(value: &f64) -> bool {
    *value == f64::from(VALUE)
}

/// A gate: a metric, a rule, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Short name, e.g. `enough verified samples`.
    pub name: String,
    /// The metric, e.g. `data.verified` or `bench.after.pass_at_1`.
    pub metric: String,
    /// How the metric is held against the threshold.
    pub rule: Rule,
    /// The threshold.
    pub threshold: f64,
    /// Below this the verdict is `fail`, from here to the threshold `inconclusive`; absent: the threshold itself.
    #[serde(default)]
    pub fail_below: Option<f64>,
    /// Why this threshold.
    pub reason: String,
    /// What to do when it passes.
    pub on_pass: String,
    /// What to do when it fails.
    pub on_fail: String,
}

/// How a metric is held against its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The metric, or the lower end of its interval, is at least the threshold.
    AtLeast,
    /// The metric, or the upper end of its interval, is at most the threshold.
    AtMost,
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
        let external = root.join("data/external");
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
