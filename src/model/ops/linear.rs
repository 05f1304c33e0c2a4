//! `y = x · Wᵀ`, computing only the gradients that are wanted.
//!
//! candle's matmul always computes the gradients of both sides. A frozen weight is therefore held inside the operation,
//! out of the graph's sight.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};

use super::gemm::{Matrix, product};
use super::slices;

/// Forward for x `(…, in)` and W `(out, in)`.
fn forward(x: &[f32], shape: &Shape, weight: &[f32], out: usize) -> (CpuStorage, Shape) {
    let mut dims = shape.dims().to_vec();
    let input = dims.pop().unwrap_or(1);
    dims.push(out);
    let rows = x.len() / input;
    let mut y = vec![0f32; rows * out];
    product((rows, out, input), Matrix::rows(x, input), Matrix::rows(weight, input).t(), &mut y, out, false, true);
    (CpuStorage::F32(y), dims.into())
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

/// A frozen weight: no gradient for it.
struct Frozen(Tensor);

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "linear-frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slices::of_storage(x, layout)?;
        slices::read([&self.0], |[weight]| Ok(forward(x, layout.shape(), weight, self.0.dim(0)?)))
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
        Ok(forward(x, x_layout.shape(), weight, out))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(input_gradient(grad, weight, x)?), Some(weight_gradient(grad, x, weight)?)))
    }
}

/// See [`super::linear`].
///
/// # Errors
/// The tensor library's.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    if x.dim(D::Minus1)? != weight.dim(1)? {
        candle_core::bail!("linear: x is {:?}, the weight {:?}", x.dims(), weight.dims());
    }
    if weight.is_variable() { x.apply_op2(&weight, Trainable) } else { x.apply_op1(Frozen(weight.detach())) }
}
