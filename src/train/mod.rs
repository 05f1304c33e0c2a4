//! Fitting weights to tokens: pre-training a base and training an adapter are one loop.

pub mod adamw;
pub mod average;
pub mod batch;
pub mod gradients;
pub mod job;
pub mod loss;
pub mod metrics;
mod muon;
pub mod optimizer;
mod pending;
pub mod schedule;
pub mod state;
pub mod sweep;
pub mod tensorboard;
pub mod trainer;
pub mod windows;
