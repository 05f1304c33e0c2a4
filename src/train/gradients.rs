//! Gradients by parameter name, their norm, and what clipping makes of them.
//!
//! On a CPU the norm is a number at once. On a CUDA device it stays there: the optimizer's kernel reads the scale where it lies, and
//! the norm is fetched when someone asks for it, so that a step waits for nothing.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, DType, Storage, Tensor};
use rayon::prelude::*;

use crate::error::Result;
#[cfg(feature = "cuda")]
use crate::model::ops::cuda;

/// Elements a thread reads at once: the four arrays of an optimizer's chunk stay in a core's second-level cache.
pub(super) const CHUNK: usize = 16 * 1024;

/// Gradients by parameter name.
pub type Gradients = BTreeMap<String, Tensor>;

/// Clipping by the global norm (Pascanu et al. 2013): every gradient is multiplied by min(1, limit / ‖g‖₂).
#[derive(Debug, Clone)]
pub enum Clip {
    /// Known here.
    Host {
        /// ‖g‖₂.
        norm: f64,
        /// min(1, limit / ‖g‖₂).
        scale: f64,
    },
    /// On the gradients' device.
    #[cfg(feature = "cuda")]
    Device(cuda::Clip),
}

impl Clip {
    /// Of all gradients together; the squares are summed in f64 and in a fixed order. With an infinite limit nothing is clipped.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor).
    pub fn new(gradients: &Gradients, limit: f64) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if gradients.values().next().is_some_and(|gradient| gradient.device().is_cuda()) {
            return Ok(Self::Device(cuda::clip(&gradients.values().collect::<Vec<_>>(), limit)?));
        }
        let mut sum = 0f64;
        for gradient in gradients.values() {
            sum += with_host(gradient, |values| {
                let parts =
                    values.par_chunks(CHUNK).map(|chunk| chunk.iter().map(|&g| f64::from(g) * f64::from(g)).sum());
                Ok(parts.collect::<Vec<f64>>().iter().sum::<f64>())
            })?;
        }
        let norm = sum.sqrt();
        Ok(Self::Host { norm, scale: if norm > limit { limit / norm } else { 1.0 } })
    }

    /// ‖g‖₂ before clipping. On a device this waits for all that was asked of it before.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor).
    pub fn norm(&self) -> Result<f64> {
        match self {
            Self::Host { norm, .. } => Ok(*norm),
            #[cfg(feature = "cuda")]
            Self::Device(clip) => Ok(clip.norm()?),
        }
    }
}

/// Calls `body` with a tensor's values on the host: where they lie, if they lie there.
pub(super) fn with_host<R>(tensor: &Tensor, body: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) {
        return body(&values[from..to]);
    }
    drop(storage);
    body(&tensor.flatten_all()?.to_vec1::<f32>()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn clip(values: &[f32], limit: f64) -> (f64, f64) {
        let gradients = BTreeMap::from([("a".to_string(), Tensor::new(values, &Device::Cpu).unwrap())]);
        match Clip::new(&gradients, limit).unwrap() {
            Clip::Host { norm, scale } => (norm, scale),
            #[cfg(feature = "cuda")]
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_longer_than_the_limit_is_made_shorter() {
        assert_eq!(clip(&[3.0, 4.0], 2.5), (5.0, 0.5));
        assert_eq!(clip(&[3.0, 4.0], 5.0), (5.0, 1.0));
        assert_eq!(clip(&[3.0, 4.0], f64::INFINITY), (5.0, 1.0));
        assert_eq!(clip(&[0.0, 0.0], 1.0), (0.0, 1.0));
        // Nobody may take a norm that is no number for a short one: the run has to stop.
        assert!(clip(&[f32::NAN, 1.0], 1.0).0.is_nan());
    }
}
