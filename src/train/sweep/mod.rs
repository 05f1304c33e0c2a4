//! The points of a sweep: every combination of some settings, with several seeds each.

mod record;

pub use record::{Failure, PointResult, SettingRow, Spread, SweepRecord};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::experiment::Experiment;

/// The values to try; an empty list stands for the experiment's own value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Ranks; α grows with the rank, so that the scale (α/r, with `rslora` α/√r) stays the experiment's.
    pub ranks: Vec<usize>,
    /// Peak learning rates.
    pub lrs: Vec<f64>,
    /// Targets, each a list joined by `+`, e.g. `qkv+out_proj`.
    pub targets: Vec<String>,
    /// Numbers of training samples; 0 is all.
    pub samples: Vec<usize>,
    /// Seeds of the adapter, the batches and dropout.
    pub seeds: Vec<u64>,
}

/// What a point tries, apart from its seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Rank of the adapter.
    pub rank: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Adapted layers, joined by `+`.
    pub targets: String,
    /// Training samples; 0 is all.
    pub samples: usize,
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// What is tried.
    pub setting: Setting,
    /// With which seed.
    pub seed: u64,
}

impl Grid {
    /// Every combination, the seeds of a setting side by side.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a value is named twice.
    pub fn points(&self, exp: &Experiment) -> Result<Vec<Point>> {
        let config = &exp.config;
        let ranks = or_own("rank", &self.ranks, config.lora.rank)?;
        let patterned = !config.lora.rank_pattern.is_empty() || !config.lora.alpha_pattern.is_empty();
        if patterned && !self.ranks.is_empty() {
            let remedy =
                "take rank_pattern and alpha_pattern out of [lora]: their layers would keep the rank they name";
            return Err(Error::invalid("a sweep over ranks of an adapter with patterns", remedy));
        }
        let lrs = or_own("lr", &self.lrs, config.train.optimizer.lr)?;
        let targets = or_own("targets", &self.targets, config.lora.targets.join("+"))?;
        let samples = or_own("samples", &self.samples, config.train.samples.unwrap_or(0))?;
        let seeds = or_own("seeds", &self.seeds, exp.train_seed())?;
        let mut points = Vec::new();
        for &rank in &ranks {
            for &lr in &lrs {
                for targets in &targets {
                    for &samples in &samples {
                        let setting = Setting { rank, lr, targets: targets.clone(), samples };
                        points.extend(seeds.iter().map(|&seed| Point { setting: setting.clone(), seed }));
                    }
                }
            }
        }
        Ok(points)
    }
}

fn or_own<T: Clone + PartialEq + std::fmt::Debug>(what: &str, values: &[T], own: T) -> Result<Vec<T>> {
    if let Some(twice) = values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)) {
        return Err(Error::invalid(format!("{what} {:?} is in the grid twice", twice.1), "name each value once"));
    }
    Ok(if values.is_empty() { vec![own] } else { values.to_vec() })
}

impl Setting {
    /// Short and fit for a figure, e.g. `r 8 · lr 1e-3 · attention · all`.
    pub fn label(&self) -> String {
        format!("r {} · lr {:e} · {} · {}", self.rank, self.lr, self.targets, self.samples_name())
    }

    /// The number of samples, or `all`.
    pub fn samples_name(&self) -> String {
        if self.samples == 0 { "all".into() } else { self.samples.to_string() }
    }
}

impl Point {
    /// The name of its folder, e.g. `rank8-lr1e-3-attention-all-seed17`.
    pub fn name(&self) -> String {
        let Setting { rank, lr, targets, .. } = &self.setting;
        format!("rank{rank}-lr{lr:e}-{targets}-{}-seed{}", self.setting.samples_name(), self.seed)
    }

    /// The experiment of this point, with its run in `folder`. Phase 1 stays the experiment's: every point trains on the
    /// same samples, or the first of the same shuffle, and is held against the same validation.
    #[must_use]
    pub fn apply(&self, mut exp: Experiment, folder: &std::path::Path) -> Experiment {
        let Setting { rank, lr, targets, samples } = &self.setting;
        let config = &mut exp.config;
        config.name = self.name();
        let grown = *rank as f64 / config.lora.rank as f64;
        config.lora.alpha *= if config.lora.rslora { grown.sqrt() } else { grown };
        config.lora.rank = *rank;
        config.lora.targets = targets.split('+').map(String::from).collect();
        config.train.optimizer.lr = *lr;
        config.train.samples = Some(*samples).filter(|&samples| samples > 0);
        config.train.seed = Some(self.seed);
        config.paths.run = folder.to_path_buf();
        config.paths.figures = folder.join("figures");
        exp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_every_combination_and_keeps_the_scale() {
        let exp = Experiment::open("data/experiments/quick.toml").unwrap();
        let grid = Grid { ranks: vec![4, 16], seeds: vec![1, 2, 3], lrs: vec![1e-3, 5e-4], ..Grid::default() };
        let points = grid.points(&exp).unwrap();
        assert_eq!(points.len(), 12);
        let names: std::collections::BTreeSet<String> = points.iter().map(Point::name).collect();
        assert_eq!(names.len(), 12);
        let changed = points[11].apply(exp.clone(), std::path::Path::new("/tmp/x"));
        let (before, after) = (&exp.config.lora, &changed.config.lora);
        assert_eq!((after.rank, changed.config.train.optimizer.lr, changed.train_seed()), (16, 5e-4, 3));
        assert_eq!(before.alpha / before.rank as f64, after.alpha / after.rank as f64);
        let mut stabilised = exp.clone();
        stabilised.config.lora.rslora = true;
        let after = points[11].apply(stabilised, std::path::Path::new("/tmp/x")).config.lora;
        let scale = |alpha: f64, rank: usize| alpha / (rank as f64).sqrt();
        assert!((scale(before.alpha, before.rank) - scale(after.alpha, after.rank)).abs() < 1e-12);
        assert!(Grid { ranks: vec![4, 4], ..Grid::default() }.points(&exp).is_err());
    }
}
