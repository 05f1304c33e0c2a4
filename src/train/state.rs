//! A run's state on disk: weights, moments and position in one safetensors file, replaced atomically.
//!
//! Batches and dropout masks are functions of the seed and the step, so the step is the whole position of the data and
//! of the generators. What is saved is enough to go on to the bit.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};
use crate::train::optimizer::AdamW;

/// The key of the header under which the position is stored.
const POSITION: &str = "codelora.position";

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Steps taken.
    pub step: usize,
    /// Digest of everything the run depends on, apart from its number of steps.
    pub digest: String,
    /// The number of steps the learning rate was planned for.
    pub planned_steps: usize,
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
    /// Its validation loss in nats/token.
    pub loss: f64,
    /// Evaluations since without improvement.
    pub since: usize,
}

/// Writes the state, atomically.
///
/// # Errors
/// [`Error::Io`], [`Error::Tensor`].
pub fn save(path: &Path, parameters: &BTreeMap<String, Var>, optimizer: &AdamW, position: &Position) -> Result<()> {
    let mut tensors = optimizer.state()?;
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

/// Restores weights and moments and returns the position.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`]; [`Error::Mismatch`] when the digest, a name or a shape differs.
pub fn restore(
    path: &Path,
    parameters: &BTreeMap<String, Var>,
    optimizer: &mut AdamW,
    digest: &str,
) -> Result<Position> {
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
    Ok(position)
}
