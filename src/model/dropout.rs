//! Dropout with a generator of our own: candle's cannot be seeded on a CPU.

use candle_core::Tensor;
use rand::Rng;
use rand::rngs::StdRng;

use crate::error::Result;
use crate::model::ops;

/// Switches dropout on (training) or off (everything else), and deals the seeds of its masks.
///
/// A mask is not stored: each is a hash of its seed and of the element's index, computed again in the backward pass.
#[derive(Debug, Clone)]
pub struct Dropout {
    rng: Option<StdRng>,
}

impl Dropout {
    /// No dropout: evaluation and generation.
    pub fn off() -> Self {
        Self { rng: None }
    }

    /// Dropout whose masks follow from `rng`.
    pub fn new(rng: StdRng) -> Self {
        Self { rng: Some(rng) }
    }

    /// Zeroes each element with probability `p` and scales the others by 1 / (1 − p) (Srivastava et al. 2014).
    /// Any shape; the identity when switched off or when `p` is 0.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor).
    pub fn apply(&mut self, x: &Tensor, p: f64) -> Result<Tensor> {
        match self.mask(p) {
            Some(mask) => Ok(ops::dropout(x, mask)?),
            None => Ok(x.clone()),
        }
    }

    /// The next mask, or none when switched off or when `p` is 0.
    pub fn mask(&mut self, p: f64) -> Option<Mask> {
        let rng = self.rng.as_mut().filter(|_| p > 0.0)?;
        Some(Mask { seed: rng.random(), p })
    }
}

/// A dropout mask, as its recipe.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    seed: u64,
    p: f64,
}

impl Mask {
    /// What element `index` is multiplied by: 0 or 1 / (1 − p).
    #[inline]
    pub fn factor(self, index: u64) -> f32 {
        if self.draw(index) < self.threshold() { 0.0 } else { self.kept() }
    }

    /// Multiplies `values`, which are the elements from `first` on, by their factors.
    pub fn apply(self, values: &mut [f32], first: u64) {
        let (threshold, kept) = (self.threshold(), self.kept());
        ops::vectorised(
            #[inline(always)]
            || {
                for (value, index) in values.iter_mut().zip(first..) {
                    *value *= if self.draw(index) < threshold { 0.0 } else { kept };
                }
            },
        );
    }

    /// 24 random bits of element `index`.
    #[inline(always)]
    fn draw(self, index: u64) -> u32 {
        // SplitMix64's finaliser: enough mixing that neighbours are independent, cheap enough to compute twice.
        let mut z = self.seed ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as u32
    }

    /// Draws below this are dropped: k / 2²⁴ < p.
    #[inline]
    fn threshold(self) -> u32 {
        (self.p * f64::from(1u32 << 24)).ceil() as u32
    }

    /// What survives is scaled by this.
    #[inline]
    fn kept(self) -> f32 {
        (1.0 / (1.0 - self.p)) as f32
    }
}
