//! Corpora for pre-training: what texts there are, which are held out, and how they become token streams.
//!
//! Covered: generated exercises, Python's own standard library as pairs and files, exclusion of benchmark names, a held-out
//! part, statistics. Not covered: mixing, which is the training's.

pub mod library;
pub mod stream;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::data::exercises;
use crate::error::Result;
use crate::seed::sha256;
use crate::tokenizer::Tokenizer;

pub use library::standard_library;
pub use stream::TokenStream;

/// What one source contributes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatistics {
    /// `exercises`, `pairs` or `raw`.
    pub source: String,
    /// Documents in training.
    pub documents: usize,
    /// Documents held out.
    pub held_out: usize,
    /// Bytes of text in both.
    pub bytes: usize,
    /// Tokens in training, end-of-sequence tokens included.
    pub tokens: usize,
    /// Tokens held out.
    pub held_out_tokens: usize,
}

/// The texts of a corpus, by source.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    /// Generated exercises: prompt and solution.
    pub exercises: Vec<String>,
    /// (Signature and docstring → body) pairs of real code, in the exercises' format.
    pub pairs: Vec<String>,
    /// Whole files of real code.
    pub raw: Vec<String>,
}

impl Texts {
    /// `count` exercises, and Python's own standard library as pairs and files.
    ///
    /// # Errors
    /// As [`standard_library`].
    pub fn collect(seed: u64, count: usize) -> Result<Self> {
        let (pairs, raw) = standard_library()?;
        let exercises =
            exercises::generate(seed, count).into_iter().map(|task| format!("{}{}", task.prompt, task.solution));
        Ok(Self { exercises: exercises.collect(), pairs, raw })
    }

    /// Every text with its source's name.
    fn sources(&self) -> [(&'static str, &[String]); 3] {
        [("exercises", &self.exercises), ("pairs", &self.pairs), ("raw", &self.raw)]
    }

    /// Every text, to train a vocabulary on.
    pub fn all(&self) -> impl Iterator<Item = String> + Send + '_ {
        self.exercises.iter().chain(&self.pairs).chain(&self.raw).cloned()
    }
}

/// One document in this many is held out, by its own digest, so that the choice survives another order or size.
const HOLD_OUT_ONE_IN: u32 = 50;

fn is_held_out(text: &str) -> bool {
    u32::from_str_radix(&sha256(text)[..8], 16).is_ok_and(|n| n % HOLD_OUT_ONE_IN == 0)
}

/// Documents tokenised together: enough to keep all cores busy, few enough to bound the memory.
const CHUNK: usize = 4096;

/// One source as two streams.
#[derive(Debug, Clone)]
pub struct SourceStreams {
    /// What may train.
    pub train: TokenStream,
    /// What is held out.
    pub held_out: TokenStream,
    /// The counts.
    pub statistics: SourceStatistics,
}

/// A tokenised corpus, in the order exercises, pairs, raw.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// The sources.
    pub sources: Vec<SourceStreams>,
}

impl Corpus {
    /// Tokenises texts into `folder`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::error::Error::Io); [`Error::Invalid`](crate::error::Error::Invalid) from the tokenizer.
    pub fn build(folder: &Path, tokenizer: &Tokenizer, texts: &Texts) -> Result<Self> {
        let mut statistics = Vec::new();
        for (source, texts) in texts.sources() {
            let stream = |held_out: bool| {
                let chosen: Vec<&String> = texts.iter().filter(|text| is_held_out(text) == held_out).collect();
                let documents = chosen.chunks(CHUNK).flat_map(|chunk| {
                    let encode = |text: &&String| {
                        let mut tokens = tokenizer.encode(text)?;
                        tokens.push(tokenizer.eos());
                        Ok(tokens)
                    };
                    chunk.par_iter().map(encode).collect::<Vec<Result<Vec<u32>>>>()
                });
                TokenStream::write(&stem(folder, source, held_out), documents)
            };
            let (train, held_out) = (stream(false)?, stream(true)?);
            statistics.push(SourceStatistics {
                source: source.to_string(),
                documents: train.documents(),
                held_out: held_out.documents(),
                bytes: texts.iter().map(String::len).sum(),
                tokens: train.tokens().len(),
                held_out_tokens: held_out.tokens().len(),
            });
        }
        artifact::write_json(&folder.join("statistics.json"), &statistics)?;
        Self::open(folder)
    }

    /// Opens a corpus.
    ///
    /// # Errors
    /// [`Error::Io`](crate::error::Error::Io), [`Error::Malformed`](crate::error::Error::Malformed).
    pub fn open(folder: &Path) -> Result<Self> {
        let statistics: Vec<SourceStatistics> = artifact::read_json(&folder.join("statistics.json"))?;
        let open = |statistics: SourceStatistics| {
            Ok(SourceStreams {
                train: TokenStream::open(&stem(folder, &statistics.source, false))?,
                held_out: TokenStream::open(&stem(folder, &statistics.source, true))?,
                statistics,
            })
        };
        Ok(Self { sources: statistics.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// Whether a corpus lies in `folder`.
    pub fn exists(folder: &Path) -> bool {
        folder.join("statistics.json").is_file()
    }

    /// The counts of all sources.
    pub fn statistics(&self) -> Vec<SourceStatistics> {
        self.sources.iter().map(|source| source.statistics.clone()).collect()
    }
}

fn stem(folder: &Path, source: &str, held_out: bool) -> PathBuf {
    folder.join(format!("{source}-{}", if held_out { "held-out" } else { "train" }))
}
