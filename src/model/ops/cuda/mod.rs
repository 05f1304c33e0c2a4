//! The operations on a CUDA device: kernels of our own around cuBLAS, for f32 and bf16 activations over f32 weights.
//!
//! `kernels.cu` is compiled at first use by NVRTC, for whatever device is there. Each operation is a custom one with a
//! backward pass of the same kind, tested against [`composed`](super::composed) on the device itself; what has no kernel (gated
//! activations, dropout inside attention, learned positions) takes the composed form.
//!
//! Covered: linear layers, norms, GELU, attention with rotary positions, cross-entropy, the embedding's gradient, AdamW.
//! Attention keeps its probabilities `(batch, heads, seq, seq)` in the activations' type: at a context of 256 that is less
//! traffic than it is work to compute them again. Not covered: generation, which uses the composed form.

// Launching a kernel is unsafe: the compiler does not see what it reads and writes. Each launch stands beside the shapes that
// its bounds follow from.
#![allow(unsafe_code)]

mod activation;
mod attention;
mod cross_entropy;
mod embedding;
mod linear;
mod norm;
mod optimizer;
mod residual;

use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DeviceRepr};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{DType, Layout, Result, Shape, Storage, Tensor};

pub(super) use activation::gelu;
pub(super) use attention::attention;
pub(super) use cross_entropy::cross_entropy;
pub(super) use embedding::embedding;
pub(super) use linear::linear;
pub(super) use norm::norm;
pub use optimizer::{Clip, Moments, Numbers, clip, step};
pub(super) use residual::residual;

/// Whether the kernels can run on all of `tensors`.
pub(super) fn runs_on(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.device().is_cuda() && matches!(tensor.dtype(), DType::F32 | DType::BF16))
}

/// A type that activations lie in.
trait Float: CudaDType + DeviceRepr {
    /// The ending of its kernels' names.
    const NAME: &'static str;
}

impl Float for f32 {
    const NAME: &'static str = "f32";
}

impl Float for half::bf16 {
    const NAME: &'static str = "bf16";
}

/// Calls `$body` with `$t` as the type of `$dtype`.
macro_rules! for_float {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $t = f32;
                $body
            }
            candle_core::DType::BF16 => {
                type $t = half::bf16;
                $body
            }
            other => candle_core::bail!("there is no CUDA kernel for {other:?}"),
        }
    };
}

/// Launches kernel `$name` in the shape of a [`Launch`]. Arguments are views and plain numbers, in the kernel's order.
macro_rules! launch {
    ($device:expr, $name:expr, $shape:expr, [$($argument:expr),+ $(,)?]) => {{
        use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
        let ptx = $crate::model::ops::cuda::ptx()?;
        let function = $device.get_or_load_custom_func($name, "codelora", ptx)?;
        let mut builder = function.builder();
        $(
            let argument = $argument;
            builder.arg(&argument);
        )+
        let (grid, block, shared): $crate::model::ops::cuda::Launch = $shape;
        let config = LaunchConfig {
            grid_dim: (grid.0 as u32, grid.1 as u32, grid.2 as u32),
            block_dim: (block.0 as u32, block.1 as u32, block.2 as u32),
            shared_mem_bytes: shared as u32,
        };
        unsafe { builder.launch(config) }.map_err(|e| candle_core::Error::Cuda(Box::new(e)))?;
    }};
}

use {for_float, launch};

/// Blocks of the grid, threads of a block, and bytes of shared memory.
type Launch = ((usize, usize, usize), (usize, usize, usize), usize);

/// Threads of a block where each has one element.
const THREADS: usize = 256;

/// Grid and block for `n` elements, which kernels count in 32 bits: 64-bit division is slow, and a tensor of 4 billion elements
/// would not fit most devices.
fn flat(n: usize) -> Launch {
    ((n.div_ceil(THREADS), 1, 1), (THREADS, 1, 1), 0)
}

/// The kernels, compiled.
fn ptx() -> Result<&'static str> {
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compile = || compile_ptx(include_str!("kernels.cu")).map(|ptx| ptx.to_src()).map_err(|e| format!("{e:?}"));
    match PTX.get_or_init(compile) {
        Ok(ptx) => Ok(ptx),
        Err(error) => candle_core::bail!("the CUDA kernels do not compile with this machine's NVRTC: {error}"),
    }
}

/// Uninitialised memory for `n` values; the kernel that follows writes all of them.
fn room<T: DeviceRepr>(device: &CudaDevice, n: usize) -> Result<CudaSlice<T>> {
    unsafe { device.alloc::<T>(n) }
}

/// The values of a contiguous storage under its layout.
fn view<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        None => candle_core::bail!("a CUDA kernel needs contiguous values"),
    }
}

/// Calls `body` with the values of each tensor, which must be contiguous.
fn read<T: CudaDType, const N: usize, R>(
    tensors: [&Tensor; N],
    body: impl FnOnce([CudaView<T>; N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut views = Vec::with_capacity(N);
    for (storage, layout) in &guards {
        match &**storage {
            Storage::Cuda(storage) => views.push(view::<T>(storage, layout)?),
            _ => candle_core::bail!("a CUDA kernel needs values on the device"),
        }
    }
    match views.try_into() {
        Ok(views) => body(views),
        Err(_) => candle_core::bail!("a tensor has no values"),
    }
}

/// The device of a tensor.
fn device_of(tensor: &Tensor) -> Result<CudaDevice> {
    Ok(tensor.device().as_cuda_device()?.clone())
}

/// Values as a storage.
fn storage<T: CudaDType>(values: CudaSlice<T>, device: &CudaDevice) -> CudaStorage {
    CudaStorage::wrap_cuda_slice(values, device.clone())
}

/// Values as a tensor outside any graph.
fn tensor<T: CudaDType>(values: CudaSlice<T>, device: &CudaDevice, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage(values, device)), shape, BackpropOp::none(), false)
}

/// The error of a custom operation that is asked to run on a CPU: [`runs_on`] keeps it from happening.
fn not_here<T>() -> Result<T> {
    candle_core::bail!("this operation runs on CUDA devices only")
}

#[cfg(test)]
mod tests;
