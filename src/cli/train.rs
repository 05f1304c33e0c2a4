//! The arguments of `codelora train`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use codelora::Experiment;

use super::arguments::{Common, from_here};

/// Arguments of `train`: the plan's own names, each an override of the experiment file.
#[derive(Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub common: Common,
    /// Base weights: .safetensors, or a PyTorch .pt.
    #[arg(long, value_name = "FILE")]
    pub init_checkpoint: Option<PathBuf>,
    /// Architecture of the base weights.
    #[arg(long, value_name = "FILE")]
    pub arch_json: Option<PathBuf>,
    /// Tokenizer of the base weights.
    #[arg(long, value_name = "FILE")]
    pub tokenizer_path: Option<PathBuf>,
    /// Train on these samples instead of phase 1's.
    #[arg(long, value_name = "FILE")]
    pub data_path: Option<PathBuf>,
    /// Validate on these samples instead of phase 1's.
    #[arg(long, value_name = "FILE")]
    pub val_path: Option<PathBuf>,
    /// Where the run goes.
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Optimiser steps.
    #[arg(long, value_name = "N")]
    pub max_steps: Option<usize>,
    /// Peak learning rate.
    #[arg(long)]
    pub lr: Option<f64>,
    /// Samples in a step.
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Steps between evaluations and checkpoints.
    #[arg(long, value_name = "N")]
    pub eval_interval: Option<usize>,
    /// Insist on going on from a saved state; a run that was stopped goes on in any case.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
}

impl TrainArgs {
    /// Refuses to resume what was never begun.
    pub fn check(&self, experiment: &Experiment) -> Result<()> {
        let folder = experiment.run_file("training");
        if self.resume && !folder.join("state.safetensors").is_file() {
            anyhow::bail!(
                "there is no saved state in {}\n  remedy: name the run's --output-dir, or start without --resume",
                folder.display()
            );
        }
        Ok(())
    }

    /// The experiment with the arguments in place of what its file says.
    pub fn apply(&self, mut experiment: Experiment) -> Result<Experiment> {
        let here = |path: &Option<PathBuf>| path.as_ref().map(|path| from_here(&experiment, path)).transpose();
        let checkpoint = here(&self.init_checkpoint)?;
        let (arch, tokenizer) = (here(&self.arch_json)?, here(&self.tokenizer_path)?);
        let (data, validation) = (here(&self.data_path)?, here(&self.val_path)?);
        let output = here(&self.output_dir)?;
        let config = &mut experiment.config;
        config.base.checkpoint = checkpoint.or(config.base.checkpoint.take());
        config.base.arch = arch.or(config.base.arch.take());
        config.base.tokenizer = tokenizer.or(config.base.tokenizer.take());
        config.train.data = data.or(config.train.data.take());
        config.train.validation = validation.or(config.train.validation.take());
        if let Some(folder) = output {
            // Another run has its own figures and records; those of the experiment stay.
            config.paths.figures = folder.join("figures");
            config.paths.run = folder;
        }
        config.train.optimizer.steps = self.max_steps.unwrap_or(config.train.optimizer.steps);
        config.train.optimizer.lr = self.lr.unwrap_or(config.train.optimizer.lr);
        config.train.batch_size = self.batch_size.unwrap_or(config.train.batch_size);
        config.train.eval_every = self.eval_interval.unwrap_or(config.train.eval_every);
        Ok(experiment)
    }
}
