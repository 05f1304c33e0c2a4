//! Self-attention from the joint projection, without ever holding the (seq × seq) matrix.
//!
//! `cached` is for generation. `head` computes one head; here heads are spread over threads ([`attention`]) or walked one after another for a
//! sequence that a thread has to itself ([`Heads::forward`], [`Heads::backward`]).

mod cached;
mod head;

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Rope, slices};
use crate::model::dropout::Mask;

pub(super) use cached::{attention as cached_attention, join as join_cached};
pub(super) use head::{Scratch, Sizes};

/// What every head of a call shares.
pub(super) struct Heads {
    pub heads: usize,
    /// cos and sin, `(seq, head_dim / 2)`.
    pub rope: Option<(Vec<f32>, Vec<f32>)>,
    pub causal: bool,
    pub dropout: Option<Mask>,
}

impl Heads {
    /// Checks the sizes of a call and takes its tables as plain values: `width` is three times the model's.
    pub fn new(
        (seq, width): (usize, usize),
        heads: usize,
        rope: Option<&Rope>,
        causal: bool,
        dropout: Option<Mask>,
    ) -> Result<Self> {
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
        Ok(Self { heads, rope, causal, dropout })
    }

    /// All heads of sequence `sample`: qkv `(seq, 3, heads, head_dim)`, out `(seq, heads, head_dim)`, lse `(heads, seq)`.
    pub fn forward(
        &self,
        sample: usize,
        sizes: Sizes,
        qkv: &[f32],
        out: &mut [f32],
        lse: &mut [f32],
        scratch: &mut Scratch,
    ) {
        for (head, lse) in lse.chunks_exact_mut(sizes.seq).enumerate() {
            self.gather(qkv, head, sizes, scratch);
            let out = (&mut out[head * sizes.head_dim..], sizes.hidden());
            self.forward_head(sample * sizes.heads + head, sizes, scratch, out, lse);
        }
    }

    /// The gradient of [`Heads::forward`]; `part` holds one head's dq, dk, dv.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        sample: usize,
        sizes: Sizes,
        qkv: &[f32],
        (out, grad, lse): (&[f32], &[f32], &[f32]),
        dqkv: &mut [f32],
        part: &mut [f32],
        scratch: &mut Scratch,
    ) {
        for (head, lse) in lse.chunks_exact(sizes.seq).enumerate() {
            self.gather(qkv, head, sizes, scratch);
            let from = head * sizes.head_dim;
            let given = (&out[from..], &grad[from..], sizes.hidden());
            self.backward_head(sample * sizes.heads + head, sizes, scratch, given, lse, part);
            scatter(part, dqkv, head, sizes);
        }
    }
}

/// Puts one head's (dq, dk, dv), each `(seq, head_dim)`, into its columns of `(seq, 3, heads, head_dim)`.
fn scatter(part: &[f32], joined: &mut [f32], head: usize, sizes: Sizes) {
    let (d, row) = (sizes.head_dim, 3 * sizes.hidden());
    for (which, values) in part.chunks_exact(sizes.head()).enumerate() {
        for (position, values) in values.chunks_exact(d).enumerate() {
            joined[position * row + (which * sizes.heads + head) * d..][..d].copy_from_slice(values);
        }
    }
}

/// The operation by itself, parallel over the heads of all sequences.
struct Attention {
    heads: Heads,
    /// Log-sum-exp of each row of scores, `(batch, heads, seq)`.
    lse: OnceLock<Vec<f32>>,
}

impl Attention {
    fn forward(&self, qkv: &[f32], batch: usize, sizes: Sizes) -> Vec<f32> {
        let (head, sequence) = (sizes.head(), 3 * sizes.seq * sizes.hidden());
        let mut out = vec![0f32; batch * sizes.heads * head]; // (batch, heads, seq, head_dim)
        let mut lse = vec![0f32; batch * sizes.heads * sizes.seq];
        let tasks = out.par_chunks_mut(head).zip(lse.par_chunks_mut(sizes.seq)).enumerate();
        tasks.for_each_init(
            || Scratch::new(sizes),
            |scratch, (index, (out, lse))| {
                let (sample, head) = (index / sizes.heads, index % sizes.heads);
                self.heads.gather(&qkv[sample * sequence..][..sequence], head, sizes, scratch);
                self.heads.forward_head(index, sizes, scratch, (out, sizes.head_dim), lse);
            },
        );
        let _ = self.lse.set(lse);
        let mut joined = vec![0f32; out.len()]; // (batch, seq, heads, head_dim)
        let sample = sizes.heads * head;
        joined.par_chunks_mut(sample).zip(out.par_chunks(sample)).for_each(|(joined, split)| {
            for (head, part) in split.chunks_exact(head).enumerate() {
                for (position, values) in part.chunks_exact(sizes.head_dim).enumerate() {
                    let to = position * sizes.hidden() + head * sizes.head_dim;
                    joined[to..to + sizes.head_dim].copy_from_slice(values);
                }
            }
        });
        joined
    }

    fn backward(&self, qkv: &[f32], out: &[f32], grad: &[f32], sizes: Sizes) -> Vec<f32> {
        let (heads, hidden) = (sizes.heads, sizes.hidden());
        let sequence = sizes.seq * hidden;
        let lse = self.lse.get().map(Vec::as_slice).unwrap_or_default();
        let mut split = vec![0f32; qkv.len()]; // (batch, heads, 3, seq, head_dim)
        let tasks = split.par_chunks_mut(3 * sizes.head()).zip(lse.par_chunks(sizes.seq)).enumerate();
        tasks.for_each_init(
            || Scratch::new(sizes),
            |scratch, (index, (dqkv, lse))| {
                let (sample, head) = (index / heads, index % heads);
                self.heads.gather(&qkv[3 * sample * sequence..][..3 * sequence], head, sizes, scratch);
                let from = sample * sequence + head * sizes.head_dim;
                self.heads.backward_head(index, sizes, scratch, (&out[from..], &grad[from..], hidden), lse, dqkv);
            },
        );
        let mut joined = vec![0f32; split.len()]; // (batch, seq, 3, heads, head_dim)
        joined.par_chunks_mut(3 * sequence).zip(split.par_chunks(3 * sequence)).for_each(|(joined, split)| {
            let parts = split.chunks_exact(3 * sizes.head()).enumerate();
            parts.for_each(|(head, part)| scatter(part, joined, head, sizes));
        });
        joined
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, seq, width) = layout.shape().dims3()?;
        let sizes = Sizes::new(seq, width, self.heads.heads);
        let out = self.forward(slices::of_storage(qkv, layout)?, batch, sizes);
        Ok((CpuStorage::F32(out), (batch, seq, width / 3).into()))
    }

    fn bwd(&self, qkv: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, seq, width) = qkv.dims3()?;
        let sizes = Sizes::new(seq, width, self.heads.heads);
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
    let heads = Heads::new((seq, width), heads, rope, causal, dropout)?;
    qkv.contiguous()?.apply_op1(Attention { heads, lse: OnceLock::new() })
}
