//! Tokens per second of one forward and backward pass, fused and composed, interleaved.
//!
//! `cargo bench --bench training_step -- [batch] [seq] [hidden] [layers] [vocab] [rounds]`

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{Device, Tensor};
use codelora::model::config::ArchConfig;
use codelora::model::dropout::Dropout;
use codelora::model::init::init;
use codelora::model::ops;
use codelora::model::transformer::Transformer;
use codelora::seed::rng;

fn main() -> codelora::Result<()> {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |index: usize, default: usize| numbers.get(index).copied().unwrap_or(default);
    let (batch, seq, hidden) = (number(0, 32), number(1, 256), number(2, 192));
    let (layers, vocab, rounds) = (number(3, 6), number(4, 2048), number(5, 3));
    let arch = serde_json::json!({
        "arch_type": "transformer", "num_layers": layers, "hidden_dim": hidden, "num_heads": hidden / 32,
        "ffn_multiplier": 4.0, "normalization": "rmsnorm", "activation": "gelu", "position_encoding": "rope",
        "vocab_size": vocab, "max_seq_length": seq, "tie_word_embeddings": true,
    });
    let config: ArchConfig = serde_json::from_value(arch).expect("a valid architecture");
    let vars = init(&config, &mut rng(1, "init"), &Device::Cpu)?;
    let weights: BTreeMap<String, Tensor> = vars.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    let model = Transformer::from_weights(&config, &weights)?;
    let ids: Vec<u32> = (0..batch * seq).map(|i| ((i * 7919 + i / 5) % vocab) as u32).collect();
    let ids = Tensor::from_vec(ids, (batch, seq), &Device::Cpu)?;
    let mut seconds = BTreeMap::from([(true, Vec::new()), (false, Vec::new())]);
    for _ in 0..rounds {
        for (fused, times) in &mut seconds {
            ops::set_fused(*fused);
            let start = Instant::now();
            let states = model.hidden(&ids, &mut Dropout::off())?;
            let loss = model.loss(&states.flatten_to(1)?, &ids.flatten_all()?, 0.0)?;
            let forward = start.elapsed().as_secs_f64();
            let gradients = loss.backward()?;
            times.push(start.elapsed().as_secs_f64());
            let total = start.elapsed().as_secs_f64();
            println!(
                "fused {fused}: forward {forward:.3} s, total {total:.3} s, loss {:.4}, {} gradients",
                loss.to_scalar::<f32>()?,
                gradients.get_ids().count()
            );
        }
    }
    for (fused, times) in &mut seconds {
        times.sort_by(f64::total_cmp);
        println!("fused {fused}: {:.0} tokens/s (median)", (batch * seq) as f64 / times[times.len() / 2]);
    }
    Ok(())
}
