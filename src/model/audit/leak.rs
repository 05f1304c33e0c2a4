//! Was the model trained with the answer in sight?

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Finding, finding, next_token_loss};
use crate::error::Result;
use crate::model::config::{ArchConfig, Attention};
use crate::model::transformer::Transformer;

/// Without the mask a causally trained model gains nothing; one trained without it falls to a fraction.
const LEAK_RATIO: f64 = 0.7;

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
/// [`Error::Tensor`](crate::Error::Tensor).
pub fn leak(model: &Transformer, ids: &Tensor) -> Result<Leak> {
    let loss = |attention: Attention| -> Result<f64> {
        let config = ArchConfig { attention, ..model.config().clone() };
        let twin = Transformer::from_weights(&config, &model.weights())?;
        Ok(f64::from(next_token_loss(&twin, ids)?.to_scalar::<f32>()?))
    };
    Ok(Leak { masked: loss(Attention::Causal)?, unmasked: loss(Attention::Bidirectional)? })
}
