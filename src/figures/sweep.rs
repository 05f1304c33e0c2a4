//! The figure of a sweep.

use super::chart::{Bars, Chart, Plot};
use crate::train::sweep::{SettingRow, SweepRecord};

/// Settings that fit one figure legibly.
const MOST_ROWS: usize = 16;

/// Validation loss by setting, with the range over seeds.
pub fn validation(record: &SweepRecord) -> Chart {
    let rows: Vec<&SettingRow> = record.rows.iter().take(MOST_ROWS).collect();
    let left_out = match record.rows.len().saturating_sub(MOST_ROWS) {
        0 => String::new(),
        more => format!(" The last {more} settings are left out; the table has them."),
    };
    Chart {
        name: "sweep-validation".into(),
        title: "Which settings matter more than the seed?".into(),
        caption: format!(
            "Validation loss of the kept step. A bar is the mean over seeds, the line on it runs from the lowest to the highest seed; the dashed line is the base before training. Settings whose lines overlap are not told apart by these seeds. Best first, by share of validation tasks solved and then by loss.{left_out}"
        ),
        plot: Plot::Bars(Bars {
            x: "validation loss (nats/token)".into(),
            labels: rows.iter().map(|row| row.setting.label()).collect(),
            groups: vec![("mean".into(), rows.iter().map(|row| row.loss.mean).collect())],
            intervals: vec![rows.iter().map(|row| (row.loss.low, row.loss.high)).collect()],
            references: vec![(record.loss_before, format!("base {:.2}", record.loss_before))],
            ..Bars::default()
        }),
    }
}
