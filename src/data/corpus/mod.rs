//! Corpora for pre-training: what texts there are, which are held out, and how they become token streams.
//!
//! Covered: generated exercises; Python files of the standard library, of folders and of a recipe of packages, as files and
//! as pairs; filters, repeats, benchmarks kept out by name and by n-grams; a held-out part; statistics. Not covered: mixing,
//! which is the training's.

pub mod contamination;
pub mod gather;
pub mod library;
pub mod recipe;
pub mod repeats;
pub mod screen;
pub mod stream;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::data::corpus::contamination::Contamination;
use crate::data::corpus::gather::{Origin, OriginStatistics, Rules, Spool};
use crate::data::task::Task;
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

/// The documents of one source, in memory or on disk.
#[derive(Debug, Clone)]
pub enum Documents {
    /// In memory.
    Held(Vec<String>),
    /// In a file that [`gather`](gather::gather) left.
    Spooled(PathBuf),
}

impl Default for Documents {
    fn default() -> Self {
        Self::Held(Vec::new())
    }
}

impl Documents {
    /// Each document, in order.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the file cannot be opened; each document's own error.
    pub fn iter(&self) -> Result<Box<dyn Iterator<Item = Result<String>> + Send + '_>> {
        Ok(match self {
            Self::Held(texts) => Box::new(texts.iter().cloned().map(Ok)),
            Self::Spooled(file) => Box::new(Spool::read(file)?),
        })
    }
}

/// The texts of a corpus, by source.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    /// Generated exercises: prompt and solution.
    pub exercises: Documents,
    /// (Signature and docstring → body) pairs of real code, in the exercises' format.
    pub pairs: Documents,
    /// Whole files of real code.
    pub raw: Documents,
    /// Where real code comes from, when it was gathered from more than the standard library.
    pub origins: Vec<OriginStatistics>,
}

/// Most bytes of text that a vocabulary is trained on; merges do not change with more.
const VOCABULARY_BYTES: u64 = 64 << 20;

impl Texts {
    /// Generated `exercises`, and Python's own standard library as pairs and files, without what `contamination` knows.
    ///
    /// # Errors
    /// As [`standard_library`].
    pub fn collect(exercises: &[Task], contamination: &Contamination) -> Result<Self> {
        let (pairs, raw) = standard_library(contamination)?;
        Ok(Self {
            exercises: whole(exercises),
            pairs: Documents::Held(pairs),
            raw: Documents::Held(raw),
            origins: Vec::new(),
        })
    }

    /// Generated `exercises`, and the documents of `origins`, gathered into `folder`.
    ///
    /// # Errors
    /// As [`gather`](gather::gather).
    pub fn gather(exercises: &[Task], origins: &[Origin], rules: &Rules, folder: &Path) -> Result<Self> {
        let gathered = gather::gather(origins, rules, folder)?;
        Ok(Self {
            exercises: whole(exercises),
            pairs: Documents::Spooled(gathered.pairs),
            raw: Documents::Spooled(gathered.raw),
            origins: gathered.origins,
        })
    }

    /// Every source with its name.
    fn sources(&self) -> [(&'static str, &Documents); 3] {
        [("exercises", &self.exercises), ("pairs", &self.pairs), ("raw", &self.raw)]
    }

    /// Text to train a vocabulary on: all of it, or of a large file as much as suffices, chosen by digest.
    ///
    /// # Errors
    /// As [`Documents::iter`]; the text ends at a document that cannot be read, which tokenising names later.
    pub fn sample(&self) -> Result<impl Iterator<Item = String> + Send + '_> {
        let mut parts = Vec::new();
        for (_, documents) in self.sources() {
            let bytes = match documents {
                Documents::Held(_) => 0,
                Documents::Spooled(file) => file.metadata().map_or(0, |meta| meta.len()),
            };
            let share = VOCABULARY_BYTES as f64 / bytes.max(1) as f64;
            let chosen = move |text: &String| share >= 1.0 || f64::from(draw(text)) < share * f64::from(u32::MAX);
            parts.push(documents.iter()?.map_while(Result::ok).filter(chosen));
        }
        Ok(parts.into_iter().flatten())
    }
}

/// Prompt and solution of each task as a document.
fn whole(tasks: &[Task]) -> Documents {
    Documents::Held(tasks.iter().map(|task| format!("{}{}", task.prompt, task.solution)).collect())
}

/// A number that depends on the text alone.
fn draw(text: &str) -> u32 {
    u32::from_str_radix(&sha256(text)[..8], 16).unwrap_or(0)
}

/// One document in this many is held out, by its own digest, so that the choice survives another order or size.
const HOLD_OUT_ONE_IN: u32 = 50;

fn is_held_out(text: &str) -> bool {
    draw(text).is_multiple_of(HOLD_OUT_ONE_IN)
}

/// Documents tokenised together: enough to keep all cores busy, few enough to bound the memory.
const CHUNK: usize = 1024;

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
        for (source, documents) in texts.sources() {
            let bytes = AtomicUsize::new(0);
            let stream = |held_out: bool| {
                let chosen =
                    documents.iter()?.filter(|text| text.as_ref().map_or(true, |t| is_held_out(t) == held_out));
                let encode = |text: Result<String>| {
                    let text = text?;
                    bytes.fetch_add(text.len(), Ordering::Relaxed);
                    let mut tokens = tokenizer.encode(&text)?;
                    tokens.push(tokenizer.eos());
                    Ok(tokens)
                };
                let encoded = chunks(chosen, CHUNK)
                    .flat_map(|chunk| chunk.into_par_iter().map(encode).collect::<Vec<Result<Vec<u32>>>>());
                TokenStream::write(&stem(folder, source, held_out), encoded)
            };
            let (train, held_out) = (stream(false)?, stream(true)?);
            statistics.push(SourceStatistics {
                source: source.to_string(),
                documents: train.documents(),
                held_out: held_out.documents(),
                bytes: bytes.load(Ordering::Relaxed),
                tokens: train.tokens().len(),
                held_out_tokens: held_out.tokens().len(),
            });
        }
        artifact::write_json(&folder.join("origins.json"), &texts.origins)?;
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

    /// Where the real code of a corpus in `folder` comes from; empty when that is the standard library alone.
    ///
    /// # Errors
    /// [`Error::Io`](crate::error::Error::Io), [`Error::Malformed`](crate::error::Error::Malformed).
    pub fn origins(folder: &Path) -> Result<Vec<OriginStatistics>> {
        let file = folder.join("origins.json");
        if file.is_file() { artifact::read_json(&file) } else { Ok(Vec::new()) }
    }

    /// The counts of all sources.
    pub fn statistics(&self) -> Vec<SourceStatistics> {
        self.sources.iter().map(|source| source.statistics.clone()).collect()
    }
}

/// Items in vectors of at most `size`.
fn chunks<T>(mut items: impl Iterator<Item = T>, size: usize) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let chunk: Vec<T> = items.by_ref().take(size).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn stem(folder: &Path, source: &str, held_out: bool) -> PathBuf {
    folder.join(format!("{source}-{}", if held_out { "held-out" } else { "train" }))
}
