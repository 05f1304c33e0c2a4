//! Rows of the public formats to tasks: our own embedded rows in MBPP's and HumanEval's shape.

use codelora::data::{embedded, humaneval, mbpp};
use codelora::experiment::Source;
use criterion::{Criterion, Throughput};

use crate::sizes::slow;

/// Both converters.
pub fn bench(criterion: &mut Criterion) {
    let mut group = slow(criterion, "converter");
    let rows = |text: &'static str| -> Vec<&str> { text.lines().filter(|line| !line.trim().is_empty()).collect() };
    let lines = rows(embedded::mbpp());
    group.throughput(Throughput::Elements(lines.len() as u64));
    group.bench_function("MBPP rows", |bencher| {
        bencher.iter(|| lines.iter().filter(|line| mbpp::convert(line, Source::EmbeddedMbpp).is_ok()).count());
    });
    let lines = rows(embedded::humaneval());
    group.throughput(Throughput::Elements(lines.len() as u64));
    group.bench_function("HumanEval rows", |bencher| {
        bencher
            .iter(|| lines.iter().filter(|line| humaneval::convert(line, Source::EmbeddedHumaneval).is_ok()).count());
    });
}
