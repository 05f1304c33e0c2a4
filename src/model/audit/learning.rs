//! Can the model learn at all: does every tensor receive a gradient, and can one batch be learned by heart?

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use serde::{Deserialize, Serialize};

use super::{Finding, finding, next_token_loss};
use crate::error::Result;
use crate::model::config::ArchConfig;
use crate::model::init::init;
use crate::model::ops;
use crate::model::transformer::Transformer;
use crate::seed;

/// The loss on its one batch that a model able to learn must reach, in nats per token.
const OVERFIT_LOSS: f64 = 0.1;

/// The gradient audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gradient {
    /// Trainable tensors.
    pub tensors: usize,
    /// Those without a gradient, or with one that is zero or not finite.
    pub missing: Vec<String>,
    /// L2 norm of each tensor's gradient.
    #[serde(default)]
    pub norms: BTreeMap<String, f64>,
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
/// [`Error::Tensor`](crate::Error::Tensor).
pub fn gradient(model: &Transformer, ids: &Tensor) -> Result<Gradient> {
    let vars: BTreeMap<String, Var> = model
        .weights()
        .into_iter()
        .map(|(key, weight)| Ok((key, Var::from_tensor(&weight.detach())?)))
        .collect::<Result<_>>()?;
    let twin = from_vars(model.config(), &vars)?;
    let gradients = ops::backward(&next_token_loss(&twin, ids)?)?;
    let (mut missing, mut norms) = (Vec::new(), BTreeMap::new());
    for (key, var) in &vars {
        let norm = match gradients.get(var) {
            Some(gradient) => gradient.to_dtype(DType::F32)?.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?,
            None => 0.0,
        };
        if !(norm > 0.0 && norm.is_finite()) {
            missing.push(key.clone());
        }
        norms.insert(key.clone(), f64::from(norm));
    }
    Ok(Gradient { tensors: vars.len(), missing, norms })
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
    /// What the last loss must fall below, nats per token.
    pub const LEARNED: f64 = OVERFIT_LOSS;

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
/// [`Error::Tensor`](crate::Error::Tensor).
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
        optimizer.step(&ops::backward(&loss)?)?;
        losses.push(f64::from(loss.to_scalar::<f32>()?));
    }
    Ok(Overfit { losses })
}
