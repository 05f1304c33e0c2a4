//! The block in single operations.

use candle_core::{Result, Tensor};

use super::{Block, Norm, Projection};
use crate::model::ops;

fn norm(x: &Tensor, norm: &Norm) -> Result<Tensor> {
    match &norm.bias {
        Some(bias) => ops::layer_norm(x, &norm.weight, bias, norm.eps, x.dtype()),
        None => ops::rms_norm(x, &norm.weight, norm.eps, x.dtype()),
    }
}

fn linear(x: &Tensor, projection: &Projection) -> Result<Tensor> {
    let y = ops::linear_kept(x, &projection.weight, &projection.layouts)?;
    let Some(update) = &projection.update else { return Ok(y) };
    let dropped = update.mask.map_or_else(|| Ok(x.clone()), |mask| ops::dropout(x, mask))?;
    y + (ops::linear(&ops::linear(&dropped, &update.a)?, &update.b)? * update.scale)?
}

/// See [`ops::block`].
pub(in crate::model::ops) fn stepwise(x: &Tensor, block: &Block) -> Result<Tensor> {
    let [probabilities, attended, thought] = block.masks;
    let drop = |x: Tensor, mask| if let Some(mask) = mask { ops::dropout(&x, mask) } else { Ok(x) };
    let qkv = linear(&norm(x, &block.norm1)?, &block.qkv)?; // (batch, seq, 3 · hidden)
    let mixed = ops::attention(&qkv, block.heads, block.rope.as_ref(), block.causal, probabilities)?;
    let x = (x + drop(linear(&mixed, &block.out_proj)?, attended)?)?; // (batch, seq, hidden)
    let wide = linear(&norm(&x, &block.norm2)?, &block.fc1)?; // (batch, seq, fc1_dim)
    let wide = ops::activate(&wide, block.activation)?; // (batch, seq, ffn_dim)
    &x + drop(linear(&wide, &block.fc2)?, thought)?
}
