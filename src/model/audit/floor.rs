//! Is a reported loss too good to be a language model's?

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Finding, finding};
use crate::artifact;
use crate::error::{Error, Result};

/// A reported loss this close to its floor, in nats per token, is no language model's.
const FLOOR_MARGIN: f64 = 0.1;

/// The label-smoothing audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// The floor, nats per token.
    pub floor: f64,
    /// The lowest reported loss, nats per token.
    pub lowest: f64,
    /// The step that reported it.
    pub step: u64,
    /// Reported losses.
    pub reports: usize,
    /// The label smoothing ε that the losses were computed with.
    #[serde(default)]
    pub smoothing: f64,
    /// The vocabulary that ε was spread over.
    #[serde(default)]
    pub vocabulary: usize,
    /// The reports by kind (`train_loss`, `val_loss`, `loss`): step and loss, thinned to at most [`Floor::POINTS`].
    #[serde(default)]
    pub curves: BTreeMap<String, Vec<(u64, f64)>>,
}

/// A reported loss: step, kind, nats per token.
pub type Report = (u64, String, f64);

impl Floor {
    /// Most points of a curve that are kept: more than a figure can show.
    pub const POINTS: usize = 150;

    /// Holds reported losses against their floor; none when nothing was reported.
    pub fn of(reports: &[Report], smoothing: f64, vocabulary: usize) -> Option<Self> {
        let lowest = reports.iter().min_by(|a, b| a.2.total_cmp(&b.2))?;
        let mut curves: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
        for (step, kind, loss) in reports {
            curves.entry(kind.clone()).or_default().push((*step, *loss));
        }
        for curve in curves.values_mut() {
            let stride = curve.len().div_ceil(Self::POINTS);
            let last = curve.len() - 1;
            let mut place = 0..;
            curve.retain(|_| place.next().is_some_and(|place| place % stride == 0 || place == last));
        }
        Some(Self {
            floor: smoothing_floor(smoothing, vocabulary),
            lowest: lowest.2,
            step: lowest.0,
            reports: reports.len(),
            smoothing,
            vocabulary,
            curves,
        })
    }

    /// The verdict.
    pub fn finding(&self) -> Finding {
        let above = self.lowest - self.floor;
        let sound = above > FLOOR_MARGIN;
        let lowest = format!("lowest reported loss {:.4} at step {}", self.lowest, self.step);
        let numbers = if self.floor > 0.0 {
            format!("{lowest}, {above:.4} above the floor {:.4} of label smoothing", self.floor)
        } else {
            format!("{lowest}; no label smoothing, so no floor")
        };
        let says = if sound { numbers } else { format!("{numbers}: it knows the answer it is asked for") };
        finding("label-smoothing floor", sound, says)
    }
}

/// What the earlier attempt's log reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EarlierLoss {
    /// Optimiser step, training loss and validation loss (nats per token) of some of its 50,000 steps, the last among them.
    pub reports: &'static [(u64, f64, f64)],
    /// Label smoothing ε of both.
    pub smoothing: f64,
    /// The vocabulary that ε was spread over.
    pub vocabulary: usize,
}

impl EarlierLoss {
    /// The floor of these losses, nats per token.
    pub fn floor(&self) -> f64 {
        smoothing_floor(self.smoothing, self.vocabulary)
    }

    /// Training and validation loss at the last step, nats per token.
    pub fn last(&self) -> (f64, f64) {
        self.reports.last().map_or((f64::NAN, f64::NAN), |&(_, training, validation)| (training, validation))
    }

    /// The reports as a log that was held against its floor; none when there are no reports.
    pub fn audited(&self) -> Option<Floor> {
        let kinds = |&(step, training, validation): &(u64, f64, f64)| {
            [(step, "train_loss".to_string(), training), (step, "val_loss".to_string(), validation)]
        };
        Floor::of(&self.reports.iter().flat_map(kinds).collect::<Vec<Report>>(), self.smoothing, self.vocabulary)
    }
}

/// The earlier attempt's reports, read from its published log.
pub const EARLIER: EarlierLoss = EarlierLoss {
    reports: &[
        (500, 4.3770, 3.8081),
        (1_000, 1.8240, 1.6396),
        (1_500, 1.3361, 1.3275),
        (2_000, 1.2827, 1.2974),
        (3_000, 1.2651, 1.2869),
        (5_000, 1.2555, 1.2771),
        (10_000, 1.2530, 1.2682),
        (20_000, 1.2511, 1.2634),
        (30_000, 1.2481, 1.2585),
        (40_000, 1.2455, 1.2549),
        (50_000, 1.2439, 1.2539),
    ],
    smoothing: 0.1,
    vocabulary: 8000,
};

/// The lowest cross-entropy that label smoothing allows, in nats per token: the entropy of the smoothed target,
/// −p·ln p − (V − 1)·q·ln q with q = ε/V and p = 1 − ε + q. Only a model that knows the next token reaches it.
pub fn smoothing_floor(smoothing: f64, vocab: usize) -> f64 {
    let q = smoothing / vocab as f64;
    let p = 1.0 - smoothing + q;
    let surprise = |x: f64| if x > 0.0 { -x * x.ln() } else { 0.0 };
    surprise(p) + (vocab as f64 - 1.0) * surprise(q)
}

/// Holds the losses of a JSONL log (`step`, and `train_loss`, `val_loss` or `loss`) against their floor.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`], also when no row reports a loss.
pub fn floor_of_log(file: &Path, smoothing: f64, vocab: usize) -> Result<Floor> {
    let rows: Vec<serde_json::Value> = artifact::read_jsonl(file)?;
    let reports: Vec<Report> = rows
        .iter()
        .filter_map(|row| Some((row["step"].as_u64()?, row)))
        .flat_map(|(step, row)| {
            let kinds = ["train_loss", "val_loss", "loss"].into_iter();
            kinds.filter_map(move |kind| Some((step, kind.to_string(), row[kind].as_f64()?)))
        })
        .collect();
    Floor::of(&reports, smoothing, vocab).ok_or_else(|| {
        let what = "no row has `step` and a loss";
        Error::malformed(file, None, what, "pass a JSONL log with `step` and `train_loss` or `val_loss`")
    })
}
