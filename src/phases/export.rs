//! The adapter, the base, or the base with the adapter merged into it, in folders that other tools read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::DType;
use serde_json::json;

use crate::artifact;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::model::checkpoint;
use crate::model::lora::{self, Adapter};
use crate::model::starcoder2;
use crate::model::transformer::Transformer;
use crate::phases::base_model;
use crate::tokenizer::Tokenizer;

/// The adapter's name on the model, PEFT's own default.
const ADAPTER: &str = "default";

/// Copies the run's adapter (PEFT's layout) into `folder`.
///
/// # Errors
/// [`Error::Invalid`] when there is no adapter yet; [`Error::Io`] when the folder cannot be written.
pub fn adapter(exp: &Experiment, folder: &Path) -> Result<()> {
    let from = trained(exp)?;
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        copy(&from.join(name), &folder.join(name))?;
    }
    Ok(())
}

/// Writes the base with the run's adapter merged into it, W + α/r · B·A, as a base folder of its own.
///
/// # Errors
/// When the base or the adapter cannot be read, or the folder cannot be written.
pub fn merged(exp: &Experiment, folder: &Path) -> Result<()> {
    let (_, mut model, mut adapter) = adapted(exp)?;
    adapter.merge(&mut model)?;
    checkpoint::save_safetensors(&model.weights(), &folder.join("model.safetensors"), DType::F32, &BTreeMap::new())?;
    copy(&exp.arch_file(), &folder.join("arch.json"))?;
    copy(&exp.tokenizer_file(), &folder.join("tokenizer.json"))
}

/// Writes a model that `transformers` loads as `Starcoder2ForCausalLM`: the base with the run's adapter merged into it, or
/// the base as it is with the adapter for it in the folder `adapter`. Returns that folder; none when merged, or when
/// nothing has been trained yet.
///
/// # Errors
/// [`Error::Invalid`] when the architecture is none that Starcoder2 can express, or there is no adapter to merge; when
/// the base cannot be read or the folder cannot be written.
pub fn hugging_face(exp: &Experiment, folder: &Path, merged: bool) -> Result<Option<PathBuf>> {
    if !merged && !exp.adapter_folder().is_dir() {
        let (tokenizer, base) = base_model::open(exp)?;
        write_hugging_face(&base.model()?, &tokenizer, folder)?;
        return Ok(None);
    }
    let (tokenizer, mut model, mut adapter) = adapted(exp)?;
    if merged {
        adapter.merge(&mut model)?;
    }
    write_hugging_face(&model, &tokenizer, folder)?;
    if merged {
        return Ok(None);
    }
    let beside = folder.join("adapter");
    let base = folder.canonicalize().map_err(Error::io("read", folder))?;
    adapter.save_starcoder2(&beside, &base)?;
    Ok(Some(beside))
}

fn write_hugging_face(model: &Transformer, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    let (arch, eos, pad) = (model.config(), tokenizer.eos(), tokenizer.pad());
    // What cannot be expressed is refused before the first file is written.
    let config = starcoder2::config(arch, eos, pad)?;
    let weights = starcoder2::weights(&model.weights())?;
    let header = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    checkpoint::save_safetensors(&weights, &folder.join("model.safetensors"), DType::F32, &header)?;
    tokenizer.save(&folder.join("tokenizer.json"))?;
    let special = json!({
        "bos_token": tokenizer.token(eos), "eos_token": tokenizer.token(eos), "pad_token": tokenizer.token(pad),
    });
    let mut settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": arch.max_seq_length,
        "clean_up_tokenization_spaces": false,
        // The name of a special token within a user's text is ordinary text, as it is for us.
        "split_special_tokens": true,
    });
    if let (Some(settings), Some(special)) = (settings.as_object_mut(), special.as_object()) {
        settings.extend(special.clone());
    }
    artifact::write_json(&folder.join("special_tokens_map.json"), &special)?;
    artifact::write_json(&folder.join("tokenizer_config.json"), &settings)?;
    artifact::write_json(&folder.join("generation_config.json"), &starcoder2::generation_config(arch, eos, pad))?;
    artifact::write_json(&folder.join("config.json"), &config)
}

/// The base with the adapter that is measured on it: the run's own unless another is named.
fn adapted(exp: &Experiment) -> Result<(Tokenizer, Transformer, Adapter)> {
    let folder = trained(exp)?;
    let (tokenizer, base) = base_model::open(exp)?;
    let mut model = base.model()?;
    let adapter = lora::load_peft(&mut model, ADAPTER, &folder, &base.digest)?;
    Ok((tokenizer, model, adapter))
}

fn trained(exp: &Experiment) -> Result<PathBuf> {
    let folder = exp.adapter_folder();
    if folder.join("adapter_config.json").is_file() {
        return Ok(folder);
    }
    Err(Error::invalid(
        format!("there is no adapter in {}", folder.display()),
        format!("train one with `codelora train --experiment {}`", exp.file.display()),
    ))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).map_err(Error::io("read", from))?;
    artifact::write_atomic(to, |writer| writer.write_all(&bytes))
}
