//! Seconds of each fused operation forward and backward, at the sizes of the small base or at those given.
//!
//! `cargo bench --bench kernels -- [batch] [seq] [hidden] [heads] [vocab] [rounds]`
//!
//! `flops` counts multiply-adds of matrix products twice, forward and backward, without what is recomputed.

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var};
use codelora::model::config::Activation;
use codelora::model::ops::{self, Block, Norm, Projection, Rope};
use codelora::seed::rng;
use rand::Rng;

fn random(name: &str, shape: &[usize], size: f32) -> Result<Tensor> {
    let mut rng = rng(1, name);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-size..size)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

fn variable(name: &str, shape: &[usize], size: f32) -> Result<Tensor> {
    Ok(Var::from_tensor(&random(name, shape, size)?)?.into_inner())
}

/// Prints the median seconds of `op` forward and of its gradient, and the rate of its matrix products.
fn time(name: &str, rounds: usize, flops: f64, op: impl Fn() -> Result<Tensor>) -> Result<()> {
    let (mut forward, mut both) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        let begun = Instant::now();
        let y = op()?;
        forward.push(begun.elapsed().as_secs_f64());
        y.sum_all()?.backward()?;
        both.push(begun.elapsed().as_secs_f64());
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (forward, both) = (median(&mut forward), median(&mut both));
    let rate = if flops > 0.0 { format!("{:>8.1} GFLOP/s", flops / both / 1e9) } else { String::new() };
    println!("{name:<14} forward {:>8.2} ms  backward {:>8.2} ms  {rate}", 1e3 * forward, 1e3 * (both - forward));
    Ok(())
}

fn main() -> Result<()> {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |index: usize, default: usize| numbers.get(index).copied().unwrap_or(default);
    let (batch, seq, hidden, heads) = (number(0, 16), number(1, 256), number(2, 192), number(3, 6));
    let (vocab, rounds) = (number(4, 2048), number(5, 9));
    let (rows, wide, half) = (batch * seq, 4 * hidden, hidden / heads / 2);
    let x = variable("x", &[batch, seq, hidden], 1.0)?;
    let (scale, bias) = (variable("scale", &[hidden], 1.0)?, variable("bias", &[hidden], 1.0)?);
    let weight = |name: &str, out: usize, input: usize| variable(name, &[out, input], 1.0 / (input as f32).sqrt());
    let angles = random("angles", &[seq, half], 1.0)?;
    let rope = Rope { cos: angles.cos()?, sin: angles.sin()? };
    let product = |out: usize, input: usize| 6.0 * (rows * out * input) as f64;
    // Two products forward and four backward, over half of the square.
    let mixing = 6.0 * (batch * seq * seq * hidden) as f64;

    let fc1 = weight("fc1", wide, hidden)?;
    time("linear", rounds, product(wide, hidden), || ops::linear(&x, &fc1))?;
    time("layer norm", rounds, 0.0, || ops::layer_norm(&x, &scale, &bias, 1e-5, x.dtype()))?;
    let spread = variable("wide", &[batch, seq, wide], 1.0)?;
    time("gelu", rounds, 0.0, || ops::activate(&spread, Activation::Gelu))?;
    let qkv = variable("qkv", &[batch, seq, 3 * hidden], 1.0)?;
    time("attention", rounds, mixing, || ops::attention(&qkv, heads, Some(&rope), true, None))?;
    let table = weight("table", vocab, hidden)?;
    let ids: Vec<u32> = (0..rows).map(|i| (i * 7919 % vocab) as u32).collect();
    let ids = Tensor::from_vec(ids, (batch, seq), &Device::Cpu)?;
    time("embedding", rounds, 0.0, || ops::embedding(&ids, &table))?;
    let (states, targets) = (x.flatten_to(1)?, ids.flatten_all()?);
    time("head and loss", rounds, product(vocab, hidden), || ops::head_loss(&states, &table, &targets, 0.0))?;

    let plain = |weight: Tensor| Projection { weight, update: None };
    let norm = || Norm { weight: scale.clone(), bias: Some(bias.clone()), eps: 1e-5 };
    let block = Block {
        norm1: norm(),
        qkv: plain(weight("qkv", 3 * hidden, hidden)?),
        out_proj: plain(weight("out", hidden, hidden)?),
        norm2: norm(),
        fc1: plain(fc1.clone()),
        fc2: plain(weight("fc2", hidden, wide)?),
        heads,
        rope: Some(rope),
        causal: true,
        activation: Activation::Gelu,
        masks: [None; 3],
    };
    let all = product(3 * hidden, hidden) + product(hidden, hidden) + 2.0 * product(wide, hidden) + mixing;
    time("block", rounds, all, || ops::block(&x, &block))
}
