//! Self-attention: heads are split and turned in one pass, the products are cuBLAS's, the softmax works in place.

use std::sync::OnceLock;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};

use super::super::Rope;
use super::{Float, device_of, flat, for_float, launch, not_here, read, room, tensor, view};

/// Rows of scores, or vectors of a head, that a block takes, a warp each.
const ROWS: usize = 4;

/// What the forward pass leaves for the backward pass.
struct Kept {
    /// Queries, keys and values, turned: `(3, batch · heads, seq, head_dim)`.
    parts: Tensor,
    /// `(batch · heads, seq, seq)`.
    probabilities: Tensor,
}

struct Attention {
    heads: usize,
    /// Tables of `seq` rows.
    rope: Option<Rope>,
    causal: bool,
    kept: OnceLock<Kept>,
}

/// The sizes of a joint projection.
struct Sizes {
    batch: usize,
    seq: usize,
    heads: usize,
    head_dim: usize,
}

impl Sizes {
    fn of(shape: &Shape, heads: usize) -> Result<Self> {
        let (batch, seq, width) = shape.dims3()?;
        Ok(Self { batch, seq, heads, head_dim: width / 3 / heads })
    }

    /// Elements of one of queries, keys and values.
    fn part(&self) -> usize {
        self.batch * self.seq * self.heads * self.head_dim
    }

    /// Scores are multiplied by this.
    fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }
}

/// Part 0, 1 or 2 of `(3, …)`.
fn part(parts: &Tensor, index: usize) -> Result<Tensor> {
    parts.narrow(0, index, 1)?.squeeze(0)
}

impl Attention {
    /// Calls `body` with cosines and sines; without tables, with values that a kernel does not read.
    fn with_tables<R>(
        &self,
        other: &Tensor,
        body: impl FnOnce([candle_core::cuda_backend::cudarc::driver::CudaView<f32>; 2]) -> Result<R>,
    ) -> Result<R> {
        match &self.rope {
            Some(rope) => read([&rope.cos, &rope.sin], body),
            None => read([other, other], body),
        }
    }

    fn forward<T: Float>(&self, qkv: &CudaStorage, layout: &Layout) -> Result<Tensor> {
        let s = Sizes::of(layout.shape(), self.heads)?;
        let device = &qkv.device;
        let (rows, half) = (s.batch * s.heads, s.head_dim / 2);
        let parts = room::<T>(device, 3 * s.part())?;
        let nothing = Tensor::zeros(1, candle_core::DType::F32, &candle_core::Device::Cuda(device.clone()))?;
        self.with_tables(&nothing, |[cos, sin]| {
            launch!(
                device,
                &format!("split_{}", T::NAME),
                flat(s.part() / 2),
                [
                    view::<T>(qkv, layout)?,
                    cos,
                    sin,
                    parts.as_view(),
                    s.batch as i32,
                    s.seq as i32,
                    s.heads as i32,
                    half as i32,
                    i32::from(self.rope.is_some()),
                ]
            );
            Ok(())
        })?;
        let parts = tensor(parts, device, (3, rows, s.seq, s.head_dim));
        let probabilities = part(&parts, 0)?.matmul(&part(&parts, 1)?.t()?)?; // scores, until the kernel below
        read::<T, 1, ()>([&probabilities], |[scores]| {
            launch!(
                device,
                &format!("softmax_{}", T::NAME),
                (((rows * s.seq).div_ceil(ROWS), 1, 1), (32 * ROWS, 1, 1), 0),
                [scores, (rows * s.seq) as i64, s.seq as i32, s.seq as i32, i32::from(self.causal), s.scale()]
            );
            Ok(())
        })?;
        let mixed = probabilities.matmul(&part(&parts, 2)?)?;
        let joined = exchange::<T>(&mixed, (s.batch, s.heads, s.seq, s.head_dim))?;
        let _ = self.kept.set(Kept { parts, probabilities });
        joined.reshape((s.batch, s.seq, s.heads * s.head_dim))
    }

    fn backward<T: Float>(&self, qkv: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let s = Sizes::of(qkv.shape(), self.heads)?;
        let device = &device_of(qkv)?;
        let (rows, half) = (s.batch * s.heads, s.head_dim / 2);
        let Some(Kept { parts, probabilities }) = self.kept.get() else {
            candle_core::bail!("attention is differentiated before it is computed")
        };
        let (q, k, v) = (part(parts, 0)?, part(parts, 1)?, part(parts, 2)?);
        let grad = exchange::<T>(grad, (s.batch, s.seq, s.heads, s.head_dim))?.reshape((rows, s.seq, s.head_dim))?;
        let dv = probabilities.t()?.matmul(&grad)?;
        let ds = grad.matmul(&v.t()?)?; // dP, until the kernel below
        read::<T, 2, ()>([probabilities, &ds], |[p, ds]| {
            launch!(
                device,
                &format!("softmax_gradient_{}", T::NAME),
                (((rows * s.seq).div_ceil(ROWS), 1, 1), (32 * ROWS, 1, 1), 0),
                [p, ds, (rows * s.seq) as i64, s.seq as i32, s.scale()]
            );
            Ok(())
        })?;
        let (dq, dk) = (ds.matmul(&k)?, ds.t()?.matmul(&q)?);
        let dqkv = room::<T>(device, 3 * s.part())?;
        let nothing = Tensor::zeros(1, candle_core::DType::F32, qkv.device())?;
        self.with_tables(&nothing, |[cos, sin]| {
            read::<T, 3, ()>([&dq, &dk, &dv], |[dq, dk, dv]| {
                launch!(
                    device,
                    &format!("split_gradient_{}", T::NAME),
                    flat(s.part() / 2),
                    [
                        dq,
                        dk,
                        dv,
                        cos,
                        sin,
                        dqkv.as_view(),
                        s.batch as i32,
                        s.seq as i32,
                        s.heads as i32,
                        half as i32,
                        i32::from(self.rope.is_some()),
                    ]
                );
                Ok(())
            })
        })?;
        Ok(tensor(dqkv, device, qkv.shape()))
    }
}

/// `(batch, a, b, dim)` to `(batch, b, a, dim)`.
fn exchange<T: Float>(x: &Tensor, (batch, a, b, dim): (usize, usize, usize, usize)) -> Result<Tensor> {
    let (n, device) = (x.elem_count(), &device_of(x)?);
    let y = room::<T>(device, n)?;
    read::<T, 1, ()>([x], |[x]| {
        launch!(
            device,
            &format!("exchange_{}", T::NAME),
            ((n.div_ceil(dim * ROWS), 1, 1), (32 * ROWS, 1, 1), 0),
            [x, y.as_view(), batch as i32, a as i32, b as i32, dim as i32]
        );
        Ok(())
    })?;
    Ok(tensor(y, device, (batch, b, a, dim)))
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(&self, qkv: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let y = for_float!(qkv.dtype(), T => self.forward::<T>(qkv, layout)?);
        let (values, y_layout) = y.storage_and_layout();
        let Storage::Cuda(values) = &*values else { return not_here() };
        Ok((values.try_clone(y_layout)?, y_layout.shape().clone()))
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(for_float!(qkv.dtype(), T => self.backward::<T>(qkv, &grad)?)))
    }
}

/// See [`attention`](super::super::attention); no dropout.
pub(in crate::model::ops) fn attention(
    qkv: &Tensor,
    heads: usize,
    rope: Option<&Rope>,
    causal: bool,
) -> Result<Tensor> {
    let contiguous =
        |rope: &Rope| -> Result<Rope> { Ok(Rope { cos: rope.cos.contiguous()?, sin: rope.sin.contiguous()? }) };
    let rope = rope.map(contiguous).transpose()?;
    qkv.contiguous()?.apply_op1(Attention { heads, rope, causal, kept: OnceLock::new() })
}
