//! Gradients beside candle's graph.
//!
//! candle lets an operation have three inputs at most, makes a tensor of zeros for the gradient of each, and adds the gradient to
//! it. A block has dozens of trained tensors: to bring them in as one vector would copy all of them at each step, twice. So they
//! stay out of the graph. The operation's backward pass leaves their gradients here, and [`backward`] puts them to those that
//! candle found.

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

thread_local! {
    /// What the backward pass that runs on this thread has left so far; none outside of [`backward`].
    static LEFT: RefCell<Option<Vec<(Tensor, Tensor)>>> = const { RefCell::new(None) };
}

/// The gradients of `loss`, those that operations left beside the graph among them. candle's own `backward` is an error for a
/// loss that has such: none is lost in silence.
///
/// # Errors
/// The tensor library's.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let outer = LEFT.replace(Some(Vec::new()));
    let found = loss.backward();
    let left = LEFT.replace(outer).unwrap_or_default();
    let mut found = found?;
    for (tensor, gradient) in left {
        let sum = match found.remove(&tensor) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        found.insert(&tensor, sum);
    }
    Ok(found)
}

/// Leaves the gradients of tensors for [`backward`].
///
/// # Errors
/// Outside of it.
pub(super) fn leave(gradients: Vec<(Tensor, Tensor)>) -> Result<()> {
    LEFT.with_borrow_mut(|left| match left {
        Some(left) => {
            left.extend(gradients);
            Ok(())
        }
        None => candle_core::bail!("a block's weights lie beside the graph: take the gradients with `ops::backward`"),
    })
}
