//! Tensors as plain f32 slices, and back.

use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, Tensor};

/// Whether the fused CPU code can run on all of `tensors`.
pub(super) fn on_cpu_f32(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32)
}

/// The values of a contiguous f32 storage under its layout.
pub(super) fn of_storage<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("a fused operation needs contiguous f32 values"),
    }
}

/// Calls `body` with the values of each tensor, made contiguous first.
pub(super) fn read<const N: usize, R>(tensors: [&Tensor; N], body: impl FnOnce([&[f32]; N]) -> Result<R>) -> Result<R> {
    let mut contiguous = Vec::with_capacity(N);
    for tensor in tensors {
        contiguous.push(tensor.contiguous()?);
    }
    let guards: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        *slice = match &**storage {
            Storage::Cpu(storage) => of_storage(storage, layout)?,
            _ => candle_core::bail!("a fused operation needs values on the CPU"),
        };
    }
    body(slices)
}

/// A CPU tensor of the shape of `like`.
pub(super) fn tensor_like(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), &Device::Cpu)
}

/// The shape of `x` with `last` in place of its last dimension.
pub(super) fn with_last(x: &Layout, last: usize) -> Shape {
    let mut dims = x.dims().to_vec();
    dims.pop();
    dims.push(last);
    dims.into()
}

/// [`read`] for a number of tensors that is not known beforehand.
pub(super) fn read_all<R>(tensors: &[Tensor], body: impl FnOnce(Vec<&[f32]>) -> Result<R>) -> Result<R> {
    let contiguous: Vec<Tensor> = tensors.iter().map(Tensor::contiguous).collect::<Result<_>>()?;
    let guards: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let mut slices = Vec::with_capacity(guards.len());
    for (storage, layout) in &guards {
        match &**storage {
            Storage::Cpu(storage) => slices.push(of_storage(storage, layout)?),
            _ => candle_core::bail!("a fused operation needs values on the CPU"),
        }
    }
    body(slices)
}
