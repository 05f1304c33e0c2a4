//! A linear layer: activations in their own type, the weight an f32 variable or a frozen matrix, cuBLAS between.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};

use super::not_here;

/// `weight` is the matrix in the activations' type, outside the graph; kept for the backward pass.
struct Linear {
    weight: Tensor,
}

impl Linear {
    fn forward(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (out, input) = self.weight.dims2()?;
        let rows = layout.shape().elem_count() / input;
        let mut dims = layout.shape().dims().to_vec();
        dims.pop();
        dims.push(out);
        let x_layout = Layout::contiguous_with_offset((rows, input), layout.start_offset());
        let (weight, weight_layout) = self.weight.storage_and_layout();
        let candle_core::Storage::Cuda(weight) = &*weight else { return not_here() };
        let y = x.matmul(weight, (1, rows, out, input), &x_layout, &weight_layout.transpose(0, 1)?)?;
        Ok((y, dims.into()))
    }

    /// dX = dY · W.
    fn input_gradient(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (out, _) = self.weight.dims2()?;
        grad.contiguous()?.reshape(((), out))?.matmul(&self.weight)?.reshape(x.shape())
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear-frozen-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(x, layout)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.input_gradient(x, grad)?))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(x, layout)
    }

    /// dX as above; dW = dYᵀ · X, in the type of the variable.
    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (out, input) = self.weight.dims2()?;
        let rows = grad.contiguous()?.reshape(((), out))?.t()?;
        let dw = rows.matmul(&x.detach().reshape(((), input))?)?.to_dtype(weight.dtype())?;
        Ok((Some(self.input_gradient(x, grad)?), Some(dw)))
    }
}

/// See [`linear`](super::super::linear).
pub(in crate::model::ops) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    if x.dim(D::Minus1)? != weight.dim(1)? {
        candle_core::bail!("linear: x is {:?}, the weight {:?}", x.dims(), weight.dims());
    }
    let op = Linear { weight: weight.detach().to_dtype(x.dtype())? };
    if weight.track_op() { x.apply_op2(&weight, op) } else { x.apply_op1(op) }
}
