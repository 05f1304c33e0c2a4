//! AdamW and the norm that gradients are clipped by, over the parameters of the small base.

use candle_core::Device;
use codelora::model::init::init;
use codelora::seed::rng;
use codelora::train::gradients::{Clip, Gradients};
use codelora::train::optimizer::{AdamW, Betas};
use criterion::{Criterion, Throughput};

use crate::sizes::{random, slow, small};

fn all(criterion: &mut Criterion) -> codelora::Result<()> {
    let parameters = init(&small(), &mut rng(1, "init"), &Device::Cpu)?;
    let mut gradients = Gradients::new();
    for (name, var) in &parameters {
        gradients.insert(name.clone(), random(name, var.dims(), 1.0)?);
    }
    let mut optimizer = AdamW::new(&parameters, 0.1, Betas::default(), |_| 1.0)?;
    let mut group = slow(criterion, "optimizer");
    group.throughput(Throughput::Elements(parameters.values().map(|var| var.elem_count() as u64).sum()));
    group.bench_function("AdamW", |bencher| {
        let clip = Clip::new(&gradients, 1.0).expect("a norm");
        bencher.iter(|| optimizer.step(&gradients, 1e-6, &clip).expect("a step"));
    });
    group.bench_function("clip norm", |bencher| bencher.iter(|| Clip::new(&gradients, 1.0).expect("a norm")));
    Ok(())
}

/// Both.
pub fn bench(criterion: &mut Criterion) {
    all(criterion).expect("the optimizer runs");
}
