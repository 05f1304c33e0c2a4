//! GELU, SiLU and their gated forms.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::simd::{normal, sigmoid, vectorised};
use super::slices;
use crate::model::config::Activation;

/// Elements handled by one task, about.
const ELEMENTS: usize = 16 * 1024;

/// f(x) and f′(x) of GELU.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    let (cdf, pdf) = normal(x);
    (x * cdf, cdf + x * pdf)
}

/// f(x) and f′(x) of SiLU.
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s * (1.0 + x * (1.0 - s)))
}

/// Activates rows of `width` on the calling thread; `y` is half as long when the kind is gated.
pub(super) fn forward_rows(kind: Activation, x: &[f32], width: usize, y: &mut [f32]) {
    match kind {
        Activation::Gelu => plain(x, y, gelu),
        Activation::Silu => plain(x, y, silu),
        Activation::GeGlu => gated(x, width / 2, y, gelu),
        Activation::SwiGlu => gated(x, width / 2, y, silu),
    }
}

/// The gradient of [`forward_rows`] in `dx`. `y` holds dY and is left holding Y, which costs nothing more to compute.
pub(super) fn backward_rows(kind: Activation, x: &[f32], width: usize, y: &mut [f32], dx: &mut [f32]) {
    match kind {
        Activation::Gelu => plain_backward(x, y, dx, gelu),
        Activation::Silu => plain_backward(x, y, dx, silu),
        Activation::GeGlu => gated_backward(x, width / 2, y, dx, gelu),
        Activation::SwiGlu => gated_backward(x, width / 2, y, dx, silu),
    }
}

fn plain(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> (f32, f32)) {
    vectorised(
        #[inline(always)]
        || y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x).0),
    );
}

fn plain_backward(x: &[f32], y: &mut [f32], dx: &mut [f32], f: impl Fn(f32) -> (f32, f32)) {
    vectorised(
        #[inline(always)]
        || {
            for ((dx, &x), y) in dx.iter_mut().zip(x).zip(y) {
                let (value, slope) = f(x);
                *dx = *y * slope;
                *y = value;
            }
        },
    );
}

/// Rows of (gate | up), `half` each.
fn gated(x: &[f32], half: usize, y: &mut [f32], f: impl Fn(f32) -> (f32, f32)) {
    vectorised(
        #[inline(always)]
        || {
            for (y, x) in y.chunks_exact_mut(half).zip(x.chunks_exact(2 * half)) {
                let (gate, up) = x.split_at(half);
                y.iter_mut().zip(gate).zip(up).for_each(|((y, &gate), up)| *y = f(gate).0 * up);
            }
        },
    );
}

fn gated_backward(x: &[f32], half: usize, y: &mut [f32], dx: &mut [f32], f: impl Fn(f32) -> (f32, f32)) {
    vectorised(
        #[inline(always)]
        || {
            let rows = dx.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)).zip(y.chunks_exact_mut(half));
            for ((dx, x), y) in rows {
                let (gate, up) = x.split_at(half);
                let (d_gate, d_up) = dx.split_at_mut(half);
                for i in 0..half {
                    let (value, slope) = f(gate[i]);
                    d_gate[i] = y[i] * up[i] * slope;
                    d_up[i] = y[i] * value;
                    y[i] = value * up[i];
                }
            }
        },
    );
}

struct Activate(Activation);

impl Activate {
    /// (row of the input, row of the output, rows in a task) for an input of this width.
    fn sizes(&self, width: usize) -> (usize, usize, usize) {
        let out = if self.0.is_gated() { width / 2 } else { width };
        (width, out, (ELEMENTS / width.max(1)).max(1))
    }
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        let (width, out, rows) = self.sizes(dims.pop().unwrap_or(1));
        dims.push(out);
        let x = slices::of_storage(x, layout)?;
        let mut y = vec![0f32; x.len() / width * out];
        let tasks = y.par_chunks_mut(rows * out).zip(x.par_chunks(rows * width));
        tasks.for_each(|(y, x)| forward_rows(self.0, x, width, y));
        Ok((CpuStorage::F32(y), dims.into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (width, out, rows) = self.sizes(x.dim(D::Minus1)?);
        slices::read([x, grad], |[values, grad]| {
            let mut dx = vec![0f32; values.len()];
            let tasks = dx.par_chunks_mut(rows * width).zip(values.par_chunks(rows * width));
            tasks.zip(grad.par_chunks(rows * out)).for_each(|((dx, x), grad)| {
                backward_rows(self.0, x, width, &mut grad.to_vec(), dx);
            });
            Ok(Some(slices::tensor_like(dx, x)?))
        })
    }
}

/// See [`super::activate`].
pub(super) fn activate(x: &Tensor, kind: Activation) -> Result<Tensor> {
    if kind.is_gated() && !x.dim(D::Minus1)?.is_multiple_of(2) {
        candle_core::bail!("a gated activation splits its input in two, but it is {:?}", x.dims());
    }
    x.contiguous()?.apply_op1(Activate(kind))
}
