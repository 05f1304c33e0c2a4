//! Self-attention from the joint projection. The (seq × seq) matrix exists only block by block, in a thread's scratch;
//! the backward pass computes it again from the row sums that the forward pass left (Dao et al. 2022, algorithm 4).

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::cross_entropy::log_sum_exp;
use super::gemm::{Matrix, product};
use super::simd::{dot, exp, vectorised};
use super::{Rope, slices};
use crate::model::dropout::Mask;

/// Query rows handled at a time: small enough that a block of scores stays in the second-level cache, large enough for
/// the matrix product to run at speed. Under the causal mask a block computes no column beyond its last row.
const BLOCK: usize = 64;

struct Attention {
    heads: usize,
    /// cos and sin, `(seq, head_dim / 2)`.
    rope: Option<(Vec<f32>, Vec<f32>)>,
    causal: bool,
    dropout: Option<Mask>,
    /// Log-sum-exp of each row of scores, `(batch, heads, seq)`.
    lse: OnceLock<Vec<f32>>,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    seq: usize,
    heads: usize,
    head_dim: usize,
}

impl Sizes {
    fn new(batch: usize, seq: usize, width: usize, heads: usize) -> Self {
        Self { batch, seq, heads, head_dim: width / 3 / heads }
    }

    /// Values of one head, one of q, k, v.
    fn head(self) -> usize {
        self.seq * self.head_dim
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// A thread's scratch: q (scaled and turned), k (turned), v, and two blocks of scores.
struct Scratch {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    scores: Vec<f32>,
    grads: Vec<f32>,
}

impl Scratch {
    fn new(sizes: Sizes) -> Self {
        let head = || vec![0f32; sizes.head()];
        let block = || vec![0f32; BLOCK * sizes.seq];
        Self { q: head(), k: head(), v: head(), scores: block(), grads: block() }
    }
}

impl Attention {
    /// Turns a row by its position's angle; `sign` −1 turns it back.
    #[inline(always)]
    fn turn(&self, row: &mut [f32], position: usize, sign: f32) {
        let Some((cos, sin)) = &self.rope else { return };
        let half = row.len() / 2;
        let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
        let (a, b) = row.split_at_mut(half);
        for i in 0..half {
            let (x, y, s) = (a[i], b[i], sign * sin[i]);
            a[i] = x * cos[i] - y * s;
            b[i] = y * cos[i] + x * s;
        }
    }

    /// Gathers one head from `qkv` `(batch, seq, 3, heads, head_dim)`.
    fn gather(&self, qkv: &[f32], index: usize, sizes: Sizes, scratch: &mut Scratch) {
        let Sizes { seq, heads, head_dim, .. } = sizes;
        let (sample, head) = (index / heads, index % heads);
        let scale = sizes.scale();
        vectorised(|| {
            for position in 0..seq {
                let row = &qkv[(sample * seq + position) * 3 * heads * head_dim..][..3 * heads * head_dim];
                let part = |which: usize| &row[(which * heads + head) * head_dim..][..head_dim];
                let target = position * head_dim..(position + 1) * head_dim;
                let q = &mut scratch.q[target.clone()];
                q.iter_mut().zip(part(0)).for_each(|(to, from)| *to = from * scale);
                self.turn(q, position, 1.0);
                let k = &mut scratch.k[target.clone()];
                k.copy_from_slice(part(1));
                self.turn(k, position, 1.0);
                scratch.v[target].copy_from_slice(part(2));
            }
        });
    }

    /// Columns that rows up to `end` may see.
    fn visible(&self, end: usize, seq: usize) -> usize {
        if self.causal { end } else { seq }
    }

    /// The first element of a row of probabilities, as the composed form counts them.
    fn mask_base(index: usize, row: usize, seq: usize) -> u64 {
        ((index * seq + row) * seq) as u64
    }

    /// One head forward: `out` `(seq, head_dim)`, `lse` `(seq)`.
    fn head_forward(&self, index: usize, sizes: Sizes, scratch: &mut Scratch, out: &mut [f32], lse: &mut [f32]) {
        let Sizes { seq, head_dim: d, .. } = sizes;
        for start in (0..seq).step_by(BLOCK) {
            let end = (start + BLOCK).min(seq);
            let (rows, columns) = (end - start, self.visible(end, seq));
            let q = Matrix::rows(&scratch.q[start * d..end * d], d);
            let k = Matrix::rows(&scratch.k, d);
            product((rows, columns, d), q, k.t(), &mut scratch.scores, columns, false, false);
            vectorised(|| {
                #[allow(clippy::needless_range_loop)] // the row addresses five slices, `lse` is but one of them
                for row in start..end {
                    let scores = &mut scratch.scores[(row - start) * columns..][..columns];
                    let (seen, hidden) = scores.split_at_mut(self.visible(row + 1, seq));
                    lse[row] = log_sum_exp(seen);
                    seen.iter_mut().for_each(|score| *score = exp(*score - lse[row]));
                    hidden.fill(0.0);
                }
            });
            if let Some(mask) = self.dropout {
                #[allow(clippy::needless_range_loop)] // the row addresses five slices, `lse` is but one of them
                for row in start..end {
                    let base = Self::mask_base(index, row, seq);
                    let scores = &mut scratch.scores[(row - start) * columns..][..columns];
                    scores.iter_mut().zip(base..).for_each(|(p, element)| *p *= mask.factor(element));
                }
            }
            let p = Matrix::rows(&scratch.scores, columns);
            product((rows, d, columns), p, Matrix::rows(&scratch.v, d), &mut out[start * d..end * d], d, false, false);
        }
    }

    /// One head backward: `out` and `grad` `(seq, head_dim)`; `dqkv` receives dq, dk, dv, each `(seq, head_dim)`.
    #[allow(clippy::too_many_arguments)]
    fn head_backward(
        &self,
        index: usize,
        sizes: Sizes,
        scratch: &mut Scratch,
        out: &[f32],
        grad: &[f32],
        lse: &[f32],
        dqkv: &mut [f32],
    ) {
        let Sizes { seq, head_dim: d, .. } = sizes;
        let (dq, rest) = dqkv.split_at_mut(sizes.head());
        let (dk, dv) = rest.split_at_mut(sizes.head());
        dk.fill(0.0);
        dv.fill(0.0);
        for start in (0..seq).step_by(BLOCK) {
            let end = (start + BLOCK).min(seq);
            let (rows, columns) = (end - start, self.visible(end, seq));
            let q = Matrix::rows(&scratch.q[start * d..end * d], d);
            let k = Matrix::rows(&scratch.k, d);
            let d_out = Matrix::rows(&grad[start * d..end * d], d);
            product((rows, columns, d), q, k.t(), &mut scratch.scores, columns, false, false);
            product(
                (rows, columns, d),
                d_out,
                Matrix::rows(&scratch.v, d).t(),
                &mut scratch.grads,
                columns,
                false,
                false,
            );
            vectorised(|| {
                #[allow(clippy::needless_range_loop)] // the row addresses five slices, `lse` is but one of them
                for row in start..end {
                    let scores = &mut scratch.scores[(row - start) * columns..][..columns];
                    let (seen, hidden) = scores.split_at_mut(self.visible(row + 1, seq));
                    seen.iter_mut().for_each(|score| *score = exp(*score - lse[row]));
                    hidden.fill(0.0);
                }
            });
            // scores: P. grads: dP, before the dropout. dS = P · (dP · mask − Σ dO · O), and dV = (P · mask)ᵀ · dO.
            if let Some(mask) = self.dropout {
                let mut masked = scratch.scores[..rows * columns].to_vec();
                #[allow(clippy::needless_range_loop)] // the row addresses five slices, `lse` is but one of them
                for row in start..end {
                    let base = Self::mask_base(index, row, seq);
                    let range = (row - start) * columns..(row - start + 1) * columns;
                    let pairs = masked[range.clone()].iter_mut().zip(&mut scratch.grads[range]);
                    for ((p, dp), element) in pairs.zip(base..) {
                        let factor = mask.factor(element);
                        *p *= factor;
                        *dp *= factor;
                    }
                }
                product((columns, d, rows), Matrix::rows(&masked, columns).t(), d_out, dv, d, true, false);
            } else {
                product((columns, d, rows), Matrix::rows(&scratch.scores, columns).t(), d_out, dv, d, true, false);
            }
            vectorised(|| {
                #[allow(clippy::needless_range_loop)] // the row addresses five slices, `lse` is but one of them
                for row in start..end {
                    let own = row * d..(row + 1) * d;
                    let mean = dot(&out[own.clone()], &grad[own]);
                    let range = (row - start) * columns..(row - start + 1) * columns;
                    let pairs = scratch.grads[range.clone()].iter_mut().zip(&scratch.scores[range]);
                    pairs.for_each(|(dp, p)| *dp = p * (*dp - mean));
                }
            });
            let ds = Matrix::rows(&scratch.grads, columns);
            product((rows, d, columns), ds, k, &mut dq[start * d..end * d], d, false, false);
            product((columns, d, rows), ds.t(), q, dk, d, true, false);
        }
        let scale = sizes.scale();
        vectorised(|| {
            for position in 0..seq {
                let own = position * d..(position + 1) * d;
                dq[own.clone()].iter_mut().for_each(|value| *value *= scale);
                self.turn(&mut dq[own.clone()], position, -1.0);
                self.turn(&mut dk[own], position, -1.0);
            }
        });
    }

    fn forward(&self, qkv: &[f32], sizes: Sizes) -> Vec<f32> {
        let head = sizes.head();
        let mut out = vec![0f32; sizes.batch * sizes.heads * head]; // (batch, heads, seq, head_dim)
        let mut lse = vec![0f32; sizes.batch * sizes.heads * sizes.seq];
        let tasks = out.par_chunks_mut(head).zip(lse.par_chunks_mut(sizes.seq)).enumerate();
        tasks.for_each_init(
            || Scratch::new(sizes),
            |scratch, (index, (out, lse))| {
                self.gather(qkv, index, sizes, scratch);
                self.head_forward(index, sizes, scratch, out, lse);
            },
        );
        let _ = self.lse.set(lse);
        let mut joined = vec![0f32; out.len()]; // (batch, seq, heads, head_dim)
        interleave(&out, &mut joined, sizes.heads, sizes.seq, sizes.head_dim);
        joined
    }

    fn backward(&self, qkv: &[f32], out: &[f32], grad: &[f32], sizes: Sizes) -> Vec<f32> {
        let Sizes { seq, heads, head_dim, .. } = sizes;
        let lse = self.lse.get().map(Vec::as_slice).unwrap_or_default();
        let mut split = vec![0f32; qkv.len()]; // (batch, heads, 3, seq, head_dim)
        let tasks = split.par_chunks_mut(3 * sizes.head()).zip(lse.par_chunks(seq)).enumerate();
        let buffers = || (Scratch::new(sizes), vec![0f32; sizes.head()], vec![0f32; sizes.head()]);
        tasks.for_each_init(buffers, |(scratch, own_out, own_grad), (index, (dqkv, lse))| {
            self.gather(qkv, index, sizes, scratch);
            let (sample, head) = (index / heads, index % heads);
            for position in 0..seq {
                let from = ((sample * seq + position) * heads + head) * head_dim;
                let to = position * head_dim;
                own_out[to..to + head_dim].copy_from_slice(&out[from..from + head_dim]);
                own_grad[to..to + head_dim].copy_from_slice(&grad[from..from + head_dim]);
            }
            self.head_backward(index, sizes, scratch, own_out, own_grad, lse, dqkv);
        });
        let mut joined = vec![0f32; split.len()]; // (batch, seq, 3, heads, head_dim)
        let row = 3 * heads * head_dim;
        joined.par_chunks_mut(seq * row).zip(split.par_chunks(seq * row)).for_each(|(joined, split)| {
            for (index, part) in split.chunks_exact(seq * head_dim).enumerate() {
                let (head, which) = (index / 3, index % 3);
                for (position, values) in part.chunks_exact(head_dim).enumerate() {
                    joined[position * row + (which * heads + head) * head_dim..][..head_dim].copy_from_slice(values);
                }
            }
        });
        joined
    }
}

/// `(batch, heads, seq, head_dim)` to `(batch, seq, heads, head_dim)`.
fn interleave(split: &[f32], joined: &mut [f32], heads: usize, seq: usize, head_dim: usize) {
    let sample = heads * seq * head_dim;
    joined.par_chunks_mut(sample).zip(split.par_chunks(sample)).for_each(|(joined, split)| {
        for (head, part) in split.chunks_exact(seq * head_dim).enumerate() {
            for (position, values) in part.chunks_exact(head_dim).enumerate() {
                joined[(position * heads + head) * head_dim..][..head_dim].copy_from_slice(values);
            }
        }
    });
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, seq, width) = layout.shape().dims3()?;
        let out = self.forward(slices::of_storage(qkv, layout)?, Sizes::new(batch, seq, width, self.heads));
        Ok((CpuStorage::F32(out), (batch, seq, width / 3).into()))
    }

    fn bwd(&self, qkv: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (batch, seq, width) = qkv.dims3()?;
        let sizes = Sizes::new(batch, seq, width, self.heads);
        slices::read([qkv, out, grad], |[values, out, grad]| {
            Ok(Some(slices::tensor_like(self.backward(values, out, grad, sizes), qkv)?))
        })
    }
}

/// See [`super::attention`].
pub(super) fn attention(
    qkv: &Tensor,
    heads: usize,
    rope: Option<&Rope>,
    causal: bool,
    dropout: Option<Mask>,
) -> Result<Tensor> {
    let (_, seq, width) = qkv.dims3()?;
    if heads == 0 || !width.is_multiple_of(3 * heads) {
        candle_core::bail!("attention: {heads} heads cannot share a width of {width}");
    }
    let rope = match rope {
        Some(rope) => {
            let half = width / 3 / heads / 2;
            if rope.cos.dims() != [seq, half] || rope.sin.dims() != [seq, half] {
                candle_core::bail!("attention: rotary tables {:?} for {seq} positions", rope.cos.dims());
            }
            let values = |table: &Tensor| table.flatten_all()?.to_vec1::<f32>();
            Some((values(&rope.cos)?, values(&rope.sin)?))
        }
        None => None,
    };
    qkv.contiguous()?.apply_op1(Attention { heads, rope, causal, dropout, lse: OnceLock::new() })
}
