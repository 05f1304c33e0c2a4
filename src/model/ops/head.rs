//! The head and its loss as one operation: logits exist for a few rows at a time, and never as a tensor.
//!
//! The gradient of a mean cross-entropy is known as soon as the logits are, so the forward pass computes it while they are in
//! cache; the backward pass only scales it.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::cross_entropy::{checked_targets, row_gradient, row_loss};
use super::gemm::{Matrix, product};
use super::packed::{Direction, Layouts};
use super::slices;

/// Rows of logits that exist at once in each thread.
const ROWS: usize = 256;

/// Most groups of rows whose gradients of the weight are summed apart.
const GROUPS: usize = 8;

/// With fewer rows than this, packing a trained weight for each group costs more than is saved.
pub(super) const FEWEST: usize = 1024;

/// Gradients of the mean loss: of the states, and of the weight where it is trained.
struct Gradients {
    states: Vec<f32>,
    weight: Vec<f32>,
}

/// The weight `(vocab, hidden)` in both directions: as laid out once and for all, or, where it is trained, as it is.
struct Weight<'a> {
    values: &'a [f32],
    size: (usize, usize),
    kept: Option<&'a Layouts>,
}

impl Weight<'_> {
    /// Logits of `rows` states.
    fn forward(&self, rows: usize, states: &[f32], logits: &mut [f32]) {
        let (vocab, hidden) = self.size;
        match self.kept {
            Some(kept) => kept.of(Direction::Forward, self.values, self.size).product(states, logits),
            None => {
                let weight = Matrix::rows(self.values, hidden).t();
                product((rows, vocab, hidden), Matrix::rows(states, hidden), weight, logits, vocab, false, false);
            }
        }
    }

    /// The states' gradient from that of their logits.
    fn backward(&self, rows: usize, d_logits: &[f32], d_states: &mut [f32]) {
        let (vocab, hidden) = self.size;
        match self.kept {
            Some(kept) => kept.of(Direction::Backward, self.values, self.size).product(d_logits, d_states),
            None => {
                let weight = Matrix::rows(self.values, hidden);
                product((rows, hidden, vocab), Matrix::rows(d_logits, vocab), weight, d_states, hidden, false, false);
            }
        }
    }
}

struct Head {
    weight: Tensor,
    /// Of the weight, where it is frozen.
    layouts: Option<Arc<Layouts>>,
    targets: Vec<u32>,
    smoothing: f32,
    /// Whether the states' and the weight's gradients are wanted.
    wanted: (bool, bool),
    gradients: OnceLock<Gradients>,
}

impl Head {
    fn forward(&self, states: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, hidden) = layout.shape().dims2()?;
        let vocab = self.weight.dim(0)?;
        let states = slices::of_storage(states, layout)?;
        let group = rows.div_ceil(GROUPS).max(1);
        let mut d_states = vec![0f32; if self.wanted.0 { states.len() } else { 0 }];
        let parts: Vec<(f64, Vec<f32>)> = slices::read([&self.weight], |[weight]| {
            // Without a gradient each group gets an empty slice of it.
            let groups = rows.div_ceil(group);
            let mut slots: Vec<&mut [f32]> = match self.wanted.0 {
                true => d_states.chunks_mut(group * hidden).collect(),
                false => (0..groups).map(|_| &mut [][..]).collect(),
            };
            let weight = Weight { values: weight, size: (vocab, hidden), kept: self.layouts.as_deref() };
            let tasks = slots.par_iter_mut().zip(states.par_chunks(group * hidden)).zip(self.targets.par_chunks(group));
            Ok(tasks.map(|((d, states), targets)| self.group(states, &weight, targets, d, rows)).collect())
        })?;
        let loss = parts.iter().map(|part| part.0).sum::<f64>() / rows as f64;
        let mut sums = parts.into_iter().map(|part| part.1);
        let mut weight = sums.next().unwrap_or_default();
        for part in sums {
            weight.par_chunks_mut(ROWS * 64).zip(part.par_chunks(ROWS * 64)).for_each(|(sum, part)| {
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            });
        }
        let _ = self.gradients.set(Gradients { states: d_states, weight });
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    /// A group's summed loss and its part of the weight's gradient; its rows of the states' gradient in `d_states`.
    fn group(
        &self,
        states: &[f32],
        weight: &Weight,
        targets: &[u32],
        d_states: &mut [f32],
        all: usize,
    ) -> (f64, Vec<f32>) {
        let (vocab, hidden) = weight.size;
        let mut logits = vec![0f32; ROWS.min(targets.len()) * vocab];
        let mut d_weight = vec![0f32; if self.wanted.1 { vocab * hidden } else { 0 }];
        let mut loss = 0f64;
        for (chunk, targets) in targets.chunks(ROWS).enumerate() {
            let (rows, from) = (targets.len(), chunk * ROWS * hidden);
            let states = &states[from..from + rows * hidden];
            let logits = &mut logits[..rows * vocab];
            weight.forward(rows, states, logits);
            for (z, &target) in logits.chunks_exact_mut(vocab).zip(targets) {
                let (lse, own) = row_loss(z, target, self.smoothing);
                loss += own;
                if self.wanted.0 || self.wanted.1 {
                    row_gradient(z, target, self.smoothing, lse, 1.0 / all as f32);
                }
            }
            if self.wanted.0 {
                weight.backward(rows, logits, &mut d_states[from..from + rows * hidden]);
            }
            if self.wanted.1 {
                let (d_logits, states) = (Matrix::rows(logits, vocab), Matrix::rows(states, hidden));
                product((vocab, hidden, rows), d_logits.t(), states, &mut d_weight, hidden, true, false);
            }
        }
        (loss, d_weight)
    }

    fn gradient(&self, of: impl Fn(&Gradients) -> &[f32], like: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let scale = grad.to_scalar::<f32>()?;
        let values = self.gradients.get().map(of).unwrap_or_default();
        slices::tensor_like(values.par_iter().with_min_len(ROWS * 64).map(|value| value * scale).collect(), like)
    }
}

impl CustomOp1 for Head {
    fn name(&self) -> &'static str {
        "head-loss-frozen"
    }

    fn cpu_fwd(&self, states: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(states, layout)
    }

    fn bwd(&self, states: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.gradient(|g| &g.states, states, grad)?))
    }
}

impl CustomOp2 for Head {
    fn name(&self) -> &'static str {
        "head-loss"
    }

    fn cpu_fwd(&self, states: &CpuStorage, layout: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(states, layout)
    }

    fn bwd(
        &self,
        states: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d_states = self.gradient(|g| &g.states, states, grad)?;
        Ok((Some(d_states), Some(self.gradient(|g| &g.weight, weight, grad)?)))
    }
}

/// See [`super::head_loss`].
pub(super) fn head_loss(
    states: &Tensor,
    weight: &Tensor,
    layouts: &Arc<Layouts>,
    targets: &Tensor,
    smoothing: f64,
) -> Result<Tensor> {
    let ((rows, hidden), (vocab, width)) = (states.dims2()?, weight.dims2()?);
    if hidden != width {
        candle_core::bail!("head: the states are {:?}, the weight {:?}", states.dims(), weight.dims());
    }
    let head = Head {
        weight: weight.detach().contiguous()?,
        layouts: (!weight.is_variable()).then(|| layouts.clone()),
        targets: checked_targets(targets, rows, vocab)?,
        smoothing: smoothing as f32,
        // candle asks an operation over two tensors for both gradients.
        wanted: (states.track_op() || weight.is_variable(), weight.is_variable()),
        gradients: OnceLock::new(),
    };
    let states = states.contiguous()?;
    if weight.is_variable() { states.apply_op2(weight, head) } else { states.apply_op1(head) }
}
