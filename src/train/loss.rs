//! The loss of a batch: logits for supervised positions only.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::dropout::Dropout;
use crate::model::transformer::Transformer;
use crate::train::batch::Batch;

/// Mean loss of a model over batches, without dropout and smoothing, in nats per supervised token.
///
/// # Errors
/// [`Error::Tensor`](crate::error::Error::Tensor).
pub fn mean_loss(model: &Transformer, batches: &[Batch]) -> Result<f64> {
    let (mut sum, mut tokens) = (0.0, 0);
    for batch in batches {
        let loss = batch_loss(model, batch, &mut Dropout::off(), 0.0)?.to_scalar::<f32>()?;
        sum += f64::from(loss) * batch.targets.len() as f64;
        tokens += batch.targets.len();
    }
    Ok(if tokens == 0 { f64::NAN } else { sum / tokens as f64 })
}

/// A loss in nats per token as bits per byte, for text of so many tokens per byte.
pub fn bits_per_byte(nats: f64, tokens_per_byte: f64) -> f64 {
    nats * tokens_per_byte / std::f64::consts::LN_2
}

/// Mean loss of one micro-batch as a scalar tensor. Logits are computed for supervised positions only.
///
/// # Errors
/// [`Error::Tensor`](crate::error::Error::Tensor).
pub fn batch_loss(model: &Transformer, batch: &Batch, dropout: &mut Dropout, smoothing: f64) -> Result<Tensor> {
    let device = model.device();
    let ids = Tensor::from_slice(&batch.ids, (batch.rows, batch.seq), device)?;
    let hidden = model.hidden(&ids, dropout)?; // (rows, seq, hidden)
    let mut hidden = hidden.flatten(0, 1)?; // (rows · seq, hidden)
    if batch.supervised.len() < batch.rows * batch.seq {
        let positions = Tensor::from_slice(&batch.supervised, batch.supervised.len(), device)?;
        hidden = hidden.index_select(&positions, 0)?; // (supervised, hidden)
    }
    let targets = Tensor::from_slice(&batch.targets, batch.targets.len(), device)?;
    model.loss(&hidden, &targets, smoothing, dropout)
}
