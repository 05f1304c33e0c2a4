//! Where a model is computed.

use candle_core::{DType, Device};

use crate::error::{Error, Result};
use crate::experiment::Compute;

/// The device, and the floats its matrix products are computed in.
///
/// # Errors
/// [`Error::Invalid`] when CUDA is asked for and this build has none, or no device answers.
pub fn open(compute: Compute) -> Result<(Device, DType)> {
    let floats = if compute == Compute::CudaBf16 { DType::BF16 } else { DType::F32 };
    if compute == Compute::Cpu {
        return Ok((Device::Cpu, floats));
    }
    let device = Device::new_cuda(0).map_err(|e| {
        Error::invalid(
            format!("the experiment wants CUDA, and there is none: {e}"),
            "build with `--features cuda` on a machine with a CUDA device, or set compute = \"cpu\"",
        )
    })?;
    tune(&device);
    Ok((device, floats))
}

/// Two settings that cost nothing here. Everything runs on one stream, in order, so no event has to tell streams from each
/// other. And freed memory stays with the process: by default the device takes it back whenever the host waits, once a step.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
fn tune(device: &Device) {
    use candle_core::cuda_backend::cudarc::driver::{result, sys};
    let Ok(device) = device.as_cuda_device() else { return };
    let mut keep = u64::MAX;
    // Both are advice: where the driver refuses, the run is only slower.
    unsafe {
        device.disable_event_tracking();
        if let Ok(pool) = result::device::get_mem_pool(device.cuda_stream().context().cu_device()) {
            let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            let _ = result::mem_pool::set_attribute(pool, threshold, (&raw mut keep).cast());
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn tune(_: &Device) {}

/// A CUDA device after some work.
#[derive(Debug, Clone)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Memory in use on it in MiB. As freed memory stays with the process, that is the most it ever held, beside what the driver
    /// takes.
    pub held_mib: f64,
}

/// The card behind a device; none for a CPU.
pub fn card(device: &Device) -> Option<Card> {
    #[cfg(feature = "cuda")]
    if let Ok(device) = device.as_cuda_device() {
        let stream = device.cuda_stream();
        let (free, total) = stream.context().mem_get_info().ok()?;
        let held_mib = (total - free) as f64 / f64::from(1 << 20);
        return Some(Card { name: stream.context().name().ok()?, held_mib });
    }
    let _ = device;
    None
}
