//! A Hugging Face Starcoder2 folder as a base of ours: `config.json` to an architecture, its tensors to our keys.
//!
//! Starcoder2 without biases, with as many key-value heads as heads and exact GELU or SiLU, is this project's architecture in
//! other words. What differs is listed, all of it. The way there is [`starcoder2`](crate::model::starcoder2).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::artifact;
use crate::error::{Error, Result};
use crate::model::checkpoint::read_safetensors;
use crate::model::config::ArchConfig;

/// Whether a folder looks like a model of the Hugging Face library.
pub fn is_folder(path: &Path) -> bool {
    path.join("config.json").is_file()
}

/// The architecture that `config.json` describes.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`]; [`Error::Mismatch`] that lists every setting we do not build.
pub fn arch(folder: &Path) -> Result<ArchConfig> {
    let file = folder.join("config.json");
    let config: Value = artifact::read_json(&file)?;
    let number = |key: &str| config[key].as_u64().map(|value| value as usize);
    let mut faults = Vec::new();
    // What is absent has the library's default for Starcoder2.
    let mut expect = |key: &str, usual: Value, wanted: &[Value]| {
        let found = config.get(key).cloned().unwrap_or(usual);
        if !wanted.contains(&found) {
            faults.push(format!("{key} is {found}, expected {}", wanted[0]));
        }
    };
    expect("model_type", Value::Null, &["starcoder2".into()]);
    expect("hidden_act", "gelu_pytorch_tanh".into(), &["gelu".into(), "silu".into()]);
    expect("use_bias", true.into(), &[false.into()]);
    expect("norm_type", "layer_norm".into(), &["layer_norm".into()]);
    expect("rope_scaling", Value::Null, &[Value::Null]);
    let heads = config["num_attention_heads"].clone();
    expect("num_key_value_heads", 2.into(), &[heads]);
    let context = number("max_position_embeddings").unwrap_or(4096);
    let window = config["sliding_window"].as_u64().filter(|&window| (window as usize) < context);
    if let Some(window) = window {
        faults.push(format!("sliding_window is {window}, expected null or at least the context of {context}"));
    }
    let positions = &config["rope_parameters"]["rope_type"];
    if !positions.is_null() && positions != "default" {
        faults.push(format!("rope_type is {positions}, expected \"default\""));
    }
    let mut size = |key: &str| {
        number(key).unwrap_or_else(|| {
            faults.push(format!("{key} is {}, expected a number", config[key]));
            1
        })
    };
    let (hidden, intermediate) = (size("hidden_size"), size("intermediate_size"));
    let arch = serde_json::json!({
        "arch_type": "transformer",
        "num_layers": size("num_hidden_layers"),
        "hidden_dim": hidden,
        "num_heads": size("num_attention_heads"),
        "ffn_multiplier": intermediate as f64 / hidden.max(1) as f64,
        "normalization": "layernorm",
        "activation": config["hidden_act"],
        "position_encoding": "rope",
        "attention_dropout": config["attention_dropout"].as_f64().unwrap_or(0.0),
        "residual_dropout": config["residual_dropout"].as_f64().unwrap_or(0.0),
        "vocab_size": size("vocab_size"),
        "max_seq_length": context,
        "tie_word_embeddings": config["tie_word_embeddings"].as_bool().unwrap_or(true),
        "rope_theta": theta(&config),
        "norm_eps": config["norm_epsilon"].as_f64().unwrap_or(1e-5),
    });
    if !faults.is_empty() {
        return Err(Error::Mismatch {
            what: format!("settings in {}", file.display()),
            expected: "a Starcoder2 that is this project's architecture".into(),
            found: format!("{} that are not:\n    {}", faults.len(), faults.join("\n    ")),
            remedy: "import a model of this architecture; others are not built".into(),
        });
    }
    let arch: ArchConfig = serde_json::from_value(arch)
        .map_err(|e| Error::malformed(&file, None, e.to_string(), "restore the file from the model's own folder"))?;
    arch.check()?;
    Ok(arch)
}

/// The base of the rotary frequencies, where old and new versions of the library keep it.
fn theta(config: &Value) -> f64 {
    let new = config["rope_parameters"]["rope_theta"].as_f64();
    new.or_else(|| config["rope_theta"].as_f64()).unwrap_or(10_000.0)
}

/// The tensors of `model.safetensors`, or of the shards that `model.safetensors.index.json` names, under our keys. Keys
/// that are not known keep their names.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`], [`Error::Tensor`].
pub fn weights(folder: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for shard in shards(folder)? {
        tensors.extend(read_safetensors(&folder.join(shard), device)?);
    }
    let mut renamed: BTreeMap<String, Tensor> = BTreeMap::new();
    for key in tensors.keys() {
        let Some(prefix) = key.strip_suffix("self_attn.q_proj.weight") else { continue };
        let part = |name: &str| tensors.get(&format!("{prefix}self_attn.{name}_proj.weight"));
        if let (Some(q), Some(k), Some(v)) = (part("q"), part("k"), part("v"))
            && [q, k, v].iter().all(|part| part.rank() == 2 && part.dims()[1] == q.dims()[1])
        {
            renamed.insert(rename(&format!("{prefix}attn.qkv.weight")), Tensor::cat(&[q, k, v], 0)?);
        }
    }
    for (key, tensor) in tensors {
        let joined = ["q", "k", "v"].iter().find_map(|p| key.strip_suffix(&format!("self_attn.{p}_proj.weight")));
        if joined.is_none_or(|prefix| !renamed.contains_key(&rename(&format!("{prefix}attn.qkv.weight")))) {
            renamed.insert(rename(&key), tensor);
        }
    }
    Ok(renamed)
}

fn shards(folder: &Path) -> Result<BTreeSet<String>> {
    let index = folder.join("model.safetensors.index.json");
    if !index.is_file() {
        return Ok(["model.safetensors".to_string()].into());
    }
    let found: Value = artifact::read_json(&index)?;
    let names = found["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let names: BTreeSet<String> = names.filter_map(|name| name.as_str().map(str::to_string)).collect();
    // A shard is a file of this folder and of no other.
    match names
        .iter()
        .find(|name| Path::new(name).components().count() != 1 || fs::metadata(folder.join(name)).is_err())
    {
        None if !names.is_empty() => Ok(names),
        bad => {
            let what = bad.map_or("it names no shard".into(), |name| format!("the shard {name} is not in the folder"));
            Err(Error::malformed(index, None, what, "download every file of the model"))
        }
    }
}

/// Our name of a tensor.
fn rename(key: &str) -> String {
    const NAMES: [(&str, &str); 7] = [
        ("embed_tokens.", "token_embedding."),
        ("input_layernorm.", "norm1."),
        ("post_attention_layernorm.", "norm2."),
        ("self_attn.o_proj.", "attn.out_proj."),
        ("self_attn.", "attn."),
        ("mlp.c_fc.", "ffn.fc1."),
        ("mlp.c_proj.", "ffn.fc2."),
    ];
    let key = key.strip_prefix("model.").unwrap_or(key);
    NAMES.iter().fold(key.to_string(), |key, (theirs, ours)| key.replace(theirs, ours))
}
