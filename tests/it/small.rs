//! A base that nobody trained and an experiment over it: a real walk in seconds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{DType, Device, Tensor, Var};
use codelora::experiment::{Config, Experiment, Source};
use codelora::model::checkpoint;
use codelora::model::config::ArchConfig;
use codelora::model::init::init;
use codelora::seed;
use serde_json::json;

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Writes a base folder of two layers with a head of its own and the shipped vocabulary; returns its weights.
pub fn base(folder: &Path) -> codelora::Result<BTreeMap<String, Tensor>> {
    let arch: ArchConfig = serde_json::from_value(json!({
        "arch_type": "transformer", "num_layers": 2, "hidden_dim": 32, "num_heads": 4, "ffn_multiplier": 3.0,
        "normalization": "layernorm", "activation": "gelu", "position_encoding": "rope", "vocab_size": 2048,
        "max_seq_length": 256, "rope_theta": 5000.0
    }))
    .unwrap();
    let vars = init(&arch, &mut seed::rng(2, "weights"), &Device::Cpu)?;
    // Larger weights than a fresh model's, so that attention is far from uniform.
    let grown = |(key, var): (String, Var)| {
        let factor = if key.contains("norm") { 1.0 } else { 6.0 };
        Ok((key, (var.as_detached_tensor() * factor)?))
    };
    let weights = vars.into_iter().map(grown).collect::<codelora::Result<_>>()?;
    arch.save(&folder.join("arch.json"))?;
    checkpoint::save_safetensors(&weights, &folder.join("model.safetensors"), DType::F32, &BTreeMap::new())?;
    std::fs::copy(root().join("data/base/small/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    Ok(weights)
}

/// Writes an experiment file over that base, its samples and its run all under `folder`.
pub fn experiment(folder: &Path, change: impl FnOnce(&mut Config)) -> PathBuf {
    let mut config = Experiment::open(root().join("data/experiments/quick.toml")).unwrap().config;
    base(&folder.join("base")).unwrap();
    config.paths.data = folder.join("data");
    config.paths.run = folder.join("run");
    config.paths.figures = folder.join("figures");
    config.base.folder = folder.join("base");
    config.data.sources = vec![Source::EmbeddedMbpp];
    config.data.exercises = 0;
    config.data.split.validation = 8;
    config.bench.max_new_tokens = 8;
    config.train.optimizer.steps = 4;
    config.train.eval_every = 2;
    config.train.batch_size = 4;
    change(&mut config);
    let file = folder.join("experiment.toml");
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    file
}

/// A call of the real program.
pub fn codelora(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codelora"));
    command.args(arguments).current_dir(root());
    command
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A call that must succeed.
pub fn succeed(arguments: &[&str]) {
    let output = codelora(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
}
