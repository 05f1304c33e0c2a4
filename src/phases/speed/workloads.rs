//! The work itself, in the library's own words: nothing here is faster or slower than what the phases do.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;

use super::inputs::{self, SEED};
use super::{Options, Workload};
use crate::error::Result;
use crate::experiment::{Compute, Experiment, LoraConfig, Stepping};
use crate::generate::{Request, Sampling, stream};
use crate::memory;
use crate::model::config::ArchConfig;
use crate::model::device::{self, Card};
use crate::model::dropout::Dropout;
use crate::model::init::init;
use crate::model::lora;
use crate::model::ops;
use crate::model::transformer::Transformer;
use crate::phases::{base_model, data_collection};
use crate::seed;
use crate::tokenizer::Tokenizer;
use crate::train::adamw::Betas;
use crate::train::batch::Batch;
use crate::train::gradients::{Clip, Gradients};
use crate::train::loss::batch_loss;
use crate::train::optimizer::Optimizer;

/// Rates of the repeats, in the workload's unit, and the card, where a card did the work.
pub(super) fn measure(exp: &Experiment, workload: Workload, options: &Options) -> Result<(Vec<f64>, Option<Card>)> {
    let rates = match workload {
        Workload::FullStepCuda => return full_step_cuda(exp, options.repeat),
        Workload::LoraStep => lora_step(exp, options.repeat),
        Workload::FullStep29m => full_step(exp, &inputs::arch_29m(exp)?, options.repeat),
        Workload::FullStepSmall => full_step(exp, &base_model::open(exp)?.1.config, options.repeat),
        Workload::Sampling => sampling(exp, options.repeat),
        Workload::Decode => decode(exp, options.repeat, false),
        Workload::DecodeEightBits => decode(exp, options.repeat, true),
        Workload::Data => data(exp, options.repeat),
        Workload::BpeTrain | Workload::BpeEncode => bpe(exp, workload, options),
    };
    Ok((rates?, None))
}

/// `amount` per second of each repeat of `work`.
fn repeated(repeat: usize, mut work: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    (0..repeat)
        .map(|_| {
            let begun = Instant::now();
            let amount = work()?;
            Ok(amount / begun.elapsed().as_secs_f64())
        })
        .collect()
}

/// One optimizer step, as the training loop takes it.
fn step(
    model: &Transformer,
    parameters: &BTreeMap<String, Var>,
    optimizer: &mut Optimizer,
    batch: &Batch,
    dropout: &mut Dropout,
) -> Result<()> {
    let loss = batch_loss(model, batch, dropout, 0.0)?;
    let mut found = ops::backward(&loss)?;
    let gradients: Gradients =
        parameters.iter().filter_map(|(name, var)| Some((name.clone(), found.remove(var)?))).collect();
    optimizer.step(&gradients, 1e-4, &Clip::new(&gradients, 1.0)?)
}

/// A new model, in a process that keeps its memory as a training run does.
fn fresh(arch: &ArchConfig, device: &Device) -> Result<(Transformer, BTreeMap<String, Var>)> {
    memory::keep_freed();
    let parameters = init(arch, &mut seed::rng(SEED, "speed"), device)?;
    let weights: BTreeMap<String, Tensor> =
        parameters.iter().map(|(key, var)| (key.clone(), var.as_tensor().clone())).collect();
    Ok((Transformer::from_weights(arch, &weights)?, parameters))
}

/// The earlier plan's adapter: rank 8 on the attention projections, dropout 0.05.
fn plan() -> LoraConfig {
    LoraConfig {
        rank: 8,
        alpha: 16.0,
        dropout: 0.05,
        targets: vec!["qkv".into(), "out_proj".into()],
        rslora: false,
        dora: false,
        lr_ratio: 1.0,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
    }
}

fn lora_step(exp: &Experiment, repeat: usize) -> Result<Vec<f64>> {
    let arch = inputs::arch_29m(exp)?;
    let tokenizer = Tokenizer::load(&exp.tokenizer_file())?;
    let batches = inputs::lora_batches(exp, &tokenizer, arch.max_seq_length)?;
    let (mut model, _) = fresh(&arch, &Device::Cpu)?;
    let adapter = lora::attach(&mut model, &plan(), &mut seed::rng(SEED, "adapter"))?;
    let parameters: BTreeMap<String, Var> =
        adapter.parameters().into_iter().map(|(name, var)| (name.to_string(), var.clone())).collect();
    let mut optimizer = Optimizer::new(Stepping::AdamW, &parameters, 0.01, Betas::default(), |_| 1.0)?;
    let mut dropout = Dropout::new(seed::rng(SEED, "dropout"));
    step(&model, &parameters, &mut optimizer, &batches[0], &mut dropout)?;
    repeated(repeat, || {
        for batch in &batches {
            step(&model, &parameters, &mut optimizer, batch, &mut dropout)?;
        }
        Ok(batches.iter().map(|batch| batch.real as f64).sum())
    })
}

fn full_step(exp: &Experiment, arch: &ArchConfig, repeat: usize) -> Result<Vec<f64>> {
    let batch = inputs::full_batch(&Tokenizer::load(&exp.tokenizer_file())?, inputs::FULL)?;
    let (model, parameters) = fresh(arch, &Device::Cpu)?;
    let mut optimizer = Optimizer::new(Stepping::AdamW, &parameters, 0.1, Betas::default(), |_| 1.0)?;
    let mut dropout = Dropout::new(seed::rng(SEED, "dropout"));
    step(&model, &parameters, &mut optimizer, &batch, &mut dropout)?;
    repeated(repeat, || {
        step(&model, &parameters, &mut optimizer, &batch, &mut dropout)?;
        Ok(batch.real as f64)
    })
}

/// Steps of a measurement on a CUDA device.
const CUDA_STEPS: usize = 50;

fn full_step_cuda(exp: &Experiment, repeat: usize) -> Result<(Vec<f64>, Option<Card>)> {
    let (device, floats) = device::open(Compute::CudaBf16)?;
    let batch = inputs::full_batch(&Tokenizer::load(&exp.tokenizer_file())?, inputs::CUDA)?;
    let (model, parameters) = fresh(&inputs::arch_29m(exp)?, &device)?;
    let model = model.computing_in(floats);
    let mut optimizer = Optimizer::new(Stepping::AdamW, &parameters, 0.1, Betas::default(), |_| 1.0)?;
    let mut work = || {
        for _ in 0..CUDA_STEPS {
            step(&model, &parameters, &mut optimizer, &batch, &mut Dropout::off())?;
        }
        // Otherwise the last step would still be running.
        device.synchronize()?;
        Ok((CUDA_STEPS * batch.real) as f64)
    };
    work()?;
    Ok((repeated(repeat, work)?, device::card(&device)))
}

fn sampling(exp: &Experiment, repeat: usize) -> Result<Vec<f64>> {
    let (tokenizer, base) = base_model::open(exp)?;
    let model = base.model()?;
    let sampling = Sampling { temperature: 0.8, stop_at_dedent: false, ..Sampling::greedy(100) };
    let prompts = inputs::prompts()?;
    let requests: Vec<Request> = prompts
        .iter()
        .flat_map(|prompt| (0..20).map(move |n| Request { key: format!("{n}"), prompt: prompt.clone() }))
        .collect();
    repeated(repeat, || Ok(stream(&model, &tokenizer, &requests, &sampling, |_, _| Ok(()))?.tokens as f64))
}

fn decode(exp: &Experiment, repeat: usize, eight_bits: bool) -> Result<Vec<f64>> {
    let (tokenizer, base) = base_model::open(exp)?;
    let model = if eight_bits { base.model()?.in_eight_bits()? } else { base.model()? };
    let sampling = Sampling { stop_at_dedent: false, ..Sampling::greedy(100) };
    let prompts = inputs::prompts()?;
    repeated(repeat, || {
        let mut tokens = 0;
        for prompt in &prompts {
            let request = Request { key: "greedy".into(), prompt: prompt.clone() };
            tokens += stream(&model, &tokenizer, &[request], &sampling, |_, _| Ok(()))?.tokens;
        }
        Ok(tokens as f64)
    })
}

fn data(exp: &Experiment, repeat: usize) -> Result<Vec<f64>> {
    repeated(repeat, || {
        let folder = tempfile::tempdir().map_err(crate::error::Error::io("create", "a temporary folder"))?;
        let file = exp.path("data/experiments/v2.toml");
        let mut plan = Experiment::open(file)?.with_external(&exp.external).forced(true);
        plan.config.paths.data = folder.path().join("data");
        plan.config.paths.run = folder.path().join("run");
        plan.config.paths.figures = folder.path().join("figures");
        let collection = data_collection::run(&plan)?;
        let kept = collection.train.len() + collection.validation.len() + collection.held_out.len();
        Ok((kept + collection.rejections.len()) as f64)
    })
}

fn bpe(exp: &Experiment, workload: Workload, options: &Options) -> Result<Vec<f64>> {
    let texts = inputs::text(options.megabytes)?;
    let megabytes = texts.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    let shipped = Tokenizer::load(&exp.tokenizer_file())?;
    repeated(options.repeat, || {
        match workload {
            Workload::BpeTrain => drop(Tokenizer::train(texts.iter().cloned(), 2048)?),
            _ => texts.par_iter().try_for_each(|text| shipped.encode(text).map(drop))?,
        }
        Ok(megabytes)
    })
}
