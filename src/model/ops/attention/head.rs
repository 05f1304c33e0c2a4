//! One head of one sequence, forward and backward, on a thread's own scratch.
//!
//! The (seq × seq) matrix exists only block by block; the backward pass computes it again from the row sums that the
//! forward pass left (Dao et al. 2022, algorithm 4).

use super::Heads;
use crate::model::ops::gemm::{Matrix, product};
use crate::model::ops::simd::{dot, exp, max, sum, vectorised};

/// Query rows handled at a time: small enough that a block of scores stays in the second-level cache, large enough for
/// the matrix product to run at speed. Under the causal mask a block computes no column beyond its last row.
const BLOCK: usize = 64;

/// Sizes of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub seq: usize,
    pub heads: usize,
    pub head_dim: usize,
}

impl Sizes {
    /// Of a sequence whose joint projection is `width` wide.
    pub fn new(seq: usize, width: usize, heads: usize) -> Self {
        Self { seq, heads, head_dim: width / 3 / heads }
    }

    /// Values of one head, one of q, k, v.
    pub fn head(self) -> usize {
        self.seq * self.head_dim
    }

    /// heads · head_dim.
    pub fn hidden(self) -> usize {
        self.heads * self.head_dim
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// A thread's scratch: q (scaled and turned), k (turned), v, and blocks of scores; one more where dropout needs it.
pub(crate) struct Scratch {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    scores: Vec<f32>,
    grads: Vec<f32>,
    masked: Vec<f32>,
}

impl Scratch {
    pub fn new(sizes: Sizes) -> Self {
        let head = || vec![0f32; sizes.head()];
        let block = || vec![0f32; BLOCK * sizes.seq];
        Self { q: head(), k: head(), v: head(), scores: block(), grads: block(), masked: Vec::new() }
    }
}

impl Heads {
    /// Turns a row by its position's angle; `sign` −1 turns it back.
    #[inline(always)]
    pub(super) fn turn(&self, row: &mut [f32], position: usize, sign: f32) {
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

    /// Gathers one head from a sequence's joint projection `(seq, 3, heads, head_dim)`.
    pub(super) fn gather(&self, qkv: &[f32], head: usize, sizes: Sizes, scratch: &mut Scratch) {
        let Sizes { seq, heads, head_dim } = sizes;
        let scale = sizes.scale();
        vectorised(
            #[inline(always)]
            || {
                for position in 0..seq {
                    let row = &qkv[position * 3 * heads * head_dim..][..3 * heads * head_dim];
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
            },
        );
    }

    /// Columns that rows up to `end` may see.
    #[inline(always)]
    fn visible(&self, end: usize, seq: usize) -> usize {
        if self.causal { end } else { seq }
    }

    /// Multiplies a block's rows from `start` by the dropout mask. `index` counts heads over the whole batch, as the
    /// composed form counts the elements of its probabilities.
    fn mask_block(&self, block: &mut [f32], columns: usize, (index, start, seq): (usize, usize, usize)) {
        let Some(mask) = self.dropout else { return };
        for (row, values) in block.chunks_exact_mut(columns).enumerate() {
            mask.apply(values, ((index * seq + start + row) * seq) as u64);
        }
    }

    /// One head forward, after [`Heads::gather`]: `out` `(seq, head_dim)` with rows `width` apart, `lse` `(seq)`.
    pub(super) fn forward_head(
        &self,
        index: usize,
        sizes: Sizes,
        scratch: &mut Scratch,
        (out, width): (&mut [f32], usize),
        lse: &mut [f32],
    ) {
        let Sizes { seq, head_dim: d, .. } = sizes;
        let mut totals = [0f32; BLOCK];
        for start in (0..seq).step_by(BLOCK) {
            let end = (start + BLOCK).min(seq);
            let (rows, columns) = (end - start, self.visible(end, seq));
            let q = Matrix::rows(&scratch.q[start * d..end * d], d);
            let k = Matrix::rows(&scratch.k, d);
            product((rows, columns, d), q, k.t(), &mut scratch.scores, columns, false, false);
            vectorised(
                #[inline(always)]
                || {
                    for (row, lse) in (start..).zip(&mut lse[start..end]) {
                        let scores = &mut scratch.scores[(row - start) * columns..][..columns];
                        let (seen, hidden) = scores.split_at_mut(self.visible(row + 1, seq));
                        // Weights relative to the largest; the row is divided by their sum at the end, when it is short.
                        let top = max(seen);
                        seen.iter_mut().for_each(|score| *score = exp(*score - top));
                        let total = sum(seen);
                        hidden.fill(0.0);
                        totals[row - start] = 1.0 / total;
                        *lse = top + total.ln();
                    }
                },
            );
            self.mask_block(&mut scratch.scores[..rows * columns], columns, (index, start, seq));
            let p = Matrix::rows(&scratch.scores, columns);
            let out = &mut out[start * width..];
            product((rows, d, columns), p, Matrix::rows(&scratch.v, d), out, width, false, false);
            vectorised(
                #[inline(always)]
                || {
                    for (row, total) in totals[..rows].iter().enumerate() {
                        out[row * width..][..d].iter_mut().for_each(|value| *value *= total);
                    }
                },
            );
        }
    }

    /// One head backward, after [`Heads::gather`]: `out` and `grad` `(seq, head_dim)` with rows `width` apart; `dqkv`
    /// receives dq, dk, dv, each `(seq, head_dim)`.
    pub(super) fn backward_head(
        &self,
        index: usize,
        sizes: Sizes,
        scratch: &mut Scratch,
        (out, grad, width): (&[f32], &[f32], usize),
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
            let size = (rows, columns, d);
            let q = Matrix::rows(&scratch.q[start * d..end * d], d);
            let (k, v) = (Matrix::rows(&scratch.k, d), Matrix::rows(&scratch.v, d));
            let d_out = Matrix::rows(&grad[start * width..], width);
            product(size, q, k.t(), &mut scratch.scores, columns, false, false);
            product(size, d_out, v.t(), &mut scratch.grads, columns, false, false);
            vectorised(
                #[inline(always)]
                || {
                    for (row, lse) in (start..).zip(&lse[start..end]) {
                        let scores = &mut scratch.scores[(row - start) * columns..][..columns];
                        let (seen, hidden) = scores.split_at_mut(self.visible(row + 1, seq));
                        seen.iter_mut().for_each(|score| *score = exp(*score - lse));
                        hidden.fill(0.0);
                    }
                },
            );
            // scores: P. grads: dP, before the dropout. dS = P · (dP · mask − Σ dO · O), and dV = (P · mask)ᵀ · dO.
            let seen = if self.dropout.is_some() {
                scratch.masked.clear();
                scratch.masked.extend_from_slice(&scratch.scores[..rows * columns]);
                self.mask_block(&mut scratch.masked, columns, (index, start, seq));
                self.mask_block(&mut scratch.grads[..rows * columns], columns, (index, start, seq));
                &scratch.masked
            } else {
                &scratch.scores
            };
            product((columns, d, rows), Matrix::rows(seen, columns).t(), d_out, dv, d, true, false);
            vectorised(
                #[inline(always)]
                || {
                    for row in start..end {
                        let own = row * width..row * width + d;
                        let mean = dot(&out[own.clone()], &grad[own]);
                        let range = (row - start) * columns..(row - start + 1) * columns;
                        let pairs = scratch.grads[range.clone()].iter_mut().zip(&scratch.scores[range]);
                        pairs.for_each(|(dp, p)| *dp = p * (*dp - mean));
                    }
                },
            );
            let ds = Matrix::rows(&scratch.grads, columns);
            product((rows, d, columns), ds, k, &mut dq[start * d..end * d], d, false, false);
            product((columns, d, rows), ds.t(), q, dk, d, true, false);
        }
        let scale = sizes.scale();
        vectorised(
            #[inline(always)]
            || {
                for position in 0..seq {
                    let own = position * d..(position + 1) * d;
                    dq[own.clone()].iter_mut().for_each(|value| *value *= scale);
                    self.turn(&mut dq[own.clone()], position, -1.0);
                    self.turn(&mut dk[own], position, -1.0);
                }
            },
        );
    }
}
