//! Agreement with the living peers: Python PEFT and `transformers` read what we write, and we read what PEFT writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use codelora::data::embedded;
use codelora::experiment::{Experiment, LoraConfig};
use codelora::generate::{Request, Sampling, generate};
use codelora::model::checkpoint;
use codelora::model::lora::{self, Adapter};
use codelora::model::transformer::Transformer;
use codelora::phases::export;
use codelora::phases::import::{self, Import};
use codelora::progress::Progress;
use codelora::seed;
use codelora::tokenizer::Tokenizer;
use rand::Rng;
use serde_json::json;

use crate::small::{self, root};

type Outcome = codelora::Result<()>;

/// Largest |Δlogit| that rounding in f32 explains.
const TOLERANCE: f64 = 1e-4;

/// The Python that has `modules`, or none with the reason printed.
fn python(modules: &str) -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("CODELORA_PEERS").unwrap_or_else(|| "python3".into()));
    let output = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    match output {
        Ok(output) if output.status.success() => Some(python),
        _ => {
            println!("skipped: {} has no {modules}; see tests/peers/README.md", python.display());
            None
        }
    }
}

/// Runs a script of tests/peers on a folder and returns the numbers that it prints.
fn report(python: &Path, script: &str, folder: &Path) -> BTreeMap<String, f64> {
    let output = Command::new(python).arg(root().join("tests/peers").join(script)).arg(folder).output().unwrap();
    let (text, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} failed:\n{text}\n{faults}");
    let found = serde_json::from_str(text.lines().next_back().unwrap_or_default());
    let found: BTreeMap<String, f64> = found.unwrap_or_else(|_| panic!("{script} printed:\n{text}\n{faults}"));
    println!("{script}: largest |Δlogit| {found:?}");
    found
}

fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    f64::from((a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap())
}

fn lora_config(targets: &[&str]) -> LoraConfig {
    LoraConfig {
        rank: 4,
        alpha: 8.0,
        dropout: 0.05,
        targets: targets.iter().map(|target| target.to_string()).collect(),
        rslora: false,
        dora: false,
        lr_ratio: 1.0,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
    }
}

fn kinds() -> Vec<(&'static str, LoraConfig)> {
    let pattern = LoraConfig {
        rank_pattern: BTreeMap::from([("fc2".into(), 2), ("layers.1.attn.qkv".into(), 6)]),
        alpha_pattern: BTreeMap::from([("fc2".into(), 6.0)]),
        ..lora_config(&["qkv", "fc2"])
    };
    vec![
        ("plain", lora_config(&["attention"])),
        ("rslora", LoraConfig { rslora: true, ..lora_config(&["all-linear", "lm_head"]) }),
        ("dora", LoraConfig { dora: true, ..lora_config(&["all-linear"]) }),
        ("single", lora_config(&["layers.0.attn.qkv", "layers.1.ffn.fc1"])),
        ("pattern_rslora_dora", LoraConfig { rslora: true, dora: true, ..pattern.clone() }),
        ("pattern", pattern),
    ]
}

/// Gives B values of this size and moves DoRA's magnitudes, as training would.
fn disturb(adapter: &Adapter, size: f32) -> Outcome {
    let mut rng = seed::rng(4, "disturb");
    for (key, var) in adapter.parameters() {
        let values: Vec<f32> = var.flatten_all()?.to_vec1()?;
        let values: Vec<f32> = match key.rsplit('.').next() {
            Some("lora_magnitude_vector") => values.iter().map(|m| m * rng.random_range(0.8..1.2)).collect(),
            _ if key.contains("lora_B") => values.iter().map(|_| rng.random_range(-size..size)).collect(),
            _ => values,
        };
        var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
    }
    Ok(())
}

#[test]
fn peft_loads_our_adapters_and_we_load_pefts() -> Outcome {
    let Some(python) = python("torch, peft, safetensors") else { return Ok(()) };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let weights = small::base(folder)?;
    let save = |name: &str, tensors: BTreeMap<String, Tensor>| {
        checkpoint::save_safetensors(&tensors, &folder.join(name), DType::F32, &BTreeMap::new())
    };
    let ids: Vec<u32> = (0..80).map(|i| (i * i * 7 + i * 13 + 5) % 2048).collect();
    let ids = Tensor::from_vec(ids, (4, 20), &Device::Cpu)?;
    save("base.safetensors", weights)?;
    save("ids.safetensors", BTreeMap::from([("ids".into(), ids.to_dtype(DType::F32)?)]))?;
    let base = checkpoint::load(folder, &Device::Cpu)?;
    for (kind, config) in kinds() {
        let mut model = base.model()?;
        let adapter = lora::attach(&mut model, &config, &mut seed::rng(3, kind))?;
        disturb(&adapter, 0.1)?;
        adapter.save_peft(&folder.join("ours").join(kind), &base.digest)?;
        let logits = BTreeMap::from([("logits".to_string(), model.forward(&ids)?)]);
        save(&format!("ours/{kind}/logits.safetensors"), logits)?;
    }
    let there = report(&python, "adapters.py", folder);
    assert_eq!(there.len(), kinds().len());
    for (kind, off) in there {
        assert!(off < TOLERANCE, "{kind}: our adapter's logits differ by {off} in PEFT");
        let theirs = folder.join("theirs").join(&kind);
        let mut model = base.model()?;
        let before = model.forward(&ids)?;
        lora::load_peft(&mut model, "theirs", &theirs, &base.digest)?;
        let logits = model.forward(&ids)?;
        assert!(max_difference(&logits, &before) > 1e-2, "{kind}: PEFT's adapter has no effect here");
        let expected = checkpoint::read_safetensors(&theirs.join("logits.safetensors"), &Device::Cpu)?;
        let off = max_difference(&logits, &expected["logits"]);
        println!("{kind}: PEFT's adapter here, largest |Δlogit| {off:.1e}");
        assert!(off < TOLERANCE, "{kind}: PEFT's adapter's logits differ by {off} here");
    }
    Ok(())
}

/// What we make of some prompts: token ids, the last position's logits, and the greedy continuation.
fn expected(model: &Transformer, tokenizer: &Tokenizer, prompts: &[String]) -> codelora::Result<serde_json::Value> {
    let sampling = Sampling {
        repetition_penalty: 1.0,
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        max_new_tokens: 40,
        stop_at_dedent: false,
        stop: Vec::new(),
        seed: 0,
    };
    let request = |prompt: &String| Request { key: prompt.clone(), prompt: prompt.clone() };
    let requests: Vec<Request> = prompts.iter().map(request).collect();
    let written = generate(model, tokenizer, &requests, &sampling, &Progress::new("greedy", requests.len()))?;
    let mut rows = Vec::new();
    for (prompt, completion) in prompts.iter().zip(written) {
        let ids = tokenizer.encode(prompt)?;
        let logits = model.forward(&Tensor::from_slice(&ids, (1, ids.len()), &Device::Cpu)?)?;
        let logits: Vec<f32> = logits.squeeze(0)?.narrow(0, ids.len() - 1, 1)?.flatten_all()?.to_vec1()?;
        let limit = sampling.max_new_tokens;
        rows.push(json!({
            "prompt": prompt, "ids": ids, "logits": logits, "tokens": completion.tokens, "limit": limit
        }));
    }
    Ok(rows.into())
}

/// Exports a base and an adapter on it, and lets `transformers` and PEFT continue our prompts.
fn export_agrees(python: &Path, mut exp: Experiment, config: &LoraConfig, size: f32) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    exp.config.paths.run = folder.path().join("run");
    let base = checkpoint::load(&exp.path(&exp.config.base.folder), &Device::Cpu)?;
    let tokenizer = Tokenizer::load(&exp.tokenizer_file())?;
    let tasks = embedded::benchmark20()?;
    let mut prompts: Vec<String> = tasks.iter().take(4).map(|task| task.prompt.clone()).collect();
    prompts.push("x = 'naïve <|endoftext|> 🦀'\n".into());

    let mut model = base.model()?;
    let plain = expected(&model, &tokenizer, &prompts)?;
    let mut adapter = lora::attach(&mut model, config, &mut seed::rng(3, "adapter"))?;
    disturb(&adapter, size)?;
    adapter.save_peft(&exp.run_file("adapter"), &base.digest)?;
    let adapted = expected(&model, &tokenizer, &prompts)?;
    assert_ne!(plain, adapted, "the adapter must act");
    adapter.merge(&mut model)?;
    let merged = expected(&model, &tokenizer, &prompts)?;

    let beside = export::hugging_face(&exp, &folder.path().join("base"), false)?;
    assert_eq!(beside, Some(folder.path().join("base/adapter")));
    export::hugging_face(&exp, &folder.path().join("merged"), true)?;
    let all = json!({ "base": plain, "adapted": adapted, "merged": merged });
    codelora::artifact::write_json(&folder.path().join("expected.json"), &all)?;
    for (model, off) in report(python, "starcoder2.py", folder.path()) {
        assert!(off < TOLERANCE, "{model}: logits differ by {off}");
    }
    Ok(())
}

#[test]
fn transformers_continues_our_exports_token_by_token() -> Outcome {
    let Some(python) = python("torch, transformers, peft") else { return Ok(()) };
    let quick = || Experiment::open(root().join("data/experiments/quick.toml"));
    // The shipped base, whose head is tied, and one with a head of its own.
    export_agrees(&python, quick()?, &lora_config(&["all-linear"]), 0.02)?;
    let folder = tempfile::tempdir().unwrap();
    small::base(folder.path())?;
    for (_, config) in kinds().into_iter().filter(|(kind, _)| ["rslora", "pattern_rslora_dora"].contains(kind)) {
        let mut exp = quick()?;
        exp.config.base.folder = folder.path().to_path_buf();
        export_agrees(&python, exp, &config, 0.1)?;
    }
    Ok(())
}

#[test]
fn an_exported_base_comes_back_as_it_was() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut exp = Experiment::open(root().join("data/experiments/quick.toml"))?;
    exp.config.paths.run = folder.path().join("run");
    let own = folder.path().join("own");
    small::base(&own)?;
    // The shipped base has a tied head, the other a head of its own.
    for base in [exp.config.base.folder.clone(), own] {
        exp.config.base.folder = base;
        let there = checkpoint::load(&exp.path(&exp.config.base.folder), &Device::Cpu)?;
        let (exported, back) = (folder.path().join("hf"), folder.path().join("back"));
        assert_eq!(export::hugging_face(&exp, &exported, false)?, None, "nothing was trained");
        let import = Import { checkpoint: exported, arch: None, tokenizer: None, output: back.clone(), force: true };
        assert_eq!(import::run(&import)?.digest, there.digest);
        assert_eq!(checkpoint::load(&back, &Device::Cpu)?.config, there.config);
    }
    Ok(())
}

/// The updates scale · B·A of an exported adapter, by module, by the rules of PEFT's own files.
fn exported_updates(folder: &Path) -> codelora::Result<BTreeMap<String, Tensor>> {
    let config: serde_json::Value = codelora::artifact::read_json(&folder.join("adapter_config.json"))?;
    let tensors = checkpoint::read_safetensors(&folder.join("adapter_model.safetensors"), &Device::Cpu)?;
    let mut updates = BTreeMap::new();
    for (key, b) in &tensors {
        let Some(module) = key.strip_prefix("base_model.model.").and_then(|key| key.strip_suffix(".lora_B.weight"))
        else {
            continue;
        };
        let of = |pattern: &str, usual: &str| config[pattern].get(module).unwrap_or(&config[usual]).as_f64().unwrap();
        let (rank, alpha) = (of("rank_pattern", "r"), of("alpha_pattern", "lora_alpha"));
        let a = &tensors[&format!("base_model.model.{module}.lora_A.weight")];
        assert_eq!(a.dims()[0] as f64, rank, "{module}");
        let scale = if config["use_rslora"] == true { alpha / rank.sqrt() } else { alpha / rank };
        updates.insert(module.to_string(), (b.matmul(a)? * scale)?);
    }
    Ok(updates)
}

#[test]
fn an_exported_adapter_is_the_same_update_divided() -> Outcome {
    for (kind, config) in kinds() {
        let folder = tempfile::tempdir().unwrap();
        let mut exp = Experiment::open(root().join("data/experiments/quick.toml"))?;
        exp.config.base.folder = folder.path().join("base");
        exp.config.paths.run = folder.path().join("run");
        small::base(&exp.config.base.folder)?;
        let base = checkpoint::load(&exp.config.base.folder, &Device::Cpu)?;
        let mut model = base.model()?;
        let mut adapter = lora::attach(&mut model, &config, &mut seed::rng(3, kind))?;
        disturb(&adapter, 0.1)?;
        adapter.save_peft(&exp.run_file("adapter"), &base.digest)?;
        export::hugging_face(&exp, &folder.path().join("hf"), false)?;
        let mut updates = exported_updates(&folder.path().join("hf/adapter"))?;
        for (name, layer) in adapter.layers() {
            let expected = (layer.b.as_tensor().matmul(layer.a.as_tensor())? * layer.scale)?;
            let modules = match name.strip_suffix(".attn.qkv") {
                Some(block) => ["q", "k", "v"].map(|part| format!("model.{block}.self_attn.{part}_proj")).to_vec(),
                None => {
                    let theirs =
                        [("attn.out_proj", "self_attn.o_proj"), ("ffn.fc1", "mlp.c_fc"), ("ffn.fc2", "mlp.c_proj")];
                    let renamed = theirs.iter().fold(name.clone(), |name, (ours, theirs)| name.replace(ours, theirs));
                    vec![if name == "lm_head" { renamed } else { format!("model.{renamed}") }]
                }
            };
            let rows: Vec<Tensor> = modules.iter().map(|module| updates.remove(module).expect(module)).collect();
            assert!(max_difference(&Tensor::cat(&rows, 0)?, &expected) < 1e-6, "{kind}: {name}");
        }
        assert!(updates.is_empty(), "{kind}: updates of nothing: {:?}", updates.keys());
        // Merged, it is a base like any other, and comes back to the bit.
        export::hugging_face(&exp, &folder.path().join("merged"), true)?;
        adapter.merge(&mut model)?;
        let (checkpoint, output) = (folder.path().join("merged"), folder.path().join("back"));
        let back = import::run(&Import { checkpoint, arch: None, tokenizer: None, output, force: true })?;
        assert_eq!(back.digest, checkpoint::digest(&model.weights())?, "{kind}");
    }
    Ok(())
}

#[test]
fn what_starcoder2_cannot_express_leaves_nothing_behind() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut exp = Experiment::open(root().join("data/experiments/quick.toml"))?;
    let base = folder.path().join("base");
    small::base(&base)?;
    let arch = std::fs::read_to_string(base.join("arch.json")).unwrap().replace("\"causal\"", "\"bidirectional\"");
    std::fs::write(base.join("arch.json"), arch).unwrap();
    exp.config.base.folder = base;
    exp.config.paths.run = folder.path().join("run");
    let error = export::hugging_face(&exp, &folder.path().join("hf"), false).unwrap_err().to_string();
    assert!(error.contains("Starcoder2") && error.contains("bidirectional"), "{error}");
    assert!(!folder.path().join("hf").exists(), "something was written");
    let error = export::hugging_face(&exp, &folder.path().join("hf"), true).unwrap_err().to_string();
    assert!(error.contains("no adapter") && error.contains("codelora train"), "{error}");
    Ok(())
}
