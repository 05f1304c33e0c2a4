//! Adapters in the files of PEFT: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! PEFT only warns when no key matches, so a loaded adapter is held against the model here: every key must be there, none
//! may be left over, and the digest of the base, kept in the header of the weights, must be the base's.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::targets::matches;
use super::{Adapter, attach_named};
use crate::artifact;
use crate::error::{Error, Result};
use crate::experiment::LoraConfig;
use crate::model::checkpoint;
use crate::model::linear::Linear;
use crate::model::transformer::Transformer;

/// The header field that names the base.
const BASE_DIGEST: &str = "base_sha256";
/// The header field that keeps the optimiser's ratio, which PEFT has no place for.
const LR_RATIO: &str = "lr_ratio";

/// The part of `adapter_config.json` that we write and read; PEFT's other keys are ignored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PeftConfig {
    pub(super) peft_type: String,
    #[serde(default)]
    pub(super) task_type: Option<String>,
    pub(super) r: usize,
    pub(super) lora_alpha: f64,
    #[serde(default)]
    pub(super) lora_dropout: f64,
    pub(super) target_modules: Vec<String>,
    #[serde(default)]
    pub(super) use_rslora: bool,
    #[serde(default)]
    pub(super) use_dora: bool,
    /// By pattern, in the order of the file: where several match a layer, PEFT takes the first.
    #[serde(default)]
    pub(super) rank_pattern: Map<String, Value>,
    #[serde(default)]
    pub(super) alpha_pattern: Map<String, Value>,
    #[serde(default = "no_bias")]
    pub(super) bias: String,
    #[serde(default)]
    pub(super) fan_in_fan_out: bool,
    #[serde(default)]
    pub(super) inference_mode: bool,
    #[serde(default)]
    pub(super) base_model_name_or_path: Option<String>,
}

fn no_bias() -> String {
    "none".into()
}

impl Adapter {
    /// Writes the adapter as PEFT does, f32, with the base's digest in the weights' header.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Tensor`].
    pub fn save_peft(&self, folder: &Path, base_digest: &str) -> Result<()> {
        let config = PeftConfig {
            rank_pattern: self.config.rank_pattern.iter().map(|(name, &rank)| (name.clone(), rank.into())).collect(),
            alpha_pattern: self
                .config
                .alpha_pattern
                .iter()
                .map(|(name, &alpha)| (name.clone(), alpha.into()))
                .collect(),
            ..self.peft_config(self.layers.keys().cloned().collect())
        };
        let tensors = self.parameters().into_iter().map(|(key, var)| (key, var.as_detached_tensor())).collect();
        let header = BTreeMap::from([
            (BASE_DIGEST.to_string(), base_digest.to_string()),
            (LR_RATIO.to_string(), self.config.lr_ratio.to_string()),
        ]);
        write(folder, &config, &tensors, header)
    }

    /// The configuration over modules of these names, without patterns.
    pub(super) fn peft_config(&self, modules: Vec<String>) -> PeftConfig {
        // A target that names single layers must stay a full name: the last part would name its siblings too.
        let whole = self.config.targets.iter().any(|target| target.contains('.'));
        let last = |name: &String| name.rsplit('.').next().unwrap_or(name).to_string();
        let mut targets = if whole { modules } else { modules.iter().map(last).collect() };
        targets.sort_unstable();
        targets.dedup();
        PeftConfig {
            peft_type: "LORA".into(),
            task_type: None,
            r: self.config.rank,
            lora_alpha: self.config.alpha,
            lora_dropout: self.config.dropout,
            target_modules: targets,
            use_rslora: self.config.rslora,
            use_dora: self.config.dora,
            rank_pattern: Map::new(),
            alpha_pattern: Map::new(),
            bias: no_bias(),
            fan_in_fan_out: false,
            inference_mode: true,
            base_model_name_or_path: None,
        }
    }
}

/// Writes the two files of an adapter.
pub(super) fn write(
    folder: &Path,
    config: &PeftConfig,
    tensors: &BTreeMap<String, Tensor>,
    mut header: BTreeMap<String, String>,
) -> Result<()> {
    header.insert("format".into(), "pt".into());
    checkpoint::save_safetensors(tensors, &folder.join("adapter_model.safetensors"), DType::F32, &header)?;
    artifact::write_json(&folder.join("adapter_config.json"), config)
}

/// Attaches an adapter that [`Adapter::save_peft`] or PEFT wrote. An adapter of PEFT carries no digest and is taken as
/// it is.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`]; [`Error::Mismatch`] when it was trained on another base, or when keys are missing,
/// left over or of another shape; [`Error::Invalid`] as [`attach_named`].
pub fn load_peft(model: &mut Transformer, name: &str, folder: &Path, base_digest: &str) -> Result<Adapter> {
    let config_file = folder.join("adapter_config.json");
    let peft: PeftConfig = artifact::read_json(&config_file)?;
    for (wrong, what) in [
        (peft.peft_type != "LORA", format!("peft_type {}", peft.peft_type)),
        (peft.bias != "none", format!("bias {}", peft.bias)),
        (peft.fan_in_fan_out, "fan_in_fan_out".into()),
    ] {
        if wrong {
            return Err(Error::malformed(&config_file, None, format!("{what} is not supported"), "train a plain LoRA"));
        }
    }
    let weights_file = folder.join("adapter_model.safetensors");
    let header = checkpoint::read_header(&weights_file)?;
    if let Some(found) = header.get(BASE_DIGEST).filter(|found| *found != base_digest) {
        return Err(Error::Mismatch {
            what: format!("base of the adapter in {}", folder.display()),
            expected: base_digest.into(),
            found: found.clone(),
            remedy: "load the base that the adapter was trained on, or train it anew".into(),
        });
    }
    let config = LoraConfig {
        rank: peft.r,
        alpha: peft.lora_alpha,
        dropout: peft.lora_dropout,
        targets: peft.target_modules,
        rslora: peft.use_rslora,
        dora: peft.use_dora,
        lr_ratio: header.get(LR_RATIO).and_then(|ratio| ratio.parse().ok()).unwrap_or(1.0),
        rank_pattern: by_layer(model, peft.rank_pattern, &config_file)?,
        alpha_pattern: by_layer(model, peft.alpha_pattern, &config_file)?,
    };
    let mut tensors = checkpoint::read_safetensors(&weights_file, &Device::Cpu)?;
    // The fresh values are overwritten, so their seed does not matter.
    let mut adapter = attach_named(model, name, &config, &mut StdRng::seed_from_u64(0))?;
    let filled = fill(&adapter, &mut tensors, &weights_file);
    if filled.is_err() {
        adapter.detach(model)?;
    }
    filled.map(|()| adapter)
}

/// The value of the first pattern that names it, by layer; a pattern that names none is kept, so that it is told.
fn by_layer<T: DeserializeOwned + Copy>(
    model: &Transformer,
    patterns: Map<String, Value>,
    file: &Path,
) -> Result<BTreeMap<String, T>> {
    let mut found = BTreeMap::new();
    for (pattern, value) in patterns {
        let read = serde_json::from_value(value);
        let value: T = read.map_err(|e| Error::malformed(file, None, format!("{pattern}: {e}"), "write a number"))?;
        let named = model.linears().into_iter().map(Linear::name).filter(|name| matches(name, &pattern));
        let mut names: Vec<String> = named.map(String::from).collect();
        if names.is_empty() {
            names.push(pattern);
        }
        for name in names {
            found.entry(name).or_insert(value);
        }
    }
    Ok(found)
}

/// Sets every parameter from `tensors`, which must match them exactly.
fn fill(adapter: &Adapter, tensors: &mut BTreeMap<String, Tensor>, file: &Path) -> Result<()> {
    let mut faults = Vec::new();
    let parameters = adapter.parameters();
    for (key, var) in &parameters {
        match tensors.remove(key) {
            None => faults.push(format!("missing {key} {:?}", var.dims())),
            Some(tensor) if tensor.dims() != var.dims() => {
                faults.push(format!("{key} is {:?}, expected {:?}", tensor.dims(), var.dims()));
            }
            Some(tensor) => var.set(&tensor.to_dtype(DType::F32)?.to_device(var.device())?)?,
        }
    }
    faults.extend(tensors.keys().map(|key| format!("unexpected {key}")));
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::Mismatch {
        what: format!("adapter weights in {}", file.display()),
        expected: format!("the {} tensors of its configuration", parameters.len()),
        found: format!("{} faults:\n    {}", faults.len(), faults.join("\n    ")),
        remedy: "use the adapter_config.json that was saved with these weights".into(),
    })
}
