//! The operations in plain candle operations: every device, every float type, gradients by candle.
//!
//! Slow, and the yardstick: the fused forms must agree with these in values and in gradients.

use candle_core::{D, DType, Device, Result, Tensor};

use super::Rope;
use crate::model::config::Activation;
use crate::model::dropout::Mask;

/// See [`super::linear`].
///
/// # Errors
/// The tensor library's.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (rows, out) = (x.elem_count() / x.dim(D::Minus1)?, weight.dim(0)?);
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(out);
    let weight = weight.to_dtype(x.dtype())?;
    x.reshape((rows, ()))?.matmul(&weight.t()?)?.reshape(shape) // (…, out)
}

/// See [`super::embedding`].
///
/// # Errors
/// The tensor library's.
pub fn embedding(ids: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let mut shape = ids.dims().to_vec();
    shape.push(weight.dim(1)?);
    weight.index_select(&ids.flatten_all()?, 0)?.reshape(shape)
}

/// See [`super::layer_norm`].
///
/// # Errors
/// The tensor library's.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normal.broadcast_mul(weight)?.broadcast_add(bias)
}

/// See [`super::rms_norm`].
///
/// # Errors
/// The tensor library's.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(square + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// See [`super::activate`].
///
/// # Errors
/// The tensor library's.
pub fn activate(x: &Tensor, kind: Activation) -> Result<Tensor> {
    match kind {
        Activation::Gelu => gelu(x),
        Activation::Silu => x.silu(),
        Activation::GeGlu | Activation::SwiGlu => {
            let width = x.dim(D::Minus1)? / 2;
            let (gate, up) = (x.narrow(D::Minus1, 0, width)?, x.narrow(D::Minus1, width, width)?);
            let gate = if kind == Activation::GeGlu { gelu(&gate)? } else { gate.silu()? };
            gate.mul(&up)
        }
    }
}

/// x · Φ(x) = x/2 · (1 + erf(x/√2)) (Hendrycks & Gimpel 2016). Spelled out: the gradient of candle's own `gelu_erf` uses a
/// constant of six digits, which is visible in f64.
fn gelu(x: &Tensor) -> Result<Tensor> {
    let cdf = ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?;
    (x * 0.5)?.mul(&cdf)
}

/// Turns each pair `(x[i], x[i + d/2])` of `x` `(batch, heads, seq, head_dim)` by its position's angle; the tables are
/// `(seq, head_dim / 2)` or `(batch, 1, seq, head_dim / 2)`.
///
/// # Errors
/// The tensor library's.
pub fn rope(x: &Tensor, tables: &Rope) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let (cos, sin) = (tables.cos.to_dtype(x.dtype())?, tables.sin.to_dtype(x.dtype())?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

/// Softmax over the last dimension, in f32 where the scores are shorter. The maximum only guards against overflow and is
/// cut from the graph.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    if matches!(scores.dtype(), DType::BF16 | DType::F16) {
        return softmax(&scores.to_dtype(DType::F32)?)?.to_dtype(scores.dtype());
    }
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// Splits `qkv` `(batch, seq, 3 · hidden)` into queries, keys and values `(batch, heads, seq, head_dim)`.
///
/// # Errors
/// The tensor library's.
pub fn split_heads(qkv: &Tensor, heads: usize) -> Result<(Tensor, Tensor, Tensor)> {
    let (batch, seq, width) = qkv.dims3()?;
    let parts = qkv.reshape((batch, seq, 3, heads, width / 3 / heads))?;
    let part = |index: usize| parts.narrow(2, index, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    Ok((part(0)?, part(1)?, part(2)?))
}

/// Joins heads `(batch, heads, seq, head_dim)` to `(batch, seq, hidden)`.
///
/// # Errors
/// The tensor library's.
pub fn join_heads(x: &Tensor) -> Result<Tensor> {
    let (batch, heads, seq, head_dim) = x.dims4()?;
    x.transpose(1, 2)?.reshape((batch, seq, heads * head_dim))
}

/// 0 where query `row` may see key `column`, −∞ elsewhere.
fn mask(rows: usize, columns: usize, visible: impl Fn(usize, usize) -> bool, like: &Tensor) -> Result<Tensor> {
    let value = |row, column| if visible(row, column) { 0f32 } else { f32::NEG_INFINITY };
    let values: Vec<f32> =
        (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))).map(|(r, c)| value(r, c)).collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu)?.to_device(like.device())?.to_dtype(like.dtype())
}

/// See [`super::attention`].
///
/// # Errors
/// The tensor library's.
pub fn attention(
    qkv: &Tensor,
    heads: usize,
    tables: Option<&Rope>,
    causal: bool,
    drop: Option<Mask>,
) -> Result<Tensor> {
    let (q, k, v) = split_heads(qkv, heads)?; // (batch, heads, seq, head_dim)
    let (q, k) = match tables {
        Some(tables) => (rope(&q, tables)?, rope(&k, tables)?),
        None => (q, k),
    };
    let (seq, head_dim) = (q.dim(2)?, q.dim(3)?);
    let mut scores = (q.matmul(&k.t()?)? * (head_dim as f64).powf(-0.5))?; // (batch, heads, seq, seq)
    if causal {
        scores = scores.broadcast_add(&mask(seq, seq, |row, column| column <= row, &scores)?)?;
    }
    let mut probabilities = softmax(&scores)?;
    if let Some(drop) = drop {
        probabilities = dropout(&probabilities, drop)?;
    }
    join_heads(&probabilities.matmul(&v)?) // (batch, seq, hidden)
}

/// See [`super::cached_attention`].
///
/// # Errors
/// The tensor library's.
pub fn cached_attention(q: &Tensor, k: &Tensor, v: &Tensor, starts: &[usize]) -> Result<Tensor> {
    let (batch, _, new, head_dim) = q.dims4()?;
    let columns = k.dim(2)?;
    let scores = (q.matmul(&k.t()?)? * (head_dim as f64).powf(-0.5))?; // (batch, heads, new, columns)
    let visible = |row: usize, column: usize| {
        let (sequence, query) = (row / new, row % new);
        starts[sequence] <= column && column <= columns - new + query
    };
    let mask = mask(batch * new, columns, visible, &scores)?.reshape((batch, 1, new, columns))?;
    softmax(&scores.broadcast_add(&mask)?)?.matmul(&v.contiguous()?)
}

/// See [`super::join_cached`].
///
/// # Errors
/// The tensor library's.
pub(in crate::model) fn join_cached(
    parts: &[(Tensor, Vec<usize>, usize)],
    columns: usize,
    room: usize,
) -> Result<Tensor> {
    let aligned = |(tensor, starts, end): &(Tensor, Vec<usize>, usize)| {
        let used = end - starts.iter().min().unwrap_or(end);
        tensor.narrow(2, end - used, used)?.pad_with_zeros(2, columns - used, room - columns)
    };
    Tensor::cat(&parts.iter().map(aligned).collect::<Result<Vec<_>>>()?, 0)
}

/// See [`super::dropout`].
///
/// # Errors
/// The tensor library's.
pub fn dropout(x: &Tensor, mask: Mask) -> Result<Tensor> {
    let factors: Vec<f32> = (0..x.elem_count() as u64).map(|index| mask.factor(index)).collect();
    x.mul(&Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?)
}

/// See [`super::cross_entropy`].
///
/// # Errors
/// The tensor library's.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
    let logits = if logits.dtype() == DType::F64 { logits.clone() } else { logits.to_dtype(DType::F32)? };
    let max = logits.max_keepdim(1)?.detach();
    let shifted = logits.broadcast_sub(&max)?;
    let lse = shifted.exp()?.sum(1)?.log()?; // (n)
    let target = shifted.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?; // (n)
    let mut loss = (lse - (target * (1.0 - smoothing))?)?;
    if smoothing > 0.0 {
        loss = (loss - (shifted.mean(1)? * smoothing)?)?;
    }
    loss.mean_all()
}
