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
    Ok((device, floats))
}
