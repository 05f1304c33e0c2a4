//! Softmax cross-entropy over logits in the activations' type: two passes over them forward, one back.

use std::sync::OnceLock;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Storage, Tensor};

use super::{Float, device_of, for_float, launch, not_here, read, room, tensor, view};

/// Threads for a row of logits.
const ROW: usize = 512;

struct CrossEntropy {
    targets: Tensor, // (rows) u32
    smoothing: f32,
    /// Log-sum-exp of each row, left by the forward pass for the backward pass.
    lse: OnceLock<Tensor>,
}

impl CrossEntropy {
    fn forward<T: Float>(&self, logits: &CudaStorage, layout: &Layout) -> Result<Tensor> {
        let (rows, vocab) = layout.shape().dims2()?;
        let device = &logits.device;
        let (losses, lse) = (room::<f32>(device, rows)?, room::<f32>(device, rows)?);
        read::<u32, 1, ()>([&self.targets], |[targets]| {
            launch!(
                device,
                &format!("cross_entropy_{}", T::NAME),
                ((rows, 1, 1), (ROW, 1, 1), 0),
                [view::<T>(logits, layout)?, targets, losses.as_view(), lse.as_view(), vocab as i32, self.smoothing]
            );
            Ok(())
        })?;
        let _ = self.lse.set(tensor(lse, device, rows));
        tensor(losses, device, rows).mean_all()
    }

    fn backward<T: Float>(&self, logits: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (rows, vocab) = logits.dims2()?;
        let device = &device_of(logits)?;
        let Some(lse) = self.lse.get() else { candle_core::bail!("a loss is differentiated before it is computed") };
        let dz = room::<T>(device, rows * vocab)?;
        read::<u32, 1, ()>([&self.targets], |[targets]| {
            read::<f32, 2, ()>([lse, grad], |[lse, grad]| {
                read::<T, 1, ()>([logits], |[logits]| {
                    launch!(
                        device,
                        &format!("cross_entropy_gradient_{}", T::NAME),
                        ((rows, 1, 1), (ROW, 1, 1), 0),
                        [logits, targets, lse, grad, dz.as_view(), vocab as i32, self.smoothing]
                    );
                    Ok(())
                })
            })
        })?;
        Ok(tensor(dz, device, logits.shape()))
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(&self, logits: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let loss = for_float!(logits.dtype(), T => self.forward::<T>(logits, layout)?);
        // The loss of bf16 logits would be rounded to three digits: the operation's result stays f32.
        let (storage, layout) = loss.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { return not_here() };
        Ok((storage.try_clone(layout)?, Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.to_dtype(DType::F32)?.contiguous()?;
        Ok(Some(for_float!(logits.dtype(), T => self.backward::<T>(logits, &grad)?)))
    }
}

/// See [`cross_entropy`](super::super::cross_entropy). A target outside the vocabulary makes the loss NaN.
pub(in crate::model::ops) fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
    let (rows, _) = logits.dims2()?;
    let targets = targets.to_dtype(DType::U32)?.contiguous()?;
    if targets.elem_count() != rows || rows == 0 {
        candle_core::bail!("{} targets for {rows} rows of logits", targets.elem_count());
    }
    logits.contiguous()?.apply_op1(CrossEntropy { targets, smoothing: smoothing as f32, lse: OnceLock::new() })
}
