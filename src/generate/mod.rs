//! Batched sampling with a key-value cache and stop conditions.
//!
//! The caller hands over [`Request`]s; each distinct prompt is read once, its cache is expanded to its samples, and a
//! finished sequence leaves the batch. Every request draws from a generator seeded by its key, so that it gives the same
//! completion alone or in a batch.
//!
//! *Exactness*: a matrix product of another batch size may differ in the last bits, so a draw that falls within 1e-6 of
//! the boundary between two tokens could in principle go the other way.

mod batch;
mod sampler;
mod stop;

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::memory;
use crate::model::transformer::Transformer;
use crate::progress::Progress;
use crate::tokenizer::Tokenizer;

pub use stop::body_end;

/// How the next token is chosen. The filters apply in the order of the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divides the logits of tokens that occurred before (positive) or multiplies them (negative); 1 changes nothing
    /// (Keskar et al. 2019, section 4.1).
    pub repetition_penalty: f64,
    /// Divides all logits; 0 is greedy.
    pub temperature: f64,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens with this probability mass; 1 keeps all (Holtzman et al. 2020).
    pub top_p: f64,
    /// Keep tokens with at least this share of the likeliest token's probability; 0 keeps all.
    pub min_p: f64,
    /// Most tokens in a completion.
    pub max_new_tokens: usize,
    /// Stop where the text leaves the function's body: at a line that begins in column zero.
    pub stop_at_dedent: bool,
    /// Stop before any of these strings.
    pub stop: Vec<String>,
    /// Seed of all requests; each has its own generator, named by its key.
    pub seed: u64,
}

/// One completion to be written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Names the generator, e.g. `bench_gcd#3`: the same key under the same seed gives the same completion.
    pub key: String,
    /// The text to continue.
    pub prompt: String,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model wrote the end-of-sequence token.
    EndOfSequence,
    /// A line began in column zero.
    Dedent,
    /// A stop string was written.
    StopString,
    /// The token limit, or the end of the model's context, was reached.
    Limit,
    /// The prompt alone fills the model's context; nothing was written.
    PromptTooLong,
}

impl Finish {
    /// The name used in files and tables, e.g. `end_of_sequence`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfSequence => "end_of_sequence",
            Self::Dedent => "dedent",
            Self::StopString => "stop_string",
            Self::Limit => "limit",
            Self::PromptTooLong => "prompt_too_long",
        }
    }
}

/// What the model wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The text after the prompt, without what stopped it.
    pub text: String,
    /// The tokens written, the stopping one included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Sum over the tokens of ln p(token | before) in nats, under the model itself (temperature 1, nothing filtered).
    pub log_likelihood: f64,
}

impl Completion {
    /// Mean of ln p over the tokens, in nats per token: by it completions of different lengths are ranked (Chen et al. 2021,
    /// section 3.3). −∞ when nothing was written.
    pub fn mean_log_likelihood(&self) -> f64 {
        mean_log_likelihood(self.log_likelihood, self.tokens.len())
    }
}

/// See [`Completion::mean_log_likelihood`].
pub(crate) fn mean_log_likelihood(sum: f64, tokens: usize) -> f64 {
    if tokens == 0 { f64::NEG_INFINITY } else { sum / tokens as f64 }
}

/// How fast completions were written.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens written.
    pub tokens: usize,
    /// Seconds, reading the prompts included.
    pub seconds: f64,
}

impl Speed {
    /// Tokens written per second.
    pub fn tokens_per_second(self) -> f64 {
        self.tokens as f64 / self.seconds.max(1e-9)
    }
}

/// Completes every request, in the order of the requests.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for an impossible setting, an empty prompt or logits that are not numbers;
/// whatever the model and the tokenizer return.
pub fn generate(
    model: &Transformer,
    tokenizer: &Tokenizer,
    requests: &[Request],
    sampling: &Sampling,
    progress: &Progress,
) -> Result<Vec<Completion>> {
    let mut completions = vec![None; requests.len()];
    let start = Instant::now();
    let mut tokens = 0;
    stream(model, tokenizer, requests, sampling, |index, completion| {
        tokens += completion.tokens.len();
        let rate = tokens as f64 / start.elapsed().as_secs_f64();
        progress.note(1, format!("{rate:.0} tokens/s"));
        completions[index] = Some(completion);
        Ok(())
    })?;
    Ok(completions.into_iter().flatten().collect())
}

/// Completes every request and hands each completion with its request's index to `sink` as soon as it is done, in
/// whatever order they end.
///
/// # Errors
/// As [`generate()`], and whatever `sink` returns.
pub fn stream(
    model: &Transformer,
    tokenizer: &Tokenizer,
    requests: &[Request],
    sampling: &Sampling,
    sink: impl FnMut(usize, Completion) -> Result<()>,
) -> Result<Speed> {
    memory::keep_freed();
    let start = Instant::now();
    sampling.check()?;
    let tokens = batch::run(model, tokenizer, requests, sampling, sink)?;
    Ok(Speed { tokens, seconds: start.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests;
