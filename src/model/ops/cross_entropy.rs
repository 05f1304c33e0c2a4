//! Softmax cross-entropy with label smoothing: one pass over the logits forward, one back.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::simd::{exp, max, sum, vectorised};
use super::slices;

struct CrossEntropy {
    targets: Vec<u32>,
    smoothing: f32,
    /// Log-sum-exp of each row, left by the forward pass for the backward pass.
    lse: OnceLock<Vec<f32>>,
}

/// ln Σ exp(z).
#[inline(always)]
pub(super) fn log_sum_exp(z: &[f32]) -> f32 {
    let top = max(z);
    let mut sums = [0f32; 16];
    let (chunks, rest) = z.as_chunks::<16>();
    for chunk in chunks {
        for lane in 0..16 {
            sums[lane] += exp(chunk[lane] - top);
        }
    }
    let rest: f32 = rest.iter().map(|z| exp(z - top)).sum();
    top + (sums.iter().sum::<f32>() + rest).ln()
}

/// Log-sum-exp of a row of logits, and its loss in nats.
#[inline(always)]
pub(super) fn row_loss(z: &[f32], target: u32, smoothing: f32) -> (f32, f64) {
    vectorised(
        #[inline(always)]
        || {
            let lse = log_sum_exp(z);
            let mean = if smoothing > 0.0 { sum(z) / z.len() as f32 } else { 0.0 };
            let loss = lse - (1.0 - smoothing) * z[target as usize] - smoothing * mean;
            (lse, f64::from(loss))
        },
    )
}

/// Turns a row of logits into its gradient: (softmax(z) − (1 − ε) · onehot(y) − ε / V) · scale.
#[inline(always)]
pub(super) fn row_gradient(z: &mut [f32], target: u32, smoothing: f32, lse: f32, scale: f32) {
    let even = smoothing / z.len() as f32;
    vectorised(
        #[inline(always)]
        || z.iter_mut().for_each(|z| *z = (exp(*z - lse) - even) * scale),
    );
    z[target as usize] -= (1.0 - smoothing) * scale;
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, vocab) = layout.shape().dims2()?;
        let logits = slices::of_storage(logits, layout)?;
        let row = |(z, &target): (&[f32], &u32)| row_loss(z, target, self.smoothing);
        let (lse, losses): (Vec<f32>, Vec<f64>) =
            logits.par_chunks(vocab).zip(&self.targets).with_min_len(16).map(row).unzip();
        // A NaN must reach the caller, so nothing is filtered from the mean.
        let loss = losses.iter().sum::<f64>() / rows as f64;
        let _ = self.lse.set(lse);
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (rows, vocab) = logits.dims2()?;
        let scale = grad.to_scalar::<f32>()? / rows as f32;
        let lse = self.lse.get().map(Vec::as_slice).unwrap_or_default();
        slices::read([logits], |[values]| {
            let mut dz = vec![0f32; values.len()];
            let rows = dz.par_chunks_mut(vocab).zip(values.par_chunks(vocab)).zip(lse).zip(&self.targets);
            rows.with_min_len(16).for_each(|(((dz, z), &lse), &target)| {
                dz.copy_from_slice(z);
                row_gradient(dz, target, self.smoothing, lse, scale);
            });
            Ok(Some(slices::tensor_like(dz, logits)?))
        })
    }
}

/// The targets as plain values.
///
/// # Errors
/// When they are not one for each of `rows`, or one is outside the vocabulary.
pub(super) fn checked_targets(targets: &Tensor, rows: usize, vocab: usize) -> Result<Vec<u32>> {
    let targets: Vec<u32> = targets.to_dtype(candle_core::DType::U32)?.to_vec1()?;
    if targets.len() != rows || rows == 0 {
        candle_core::bail!("{} targets for {rows} rows of logits", targets.len());
    }
    if let Some(target) = targets.iter().find(|&&target| target as usize >= vocab) {
        candle_core::bail!("target {target} is outside the vocabulary of {vocab}");
    }
    Ok(targets)
}

/// See [`super::cross_entropy`].
pub(super) fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
    let (rows, vocab) = logits.dims2()?;
    let targets = checked_targets(targets, rows, vocab)?;
    logits.contiguous()?.apply_op1(CrossEntropy { targets, smoothing: smoothing as f32, lse: OnceLock::new() })
}
