//! A batch goes through each block, and through head and loss, as one operation; a sequence alone through single operations.
//! Both must tell the same.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use codelora::experiment::LoraConfig;
use codelora::model::config::ArchConfig;
use codelora::model::dropout::Dropout;
use codelora::model::init::init;
use codelora::model::lora;
use codelora::model::ops;
use codelora::model::transformer::Transformer;
use codelora::seed::rng;

/// Sequences and tokens: enough of both that nothing is left to single operations.
const BATCH: (usize, usize) = (8, 130);

type Gradients = BTreeMap<String, Vec<f32>>;

fn arch(normalization: &str, activation: &str) -> ArchConfig {
    let json = serde_json::json!({
        "arch_type": "transformer", "num_layers": 2, "hidden_dim": 32, "num_heads": 4, "ffn_multiplier": 3.0,
        "normalization": normalization, "activation": activation, "position_encoding": "rope", "vocab_size": 40,
        "max_seq_length": 130, "tie_word_embeddings": true,
    });
    serde_json::from_value(json).unwrap()
}

fn ids() -> Tensor {
    let values: Vec<u32> = (0..BATCH.0 * BATCH.1).map(|i| ((i * i * 7 + i * 13 + 5) % 40) as u32).collect();
    Tensor::from_vec(values, BATCH, &Device::Cpu).unwrap()
}

/// The mean loss over `rows` of the batch, and the gradient of each variable.
fn loss(
    model: &Transformer,
    vars: &BTreeMap<String, Var>,
    rows: std::ops::Range<usize>,
) -> codelora::Result<(f32, Gradients)> {
    let ids = ids().narrow(0, rows.start, rows.len())?.contiguous()?;
    let states = model.hidden(&ids, &mut Dropout::off())?.flatten_to(1)?;
    let loss = model.loss(&states, &ids.flatten_all()?, 0.1, &mut Dropout::off())?;
    let found = ops::backward(&loss)?;
    let gradients = vars.iter().map(|(key, var)| {
        let gradient = found.get(var).unwrap_or_else(|| panic!("{key} has no gradient"));
        Ok((key.clone(), gradient.flatten_all()?.to_vec1()?))
    });
    Ok((loss.to_scalar()?, gradients.collect::<codelora::Result<_>>()?))
}

fn agree(model: &Transformer, vars: &BTreeMap<String, Var>) -> codelora::Result<()> {
    let (together, gradients) = loss(model, vars, 0..BATCH.0)?;
    let alone = (0..BATCH.0).map(|row| loss(model, vars, row..row + 1)).collect::<codelora::Result<Vec<_>>>()?;
    let mean = alone.iter().map(|row| row.0).sum::<f32>() / BATCH.0 as f32;
    assert!((together - mean).abs() < 1e-5, "{together} together, {mean} alone");
    for (key, values) in &gradients {
        let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        assert!(largest > 0.0, "{key} has a zero gradient");
        for (index, value) in values.iter().enumerate() {
            let mean = alone.iter().map(|row| row.1[key][index]).sum::<f32>() / BATCH.0 as f32;
            assert!((value - mean).abs() < 1e-4 * largest + 1e-7, "{key}[{index}]: {value} together, {mean} alone");
        }
    }
    Ok(())
}

#[test]
fn a_batch_and_its_sequences_alone_give_the_same_loss_and_gradients() -> codelora::Result<()> {
    for (normalization, activation) in [("layernorm", "gelu"), ("rmsnorm", "swiglu")] {
        let config = arch(normalization, activation);
        let vars = init(&config, &mut rng(1, "init"), &Device::Cpu)?;
        let weights = vars.iter().map(|(key, var)| (key.clone(), var.as_tensor().clone())).collect();
        let mut model = Transformer::from_weights(&config, &weights)?;
        agree(&model, &vars)?;
        // The same under a trained adapter on a frozen base.
        let plan = LoraConfig {
            rank: 4,
            alpha: 8.0,
            dropout: 0.0,
            targets: vec!["all-linear".into()],
            rslora: false,
            dora: false,
            lr_ratio: 1.0,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
        };
        let adapter = lora::attach(&mut model, &plan, &mut rng(1, "lora"))?;
        let parameters: BTreeMap<String, Var> =
            adapter.parameters().into_iter().map(|(key, var)| (key.to_string(), var.clone())).collect();
        for (_, var) in parameters.iter().filter(|(key, _)| key.contains("lora_B")) {
            let values: Vec<f32> = (0..var.elem_count()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 400.0).collect();
            var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
        }
        agree(&model, &parameters)?;
    }
    Ok(())
}

/// The switch is the process's, so the proofs run again in one of their own.
#[test]
fn composed_operations_pass_the_same_proofs() {
    let program = std::env::current_exe().unwrap();
    let mut again = std::process::Command::new(program);
    let output = again.args(["model_golden::", "model_proofs::"]).env("CODELORA_COMPOSED", "1").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("adapters_agree_with_peft_in_logits_gradients_and_ten_steps ... ok"), "{said}");
}
