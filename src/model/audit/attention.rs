//! What one attention head looks at, with the mask and without: an example to look at, not a proof.

use candle_core::{D, Device, Tensor};

use crate::error::{Error, Result};
use crate::model::ops::{self, Rope};
use crate::model::transformer::Transformer;

/// The attention of one head of the first block, each `(seq, seq)`: row q says how position q divides its attention among
/// the positions, and sums to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// softmax(q·kᵀ/√d) under the causal mask: position q sees positions 0 to q.
    pub masked: Vec<Vec<f32>>,
    /// The same scores without a mask: position q sees the token it is asked to predict, q + 1.
    pub unmasked: Vec<Vec<f32>>,
}

impl Head {
    /// Looks at head `head` of the first block while the model reads `ids` (Vaswani et al. 2017, eq. 1).
    ///
    /// # Errors
    /// [`Error::Invalid`] when the model has no such head or `ids` is empty; [`Error::Tensor`].
    pub fn of(model: &Transformer, ids: &[u32], head: usize) -> Result<Self> {
        let (config, weights) = (model.config(), model.weights());
        if head >= config.num_heads || ids.is_empty() {
            let what = format!("head {head} of {} on {} tokens", config.num_heads, ids.len());
            return Err(Error::invalid(what, "choose a head that the model has, and at least one token"));
        }
        let weight = |key: &str| {
            let missing = || Error::invalid(format!("the model has no {key}"), "check the base's weights");
            weights.get(key).ok_or_else(missing)
        };
        let seq = ids.len();
        let ids = Tensor::from_slice(ids, (1, seq), &Device::Cpu)?;
        let mut x = ops::composed::embedding(&ids, weight("token_embedding.weight")?)?; // (1, seq, hidden)
        if let Some(positions) = weights.get("position_embedding.weight") {
            x = x.broadcast_add(&positions.narrow(0, 0, seq)?)?;
        }
        let scale = weight("layers.0.norm1.weight")?;
        let x = match weights.get("layers.0.norm1.bias") {
            Some(bias) => ops::composed::layer_norm(&x, scale, bias, config.norm_eps)?,
            None => ops::composed::rms_norm(&x, scale, config.norm_eps)?,
        };
        let qkv = ops::composed::linear(&x, weight("layers.0.attn.qkv.weight")?)?; // (1, seq, 3 · hidden)
        let (mut q, mut k, _) = ops::composed::split_heads(&qkv, config.num_heads)?; // (1, heads, seq, head_dim)
        if !weights.contains_key("position_embedding.weight") {
            let rope = Rope::new(config, &Device::Cpu)?.first(seq)?;
            (q, k) = (ops::composed::rope(&q, &rope)?, ops::composed::rope(&k, &rope)?);
        }
        let (q, k) = (q.narrow(1, head, 1)?.contiguous()?, k.narrow(1, head, 1)?.contiguous()?);
        let scores = (q.matmul(&k.t()?)? * (config.head_dim() as f64).powf(-0.5))?.squeeze(0)?.squeeze(0)?;
        let past = |index: usize| if index % seq <= index / seq { 0f32 } else { f32::NEG_INFINITY };
        let mask = Tensor::from_vec((0..seq * seq).map(past).collect::<Vec<_>>(), (seq, seq), &Device::Cpu)?;
        let divide = |scores: Tensor| Ok::<_, Error>(candle_nn::ops::softmax(&scores, D::Minus1)?.to_vec2::<f32>()?);
        Ok(Self { masked: divide((&scores + mask)?)?, unmasked: divide(scores)? })
    }
}
