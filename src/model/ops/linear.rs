//! `y = x · Wᵀ`, computing only the gradients that are wanted.
//!
//! candle's matmul always computes the gradients of both sides. A frozen weight is therefore held inside the operation,
//! out of the graph's sight.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::{Matrix, product};
use super::packed::{Direction, Layouts, Packed};
use super::slices;

/// Forward for x `(…, in)` and W `(out, in)`.
fn forward(x: &[f32], layout: &Layout, weight: &[f32], out: usize) -> (CpuStorage, Shape) {
    let input = weight.len() / out;
    let rows = x.len() / input;
    let mut y = vec![0f32; rows * out];
    product((rows, out, input), Matrix::rows(x, input), Matrix::rows(weight, input).t(), &mut y, out, false, true);
    (CpuStorage::F32(y), slices::with_last(layout, out))
}

/// dX = dY · W.
fn input_gradient(grad: &Tensor, weight: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    slices::read([grad, weight], |[grad, weight]| {
        let rows = grad.len() / out;
        let mut dx = vec![0f32; rows * input];
        product((rows, input, out), Matrix::rows(grad, out), Matrix::rows(weight, input), &mut dx, input, false, true);
        slices::tensor_like(dx, x)
    })
}

/// dW = dYᵀ · X.
fn weight_gradient(grad: &Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    slices::read([grad, x], |[grad, x]| {
        let rows = grad.len() / out;
        let mut dw = vec![0f32; out * input];
        product((out, input, rows), Matrix::rows(grad, out).t(), Matrix::rows(x, input), &mut dw, input, false, true);
        slices::tensor_like(dw, weight)
    })
}

/// With fewer rows than this a product waits for the weight to come from memory, in whatever layout.
pub(super) const FEWEST: usize = 6;

/// Multiplications that pay for a second thread.
const PARALLEL: usize = 1 << 24;

/// `to = from · weight`, rows shared out among the threads where there are many.
fn through(weight: &Packed, from: &[f32], (input, out): (usize, usize), to: &mut [f32]) {
    let rows = from.len() / input;
    let threads = if rows * input * out < PARALLEL { 1 } else { rayon::current_num_threads() };
    let share = rows.div_ceil(threads).max(1);
    to.par_chunks_mut(share * out).zip(from.par_chunks(share * input)).for_each(|(to, from)| weight.product(from, to));
}

/// A weight that never changes, laid out for products of many rows.
struct Kept {
    weight: Tensor,
    layouts: Arc<Layouts>,
}

impl CustomOp1 for Kept {
    fn name(&self) -> &'static str {
        "linear-kept"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (values, size) = (slices::of_storage(x, layout)?, self.weight.dims2()?);
        slices::read([&self.weight], |[weight]| {
            let (out, input) = size;
            let mut y = vec![0f32; values.len() / input * out];
            through(self.layouts.of(Direction::Forward, weight, size), values, (input, out), &mut y);
            Ok((CpuStorage::F32(y), slices::with_last(layout, out)))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (out, input) = self.weight.dims2()?;
        slices::read([grad, &self.weight], |[grad, weight]| {
            let mut dx = vec![0f32; grad.len() / out * input];
            through(self.layouts.of(Direction::Backward, weight, (out, input)), grad, (out, input), &mut dx);
            Ok(Some(slices::tensor_like(dx, x)?))
        })
    }
}

/// A frozen weight: no gradient for it.
struct Frozen(Tensor);

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "linear-frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slices::of_storage(x, layout)?;
        slices::read([&self.0], |[weight]| Ok(forward(x, layout, weight, self.0.dim(0)?)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(input_gradient(grad, &self.0, x)?))
    }
}

/// A trainable weight.
struct Trainable;

impl CustomOp2 for Trainable {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = weight_layout.shape().dims2()?.0;
        let (x, weight) = (slices::of_storage(x, x_layout)?, slices::of_storage(weight, weight_layout)?);
        Ok(forward(x, x_layout, weight, out))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(input_gradient(grad, weight, x)?), Some(weight_gradient(grad, x, weight)?)))
    }
}

/// See [`super::linear_kept`].
pub(super) fn kept(x: &Tensor, weight: &Tensor, layouts: &Arc<Layouts>) -> Result<Tensor> {
    check(x, weight)?;
    x.contiguous()?.apply_op1(Kept { weight: weight.detach().contiguous()?, layouts: layouts.clone() })
}

fn check(x: &Tensor, weight: &Tensor) -> Result<()> {
    if x.dim(D::Minus1)? != weight.dim(1)? {
        candle_core::bail!("linear: x is {:?}, the weight {:?}", x.dims(), weight.dims());
    }
    Ok(())
}

/// See [`super::linear`].
///
/// # Errors
/// The tensor library's.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    check(x, weight)?;
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    if weight.is_variable() { x.apply_op2(&weight, Trainable) } else { x.apply_op1(Frozen(weight.detach())) }
}
