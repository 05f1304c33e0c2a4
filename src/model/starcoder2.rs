//! Our models under the names of Hugging Face's `Starcoder2ForCausalLM` (Lozhkov et al. 2024), which computes the same
//! function: pre-norm blocks, rotary halves, an MLP of two layers.
//!
//! Covered: LayerNorm, GELU or SiLU, rotary positions, tied and untied heads. Not covered: what Starcoder2 has no place for,
//! which is RMSNorm, gated MLPs, learned positions and attention without a mask. The way back is
//! [`huggingface`](crate::model::huggingface).

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::model::config::{Activation, ArchConfig, Attention, Normalization, PositionEncoding};

/// The last parts of our names inside a block, and the modules that hold the same rows, top to bottom.
const PARTS: [(&str, &[&str]); 6] = [
    ("attn.qkv", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    ("attn.out_proj", &["self_attn.o_proj"]),
    ("ffn.fc1", &["mlp.c_fc"]),
    ("ffn.fc2", &["mlp.c_proj"]),
    ("norm1", &["input_layernorm"]),
    ("norm2", &["post_attention_layernorm"]),
];

/// The modules that hold the rows of our module `name`, top to bottom: three for a fused `qkv`, one for every other.
pub(crate) fn modules(name: &str) -> Vec<String> {
    match name {
        "token_embedding" => vec!["model.embed_tokens".into()],
        "lm_head" => vec!["lm_head".into()],
        _ => {
            let inside = PARTS.iter().find_map(|(ours, theirs)| Some((name.strip_suffix(ours)?, theirs)));
            match inside {
                Some((block, theirs)) => theirs.iter().map(|module| format!("model.{block}{module}")).collect(),
                None => vec![format!("model.{name}")],
            }
        }
    }
}

/// `config.json` for an architecture. `eos` begins and ends every document, `pad` fills a batch.
///
/// # Errors
/// [`Error::Invalid`] that names everything Starcoder2 cannot express.
pub fn config(arch: &ArchConfig, eos: u32, pad: u32) -> Result<Value> {
    let faults: Vec<String> = [
        (arch.normalization != Normalization::LayerNorm, format!("normalization {:?}", arch.normalization)),
        (arch.activation.is_gated(), format!("activation {:?}", arch.activation)),
        (arch.position_encoding != PositionEncoding::Rope, format!("positions {:?}", arch.position_encoding)),
        (arch.attention != Attention::Causal, format!("attention {:?}", arch.attention)),
    ]
    .into_iter()
    .filter_map(|(is_foreign, what)| is_foreign.then(|| what.to_lowercase()))
    .collect();
    if !faults.is_empty() {
        return Err(Error::invalid(
            format!("a Starcoder2 model has no place for {}", faults.join(", ")),
            "export the adapter alone with --output, or use a causal base with layernorm, gelu or silu, and rope",
        ));
    }
    Ok(json!({
        "architectures": ["Starcoder2ForCausalLM"],
        "model_type": "starcoder2",
        "vocab_size": arch.vocab_size,
        "hidden_size": arch.hidden_dim,
        "intermediate_size": arch.ffn_dim(),
        "num_hidden_layers": arch.num_layers,
        "num_attention_heads": arch.num_heads,
        "num_key_value_heads": arch.num_heads,
        "hidden_act": if arch.activation == Activation::Gelu { "gelu" } else { "silu" },
        "max_position_embeddings": arch.max_seq_length,
        "norm_epsilon": arch.norm_eps,
        "rope_theta": arch.rope_theta,
        "sliding_window": null,
        "use_bias": false,
        "use_cache": true,
        "tie_word_embeddings": arch.tie_word_embeddings,
        "attention_dropout": arch.attention_dropout,
        "residual_dropout": arch.residual_dropout,
        "embedding_dropout": 0.0,
        "bos_token_id": eos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": "float32",
    }))
}

/// `generation_config.json`: greedy, up to the context.
pub fn generation_config(arch: &ArchConfig, eos: u32, pad: u32) -> Value {
    json!({
        "do_sample": false,
        "bos_token_id": eos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "max_length": arch.max_seq_length,
    })
}

/// Weights under Starcoder2's keys: each of ours under the name of its module, `qkv` divided by rows.
///
/// # Errors
/// [`Error::Tensor`].
pub fn weights(ours: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let mut theirs = BTreeMap::new();
    for (key, weight) in ours {
        let (name, kind) = key.rsplit_once('.').unwrap_or((key, "weight"));
        let modules = modules(name);
        for (module, rows) in modules.iter().zip(divide(weight, modules.len())?) {
            theirs.insert(format!("{module}.{kind}"), rows);
        }
    }
    Ok(theirs)
}

/// Cuts a tensor into `parts` equal stretches of rows.
///
/// # Errors
/// [`Error::Tensor`].
pub(crate) fn divide(tensor: &Tensor, parts: usize) -> Result<Vec<Tensor>> {
    let rows = tensor.dim(0)? / parts;
    (0..parts).map(|part| Ok(tensor.narrow(0, part * rows, rows)?.contiguous()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arch(change: impl FnOnce(&mut Value)) -> ArchConfig {
        let mut json = json!({
            "arch_type": "transformer", "num_layers": 1, "hidden_dim": 8, "num_heads": 2, "ffn_multiplier": 3.0,
            "normalization": "layernorm", "activation": "gelu", "position_encoding": "rope", "vocab_size": 40,
            "max_seq_length": 24,
        });
        change(&mut json);
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn modules_have_starcoder2s_names() {
        assert_eq!(modules("token_embedding"), ["model.embed_tokens"]);
        assert_eq!(modules("norm"), ["model.norm"]);
        assert_eq!(modules("layers.3.norm2"), ["model.layers.3.post_attention_layernorm"]);
        let qkv = ["q", "k", "v"].map(|part| format!("model.layers.11.self_attn.{part}_proj"));
        assert_eq!(modules("layers.11.attn.qkv"), qkv);
        assert_eq!(modules("lm_head"), ["lm_head"]);
    }

    #[test]
    fn what_starcoder2_cannot_express_is_named_at_once() {
        assert!(config(&arch(|_| ()), 0, 1).is_ok());
        let foreign = arch(|json| {
            json["normalization"] = "rmsnorm".into();
            json["activation"] = "swiglu".into();
            json["position_encoding"] = "absolute".into();
        });
        let error = config(&foreign, 0, 1).unwrap_err().to_string();
        for fault in ["rmsnorm", "swiglu", "absolute"] {
            assert!(error.contains(fault), "{fault} is not in {error}");
        }
    }
}
