//! Does a change of one token leave the past alone?

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Finding, finding};
use crate::error::Result;
use crate::model::transformer::Transformer;

/// The causality audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Causality {
    /// Tokens changed, one at a time.
    pub changed: usize,
    /// Earlier logits that moved in any bit, over all changes.
    pub earlier_logits_moved: usize,
    /// Later logits that moved; none would mean that the probe is blind.
    pub later_logits_moved: usize,
    /// Each change by itself.
    #[serde(default)]
    pub places: Vec<Place>,
}

/// What changing one token did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The token's position, counted from 0.
    pub position: usize,
    /// Share of the logits before it that moved.
    pub earlier: f64,
    /// Share of the logits from it on that moved.
    pub later: f64,
}

impl Causality {
    /// The verdict.
    pub fn finding(&self) -> Finding {
        let sound = self.earlier_logits_moved == 0 && self.later_logits_moved > 0;
        let says = if sound {
            format!("{} changed tokens left every earlier logit unchanged to the bit", self.changed)
        } else if self.earlier_logits_moved == 0 {
            format!("{} changed tokens moved no logit at all: the model does not read its input", self.changed)
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
/// [`Error::Tensor`](crate::Error::Tensor).
pub fn causality(model: &Transformer, ids: &Tensor) -> Result<Causality> {
    let tokens = ids.flatten_all()?.to_vec1::<u32>()?;
    let bits = |tokens: &[u32]| -> Result<Vec<u32>> {
        let logits = model.forward(&Tensor::from_slice(tokens, (1, tokens.len()), model.device())?)?;
        Ok(logits.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
    };
    let before = bits(&tokens)?;
    let vocab = model.config().vocab_size;
    let mut audit = Causality { changed: 0, earlier_logits_moved: 0, later_logits_moved: 0, places: Vec::new() };
    for position in (1..tokens.len()).step_by(tokens.len() / 8 + 1) {
        let mut changed = tokens.clone();
        changed[position] = (changed[position] + 1) % vocab as u32;
        let after = bits(&changed)?;
        let moved = |range: std::ops::Range<usize>| range.filter(|&index| before[index] != after[index]).count();
        let border = position * vocab;
        let (earlier, later) = (moved(0..border), moved(border..before.len()));
        audit.changed += 1;
        audit.earlier_logits_moved += earlier;
        audit.later_logits_moved += later;
        audit.places.push(Place {
            position,
            earlier: earlier as f64 / border as f64,
            later: later as f64 / (before.len() - border) as f64,
        });
    }
    Ok(audit)
}
