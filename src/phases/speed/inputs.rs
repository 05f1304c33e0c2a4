//! The inputs of the workloads: the same tokens for us and for peers.

use std::path::Path;

use serde_json::json;

use crate::artifact;
use crate::data::corpus::contamination::Contamination;
use crate::data::corpus::library::standard_library;
use crate::data::task::Sample;
use crate::data::{embedded, exercises, read};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Source};
use crate::model::config::ArchConfig;
use crate::tokenizer::Tokenizer;
use crate::train::batch::{Batch, Batches, SampleBatches, encode};

/// Samples in a LoRA step.
const LORA_BATCH: usize = 8;
/// LoRA steps in a measurement: batches of several lengths.
pub(super) const LORA_STEPS: usize = 8;
/// Sequences and tokens of a full step.
pub(super) const FULL: (usize, usize) = (8, 256);
/// Those of a full step on a CUDA device.
pub(super) const CUDA: (usize, usize) = (64, 256);
/// Seed of every draw.
pub(super) const SEED: u64 = 17;

/// The 29M architecture.
pub(super) fn arch_29m(exp: &Experiment) -> Result<ArchConfig> {
    ArchConfig::load(&exp.path("data/base/arch-29m.json"))
}

/// Real samples: the public rows where they are at hand, else our own; those that fit the context.
pub(super) fn samples(exp: &Experiment, tokenizer: &Tokenizer, context: usize) -> Result<Vec<Sample>> {
    let sources = match exp.has_external() {
        true => [Source::Humaneval, Source::Mbpp],
        false => [Source::EmbeddedHumaneval, Source::EmbeddedMbpp],
    };
    let mut samples = Vec::new();
    for source in sources {
        let rows = read::collect(source, &exp.config.data, SEED, &exp.external, None)?;
        samples.extend(rows.converted.iter().map(|row| row.task.sample()));
    }
    samples.retain(|sample| encode(std::slice::from_ref(sample), tokenizer, context).is_ok());
    Ok(samples)
}

/// The batches of the LoRA steps.
pub(super) fn lora_batches(exp: &Experiment, tokenizer: &Tokenizer, context: usize) -> Result<Vec<Batch>> {
    let encoded = encode(&samples(exp, tokenizer, context)?, tokenizer, context)?;
    let batches = SampleBatches::new(encoded, LORA_BATCH, 1, tokenizer.pad(), SEED)?;
    Ok((1..=LORA_STEPS).map(|step| batches.step(step)).collect::<Result<Vec<_>>>()?.concat())
}

/// The batch of a full step: exercises one after another, every position supervised.
pub(super) fn full_batch(tokenizer: &Tokenizer, (rows, seq): (usize, usize)) -> Result<Batch> {
    let mut tokens = Vec::new();
    for task in exercises::generate(SEED, rows * seq, &[])? {
        tokens.extend(tokenizer.encode(&format!("{}{}", task.prompt, task.solution))?);
        tokens.push(tokenizer.eos());
        if tokens.len() > rows * seq {
            break;
        }
    }
    if tokens.len() <= rows * seq {
        return Err(Error::invalid("too few exercises for a step", "this is a fault of the program"));
    }
    Ok(Batch {
        ids: tokens[..rows * seq].to_vec(),
        rows,
        seq,
        supervised: (0..(rows * seq) as u32).collect(),
        targets: tokens[1..=rows * seq].to_vec(),
        real: rows * seq,
    })
}

/// The prompts of the 20 benchmark tasks.
pub(super) fn prompts() -> Result<Vec<String>> {
    Ok(embedded::benchmark20()?.into_iter().map(|task| task.prompt).collect())
}

/// Source code and exercises, over and over, of so many bytes, as documents.
pub(super) fn text(megabytes: usize) -> Result<Vec<String>> {
    let (_, files) = standard_library(&Contamination::default())?;
    let tasks = exercises::generate(SEED, 20_000, &[])?;
    let tasks = tasks.into_iter().map(|task| format!("{}{}", task.prompt, task.solution));
    let all: Vec<String> = files.into_iter().chain(tasks).collect();
    let (mut texts, mut bytes) = (Vec::new(), 0);
    for text in all.iter().cycle() {
        if bytes >= megabytes * 1_000_000 || all.is_empty() {
            break;
        }
        bytes += text.len();
        texts.push(text.clone());
    }
    Ok(texts)
}

/// See [`super::export`].
pub(super) fn export(exp: &Experiment, folder: &Path) -> Result<()> {
    let (tokenizer, base) = crate::phases::base_model::open(exp)?;
    let as_json = |batch: &Batch| {
        json!({
            "rows": batch.rows, "seq": batch.seq, "real": batch.real, "ids": batch.ids,
            "supervised": batch.supervised, "targets": batch.targets,
        })
    };
    let large = arch_29m(exp)?;
    let lora = lora_batches(exp, &tokenizer, large.max_seq_length)?;
    artifact::write_json(
        &folder.join("lora.json"),
        &json!({"arch": large, "batches": lora.iter().map(as_json).collect::<Vec<_>>()}),
    )?;
    let full = json!({
        "arch_29m": large, "arch_small": base.config, "batch": as_json(&full_batch(&tokenizer, FULL)?),
        "batch_cuda": as_json(&full_batch(&tokenizer, CUDA)?),
    });
    artifact::write_json(&folder.join("full.json"), &full)?;
    let prompts = prompts()?;
    let ids = prompts.iter().map(|prompt| tokenizer.encode(prompt)).collect::<Result<Vec<_>>>()?;
    artifact::write_json(&folder.join("prompts.json"), &json!({"ids": ids, "eos": tokenizer.eos()}))
}
