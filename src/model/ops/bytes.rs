//! Products of few rows with a weight in eight bits: a token's share of decoding.
//!
//! With few rows a product waits for the weight to arrive, and a byte arrives sooner than the four of f32:
//! yᵣₒ = sₒ · Σᵢ qₒᵢ · xᵣᵢ, summed in f32.

use std::fmt;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::simd::{across, vectorised};
use super::slices;

/// Products of a step and a value that pay for a second thread.
const PARALLEL: usize = 1 << 19;

/// A matrix `(out, in)` as whole numbers and a scale for each row.
pub struct Bytes {
    steps: Vec<i8>,
    scales: Vec<f32>,
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Bytes({} rows)", self.scales.len())
    }
}

impl Bytes {
    /// Of steps `(out, in)`, stored as u8 above `zero`, and scales `(out)`.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn new(steps: &Tensor, zero: u8, scales: &Tensor) -> Result<Self> {
        let steps = steps.flatten_all()?.to_vec1::<u8>()?.into_iter();
        Ok(Self { steps: steps.map(|step| step.wrapping_sub(zero) as i8).collect(), scales: scales.to_vec1()? })
    }

    /// Values in a row.
    fn input(&self) -> usize {
        self.steps.len() / self.scales.len().max(1)
    }
}

/// Σ qᵢ · xᵢ, in four times sixteen running sums.
#[inline(always)]
fn dot(steps: &[i8], x: &[f32]) -> f32 {
    let mut sums = [[0f32; 16]; 4];
    let (steps64, steps_rest) = steps.as_chunks::<64>();
    let (x64, x_rest) = x.as_chunks::<64>();
    for (steps, x) in steps64.iter().zip(x64) {
        for (part, sums) in sums.iter_mut().enumerate() {
            for lane in 0..16 {
                sums[lane] += f32::from(steps[part * 16 + lane]) * x[part * 16 + lane];
            }
        }
    }
    let mut all = sums[0];
    for lane in 0..16 {
        all[lane] = (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]);
    }
    let rest: f32 = steps_rest.iter().zip(x_rest).map(|(&step, x)| f32::from(step) * x).sum();
    across(all) + rest
}

struct Linear(Arc<Bytes>);

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear-bytes"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Bytes { steps, scales } = &*self.0;
        let (input, out) = (self.0.input(), scales.len());
        let x = slices::of_storage(x, layout)?;
        if layout.dims().last() != Some(&input) {
            candle_core::bail!("linear: x is {:?}, the weight {out} × {input} bytes", layout.dims());
        }
        let mut y = vec![0f32; x.len() / input * out];
        let share = if x.len() * out < PARALLEL { out } else { out.div_ceil(rayon::current_num_threads()) };
        for (x, y) in x.chunks_exact(input).zip(y.chunks_exact_mut(out)) {
            let parts = y.par_chunks_mut(share).zip(steps.par_chunks(share * input)).zip(scales.par_chunks(share));
            parts.for_each(|((y, steps), scales)| {
                vectorised(
                    #[inline(always)]
                    || {
                        for ((y, steps), scale) in y.iter_mut().zip(steps.chunks_exact(input)).zip(scales) {
                            *y = dot(steps, x) * scale;
                        }
                    },
                );
            });
        }
        Ok((CpuStorage::F32(y), slices::with_last(layout, out)))
    }
}

/// See [`super::linear_bytes`].
pub(super) fn linear(x: &Tensor, weight: &Arc<Bytes>) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&Linear(weight.clone()))
}
