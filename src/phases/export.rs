//! The adapter, or the base with the adapter merged into it, in folders that other tools read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device};

use crate::artifact;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::model::{checkpoint, lora};

/// Copies the run's adapter (PEFT's layout) into `folder`.
///
/// # Errors
/// [`Error::Io`] when there is no adapter yet or the folder cannot be written.
pub fn adapter(exp: &Experiment, folder: &Path) -> Result<()> {
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        copy(&exp.run_file("adapter").join(name), &folder.join(name))?;
    }
    Ok(())
}

/// Writes the base with the run's adapter merged into it, W + α/r · B·A, as a base folder of its own.
///
/// # Errors
/// When the base or the adapter cannot be read, or the folder cannot be written.
pub fn merged(exp: &Experiment, folder: &Path) -> Result<()> {
    let base_folder = exp.path(&exp.config.base.folder);
    let base = checkpoint::load(&base_folder, &Device::Cpu)?;
    let mut model = base.model()?;
    let mut adapter = lora::load_peft(&mut model, "default", &exp.run_file("adapter"), &base.digest)?;
    adapter.merge(&mut model)?;
    checkpoint::save_safetensors(&model.weights(), &folder.join("model.safetensors"), DType::F32, &BTreeMap::new())?;
    for name in ["arch.json", "tokenizer.json"] {
        copy(&base_folder.join(name), &folder.join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).map_err(Error::io("read", from))?;
    artifact::write_atomic(to, |writer| writer.write_all(&bytes))
}
