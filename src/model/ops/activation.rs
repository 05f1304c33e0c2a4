//! GELU, SiLU and their gated forms.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::simd::{normal, sigmoid, vectorised};
use super::slices;
use crate::model::config::Activation;

/// Elements handled by one task, for the plain kinds.
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

struct Activate(Activation);

impl Activate {
    fn forward(&self, x: &[f32], width: usize) -> Vec<f32> {
        match self.0 {
            Activation::Gelu => plain(x, gelu),
            Activation::Silu => plain(x, silu),
            Activation::GeGlu => gated(x, width / 2, gelu),
            Activation::SwiGlu => gated(x, width / 2, silu),
        }
    }

    fn backward(&self, x: &[f32], grad: &[f32], width: usize) -> Vec<f32> {
        match self.0 {
            Activation::Gelu => plain_backward(x, grad, gelu),
            Activation::Silu => plain_backward(x, grad, silu),
            Activation::GeGlu => gated_backward(x, grad, width / 2, gelu),
            Activation::SwiGlu => gated_backward(x, grad, width / 2, silu),
        }
    }
}

fn plain(x: &[f32], f: impl Fn(f32) -> (f32, f32) + Copy + Sync) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(ELEMENTS).zip(x.par_chunks(ELEMENTS)).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x).0),
        );
    });
    y
}

fn plain_backward(x: &[f32], grad: &[f32], f: impl Fn(f32) -> (f32, f32) + Copy + Sync) -> Vec<f32> {
    let mut dx = vec![0f32; x.len()];
    let tasks = dx.par_chunks_mut(ELEMENTS).zip(x.par_chunks(ELEMENTS)).zip(grad.par_chunks(ELEMENTS));
    tasks.for_each(|((dx, x), grad)| {
        vectorised(
            #[inline(always)]
            || dx.iter_mut().zip(x).zip(grad).for_each(|((dx, &x), grad)| *dx = grad * f(x).1),
        );
    });
    dx
}

/// Rows of (gate | up), `half` each.
fn gated(x: &[f32], half: usize, f: impl Fn(f32) -> (f32, f32) + Copy + Sync) -> Vec<f32> {
    let mut y = vec![0f32; x.len() / 2];
    y.par_chunks_mut(half).zip(x.par_chunks(2 * half)).with_min_len(16).for_each(|(y, x)| {
        let (gate, up) = x.split_at(half);
        vectorised(
            #[inline(always)]
            || y.iter_mut().zip(gate).zip(up).for_each(|((y, &gate), up)| *y = f(gate).0 * up),
        );
    });
    y
}

fn gated_backward(x: &[f32], grad: &[f32], half: usize, f: impl Fn(f32) -> (f32, f32) + Copy + Sync) -> Vec<f32> {
    let mut dx = vec![0f32; x.len()];
    let tasks = dx.par_chunks_mut(2 * half).zip(x.par_chunks(2 * half)).zip(grad.par_chunks(half)).with_min_len(16);
    tasks.for_each(|((dx, x), grad)| {
        let (gate, up) = x.split_at(half);
        let (d_gate, d_up) = dx.split_at_mut(half);
        vectorised(
            #[inline(always)]
            || {
                for i in 0..half {
                    let (value, slope) = f(gate[i]);
                    d_gate[i] = grad[i] * up[i] * slope;
                    d_up[i] = grad[i] * value;
                }
            },
        );
    });
    dx
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        let width = dims.pop().unwrap_or(1);
        dims.push(if self.0.is_gated() { width / 2 } else { width });
        Ok((CpuStorage::F32(self.forward(slices::of_storage(x, layout)?, width)), dims.into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = x.dim(D::Minus1)?;
        slices::read([x, grad], |[values, grad]| Ok(Some(slices::tensor_like(self.backward(values, grad, width), x)?)))
    }
}

/// See [`super::activate`].
pub(super) fn activate(x: &Tensor, kind: Activation) -> Result<Tensor> {
    if kind.is_gated() && !x.dim(D::Minus1)?.is_multiple_of(2) {
        candle_core::bail!("a gated activation splits its input in two, but it is {:?}", x.dims());
    }
    x.contiguous()?.apply_op1(Activate(kind))
}
