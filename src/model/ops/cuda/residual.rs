//! The residual stream, f32, plus what a sub-layer adds to it in its own type.

use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{Float, flat, for_float, launch, not_here, room, storage, view};

struct Residual;

impl Residual {
    fn forward<T: Float>((x, xl): (&CudaStorage, &Layout), (y, yl): (&CudaStorage, &Layout)) -> Result<CudaStorage> {
        let (n, device) = (xl.shape().elem_count(), &x.device);
        let out = room::<f32>(device, n)?;
        launch!(
            device,
            &format!("residual_{}", T::NAME),
            flat(n),
            [view::<f32>(x, xl)?, view::<T>(y, yl)?, out.as_view(), n as u32]
        );
        Ok(storage(out, device))
    }
}

impl CustomOp2 for Residual {
    fn name(&self) -> &'static str {
        "residual-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, y: &CudaStorage, yl: &Layout) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let out = for_float!(y.dtype(), T => Self::forward::<T>((x, xl), (y, yl))?);
        Ok((out, xl.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), Some(grad.to_dtype(y.dtype())?)))
    }
}

/// See [`residual`](super::super::residual).
pub(in crate::model::ops) fn residual(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.shape() != y.shape() {
        candle_core::bail!("residual: the stream is {:?}, what is added {:?}", x.dims(), y.dims());
    }
    x.contiguous()?.apply_op2(&y.contiguous()?, Residual)
}
