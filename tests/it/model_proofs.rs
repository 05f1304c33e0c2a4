//! Proofs about the model: causality, cache, adapters, checkpoints.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use codelora::experiment::LoraConfig;
use codelora::model::checkpoint;
use codelora::model::config::ArchConfig;
use codelora::model::dropout::Dropout;
use codelora::model::init::init;
use codelora::model::kv_cache::KvCache;
use codelora::model::lora::{self, Adapter};
use codelora::model::ops;
use codelora::model::transformer::Transformer;
use codelora::seed::rng;

type Outcome = codelora::Result<()>;

/// A small architecture; `change` edits its JSON.
fn arch(change: impl FnOnce(&mut serde_json::Value)) -> ArchConfig {
    let mut json = serde_json::json!({
        "arch_type": "transformer", "num_layers": 2, "hidden_dim": 32, "num_heads": 4, "ffn_multiplier": 3.0,
        "normalization": "layernorm", "activation": "gelu", "position_encoding": "rope", "vocab_size": 40,
        "max_seq_length": 24,
    });
    change(&mut json);
    serde_json::from_value(json).unwrap()
}

fn weights(config: &ArchConfig) -> codelora::Result<BTreeMap<String, Tensor>> {
    // Larger weights than a fresh model's, so that attention is far from uniform.
    let vars = init(config, &mut rng(1, "init"), &Device::Cpu)?;
    vars.into_iter()
        .map(|(key, var)| {
            Ok((
                key.clone(),
                if key.contains("norm") { var.as_detached_tensor() } else { (var.as_detached_tensor() * 8.0)? },
            ))
        })
        .collect()
}

fn ids(rows: usize, columns: usize) -> Tensor {
    let values: Vec<u32> = (0..rows * columns).map(|i| ((i * i * 7 + i * 13 + 5) % 40) as u32).collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn lora_config(targets: &[&str]) -> LoraConfig {
    LoraConfig {
        rank: 4,
        alpha: 8.0,
        dropout: 0.0,
        targets: targets.iter().map(|target| target.to_string()).collect(),
        rslora: false,
        dora: false,
        lr_ratio: 1.0,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
    }
}

/// Gives B values, as training would.
fn disturb(adapter: &Adapter) -> Outcome {
    for (key, var) in adapter.parameters() {
        if key.contains("lora_B") {
            let count = var.elem_count();
            let values: Vec<f32> = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 400.0).collect();
            var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
        }
    }
    Ok(())
}

#[test]
fn a_later_token_never_changes_an_earlier_logit() -> Outcome {
    for position in ["rope", "absolute"] {
        let config = arch(|json| json["position_encoding"] = position.into());
        let model = Transformer::from_weights(&config, &weights(&config)?)?;
        let before = model.forward(&ids(1, 20))?;
        let mut changed = ids(1, 20).to_vec2::<u32>()?;
        changed[0][12] ^= 1;
        let after = model.forward(&Tensor::new(changed, &Device::Cpu)?)?;
        assert_eq!(bits(&before.narrow(1, 0, 12)?), bits(&after.narrow(1, 0, 12)?), "{position}");
        assert_ne!(bits(&before.narrow(1, 12, 8)?), bits(&after.narrow(1, 12, 8)?), "{position}");
    }
    let config = arch(|json| json["attention"] = "bidirectional".into());
    let model = Transformer::from_weights(&config, &weights(&config)?)?;
    let before = model.forward(&ids(1, 20))?;
    let mut changed = ids(1, 20).to_vec2::<u32>()?;
    changed[0][12] ^= 1;
    let after = model.forward(&Tensor::new(changed, &Device::Cpu)?)?;
    assert_ne!(bits(&before.narrow(1, 0, 12)?), bits(&after.narrow(1, 0, 12)?), "the flawed model must be caught");
    Ok(())
}

#[test]
fn cached_logits_equal_the_full_pass() -> Outcome {
    for position in ["rope", "absolute"] {
        let config = arch(|json| json["position_encoding"] = position.into());
        let model = Transformer::from_weights(&config, &weights(&config)?)?;
        let ids = ids(3, 20);
        let full = model.forward(&ids)?;

        // Prompts of three lengths are prefilled apart, joined, expanded and thinned; then tokens follow one by one.
        let lengths = [5, 9, 2];
        let mut caches = Vec::new();
        for (row, &length) in lengths.iter().enumerate() {
            let mut cache = KvCache::new(&config);
            let prompt = ids.narrow(0, row, 1)?.narrow(1, 0, length)?;
            let logits = model.logits(&model.hidden_cached(&prompt, &mut cache)?)?;
            assert!(max_difference(&logits, &full.narrow(0, row, 1)?.narrow(1, 0, length)?) < 1e-4);
            caches.push(cache);
        }
        let mut cache = KvCache::join(caches)?;
        cache.expand(2)?; // rows 0 0 1 1 2 2
        assert_eq!(cache.lengths(), [5, 5, 9, 9, 2, 2]);
        cache.retain(&[5, 0, 2])?;
        let rows = [2, 0, 1];
        let all = ids.to_vec2::<u32>()?;
        for step in 0..8 {
            let next: Vec<u32> = rows.iter().map(|&row| all[row][lengths[row] + step]).collect();
            let hidden = model.hidden_cached(&Tensor::from_vec(next, (3, 1), &Device::Cpu)?, &mut cache)?;
            let logits = model.logits(&hidden)?;
            for (index, &row) in rows.iter().enumerate() {
                let expected = full.narrow(0, row, 1)?.narrow(1, lengths[row] + step, 1)?;
                assert!(max_difference(&logits.narrow(0, index, 1)?, &expected) < 1e-4, "{position} {step} {row}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_cache_refuses_more_than_the_context() -> Outcome {
    let config = arch(|_| ());
    let model = Transformer::from_weights(&config, &weights(&config)?)?;
    let mut cache = KvCache::new(&config);
    model.hidden_cached(&ids(2, 24), &mut cache)?;
    let error = model.hidden_cached(&ids(2, 1), &mut cache).unwrap_err().to_string();
    assert!(error.contains("exceed the context of 24"), "{error}");
    assert!(model.forward(&ids(1, 25)).is_err());
    Ok(())
}

#[test]
fn a_fresh_adapter_changes_nothing_and_a_merged_one_equals_the_unmerged() -> Outcome {
    // Two rows go through single operations, eight through a block as one.
    let variants = [(false, false), (true, false), (false, true)];
    for ((dora, rslora), rows) in variants.into_iter().flat_map(|variant| [(variant, 2), (variant, 8)]) {
        let config = arch(|_| ());
        let base = weights(&config)?;
        let mut model = Transformer::from_weights(&config, &base)?;
        let before = model.forward(&ids(rows, 9))?;
        let lora_config = LoraConfig { dora, rslora, ..lora_config(&["all-linear", "lm_head"]) };
        let mut adapter = lora::attach(&mut model, &lora_config, &mut rng(1, "lora"))?;
        let fresh = model.forward(&ids(rows, 9))?;
        assert_eq!(bits(&before), bits(&fresh), "dora: {dora}");
        disturb(&adapter)?;
        let adapted = model.forward(&ids(rows, 9))?;
        assert!(max_difference(&before, &adapted) > 1e-2, "the adapter must act");
        adapter.set_enabled(false);
        assert_eq!(bits(&before), bits(&model.forward(&ids(rows, 9))?));
        adapter.set_enabled(true);
        adapter.merge(&mut model)?;
        assert!(max_difference(&adapted, &model.forward(&ids(rows, 9))?) < 1e-5);
        assert!(adapter.merge(&mut model).is_err());
        adapter.unmerge(&mut model)?;
        for (key, weight) in model.weights() {
            assert_eq!(bits(&weight), bits(&base[&key]), "{key}");
        }
        assert_eq!(bits(&adapted), bits(&model.forward(&ids(rows, 9))?));
        // Off before a merge, off after it.
        adapter.set_enabled(false);
        adapter.merge(&mut model)?;
        adapter.unmerge(&mut model)?;
        assert_eq!(bits(&before), bits(&model.forward(&ids(rows, 9))?));
        adapter.set_enabled(true);
        adapter.detach(&mut model)?;
        assert_eq!(bits(&before), bits(&model.forward(&ids(rows, 9))?));
    }
    Ok(())
}

#[test]
fn a_merge_is_the_exact_sum_rounded_once() -> Outcome {
    let config = arch(|_| ());
    let mut model = Transformer::from_weights(&config, &weights(&config)?)?;
    let mut adapter = lora::attach(&mut model, &lora_config(&["all-linear"]), &mut rng(1, "lora"))?;
    disturb(&adapter)?;
    let values = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_vec2::<f64>();
    let mut expected = BTreeMap::new();
    for linear in model.linears() {
        let Some(layer) = adapter.layers().get(linear.name()) else { continue };
        let (w, a, b) = (values(linear.weight())?, values(&layer.a)?, values(&layer.b)?);
        let entry = |i: usize, j: usize| {
            let update: f64 = (0..layer.rank()).map(|r| b[i][r] * a[r][j]).sum();
            (w[i][j] + layer.scale * update) as f32
        };
        let rows: Vec<Vec<f32>> = (0..w.len()).map(|i| (0..w[0].len()).map(|j| entry(i, j)).collect()).collect();
        expected.insert(linear.name().to_string(), rows);
    }
    adapter.merge(&mut model)?;
    for linear in model.linears() {
        if let Some(expected) = expected.get(linear.name()) {
            assert_eq!(&linear.weight().to_vec2::<f32>()?, expected, "{}", linear.name());
        }
    }
    Ok(())
}

#[test]
fn several_adapters_sit_on_one_base_and_add_up() -> Outcome {
    let config = arch(|_| ());
    let base = weights(&config)?;
    let mut model = Transformer::from_weights(&config, &base)?;
    let logits = |model: &Transformer| model.forward(&ids(2, 9));
    let plain = logits(&model)?;
    let mut first = lora::attach_named(&mut model, "first", &lora_config(&["qkv"]), &mut rng(1, "first"))?;
    disturb(&first)?;
    let with_first = logits(&model)?;
    let mut second = lora::attach_named(&mut model, "second", &lora_config(&["attention"]), &mut rng(1, "second"))?;
    assert_eq!(bits(&with_first), bits(&logits(&model)?), "a fresh second adapter changes nothing");
    disturb(&second)?;
    let with_both = logits(&model)?;
    first.set_enabled(false);
    let with_second = logits(&model)?;
    first.set_enabled(true);
    for (one, other) in [(&with_first, &with_second), (&with_first, &with_both), (&with_second, &with_both)] {
        assert!(max_difference(one, other) > 1e-2, "each adapter acts");
    }
    // Merged one upon the other, they act as side by side; they come off in the reverse order only.
    first.merge(&mut model)?;
    second.merge(&mut model)?;
    assert!(max_difference(&with_both, &logits(&model)?) < 1e-5);
    let error = first.unmerge(&mut model).unwrap_err().to_string();
    assert!(error.contains("first") && error.contains("reverse order"), "{error}");
    second.unmerge(&mut model)?;
    first.unmerge(&mut model)?;
    assert_eq!(bits(&with_both), bits(&logits(&model)?));
    first.detach(&mut model)?;
    assert_eq!(bits(&with_second), bits(&logits(&model)?));
    second.detach(&mut model)?;
    assert_eq!(bits(&plain), bits(&logits(&model)?));
    Ok(())
}

#[test]
fn of_two_patterns_of_peft_the_first_in_the_file_counts() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let config = arch(|_| ());
    let mut model = Transformer::from_weights(&config, &weights(&config)?)?;
    let mut saved = lora::attach(&mut model, &lora_config(&["fc2"]), &mut rng(1, "lora"))?;
    saved.save_peft(folder.path(), "a base")?;
    saved.detach(&mut model)?;
    let file = folder.path().join("adapter_config.json");
    let written = std::fs::read_to_string(&file).unwrap();
    let mut load = |patterns: &str| -> codelora::Result<(f64, f64)> {
        let edited = written.replace("\"alpha_pattern\": {}", &format!("\"alpha_pattern\": {patterns}"));
        std::fs::write(&file, edited).unwrap();
        let mut adapter = lora::load_peft(&mut model, "theirs", folder.path(), "a base")?;
        let scale = |layer: &str| adapter.layers()[layer].scale * adapter.layers()[layer].rank() as f64;
        let scales = (scale("layers.0.ffn.fc2"), scale("layers.1.ffn.fc2"));
        adapter.detach(&mut model)?;
        Ok(scales)
    };
    assert_eq!(load(r#"{"layers.0.ffn.fc2": 2.0, "fc2": 6.0}"#)?, (2.0, 6.0));
    assert_eq!(load(r#"{"fc2": 6.0, "layers.0.ffn.fc2": 2.0}"#)?, (6.0, 6.0));
    let unknown = load(r#"{"fc9": 6.0}"#).unwrap_err().to_string();
    assert!(unknown.contains("fc9"), "{unknown}");
    let no_number = load(r#"{"fc2": "six"}"#).unwrap_err().to_string();
    assert!(no_number.contains("adapter_config.json") && no_number.contains("fc2"), "{no_number}");
    Ok(())
}

#[test]
fn the_default_adapter_of_the_29m_model_has_196608_parameters() -> Outcome {
    let config = arch(|json| {
        for (key, value) in
            [("num_layers", 8), ("hidden_dim", 512), ("num_heads", 8), ("vocab_size", 8000), ("max_seq_length", 256)]
        {
            json[key] = value.into();
        }
    });
    let shapes = checkpoint::expected_shapes(&config);
    let total: usize = shapes.values().map(|shape| shape.iter().product::<usize>()).sum();
    assert_eq!(total, 29_180_928);
    let weights = shapes
        .into_iter()
        .map(|(key, shape)| Ok((key, Tensor::zeros(shape, DType::F32, &Device::Cpu)?)))
        .collect::<codelora::Result<_>>()?;
    let mut model = Transformer::from_weights(&config, &weights)?;
    let lora_config = LoraConfig { rank: 8, alpha: 16.0, ..lora_config(&["qkv", "out_proj"]) };
    let adapter = lora::attach(&mut model, &lora_config, &mut rng(1, "lora"))?;
    assert_eq!(adapter.parameter_count(), 196_608);
    Ok(())
}

#[test]
fn impossible_adapters_are_refused_with_the_names_that_exist() -> Outcome {
    let config = arch(|_| ());
    let mut model = Transformer::from_weights(&config, &weights(&config)?)?;
    let mut attach =
        |config: LoraConfig| lora::attach(&mut model, &config, &mut rng(1, "lora")).unwrap_err().to_string();
    let error = attach(lora_config(&["q_proj"]));
    assert!(error.contains("q_proj") && error.contains("fc1, fc2, lm_head, out_proj, qkv"), "{error}");
    let error = attach(LoraConfig { rank: 0, ..lora_config(&["qkv"]) });
    assert!(error.contains("rank 0") && error.contains("from 1 to 32"), "{error}");
    let error = attach(LoraConfig { rank: 33, ..lora_config(&["qkv"]) });
    assert!(error.contains("rank 33"), "{error}");
    let error = attach(LoraConfig { rank_pattern: BTreeMap::from([("fc9".into(), 2)]), ..lora_config(&["qkv"]) });
    assert!(error.contains("fc9"), "{error}");
    Ok(())
}

#[test]
fn every_trainable_tensor_gets_a_gradient_and_no_other() -> Outcome {
    let config = arch(|_| ());
    let vars: BTreeMap<String, Var> = init(&config, &mut rng(1, "init"), &Device::Cpu)?;
    let tensors = vars.iter().map(|(key, var)| (key.clone(), var.as_tensor().clone())).collect();
    let mut model = Transformer::from_weights(&config, &tensors)?;
    let loss = |model: &Transformer| -> codelora::Result<Tensor> {
        let hidden = model.hidden(&ids(2, 9), &mut Dropout::off())?;
        model.loss(&hidden.flatten_to(1)?, &ids(2, 9).flatten_all()?, 0.1, &mut Dropout::off())
    };
    let gradients = ops::backward(&loss(&model)?)?;
    for (key, var) in &vars {
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{key} has no gradient"));
        assert!(gradient.abs()?.max_all()?.to_scalar::<f32>()? > 0.0, "{key} has a zero gradient");
    }
    let adapter = lora::attach(&mut model, &lora_config(&["all-linear"]), &mut rng(1, "lora"))?;
    disturb(&adapter)?;
    let gradients = ops::backward(&loss(&model)?)?;
    for (key, var) in &vars {
        assert!(gradients.get(var).is_none(), "{key} is frozen and has a gradient");
    }
    for (key, var) in adapter.parameters() {
        let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{key} has no gradient"));
        assert!(gradient.abs()?.max_all()?.to_scalar::<f32>()? > 0.0, "{key} has a zero gradient");
    }
    Ok(())
}

#[test]
fn checkpoints_return_what_was_saved_and_name_every_fault() -> Outcome {
    let config = arch(|_| ());
    let weights = weights(&config)?;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    config.save(&folder.path().join("arch.json"))?;
    checkpoint::save_safetensors(&weights, &file, DType::F32, &BTreeMap::new())?;
    let base = checkpoint::load(folder.path(), &Device::Cpu)?;
    assert_eq!(base.config, config);
    assert_eq!(base.digest, checkpoint::digest(&weights)?);
    checkpoint::save_safetensors(&weights, &file, DType::F16, &BTreeMap::new())?;
    let half = checkpoint::load(folder.path(), &Device::Cpu)?;
    assert_ne!(half.digest, base.digest);
    for (key, weight) in &half.weights {
        assert!(max_difference(weight, &weights[key]) < 1e-3, "{key}");
    }

    let mut broken = weights.clone();
    broken.remove("norm.bias");
    broken.insert("extra".into(), Tensor::zeros(3, DType::F32, &Device::Cpu)?);
    broken.insert("lm_head.weight".into(), Tensor::zeros((41, 32), DType::F32, &Device::Cpu)?);
    checkpoint::save_safetensors(&broken, &file, DType::F32, &BTreeMap::new())?;
    let error = checkpoint::load(folder.path(), &Device::Cpu).unwrap_err().to_string();
    for fault in ["missing norm.bias [32]", "unexpected extra [3]", "lm_head.weight is [41, 32], expected [40, 32]"] {
        assert!(error.contains(fault), "{fault} is not in {error}");
    }
    std::fs::write(&file, b"\x10\0\0\0\0\0\0\0{\"a\":").unwrap();
    assert!(checkpoint::load(folder.path(), &Device::Cpu).unwrap_err().to_string().contains("truncated"));
    Ok(())
}

#[test]
fn a_wrong_architecture_is_refused_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("arch.json");
    let good = serde_json::to_string_pretty(&serde_json::json!({ "architecture": arch(|_| ()) })).unwrap();
    let refuse = |from: &str, to: &str, line: usize, says: &str| {
        assert!(good.contains(from), "{from}");
        std::fs::write(&file, good.replace(from, to)).unwrap();
        let error = ArchConfig::load(&file).unwrap_err().to_string();
        assert!(error.contains(&format!("arch.json:{line}")) && error.contains(says), "{error}");
    };
    refuse("\"transformer\"", "\"mamba\"", 3, "mamba");
    refuse("\"num_heads\": 4", "\"num_heads\": 5", 6, "cannot be divided");
    refuse("\"layernorm\"", "\"batchnorm\"", 8, "batchnorm");
    refuse("\"num_heads\"", "\"heads\"", 6, "heads");
}
