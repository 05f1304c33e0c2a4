//! A few sequences through the block, forward and backward, on the calling thread: their rows are one after the other, and only
//! attention tells them apart.

use rayon::prelude::*;

use super::projection::{Between, Linear, Parameter};
use super::{Block, Norm};
use crate::model::config::Activation;
use crate::model::dropout::Mask;
use crate::model::ops::attention::{Heads, Scratch, Sizes};
use crate::model::ops::packed::Direction;
use crate::model::ops::simd::vectorised;
use crate::model::ops::{activation, norm};

struct NormView<'a> {
    weight: Parameter<'a>,
    bias: Option<Parameter<'a>>,
    eps: f32,
}

impl<'a> NormView<'a> {
    fn new(norm: &Norm, parameters: &mut impl Iterator<Item = Parameter<'a>>) -> Option<Self> {
        let weight = parameters.next()?;
        let bias = if norm.bias.is_some() { Some(parameters.next()?) } else { None };
        Some(Self { weight, bias, eps: norm.eps as f32 })
    }

    fn forward(&self, x: &[f32], y: &mut [f32]) {
        norm::forward_rows(x, self.weight.values, self.bias.map(|bias| bias.values), self.eps, y);
    }

    /// Adds dX to `dx` and the gradients of weight and bias to `grads`; `sums` is room for both.
    fn backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32], grads: &mut [f32], sums: &mut [f32]) {
        sums.fill(0.0);
        let (dw, db) = sums.split_at_mut(self.weight.values.len());
        norm::backward_rows(x, self.weight.values, dy, (self.bias.is_some(), self.eps), dx, (dw, db));
        if let Some(gradient) = self.weight.gradient(grads) {
            add(gradient, dw);
        }
        if let Some(gradient) = self.bias.and_then(|bias| bias.gradient(grads)) {
            add(gradient, db);
        }
    }
}

/// to += from.
fn add(to: &mut [f32], from: &[f32]) {
    vectorised(
        #[inline(always)]
        || to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
    );
}

/// The block over plain values.
pub(super) struct Pass<'a> {
    norm1: NormView<'a>,
    qkv: Linear<'a>,
    out_proj: Linear<'a>,
    norm2: NormView<'a>,
    fc1: Linear<'a>,
    fc2: Linear<'a>,
    heads: &'a Heads,
    together: usize,
    sizes: Sizes,
    activation: Activation,
    after_attention: Option<Mask>,
    after_mlp: Option<Mask>,
}

/// What a forward pass leaves for its backward pass; `rows` are those of all its sequences.
pub(super) struct Saved {
    qkv: Vec<f32>,    // (rows, 3 · hidden)
    mixed: Vec<f32>,  // (rows, hidden): attention's output
    lse: Vec<f32>,    // (sequences, heads, seq)
    stream: Vec<f32>, // (rows, hidden): between the halves
    wide: Vec<f32>,   // (rows, fc1_dim): before the non-linearity
}

/// A thread's room for what is not kept, for the most rows that there are at a time.
pub(super) struct Buffers {
    attention: Scratch,
    between: Between,
    normal: Vec<f32>, // (rows, hidden)
    other: Vec<f32>,  // (rows, hidden)
    masked: Vec<f32>, // (rows, hidden)
    ffn: Vec<f32>,    // (rows, ffn_dim)
    wide: Vec<f32>,   // (rows, fc1_dim)
    dqkv: Vec<f32>,   // (rows, 3 · hidden)
    part: Vec<f32>,   // (3, seq, head_dim)
    sums: Vec<f32>,   // (2, hidden)
}

impl Buffers {
    pub fn new(pass: &Pass) -> Self {
        let (rows, hidden) = (pass.together * pass.sizes.seq, pass.sizes.hidden());
        let room = |width: usize| vec![0f32; rows * width];
        Self {
            attention: Scratch::new(pass.sizes),
            between: Between::default(),
            normal: room(hidden),
            other: room(hidden),
            masked: room(hidden),
            ffn: room(pass.fc2.input),
            wide: room(pass.fc1.out),
            dqkv: room(3 * hidden),
            part: vec![0f32; 3 * pass.sizes.head()],
            sums: vec![0f32; 2 * hidden],
        }
    }
}

impl<'a> Pass<'a> {
    /// Takes the tensors in the order of [`Block::tensors`], and lays the weights out for one direction.
    ///
    /// # Panics
    /// When there are fewer than the block has: they come from the block itself.
    pub fn new(
        block: &'a Block,
        heads: &'a Heads,
        (together, sizes): (usize, Sizes),
        direction: Direction,
        parameters: &mut impl Iterator<Item = Parameter<'a>>,
    ) -> Self {
        let mut take = || {
            Some(Self {
                norm1: NormView::new(&block.norm1, parameters)?,
                qkv: Linear::new(&block.qkv, parameters)?,
                out_proj: Linear::new(&block.out_proj, parameters)?,
                norm2: NormView::new(&block.norm2, parameters)?,
                fc1: Linear::new(&block.fc1, parameters)?,
                fc2: Linear::new(&block.fc2, parameters)?,
                heads,
                together,
                sizes,
                activation: block.activation,
                after_attention: block.masks[1],
                after_mlp: block.masks[2],
            })
        };
        let mut pass = take().expect("one slice for each tensor of the block");
        let linears = [&mut pass.fc1, &mut pass.fc2, &mut pass.qkv, &mut pass.out_proj];
        linears.into_par_iter().for_each(|linear| linear.lay_out(direction));
        pass
    }

    /// The sequences from `sample` on: x and y `(rows, hidden)`.
    pub fn forward(&self, sample: usize, x: &[f32], y: &mut [f32], buffers: &mut Buffers) -> Saved {
        let Buffers { attention, between, normal, ffn, .. } = buffers;
        let (seq, hidden) = (self.sizes.seq, self.sizes.hidden());
        let (rows, first) = (x.len() / hidden, sample * seq);
        let room = |width: usize| vec![0f32; rows * width];
        let (normal, ffn) = (&mut normal[..x.len()], &mut ffn[..rows * self.fc2.input]);
        let mut saved = Saved {
            qkv: room(3 * hidden),
            mixed: room(hidden),
            lse: room(self.sizes.heads),
            stream: room(hidden),
            wide: room(self.fc1.out),
        };
        self.norm1.forward(x, normal);
        self.qkv.forward(normal, first, &mut saved.qkv, between);
        for (number, qkv) in saved.qkv.chunks_exact(3 * seq * hidden).enumerate() {
            let mixed = &mut saved.mixed[number * seq * hidden..][..seq * hidden];
            let lse = &mut saved.lse[number * seq * self.sizes.heads..][..seq * self.sizes.heads];
            self.heads.forward(sample + number, self.sizes, qkv, mixed, lse, attention);
        }
        self.out_proj.forward(&saved.mixed, first, &mut saved.stream, between);
        mask(self.after_attention, &mut saved.stream, first * hidden);
        add(&mut saved.stream, x);
        self.norm2.forward(&saved.stream, normal);
        self.fc1.forward(normal, first, &mut saved.wide, between);
        activation::forward_rows(self.activation, &saved.wide, self.fc1.out, ffn);
        self.fc2.forward(ffn, first, y, between);
        mask(self.after_mlp, y, first * hidden);
        add(y, &saved.stream);
        saved
    }

    /// The gradient of [`Pass::forward`]: dX in `dx` `(rows, hidden)`, those of the parameters added to `grads`.
    pub fn backward(
        &self,
        sample: usize,
        (x, dy, saved): (&[f32], &[f32], &Saved),
        dx: &mut [f32],
        grads: &mut [f32],
        buffers: &mut Buffers,
    ) {
        let Buffers { attention, between, normal, other, masked, ffn, wide, dqkv, part, sums } = buffers;
        let (seq, hidden) = (self.sizes.seq, self.sizes.hidden());
        let (rows, first) = (x.len() / hidden, sample * seq);
        let [normal, other, masked] = [normal, other, masked].map(|room| &mut room[..x.len()]);
        let (ffn, wide) = (&mut ffn[..rows * self.fc2.input], &mut wide[..rows * self.fc1.out]);
        let dqkv = &mut dqkv[..3 * x.len()];
        // The MLP.
        let d = masked_copy(self.after_mlp, dy, masked, first * hidden);
        self.fc2.input_gradient(d, first, ffn, between);
        activation::backward_rows(self.activation, &saved.wide, self.fc1.out, ffn, wide);
        self.fc2.own_gradients(ffn, d, first, grads, between);
        self.norm2.forward(&saved.stream, normal);
        self.fc1.own_gradients(normal, wide, first, grads, between);
        self.fc1.input_gradient(wide, first, other, between);
        dx.copy_from_slice(dy);
        self.norm2.backward(&saved.stream, other, dx, grads, sums);
        // Attention.
        let d = masked_copy(self.after_attention, dx, masked, first * hidden);
        self.out_proj.own_gradients(&saved.mixed, d, first, grads, between);
        self.out_proj.input_gradient(d, first, other, between);
        for (number, dqkv) in dqkv.chunks_exact_mut(3 * seq * hidden).enumerate() {
            let own = number * seq * hidden..(number + 1) * seq * hidden;
            let lse = &saved.lse[number * seq * self.sizes.heads..][..seq * self.sizes.heads];
            let given = (&saved.mixed[own.clone()], &other[own], lse);
            let qkv = &saved.qkv[number * 3 * seq * hidden..][..3 * seq * hidden];
            self.heads.backward(sample + number, self.sizes, qkv, given, dqkv, part, attention);
        }
        self.norm1.forward(x, normal);
        self.qkv.own_gradients(normal, dqkv, first, grads, between);
        self.qkv.input_gradient(dqkv, first, other, between);
        self.norm1.backward(x, other, dx, grads, sums);
    }
}

fn mask(mask: Option<Mask>, values: &mut [f32], first: usize) {
    if let Some(mask) = mask {
        mask.apply(values, first as u64);
    }
}

/// `values` under the mask, in `room`; `values` themselves where there is none.
fn masked_copy<'a>(mask: Option<Mask>, values: &'a [f32], room: &'a mut [f32], first: usize) -> &'a [f32] {
    let Some(mask) = mask else { return values };
    room.copy_from_slice(values);
    mask.apply(room, first as u64);
    room
}
