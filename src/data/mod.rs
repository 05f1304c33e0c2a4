//! From raw rows to verified, decontaminated, divided samples. Knows no tensors.

pub mod analyze;
pub mod cache;
pub mod corpus;
pub mod decontaminate;
pub mod duplicates;
pub mod embedded;
pub mod exercises;
#[cfg(feature = "cli")]
pub mod fetch;
pub mod filter;
pub mod fingerprint;
pub mod humaneval;
pub mod imported;
pub mod mbpp;
pub(crate) mod python_source;
pub mod quality;
pub mod read;
pub mod row;
pub mod split;
pub mod task;
pub mod verify;
pub mod worklist;
