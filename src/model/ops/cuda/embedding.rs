//! Rows of a table by id. candle's gradient for this walks the ids one after another; here all of them are added at once.

use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::{device_of, flat, launch, not_here, read, tensor};

/// The rows picked already, and the ids `(n)` u32.
struct Embedding {
    picked: Tensor,
    ids: Tensor,
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "embedding-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let (storage, layout) = self.picked.storage_and_layout();
        let candle_core::Storage::Cuda(storage) = &*storage else { return not_here() };
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(&self, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (grad, device) = (grad.contiguous()?, &device_of(weight)?);
        let (n, width) = (grad.elem_count(), weight.dim(1)?);
        let dw = device.alloc_zeros::<f32>(weight.elem_count())?;
        read::<u32, 1, ()>([&self.ids], |[ids]| {
            read::<f32, 1, ()>([&grad], |[grad]| {
                launch!(device, "embedding_gradient", flat(n), [ids, grad, dw.as_view(), n as u32, width as i32]);
                Ok(())
            })
        })?;
        Ok(Some(tensor(dw, device, weight.shape())))
    }
}

/// See [`embedding`](super::super::embedding). The weight is f32.
pub(in crate::model::ops) fn embedding(ids: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let mut shape = ids.dims().to_vec();
    shape.push(weight.dim(1)?);
    let ids = ids.flatten_all()?.to_dtype(DType::U32)?.contiguous()?;
    let picked = weight.detach().index_select(&ids, 0)?.reshape(shape)?;
    if !weight.track_op() {
        return Ok(picked);
    }
    weight.contiguous()?.apply_op1(Embedding { picked, ids })
}
