//! AdamW with decoupled decay (Loshchilov & Hutter 2019, algorithm 2) for one parameter.
//!
//! candle's own keeps its moments private and in the parameter's type; here they are plain f32 beside the parameter, so that
//! a run resumes to the bit. On a CPU the update runs over raw slices, in parallel over chunks of each tensor; on a CUDA
//! device it is one kernel a parameter.

use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, Var};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use crate::error::Error;
use crate::error::Result;
#[cfg(feature = "cuda")]
use crate::model::ops::cuda;
use crate::train::gradients::{CHUNK, Clip, with_host};
use crate::train::optimizer::Rates;

/// Decay rates of the moments. β₂ = 0.95 forgets sooner than the usual 0.999, which suits runs of few steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Betas {
    /// Decay of the mean of gradients.
    pub first: f64,
    /// Decay of the mean of squared gradients.
    pub second: f64,
}

impl Default for Betas {
    fn default() -> Self {
        Self { first: 0.9, second: 0.95 }
    }
}

/// Added to the root of the second moment.
pub(super) const EPSILON: f64 = 1e-8;

/// What AdamW keeps of a parameter: means of its gradients and of their squares, where the parameter is.
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

    /// One step with bias correction; `step` counts from 1.
    ///
    /// θ ← θ·keep − lr · m̂ / (√v̂ + ε), with m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ).
    pub(super) fn step(
        &mut self,
        variable: &Var,
        gradient: &Tensor,
        clip: &Clip,
        rates: Rates,
        betas: Betas,
        step: usize,
    ) -> Result<()> {
        let correct = |beta: f64| 1.0 - beta.powi(step as i32);
        let update = Update {
            betas: (betas.first as f32, betas.second as f32),
            keep: rates.keep as f32,
            rate: (rates.lr / correct(betas.first)) as f32,
            root: (1.0 / correct(betas.second)) as f32,
        };
        match (self, clip) {
            (Self::Host(mean, square), Clip::Host { scale, .. }) => with_host(gradient, |gradient| {
                let (scale, moments) = (*scale as f32, Mutex::new((mean, square)));
                Ok(variable.inplace_op1(&HostStep { update, scale, gradient, moments })?)
            }),
            #[cfg(feature = "cuda")]
            (Self::Device(moments), Clip::Device(clip)) => {
                Ok(cuda::step(variable, gradient, moments, clip, update.numbers())?)
            }
            #[cfg(feature = "cuda")]
            _ => Err(Error::invalid(
                "the gradient of a parameter lies on another device than the parameter",
                "compute the loss where the weights lie",
            )),
        }
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

/// The numbers of one step for one parameter.
#[derive(Debug, Clone, Copy)]
struct Update {
    betas: (f32, f32),
    keep: f32,
    rate: f32,
    root: f32,
}

impl Update {
    /// In the order that the device's kernel takes them.
    #[cfg(feature = "cuda")]
    fn numbers(self) -> cuda::Numbers {
        [self.betas.0, self.betas.1, self.keep, self.rate, self.root, EPSILON as f32]
    }

    fn apply(self, scale: f32, values: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        let (b1, b2) = self.betas;
        for (((w, &g), m), v) in values.iter_mut().zip(gradient).zip(mean).zip(square) {
            let g = g * scale;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *w = *w * self.keep - self.rate * *m / ((*v * self.root).sqrt() + EPSILON as f32);
        }
    }
}

/// An update in place of a parameter's storage. The lock only hands the moments through candle's shared reference.
struct HostStep<'a> {
    update: Update,
    /// Multiplies the gradient.
    scale: f32,
    gradient: &'a [f32],
    moments: Mutex<(&'a mut Vec<f32>, &'a mut Vec<f32>)>,
}

impl HostStep<'_> {
    fn run(&self, values: &mut [f32]) {
        let Ok(mut moments) = self.moments.lock() else { return };
        let (mean, square) = &mut *moments;
        values
            .par_chunks_mut(CHUNK)
            .zip(self.gradient.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK))
            .zip(square.par_chunks_mut(CHUNK))
            .for_each(|(((w, g), m), v)| self.update.apply(self.scale, w, g, m, v));
    }
}

impl InplaceOp1 for HostStep<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a trainable parameter is contiguous f32");
        };
        self.run(&mut values[from..to]);
        Ok(())
    }
}
