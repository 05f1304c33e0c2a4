//! Fused in f32 against composed in f64, in values and gradients; composed against finite differences in f64.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::rngs::StdRng;

use super::*;
use crate::model::config::Activation;
use crate::model::dropout::Dropout;
use crate::model::init::normal;
use crate::seed;

fn random(rng: &mut StdRng, shape: &[usize]) -> Tensor {
    Tensor::from_vec(normal(rng, shape.iter().product(), 1.0), shape, &Device::Cpu).unwrap()
}

/// The tables of a small head: `seq` positions, `head_dim` dimensions.
fn tables(seq: usize, head_dim: usize) -> Rope {
    let angle = |position: usize, pair: usize| position as f32 * 10_000f32.powf(-(2.0 * pair as f32) / head_dim as f32);
    let angles: Vec<f32> = (0..seq).flat_map(|p| (0..head_dim / 2).map(move |pair| angle(p, pair))).collect();
    let angles = Tensor::from_vec(angles, (seq, head_dim / 2), &Device::Cpu).unwrap();
    Rope { cos: angles.cos().unwrap(), sin: angles.sin().unwrap() }
}

/// A scalar that weighs every element of `y` differently, so that no gradient can hide in a symmetry.
fn probe(y: &Tensor) -> Result<Tensor> {
    let weights: Vec<f32> = (0..y.elem_count()).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
    (y * Tensor::from_vec(weights, y.shape(), y.device())?.to_dtype(y.dtype())?)?.sum_all()
}

type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Tensors in the type of floats of another: what a composed form in f64 holds beside its inputs.
fn like(tensors: &[Tensor], other: &Tensor) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.to_dtype(other.dtype()).unwrap()).collect()
}

/// Values and gradients of the fused form, in f32, agree with those of the composed form in f64 to `tolerance`, relative to the
/// largest value.
fn agree(inputs: &[Tensor], fused: Op, composed: Op, tolerance: f64) {
    let run = |op: Op, floats: DType| -> Result<(Tensor, Vec<Tensor>)> {
        let vars = inputs.iter().map(|input| Var::from_tensor(&input.to_dtype(floats)?));
        let vars: Vec<Var> = vars.collect::<Result<_>>()?;
        let y = op(&vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>())?;
        assert_eq!(y.dtype(), floats);
        let gradients = backward(&probe(&y)?)?;
        Ok((y, vars.iter().map(|var| gradients.get(var).expect("a gradient").clone()).collect()))
    };
    let (y, gradients) = run(fused, DType::F32).unwrap();
    let (expected, expected_gradients) = run(composed, DType::F64).unwrap();
    let difference = |a: &Tensor, b: &Tensor| -> Result<f64> {
        let scale = b.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
        Ok((a.to_dtype(DType::F64)? - b)?.abs()?.max_all()?.to_scalar::<f64>()? / scale)
    };
    assert_eq!(y.dims(), expected.dims());
    let off = difference(&y, &expected).unwrap();
    assert!(off < tolerance, "values differ by {off}");
    for (index, (a, b)) in gradients.iter().zip(&expected_gradients).enumerate() {
        let off = difference(a, b).unwrap();
        assert!(off < tolerance, "gradient {index} differs by {off}");
    }
}

/// The composed form's gradient agrees with central differences in f64.
fn check_gradient(inputs: &[Tensor], op: Op) {
    let inputs: Vec<Tensor> = inputs.iter().map(|input| input.to_dtype(DType::F64).unwrap()).collect();
    let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let gradients = backward(&probe(&op(&tensors).unwrap()).unwrap()).unwrap();
    const STEP: f64 = 1e-5;
    for (index, input) in inputs.iter().enumerate() {
        let gradient = gradients.get(&vars[index]).expect("a gradient").flatten_all().unwrap();
        let gradient = gradient.to_vec1::<f64>().unwrap();
        let values = input.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for element in (0..values.len()).step_by(values.len() / 12 + 1) {
            let at = |step: f64| -> f64 {
                let mut moved = values.clone();
                moved[element] += step;
                let mut all = inputs.clone();
                all[index] = Tensor::from_vec(moved, input.shape(), &Device::Cpu).unwrap();
                probe(&op(&all).unwrap()).unwrap().to_scalar().unwrap()
            };
            let numeric = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let off = (gradient[element] - numeric).abs() / numeric.abs().max(1.0);
            assert!(off < 1e-7, "input {index}, element {element}: {} and {numeric}", gradient[element]);
        }
    }
}

#[test]
fn linear_agrees() {
    let rng = &mut seed::rng(1, "linear");
    let inputs = [random(rng, &[2, 5, 24]), random(rng, &[40, 24])];
    agree(&inputs, &|i| super::linear::linear(&i[0], &i[1]), &|i| composed::linear(&i[0], &i[1]), 1e-5);
    let frozen = inputs[1].clone();
    let op = |i: &[Tensor]| super::linear::linear(&i[0], &frozen);
    agree(&inputs[..1], &op, &|i| composed::linear(&i[0], &like(&inputs[1..], &i[0])[0]), 1e-5);
    // A view with strides must be read by its layout.
    let turned = |i: &[Tensor]| i[0].transpose(0, 1);
    let op = |i: &[Tensor]| super::linear::linear(&turned(i)?, &frozen);
    agree(&inputs[..1], &op, &|i| composed::linear(&turned(i)?, &like(&inputs[1..], &i[0])[0]), 1e-5);
    check_gradient(&inputs, &|i| composed::linear(&i[0], &i[1]));
}

#[test]
fn linear_with_kept_layouts_agrees() {
    let rng = &mut seed::rng(1, "kept");
    // A few rows, a good many, and enough multiplications for every thread; each again with the layouts made before.
    for (rows, input, out) in [(5, 24, 40), (70, 24, 40), (600, 160, 180)] {
        let (x, weight) = ([random(rng, &[rows, input])], random(rng, &[out, input]));
        let layouts = Arc::default();
        for _ in 0..2 {
            let op = |i: &[Tensor]| super::linear::kept(&i[0], &weight, &layouts);
            agree(&x, &op, &|i| composed::linear(&i[0], &like(std::slice::from_ref(&weight), &i[0])[0]), 1e-5);
        }
    }
    // A variable may change: its layouts would be those of yesterday.
    let (x, weight) = (random(rng, &[8, 24]), Var::from_tensor(&random(rng, &[40, 24])).unwrap());
    let layouts = Arc::default();
    let values = || linear_kept(&x, &weight, &layouts).unwrap().to_vec2::<f32>().unwrap();
    let before = values();
    weight.set(&(weight.as_tensor() * 2.0).unwrap()).unwrap();
    assert_ne!(before, values());
}

#[test]
fn norms_agree() {
    let rng = &mut seed::rng(1, "norms");
    // 150 rows: more than two tasks; 37 columns: no multiple of the lanes.
    let inputs = [random(rng, &[3, 50, 37]), random(rng, &[37]), random(rng, &[37])];
    let layer = |i: &[Tensor]| norm::layer_norm(&i[0], &i[1], &i[2], 1e-5);
    agree(&inputs, &layer, &|i| composed::layer_norm(&i[0], &i[1], &i[2], 1e-5), 1e-5);
    let rms = |i: &[Tensor]| norm::rms_norm(&i[0], &i[1], 1e-5);
    agree(&inputs[..2], &rms, &|i| composed::rms_norm(&i[0], &i[1], 1e-5), 1e-5);
    let small = [random(rng, &[2, 3, 7]), random(rng, &[7]), random(rng, &[7])];
    check_gradient(&small, &|i| composed::layer_norm(&i[0], &i[1], &i[2], 1e-5));
    check_gradient(&small[..2], &|i| composed::rms_norm(&i[0], &i[1], 1e-5));
}

#[test]
fn activations_agree() {
    let rng = &mut seed::rng(1, "activations");
    let inputs = [(random(rng, &[5, 70, 66]) * 3.0).unwrap()];
    for kind in [Activation::Gelu, Activation::Silu, Activation::GeGlu, Activation::SwiGlu] {
        let op = |i: &[Tensor]| activation::activate(&i[0], kind);
        agree(&inputs, &op, &|i| composed::activate(&i[0], kind), 1e-5);
        check_gradient(&[random(rng, &[3, 8])], &|i| composed::activate(&i[0], kind));
    }
}

#[test]
fn embeddings_agree() {
    let rng = &mut seed::rng(1, "embeddings");
    let inputs = [random(rng, &[11, 6])];
    let ids = Tensor::new(&[[3u32, 0, 3, 10], [3, 1, 0, 9]], &Device::Cpu).unwrap();
    let op = |i: &[Tensor]| super::embedding::embedding(&ids, &i[0]);
    agree(&inputs, &op, &|i| composed::embedding(&ids, &i[0]), 1e-6);
    let outside = Tensor::new(&[[11u32]], &Device::Cpu).unwrap();
    assert!(super::embedding::embedding(&outside, &inputs[0]).is_err());
}

#[test]
fn attention_agrees() {
    let rng = &mut seed::rng(1, "attention");
    // 70 positions: more than one block and no multiple of it.
    let (heads, seq) = (3, 70);
    let inputs = [random(rng, &[2, seq, 3 * heads * 8])];
    let rope = tables(seq, 8);
    let mask = Dropout::new(seed::rng(1, "mask")).mask(0.3);
    assert!(mask.is_some());
    for causal in [true, false] {
        for rope in [None, Some(&rope)] {
            for mask in [None, mask] {
                let op = |i: &[Tensor]| super::attention::attention(&i[0], heads, rope, causal, mask);
                agree(&inputs, &op, &|i| composed::attention(&i[0], heads, rope, causal, mask), 2e-5);
            }
        }
    }
    let rope = tables(4, 6);
    let small = [random(rng, &[1, 4, 3 * 2 * 6])];
    for causal in [true, false] {
        check_gradient(&small, &|i| composed::attention(&i[0], 2, Some(&rope), causal, None));
    }
}

#[test]
fn cached_attention_agrees() {
    let rng = &mut seed::rng(1, "cached");
    // Room for 30 columns, 23 in use: views with gaps. Heads of 6 and 20: no multiple of the lanes, and more than them.
    for (d, new) in [(6, 1), (20, 1), (6, 5), (6, 23)] {
        let (q, room) = (random(rng, &[4, 3, new, d]), [4, 3, 30, d]);
        let view = |tensor: Tensor| tensor.narrow(2, 0, 23).unwrap();
        let (k, v) = (view(random(rng, &room)), view(random(rng, &room)));
        let starts: Vec<usize> = [0, 7, 22, 3].iter().map(|&start: &usize| start.min(23 - new)).collect();
        let y = super::attention::cached_attention(&q, &k, &v, &starts).unwrap();
        let expected = composed::cached_attention(&q, &k, &v, &starts).unwrap();
        assert_eq!(y.dims(), expected.dims());
        let off = (y - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(off < 1e-5, "values differ by {off}");
        // Keys turned on their side must be read by their layout.
        let turned = k.t().unwrap().contiguous().unwrap().t().unwrap();
        let again = super::attention::cached_attention(&q, &turned, &v, &starts).unwrap();
        let first = super::attention::cached_attention(&q, &k, &v, &starts).unwrap();
        let all = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(all(again), all(first));
        assert!(super::attention::cached_attention(&q, &k, &v, &[0, 0, 0]).is_err(), "a start is missing");
        assert!(super::attention::cached_attention(&q, &k, &v, &[0, 0, 0, 24 - new]).is_err(), "a row of nothing");
    }
    let var = Var::from_tensor(&random(rng, &[1, 1, 1, 6])).unwrap();
    let (k, v) = (random(rng, &[1, 1, 4, 6]), random(rng, &[1, 1, 4, 6]));
    let y = super::attention::cached_attention(var.as_tensor(), &k, &v, &[0]).unwrap();
    assert!(probe(&y).unwrap().backward().is_err(), "no gradient is lost in silence");
}

#[test]
fn joined_caches_agree() {
    let rng = &mut seed::rng(1, "joined");
    // 9 of 12 columns in use, 4 of 6: the longest row has 7, and 10 have room.
    let (a, b) = (random(rng, &[2, 3, 12, 5]), random(rng, &[1, 3, 6, 5]));
    let parts = [(a, vec![2, 4], 9), (b, vec![0], 4)];
    let joined = super::attention::join_cached(&parts, 7, 10).unwrap();
    let expected = composed::join_cached(&parts, 7, 10).unwrap();
    assert_eq!(joined.dims(), expected.dims());
    // Columns before a row's start are nobody's, and may hold anything.
    for (row, start) in [0, 2, 3].into_iter().enumerate() {
        let seen = |tensor: &Tensor| {
            let own = tensor.narrow(0, row, 1).unwrap().narrow(2, start, 7 - start).unwrap();
            own.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(seen(&joined), seen(&expected), "row {row}");
    }
    assert!(super::attention::join_cached(&parts, 6, 10).is_err(), "a row is longer");
    assert!(super::attention::join_cached(&parts, 7, 6).is_err(), "no room");
    assert!(super::attention::join_cached(&[], 7, 10).is_err());
}

/// A block of `hidden` 12 over the tensors given: two norms (with biases when `layer`), four matrices, and where `low` the
/// low-rank matrices of each.
fn block_of(mut tensors: impl Iterator<Item = Tensor>, layer: bool, low: bool, masks: &[Option<Mask>; 7]) -> Block {
    let mut next = || tensors.next().unwrap();
    let norm = |next: &mut dyn FnMut() -> Tensor| Norm { weight: next(), bias: layer.then(next), eps: 1e-5 };
    let linear = |next: &mut dyn FnMut() -> Tensor, mask| Projection {
        weight: next(),
        layouts: Arc::default(),
        update: low.then(|| Update { a: next(), b: next(), scale: 0.7, mask }),
    };
    let (norm1, norm2) = (norm(&mut next), norm(&mut next));
    let [qkv, out_proj, fc1, fc2] = [0, 1, 2, 3].map(|index| linear(&mut next, masks[index]));
    let activation = if layer { Activation::Gelu } else { Activation::SwiGlu };
    let masks = [masks[4], masks[5], masks[6]];
    Block { norm1, qkv, out_proj, norm2, fc1, fc2, heads: 3, rope: None, causal: true, activation, masks }
}

/// The tensors that [`block_of`] takes.
fn block_tensors(rng: &mut StdRng, layer: bool, low: bool) -> Vec<Tensor> {
    let mut all: Vec<Tensor> = (0..if layer { 4 } else { 2 }).map(|_| random(rng, &[12])).collect();
    for (out, input) in [(36, 12), (12, 12), (20, 12), (12, if layer { 20 } else { 10 })] {
        all.push((random(rng, &[out, input]) * 0.3).unwrap());
        if low {
            all.extend([random(rng, &[2, input]), random(rng, &[out, 2])]);
        }
    }
    all
}

#[test]
fn blocks_agree() {
    let rng = &mut seed::rng(1, "blocks");
    let mut dropout = Dropout::new(seed::rng(1, "masks"));
    let masks: [Option<Mask>; 7] = std::array::from_fn(|_| dropout.mask(0.2));
    // 9 sequences go through two together, and the last by itself; 70 positions: more than one block of rows of attention.
    let x = random(rng, &[9, 70, 12]);
    let turned = tables(70, 4);
    let with_rope = |block: Block, rope: &Rope| Block { rope: Some(rope.clone()), ..block };
    for layer in [true, false] {
        for low in [true, false] {
            for masks in [&[None; 7], &masks] {
                let weights = block_tensors(rng, layer, low);
                let build =
                    |tensors: &[Tensor]| with_rope(block_of(tensors.iter().cloned(), layer, low, masks), &turned);
                let all = [std::slice::from_ref(&x), &weights[..]].concat();
                let fused = |i: &[Tensor]| super::block::block(&i[0], &build(&i[1..]));
                agree(&all, &fused, &|i| super::block::stepwise(&i[0], &build(&i[1..])), 5e-5);
                // Nothing is trained: a gradient for x alone.
                let fused = |i: &[Tensor]| super::block::block(&i[0], &build(&weights));
                let stepwise = |i: &[Tensor]| super::block::stepwise(&i[0], &build(&like(&weights, &i[0])));
                agree(&all[..1], &fused, &stepwise, 5e-5);
            }
        }
    }
    // 26 sequences, three together: more parts than there are groups of gradients, and the last one is short.
    let x = random(rng, &[26, 70, 12]);
    let weights = block_tensors(rng, false, true);
    let build = |tensors: &[Tensor]| with_rope(block_of(tensors.iter().cloned(), false, true, &masks), &turned);
    let all = [std::slice::from_ref(&x), &weights[..]].concat();
    let fused = |i: &[Tensor]| super::block::block(&i[0], &build(&i[1..]));
    agree(&all, &fused, &|i| super::block::stepwise(&i[0], &build(&i[1..])), 5e-5);
    // A frozen base under trained updates.
    let weights = block_tensors(rng, true, true);
    let trained = |index: usize| index >= 4 && !(index - 4).is_multiple_of(3);
    let place = |given: &[Tensor]| {
        let frozen = like(&weights, &given[0]);
        let mut given = given.iter();
        let tensors =
            frozen.iter().enumerate().map(|(i, w)| if trained(i) { given.next().unwrap() } else { w }.clone());
        with_rope(block_of(tensors, true, true, &masks), &turned)
    };
    let updates = weights.iter().enumerate().filter(|(i, _)| trained(*i)).map(|(_, w)| w.clone());
    let all: Vec<Tensor> = std::iter::once(x.clone()).chain(updates).collect();
    let fused = |i: &[Tensor]| super::block::block(&i[0], &place(&i[1..]));
    agree(&all, &fused, &|i| super::block::stepwise(&i[0], &place(&i[1..])), 5e-5);
    // The single operations themselves against finite differences.
    let small = [&[random(rng, &[2, 5, 12])], &block_tensors(rng, true, true)[..]].concat();
    let build = |tensors: &[Tensor]| block_of(tensors.iter().cloned(), true, true, &[None; 7]);
    check_gradient(&small, &|i| super::block::stepwise(&i[0], &build(&i[1..])));
    // Weights lie beside candle's graph: its own backward pass must not lose them in silence.
    let x = random(rng, &[4, 5, 12]);
    let vars: Vec<Var> = block_tensors(rng, true, true).iter().map(|w| Var::from_tensor(w).unwrap()).collect();
    let vars: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = super::block::block(&x, &build(&vars)).unwrap();
    let said = probe(&y).unwrap().backward().unwrap_err().to_string();
    assert!(said.contains("ops::backward"), "{said}");
    assert!(vars.iter().all(|var| backward(&probe(&y).unwrap()).unwrap().get(var).is_some()));
    let wrong = build(&block_tensors(rng, true, true));
    assert!(super::block::block(&random(rng, &[4, 5, 9]), &wrong).is_err(), "weights of another width");
}

#[test]
fn head_losses_agree() {
    let rng = &mut seed::rng(1, "head");
    // 1,100 rows: groups of 138, none full at the end.
    let inputs = [random(rng, &[1100, 8]), random(rng, &[50, 8])];
    let targets: Vec<u32> = (0..1100).map(|i| (i * 7 + 3) % 50).collect();
    let targets = Tensor::new(targets, &Device::Cpu).unwrap();
    for smoothing in [0.0, 0.1] {
        let composed = |x: &Tensor, w: &Tensor| {
            (composed::cross_entropy(&composed::linear(x, w)?, &targets, smoothing)? * 40.0)?.reshape(1)
        };
        let fused = |x: &Tensor, w: &Tensor| {
            (super::head::head_loss(x, w, &Default::default(), &targets, smoothing)? * 40.0)?.reshape(1)
        };
        agree(&inputs, &|i| fused(&i[0], &i[1]), &|i| composed(&i[0], &i[1]), 1e-5);
        let frozen = inputs[1].clone();
        agree(&inputs[..1], &|i| fused(&i[0], &frozen), &|i| composed(&i[0], &like(&inputs[1..], &i[0])[0]), 1e-5);
    }
    assert!(super::head::head_loss(&inputs[0], &random(rng, &[50, 9]), &Default::default(), &targets, 0.0).is_err());
}

#[test]
fn a_mask_is_the_same_element_by_element_and_at_once() {
    let mask = Dropout::new(seed::rng(1, "mask")).mask(0.3).unwrap();
    let mut values = vec![1f32; 5000];
    mask.apply(&mut values, 77);
    assert!(values.iter().zip(77..).all(|(value, index)| *value == mask.factor(index)));
}

#[test]
fn cross_entropies_agree() {
    let rng = &mut seed::rng(1, "loss");
    let inputs = [(random(rng, &[33, 50]) * 4.0).unwrap()];
    let targets: Vec<u32> = (0..33).map(|i| (i * 7 + 3) % 50).collect();
    let targets = Tensor::new(targets, &Device::Cpu).unwrap();
    for smoothing in [0.0, 0.1] {
        let op = |i: &[Tensor]| super::cross_entropy::cross_entropy(&i[0], &targets, smoothing);
        agree(&inputs, &op, &|i| composed::cross_entropy(&i[0], &targets, smoothing), 1e-6);
        let few = targets.narrow(0, 0, 4).unwrap();
        check_gradient(&[random(rng, &[4, 50])], &|i| composed::cross_entropy(&i[0], &few, smoothing));
    }
    let outside = Tensor::new(vec![50u32; 33], &Device::Cpu).unwrap();
    assert!(super::cross_entropy::cross_entropy(&inputs[0], &outside, 0.0).is_err());
}

#[test]
fn dropout_keeps_the_share_it_should_and_repeats_its_mask() {
    let x = Tensor::ones(20_000, DType::F32, &Device::Cpu).unwrap();
    let mut dropout = Dropout::new(seed::rng(1, "dropout"));
    let mask = dropout.mask(0.2).unwrap();
    let y = super::dropout(&x, mask).unwrap().to_vec1::<f32>().unwrap();
    let kept = y.iter().filter(|&&value| value != 0.0).count();
    assert!((15_700..16_300).contains(&kept), "{kept} of 20000 kept");
    assert!(y.iter().all(|&value| value == 0.0 || (value - 1.25).abs() < 1e-6));
    assert_eq!(y, super::dropout(&x, mask).unwrap().to_vec1::<f32>().unwrap());
    assert_ne!(y, super::dropout(&x, dropout.mask(0.2).unwrap()).unwrap().to_vec1::<f32>().unwrap());
    assert!(Dropout::off().mask(0.2).is_none());
}
