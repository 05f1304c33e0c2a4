//! Weights in eight bits: on the disk half of f16, and f32 again when they are loaded.
//!
//! Each row of a matrix has a scale of its own, symmetric about zero (Dettmers et al. 2022, section 2.1, row-wise absmax):
//! s = max|w| / 127, q = round(w / s), stored as q + 128 because candle's safetensors know no signed bytes. A weight moves by
//! at most s / 2. Vectors (norms) stay f32. Not covered: computing in eight bits, which [`Linear`](super::linear::Linear) does
//! where asked to.

use std::collections::BTreeMap;

use candle_core::{D, DType, Tensor};

use crate::error::{Error, Result};

/// Ends the key of a matrix's scales, `(rows)` f32.
const SCALE: &str = ".scale";

/// What zero is stored as.
pub(super) const ZERO: u8 = 128;

/// A matrix `(rows, columns)` as u8, and its scales `(rows)`.
///
/// # Errors
/// [`Error::Tensor`].
pub(super) fn matrix(weight: &Tensor) -> Result<(Tensor, Tensor)> {
    let largest = weight.abs()?.max(D::Minus1)?; // (rows)
    // A row of zeros has any scale.
    let scale = (largest.maximum(f64::from(f32::MIN_POSITIVE) * 127.0)? / 127.0)?;
    let steps = weight.broadcast_div(&scale.unsqueeze(1)?)?.round()?;
    Ok(((steps + f64::from(ZERO))?.to_dtype(DType::U8)?, scale))
}

/// The inverse of [`matrix`], up to rounding.
///
/// # Errors
/// [`Error::Tensor`].
pub(super) fn restored(steps: &Tensor, scale: &Tensor) -> Result<Tensor> {
    Ok((steps.to_dtype(DType::F32)? - f64::from(ZERO))?.broadcast_mul(&scale.unsqueeze(1)?)?)
}

/// Matrices `(rows, columns)` as u8 with their scales beside them; everything else in f32.
///
/// # Errors
/// [`Error::Tensor`].
pub fn quantize(weights: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let mut stored = BTreeMap::new();
    for (key, weight) in weights {
        let weight = weight.to_dtype(DType::F32)?;
        if weight.rank() != 2 {
            stored.insert(key.clone(), weight);
            continue;
        }
        let (steps, scale) = matrix(&weight)?;
        stored.insert(key.clone(), steps);
        stored.insert(format!("{key}{SCALE}"), scale);
    }
    Ok(stored)
}

/// The inverse of [`quantize`], up to rounding. Weights that were never quantized pass through.
///
/// # Errors
/// [`Error::Mismatch`] when a matrix of bytes has no scales, or not one for each row; [`Error::Tensor`].
pub fn dequantize(mut stored: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let quantized: Vec<String> =
        stored.iter().filter(|(_, t)| t.dtype() == DType::U8).map(|(k, _)| k.clone()).collect();
    for key in quantized {
        let scale = stored.remove(&format!("{key}{SCALE}"));
        let bytes = &stored[&key];
        let scale = match scale {
            Some(scale) if bytes.rank() == 2 && scale.dims() == [bytes.dim(0)?] => scale,
            other => {
                return Err(Error::Mismatch {
                    what: format!("scales of {key} {:?}, which is stored in eight bits", bytes.dims()),
                    expected: format!("{key}{SCALE}, one for each row of a matrix"),
                    found: other.map_or("nothing".into(), |scale| format!("{:?}", scale.dims())),
                    remedy: "restore the file; bytes without scales are no weights".into(),
                });
            }
        };
        let weight = restored(bytes, &scale)?;
        stored.insert(key, weight);
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::init::normal;
    use crate::seed;

    #[test]
    fn a_weight_moves_by_half_a_step_at_most_and_vectors_not_at_all() {
        let rng = &mut seed::rng(1, "quantize");
        let mut values = normal(rng, 12 * 40, 0.3);
        values[..40].fill(0.0);
        let matrix = Tensor::from_vec(values, (12, 40), &Device::Cpu).unwrap();
        let vector = Tensor::from_vec(normal(rng, 40, 1.0), 40, &Device::Cpu).unwrap();
        let weights =
            BTreeMap::from([("a.weight".to_string(), matrix.clone()), ("norm.weight".into(), vector.clone())]);
        let stored = quantize(&weights).unwrap();
        assert_eq!(stored["a.weight"].dtype(), DType::U8);
        assert_eq!(stored.len(), 3);
        let back = dequantize(stored.clone()).unwrap();
        assert_eq!(back.len(), 2);
        let rows = |tensor: &Tensor| tensor.to_vec2::<f32>().unwrap();
        for (row, (was, is)) in rows(&matrix).iter().zip(rows(&back["a.weight"])).enumerate() {
            let step = was.iter().fold(0f32, |most, w| most.max(w.abs())) / 127.0;
            let moved = was.iter().zip(&is).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(moved <= step * 0.5001, "row {row} moved by {moved}, a step is {step}");
            assert!(row == 0 || moved > 0.0, "nothing was rounded");
        }
        assert_eq!(back["norm.weight"].to_vec1::<f32>().unwrap(), vector.to_vec1::<f32>().unwrap());
        // What is already on the grid stays where it is.
        let again = dequantize(quantize(&back).unwrap()).unwrap();
        let off = (&again["a.weight"] - &back["a.weight"]).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-6);
        let mut torn = stored;
        torn.remove("a.weight.scale");
        assert!(dequantize(torn).unwrap_err().to_string().contains("a.weight.scale"));
    }
}
