//! Which layers an adapter changes, and with what rank and alpha: patterns of names, and the presets `attention` and `all-linear`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::experiment::LoraConfig;
use crate::model::transformer::Transformer;

/// Whether `pattern` names the layer `name`: the whole name or its last parts, e.g. `qkv` or `attn.qkv`.
pub(super) fn matches(name: &str, pattern: &str) -> bool {
    name == pattern || name.ends_with(&format!(".{pattern}"))
}

/// Rank and alpha of the layer `name`: those of the first pattern that names it, else the configuration's own.
pub(super) fn rank_and_alpha(config: &LoraConfig, name: &str) -> (usize, f64) {
    let rank = config.rank_pattern.iter().find(|(pattern, _)| matches(name, pattern));
    let alpha = config.alpha_pattern.iter().find(|(pattern, _)| matches(name, pattern));
    (rank.map_or(config.rank, |(_, &rank)| rank), alpha.map_or(config.alpha, |(_, &alpha)| alpha))
}

/// The layers to adapt, with rank and alpha.
pub(super) fn of(model: &Transformer, config: &LoraConfig) -> Result<BTreeMap<String, (usize, f64)>> {
    let names: Vec<&str> = model.linears().iter().map(|linear| linear.name()).collect();
    let mut wanted: Vec<&str> = Vec::new();
    for target in &config.targets {
        match target.as_str() {
            "attention" => wanted.extend(["qkv", "out_proj"]),
            // As in PEFT, the head is not among "all": its rows are the vocabulary.
            "all-linear" => wanted.extend(["qkv", "out_proj", "fc1", "fc2"]),
            other => wanted.push(other),
        }
    }
    let patterns = config.rank_pattern.keys().chain(config.alpha_pattern.keys()).map(String::as_str);
    for pattern in wanted.iter().copied().chain(patterns) {
        if !names.iter().any(|name| matches(name, pattern)) {
            return Err(unknown_target(pattern, &names));
        }
    }
    if wanted.is_empty() {
        return Err(Error::invalid("no target is named", "name linear layers in `targets`, e.g. [\"attention\"]"));
    }
    if !(0.0..1.0).contains(&config.dropout) {
        let what = format!("LoRA dropout {} is no probability below 1", config.dropout);
        return Err(Error::invalid(what, "choose a value in [0, 1)"));
    }
    let mut targets = BTreeMap::new();
    for linear in model.linears() {
        let name = linear.name();
        if !wanted.iter().any(|pattern| matches(name, pattern)) {
            continue;
        }
        let (rank, alpha) = rank_and_alpha(config, name);
        let (output, input) = linear.weight().dims2()?;
        if rank == 0 || rank > output.min(input) {
            let what = format!("rank {rank} for {name}, a {output} × {input} matrix");
            return Err(Error::invalid(what, format!("choose a rank from 1 to {}", output.min(input))));
        }
        targets.insert(name.to_string(), (rank, alpha));
    }
    Ok(targets)
}

fn unknown_target(pattern: &str, names: &[&str]) -> Error {
    let mut kinds: Vec<&str> = names.iter().map(|name| name.rsplit('.').next().unwrap_or(name)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let what = format!("no linear layer is named `{pattern}`");
    let remedy = format!(
        "use {}, a preset (attention, all-linear), or a full name such as {}",
        kinds.join(", "),
        names.first().unwrap_or(&"layers.0.attn.qkv")
    );
    Error::invalid(what, remedy)
}
