//! A whole training step of the small base, 8 × 256 tokens: loss, gradients, clip norm, AdamW; fused and composed.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use codelora::experiment::Stepping;
use codelora::model::dropout::Dropout;
use codelora::model::init::init;
use codelora::model::ops;
use codelora::model::transformer::Transformer;
use codelora::seed::rng;
use codelora::train::adamw::Betas;
use codelora::train::gradients::{Clip, Gradients};
use codelora::train::optimizer::Optimizer;
use criterion::{Criterion, Throughput};

use crate::sizes::{slow, small};

const BATCH: usize = 8;
const SEQ: usize = 256;

fn all(criterion: &mut Criterion) -> codelora::Result<()> {
    let arch = small();
    let vars = init(&arch, &mut rng(1, "init"), &Device::Cpu)?;
    let weights: BTreeMap<String, Tensor> = vars.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    let model = Transformer::from_weights(&arch, &weights)?;
    let ids: Vec<u32> = (0..BATCH * SEQ).map(|i| ((i * 7919 + i / 5) % arch.vocab_size) as u32).collect();
    let ids = Tensor::from_vec(ids, (BATCH, SEQ), &Device::Cpu)?;
    let mut optimizer = Optimizer::new(Stepping::AdamW, &vars, 0.1, Betas::default(), |_| 1.0)?;
    let mut step = || -> codelora::Result<()> {
        let states = model.hidden(&ids, &mut Dropout::off())?;
        let loss = model.loss(&states.flatten_to(1)?, &ids.flatten_all()?, 0.0, &mut Dropout::off())?;
        let mut found = ops::backward(&loss)?;
        let gradients: Gradients =
            vars.iter().filter_map(|(name, var)| Some((name.clone(), found.remove(var)?))).collect();
        optimizer.step(&gradients, 1e-6, &Clip::new(&gradients, 1.0)?)
    };
    let mut group = slow(criterion, "training step");
    group.throughput(Throughput::Elements((BATCH * SEQ) as u64));
    for (name, fused) in [("fused", true), ("composed", false)] {
        ops::set_fused(fused);
        group.bench_function(name, |bencher| bencher.iter(|| step().expect("a step")));
    }
    ops::set_fused(true);
    Ok(())
}

/// Both forms.
pub fn bench(criterion: &mut Criterion) {
    // As a run does; without it a step asks the system for the same memory again and again.
    codelora::memory::keep_freed();
    all(criterion).expect("the step runs");
}
