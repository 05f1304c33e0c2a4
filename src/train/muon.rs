//! Muon for one matrix: momentum whose singular values are made equal before it is a step (Jordan et al. 2024).
//!
//! A gradient's few large singular values drown the many small ones; with all of them near 1 a step moves the matrix in every
//! direction that its gradients have named. An orthogonal matrix of r × c has entries of size 1/√max(r, c), so the factor 0.2·√max(r, c)
//! gives steps the length that AdamW's have, and both rules can share a learning rate (Liu et al. 2025, eq. 4).
//!
//! Not covered: CUDA, where AdamW is one kernel a parameter.

use candle_core::{Tensor, Var};

use crate::error::{Error, Result};
use crate::model::ops::orthogonal;
use crate::train::gradients::{Clip, with_host};
use crate::train::optimizer::Rates;

/// Decay of the momentum.
const MOMENTUM: f32 = 0.95;

/// What Muon keeps of a parameter: the mean of its gradients.
#[derive(Debug, Clone)]
pub(super) struct Momentum(pub(super) Vec<f32>);

impl Momentum {
    /// One step: M ← μM + (1−μ)G, U = (1−μ)G + μM, θ ← θ·keep − lr · 0.2·√max(r, c) · orthogonal(U), with θ, M, G of `(r, c)`.
    /// `parts` matrices that lie above each other in θ, query, key and value for one, are made orthogonal each by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] on a CUDA device; [`Error::Tensor`].
    pub(super) fn step(
        &mut self,
        variable: &Var,
        gradient: &Tensor,
        clip: &Clip,
        rates: Rates,
        parts: usize,
    ) -> Result<()> {
        let scale = match clip {
            Clip::Host { scale, .. } => *scale as f32 * (1.0 - MOMENTUM),
            #[cfg(feature = "cuda")]
            Clip::Device(_) => return Err(not_here()),
        };
        let (rows, columns) = variable.dims2()?;
        let rows = rows / parts;
        let update: Vec<f32> = with_host(gradient, |gradient| {
            let pairs = self.0.iter_mut().zip(gradient);
            let looked_ahead = pairs.map(|(mean, g)| {
                *mean = MOMENTUM * *mean + scale * g;
                scale * g + MOMENTUM * *mean
            });
            Ok(looked_ahead.collect())
        })?;
        let length = 0.2 * (rows.max(columns) as f64).sqrt();
        let (keep, step) = (rates.keep as f32, (rates.lr * length) as f32);
        let equal = update.chunks(rows * columns).flat_map(|part| orthogonal(part, rows, columns));
        let weights = with_host(variable, |weights| {
            Ok(weights.iter().zip(equal).map(|(w, u)| w * keep - step * u).collect::<Vec<f32>>())
        })?;
        Ok(variable.set(&Tensor::from_vec(weights, variable.shape(), variable.device())?)?)
    }
}

/// Refuses a device.
pub(super) fn not_here() -> Error {
    Error::invalid("Muon has no kernel for CUDA", "train with optimizer = \"adamw\", or on the processor")
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn random(rows: usize, columns: usize) -> Tensor {
        let values = crate::model::init::normal(&mut crate::seed::rng(3, "muon"), rows * columns, 0.01);
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    #[test]
    fn a_step_has_the_length_of_adamws_whatever_the_gradients_size() {
        for scale in [1e-3, 1e3] {
            let variable = Var::zeros((16, 64), DType::F32, &Device::Cpu).unwrap();
            let mut momentum = Momentum(vec![0.0; 16 * 64]);
            let clip = Clip::Host { norm: 1.0, scale };
            momentum.step(&variable, &random(16, 64), &clip, Rates { lr: 0.1, keep: 1.0 }, 1).unwrap();
            let square = variable.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
            // 0.2 of the rate; AdamW's steps have 0.2 to 0.4 of it (Liu et al. 2025).
            assert!((0.015..0.025).contains(&square.sqrt()), "{square}");
        }
    }

    #[test]
    fn matrices_above_each_other_step_as_they_would_apart() {
        let (upper, lower) = (random(6, 8), (random(6, 8) * 100.0).unwrap());
        let clip = Clip::Host { norm: 1.0, scale: 1.0 };
        let stepped = |gradient: &Tensor, parts: usize| {
            let variable = Var::ones(gradient.shape(), DType::F32, &Device::Cpu).unwrap();
            let mut momentum = Momentum(vec![0.0; gradient.elem_count()]);
            momentum.step(&variable, gradient, &clip, Rates { lr: 0.1, keep: 0.99 }, parts).unwrap();
            variable.to_vec2::<f32>().unwrap()
        };
        let together = stepped(&Tensor::cat(&[&upper, &lower], 0).unwrap(), 2);
        assert_eq!(together, [stepped(&upper, 1), stepped(&lower, 1)].concat());
        assert!((together[0][0] - 0.99).abs() > 1e-4, "nothing but decay");
    }
}
