//! LayerNorm and RMSNorm, a warp a row: from the f32 stream to the sub-layer's type. Backward, warps take rows in turn and sum
//! the weights' gradients as they go.

use candle_core::cuda_backend::CudaStorage;
use candle_core::cuda_backend::cudarc::driver::CudaView;
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};

use super::{Float, device_of, for_float, launch, not_here, read, room, storage, tensor, view};

/// Warps of a block, at most.
const WARPS: usize = 4;

/// Blocks of the backward pass, each with a sum of its own.
const BLOCKS: usize = 528;

/// Shared memory that every device grants a block, in bytes.
const SHARED: usize = 48 * 1024;

struct Norm {
    centred: bool,
    eps: f32,
    /// The type of the result.
    floats: DType,
}

impl Norm {
    fn forward<T: Float>(
        &self,
        (x, xl): (&CudaStorage, &Layout),
        weight: CudaView<f32>,
        bias: CudaView<f32>,
    ) -> Result<CudaStorage> {
        let (n, width, device) = (xl.shape().elem_count(), weight.len(), &x.device);
        let (rows, y) = (n / width, room::<T>(device, n)?);
        launch!(
            device,
            &format!("norm_{}", T::NAME),
            ((rows.div_ceil(WARPS), 1, 1), (32 * WARPS, 1, 1), 0),
            [
                view::<f32>(x, xl)?,
                weight,
                bias,
                y.as_view(),
                rows as i32,
                width as i32,
                i32::from(self.centred),
                self.eps,
            ]
        );
        Ok(storage(y, device))
    }

    /// dX, and `(2, width)`: the gradients of weight and bias.
    fn backward<T: Float>(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, width, device) = (x.elem_count(), weight.elem_count(), &device_of(x)?);
        // A warp's sums take 8 bytes a column.
        let warps = WARPS.min(SHARED / (8 * width));
        if warps == 0 {
            candle_core::bail!("a norm over {width} columns does not fit a block's shared memory");
        }
        let rows = n / width;
        let blocks = BLOCKS.min(rows.div_ceil(warps));
        let (dx, parts, sums) =
            (room::<f32>(device, n)?, room::<f32>(device, blocks * 2 * width)?, room::<f32>(device, 2 * width)?);
        read::<f32, 2, ()>([x, weight], |[x, weight]| {
            read::<T, 1, ()>([grad], |[grad]| {
                launch!(
                    device,
                    &format!("norm_gradient_{}", T::NAME),
                    ((blocks, 1, 1), (32 * warps, 1, 1), warps * 8 * width),
                    [
                        x,
                        weight,
                        grad,
                        dx.as_view(),
                        parts.as_view(),
                        rows as i32,
                        width as i32,
                        i32::from(self.centred),
                        self.eps,
                    ]
                );
                Ok(())
            })
        })?;
        launch!(
            device,
            "column_sums",
            (((2 * width).div_ceil(32), 1, 1), (32, 8, 1), 0),
            [parts.as_view(), sums.as_view(), blocks as i32, (2 * width) as i32]
        );
        Ok((tensor(dx, device, x.shape()), tensor(sums, device, (2, width))))
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "norm-cuda"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        weight: &CudaStorage,
        wl: &Layout,
        bias: &CudaStorage,
        bl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (weight, bias) = (view::<f32>(weight, wl)?, view::<f32>(bias, bl)?);
        let y = for_float!(self.floats, T => self.forward::<T>((x, xl), weight, bias)?);
        Ok((y, xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (dx, sums) = for_float!(self.floats, T => self.backward::<T>(x, weight, &grad)?);
        let bias = if self.centred { Some(sums.get(1)?.reshape(bias.shape())?) } else { None };
        Ok((Some(dx), Some(sums.get(0)?), bias))
    }
}

/// LayerNorm with a bias, RMSNorm without; all f32 but the result, which is in `floats`. See
/// [`layer_norm`](super::super::layer_norm).
pub(in crate::model::ops) fn norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f64,
    floats: DType,
) -> Result<Tensor> {
    if weight.dims() != [x.dim(D::Minus1)?] {
        candle_core::bail!("norm: x is {:?}, the weight {:?}", x.dims(), weight.dims());
    }
    let op = Norm { centred: bias.is_some(), eps: eps as f32, floats };
    // An RMSNorm reads no bias; its weight, cut from the graph, stands in for the pointer.
    let bias = bias.map_or_else(|| Ok(weight.detach()), Tensor::contiguous)?;
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, op)
}
