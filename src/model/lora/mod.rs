//! Low-rank adaptation of linear layers (Hu et al. 2021): `y = W·x + scale · B·A·x` with W frozen.
//!
//! Covered: targets by name and preset, rank and alpha per target, rank-stabilised scale (Kalajdzievski 2023), DoRA (Liu et
//! al. 2024), dropout in training only, merge and unmerge as an inverse pair, several named adapters on one base. A is
//! kaiming-uniform and B zero, so a fresh adapter changes nothing, to the bit.
//!
//! The learning-rate ratio of LoRA+ (Hayou et al. 2024) is the optimiser's: it reads `lora_B` in a parameter's name.

mod peft;
mod starcoder2;
mod targets;

pub use peft::load_peft;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{D, DType, Device, Tensor, TensorId, Var};
use rand::Rng;
use rand::rngs::StdRng;

use crate::error::{Error, Result};
use crate::experiment::LoraConfig;
use crate::model::dropout::Dropout;
use crate::model::linear::Linear;
use crate::model::ops;
use crate::model::transformer::Transformer;

/// The update of one linear layer.
#[derive(Debug)]
pub struct LoraLayer {
    /// A, `(rank, in)`.
    pub a: Var,
    /// B, `(out, rank)`.
    pub b: Var,
    /// DoRA's magnitudes, `(out)`: the row norms of the adapted matrix.
    pub magnitude: Option<Var>,
    /// α/r, or α/√r when rank-stabilised.
    pub scale: f64,
    dropout: f64,
    enabled: AtomicBool,
}

impl LoraLayer {
    /// Whether the update is added.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Rank of the update.
    pub fn rank(&self) -> usize {
        self.a.dims()[0]
    }

    /// The update scale · B·A, `(out, in)`.
    fn delta(&self) -> Result<Tensor> {
        Ok((self.b.as_tensor().matmul(self.a.as_tensor())? * self.scale)?)
    }

    /// DoRA's factor per output, m / ‖W + scale · B·A‖ by row, `(out)`. The norm is a constant to the gradient (Liu et al.
    /// 2024, section 4.3).
    fn row_factor(&self, weight: &Tensor, magnitude: &Var) -> Result<Tensor> {
        let norm = row_norm(&(weight + self.delta()?.detach())?)?;
        Ok(magnitude.as_tensor().div(&norm.detach())?)
    }

    /// Adds the update to `y = W·x`: x `(…, in)`, y `(…, out)`.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub(crate) fn forward(&self, x: &Tensor, y: Tensor, weight: &Tensor, dropout: &mut Dropout) -> Result<Tensor> {
        let mask = dropout.mask(self.dropout);
        let dropped = match mask {
            Some(mask) => ops::dropout(x, mask)?,
            None => x.clone(),
        };
        let update = ops::linear(&ops::linear(&dropped, self.a.as_tensor())?, self.b.as_tensor())?; // (…, out)
        let update = (update * self.scale)?;
        let Some(magnitude) = &self.magnitude else { return Ok((y + update)?) };
        let factor = self.row_factor(weight, magnitude)?.to_dtype(y.dtype())?; // (out)
        // With dropout the base's share of the correction sees the dropped input too, as in PEFT.
        let base = if mask.is_some() { ops::linear(&dropped, weight)? } else { y.clone() };
        let correction = base.broadcast_mul(&(&factor - 1.0)?)?;
        Ok(((y + correction)? + update.broadcast_mul(&factor)?)?)
    }

    /// The update as one operation takes it, without DoRA's magnitudes.
    pub(crate) fn update(&self, dropout: &mut Dropout) -> ops::Update {
        let (a, b) = (self.a.as_tensor().clone(), self.b.as_tensor().clone());
        ops::Update { a, b, scale: self.scale, mask: dropout.mask(self.dropout) }
    }

    /// The adapted matrix, `(out, in)`: W + scale · B·A in double precision (under DoRA each row at its magnitude), rounded to
    /// the weight's type once, so that every entry is the nearest there is.
    fn merged(&self, weight: &Tensor) -> Result<Tensor> {
        let double = |tensor: &Tensor| tensor.to_dtype(DType::F64);
        let delta = double(&self.b)?.matmul(&double(&self.a)?)?;
        let mut sum = (double(weight)? + (delta * self.scale)?)?;
        if let Some(magnitude) = &self.magnitude {
            let factor = double(magnitude)?.div(&row_norm(&sum)?)?; // (out)
            sum = sum.broadcast_mul(&factor.unsqueeze(1)?)?;
        }
        Ok(sum.to_dtype(weight.dtype())?.detach())
    }
}

/// Euclidean norm of each row of `(out, in)`: `(out)`.
fn row_norm(weight: &Tensor) -> Result<Tensor> {
    Ok(weight.sqr()?.sum(D::Minus1)?.sqrt()?)
}

/// One adapter on one model: what is trained, merged, switched and saved.
#[derive(Debug)]
pub struct Adapter {
    name: String,
    config: LoraConfig,
    /// By the name of the linear layer.
    layers: BTreeMap<String, Arc<LoraLayer>>,
    /// What a merge replaced, by the name of the linear layer.
    merged: BTreeMap<String, Merged>,
    /// Whether the updates were added before the merge.
    enabled_before: bool,
}

/// A matrix that a merge replaced, and the one it put there.
#[derive(Debug)]
struct Merged {
    original: Tensor,
    replacement: TensorId,
}

/// Attaches a fresh adapter named `default` and freezes the base.
///
/// # Errors
/// [`Error::Invalid`] for a target that does not exist (the names that do are listed), a rank of 0 or above the layer's
/// size, a pattern that names no target; [`Error::Tensor`].
pub fn attach(model: &mut Transformer, config: &LoraConfig, rng: &mut StdRng) -> Result<Adapter> {
    attach_named(model, "default", config, rng)
}

/// Attaches a fresh adapter under a name of its own; several may sit on one base, and their updates add up.
///
/// # Errors
/// As [`attach`].
pub fn attach_named(model: &mut Transformer, name: &str, config: &LoraConfig, rng: &mut StdRng) -> Result<Adapter> {
    let targets = targets::of(model, config)?;
    model.freeze();
    let device = model.device().clone();
    let mut layers = BTreeMap::new();
    for linear in model.linears_mut() {
        let Some(&(rank, alpha)) = targets.get(linear.name()) else { continue };
        let layer = Arc::new(fresh_layer(linear, rank, alpha, config, rng, &device)?);
        linear.adapters_mut().push(layer.clone());
        layers.insert(linear.name().to_string(), layer);
    }
    Ok(Adapter { name: name.into(), config: config.clone(), layers, merged: BTreeMap::new(), enabled_before: true })
}

fn fresh_layer(
    linear: &Linear,
    rank: usize,
    alpha: f64,
    config: &LoraConfig,
    rng: &mut StdRng,
    device: &Device,
) -> Result<LoraLayer> {
    let (output, input) = linear.weight().dims2()?;
    // Kaiming-uniform with a = √5 (He et al. 2015): the bound √6 / √((1 + 5) · fan_in) is 1/√fan_in.
    let bound = 1.0 / (input as f32).sqrt();
    let a: Vec<f32> = (0..rank * input).map(|_| rng.random_range(-bound..bound)).collect();
    Ok(LoraLayer {
        a: Var::from_vec(a, (rank, input), device)?,
        b: Var::zeros((output, rank), DType::F32, device)?,
        magnitude: config.dora.then(|| Ok::<_, Error>(Var::from_tensor(&row_norm(linear.weight())?)?)).transpose()?,
        scale: if config.rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 },
        dropout: config.dropout,
        enabled: AtomicBool::new(true),
    })
}

impl Adapter {
    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The configuration it was attached with.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The updates by the name of the linear layer.
    pub fn layers(&self) -> &BTreeMap<String, Arc<LoraLayer>> {
        &self.layers
    }

    /// What is trained, under PEFT's names: `base_model.model.<layer>.lora_A.weight` `(rank, in)`, `….lora_B.weight`
    /// `(out, rank)` and, under DoRA, `….lora_magnitude_vector` `(out)`.
    pub fn parameters(&self) -> BTreeMap<String, Var> {
        let mut parameters = BTreeMap::new();
        for (name, layer) in &self.layers {
            let prefix = format!("base_model.model.{name}");
            parameters.insert(format!("{prefix}.lora_A.weight"), layer.a.clone());
            parameters.insert(format!("{prefix}.lora_B.weight"), layer.b.clone());
            if let Some(magnitude) = &layer.magnitude {
                parameters.insert(format!("{prefix}.lora_magnitude_vector"), magnitude.clone());
            }
        }
        parameters
    }

    /// Numbers that are trained.
    pub fn parameter_count(&self) -> usize {
        self.parameters().values().map(|var| var.elem_count()).sum()
    }

    /// Adds the updates, or leaves the base alone. Without effect on a merged adapter.
    pub fn set_enabled(&self, enabled: bool) {
        for layer in self.layers.values() {
            layer.enabled.store(enabled && self.merged.is_empty(), Ordering::Relaxed);
        }
    }

    /// Whether the updates stand in the base's matrices.
    pub fn is_merged(&self) -> bool {
        !self.merged.is_empty()
    }

    /// Writes the updates into the model's matrices: the same outputs without the adapter's work.
    ///
    /// # Errors
    /// [`Error::Invalid`] when merged already; [`Error::Tensor`].
    pub fn merge(&mut self, model: &mut Transformer) -> Result<()> {
        if self.is_merged() {
            return Err(Error::invalid(format!("adapter {} is merged already", self.name), "unmerge it first"));
        }
        let mut merged = BTreeMap::new();
        for linear in model.linears_mut() {
            let Some(layer) = self.layers.get(linear.name()) else { continue };
            let (original, replacement) = (linear.weight().clone(), layer.merged(linear.weight())?);
            merged.insert(linear.name().to_string(), Merged { original, replacement: replacement.id() });
            linear.set_weight(replacement);
        }
        self.enabled_before = self.layers.values().all(|layer| layer.is_enabled());
        self.set_enabled(false);
        self.merged = merged;
        Ok(())
    }

    /// Puts the matrices back that [`Adapter::merge`] replaced: the base is what it was, to the bit, and the adapter on or off as it
    /// was.
    ///
    /// # Errors
    /// [`Error::Invalid`] when not merged, or when another adapter was merged after it and not yet unmerged.
    pub fn unmerge(&mut self, model: &mut Transformer) -> Result<()> {
        if !self.is_merged() {
            return Err(Error::invalid(format!("adapter {} is not merged", self.name), "merge it first"));
        }
        let is_on_top =
            |linear: &&Linear| self.merged.get(linear.name()).is_none_or(|m| m.replacement == linear.weight().id());
        if let Some(covered) = model.linears().into_iter().find(|linear| !is_on_top(linear)) {
            let what = format!("{} was changed after adapter {} was merged into it", covered.name(), self.name);
            return Err(Error::invalid(what, "unmerge in the reverse order of merging"));
        }
        for linear in model.linears_mut() {
            if let Some(Merged { original, .. }) = self.merged.remove(linear.name()) {
                linear.set_weight(original);
            }
        }
        self.set_enabled(self.enabled_before);
        Ok(())
    }

    /// Takes the adapter off the model (unmerging it if need be) and gives it back, still loaded.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn detach(&mut self, model: &mut Transformer) -> Result<()> {
        if self.is_merged() {
            self.unmerge(model)?;
        }
        for linear in model.linears_mut() {
            if let Some(layer) = self.layers.get(linear.name()) {
                linear.adapters_mut().retain(|other| !Arc::ptr_eq(other, layer));
            }
        }
        Ok(())
    }
}
