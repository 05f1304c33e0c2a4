//! Proofs about a base model, each with a verdict: what would have caught the earlier failure on its first day.
//!
//! The earlier model was trained without a causal mask: every position saw the token it had to predict. Its loss looked
//! perfect, and stood 0.03 nats above the floor that label smoothing leaves even to a model that knows the answer.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};
use crate::model::config::{ArchConfig, Attention};
use crate::model::dropout::Dropout;
use crate::model::init::init;
use crate::model::transformer::Transformer;
use crate::seed;

/// A reported loss this close to its floor, in nats per token, is no language model's.
const FLOOR_MARGIN: f64 = 0.1;
/// Without the mask a causally trained model gains nothing; one trained without it falls to a fraction.
const LEAK_RATIO: f64 = 0.7;
/// The loss on its one batch that a model able to learn must reach, in nats per token.
const OVERFIT_LOSS: f64 = 0.1;

/// What an audit concludes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The audit: `causality`, `leak`, `label-smoothing floor`, `gradient`, `overfit`.
    pub audit: String,
    /// Whether the model passes.
    pub sound: bool,
    /// The measurement and what it means, in a sentence.
    pub says: String,
}

/// Every audit of one base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Changing a token leaves all logits before it unchanged.
    pub causality: Causality,
    /// Loss with and without the mask.
    pub leak: Leak,
    /// Reported losses against their floor, when a log was given.
    pub floor: Option<Floor>,
    /// Tensors with a gradient.
    pub gradient: Gradient,
    /// One batch learned by heart.
    pub overfit: Overfit,
}

impl AuditRecord {
    /// Runs every audit. `ids` `(batch, seq)` u32 is real code; `log` a JSONL of reported losses with the smoothing ε and
    /// the vocabulary they were computed with.
    ///
    /// # Errors
    /// [`Error::Tensor`]; [`Error::Invalid`] when `ids` is shorter than two tokens; those of [`floor_of_log`].
    pub fn new(model: &Transformer, ids: &Tensor, log: Option<(&Path, f64, usize)>, seed: u64) -> Result<Self> {
        let floor = log.map(|(file, smoothing, vocab)| floor_of_log(file, smoothing, vocab)).transpose()?;
        Ok(Self {
            causality: causality(model, &ids.narrow(0, 0, 1)?)?,
            leak: leak(model, ids)?,
            floor,
            gradient: gradient(model, ids)?,
            overfit: overfit(model.config(), ids, seed)?,
        })
    }

    /// The conclusions, in order.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = vec![self.causality.finding(), self.leak.finding()];
        findings.extend(self.floor.as_ref().map(Floor::finding));
        findings.extend([self.gradient.finding(), self.overfit.finding()]);
        findings
    }
}

fn finding(audit: &str, sound: bool, says: String) -> Finding {
    Finding { audit: audit.into(), sound, says }
}

/// The causality audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Causality {
    /// Tokens changed, one at a time.
    pub changed: usize,
    /// Earlier logits that moved in any bit, over all changes.
    pub earlier_logits_moved: usize,
    /// Later logits that moved; none would mean that the probe is blind.
    pub later_logits_moved: usize,
}

impl Causality {
    /// The verdict.
    pub fn finding(&self) -> Finding {
        let sound = self.earlier_logits_moved == 0 && self.later_logits_moved > 0;
        let says = if sound {
            format!("{} changed tokens left every earlier logit unchanged to the bit", self.changed)
        } else {
            let moved = self.earlier_logits_moved;
            format!("{} changed tokens moved {moved} earlier logits: a position sees its future", self.changed)
        };
        finding("causality", sound, says)
    }
}

/// Changes tokens of `ids` `(1, seq)` one at a time and compares all logits before them, bit by bit.
///
/// # Errors
/// [`Error::Tensor`].
pub fn causality(model: &Transformer, ids: &Tensor) -> Result<Causality> {
    let tokens = ids.flatten_all()?.to_vec1::<u32>()?;
    let bits = |tokens: &[u32]| -> Result<Vec<u32>> {
        let logits = model.forward(&Tensor::from_slice(tokens, (1, tokens.len()), model.device())?)?;
        Ok(logits.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
    };
    let before = bits(&tokens)?;
    let vocab = model.config().vocab_size;
    let mut audit = Causality { changed: 0, earlier_logits_moved: 0, later_logits_moved: 0 };
    for position in (1..tokens.len()).step_by(tokens.len() / 8 + 1) {
        let mut changed = tokens.clone();
        changed[position] = (changed[position] + 1) % vocab as u32;
        let after = bits(&changed)?;
        let moved = |range: std::ops::Range<usize>| range.filter(|&index| before[index] != after[index]).count();
        audit.changed += 1;
        audit.earlier_logits_moved += moved(0..position * vocab);
        audit.later_logits_moved += moved(position * vocab..before.len());
    }
    Ok(audit)
}

/// The leak audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Loss under the causal mask, nats per token.
    pub masked: f64,
    /// Loss with the mask taken off, nats per token.
    pub unmasked: f64,
}

impl Leak {
    /// The verdict.
    pub fn finding(&self) -> Finding {
        let sound = self.unmasked > LEAK_RATIO * self.masked;
        let numbers = format!("loss {:.3} with the mask, {:.3} without", self.masked, self.unmasked);
        let says = if sound {
            format!("{numbers}: it gains nothing from seeing the answer")
        } else {
            format!("{numbers}: it was trained without a mask and copies the next token")
        };
        finding("leak", sound, says)
    }
}

/// The loss on `ids` `(batch, seq)` with and without the causal mask.
///
/// # Errors
/// [`Error::Tensor`].
pub fn leak(model: &Transformer, ids: &Tensor) -> Result<Leak> {
    let loss = |attention: Attention| -> Result<f64> {
        let config = ArchConfig { attention, ..model.config().clone() };
        let twin = Transformer::from_weights(&config, &model.weights())?;
        Ok(f64::from(next_token_loss(&twin, ids)?.to_scalar::<f32>()?))
    };
    Ok(Leak { masked: loss(Attention::Causal)?, unmasked: loss(Attention::Bidirectional)? })
}

/// Mean cross-entropy of each token of `ids` `(batch, seq)` given those before it: a scalar in nats per token.
fn next_token_loss(model: &Transformer, ids: &Tensor) -> Result<Tensor> {
    let seq = ids.dim(D::Minus1)?;
    if seq < 2 {
        return Err(Error::invalid("an audit needs sequences of at least two tokens", "pass longer samples"));
    }
    let hidden = model.hidden(&ids.narrow(1, 0, seq - 1)?, &mut Dropout::off())?;
    model.loss(&hidden.flatten_to(1)?, &ids.narrow(1, 1, seq - 1)?.flatten_all()?, 0.0)
}

/// The label-smoothing audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// The floor, nats per token.
    pub floor: f64,
    /// The lowest reported loss, nats per token.
    pub lowest: f64,
    /// The step that reported it.
    pub step: u64,
    /// Reported losses.
    pub reports: usize,
}

impl Floor {
    /// The verdict.
    pub fn finding(&self) -> Finding {
        let above = self.lowest - self.floor;
        let sound = above > FLOOR_MARGIN;
        let numbers = format!(
            "lowest reported loss {:.4} at step {}, {above:.4} above the floor {:.4} of label smoothing",
            self.lowest, self.step, self.floor
        );
        let says = if sound { numbers } else { format!("{numbers}: it knows the answer it is asked for") };
        finding("label-smoothing floor", sound, says)
    }
}

/// The lowest cross-entropy that label smoothing allows, in nats per token: the entropy of the smoothed target,
/// −p·ln p − (V − 1)·q·ln q with q = ε/V and p = 1 − ε + q. Only a model that knows the next token reaches it.
pub fn smoothing_floor(smoothing: f64, vocab: usize) -> f64 {
    let q = smoothing / vocab as f64;
    let p = 1.0 - smoothing + q;
    let surprise = |x: f64| if x > 0.0 { -x * x.ln() } else { 0.0 };
    surprise(p) + (vocab as f64 - 1.0) * surprise(q)
}

/// Holds the losses of a JSONL log (`step`, and `train_loss`, `val_loss` or `loss`) against their floor.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`], also when no row reports a loss.
pub fn floor_of_log(file: &Path, smoothing: f64, vocab: usize) -> Result<Floor> {
    let rows: Vec<serde_json::Value> = artifact::read_jsonl(file)?;
    let reports: Vec<(u64, f64)> = rows
        .iter()
        .filter_map(|row| Some((row["step"].as_u64()?, row)))
        .flat_map(|(step, row)| {
            ["train_loss", "val_loss", "loss"].into_iter().filter_map(move |key| Some((step, row[key].as_f64()?)))
        })
        .collect();
    let lowest = reports.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let Some(&(step, lowest)) = lowest else {
        let what = "no row has `step` and a loss";
        return Err(Error::malformed(file, None, what, "pass a JSONL log with `step` and `train_loss` or `val_loss`"));
    };
    Ok(Floor { floor: smoothing_floor(smoothing, vocab), lowest, step, reports: reports.len() })
}

/// The gradient audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gradient {
    /// Trainable tensors.
    pub tensors: usize,
    /// Those without a gradient, or with one that is zero or not finite.
    pub missing: Vec<String>,
}

impl Gradient {
    /// The verdict.
    pub fn finding(&self) -> Finding {
        let sound = self.missing.is_empty();
        let says = if sound {
            format!("all {} tensors receive a gradient", self.tensors)
        } else {
            format!("{} of {} tensors receive none: {}", self.missing.len(), self.tensors, self.missing.join(", "))
        };
        finding("gradient", sound, says)
    }
}

/// Makes every weight trainable, in a copy, and looks for its gradient on `ids` `(batch, seq)`.
///
/// # Errors
/// [`Error::Tensor`].
pub fn gradient(model: &Transformer, ids: &Tensor) -> Result<Gradient> {
    let vars: BTreeMap<String, Var> = model
        .weights()
        .into_iter()
        .map(|(key, weight)| Ok((key, Var::from_tensor(&weight.detach())?)))
        .collect::<Result<_>>()?;
    let twin = from_vars(model.config(), &vars)?;
    let gradients = next_token_loss(&twin, ids)?.backward()?;
    let mut missing = Vec::new();
    for (key, var) in &vars {
        let norm = match gradients.get(var) {
            Some(gradient) => gradient.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_scalar::<f32>()?,
            None => 0.0,
        };
        if !(norm > 0.0 && norm.is_finite()) {
            missing.push(key.clone());
        }
    }
    Ok(Gradient { tensors: vars.len(), missing })
}

fn from_vars(config: &ArchConfig, vars: &BTreeMap<String, Var>) -> Result<Transformer> {
    let tensors = vars.iter().map(|(key, var)| (key.clone(), var.as_tensor().clone())).collect();
    Transformer::from_weights(config, &tensors)
}

/// The overfitting audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overfit {
    /// Loss after each step on the same batch, nats per token.
    pub losses: Vec<f64>,
}

impl Overfit {
    /// The verdict.
    pub fn finding(&self) -> Finding {
        let (first, last) = (self.losses.first().copied().unwrap_or(f64::NAN), self.losses.last().copied());
        let last = last.unwrap_or(f64::NAN);
        let sound = last < OVERFIT_LOSS;
        let steps = self.losses.len();
        let says =
            format!("a fresh model of this shape learns one batch by heart: {first:.3} to {last:.3} in {steps} steps");
        let failed =
            format!("a fresh model of this shape cannot learn one batch: {first:.3} to {last:.3} in {steps} steps");
        finding("overfit", sound, if sound { says } else { failed })
    }
}

/// Trains a fresh model of this shape on at most 4 × 32 tokens of `ids` until it knows them, at most 200 steps.
///
/// # Errors
/// [`Error::Tensor`].
pub fn overfit(config: &ArchConfig, ids: &Tensor, seed: u64) -> Result<Overfit> {
    let (batch, seq) = ids.dims2()?;
    // The first token must differ from row to row, or no model could tell the rows apart at once; real code rarely does,
    // and a margin above zero is left for it.
    let ids = ids.narrow(0, 0, batch.min(4))?.narrow(1, 0, seq.min(32))?.contiguous()?;
    let vars = init(config, &mut seed::rng(seed, "overfit"), &Device::Cpu)?;
    let model = from_vars(config, &vars)?;
    let settings = ParamsAdamW { lr: 3e-3, weight_decay: 0.0, ..Default::default() };
    let mut optimizer = AdamW::new(vars.values().cloned().collect(), settings)?;
    let mut losses = Vec::new();
    while losses.len() < 200 && losses.last().is_none_or(|&loss| loss >= OVERFIT_LOSS / 2.0) {
        let loss = next_token_loss(&model, &ids)?;
        optimizer.backward_step(&loss)?;
        losses.push(f64::from(loss.to_scalar::<f32>()?));
    }
    Ok(Overfit { losses })
}
