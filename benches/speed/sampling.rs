//! Tokens of the shipped base: 64 sequences side by side, and one alone.

use candle_core::Device;
use codelora::data::embedded;
use codelora::generate::{Request, Sampling, stream};
use codelora::model::checkpoint;
use criterion::{Criterion, Throughput};

use crate::sizes::{file, slow, small, vocabulary};

fn all(criterion: &mut Criterion) -> codelora::Result<()> {
    let base = checkpoint::load_with(&small(), &file("data/base/small/model.safetensors"), &Device::Cpu)?;
    let (model, tokenizer) = (base.model()?, vocabulary());
    let sampling = Sampling { temperature: 0.8, stop_at_dedent: false, ..Sampling::greedy(40) };
    let prompts = embedded::benchmark20()?.into_iter().map(|task| task.prompt).take(4);
    let requests: Vec<Request> = prompts
        .flat_map(|prompt| (0..16).map(move |n| Request { key: format!("{n}"), prompt: prompt.clone() }))
        .collect();
    let mut group = slow(criterion, "sampling");
    for (name, requests) in [("64 side by side", &requests[..]), ("one alone", &requests[..1])] {
        let write = || stream(&model, &tokenizer, requests, &sampling, |_, _| Ok(()));
        group.throughput(Throughput::Elements(write()?.tokens as u64));
        group.bench_function(name, |bencher| bencher.iter(|| write().expect("completions")));
    }
    Ok(())
}

/// Both.
pub fn bench(criterion: &mut Criterion) {
    all(criterion).expect("the base writes");
}
