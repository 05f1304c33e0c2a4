//! The operations of the transformer, each with a backward pass.
//!
//! candle's composed operations allocate a tensor per step and run element-wise work on one core; its own fused
//! operations have no backward pass and lose gradients in silence. So each operation here exists twice: `fused`, a custom
//! operation with rayon code for the CPU and a hand-written gradient, and [`composed`], the same formula in plain candle
//! operations, which runs on every device and in f64 and is what the fused form is tested against.
//!
//! One switch chooses: [`set_fused`]. The fused form is used for f32 on a CPU, and on a CUDA device that of `ops::cuda` for f32 and
//! bf16; anything else takes the composed form.

mod activation;
mod attention;
mod beside;
mod block;
mod bytes;
pub mod composed;
mod cross_entropy;
#[cfg(feature = "cuda")]
pub mod cuda;
mod embedding;
mod gemm;
mod head;
mod linear;
mod norm;
mod orthogonal;
mod packed;
mod simd;
mod slices;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use candle_core::{DType, Result, Tensor};

use crate::model::config::{Activation, ArchConfig};
use crate::model::dropout::Mask;

pub use beside::backward;
pub use block::{Block, Norm, Projection, Update};
pub use bytes::Bytes;
pub use orthogonal::orthogonal;
pub use packed::Layouts;
pub(in crate::model) use simd::vectorised;

/// One switch for every operation: the fused form, or with `CODELORA_COMPOSED` in the environment the composed one.
static FUSED: LazyLock<AtomicBool> = LazyLock::new(|| AtomicBool::new(std::env::var_os("CODELORA_COMPOSED").is_none()));

/// Chooses the fused (default) or the composed form of every operation, for the whole process. The environment variable
/// `CODELORA_COMPOSED` chooses the composed form from the start, to tell a fault of an operation from one of the model.
pub fn set_fused(on: bool) {
    FUSED.store(on, Ordering::Relaxed);
}

/// Whether to take the fused form for these operands.
fn fused(operands: &[&Tensor]) -> bool {
    FUSED.load(Ordering::Relaxed) && slices::on_cpu_f32(operands)
}

/// Whether to take the CUDA kernels for these operands.
#[cfg(feature = "cuda")]
fn on_cuda(operands: &[&Tensor]) -> bool {
    FUSED.load(Ordering::Relaxed) && cuda::runs_on(operands)
}

/// Rotary tables: cos and sin of `position · θ^(−2i/d)`, each `(positions, head_dim / 2)` (Su et al. 2021, eq. 34).
#[derive(Debug, Clone)]
pub struct Rope {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

impl Rope {
    /// The tables for every position of the context.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn new(config: &ArchConfig, device: &candle_core::Device) -> Result<Self> {
        let half = config.head_dim() / 2;
        let angle = |position: usize, pair: usize| {
            let frequency = config.rope_theta.powf(-(2.0 * pair as f64) / config.head_dim() as f64);
            // The reference computes both factors and their product in f32.
            position as f32 * frequency as f32
        };
        let angles: Vec<f32> =
            (0..config.max_seq_length).flat_map(|p| (0..half).map(move |pair| angle(p, pair))).collect();
        let angles = Tensor::from_vec(angles, (config.max_seq_length, half), device)?;
        Ok(Self { cos: angles.cos()?, sin: angles.sin()? })
    }

    /// The tables of the positions given, `(batch, new)` u32: each `(batch, 1, new, head_dim / 2)`.
    ///
    /// # Errors
    /// The tensor library's; a position outside the context.
    pub fn at(&self, positions: &Tensor) -> Result<Self> {
        let (batch, new) = positions.dims2()?;
        let pick =
            |table: &Tensor| table.index_select(&positions.flatten_all()?, 0)?.reshape((batch, 1, new, table.dim(1)?));
        Ok(Self { cos: pick(&self.cos)?, sin: pick(&self.sin)? })
    }

    /// The tables of positions 0 to `seq`.
    ///
    /// # Errors
    /// The tensor library's; `seq` beyond the context.
    pub fn first(&self, seq: usize) -> Result<Self> {
        Ok(Self { cos: self.cos.narrow(0, 0, seq)?, sin: self.sin.narrow(0, 0, seq)? })
    }
}

/// `y = x · Wᵀ`: x `(…, in)`, W `(out, in)`, y `(…, out)` in the type of x; W is turned into that type on the way.
///
/// # Errors
/// The tensor library's.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_cuda(&[x, weight]) {
        return cuda::linear(x, weight);
    }
    if fused(&[x, weight]) { linear::linear(x, weight) } else { composed::linear(x, weight) }
}

/// [`linear()`] with a weight that is not trained, whose `layouts` are kept for further products.
///
/// # Errors
/// The tensor library's.
pub fn linear_kept(x: &Tensor, weight: &Tensor, layouts: &Arc<Layouts>) -> Result<Tensor> {
    let many = x.elem_count() >= linear::FEWEST * weight.dim(1)?;
    if many && fused(&[x, weight]) && !weight.is_variable() {
        linear::kept(x, weight, layouts)
    } else {
        linear(x, weight)
    }
}

/// [`linear_kept`] with a weight that was rounded to eight bits: few rows of x are multiplied with the `bytes`, to the same values up
/// to the order of the sum. For inference only: no gradient.
///
/// # Errors
/// The tensor library's.
pub fn linear_bytes(x: &Tensor, bytes: &Arc<Bytes>, weight: &Tensor, layouts: &Arc<Layouts>) -> Result<Tensor> {
    let many = x.elem_count() >= linear::FEWEST * weight.dim(1)?;
    if !many && fused(&[x]) { bytes::linear(x, bytes) } else { linear_kept(x, weight, layouts) }
}

/// Rows of `weight` `(vocab, hidden)` named by `ids` `(batch, seq)` u32: `(batch, seq, hidden)`.
///
/// # Errors
/// The tensor library's; an id outside the vocabulary.
pub fn embedding(ids: &Tensor, weight: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_cuda(&[weight]) && weight.dtype() == DType::F32 {
        return cuda::embedding(ids, weight);
    }
    if fused(&[weight]) { embedding::embedding(ids, weight) } else { composed::embedding(ids, weight) }
}

/// LayerNorm over the last dimension (Ba et al. 2016, eq. 4), the result in `floats`.
///
/// # Errors
/// The tensor library's.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, floats: DType) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_cuda(&[x]) && x.dtype() == DType::F32 {
        return cuda::norm(x, weight, Some(bias), eps, floats);
    }
    let y = if fused(&[x, weight, bias]) {
        norm::layer_norm(x, weight, bias, eps)
    } else {
        composed::layer_norm(x, weight, bias, eps)
    };
    y?.to_dtype(floats)
}

/// RMSNorm over the last dimension (Zhang & Sennrich 2019, eq. 4), the result in `floats`.
///
/// # Errors
/// The tensor library's.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, floats: DType) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_cuda(&[x]) && x.dtype() == DType::F32 {
        return cuda::norm(x, weight, None, eps, floats);
    }
    let y = if fused(&[x, weight]) { norm::rms_norm(x, weight, eps) } else { composed::rms_norm(x, weight, eps) };
    y?.to_dtype(floats)
}

/// The residual stream `x` plus what a sub-layer adds to it, `y` in its own type: the type of `x`.
///
/// # Errors
/// The tensor library's.
pub fn residual(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_cuda(&[x, y]) && x.dtype() == DType::F32 {
        return cuda::residual(x, y);
    }
    x + y.to_dtype(x.dtype())?
}

/// The MLP's non-linearity: `(…, fc1_dim)` to `(…, ffn_dim)`. Gated kinds take the gate from the first half.
///
/// # Errors
/// The tensor library's.
pub fn activate(x: &Tensor, kind: Activation) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_cuda(&[x]) && kind == Activation::Gelu {
        return cuda::gelu(x);
    }
    if fused(&[x]) { activation::activate(x, kind) } else { composed::activate(x, kind) }
}

/// Self-attention from the joint projection: `qkv` `(batch, seq, 3 · hidden)` to `(batch, seq, hidden)`.
///
/// The last dimension of `qkv` is (3, heads, head_dim). Queries and keys are turned by `rope` (tables of `seq` rows);
/// scores are q·k / √head_dim (Vaswani et al. 2017, eq. 1); under `causal` a token sees itself and what came before.
/// `dropout` acts on the probabilities.
///
/// # Errors
/// The tensor library's.
pub fn attention(
    qkv: &Tensor,
    heads: usize,
    rope: Option<&Rope>,
    causal: bool,
    dropout: Option<Mask>,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_cuda(&[qkv]) && dropout.is_none() {
        return cuda::attention(qkv, heads, rope, causal);
    }
    if fused(&[qkv]) {
        attention::attention(qkv, heads, rope, causal, dropout)
    } else {
        composed::attention(qkv, heads, rope, causal, dropout)
    }
}

/// A whole transformer block: x `(batch, seq, hidden)` to the same shape. Values and gradients as of the single operations
/// one after another; one operation where the sequences can share the threads out among them.
///
/// # Errors
/// The tensor library's; weights whose shapes do not fit together.
pub fn block(x: &Tensor, block: &Block) -> Result<Tensor> {
    if fuses_blocks(x) { block::block(x, block) } else { block::stepwise(x, block) }
}

/// Whether [`block()`] takes `x` through as one operation.
pub fn fuses_blocks(x: &Tensor) -> bool {
    fused(&[x]) && x.dims().first().is_some_and(|&batch| batch >= block::FEWEST)
}

/// Attention of new queries `(batch, heads, new, head_dim)` over cached keys and values `(batch, heads, columns,
/// head_dim)`, the new ones last: `(batch, heads, new, head_dim)`. Row `r` sees columns from `starts[r]` to its own.
/// For inference only: no gradient.
///
/// # Errors
/// The tensor library's.
pub fn cached_attention(q: &Tensor, k: &Tensor, v: &Tensor, starts: &[usize]) -> Result<Tensor> {
    if fused(&[q, k, v]) {
        attention::cached_attention(q, k, v, starts)
    } else {
        composed::cached_attention(q, k, v, starts)
    }
}

/// Caches `(batch, heads, columns, head_dim)` as one batch, rows in order, aligned at their ends: each part is its tensor, the
/// first column of each row, and the end of those in use, which becomes column `columns` of `room`.
///
/// # Errors
/// The tensor library's; parts that do not fit.
pub(in crate::model) fn join_cached(
    parts: &[(Tensor, Vec<usize>, usize)],
    columns: usize,
    room: usize,
) -> Result<Tensor> {
    if fused(&parts.iter().map(|part| &part.0).collect::<Vec<_>>()) {
        attention::join_cached(parts, columns, room)
    } else {
        composed::join_cached(parts, columns, room)
    }
}

/// Zeroes and rescales elements by `mask`.
///
/// # Errors
/// The tensor library's.
pub fn dropout(x: &Tensor, mask: Mask) -> Result<Tensor> {
    composed::dropout(x, mask)
}

/// Mean cross-entropy with label smoothing ε: logits `(n, vocab)`, targets `(n)` u32; a scalar in nats per token.
///
/// The target distribution keeps 1 − ε on the target and spreads ε evenly over the whole vocabulary (Szegedy et al.
/// 2016, section 7): `lse(z) − (1 − ε) · z_y − ε · mean(z)`.
///
/// # Errors
/// The tensor library's.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_cuda(&[logits]) {
        return cuda::cross_entropy(logits, targets, smoothing);
    }
    if fused(&[logits]) {
        cross_entropy::cross_entropy(logits, targets, smoothing)
    } else {
        composed::cross_entropy(logits, targets, smoothing)
    }
}

/// [`cross_entropy()`] of the logits `states · weightᵀ`: states `(n, hidden)`, weight `(vocab, hidden)`. The `layouts` of a weight
/// that is not trained are kept for further losses.
///
/// # Errors
/// The tensor library's.
pub fn head_loss(
    states: &Tensor,
    weight: &Tensor,
    layouts: &Arc<Layouts>,
    targets: &Tensor,
    smoothing: f64,
) -> Result<Tensor> {
    if fused(&[states, weight]) && (!weight.is_variable() || states.dim(0)? >= head::FEWEST) {
        head::head_loss(states, weight, layouts, targets, smoothing)
    } else {
        cross_entropy(&linear(states, weight)?, targets, smoothing)
    }
}

#[cfg(test)]
mod tests;
