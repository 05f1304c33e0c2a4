//! The walk: what the notebooks and the command line both call. Each `run` computes its artifact or reopens it.

pub mod background;
pub mod base_model;
pub mod corpus;
pub mod cost;
pub mod data_collection;
pub mod decisions;
pub mod evaluation;
pub mod export;
pub mod import;
pub mod judging;
pub mod lora;
pub mod memorise;
pub mod pretraining;
pub mod speed;
pub mod sweep;
pub mod training;
pub mod twins;
pub mod walk;
