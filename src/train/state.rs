//! A run's state on disk: weights, moments, average and position in one safetensors file, replaced atomically.
//!
//! Batches and dropout masks are functions of the seed and the step, so the step is the whole position of the data and
//! of the generators. What is saved is enough to go on to the bit.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};
use crate::train::average::Average;
use crate::train::metrics::number_or_nan;
use crate::train::optimizer::Optimizer;

/// The key of the header under which the position is stored.
const POSITION: &str = "codelora.position";

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Steps taken.
    pub step: usize,
    /// Digest of everything the run depends on, apart from its number of steps.
    pub digest: String,
    /// The number of steps the learning rate was planned for.
    pub planned_steps: usize,
    /// The share of the steps, the last ones, that was planned to be averaged.
    #[serde(default)]
    pub average_last: f64,
    /// Steps averaged so far.
    #[serde(default)]
    pub averaged: usize,
    /// Supervised tokens seen.
    pub tokens_seen: usize,
    /// Wall time so far, in seconds.
    pub seconds: f64,
    /// The step with the best validation so far, and how many evaluations have passed since.
    pub best: Option<Best>,
}

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Its step.
    pub step: usize,
    /// Its pass rate on generated code; 0 where none was checked.
    pub pass_rate: f64,
    /// Its validation loss in nats/token; not a number where nothing is held out.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f64,
    /// Evaluations since without improvement.
    pub since: usize,
}

impl Best {
    /// Whether a later evaluation is better: it passes more, or as much at a lower loss. Where nothing is held out, the later one is.
    pub fn is_beaten_by(&self, pass_rate: f64, loss: f64) -> bool {
        pass_rate > self.pass_rate || (pass_rate == self.pass_rate && (loss < self.loss || self.loss.is_nan()))
    }
}

/// Writes the state, atomically.
///
/// # Errors
/// [`Error::Io`], [`Error::Tensor`].
pub fn save(
    path: &Path,
    parameters: &BTreeMap<String, Var>,
    optimizer: &Optimizer,
    average: &Average,
    position: &Position,
) -> Result<()> {
    let mut tensors = optimizer.state()?;
    tensors.append(&mut average.state()?);
    for (name, variable) in parameters {
        tensors.insert(format!("weight.{name}"), variable.as_tensor().to_device(&Device::Cpu)?);
    }
    let position = serde_json::to_string(position).map_err(|e| Error::io("write", path)(e.into()))?;
    let header = HashMap::from([(POSITION.to_string(), position)]);
    let bytes = safetensors::serialize(&tensors, Some(header)).map_err(|e| {
        Error::invalid(format!("the state cannot be serialised: {e}"), "report this: names and shapes are our own")
    })?;
    artifact::write_atomic(path, |writer| writer.write_all(&bytes))
}

/// Reads where a saved run stands.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`].
pub fn position(path: &Path) -> Result<Position> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    parse_position(path, &bytes)
}

fn parse_position(path: &Path, bytes: &[u8]) -> Result<Position> {
    let broken = |what: String| {
        Error::malformed(path, None, what, "delete the file to start anew, or restore it from a copy of the run")
    };
    let (_, header) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| broken(e.to_string()))?;
    let text = header.metadata().as_ref().and_then(|m| m.get(POSITION));
    let text = text.ok_or_else(|| broken("this safetensors file is not a training state".into()))?;
    serde_json::from_str(text).map_err(|e| broken(e.to_string()))
}

/// Restores weights and moments, and returns the position and the average.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`]; [`Error::Mismatch`] when the digest, a name or a shape differs.
pub fn restore(
    path: &Path,
    parameters: &BTreeMap<String, Var>,
    optimizer: &mut Optimizer,
    digest: &str,
) -> Result<(Position, Average)> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let position = parse_position(path, &bytes)?;
    if position.digest != digest {
        return Err(Error::Mismatch {
            what: format!("digest of the run saved in {}", path.display()),
            expected: digest.into(),
            found: position.digest,
            remedy: "resume with the experiment file of that run, or use --force to start anew".into(),
        });
    }
    let mut tensors: BTreeMap<String, Tensor> =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?.into_iter().collect();
    for (name, variable) in parameters {
        let weight = tensors.remove(&format!("weight.{name}"));
        match weight {
            Some(weight) if weight.shape() == variable.shape() => {
                variable.set(&weight.to_device(variable.device())?)?;
            }
            other => {
                return Err(Error::Mismatch {
                    what: format!("shape of {name} in {}", path.display()),
                    expected: format!("{:?}", variable.shape()),
                    found: other.map_or("nothing".into(), |w| format!("{:?}", w.shape())),
                    remedy: "resume with the architecture and adapter of the saved run, or start anew".into(),
                });
            }
        }
    }
    optimizer.restore(&tensors, position.step)?;
    let average = Average::restore(&tensors, parameters, position.averaged)?;
    Ok((position, average))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_more_is_better_and_the_loss_breaks_ties() {
        let best = Best { step: 10, pass_rate: 0.5, loss: 1.0, since: 0 };
        assert!(best.is_beaten_by(0.6, 9.0), "more passes, whatever the loss");
        assert!(!best.is_beaten_by(0.4, 0.1), "fewer passes, whatever the loss");
        assert!(best.is_beaten_by(0.5, 0.9) && !best.is_beaten_by(0.5, 1.0) && !best.is_beaten_by(0.5, 1.1));
        assert!(!best.is_beaten_by(0.5, f64::NAN));
        let unknown = Best { loss: f64::NAN, ..best };
        assert!(unknown.is_beaten_by(0.5, f64::NAN) && !unknown.is_beaten_by(0.4, f64::NAN), "the later one");
        let written = serde_json::to_string(&unknown).unwrap();
        assert!(serde_json::from_str::<Best>(&written).unwrap().loss.is_nan(), "{written}");
    }
}
