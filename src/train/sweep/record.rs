//! What the points of a sweep found: how much a setting matters, beside how much the seed does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Point, Setting};
use crate::error::{Error, Result};
use crate::train::metrics::{StopReason, TrainingRecord};

/// What one point found; written as `point.json` when its training has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointResult {
    /// Digest of the experiment that the sweep varies.
    pub digest: String,
    /// The point.
    pub point: Point,
    /// Trainable parameters.
    pub trainable: usize,
    /// The step whose weights were kept.
    pub kept_step: usize,
    /// Why training ended.
    pub stop: StopReason,
    /// Validation loss before training, in nats/token.
    pub loss_before: f64,
    /// Validation loss of the kept step, in nats/token.
    pub loss: f64,
    /// Share of validation tasks that the kept step solves greedily.
    pub pass_rate: Option<f64>,
    /// Share of its completions that parse.
    pub syntax_valid_rate: Option<f64>,
    /// Share of its completions that collapsed.
    pub collapse_rate: Option<f64>,
    /// pass@1 on the experiment's benchmark, where the sweep measures it.
    #[serde(default)]
    pub benchmark: Option<f64>,
    /// Wall time of the training in seconds.
    pub seconds: f64,
}

impl PointResult {
    /// What a training run says about its point, and its pass@1 on the benchmark where that was measured.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the record holds no evaluation.
    pub fn new(point: Point, digest: String, record: &TrainingRecord, benchmark: Option<f64>) -> Result<Self> {
        let (Some(first), Some(kept)) = (record.evaluations.first(), record.kept_evaluation()) else {
            return Err(Error::invalid("the run was never evaluated", "lower eval_every below its number of steps"));
        };
        let generated = kept.generated.as_ref();
        Ok(Self {
            digest,
            point,
            trainable: record.trainable_parameters,
            kept_step: record.kept_step,
            stop: record.stop.clone(),
            loss_before: first.validation_loss,
            loss: kept.validation_loss,
            pass_rate: generated.map(|check| check.pass_rate),
            syntax_valid_rate: generated.map(|check| check.syntax_valid_rate),
            collapse_rate: generated.map(|check| check.collapse_rate),
            benchmark,
            seconds: record.seconds,
        })
    }
}

/// A number over the seeds of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean over the seeds.
    pub mean: f64,
    /// Standard deviation over the seeds (n − 1); none of a single seed.
    pub deviation: Option<f64>,
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

impl Spread {
    /// The spread of some values; none of none.
    pub fn over(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Some(Self {
            mean,
            deviation: (values.len() > 1).then(|| (square / (count - 1.0)).sqrt()),
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// A setting over its seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingRow {
    /// The setting.
    pub setting: Setting,
    /// The seeds that ended.
    pub seeds: Vec<u64>,
    /// Trainable parameters.
    pub trainable: usize,
    /// Validation loss of the kept step, in nats/token.
    pub loss: Spread,
    /// Share of validation tasks solved.
    pub pass_rate: Option<Spread>,
    /// Share of completions that parse.
    pub syntax_valid_rate: Option<Spread>,
    /// pass@1 on the benchmark, where it was measured. No setting is ranked by it.
    #[serde(default)]
    pub benchmark: Option<Spread>,
    /// Mean wall time of a run in seconds.
    pub seconds: f64,
}

/// A point that did not end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Its name.
    pub point: String,
    /// How often it was started.
    pub attempts: usize,
    /// The last error it printed.
    pub reason: String,
}

/// A whole sweep, best setting first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepRecord {
    /// The experiment that was varied.
    pub experiment: String,
    /// Its digest.
    pub digest: String,
    /// Points that were planned.
    pub planned: usize,
    /// Validation loss before training, in nats/token.
    pub loss_before: f64,
    /// pass@1 of the base on the benchmark, where the experiment's own run has measured it.
    #[serde(default)]
    pub benchmark_before: Option<f64>,
    /// One row a setting: highest mean pass rate first, then lowest mean loss, as checkpoints are chosen.
    pub rows: Vec<SettingRow>,
    /// What did not end.
    pub failed: Vec<Failure>,
}

impl SweepRecord {
    /// Gathers results by setting.
    pub fn new(experiment: &str, digest: &str, results: &[PointResult], failed: Vec<Failure>) -> Self {
        let mut settings: BTreeMap<String, Vec<&PointResult>> = BTreeMap::new();
        for result in results {
            settings.entry(result.point.setting.label()).or_default().push(result);
        }
        let mut rows: Vec<SettingRow> = settings.values().filter_map(|runs| row(runs)).collect();
        let passed = |row: &SettingRow| row.pass_rate.map_or(0.0, |rate| rate.mean);
        rows.sort_by(|a, b| passed(b).total_cmp(&passed(a)).then(a.loss.mean.total_cmp(&b.loss.mean)));
        Self {
            experiment: experiment.into(),
            digest: digest.into(),
            planned: results.len() + failed.len(),
            loss_before: results.first().map_or(f64::NAN, |result| result.loss_before),
            benchmark_before: None,
            rows,
            failed,
        }
    }

    /// The table: a header and one row a setting.
    pub fn table(&self) -> Vec<Vec<String>> {
        let header = [
            "rank",
            "lr",
            "targets",
            "samples",
            "seeds",
            "trainable",
            "validation loss",
            "passes",
            "parses",
            "benchmark",
            "s",
        ];
        let mut rows = vec![header.map(String::from).to_vec()];
        let share = |spread: Option<Spread>| spread.map_or("–".into(), |s| shown(&s, 100.0, 0) + " %");
        rows.extend(self.rows.iter().map(|row| {
            vec![
                row.setting.rank.to_string(),
                format!("{:e}", row.setting.lr),
                row.setting.targets.clone(),
                row.setting.samples_name(),
                row.seeds.len().to_string(),
                row.trainable.to_string(),
                shown(&row.loss, 1.0, 4),
                share(row.pass_rate),
                share(row.syntax_valid_rate),
                share(row.benchmark),
                format!("{:.0}", row.seconds),
            ]
        }));
        rows
    }
}

/// `mean ± deviation [low, high]`; of a single seed the value alone.
fn shown(spread: &Spread, scale: f64, digits: usize) -> String {
    let [mean, low, high] = [spread.mean, spread.low, spread.high].map(|v| format!("{:.digits$}", v * scale));
    match spread.deviation {
        Some(deviation) => format!("{mean} ± {:.digits$} [{low}, {high}]", deviation * scale),
        None => mean,
    }
}

fn row(runs: &[&PointResult]) -> Option<SettingRow> {
    let over = |value: fn(&PointResult) -> Option<f64>| {
        Spread::over(&runs.iter().filter_map(|run| value(run)).collect::<Vec<f64>>())
    };
    let first = runs.first()?;
    Some(SettingRow {
        setting: first.point.setting.clone(),
        seeds: runs.iter().map(|run| run.point.seed).collect(),
        trainable: first.trainable,
        loss: over(|run| Some(run.loss))?,
        pass_rate: over(|run| run.pass_rate),
        syntax_valid_rate: over(|run| run.syntax_valid_rate),
        benchmark: over(|run| run.benchmark),
        seconds: over(|run| Some(run.seconds))?.mean,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(rank: usize, seed: u64, loss: f64, pass_rate: f64) -> PointResult {
        let setting = Setting { rank, lr: 1e-3, targets: "attention".into(), samples: 0 };
        PointResult {
            digest: "d".into(),
            point: Point { setting, seed },
            trainable: 100 * rank,
            kept_step: 10,
            stop: StopReason::Finished,
            loss_before: 2.0,
            loss,
            pass_rate: Some(pass_rate),
            syntax_valid_rate: None,
            collapse_rate: None,
            benchmark: None,
            seconds: 3.0,
        }
    }

    #[test]
    fn seeds_of_a_setting_become_one_row_with_their_spread() {
        let results = [result(4, 1, 1.0, 0.1), result(4, 2, 1.2, 0.3), result(8, 1, 1.4, 0.2), result(16, 1, 1.3, 0.2)];
        let record = SweepRecord::new("test", "d", &results, Vec::new());
        let ranks: Vec<usize> = record.rows.iter().map(|row| row.setting.rank).collect();
        assert_eq!(ranks, [4, 16, 8], "the pass rate decides, then the loss");
        let loss = record.rows[0].loss;
        assert!((loss.mean - 1.1).abs() < 1e-12 && (loss.deviation.unwrap() - 0.02f64.sqrt()).abs() < 1e-12);
        assert_eq!((loss.low, loss.high, record.rows[0].seeds.len()), (1.0, 1.2, 2));
        assert_eq!(record.rows[1].loss.deviation, None, "one seed has no variance");
        assert_eq!(record.table()[1][6], "1.1000 ± 0.1414 [1.0000, 1.2000]");
    }
}
