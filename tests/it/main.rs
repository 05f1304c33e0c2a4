//! Integration tests, one binary: linking the tensor and table libraries once is most of the cost.

#[cfg(feature = "cli")]
mod background;
mod base_import;
#[cfg(feature = "cli")]
mod bench_cli;
mod bench_harness;
mod cli;
mod collapse_calibration;
mod data_phase;
#[cfg(feature = "cli")]
mod fetch;
mod figures;
mod house;
mod model_as_one;
mod model_audit;
mod model_golden;
mod model_proofs;
mod notebooks;
mod peers;
#[cfg(feature = "cli")]
mod pretraining_runs;
mod sandbox_attacks;
mod small;
#[cfg(feature = "cli")]
mod sweep;
mod training;
#[cfg(feature = "cli")]
mod training_refusals;
#[cfg(feature = "cli")]
mod training_runs;
mod verdict_peers;
#[cfg(feature = "cli")]
mod walk;
