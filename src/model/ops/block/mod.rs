//! One transformer block as one operation: x + attention(norm1(x)), then that + MLP(norm2(that)).
//!
//! Composed of single operations a block writes eighteen tensors of its input's size or more, and candle reads and writes
//! each gradient four times on one core. Here a thread takes a few sequences through the whole block while their values are
//! in cache, short ones together, so that a product has [`ROWS`] rows; the weights are laid out once for all of them. Kept for
//! the backward pass: the joint projection, attention's output, the stream between the halves, and the MLP's input to its
//! non-linearity; norms and activations are computed again.
//!
//! `projection` is a linear layer with its adapter, `pass` a few sequences forward and backward, [`stepwise`] the same block
//! in single operations: for other devices and types, for few sequences, and to be tested against.
//!
//! Gradients of weights are summed in at most [`GROUPS`] groups of sequences, then over the groups in order: the result
//! does not depend on the number of threads. They go beside candle's graph, to [`backward`](super::backward).

mod pass;
mod projection;
mod stepwise;

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, Var};
use rayon::prelude::*;

use super::attention::{Heads, Sizes};
use super::packed::{Direction, Layouts};
use super::{Rope, beside, slices};
use crate::model::config::Activation;
use crate::model::dropout::Mask;

use pass::{Buffers, Pass, Saved};
use projection::Parameter;
pub(super) use stepwise::stepwise;

/// Most groups of sequences whose weight gradients are summed apart.
const GROUPS: usize = 8;

/// Rows that a product should have: each reads the whole matrix.
const ROWS: usize = 192;

/// Parts a batch is divided into at least, where it has as many sequences: threads need something to do.
const PARTS: usize = 4;

/// With fewer sequences than this the threads are better spread within single operations.
pub(super) const FEWEST: usize = 4;

/// A norm's weights; a bias makes it a LayerNorm.
#[derive(Debug, Clone)]
pub struct Norm {
    /// Weight `(hidden)`.
    pub weight: Tensor,
    /// Bias `(hidden)`.
    pub bias: Option<Tensor>,
    /// ε.
    pub eps: f64,
}

/// A low-rank update: y += scale · (x ⊙ mask) · Aᵀ · Bᵀ.
#[derive(Debug, Clone)]
pub struct Update {
    /// A, `(rank, in)`.
    pub a: Tensor,
    /// B, `(out, rank)`.
    pub b: Tensor,
    /// Scale.
    pub scale: f64,
    /// Dropout of the update's input.
    pub mask: Option<Mask>,
}

/// A linear layer `(out, in)` and its update.
#[derive(Debug, Clone)]
pub struct Projection {
    /// The matrix.
    pub weight: Tensor,
    /// Its layouts, used where it is not trained.
    pub layouts: Arc<Layouts>,
    /// Its update.
    pub update: Option<Update>,
}

/// A block's weights and settings, and the masks of this pass.
#[derive(Debug, Clone)]
pub struct Block {
    /// Before attention.
    pub norm1: Norm,
    /// `(3 · hidden, hidden)`, rows ordered (q | k | v).
    pub qkv: Projection,
    /// `(hidden, hidden)`.
    pub out_proj: Projection,
    /// Before the MLP.
    pub norm2: Norm,
    /// `(fc1_dim, hidden)`.
    pub fc1: Projection,
    /// `(hidden, ffn_dim)`.
    pub fc2: Projection,
    /// Heads.
    pub heads: usize,
    /// Tables of `seq` rows.
    pub rope: Option<Rope>,
    /// Whether a token sees only itself and what came before.
    pub causal: bool,
    /// Between fc1 and fc2.
    pub activation: Activation,
    /// Of attention's probabilities, of attention's output, of the MLP's output.
    pub masks: [Option<Mask>; 3],
}

impl Block {
    /// Every tensor, in the order in which [`Pass::new`] takes them.
    fn tensors(&self) -> Vec<&Tensor> {
        let mut all = Vec::new();
        push_norm(&self.norm1, &mut all);
        [&self.qkv, &self.out_proj].into_iter().for_each(|p| push_projection(p, &mut all));
        push_norm(&self.norm2, &mut all);
        [&self.fc1, &self.fc2].into_iter().for_each(|p| push_projection(p, &mut all));
        all
    }

    /// Whether the shapes belong together, for an input `hidden` wide.
    fn fits(&self, hidden: usize) -> bool {
        let norm = |norm: &Norm| {
            norm.weight.dims() == [hidden] && norm.bias.as_ref().is_none_or(|bias| bias.dims() == [hidden])
        };
        let linear = |linear: &Projection, out: usize, input: usize| {
            let update = linear.update.as_ref().is_none_or(|u| {
                let rank = u.a.dims().first().copied().unwrap_or(0);
                u.a.dims() == [rank, input] && u.b.dims() == [out, rank]
            });
            linear.weight.dims() == [out, input] && update
        };
        let wide = self.fc1.weight.dims().first().copied().unwrap_or(0);
        let ffn = if self.activation.is_gated() { wide / 2 } else { wide };
        norm(&self.norm1)
            && norm(&self.norm2)
            && linear(&self.qkv, 3 * hidden, hidden)
            && linear(&self.out_proj, hidden, hidden)
            && linear(&self.fc1, wide, hidden)
            && linear(&self.fc2, hidden, ffn)
    }
}

fn push_norm<'a>(norm: &'a Norm, all: &mut Vec<&'a Tensor>) {
    all.push(&norm.weight);
    all.extend(&norm.bias);
}

fn push_projection<'a>(projection: &'a Projection, all: &mut Vec<&'a Tensor>) {
    all.push(&projection.weight);
    all.extend(projection.update.iter().flat_map(|update| [&update.a, &update.b]));
}

/// Sequences of `seq` positions that go through the block together. Does not depend on the number of threads.
fn together(batch: usize, seq: usize) -> usize {
    ROWS.div_ceil(seq.max(1)).min(batch / PARTS).max(1)
}

/// The operation over `x`. Where something is trained, a second input holds the place of the trained tensors in the graph.
struct Fused {
    block: Block,
    heads: Heads,
    /// All tensors, cut from the graph.
    tensors: Vec<Tensor>,
    /// Where the gradient of each trained one begins in one vector of all.
    places: Vec<Option<usize>>,
    /// Length of that vector.
    trained: usize,
    /// What the forward pass of each few sequences left.
    saved: OnceLock<Vec<Saved>>,
}

impl Fused {
    /// Calls `body` with the block over plain values, for `together` sequences at a time in one direction.
    fn with<R>(
        &self,
        (together, seq): (usize, usize),
        direction: Direction,
        body: impl FnOnce(&Pass) -> Result<R>,
    ) -> Result<R> {
        slices::read_all(&self.tensors, |values| {
            let parameters = values.into_iter().zip(&self.places);
            let mut parameters = parameters.map(|(values, &place)| Parameter { values, place });
            let width = self.block.qkv.weight.dim(0)?;
            let sizes = Sizes::new(seq, width, self.block.heads);
            body(&Pass::new(&self.block, &self.heads, (together, sizes), direction, &mut parameters))
        })
    }

    fn forward(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, seq, hidden) = layout.shape().dims3()?;
        let together = together(batch, seq);
        let size = together * seq * hidden;
        let x = slices::of_storage(x, layout)?;
        let mut y = vec![0f32; x.len()];
        let saved = self.with((together, seq), Direction::Forward, |pass| {
            let parts = y.par_chunks_mut(size).zip(x.par_chunks(size)).enumerate();
            let run = |buffers: &mut Buffers, (i, (y, x)): (usize, (&mut [f32], &[f32]))| {
                pass.forward(i * together, x, y, buffers)
            };
            Ok(parts.map_init(|| Buffers::new(pass), run).collect())
        })?;
        let _ = self.saved.set(saved);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    /// dX, and the gradients of everything trained.
    fn backward(&self, x: &Tensor, grad: &Tensor) -> Result<(Tensor, Vec<f32>)> {
        let (batch, seq, hidden) = x.dims3()?;
        let saved = self.saved.get().map(Vec::as_slice).unwrap_or_default();
        let together = together(batch, seq);
        let group = batch.div_ceil(together * GROUPS); // times `together` sequences
        let size = together * seq * hidden;
        slices::read([x, grad], |[xs, grad]| {
            let mut dx = vec![0f32; xs.len()];
            let mut parts: Vec<Vec<f32>> = self.with((together, seq), Direction::Backward, |pass| {
                let groups = dx.par_chunks_mut(group * size).enumerate().map_init(
                    || Buffers::new(pass),
                    |buffers, (number, dx)| {
                        let mut grads = vec![0f32; self.trained];
                        for (offset, dx) in dx.chunks_mut(size).enumerate() {
                            let index = number * group + offset;
                            let own = index * size..index * size + dx.len();
                            let given = (&xs[own.clone()], &grad[own], &saved[index]);
                            pass.backward(index * together, given, dx, &mut grads, buffers);
                        }
                        grads
                    },
                );
                Ok(groups.collect())
            })?;
            let mut sum = if parts.is_empty() { Vec::new() } else { parts.remove(0) };
            const CHUNK: usize = 16 * 1024;
            sum.par_chunks_mut(CHUNK).enumerate().for_each(|(index, sum)| {
                for part in &parts {
                    sum.iter_mut().zip(&part[index * CHUNK..]).for_each(|(sum, part)| *sum += part);
                }
            });
            Ok((slices::tensor_like(dx, x)?, sum))
        })
    }
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "block-frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(x, layout)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.backward(x, grad)?.0))
    }
}

impl CustomOp2 for Fused {
    fn name(&self) -> &'static str {
        "block"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(x, layout)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, gradients) = self.backward(x, grad)?;
        let all = Tensor::from_vec(gradients, self.trained, x.device())?;
        let placed =
            self.block.tensors().into_iter().zip(&self.places).filter_map(|(tensor, place)| Some((tensor, (*place)?)));
        let own = |(tensor, place): (&Tensor, usize)| {
            Ok((tensor.clone(), all.narrow(0, place, tensor.elem_count())?.reshape(tensor.shape())?))
        };
        beside::leave(placed.map(own).collect::<Result<_>>()?)?;
        Ok((Some(dx), None))
    }
}

/// See [`super::block`].
pub(super) fn block(x: &Tensor, block: &Block) -> Result<Tensor> {
    let (_, seq, hidden) = x.dims3()?;
    if !block.fits(hidden) {
        candle_core::bail!("block: the weights do not fit together, or not an input {:?}", x.dims());
    }
    let heads = Heads::new((seq, 3 * hidden), block.heads, block.rope.as_ref(), block.causal, block.masks[0])?;
    let (mut places, mut trained) = (Vec::new(), 0);
    for tensor in block.tensors() {
        places.push(tensor.is_variable().then_some(trained));
        if tensor.is_variable() {
            trained += tensor.elem_count();
        }
    }
    let tensors = block.tensors().into_iter().map(Tensor::detach).collect();
    let fused = Fused { block: block.clone(), heads, tensors, places, trained, saved: OnceLock::new() };
    let x = x.contiguous()?;
    if trained == 0 {
        return x.apply_op1(fused);
    }
    // candle goes back through an operation only where a variable lies behind it.
    let place = Var::zeros(1, DType::F32, x.device())?;
    x.apply_op2(place.as_tensor(), fused)
}
