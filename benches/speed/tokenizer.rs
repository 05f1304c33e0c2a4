//! Text to tokens, tokens to text, and training a vocabulary, on our own exercises.

use codelora::data::exercises;
use codelora::tokenizer::Tokenizer;
use criterion::{Criterion, Throughput};

use crate::sizes::{slow, vocabulary};

/// Exercises to read: about a megabyte.
const EXERCISES: usize = 4000;

fn all(criterion: &mut Criterion) -> codelora::Result<()> {
    let tasks = exercises::generate(1, EXERCISES, &[])?;
    let texts: Vec<String> = tasks.into_iter().map(|task| format!("{}{}", task.prompt, task.solution)).collect();
    let tokenizer = vocabulary();
    let mut group = slow(criterion, "tokenizer");
    group.throughput(Throughput::Bytes(texts.iter().map(|text| text.len() as u64).sum()));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| texts.iter().map(|text| tokenizer.encode(text).expect("tokens").len()).sum::<usize>());
    });
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text)).collect::<codelora::Result<_>>()?;
    group.bench_function("decode", |bencher| {
        bencher.iter(|| ids.iter().map(|ids| tokenizer.decode(ids).expect("text").len()).sum::<usize>());
    });
    group.bench_function("train 2,048", |bencher| {
        bencher.iter(|| Tokenizer::train(texts.iter().cloned(), 2048).expect("a vocabulary"));
    });
    Ok(())
}

/// All of them.
pub fn bench(criterion: &mut Criterion) {
    all(criterion).expect("the tokenizer runs");
}
