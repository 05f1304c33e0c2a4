//! Samples to batches: prompts carry no loss, the end is learned, little padding.
//!
//! A batch is a pure function of the step, so that a run resumes at any step without replaying the ones before. Right
//! padding needs no mask: under the causal mask no real token looks at what comes after it.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::data::task::Sample;
use crate::error::{Error, Result};
use crate::seed;
use crate::tokenizer::Tokenizer;

/// A micro-batch: what one forward pass computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Input ids, row by row, `(rows, seq)`.
    pub ids: Vec<u32>,
    /// Sequences.
    pub rows: usize,
    /// Positions in each sequence, padding included.
    pub seq: usize,
    /// Flat positions `row·seq + t` whose next token is learned, rising.
    pub supervised: Vec<u32>,
    /// The token that follows each supervised position.
    pub targets: Vec<u32>,
    /// Input positions that are not padding.
    pub real: usize,
}

/// Where a training step gets its micro-batches from.
pub trait Batches {
    /// The micro-batches of step `step`, counted from 1: the same at every call, whatever came before.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn step(&self, step: usize) -> Result<Vec<Batch>>;
}

/// A sample as tokens: prompt, solution and end-of-sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// All tokens, the last of which is the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// How many of them are the prompt.
    pub prompt: usize,
}

/// Encodes samples, each ended by the end-of-sequence token.
///
/// # Errors
/// [`Error::Invalid`] when there is none, when one is longer than `context + 1` tokens (the last is only a target), or
/// when the vocabulary joins a prompt with its solution.
pub fn encode(samples: &[Sample], tokenizer: &Tokenizer, context: usize) -> Result<Vec<Encoded>> {
    if samples.is_empty() {
        return Err(Error::invalid("there is no sample to train on", "run phase 1, or relax its filters"));
    }
    samples.iter().map(|sample| encode_one(sample, tokenizer, context)).collect()
}

fn encode_one(sample: &Sample, tokenizer: &Tokenizer, context: usize) -> Result<Encoded> {
    tokenizer.check_boundary(&sample.prompt, &sample.solution)?;
    let mut tokens = tokenizer.encode(&sample.prompt)?;
    let prompt = tokens.len();
    tokens.extend(tokenizer.encode(&sample.solution)?);
    tokens.push(tokenizer.eos());
    if tokens.len() > context + 1 || prompt == 0 {
        return Err(Error::invalid(
            format!(
                "sample {} has {} tokens, {prompt} of them prompt; the context holds {context}",
                sample.id,
                tokens.len()
            ),
            "lower max_tokens in [data] so that phase 1 rejects it, or use a base with a longer context",
        ));
    }
    Ok(Encoded { tokens, prompt })
}

/// Packs encoded samples into one micro-batch, padded on the right to the longest.
pub fn pad(samples: &[&Encoded], padding: u32) -> Batch {
    let seq = samples.iter().map(|s| s.tokens.len() - 1).max().unwrap_or(0);
    let mut batch = Batch {
        ids: vec![padding; samples.len() * seq],
        rows: samples.len(),
        seq,
        supervised: Vec::new(),
        targets: Vec::new(),
        real: 0,
    };
    for (row, sample) in samples.iter().enumerate() {
        let inputs = sample.tokens.len() - 1;
        batch.ids[row * seq..row * seq + inputs].copy_from_slice(&sample.tokens[..inputs]);
        batch.real += inputs;
        // The prompt's last token is the first that has an answer to give.
        for t in sample.prompt - 1..inputs {
            batch.supervised.push((row * seq + t) as u32);
            batch.targets.push(sample.tokens[t + 1]);
        }
    }
    batch
}

/// Epochs over samples in batches of similar length.
#[derive(Debug, Clone)]
pub struct SampleBatches {
    samples: Vec<Encoded>,
    batch_size: usize,
    accumulation: usize,
    padding: u32,
    seed: u64,
}

/// How far a sample may move from its place in the order of lengths, as a share of its length: enough to meet other
/// samples in each epoch, too little to cost padding.
const JITTER: f64 = 0.08;

impl SampleBatches {
    /// Batches of `batch_size` samples, each computed as `accumulation` micro-batches.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a size is zero or there is no sample.
    pub fn new(samples: Vec<Encoded>, batch_size: usize, accumulation: usize, padding: u32, seed: u64) -> Result<Self> {
        if samples.is_empty() || batch_size == 0 || accumulation == 0 {
            return Err(Error::invalid(
                format!(
                    "{} samples in batches of {batch_size} by {accumulation} micro-batches cannot be trained on",
                    samples.len()
                ),
                "batch_size and accumulation are at least 1, and the train split must hold samples",
            ));
        }
        Ok(Self { samples, batch_size, accumulation, padding, seed })
    }

    /// Steps in which every sample is seen once.
    pub fn steps_per_epoch(&self) -> usize {
        self.samples.len().div_ceil(self.batch_size)
    }

    /// The first `count` samples of a fixed shuffle, in batches of similar length: for evaluation.
    pub fn fixed_subset(&self, count: usize) -> Vec<Batch> {
        let mut order: Vec<usize> = (0..self.samples.len()).collect();
        order.shuffle(&mut seed::rng(self.seed, "fixed subset"));
        order.truncate(count);
        order.sort_by_key(|&i| self.samples[i].tokens.len());
        order.chunks(self.batch_size).map(|chunk| self.gather(chunk)).collect()
    }

    fn gather(&self, indices: &[usize]) -> Batch {
        let samples: Vec<&Encoded> = indices.iter().map(|&i| &self.samples[i]).collect();
        pad(&samples, self.padding)
    }

    /// The batches of an epoch as sample indices: sorted by jittered length, cut, and the cuts shuffled.
    fn epoch(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut rng = seed::rng(self.seed, &format!("epoch {epoch}"));
        let mut order: Vec<(f64, usize)> = self
            .samples
            .iter()
            .enumerate()
            .map(|(i, sample)| (sample.tokens.len() as f64 * (1.0 + JITTER * rng.random::<f64>()), i))
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut batches: Vec<Vec<usize>> =
            order.chunks(self.batch_size).map(|chunk| chunk.iter().map(|&(_, i)| i).collect()).collect();
        batches.shuffle(&mut rng);
        batches
    }
}

impl Batches for SampleBatches {
    fn step(&self, step: usize) -> Result<Vec<Batch>> {
        let per_epoch = self.steps_per_epoch();
        let (epoch, index) = ((step - 1) / per_epoch, (step - 1) % per_epoch);
        let indices = self.epoch(epoch).swap_remove(index);
        let micro = indices.len().div_ceil(self.accumulation);
        Ok(indices.chunks(micro).map(|chunk| self.gather(chunk)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// 500 samples of 40 to 239 tokens; the first token of each is its number.
    fn samples() -> Vec<Encoded> {
        let mut rng = seed::rng(1, "test lengths");
        (0..500)
            .map(|i| {
                let length = rng.random_range(40..240);
                let mut tokens = vec![i + 10; length];
                tokens[length - 1] = 0;
                Encoded { tokens, prompt: length / 2 }
            })
            .collect()
    }

    #[test]
    fn prompts_carry_no_loss_and_the_end_is_learned() {
        let a = Encoded { tokens: vec![5, 6, 7, 8, 0], prompt: 3 };
        let b = Encoded { tokens: vec![5, 9, 0], prompt: 1 };
        let batch = pad(&[&a, &b], 1);
        assert_eq!((batch.rows, batch.seq, batch.real), (2, 4, 6));
        assert_eq!(batch.ids, [5, 6, 7, 8, 5, 9, 1, 1]);
        // Row 0 learns 8 and the end from positions 2 and 3; row 1 learns 9 and the end from its first two.
        assert_eq!(batch.supervised, [2, 3, 4, 5]);
        assert_eq!(batch.targets, [8, 0, 9, 0]);
    }

    #[test]
    fn an_epoch_shows_each_sample_once_with_little_padding() {
        let batches = SampleBatches::new(samples(), 16, 2, 1, 7).unwrap();
        let mut seen = BTreeMap::new();
        let (mut real, mut computed) = (0, 0);
        for step in 1..=batches.steps_per_epoch() {
            let micro = batches.step(step).unwrap();
            assert!(micro.len() <= 2);
            for batch in micro {
                (0..batch.rows).for_each(|row| *seen.entry(batch.ids[row * batch.seq]).or_insert(0) += 1);
                real += batch.real;
                computed += batch.rows * batch.seq;
            }
        }
        assert_eq!(seen.len(), 500);
        assert!(seen.values().all(|&count| count == 1));
        let padding = 1.0 - real as f64 / computed as f64;
        assert!(padding < 0.10, "{padding:.3} of the computed tokens are padding");
    }

    #[test]
    fn a_step_is_the_same_whenever_it_is_asked_for_and_epochs_differ() {
        let batches = SampleBatches::new(samples(), 16, 1, 1, 7).unwrap();
        assert_eq!(batches.step(40).unwrap(), batches.clone().step(40).unwrap());
        let order = |epoch: usize| batches.epoch(epoch);
        assert_ne!(order(0), order(1));
        assert_ne!(batches.step(1).unwrap(), SampleBatches::new(samples(), 16, 1, 1, 8).unwrap().step(1).unwrap());
    }

    #[test]
    fn a_sample_longer_than_the_context_is_named() {
        let text = || std::iter::once("def f(x):\n    return x\n".to_string());
        let tokenizer = Tokenizer::train(text(), 258).unwrap();
        let sample = Sample { id: "he_7".into(), prompt: "def f(x):\n".into(), solution: "    return x\n".into() };
        assert!(encode(std::slice::from_ref(&sample), &tokenizer, 23).is_ok());
        let fault = encode(&[sample], &tokenizer, 21).unwrap_err().to_string();
        assert!(fault.contains("he_7"), "{fault}");
        assert!(encode(&[], &tokenizer, 21).is_err());
    }
}
