//! Agreement with independent implementations, on tensors that the scripts under `tests/golden/` made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use codelora::experiment::Stepping;
use codelora::model::checkpoint::{self, Base};
use codelora::model::config::ArchConfig;
use codelora::model::dropout::Dropout;
use codelora::model::lora;
use codelora::model::ops;
use codelora::model::transformer::Transformer;
use codelora::train::adamw::Betas;
use codelora::train::gradients::Clip;
use codelora::train::optimizer::Optimizer;

type Outcome = codelora::Result<()>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn logits_agree_with_pytorch_for_every_norm_activation_and_position() -> Outcome {
    let file = golden("model_golden.safetensors");
    let tensors = checkpoint::read_safetensors(&file, &Device::Cpu)?;
    let cases = checkpoint::read_header(&file)?;
    assert_eq!(cases.len(), 2 * 4 * 2 + 2);
    for (case, arch) in cases {
        let config: ArchConfig = serde_json::from_str(&arch).unwrap();
        let prefix = format!("{case}/weights/");
        let weights: BTreeMap<String, Tensor> = tensors
            .iter()
            .filter_map(|(key, tensor)| Some((key.strip_prefix(&prefix)?.to_string(), tensor.clone())))
            .collect();
        checkpoint::check(&config, &weights, &file)?;
        let ids = tensors[&format!("{case}/ids")].to_dtype(DType::U32)?;
        let logits = Transformer::from_weights(&config, &weights)?.forward(&ids)?;
        let off = max_difference(&logits, &tensors[&format!("{case}/logits")]);
        assert!(off < 1e-4, "{case}: logits differ by {off}");
    }
    Ok(())
}

/// The base of the adapters, from a checkpoint that PyTorch pickled.
fn base() -> codelora::Result<Base> {
    let config = ArchConfig::load(&golden("lora_golden/arch.json"))?;
    checkpoint::load_with(&config, &golden("lora_golden/base.pt"), &Device::Cpu)
}

fn next_token_loss(model: &Transformer, ids: &Tensor) -> codelora::Result<Tensor> {
    let seq = ids.dim(1)?;
    let hidden = model.hidden(&ids.narrow(1, 0, seq - 1)?, &mut Dropout::off())?;
    model.loss(&hidden.flatten_to(1)?, &ids.narrow(1, 1, seq - 1)?.flatten_all()?, 0.1, &mut Dropout::off())
}

#[test]
fn adapters_agree_with_peft_in_logits_gradients_and_ten_steps() -> Outcome {
    let base = base()?;
    let kinds = ["plain", "rslora", "dora", "pattern"];
    // Forty copies have the same mean loss, and go through blocks and head as one operation each, as batches do in training.
    for (kind, copies) in kinds.into_iter().flat_map(|kind| [(kind, 1), (kind, 40)]) {
        let folder = golden("lora_golden").join(kind);
        let expected = checkpoint::read_safetensors(&folder.join("golden.safetensors"), &Device::Cpu)?;
        let ids = expected["ids"].to_dtype(DType::U32)?;
        let (rows, ids) = (ids.dim(0)?, ids.repeat((copies, 1))?);
        let mut model = base.model()?;
        let adapter = lora::load_peft(&mut model, "default", &folder, &base.digest)?;
        let logits = max_difference(&model.forward(&ids)?.narrow(0, 0, rows)?, &expected["logits"]);
        assert!(logits < 1e-4, "{kind}: logits differ by {logits}");

        let parameters = adapter.parameters();
        let gradients = ops::backward(&next_token_loss(&model, &ids)?)?;
        assert_eq!(parameters.len(), expected.keys().filter(|key| key.starts_with("gradient/")).count());
        let (mut gradient, mut losses) = (0f32, 0f32);
        for (key, var) in &parameters {
            let off = max_difference(gradients.get(var).expect(key), &expected[&format!("gradient/{key}")]);
            assert!(off < 1e-4, "{kind}: the gradient of {key} differs by {off}");
            gradient = gradient.max(off);
        }

        let betas = Betas { first: 0.9, second: 0.999 };
        let mut optimizer = Optimizer::new(Stepping::AdamW, &parameters, 0.01, betas, |_| 1.0)?;
        for (step, expected) in expected["losses"].to_vec1::<f32>()?.into_iter().enumerate() {
            let loss = next_token_loss(&model, &ids)?;
            let gradients = ops::backward(&loss)?;
            let named = parameters.iter().map(|(key, var)| (key.clone(), gradients.get(var).expect(key).clone()));
            let named = named.collect();
            optimizer.step(&named, 1e-2, &Clip::new(&named, f64::INFINITY)?)?;
            let loss: f32 = loss.to_scalar()?;
            assert!((loss - expected).abs() < 1e-4, "{kind}, step {step}: {loss} and {expected}");
            losses = losses.max((loss - expected).abs());
        }
        println!(
            "{kind}, {copies} copies: logits {logits:.1e}, gradients {gradient:.1e}, ten losses {losses:.1e} from PEFT's"
        );
        assert_eq!(checkpoint::digest(&model.weights())?, base.digest, "training must not change the base");
    }
    Ok(())
}

#[test]
fn muon_steps_as_pytorchs_own() -> Outcome {
    let golden = checkpoint::read_safetensors(&golden("muon_golden.safetensors"), &Device::Cpu)?;
    for name in ["wide", "tall"] {
        let at = |what: &str| &golden[&format!("{name}.{what}")];
        let key = "layers.0.ffn.fc1.weight".to_string();
        let parameters = BTreeMap::from([(key.clone(), Var::from_tensor(at("start"))?)]);
        let mut optimizer = Optimizer::new(Stepping::Muon, &parameters, 0.1, Betas::default(), |_| 1.0)?;
        for step in 0..5 {
            let gradients = BTreeMap::from([(key.clone(), at(&format!("gradient{step}")).clone())]);
            optimizer.step(&gradients, 0.02, &Clip::new(&gradients, f64::INFINITY)?)?;
        }
        let off = max_difference(parameters[&key].as_tensor(), at("end"));
        let moved = max_difference(at("start"), at("end"));
        assert!(off < 1e-5 && moved > 1e-2, "{name}: {off} apart, {moved} moved");
        println!("{name}: {off:.1e} from PyTorch's after five steps that move by {moved:.1e}");
    }
    Ok(())
}

#[test]
fn an_adapter_survives_its_files_and_refuses_another_base() -> Outcome {
    let base = base()?;
    let ids = Tensor::new(&[[1u32, 5, 9, 2, 3]], &Device::Cpu)?;
    for kind in ["plain", "rslora", "dora", "pattern"] {
        let mut model = base.model()?;
        let adapter = lora::load_peft(&mut model, "default", &golden("lora_golden").join(kind), &base.digest)?;
        let folder = tempfile::tempdir().unwrap();
        adapter.save_peft(folder.path(), &base.digest)?;
        let mut other = base.model()?;
        lora::load_peft(&mut other, "again", folder.path(), &base.digest)?;
        assert_eq!(max_difference(&model.forward(&ids)?, &other.forward(&ids)?), 0.0, "{kind}");
        let error = lora::load_peft(&mut base.model()?, "wrong", folder.path(), "0123").unwrap_err().to_string();
        assert!(error.contains("expected 0123") && error.contains(&base.digest), "{error}");
    }
    // The weights of one configuration under another: every fault is named.
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, name: &str| {
        std::fs::copy(golden("lora_golden").join(from).join(name), folder.path().join(name)).unwrap();
    };
    copy("plain", "adapter_config.json");
    copy("pattern", "adapter_model.safetensors");
    let error = lora::load_peft(&mut base.model()?, "mixed", folder.path(), &base.digest).unwrap_err().to_string();
    assert!(error.contains("missing base_model.model.layers.1.attn.out_proj.lora_B.weight [16, 4]"), "{error}");
    assert!(error.contains("unexpected base_model.model.layers.0.ffn.fc2.lora_A.weight"), "{error}");
    Ok(())
}

#[test]
fn a_pickle_that_is_truncated_or_foreign_is_refused() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("base.pt");
    let whole = std::fs::read(golden("lora_golden/base.pt")).unwrap();
    for bytes in [&whole[..whole.len() / 2], b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.".as_slice(), b""] {
        std::fs::write(&file, bytes).unwrap();
        let error = checkpoint::read_pt(&file).unwrap_err().to_string();
        assert!(error.contains("no readable PyTorch checkpoint"), "{error}");
    }
    assert!(checkpoint::read_pt(&folder.path().join("absent.pt")).unwrap_err().to_string().contains("cannot read"));
    Ok(())
}
