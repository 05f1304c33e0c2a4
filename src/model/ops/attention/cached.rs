//! New queries over cached keys and values, read where they lie: for inference, without a gradient.
//!
//! The cache has room for more columns than are in use, so its views have gaps. The composed form copies them to close the gaps
//! and builds a mask, each for every layer and token; here a thread walks the columns that a row may see.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::model::ops::simd::{dot, exp, max, sum, vectorised};
use crate::model::ops::slices;

/// Multiply-adds that are worth a task of their own.
const WORK: usize = 64 * 1024;

/// Keys or values `(batch, heads, columns, head_dim)` whose columns lie one after another.
struct Columns<'a> {
    values: &'a [f32],
    sample_stride: usize,
    head_stride: usize,
}

impl<'a> Columns<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let CpuStorage::F32(values) = storage else { candle_core::bail!("a fused operation needs f32 values") };
        let &[sample_stride, head_stride, _, _] = layout.stride() else {
            candle_core::bail!("keys of four dimensions")
        };
        Ok(Self { values: &values[layout.start_offset()..], sample_stride, head_stride })
    }

    /// Columns from `start` to `end` of one head.
    fn of(&self, sample: usize, head: usize, (start, end): (usize, usize), head_dim: usize) -> &[f32] {
        let from = sample * self.sample_stride + head * self.head_stride;
        &self.values[from + start * head_dim..from + end * head_dim]
    }
}

/// Whether [`attention`] can read `tensor` in place.
fn walkable(tensor: &Tensor) -> bool {
    let head_dim = tensor.dims()[3];
    matches!(tensor.stride(), &[_, _, column, 1] if column == head_dim)
}

/// One query: `out` = softmax(q · keysᵀ · scale) · values.
fn query(q: &[f32], keys: &[f32], values: &[f32], scores: &mut [f32], out: &mut [f32]) {
    let d = q.len();
    let scale = 1.0 / (d as f32).sqrt();
    vectorised(
        #[inline(always)]
        || {
            for (score, key) in scores.iter_mut().zip(keys.chunks_exact(d)) {
                *score = dot(q, key) * scale;
            }
            let top = max(scores);
            for score in scores.iter_mut() {
                *score = exp(*score - top);
            }
            let share = 1.0 / sum(scores);
            out.fill(0.0);
            // Four columns at a time: a quarter of the loads and stores of `out`.
            let (fours, rest) = scores.as_chunks::<4>();
            let (value_fours, value_rest) = values.split_at(fours.len() * 4 * d);
            for (p, v) in fours.iter().zip(value_fours.chunks_exact(4 * d)) {
                let (v01, v23) = v.split_at(2 * d);
                let ((v0, v1), (v2, v3)) = (v01.split_at(d), v23.split_at(d));
                for ((((out, v0), v1), v2), v3) in out.iter_mut().zip(v0).zip(v1).zip(v2).zip(v3) {
                    *out += p[0] * v0 + p[1] * v1 + (p[2] * v2 + p[3] * v3);
                }
            }
            for (p, v) in rest.iter().zip(value_rest.chunks_exact(d)) {
                for (out, v) in out.iter_mut().zip(v) {
                    *out += p * v;
                }
            }
            for out in out.iter_mut() {
                *out *= share;
            }
        },
    );
}

/// The first column of each row.
struct Cached(Vec<usize>);

impl CustomOp3 for Cached {
    fn name(&self) -> &'static str {
        "cached-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, heads, new, d) = q_layout.shape().dims4()?;
        let columns = k_layout.shape().dims4()?.2;
        let q = slices::of_storage(q, q_layout)?;
        let (keys, values) = (Columns::new(k, k_layout)?, Columns::new(v, v_layout)?);
        let mut out = vec![0f32; batch * heads * new * d];
        let tasks = out.par_chunks_mut(new * d).zip(q.par_chunks(new * d)).enumerate();
        let fewest = WORK / (new * columns * d) + 1;
        tasks.with_min_len(fewest).for_each_init(
            || vec![0f32; columns],
            |scores, (index, (out, q))| {
                let (sample, head) = (index / heads, index % heads);
                for (i, (out, q)) in out.chunks_exact_mut(d).zip(q.chunks_exact(d)).enumerate() {
                    let seen = (self.0[sample], columns - new + i + 1);
                    let (keys, values) = (keys.of(sample, head, seen, d), values.of(sample, head, seen, d));
                    query(q, keys, values, &mut scores[..seen.1 - seen.0], out);
                }
            },
        );
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }
}

/// See [`crate::model::ops::cached_attention`].
pub(in crate::model::ops) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, starts: &[usize]) -> Result<Tensor> {
    let (batch, heads, new, d) = q.dims4()?;
    let columns = k.dim(2)?;
    let fits = k.dims() == [batch, heads, columns, d] && v.dims() == k.dims() && starts.len() == batch;
    if !fits || new == 0 || new > columns || starts.iter().any(|&start| start > columns - new) {
        candle_core::bail!("cached attention: queries {:?}, keys {:?}, values {:?}", q.dims(), k.dims(), v.dims());
    }
    let in_place = |tensor: &Tensor| if walkable(tensor) { Ok(tensor.clone()) } else { tensor.contiguous() };
    q.contiguous()?.apply_op3(&in_place(k)?, &in_place(v)?, Cached(starts.to_vec()))
}

/// See [`crate::model::ops::join_cached`]. One pass over memory, by every thread.
pub(in crate::model::ops) fn join(
    parts: &[(Tensor, Vec<usize>, usize)],
    columns: usize,
    room: usize,
) -> Result<Tensor> {
    let tensors: Vec<Tensor> = parts.iter().map(|part| part.0.clone()).collect();
    let Some(first) = tensors.first() else { candle_core::bail!("there is nothing to join") };
    let (_, heads, _, d) = first.dims4()?;
    let mut rows = Vec::new();
    for (index, (tensor, starts, end)) in parts.iter().enumerate() {
        let (batch, others, capacity, width) = tensor.dims4()?;
        let within = |&start: &usize| start <= *end && end - start <= columns;
        if (others, width, batch) != (heads, d, starts.len()) || *end > capacity || !starts.iter().all(within) {
            candle_core::bail!("a cache {:?} of {} rows does not fit {columns} columns", tensor.dims(), starts.len());
        }
        rows.extend(
            starts.iter().enumerate().map(|(row, start)| (index, row * heads * capacity * d, start * d, end * d)),
        );
    }
    if columns > room {
        candle_core::bail!("{columns} columns do not fit {room}");
    }
    let joined = slices::read_all(&tensors, |values| {
        let mut joined = vec![0f32; rows.len() * heads * room * d];
        joined.par_chunks_mut(heads * room * d).zip(&rows).for_each(|(joined, &(index, row, start, end))| {
            let size = tensors[index].dims()[2] * d;
            for (head, joined) in joined.chunks_exact_mut(room * d).enumerate() {
                let own = &values[index][row + head * size..][start..end];
                joined[columns * d - own.len()..columns * d].copy_from_slice(own);
            }
        });
        Ok(joined)
    })?;
    Tensor::from_vec(joined, (rows.len(), heads, room, d), first.device())
}
