//! The adapter for the base that [`crate::model::starcoder2`] writes.
//!
//! A fused `qkv` is three modules there. W + s·B·A divided by rows is W_q + s·B_q·A, and so on: A stands three times, B and
//! DoRA's magnitudes are divided like the matrix itself.

use std::collections::BTreeMap;
use std::path::Path;

use super::Adapter;
use super::peft::{self, PeftConfig};
use super::targets::rank_and_alpha;
use crate::error::Result;
use crate::model::starcoder2::{divide, modules};

impl Adapter {
    /// Writes the adapter as PEFT does, for the Starcoder2 model in `base`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Tensor`](crate::Error::Tensor).
    pub fn save_starcoder2(&self, folder: &Path, base: &Path) -> Result<()> {
        let names = self.layers.keys().flat_map(|name| modules(name)).collect();
        let mut config = PeftConfig {
            task_type: Some("CAUSAL_LM".into()),
            base_model_name_or_path: Some(base.display().to_string()),
            ..self.peft_config(names)
        };
        let mut tensors = BTreeMap::new();
        for (name, layer) in &self.layers {
            let modules = modules(name);
            let (rank, alpha) = rank_and_alpha(&self.config, name);
            let b = divide(layer.b.as_tensor(), modules.len())?;
            let magnitudes = layer.magnitude.as_ref().map(|all| divide(all.as_tensor(), modules.len())).transpose()?;
            for (part, module) in modules.iter().enumerate() {
                let prefix = format!("base_model.model.{module}");
                tensors.insert(format!("{prefix}.lora_A.weight"), layer.a.as_detached_tensor());
                tensors.insert(format!("{prefix}.lora_B.weight"), b[part].detach());
                if let Some(magnitudes) = &magnitudes {
                    tensors.insert(format!("{prefix}.lora_magnitude_vector"), magnitudes[part].detach());
                }
                if rank != self.config.rank {
                    config.rank_pattern.insert(module.clone(), rank.into());
                }
                if alpha != self.config.alpha {
                    config.alpha_pattern.insert(module.clone(), alpha.into());
                }
            }
        }
        peft::write(folder, &config, &tensors, BTreeMap::new())
    }
}
