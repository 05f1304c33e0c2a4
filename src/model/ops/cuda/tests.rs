//! The kernels against the composed form on the same device, in values and gradients. Without a device the tests say so.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::super::{Rope, composed};
use crate::model::init::normal;
use crate::seed;

/// The first CUDA device, or none with a line that says so.
fn device() -> Option<Device> {
    let device = Device::new_cuda(0);
    if let Err(error) = &device {
        eprintln!("skipped: no CUDA device answers ({error})");
    }
    device.ok()
}

fn random(name: &str, shape: &[usize], device: &Device) -> Tensor {
    let values = normal(&mut seed::rng(1, name), shape.iter().product(), 1.0);
    Tensor::from_vec(values, shape, device).unwrap()
}

/// A scalar that weighs every element of `y` differently.
fn probe(y: &Tensor) -> Result<Tensor> {
    let weights: Vec<f32> = (0..y.elem_count()).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
    (y.to_dtype(DType::F32)? * Tensor::from_vec(weights, y.shape(), y.device())?)?.sum_all()
}

type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Kernel and composed form agree to `tolerance`, relative to the largest value, with activations in f32; in bf16, to what
/// eight bits of precision leave.
fn agree(what: &str, inputs: &[Tensor], activations: usize, kernel: Op, composed: Op, tolerance: f64) {
    for (floats, tolerance) in [(DType::F32, tolerance), (DType::BF16, 0.03)] {
        let run = |op: Op, floats: DType| -> Result<(Tensor, Vec<Tensor>)> {
            let vars: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
            let cast = |(i, var): (usize, &Var)| {
                if i < activations { var.to_dtype(floats) } else { Ok(var.as_tensor().clone()) }
            };
            let y = op(&vars.iter().enumerate().map(cast).collect::<Result<Vec<_>>>()?)?;
            let gradients = probe(&y)?.backward()?;
            Ok((y.to_dtype(DType::F32)?, vars.iter().map(|v| gradients.get(v).expect("a gradient").clone()).collect()))
        };
        if floats == DType::BF16 && activations == 0 {
            continue;
        }
        let (y, gradients) = run(kernel, floats).unwrap();
        // bf16 is held against f32: the composed form in bf16 rounds more often.
        let (expected, expected_gradients) = run(composed, DType::F32).unwrap();
        let difference = |a: &Tensor, b: &Tensor| -> Result<f64> {
            let scale = b.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?.max(1e-6);
            Ok(f64::from((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? / scale))
        };
        assert_eq!(y.dims(), expected.dims());
        let off = difference(&y, &expected).unwrap();
        eprintln!("{what} {floats:?}: values differ by {off:.1e}");
        assert!(off < tolerance, "{what} in {floats:?}: values differ by {off}");
        for (index, (a, b)) in gradients.iter().zip(&expected_gradients).enumerate() {
            let off = difference(a, b).unwrap();
            eprintln!("{what} {floats:?}: gradient {index} differs by {off:.1e}");
            assert!(off < tolerance, "{what} in {floats:?}: gradient {index} differs by {off}");
        }
    }
}

#[test]
fn linear_layers_agree() {
    let Some(device) = device() else { return };
    let inputs = [random("x", &[3, 70, 48], &device), random("w", &[40, 48], &device)];
    agree("linear", &inputs, 1, &|i| super::linear(&i[0], &i[1]), &|i| composed::linear(&i[0], &i[1]), 1e-5);
    let frozen = inputs[1].clone();
    let op = |i: &[Tensor]| super::linear(&i[0], &frozen);
    agree("frozen", &inputs[..1], 1, &op, &|i| composed::linear(&i[0], &frozen), 1e-5);
}

#[test]
fn norms_agree() {
    let Some(device) = device() else { return };
    // More rows than blocks, and no multiple; columns no multiple of the threads.
    let inputs = [random("x", &[7, 250, 200], &device), random("w", &[200], &device), random("b", &[200], &device)];
    for (floats, tolerance) in [(DType::F32, 2e-5), (DType::BF16, 0.03)] {
        let kernel = |i: &[Tensor]| super::norm(&i[0], &i[1], Some(&i[2]), 1e-5, floats)?.to_dtype(DType::F32);
        agree("layer norm", &inputs, 0, &kernel, &|i| composed::layer_norm(&i[0], &i[1], &i[2], 1e-5), tolerance);
        let kernel = |i: &[Tensor]| super::norm(&i[0], &i[1], None, 1e-5, floats)?.to_dtype(DType::F32);
        agree("rms norm", &inputs[..2], 0, &kernel, &|i| composed::rms_norm(&i[0], &i[1], 1e-5), tolerance);
    }
}

#[test]
fn residuals_agree() {
    let Some(device) = device() else { return };
    // The stream stays f32: only what is added is an activation.
    let inputs = [random("y", &[3, 70, 33], &device), random("x", &[3, 70, 33], &device)];
    agree("residual", &inputs, 1, &|i| super::residual(&i[1], &i[0]), &|i| &i[1] + &i[0], 1e-6);
}

#[test]
fn gelus_agree() {
    let Some(device) = device() else { return };
    let inputs = [(random("x", &[5, 70, 66], &device) * 3.0).unwrap()];
    let kind = crate::model::config::Activation::Gelu;
    agree("gelu", &inputs, 1, &|i| super::gelu(&i[0]), &|i| composed::activate(&i[0], kind), 1e-5);
}

#[test]
fn embeddings_agree() {
    let Some(device) = device() else { return };
    let inputs = [random("w", &[11, 6], &device)];
    let ids = Tensor::new(&[[3u32, 0, 3, 10], [3, 1, 0, 9]], &device).unwrap();
    agree("embedding", &inputs, 0, &|i| super::embedding(&ids, &i[0]), &|i| composed::embedding(&ids, &i[0]), 1e-6);
}

#[test]
fn attention_agrees() {
    let Some(device) = device() else { return };
    let (heads, seq, head_dim) = (3, 70, 16);
    let inputs = [random("qkv", &[2, seq, 3 * heads * head_dim], &device)];
    let angle = |p: usize, pair: usize| p as f32 * 10_000f32.powf(-(2.0 * pair as f32) / head_dim as f32);
    let angles: Vec<f32> = (0..seq).flat_map(|p| (0..head_dim / 2).map(move |pair| angle(p, pair))).collect();
    let angles = Tensor::from_vec(angles, (seq, head_dim / 2), &device).unwrap();
    let rope = Rope { cos: angles.cos().unwrap(), sin: angles.sin().unwrap() };
    for causal in [true, false] {
        for rope in [None, Some(&rope)] {
            let kernel = |i: &[Tensor]| super::attention(&i[0], heads, rope, causal);
            agree("attention", &inputs, 1, &kernel, &|i| composed::attention(&i[0], heads, rope, causal, None), 2e-5);
        }
    }
}

#[test]
fn cross_entropies_agree() {
    let Some(device) = device() else { return };
    let inputs = [(random("z", &[150, 1003], &device) * 2.0).unwrap()];
    let targets: Vec<u32> = (0..150u32).map(|row| row * 577 % 1003).collect();
    let targets = Tensor::new(targets, &device).unwrap();
    for smoothing in [0.0, 0.1] {
        let kernel = |i: &[Tensor]| super::cross_entropy(&i[0], &targets, smoothing);
        let composed = |i: &[Tensor]| composed::cross_entropy(&i[0], &targets, smoothing);
        agree("cross-entropy", &inputs, 1, &kernel, &composed, 1e-5);
    }
    let outside = Tensor::new(&[1003u32], &device).unwrap();
    let loss = super::cross_entropy(&inputs[0].narrow(0, 0, 1).unwrap(), &outside, 0.0).unwrap();
    assert!(loss.to_scalar::<f32>().unwrap().is_nan(), "a target outside the vocabulary has a loss");
}
