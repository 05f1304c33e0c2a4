//! One AdamW step of a parameter, and the norm that gradients are clipped by, without a value leaving the device.

use std::sync::Mutex;

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, Var};

use super::{THREADS, device_of, flat, launch, not_here, read, room, view};

/// Blocks that sum the squares of one gradient.
const BLOCKS: usize = 128;

/// The moments of one parameter on its device.
#[derive(Debug, Clone)]
pub struct Moments {
    mean: CudaSlice<f32>,
    square: CudaSlice<f32>,
}

impl Moments {
    /// Moments with these values on the device of `variable`.
    ///
    /// # Errors
    /// The device's.
    pub fn new(variable: &Var, mean: &[f32], square: &[f32]) -> Result<Self> {
        let device = device_of(variable.as_tensor())?;
        Ok(Self { mean: device.clone_htod(mean)?, square: device.clone_htod(square)? })
    }

    /// Mean and square on the host.
    ///
    /// # Errors
    /// The device's.
    pub fn to_host(&self, device: &Device) -> Result<(Vec<f32>, Vec<f32>)> {
        let device = device.as_cuda_device()?;
        Ok((device.clone_dtoh(&self.mean)?, device.clone_dtoh(&self.square)?))
    }
}

/// The numbers of one step, in the order of the kernel's arguments: β₁, β₂, what decay keeps, the rate, the correction of the
/// second moment, ε.
pub type Numbers = [f32; 6];

struct Step<'a> {
    numbers: Numbers,
    gradient: &'a Tensor,
    clip: &'a Clip,
    moments: Mutex<&'a mut Moments>,
}

impl InplaceOp1 for Step<'_> {
    fn name(&self) -> &'static str {
        "adamw-cuda"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        not_here()
    }

    fn cuda_fwd(&self, weight: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let (n, device): (usize, CudaDevice) = (layout.shape().elem_count(), weight.device.clone());
        let Ok(moments) = self.moments.lock() else { return not_here() };
        let [b1, b2, keep, rate, root, epsilon] = self.numbers;
        read::<f32, 1, ()>([self.gradient], |[gradient]| {
            launch!(
                &device,
                "adamw",
                flat(n),
                [
                    view::<f32>(weight, layout)?,
                    gradient,
                    moments.mean.as_view(),
                    moments.square.as_view(),
                    self.clip.scale.as_view(),
                    n as u32,
                    b1,
                    b2,
                    keep,
                    rate,
                    root,
                    epsilon,
                ]
            );
            Ok(())
        })
    }
}

/// One step of `variable`, f32, in place.
///
/// # Errors
/// The device's.
pub fn step(variable: &Var, gradient: &Tensor, moments: &mut Moments, clip: &Clip, numbers: Numbers) -> Result<()> {
    let gradient = gradient.to_dtype(DType::F32)?.contiguous()?;
    variable.inplace_op1(&Step { numbers, gradient: &gradient, clip, moments: Mutex::new(moments) })
}

/// The norm of all gradients, and what clipping multiplies each with, on their device.
#[derive(Debug, Clone)]
pub struct Clip {
    norm: CudaSlice<f64>,
    scale: CudaSlice<f32>,
    device: CudaDevice,
}

impl Clip {
    /// The norm, read from the device.
    ///
    /// # Errors
    /// The device's.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.device.clone_dtoh(&self.norm)?.iter().sum())
    }
}

/// Asks for the L2 norm over all `gradients`, of which there is at least one, summed in f64 in a fixed order, and for
/// min(1, limit / norm). Waits for neither.
///
/// # Errors
/// The device's.
pub fn clip(gradients: &[&Tensor], limit: f64) -> Result<Clip> {
    let Some(first) = gradients.first() else { candle_core::bail!("there is no gradient to clip") };
    let device = &device_of(first)?;
    let parts = device.alloc_zeros::<f64>(BLOCKS * gradients.len())?;
    for (slot, gradient) in gradients.iter().enumerate() {
        let gradient = gradient.to_dtype(DType::F32)?.contiguous()?;
        let n = gradient.elem_count();
        read::<f32, 1, ()>([&gradient], |[gradient]| {
            launch!(
                device,
                "squares",
                ((BLOCKS, 1, 1), (THREADS, 1, 1), 0),
                [gradient, parts.as_view(), n as i64, slot as i32]
            );
            Ok(())
        })?;
    }
    let clip = Clip { norm: room(device, 1)?, scale: room(device, 1)?, device: device.clone() };
    launch!(
        device,
        "clip",
        ((1, 1, 1), (THREADS, 1, 1), 0),
        [parts.as_view(), (BLOCKS * gradients.len()) as i32, limit, clip.norm.as_view(), clip.scale.as_view()]
    );
    Ok(clip)
}
