//! Proofs about a base model, each with a verdict: what would have caught the earlier failure on its first day.
//!
//! The earlier model was trained without a causal mask: every position saw the token it had to predict. Its loss looked
//! perfect, and stood 0.03 nats above the floor that label smoothing leaves even to a model that knows the answer.

mod attention;
mod causality;
mod floor;
mod leak;
mod learning;

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::dropout::Dropout;
use crate::model::transformer::Transformer;

pub use attention::Head;
pub use causality::{Causality, Place, causality};
pub use floor::{EARLIER, EarlierLoss, Floor, Report, floor_of_log, smoothing_floor};
pub use leak::{Leak, leak};
pub use learning::{Gradient, Overfit, gradient, overfit};

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
    /// Reported losses against their floor, where some are known.
    pub floor: Option<Floor>,
    /// Tensors with a gradient.
    pub gradient: Gradient,
    /// One batch learned by heart.
    pub overfit: Overfit,
}

impl AuditRecord {
    /// Runs every audit. `ids` `(batch, seq)` u32 is real code; `floor` the losses that were reported of the model, where
    /// there are any.
    ///
    /// # Errors
    /// [`Error::Tensor`]; [`Error::Invalid`] when `ids` is shorter than two tokens.
    pub fn new(model: &Transformer, ids: &Tensor, floor: Option<Floor>, seed: u64) -> Result<Self> {
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

/// Mean cross-entropy of each token of `ids` `(batch, seq)` given those before it: a scalar in nats per token.
fn next_token_loss(model: &Transformer, ids: &Tensor) -> Result<Tensor> {
    let seq = ids.dim(D::Minus1)?;
    if seq < 2 {
        return Err(Error::invalid("an audit needs sequences of at least two tokens", "pass longer samples"));
    }
    let hidden = model.hidden(&ids.narrow(1, 0, seq - 1)?, &mut Dropout::off())?;
    model.loss(&hidden.flatten_to(1)?, &ids.narrow(1, 1, seq - 1)?.flatten_all()?, 0.0, &mut Dropout::off())
}
