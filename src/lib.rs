//! # codelora: does a little tuning make a small code model solve tasks it has never seen?
//!
//! An earlier attempt at this plan trained a 29M-parameter Python model, tuned it with LoRA on 500 samples and solved 0
//! of 20 tasks. Its loss curves looked perfect: its attention had no causal mask, so the model copied the next token. Of its
//! converted samples, 61 % failed their own tests. This crate is the rerun in which each phase proves what it hands on.
//!
//! ```text
//! data collection ──► base model ──► LoRA ──► training ──► evaluation ──► decisions
//!  verified samples    audited        proven   resumable    sandboxed      gates declared
//! ```
//!
//! ## Floors
//!
//! Imports point down only; a test reads every `use crate::` line.
//!
//! | floor | modules | must not know |
//! |---|---|---|
//! | display | [`notebook`] | |
//! | the walk | [`phases`] | evcxr |
//! | pictures and verdicts | [`figures`], [`decide`] | tensors |
//! | measurement | [`mod@bench`] | |
//! | fitting and sampling | [`train`], [`generate`] | |
//! | samples, models | [`data`] (no tensors), [`model`] (no text) | each other |
//! | ground | [`error`], [`experiment`], [`artifact`], [`sandbox`], [`tokenizer`], [`seed`], [`progress`], [`python`], [`memory`] | anything above |
//!
//! ## Words
//!
//! - **prompt**: imports, signature and docstring, given to the model; **solution**: the body alone, written by it.
//! - **verified**: the solution passed its tests when executed, and an empty body failed them.
//! - **rank** r, **alpha** α: LoRA adds α/r · B·A to a frozen weight, with A of r rows and B of r columns.
//! - **pass@k**: chance that at least one of k samples passes, by the unbiased estimator of Chen et al. (2021).
//! - **collapse**: text that repeats itself or is white space.
//! - **gate**: a metric, a threshold and a reason, declared in the experiment file before the run.
//! - **held-out**: samples that nothing is trained on and no choice is made by.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod artifact;
pub mod error;
pub mod experiment;
pub mod memory;
pub mod progress;
pub mod python;
pub mod sandbox;
pub mod seed;
pub mod tokenizer;

pub mod data;
pub mod model;

pub mod generate;
pub mod train;

pub mod bench;
pub mod decide;
pub mod figures;
pub mod phases;

pub mod notebook;

pub use error::{Error, Result};
pub use experiment::Experiment;
