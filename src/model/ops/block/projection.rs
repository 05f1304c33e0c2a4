//! A linear layer with its low-rank update over plain values, on the calling thread.

use super::Projection;
use crate::model::dropout::Mask;
use crate::model::ops::gemm::{Matrix, product};
use crate::model::ops::packed::{Direction, Layouts, Packed};
use crate::model::ops::simd::vectorised;

/// A tensor's values and, where it is trained, the place of its gradient.
#[derive(Clone, Copy)]
pub(super) struct Parameter<'a> {
    pub values: &'a [f32],
    pub place: Option<usize>,
}

impl Parameter<'_> {
    /// Where its gradient is summed, if anywhere.
    pub fn gradient<'g>(&self, grads: &'g mut [f32]) -> Option<&'g mut [f32]> {
        self.place.map(|place| &mut grads[place..place + self.values.len()])
    }
}

struct LowRank<'a> {
    a: Parameter<'a>,
    b: Parameter<'a>,
    rank: usize,
    scale: f32,
    mask: Option<Mask>,
}

/// A weight as a pass reads it: laid out once and for all, or for this pass because it is trained.
enum Laid<'a> {
    Kept(&'a Packed),
    Own(Packed),
}

/// y = x · Wᵀ + scale · (x ⊙ mask) · Aᵀ · Bᵀ.
pub(super) struct Linear<'a> {
    weight: Parameter<'a>,
    layouts: &'a Layouts,
    laid: Option<Laid<'a>>,
    pub out: usize,
    pub input: usize,
    update: Option<LowRank<'a>>,
}

/// What the update computes between its two matrices: `(rows, rank)`, and its input where dropout changes it.
#[derive(Default)]
pub(super) struct Between {
    low: Vec<f32>,
    dropped: Vec<f32>,
}

/// `values` at least `length` long; what is in them does not matter.
fn room(values: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if values.len() < length {
        values.resize(length, 0.0);
    }
    &mut values[..length]
}

impl<'a> Linear<'a> {
    /// Takes the layer's own parameters from the front of `parameters`.
    pub fn new(projection: &'a Projection, parameters: &mut impl Iterator<Item = Parameter<'a>>) -> Option<Self> {
        let (out, input) = projection.weight.dims2().ok()?;
        let weight = parameters.next()?;
        let update = match &projection.update {
            Some(update) => Some(LowRank {
                a: parameters.next()?,
                b: parameters.next()?,
                rank: update.a.dim(0).ok()?,
                scale: update.scale as f32,
                mask: update.mask,
            }),
            None => None,
        };
        Some(Self { weight, layouts: &projection.layouts, laid: None, out, input, update })
    }

    /// Lays the weight out for the direction of the pass.
    pub fn lay_out(&mut self, direction: Direction) {
        let (values, size) = (self.weight.values, (self.out, self.input));
        self.laid = Some(match self.weight.place {
            None => Laid::Kept(self.layouts.of(direction, values, size)),
            Some(_) => Laid::Own(Packed::of_weight(direction, values, size)),
        });
    }

    /// The product with the weight in that direction.
    fn through(&self, from: &[f32], to: &mut [f32]) {
        match self.laid.as_ref().expect("a pass lays its weights out") {
            Laid::Kept(weight) => weight.product(from, to),
            Laid::Own(weight) => weight.product(from, to),
        }
    }

    /// `y` for x `(rows, in)`, whose first row is row `first` of the batch.
    pub fn forward(&self, x: &[f32], first: usize, y: &mut [f32], between: &mut Between) {
        let (rows, out, input) = (x.len() / self.input, self.out, self.input);
        self.through(x, y);
        if let Some(update) = &self.update {
            update.down(x, first, input, between);
            let low = Matrix::rows(&between.low, update.rank);
            product((rows, out, update.rank), low, Matrix::rows(update.b.values, update.rank).t(), y, out, true, false);
        }
    }

    /// dX `(rows, in)` of dY `(rows, out)`.
    pub fn input_gradient(&self, dy: &[f32], first: usize, dx: &mut [f32], between: &mut Between) {
        let (rows, out, input) = (dy.len() / self.out, self.out, self.input);
        self.through(dy, dx);
        let Some(update) = &self.update else { return };
        let (dy, rank) = (Matrix::rows(dy, out), update.rank);
        let low = room(&mut between.low, rows * rank);
        product((rows, rank, out), dy, Matrix::rows(update.b.values, rank), low, rank, false, false);
        low.iter_mut().for_each(|value| *value *= update.scale);
        let (low, a) = (Matrix::rows(low, rank), Matrix::rows(update.a.values, input));
        match update.mask {
            None => product((rows, input, rank), low, a, dx, input, true, false),
            Some(mask) => {
                let dropped = room(&mut between.dropped, rows * input);
                product((rows, input, rank), low, a, dropped, input, false, false);
                mask.apply(dropped, (first * input) as u64);
                vectorised(
                    #[inline(always)]
                    || dx.iter_mut().zip(&*dropped).for_each(|(dx, more)| *dx += more),
                );
            }
        }
    }

    /// Adds the gradients of the layer's own parameters to `grads`.
    pub fn own_gradients(&self, x: &[f32], dy: &[f32], first: usize, grads: &mut [f32], between: &mut Between) {
        let (rows, out, input) = (x.len() / self.input, self.out, self.input);
        let dy = Matrix::rows(dy, out);
        if let Some(dw) = self.weight.gradient(grads) {
            product((out, input, rows), dy.t(), Matrix::rows(x, input), dw, input, true, false);
        }
        let Some(update) = &self.update else { return };
        let rank = update.rank;
        update.down(x, first, input, between);
        if let Some(db) = update.b.gradient(grads) {
            product((out, rank, rows), dy.t(), Matrix::rows(&between.low, rank), db, rank, true, false);
        }
        if let Some(da) = update.a.gradient(grads) {
            let low = room(&mut between.low, rows * rank);
            product((rows, rank, out), dy, Matrix::rows(update.b.values, rank), low, rank, false, false);
            low.iter_mut().for_each(|value| *value *= update.scale);
            let x = if update.mask.is_some() { &between.dropped } else { x };
            product((rank, input, rows), Matrix::rows(low, rank).t(), Matrix::rows(x, input), da, input, true, false);
        }
    }
}

impl LowRank<'_> {
    /// `between.low` = scale · (x ⊙ mask) · Aᵀ, and the masked x in `between.dropped`.
    fn down(&self, x: &[f32], first: usize, input: usize, between: &mut Between) {
        let rows = x.len() / input;
        let x = match self.mask {
            None => x,
            Some(mask) => {
                let dropped = room(&mut between.dropped, x.len());
                dropped.copy_from_slice(x);
                mask.apply(dropped, (first * input) as u64);
                dropped
            }
        };
        let low = room(&mut between.low, rows * self.rank);
        let a = Matrix::rows(self.a.values, input).t();
        product((rows, self.rank, input), Matrix::rows(x, input), a, low, self.rank, false, false);
        low.iter_mut().for_each(|value| *value *= self.scale);
    }
}
