//! Fresh weights.

use std::collections::BTreeMap;

use candle_core::{Device, Var};
use rand::Rng;
use rand::rngs::StdRng;

use crate::error::Result;
use crate::model::config::ArchConfig;

/// Standard deviation of every matrix (Radford et al. 2019).
const STD: f64 = 0.02;

/// Trainable weights under the checkpoint's keys: matrices normal(0, 0.02), those that write into the residual stream
/// (`out_proj`, `fc2`) scaled by 1/√(2 · layers) as in GPT-2, norms at one and zero.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for an impossible configuration; [`Error::Tensor`](crate::Error::Tensor).
pub fn init(config: &ArchConfig, rng: &mut StdRng, device: &Device) -> Result<BTreeMap<String, Var>> {
    config.check()?;
    let residual = STD / (2.0 * config.num_layers as f64).sqrt();
    let mut weights = BTreeMap::new();
    for (key, shape) in crate::model::checkpoint::expected_shapes(config) {
        let count = shape.iter().product();
        let values: Vec<f32> = if key.contains("norm") {
            vec![if key.ends_with("bias") { 0.0 } else { 1.0 }; count]
        } else {
            let std = if key.contains("out_proj") || key.contains("fc2") { residual } else { STD };
            normal(rng, count, std)
        };
        weights.insert(key, Var::from_vec(values, shape, device)?);
    }
    Ok(weights)
}

/// `count` draws from normal(0, std²), by Box and Muller (1958).
pub(crate) fn normal(rng: &mut StdRng, count: usize, std: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        values.extend([(std * radius * angle.cos()) as f32, (std * radius * angle.sin()) as f32]);
    }
    values.truncate(count);
    values
}
