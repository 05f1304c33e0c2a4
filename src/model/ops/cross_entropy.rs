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

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, vocab) = layout.shape().dims2()?;
        let logits = slices::of_storage(logits, layout)?;
        let row = |(z, &target): (&[f32], &u32)| {
            vectorised(|| {
                let lse = log_sum_exp(z);
                let mean = if self.smoothing > 0.0 { sum(z) / vocab as f32 } else { 0.0 };
                let loss = lse - (1.0 - self.smoothing) * z[target as usize] - self.smoothing * mean;
                (lse, f64::from(loss))
            })
        };
        let (lse, losses): (Vec<f32>, Vec<f64>) =
            logits.par_chunks(vocab).zip(&self.targets).with_min_len(16).map(row).unzip();
        // A NaN must reach the caller, so nothing is filtered from the mean.
        let loss = losses.iter().sum::<f64>() / rows as f64;
        let _ = self.lse.set(lse);
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    /// dz = (softmax(z) − (1 − ε) · onehot(y) − ε / V) · g / n.
    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (rows, vocab) = logits.dims2()?;
        let scale = grad.to_scalar::<f32>()? / rows as f32;
        let lse = self.lse.get().map(Vec::as_slice).unwrap_or_default();
        slices::read([logits], |[values]| {
            let mut dz = vec![0f32; values.len()];
            let even = self.smoothing / vocab as f32;
            let rows = dz.par_chunks_mut(vocab).zip(values.par_chunks(vocab)).zip(lse).zip(&self.targets);
            rows.with_min_len(16).for_each(|(((dz, z), &lse), &target)| {
                vectorised(|| dz.iter_mut().zip(z).for_each(|(dz, z)| *dz = (exp(z - lse) - even) * scale));
                dz[target as usize] -= (1.0 - self.smoothing) * scale;
            });
            Ok(Some(slices::tensor_like(dz, logits)?))
        })
    }
}

/// See [`super::cross_entropy`].
pub(super) fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
    let (rows, vocab) = logits.dims2()?;
    let targets: Vec<u32> = targets.to_dtype(candle_core::DType::U32)?.to_vec1()?;
    if targets.len() != rows || rows == 0 {
        candle_core::bail!("{} targets for {rows} rows of logits", targets.len());
    }
    if let Some(target) = targets.iter().find(|&&target| target as usize >= vocab) {
        candle_core::bail!("target {target} is outside the vocabulary of {vocab}");
    }
    logits.contiguous()?.apply_op1(CrossEntropy { targets, smoothing: smoothing as f32, lse: OnceLock::new() })
}
