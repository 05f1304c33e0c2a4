//! Steps that were taken and whose loss and norm have not been read: on a device, reading waits for all that was asked of it before,
//! so several steps are read together.

use candle_core::Tensor;

use crate::error::Result;
use crate::train::gradients::Clip;
use crate::train::metrics::StepRecord;

/// A step whose numbers still lie where they were computed.
pub(super) struct Taken {
    pub step: usize,
    pub lr: f64,
    /// The loss of each micro-batch and its share of the step's supervised tokens.
    pub losses: Vec<(Tensor, f64)>,
    pub clip: Clip,
    /// Supervised tokens.
    pub tokens: usize,
    /// Computed tokens, padding left out.
    pub real: usize,
    /// Computed tokens.
    pub computed: usize,
}

/// The steps that wait to be read, and the seconds that they took.
#[derive(Default)]
pub(super) struct Pending {
    taken: Vec<Taken>,
    seconds: f64,
}

impl Pending {
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    pub fn push(&mut self, taken: Taken, seconds: f64) {
        self.taken.push(taken);
        self.seconds += seconds;
    }

    /// The rows of all that wait, in their order; those read together share one rate. None waits afterwards.
    pub fn read(&mut self) -> Result<Vec<StepRecord>> {
        let begun = std::time::Instant::now();
        let taken = std::mem::take(&mut self.taken);
        let read = |step: &Taken| -> Result<(f64, f64)> {
            let mut loss = 0.0;
            for (part, share) in &step.losses {
                loss += f64::from(part.to_scalar::<f32>()?) * share;
            }
            Ok((loss, step.clip.norm()?))
        };
        let numbers: Vec<(f64, f64)> = taken.iter().map(read).collect::<Result<_>>()?;
        let seconds = std::mem::take(&mut self.seconds) + begun.elapsed().as_secs_f64();
        let real: usize = taken.iter().map(|step| step.real).sum();
        let row = |(step, (loss, grad_norm)): (Taken, (f64, f64))| StepRecord {
            step: step.step,
            loss,
            lr: step.lr,
            grad_norm,
            tokens: step.tokens,
            padding: 1.0 - step.real as f64 / step.computed as f64,
            tokens_per_second: real as f64 / seconds,
        };
        Ok(taken.into_iter().zip(numbers).map(row).collect())
    }
}
