use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::*;
use crate::model::config::{ArchConfig, Attention};
use crate::model::init::init;
use crate::seed::rng;

const PROMPTS: [&str; 3] = ["def f(x):\n", "def longer(name, other):\n    \"\"\"Say it.\"\"\"\n", "x = 1"];

fn model(attention: Attention) -> (Transformer, Tokenizer) {
    let text = "def f(x):\n    \"\"\"Add one.\"\"\"\n    return x + 1\n".to_string();
    let tokenizer = Tokenizer::train(std::iter::repeat_n(text, 4), 280).unwrap();
    let arch = serde_json::json!({
        "arch_type": "transformer", "num_layers": 2, "hidden_dim": 32, "num_heads": 2, "ffn_multiplier": 2.0,
        "normalization": "layernorm", "activation": "gelu", "position_encoding": "rope",
        "vocab_size": tokenizer.vocabulary() + 3, "max_seq_length": 64,
    });
    let mut config: ArchConfig = serde_json::from_value(arch).unwrap();
    config.attention = attention;
    let weights = init(&config, &mut rng(3, "init"), &Device::Cpu).unwrap();
    // Larger weights than at the start of a training give logits that differ.
    let weights: BTreeMap<String, Tensor> =
        weights.into_iter().map(|(key, var)| (key, (var.as_tensor().detach() * 4.0).unwrap())).collect();
    (Transformer::from_weights(&config, &weights).unwrap(), tokenizer)
}

fn requests(samples: usize) -> Vec<Request> {
    let of = |prompt: &&str| {
        let prompt = prompt.to_string();
        (0..samples).map(move |i| Request { key: format!("{prompt}#{i}"), prompt: prompt.clone() }).collect::<Vec<_>>()
    };
    PROMPTS.iter().flat_map(of).collect()
}

fn free(max_new_tokens: usize) -> Sampling {
    let greedy = Sampling::greedy(max_new_tokens);
    Sampling { temperature: 1.0, stop_at_dedent: false, seed: 7, ..greedy }
}

fn complete(model: &Transformer, tokenizer: &Tokenizer, requests: &[Request], sampling: &Sampling) -> Vec<Completion> {
    generate(model, tokenizer, requests, sampling, &Progress::new("test", requests.len())).unwrap()
}

/// One completion by the plainest loop there is: the full pass again for every token, no batch, no cache.
fn naive(model: &Transformer, tokenizer: &Tokenizer, request: &Request, sampling: &Sampling) -> Vec<u32> {
    let prompt = tokenizer.encode(&request.prompt).unwrap();
    let (mut ids, mut rng) = (prompt.clone(), rng(sampling.seed, &request.key));
    while ids.len() < model.config().max_seq_length && ids.len() < prompt.len() + sampling.max_new_tokens {
        let input = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = model.forward(&input).unwrap().get(0).unwrap().get(ids.len() - 1).unwrap();
        let logits = logits.to_vec1::<f32>().unwrap();
        let token = sampling.choose(&logits[..tokenizer.vocabulary()], &ids, &mut rng).unwrap().0;
        ids.push(token);
        if token == tokenizer.eos() {
            break;
        }
    }
    ids[prompt.len()..].to_vec()
}

#[test]
fn a_batch_gives_what_the_plainest_loop_gives() {
    for attention in [Attention::Causal, Attention::Bidirectional] {
        let (model, tokenizer) = model(attention);
        for sampling in [free(30), Sampling { repetition_penalty: 1.3, top_k: 20, ..free(30) }, free(1)] {
            let requests = requests(30);
            let completions = complete(&model, &tokenizer, &requests, &sampling);
            assert_eq!(completions.len(), requests.len());
            for (request, completion) in requests.iter().zip(&completions).step_by(7) {
                assert_eq!(completion.tokens, naive(&model, &tokenizer, request, &sampling), "{}", request.key);
            }
            let kinds: BTreeMap<Finish, usize> = completions.iter().fold(BTreeMap::new(), |mut kinds, completion| {
                *kinds.entry(completion.finish).or_default() += 1;
                kinds
            });
            assert!(sampling.max_new_tokens == 1 || kinds.len() == 2, "rows must leave at different times: {kinds:?}");
        }
    }
}

#[test]
fn a_request_alone_gives_what_it_gives_in_a_batch() {
    let (model, tokenizer) = model(Attention::Causal);
    let requests = requests(5);
    let together = complete(&model, &tokenizer, &requests, &free(20));
    for (request, completion) in requests.iter().zip(&together) {
        let alone = complete(&model, &tokenizer, std::slice::from_ref(request), &free(20));
        assert_eq!(alone[0].tokens, completion.tokens, "{}", request.key);
        assert!((alone[0].log_likelihood - completion.log_likelihood).abs() < 1e-3);
    }
    let distinct: std::collections::BTreeSet<_> = together.iter().map(|c| &c.tokens).collect();
    assert!(distinct.len() > 10, "different keys draw differently");
    let reseeded = complete(&model, &tokenizer, &requests, &Sampling { seed: 8, ..free(20) });
    assert_ne!(reseeded[0].tokens, together[0].tokens);
}

#[test]
fn likelihood_is_the_models_own() {
    let (model, tokenizer) = model(Attention::Causal);
    let sampling = Sampling { temperature: 0.5, top_k: 3, ..free(12) };
    let request = &requests(1)[1];
    let completion = &complete(&model, &tokenizer, std::slice::from_ref(request), &sampling)[0];
    let prompt = tokenizer.encode(&request.prompt).unwrap();
    let ids: Vec<u32> = prompt.iter().chain(&completion.tokens).copied().collect();
    let logits = model.forward(&Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap();
    let logits = logits.get(0).unwrap().to_vec2::<f32>().unwrap();
    let expected: f64 = (prompt.len()..ids.len())
        .map(|at| {
            let row = &logits[at - 1][..tokenizer.vocabulary()];
            let total: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
            f64::from(row[ids[at] as usize]) - total.ln()
        })
        .sum();
    assert!((completion.log_likelihood - expected).abs() < 1e-3, "{} {expected}", completion.log_likelihood);
}

#[test]
fn every_end_is_named() {
    let (model, tokenizer) = model(Attention::Causal);
    let end = |prompt: &str, sampling: &Sampling| {
        let request = Request { key: "k".into(), prompt: prompt.into() };
        complete(&model, &tokenizer, &[request], sampling).remove(0)
    };
    let long = PROMPTS[1].repeat(10);
    let refused = end(&long, &free(5));
    assert_eq!((refused.finish, refused.tokens.len(), refused.text.as_str()), (Finish::PromptTooLong, 0, ""));
    let spent = end(PROMPTS[2], &Sampling { top_k: 1, ..free(4) });
    assert!(spent.finish == Finish::EndOfSequence || spent.tokens.len() == 4);
    let full = end(PROMPTS[2], &Sampling { repetition_penalty: 1.0, top_k: 1, ..free(1000) });
    let prompt = tokenizer.encode(PROMPTS[2]).unwrap().len();
    assert!(full.finish == Finish::EndOfSequence || full.tokens.len() + prompt == 64, "{full:?}");
    // After a newline nearly any token of a random model begins in column zero.
    let dedents = (0..20)
        .map(|i| Request { key: i.to_string(), prompt: PROMPTS[0].into() })
        .map(|request| {
            complete(&model, &tokenizer, &[request], &Sampling { stop_at_dedent: true, ..free(20) }).remove(0)
        })
        .filter(|completion| completion.finish == Finish::Dedent)
        .inspect(|completion| assert!(body_end(&completion.text, true).is_none(), "{:?}", completion.text));
    assert!(dedents.count() > 5);
    let text = end(PROMPTS[0], &free(20)).text;
    let middle: String = text.chars().skip(4).take(1).collect();
    let stopped = end(PROMPTS[0], &Sampling { stop: vec![middle.clone()], ..free(20) });
    assert_eq!(stopped.finish, Finish::StopString);
    assert!(!stopped.text.contains(&middle));
}
