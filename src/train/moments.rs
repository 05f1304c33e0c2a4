//! The moments of AdamW, which lie where their parameter lies.

use candle_core::Var;

use crate::error::Result;
#[cfg(feature = "cuda")]
use crate::model::ops::cuda;

/// Means of gradients and of their squares, where the parameter is.
#[derive(Debug, Clone)]
pub(super) enum Moments {
    Host(Vec<f32>, Vec<f32>),
    #[cfg(feature = "cuda")]
    Device(cuda::Moments),
}

impl Moments {
    /// Moments with these values, on the device of `variable`.
    pub(super) fn new(variable: &Var, mean: Vec<f32>, square: Vec<f32>) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if variable.device().is_cuda() {
            return Ok(Self::Device(cuda::Moments::new(variable, &mean, &square)?));
        }
        let _ = variable;
        Ok(Self::Host(mean, square))
    }

    /// Mean and square on the host.
    pub(super) fn to_host(&self, variable: &Var) -> Result<(Vec<f32>, Vec<f32>)> {
        let _ = variable;
        Ok(match self {
            Self::Host(mean, square) => (mean.clone(), square.clone()),
            #[cfg(feature = "cuda")]
            Self::Device(moments) => moments.to_host(variable.device())?,
        })
    }
}
