//! The operations of the transformer at the sizes of the small base, 16 × 256 tokens: forward, and forward with the gradient.
//!
//! Rates count multiply-adds of matrix products twice, without what is computed again.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use codelora::experiment::LoraConfig;
use codelora::model::config::{Activation, ArchConfig};
use codelora::model::dropout::Dropout;
use codelora::model::init::init;
use codelora::model::lora;
use codelora::model::ops::{self, Block, Norm, Projection, Rope, Update};
use codelora::model::transformer::Transformer;
use codelora::seed::rng;
use criterion::{Criterion, Throughput};

use crate::sizes::{random, slow, small, variable};

const BATCH: usize = 16;
const SEQ: usize = 256;
const RANK: usize = 8;

/// Times `op` forward, and forward and back. `flops` are those of both, in units of a forward product.
fn time(criterion: &mut Criterion, name: &str, (forward, both): (usize, usize), op: impl Fn() -> Result<Tensor>) {
    let mut group = slow(criterion, &format!("kernels/{name}"));
    if forward > 0 {
        group.throughput(Throughput::Elements(forward as u64));
    }
    group.bench_function("forward", |bencher| bencher.iter(|| op().expect("forward")));
    if both > 0 {
        group.throughput(Throughput::Elements(both as u64));
    }
    let both = || -> Result<_> { ops::backward(&op()?.sum_all()?) };
    group.bench_function("both", |bencher| bencher.iter(|| both().expect("forward and back")));
}

fn projection(name: &str, out: usize, input: usize, low: bool) -> Result<Projection> {
    let size = 1.0 / (input as f32).sqrt();
    let update = |name: &str| -> Result<Update> {
        let (a, b) = (
            variable(&format!("{name} a"), &[RANK, input], size)?,
            variable(&format!("{name} b"), &[out, RANK], size)?,
        );
        Ok(Update { a, b, scale: 2.0, mask: None })
    };
    let weight = if low { random(name, &[out, input], size)? } else { variable(name, &[out, input], size)? };
    Ok(Projection { weight, layouts: Arc::default(), update: low.then(|| update(name)).transpose()? })
}

/// A block of the small base; `low` freezes it under low-rank updates of attention's matrices.
fn block(arch: &ArchConfig, rope: &Rope, low: bool) -> Result<Block> {
    let (hidden, wide) = (arch.hidden_dim, arch.fc1_dim());
    let norm = || -> Result<Norm> {
        let (weight, bias) = (random("scale", &[hidden], 1.0)?, random("bias", &[hidden], 1.0)?);
        Ok(Norm { weight, bias: Some(bias), eps: 1e-5 })
    };
    let frozen = |name: &str, out: usize, input: usize| -> Result<Projection> {
        let plain = projection(name, out, input, low)?;
        Ok(Projection { update: None, ..plain })
    };
    Ok(Block {
        norm1: norm()?,
        qkv: projection("qkv", 3 * hidden, hidden, low)?,
        out_proj: projection("out", hidden, hidden, low)?,
        norm2: norm()?,
        fc1: frozen("fc1", wide, hidden)?,
        fc2: frozen("fc2", hidden, wide)?,
        heads: arch.num_heads,
        rope: Some(rope.clone()),
        causal: true,
        activation: Activation::Gelu,
        masks: [None; 3],
    })
}

/// A layer of the model with its adapter attached, as training runs it: the joint projection of one block.
fn adapted(arch: &ArchConfig) -> codelora::Result<(Transformer, lora::Adapter)> {
    let vars = init(arch, &mut rng(1, "init"), &Device::Cpu)?;
    let weights: BTreeMap<String, Tensor> = vars.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    let mut model = Transformer::from_weights(arch, &weights)?;
    let plan = LoraConfig {
        rank: RANK,
        alpha: 16.0,
        dropout: 0.0,
        targets: vec!["qkv".into()],
        rslora: false,
        dora: false,
        lr_ratio: 1.0,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
    };
    let adapter = lora::attach(&mut model, &plan, &mut rng(1, "adapter"))?;
    Ok((model, adapter))
}

fn all(criterion: &mut Criterion) -> codelora::Result<()> {
    let arch = small();
    let (hidden, heads, vocab, wide) = (arch.hidden_dim, arch.num_heads, arch.vocab_size, arch.fc1_dim());
    let rows = BATCH * SEQ;
    let product = |out: usize, input: usize| 2 * rows * out * input;
    // Forward, and with both gradients or, under a frozen weight, with one.
    let (trained, frozen) = (|flops: usize| (flops, 3 * flops), |flops: usize| (flops, 2 * flops));
    // Two products forward and four back, over half of the square.
    let mixing = 2 * BATCH * SEQ * SEQ * hidden;

    let x = variable("x", &[BATCH, SEQ, hidden], 1.0)?;
    let qkv = projection("qkv", 3 * hidden, hidden, false)?.weight;
    time(criterion, "linear", trained(product(3 * hidden, hidden)), || ops::linear(&x, &qkv));
    let still = qkv.detach();
    time(criterion, "linear, frozen", frozen(product(3 * hidden, hidden)), || ops::linear(&x, &still));
    let layouts = Arc::default();
    let kept = || ops::linear_kept(&x, &still, &layouts);
    time(criterion, "linear, laid out once", frozen(product(3 * hidden, hidden)), kept);
    let (model, _adapter) = adapted(&arch)?;
    let layer = model.linears()[0];
    let low = 2 * rows * RANK * (3 * hidden + hidden);
    let flops = (product(3 * hidden, hidden) + low, 2 * product(3 * hidden, hidden) + 3 * low);
    time(criterion, "linear, frozen, LoRA", flops, || {
        layer.forward(&x, &mut Dropout::off()).map_err(candle_core::Error::wrap)
    });

    let (scale, bias) = (variable("scale", &[hidden], 1.0)?, variable("bias", &[hidden], 1.0)?);
    time(criterion, "layer norm", (0, 0), || ops::layer_norm(&x, &scale, &bias, 1e-5, x.dtype()));
    time(criterion, "rms norm", (0, 0), || ops::rms_norm(&x, &scale, 1e-5, x.dtype()));
    let spread = variable("wide", &[BATCH, SEQ, wide], 1.0)?;
    time(criterion, "gelu", (0, 0), || ops::activate(&spread, Activation::Gelu));
    let rope = Rope::new(&arch, &Device::Cpu)?.first(SEQ)?;
    let joint = variable("joint", &[BATCH, SEQ, 3 * hidden], 1.0)?;
    time(criterion, "RoPE and attention", trained(mixing), || ops::attention(&joint, heads, Some(&rope), true, None));

    let table = variable("table", &[vocab, hidden], 1.0)?;
    let ids: Vec<u32> = (0..rows).map(|i| (i * 7919 % vocab) as u32).collect();
    let ids = Tensor::from_vec(ids, (BATCH, SEQ), &Device::Cpu)?;
    time(criterion, "embedding", (0, 0), || ops::embedding(&ids, &table));
    let (states, targets) = (x.flatten_to(1)?, ids.flatten_all()?);
    time(criterion, "head and loss", trained(product(vocab, hidden)), || {
        ops::head_loss(&states, &table, &Arc::default(), &targets, 0.0)
    });
    let logits = variable("logits", &[rows, vocab], 1.0)?;
    time(criterion, "cross-entropy", (0, 0), || ops::cross_entropy(&logits, &targets, 0.0));

    let products = product(3 * hidden, hidden) + product(hidden, hidden) + 2 * product(wide, hidden);
    let whole = block(&arch, &rope, false)?;
    time(criterion, "block", trained(products + mixing), || ops::block(&x, &whole));
    let low = 2 * rows * RANK * (4 * hidden + 2 * hidden);
    let flops = (products + mixing + low, 2 * products + 3 * (mixing + low));
    let whole = block(&arch, &rope, true)?;
    time(criterion, "block, frozen, LoRA", flops, || ops::block(&x, &whole));
    Ok(())
}

/// All of them.
pub fn bench(criterion: &mut Criterion) {
    all(criterion).expect("the kernels run");
}
