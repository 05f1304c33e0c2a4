//! Phase 2: attaches the adapter and proves it before anything is trained.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Phase};
use crate::figures;
use crate::figures::chart::Chart;
use crate::model::checkpoint;
use crate::model::dropout::Dropout;
use crate::model::lora::{self, Adapter};
use crate::model::ops;
use crate::model::transformer::Transformer;
use crate::phases::base_model;
use crate::seed;
use crate::tokenizer::Tokenizer;
use crate::train::batch::Batch;
use crate::train::loss::batch_loss;

/// What phase 2 leaves behind.
#[derive(Debug)]
pub struct Lora {
    /// The base with the fresh adapter on it.
    pub model: Transformer,
    /// The adapter, still without effect.
    pub adapter: Adapter,
    /// The base's vocabulary.
    pub tokenizer: Tokenizer,
    /// SHA-256 of the base's weights.
    pub base_digest: String,
    /// What the figures and tables show.
    pub record: LoraRecord,
}

/// One adapted layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdaptedLayer {
    /// The linear layer, e.g. `layers.0.attn.qkv`.
    pub name: String,
    /// Its outputs.
    pub output: usize,
    /// Its inputs.
    pub input: usize,
    /// Rank of the update.
    pub rank: usize,
    /// Scale of the update.
    pub scale: f64,
    /// Trainable parameters.
    pub parameters: usize,
}

/// The proofs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proofs {
    /// With B = 0 the logits equal the base's to the bit.
    pub fresh_equals_base: bool,
    /// Adapter tensors, and how many of them got a gradient that is not zero.
    pub tensors: usize,
    /// See `tensors`.
    pub with_gradient: usize,
    /// Relative difference between the gradient's norm and the slope of the loss along it, by central differences.
    pub gradient_error: f64,
    /// Largest |Δlogit| between the adapter beside the base and merged into it.
    pub merge_error: f64,
    /// Largest |logit|, beside which `merge_error` is judged.
    #[serde(default)]
    pub largest_logit: f64,
    /// After merging and unmerging the base's weights are what they were, to the bit.
    pub base_unchanged: bool,
}

/// Phase 2, recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraRecord {
    /// Digest of the experiment's sections that the adapter depends on.
    pub digest: String,
    /// SHA-256 of the base's weights.
    pub base: String,
    /// Every adapted layer, in the order of names.
    pub layers: Vec<AdaptedLayer>,
    /// Trainable parameters.
    pub trainable: usize,
    /// Parameters of base and adapter together.
    pub total: usize,
    /// The proofs.
    pub proofs: Proofs,
    /// Wall time of attaching and proving, in seconds.
    #[serde(default)]
    pub seconds: f64,
}

impl LoraRecord {
    /// Trainable parameters by kind of layer.
    pub fn chart(&self) -> Chart {
        let layers: Vec<(&str, usize)> = self.layers.iter().map(|l| (l.name.as_str(), l.parameters)).collect();
        figures::lora::parameters(&layers, self.trainable, self.total)
    }
}

/// Largest relative error of the gradient that rounding in f32 explains.
pub const GRADIENT_TOLERANCE: f64 = 2e-2;
/// Largest |Δlogit| of a merge that rounding in f32 explains, as a share of the largest |logit|: a sum is rounded to a
/// share of its size. The merge itself adds next to nothing: on the shipped base, whose logits reach 16, each pass, with the
/// adapter beside or merged, is 1.3e-5 from the same pass in double precision, while the merged matrices, evaluated in double
/// precision, are 3e-7 from the adapter beside them.
pub const MERGE_TOLERANCE: f64 = 1e-5;

/// Programs on which the proofs run; any text does.
const TEXTS: [&str; 2] = [
    "def halve(n: int) -> int:\n    \"\"\"Return half of n, rounded down.\"\"\"\n    return n // 2\n",
    "def longest(words: list[str]) -> str:\n    \"\"\"Return the longest word.\"\"\"\n    return max(words, key=len)\n",
];

/// The base on `device`, computing in `floats`, with the adapter that [`run`] proves on the CPU: the same numbers.
///
/// # Errors
/// Those of [`base_model::open`] and [`lora::attach`]; [`Error::Tensor`] when the base does not fit there.
pub fn fresh_on(exp: &Experiment, device: &Device, floats: DType) -> Result<(Transformer, Adapter)> {
    let mut model = base_model::open(exp)?.1.model_on(device)?.computing_in(floats);
    let adapter = attach(exp, &mut model)?;
    Ok((model, adapter))
}

fn attach(exp: &Experiment, model: &mut Transformer) -> Result<Adapter> {
    lora::attach(model, &exp.config.lora, &mut seed::rng(exp.train_seed(), "adapter"))
}

/// Attaches the adapter to the base, proves it, and writes the phase's record.
///
/// # Errors
/// Those of [`base_model::open`] and [`lora::attach`]; [`Error::Invalid`] when a proof fails; [`Error::Mismatch`] when the
/// record there belongs to another experiment or base.
pub fn run(exp: &Experiment) -> Result<Lora> {
    let begun = Instant::now();
    let (tokenizer, base) = base_model::open(exp)?;
    let mut model = base.model()?;
    let batch = proof_batch(&tokenizer)?;
    let before = model.forward(&ids(&batch)?)?;
    let mut adapter = attach(exp, &mut model)?;
    let record_file = exp.record_file("lora");
    let digest = exp.digest(Phase::Lora);
    if record_file.is_file() && !exp.force {
        let record: LoraRecord = artifact::read_json(&record_file)?;
        for (what, expected, found) in
            [("the experiment", &digest, &record.digest), ("the base", &base.digest, &record.base)]
        {
            if expected != found {
                return Err(Error::Mismatch {
                    what: format!("{what} behind {}", record_file.display()),
                    expected: expected.clone(),
                    found: found.clone(),
                    remedy: "use --force to attach and prove the adapter anew".into(),
                });
            }
        }
        return Ok(Lora { model, adapter, tokenizer, base_digest: base.digest, record });
    }
    let fresh_equals_base = bits(&before)? == bits(&model.forward(&ids(&batch)?)?)?;
    let proofs = prove(&mut model, &mut adapter, &batch, &base.digest, fresh_equals_base, exp.config.seed)?;
    judge(&proofs)?;
    let trainable = adapter.parameter_count();
    let base_parameters: usize = base.weights.values().map(|w| w.elem_count()).sum();
    let record = LoraRecord {
        digest,
        base: base.digest.clone(),
        layers: table(&adapter),
        trainable,
        total: base_parameters + trainable,
        proofs,
        seconds: begun.elapsed().as_secs_f64(),
    };
    artifact::write_json(&record_file, &record)?;
    Ok(Lora { model, adapter, tokenizer, base_digest: base.digest, record })
}

/// Every adapted layer.
fn table(adapter: &Adapter) -> Vec<AdaptedLayer> {
    let row = |(name, layer): (&String, &std::sync::Arc<lora::LoraLayer>)| {
        let magnitude = layer.magnitude.as_ref().map_or(0, |m| m.elem_count());
        AdaptedLayer {
            name: name.clone(),
            output: layer.b.dims()[0],
            input: layer.a.dims()[1],
            rank: layer.rank(),
            scale: layer.scale,
            parameters: layer.a.elem_count() + layer.b.elem_count() + magnitude,
        }
    };
    adapter.layers().iter().map(row).collect()
}

/// Runs the proofs that need an update: B is filled with small numbers for their time and then set back to zero.
fn prove(
    model: &mut Transformer,
    adapter: &mut Adapter,
    batch: &Batch,
    base_digest: &str,
    fresh_equals_base: bool,
    seed: u64,
) -> Result<Proofs> {
    let parameters = adapter.parameters();
    let saved: BTreeMap<String, Tensor> =
        parameters.iter().map(|(name, v)| Ok((name.clone(), v.as_tensor().copy()?))).collect::<Result<_>>()?;
    let mut rng = seed::rng(seed, "adapter proofs");
    for (_, variable) in parameters.iter().filter(|(name, _)| name.contains("lora_B")) {
        let values: Vec<f32> = (0..variable.elem_count()).map(|_| rng.random_range(-0.02..0.02)).collect();
        variable.set(&Tensor::from_vec(values, variable.shape(), variable.device())?)?;
    }
    let (with_gradient, gradient_error) = check_gradient(model, &parameters, batch)?;
    let ids = ids(batch)?;
    let beside = model.forward(&ids)?;
    adapter.merge(model)?;
    let merged = model.forward(&ids)?;
    let largest = |logits: Tensor| Ok::<_, Error>(f64::from(logits.abs()?.max_all()?.to_scalar::<f32>()?));
    let (merge_error, largest_logit) = (largest((&beside - merged)?)?, largest(beside)?);
    adapter.unmerge(model)?;
    for (name, variable) in &parameters {
        variable.set(&saved[name])?;
    }
    Ok(Proofs {
        fresh_equals_base,
        tensors: parameters.len(),
        with_gradient,
        gradient_error,
        merge_error,
        largest_logit,
        base_unchanged: checkpoint::digest(&model.weights())? == base_digest,
    })
}

/// How many parameters get a gradient, and how far its norm is from the slope of the loss along it:
/// |‖g‖ − (L(θ + εd) − L(θ − εd)) / 2ε| / ‖g‖ with d = g/‖g‖. DoRA holds the norm of its rows constant in the gradient of A
/// and B, which is then not the slope by design; there the slope is taken along the magnitudes alone.
fn check_gradient(model: &Transformer, parameters: &BTreeMap<String, Var>, batch: &Batch) -> Result<(usize, f64)> {
    let loss = || batch_loss(model, batch, &mut Dropout::off(), 0.0);
    let gradients = ops::backward(&loss()?)?;
    let is_magnitude = |name: &str| name.ends_with("lora_magnitude_vector");
    let dora = parameters.keys().any(|name| is_magnitude(name));
    let (mut found, mut square, mut with_gradient) = (Vec::new(), 0.0, 0);
    for (name, variable) in parameters {
        let Some(gradient) = gradients.get(variable) else { continue };
        let part = f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        if part == 0.0 {
            continue;
        }
        with_gradient += 1;
        if !dora || is_magnitude(name) {
            square += part;
            found.push((variable, gradient.clone(), variable.as_tensor().copy()?));
        }
    }
    let norm: f64 = square.sqrt();
    let epsilon = 1e-2;
    let at = |sign: f64| -> Result<f64> {
        for (variable, gradient, start) in &found {
            variable.set(&(start + (gradient * (sign * epsilon / norm))?)?)?;
        }
        Ok(f64::from(loss()?.to_scalar::<f32>()?))
    };
    let slope = (at(1.0)? - at(-1.0)?) / (2.0 * epsilon);
    at(0.0)?;
    Ok((with_gradient, (norm - slope).abs() / norm))
}

/// # Errors
/// [`Error::Invalid`] that names the proof which failed.
fn judge(proofs: &Proofs) -> Result<()> {
    let failed = [
        (!proofs.fresh_equals_base, "a fresh adapter changes the base's logits".to_string()),
        (
            proofs.with_gradient < proofs.tensors,
            format!("only {} of {} adapter tensors get a gradient", proofs.with_gradient, proofs.tensors),
        ),
        (
            proofs.gradient_error.is_nan() || proofs.gradient_error > GRADIENT_TOLERANCE,
            format!("the gradient is off by {:.2e} of itself", proofs.gradient_error),
        ),
        (
            proofs.merge_error.is_nan() || proofs.merge_error > MERGE_TOLERANCE * proofs.largest_logit,
            format!("merging moves a logit of up to {:.1} by {:.2e}", proofs.largest_logit, proofs.merge_error),
        ),
        (!proofs.base_unchanged, "merging and unmerging changed the base".to_string()),
    ];
    match failed.into_iter().find(|(failed, _)| *failed) {
        None => Ok(()),
        Some((_, what)) => Err(Error::invalid(
            format!("a proof of the adapter failed: {what}"),
            "do not train with it; run the tests of model::lora and model::ops",
        )),
    }
}

fn proof_batch(tokenizer: &Tokenizer) -> Result<Batch> {
    // Four rows: from there on a block is one operation, as it is in training.
    let encoded: Vec<Vec<u32>> =
        TEXTS.iter().chain(&TEXTS).map(|text| tokenizer.encode(text)).collect::<Result<_>>()?;
    let seq = encoded.iter().map(Vec::len).min().unwrap_or(1) - 1;
    Ok(Batch {
        ids: encoded.iter().flat_map(|tokens| tokens[..seq].to_vec()).collect(),
        rows: encoded.len(),
        seq,
        supervised: (0..(encoded.len() * seq) as u32).collect(),
        targets: encoded.iter().flat_map(|tokens| tokens[1..=seq].to_vec()).collect(),
        real: encoded.len() * seq,
    })
}

fn ids(batch: &Batch) -> Result<Tensor> {
    Ok(Tensor::from_slice(&batch.ids, (batch.rows, batch.seq), &Device::Cpu)?)
}

fn bits(logits: &Tensor) -> Result<Vec<u32>> {
    Ok(logits.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}
