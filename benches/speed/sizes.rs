//! What the parts are measured at: the shipped base, and random values of a shape.

use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::{Device, Result, Tensor, Var};
use codelora::model::config::ArchConfig;
use codelora::seed::rng;
use codelora::tokenizer::Tokenizer;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use rand::Rng;

/// A file of the repository.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The architecture of the small base.
pub fn small() -> ArchConfig {
    ArchConfig::load(&file("data/base/arch-small.json")).expect("the shipped architecture")
}

/// The vocabulary of the small base.
pub fn vocabulary() -> Tokenizer {
    Tokenizer::load(&file("data/base/small/tokenizer.json")).expect("the shipped vocabulary")
}

/// Values within ±`size`.
pub fn random(name: &str, shape: &[usize], size: f32) -> Result<Tensor> {
    let mut rng = rng(1, name);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-size..size)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// [`random`] values that are trained.
pub fn variable(name: &str, shape: &[usize], size: f32) -> Result<Tensor> {
    Ok(Var::from_tensor(&random(name, shape, size)?)?.into_inner())
}

/// A group of parts that take up to seconds each: ten samples of one run.
pub fn slow<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    group
}
