//! A linear layer that adapters can be attached to.

use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::error::Result;
use crate::model::dropout::Dropout;
use crate::model::lora::LoraLayer;
use crate::model::{ops, quantize};

/// `y = x · Wᵀ` plus the updates of its adapters; no bias.
#[derive(Debug)]
pub struct Linear {
    /// The layer's name, e.g. `layers.0.attn.qkv`.
    name: String,
    /// `(out, in)`. Trainable when it is a variable.
    weight: Tensor,
    /// Of the weight, for as long as it stays.
    layouts: Arc<ops::Layouts>,
    /// The weight in eight bits, where few rows are to be multiplied with that.
    bytes: Option<Arc<ops::Bytes>>,
    adapters: Vec<Arc<LoraLayer>>,
}

impl Linear {
    /// Takes `weight` `(out, in)` from the builder.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) when it is missing or of another shape.
    pub fn new(input: usize, output: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self::from_weight(vb.prefix(), vb.get((output, input), "weight")?))
    }

    /// Wraps a matrix `(out, in)`.
    pub fn from_weight(name: String, weight: Tensor) -> Self {
        Self { name, weight, layouts: Arc::default(), bytes: None, adapters: Vec::new() }
    }

    /// The layer's name, e.g. `layers.0.attn.qkv`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The matrix `(out, in)`, without unmerged adapters.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Replaces the matrix; the shape must stay.
    pub(crate) fn set_weight(&mut self, weight: Tensor) {
        self.weight = weight;
        self.layouts = Arc::default();
        self.bytes = None;
    }

    /// Rounds the matrix to eight bits ([`quantize`]): few rows are multiplied with the bytes, many with what they stand for.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor).
    pub(crate) fn round_to_bytes(&mut self) -> Result<()> {
        let (steps, scale) = quantize::matrix(&self.weight)?;
        self.set_weight(quantize::restored(&steps, &scale)?);
        self.bytes = Some(Arc::new(ops::Bytes::new(&steps, quantize::ZERO, &scale)?));
        Ok(())
    }

    /// The attached adapters.
    pub(crate) fn adapters_mut(&mut self) -> &mut Vec<Arc<LoraLayer>> {
        &mut self.adapters
    }

    /// Whether this is a matrix and at most one plain low-rank update of it: what [`ops::block`] knows.
    pub(crate) fn is_plain(&self) -> bool {
        let mut enabled = self.adapters.iter().filter(|adapter| adapter.is_enabled());
        enabled.next().is_none_or(|adapter| adapter.magnitude.is_none()) && enabled.next().is_none()
    }

    /// Whether no adapter is at work.
    pub(crate) fn is_bare(&self) -> bool {
        !self.adapters.iter().any(|adapter| adapter.is_enabled())
    }

    /// The matrix and the update of the adapter that is enabled, with this pass's mask.
    pub(crate) fn projection(&self, dropout: &mut Dropout) -> ops::Projection {
        let adapter = self.adapters.iter().find(|adapter| adapter.is_enabled());
        ops::Projection {
            weight: self.weight.clone(),
            layouts: self.layouts.clone(),
            update: adapter.map(|adapter| adapter.update(dropout)),
        }
    }

    /// Mean cross-entropy of the bare matrix's outputs for `x` `(n, in)`, see [`ops::head_loss`].
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor).
    pub(crate) fn loss(&self, x: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
        Ok(ops::head_loss(x, &self.weight, &self.layouts, targets, smoothing)?)
    }

    /// `(…, in)` to `(…, out)`.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor).
    pub fn forward(&self, x: &Tensor, dropout: &mut Dropout) -> Result<Tensor> {
        let mut y = match &self.bytes {
            Some(bytes) => ops::linear_bytes(x, bytes, &self.weight, &self.layouts)?,
            None => ops::linear_kept(x, &self.weight, &self.layouts)?,
        };
        for adapter in self.adapters.iter().filter(|adapter| adapter.is_enabled()) {
            y = adapter.forward(x, y, &self.weight, dropout)?;
        }
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::model::init::normal;

    #[test]
    fn another_matrix_takes_effect_at_once() -> Result<()> {
        let x = Tensor::ones((8, 3), DType::F32, &Device::Cpu)?;
        let matrix = |value: f32| Tensor::full(value, (2, 3), &Device::Cpu);
        let mut linear = Linear::from_weight("one".into(), matrix(1.0)?);
        let first = |linear: &Linear| -> Result<f32> {
            Ok(linear.forward(&x, &mut Dropout::off())?.flatten_all()?.to_vec1::<f32>()?[0])
        };
        assert_eq!(first(&linear)?, 3.0);
        linear.set_weight(matrix(2.0)?);
        assert_eq!(first(&linear)?, 6.0);
        Ok(())
    }

    #[test]
    fn few_rows_and_many_meet_the_same_rounded_matrix() -> Result<()> {
        let mut rng = crate::seed::rng(1, "bytes");
        // 70 columns: a block of 64 and a rest; 300 × 70 by 40 rows and by one.
        let mut random = |rows: usize, columns: usize| {
            Tensor::from_vec(normal(&mut rng, rows * columns, 0.3), (rows, columns), &Device::Cpu)
        };
        let (matrix, x) = (random(300, 70)?, random(40, 70)?);
        let mut linear = Linear::from_weight("one".into(), matrix.clone());
        linear.round_to_bytes()?;
        let many = linear.forward(&x, &mut Dropout::off())?;
        let exact = x.to_dtype(DType::F64)?.matmul(&linear.weight().to_dtype(DType::F64)?.t()?)?;
        let far = |a: &Tensor, b: &Tensor| -> Result<f64> {
            Ok((a.to_dtype(DType::F64)? - b)?.abs()?.max_all()?.to_scalar()?)
        };
        assert!(far(&many, &exact)? < 1e-5);
        for row in 0..40 {
            let one = linear.forward(&x.narrow(0, row, 1)?, &mut Dropout::off())?;
            assert!(far(&one, &exact.narrow(0, row, 1)?)? < 1e-5, "row {row}");
        }
        // And it was rounded: by half a step at most.
        let moved = far(linear.weight(), &matrix.to_dtype(DType::F64)?)?;
        let step = matrix.abs()?.max_all()?.to_scalar::<f32>()? / 127.0;
        assert!(moved > 1e-5 && moved < f64::from(step) * 0.5001, "{moved}");
        linear.set_weight(matrix.clone());
        let exact = x.to_dtype(DType::F64)?.matmul(&matrix.to_dtype(DType::F64)?.t()?)?;
        assert!(far(&linear.forward(&x.narrow(0, 0, 1)?, &mut Dropout::off())?, &exact.narrow(0, 0, 1)?)? < 1e-5);
        Ok(())
    }
}
