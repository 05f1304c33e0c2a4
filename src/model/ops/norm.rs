//! LayerNorm and RMSNorm: one pass forward, one pass back.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::simd::{across, dot, sum, vectorised};
use super::slices;

/// Rows handled by one task. Fixed, so that sums of partial gradients do not depend on the number of threads.
const ROWS: usize = 64;

/// Mean (0 for RMSNorm) and 1/√(variance + ε) of a row.
#[inline(always)]
fn moments(x: &[f32], centred: bool, eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = if centred { sum(x) / n } else { 0.0 };
    let square = if centred { dot_centred(x, mean) } else { dot(x, x) };
    (mean, 1.0 / (square / n + eps).sqrt())
}

/// Σ (x − mean)².
#[inline(always)]
fn dot_centred(x: &[f32], mean: f32) -> f32 {
    let mut sums = [0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for lane in 0..16 {
            sums[lane] += (chunk[lane] - mean) * (chunk[lane] - mean);
        }
    }
    across(sums) + rest.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>()
}

/// (x − mean) · r · weight + bias of each row; the bias marks LayerNorm. On the calling thread.
pub(super) fn forward_rows(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    let width = weight.len();
    vectorised(
        #[inline(always)]
        || {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let (mean, r) = moments(x, bias.is_some(), eps);
                match bias {
                    Some(bias) => {
                        for (((y, x), w), b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                            *y = (x - mean) * r * w + b;
                        }
                    }
                    None => {
                        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                            *y = x * r * w;
                        }
                    }
                }
            }
        },
    );
}

/// The gradient of [`forward_rows`]: adds dX to `dx`, and the rows of (dW, db) to `dw` and `db`. With g = dY · W and
/// n = (x − mean) · r: dX = r · (g − [mean(g)] − n · mean(g · n)), the bracket for LayerNorm only.
pub(super) fn backward_rows(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    (centred, eps): (bool, f32),
    dx: &mut [f32],
    (dw, db): (&mut [f32], &mut [f32]),
) {
    let width = weight.len();
    let mut g = vec![0f32; width];
    vectorised(
        #[inline(always)]
        || {
            let (dw, db) = (&mut dw[..width], &mut db[..width]);
            let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(grad.chunks_exact(width));
            for ((dx, x), grad) in rows {
                let (mean, r) = moments(x, centred, eps);
                for i in 0..width {
                    let normal = (x[i] - mean) * r;
                    dw[i] += grad[i] * normal;
                    db[i] += grad[i];
                    g[i] = grad[i] * weight[i];
                }
                let n = width as f32;
                let mean_g = if centred { sum(&g) / n } else { 0.0 };
                // Σ g · n = r · (Σ g · x − mean · Σ g)
                let mean_gn = r * (dot(&g, x) / n - mean * mean_g);
                for ((dx, x), g) in dx.iter_mut().zip(x).zip(&g) {
                    *dx += r * (g - mean_g - (x - mean) * r * mean_gn);
                }
            }
        },
    );
}

/// [`forward_rows`] on every thread.
fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32) -> Vec<f32> {
    let chunk = ROWS * weight.len();
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| forward_rows(x, weight, bias, eps, y));
    y
}

/// [`backward_rows`] on every thread: dX, dW and db.
fn backward(x: &[f32], weight: &[f32], grad: &[f32], centred: bool, eps: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let mut dx = vec![0f32; x.len()];
    let chunk = ROWS * width;
    let tasks = dx.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).zip(grad.par_chunks(chunk));
    let partial: Vec<(Vec<f32>, Vec<f32>)> = tasks
        .map(|((dx, x), grad)| {
            let (mut dw, mut db) = (vec![0f32; width], vec![0f32; width]);
            backward_rows(x, weight, grad, (centred, eps), dx, (&mut dw, &mut db));
            (dw, db)
        })
        .collect();
    let (mut dw, mut db) = (vec![0f32; width], vec![0f32; width]);
    for (part_w, part_b) in &partial {
        dw.iter_mut().zip(part_w).for_each(|(sum, part)| *sum += part);
        db.iter_mut().zip(part_b).for_each(|(sum, part)| *sum += part);
    }
    (dx, dw, db)
}

struct RmsNorm(f32);

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = forward(slices::of_storage(x, xl)?, slices::of_storage(w, wl)?, None, self.0);
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        slices::read([x, w, grad], |[xs, ws, grad]| {
            let (dx, dw, _) = backward(xs, ws, grad, false, self.0);
            Ok((Some(slices::tensor_like(dx, x)?), Some(slices::tensor_like(dw, w)?)))
        })
    }
}

struct LayerNorm(f32);

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = slices::of_storage(b, bl)?;
        let y = forward(slices::of_storage(x, xl)?, slices::of_storage(w, wl)?, Some(bias), self.0);
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        slices::read([x, w, grad], |[xs, ws, grad]| {
            let (dx, dw, db) = backward(xs, ws, grad, true, self.0);
            let (dw, db) = (slices::tensor_like(dw, w)?, slices::tensor_like(db, b)?);
            Ok((Some(slices::tensor_like(dx, x)?), Some(dw), Some(db)))
        })
    }
}

/// See [`super::rms_norm`].
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    check(x, weight)?;
    x.contiguous()?.apply_op2(&weight.contiguous()?, RmsNorm(eps as f32))
}

/// See [`super::layer_norm`].
pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    check(x, weight)?;
    check(x, bias)?;
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, LayerNorm(eps as f32))
}

fn check(x: &Tensor, weight: &Tensor) -> Result<()> {
    if weight.dims() != [x.dim(D::Minus1)?] {
        candle_core::bail!("norm: x is {:?}, the weight {:?}", x.dims(), weight.dims());
    }
    Ok(())
}
