//! What a run writes down: one row a step, one row an evaluation, one record for the whole.
//!
//! Covered: the rows, the JSON Lines file and its repair on resume. Not covered: figures, which only read these.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};
use crate::sandbox::Outcome;

/// One optimiser step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, counted from 1.
    pub step: usize,
    /// Mean cross-entropy over the step's supervised tokens, in nats/token (label smoothing included).
    pub loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Supervised tokens in the step.
    pub tokens: usize,
    /// Share of the computed positions that was padding, in [0, 1].
    pub padding: f64,
    /// Computed tokens (padding left out) per second of this step.
    pub tokens_per_second: f64,
}

impl StepRecord {
    /// What TensorBoard shows of a step.
    pub fn scalars(&self) -> [(&'static str, f64); 4] {
        [
            ("loss/batch", self.loss),
            ("step/learning_rate", self.lr),
            ("step/gradient_norm", self.grad_norm),
            ("step/tokens_per_second", self.tokens_per_second),
        ]
    }
}

/// What the model wrote when it was asked to, in the midst of training: loss alone hides a collapse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratedCheck {
    /// Completions judged.
    pub samples: usize,
    /// Share that passed its tests.
    pub pass_rate: f64,
    /// Share that Python can parse.
    pub syntax_valid_rate: f64,
    /// Share that repeats itself or is white space.
    pub collapse_rate: f64,
    /// Mean length in tokens.
    pub mean_tokens: f64,
}

impl GeneratedCheck {
    /// What became of completions: of each its outcome and its length in tokens.
    pub fn of<'a>(completions: impl Iterator<Item = (&'a Outcome, usize)>) -> Self {
        let (outcomes, tokens): (Vec<&Outcome>, Vec<usize>) = completions.unzip();
        let each = outcomes.len().max(1) as f64;
        let share =
            |holds: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| holds(outcome)).count() as f64 / each;
        Self {
            samples: outcomes.len(),
            pass_rate: share(|outcome| *outcome == Outcome::Passed),
            syntax_valid_rate: share(|o| !matches!(o, Outcome::SyntaxError | Outcome::Empty | Outcome::Collapsed)),
            collapse_rate: share(|outcome| *outcome == Outcome::Collapsed),
            mean_tokens: tokens.iter().sum::<usize>() as f64 / each,
        }
    }
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRow {
    /// After this many steps; 0 is before the first.
    pub step: usize,
    /// How many steps' weights were averaged into the ones measured; 0: those of the step itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub averaged: usize,
    /// Loss on a fixed subset of the training data, without dropout and smoothing, in nats/token; not a number where there is none.
    #[serde(deserialize_with = "number_or_nan")]
    pub train_loss: f64,
    /// Loss on a fixed subset of the held-out data, without dropout and smoothing, in nats/token; not a number where nothing is held
    /// out.
    #[serde(deserialize_with = "number_or_nan")]
    pub validation_loss: f64,
    /// The held-out loss in bits per byte of text, which does not depend on the vocabulary; where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// Generated code, where it was checked.
    pub generated: Option<GeneratedCheck>,
}

/// JSON has no NaN and writes null for it.
pub(super) fn number_or_nan<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl EvaluationRow {
    /// What TensorBoard shows of an evaluation.
    pub fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut found = vec![("loss/train", self.train_loss), ("loss/validation", self.validation_loss)];
        found.extend(self.bits_per_byte.map(|bits| ("loss/bits_per_byte", bits)));
        found.extend(self.generated.iter().flat_map(|check| {
            [
                ("generated/pass_rate", check.pass_rate),
                ("generated/syntax_valid_rate", check.syntax_valid_rate),
                ("generated/collapse_rate", check.collapse_rate),
                ("generated/mean_tokens", check.mean_tokens),
            ]
        }));
        found
    }
}

impl fmt::Display for EvaluationRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, train_loss, validation_loss, .. } = self;
        write!(f, "step {step}  train {train_loss:.4}  validation {validation_loss:.4} nats/token")?;
        if let Some(bits) = self.bits_per_byte {
            write!(f, "  {bits:.4} bits/byte")?;
        }
        if self.averaged > 0 {
            write!(f, "  mean of {} steps", self.averaged)?;
        }
        let Some(written) = &self.generated else { return Ok(()) };
        write!(
            f,
            "  passed {:.0} %  parses {:.0} %  collapsed {:.0} %  {:.0} tokens",
            100.0 * written.pass_rate,
            100.0 * written.syntax_valid_rate,
            100.0 * written.collapse_rate,
            written.mean_tokens
        )
    }
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "detail")]
pub enum StopReason {
    /// All steps were taken.
    Finished,
    /// The validation result did not improve for this many evaluations.
    Patience(usize),
    /// This share of the generated samples had collapsed.
    Collapsed(f64),
    /// The time that was allowed is over, in minutes; the run can be resumed.
    TimeUp(f64),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => write!(f, "all steps were taken"),
            Self::Patience(evaluations) => write!(f, "stopped early: {evaluations} evaluations without a better one"),
            Self::Collapsed(share) => {
                write!(f, "stopped by the alarm: {:.0} % of what the model wrote had collapsed", 100.0 * share)
            }
            Self::TimeUp(minutes) => write!(f, "stopped after {minutes:.0} min, the time allowed; it can be resumed"),
        }
    }
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
    /// Name of the run.
    pub name: String,
    /// Digest of the experiment's sections that the run depends on.
    pub digest: String,
    /// Digest of those sections together with the base and the samples that the run was fed.
    pub inputs: String,
    /// Trainable parameters.
    pub trainable_parameters: usize,
    /// Every step.
    pub steps: Vec<StepRecord>,
    /// Every evaluation.
    pub evaluations: Vec<EvaluationRow>,
    /// Supervised tokens seen.
    pub tokens_seen: usize,
    /// Wall time over all parts of the run, in seconds.
    pub seconds: f64,
    /// The step whose weights the run leaves behind.
    pub kept_step: usize,
    /// Why it ended.
    pub stop: StopReason,
}

impl TrainingRecord {
    /// Mean share of padding among the computed positions of a step; 0 without steps.
    pub fn padding(&self) -> f64 {
        self.steps.iter().map(|step| step.padding).sum::<f64>() / self.steps.len().max(1) as f64
    }

    /// The evaluation of the weights that the run leaves behind.
    pub fn kept_evaluation(&self) -> Option<&EvaluationRow> {
        self.evaluations.iter().rev().find(|row| row.step == self.kept_step)
    }
}

/// Appends rows to a JSON Lines file, each flushed at once so that another process can follow the run.
#[derive(Debug, Clone)]
pub struct MetricsFile {
    path: PathBuf,
}

impl MetricsFile {
    /// Opens the file for a run that stands at `step`: rows of later steps, left by a run that was killed after its
    /// last checkpoint, are dropped. `step_of` names a row's step. Returns the rows that stay.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Malformed`].
    pub fn open<T>(path: &Path, step: usize, step_of: impl Fn(&T) -> usize) -> Result<(Self, Vec<T>)>
    where
        T: Serialize + serde::de::DeserializeOwned,
    {
        let mut rows: Vec<T> = Vec::new();
        if path.is_file() && step > 0 {
            let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
            // A kill can cut the last line short; what follows the last newline was never finished.
            let whole = text.rfind('\n').map_or("", |at| &text[..at]);
            for (number, line) in (1..).zip(whole.lines()) {
                let remedy = "remove the line, or use --force";
                rows.push(
                    serde_json::from_str(line).map_err(|e| Error::malformed(path, number, e.to_string(), remedy))?,
                );
            }
            rows.retain(|row| step_of(row) <= step);
        }
        artifact::write_jsonl(path, &rows)?;
        Ok((Self { path: path.to_path_buf() }, rows))
    }

    /// Appends one row.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append<T: Serialize>(&self, row: &T) -> Result<()> {
        let mut line = serde_json::to_vec(row).map_err(|e| Error::io("write", &self.path)(e.into()))?;
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).open(&self.path).map_err(Error::io("open", &self.path))?;
        file.write_all(&line).map_err(Error::io("write", &self.path))
    }
}
