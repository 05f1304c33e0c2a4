//! GELU: one pass forward, one back.

use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{Float, device_of, flat, for_float, launch, not_here, read, room, storage, tensor, view};

struct Gelu;

impl Gelu {
    fn forward<T: Float>(x: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
        let (n, device) = (layout.shape().elem_count(), &x.device);
        let y = room::<T>(device, n)?;
        launch!(device, &format!("gelu_{}", T::NAME), flat(n), [view::<T>(x, layout)?, y.as_view(), n as u32]);
        Ok(storage(y, device))
    }

    fn backward<T: Float>(x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (n, device) = (x.elem_count(), &device_of(x)?);
        let dx = room::<T>(device, n)?;
        read::<T, 2, ()>([x, grad], |[x, grad]| {
            launch!(device, &format!("gelu_gradient_{}", T::NAME), flat(n), [x, grad, dx.as_view(), n as u32]);
            Ok(())
        })?;
        Ok(tensor(dx, device, x.shape()))
    }
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let y = for_float!(x.dtype(), T => Self::forward::<T>(x, layout)?);
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(for_float!(x.dtype(), T => Self::backward::<T>(x, &grad)?)))
    }
}

/// See [`activate`](super::super::activate).
pub(in crate::model::ops) fn gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Gelu)
}
