//! AdamW, Muon and the norm that gradients are clipped by, over the parameters of the small base.

use candle_core::Device;
use codelora::experiment::Stepping;
use codelora::model::init::init;
use codelora::seed::rng;
use codelora::train::adamw::Betas;
use codelora::train::gradients::{Clip, Gradients};
use codelora::train::optimizer::Optimizer;
use criterion::{Criterion, Throughput};

use crate::sizes::{random, slow, small};

fn all(criterion: &mut Criterion) -> codelora::Result<()> {
    let parameters = init(&small(), &mut rng(1, "init"), &Device::Cpu)?;
    let mut gradients = Gradients::new();
    for (name, var) in &parameters {
        gradients.insert(name.clone(), random(name, var.dims(), 1.0)?);
    }
    let mut group = slow(criterion, "optimizer");
    group.throughput(Throughput::Elements(parameters.values().map(|var| var.elem_count() as u64).sum()));
    let clip = Clip::new(&gradients, 1.0)?;
    for (name, rule) in [("AdamW", Stepping::AdamW), ("Muon", Stepping::Muon)] {
        let mut optimizer = Optimizer::new(rule, &parameters, 0.1, Betas::default(), |_| 1.0)?;
        group.bench_function(name, |bencher| {
            bencher.iter(|| optimizer.step(&gradients, 1e-6, &clip).expect("a step"));
        });
    }
    group.bench_function("clip norm", |bencher| bencher.iter(|| Clip::new(&gradients, 1.0).expect("a norm")));
    Ok(())
}

/// All three.
pub fn bench(criterion: &mut Criterion) {
    all(criterion).expect("the optimizer runs");
}
