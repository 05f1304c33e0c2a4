//! The figures of a sweep.

use super::chart::{Bars, Chart, Plot};
use crate::train::sweep::{Setting, SettingRow, Spread, SweepRecord};

/// Settings that fit one figure legibly.
const MOST_ROWS: usize = 16;

/// The figures of the sweep `name`, each called `name-…`: the validation loss, and the benchmark where it was measured.
pub fn all(record: &SweepRecord, name: &str) -> Vec<Chart> {
    std::iter::once(validation(record, name)).chain(benchmark(record, name)).collect()
}

/// Validation loss by setting, with the range over seeds.
fn validation(record: &SweepRecord, name: &str) -> Chart {
    let rows: Vec<_> = record.rows.iter().map(|row| (row, row.loss)).take(MOST_ROWS).collect();
    Chart {
        name: format!("{name}-validation"),
        title: match the_one(record) {
            Some(part) => format!("Does {part} matter more than the seed?"),
            None => "Which settings matter more than the seed?".into(),
        },
        caption: format!(
            "Validation loss of the kept step. {} Settings whose lines overlap are not told apart by these seeds. Best first, by share of validation tasks solved and then by loss.{}{}",
            reading(record),
            common(record),
            left_out(record)
        ),
        plot: Plot::Bars(Bars {
            x: "validation loss (nats/token)".into(),
            references: vec![(record.loss_before, format!("base {:.3}", record.loss_before))],
            digits: Some(3),
            ..bars(record, rows)
        }),
    }
}

/// pass@1 on the benchmark by setting, in the order of the settings, with the range over seeds.
fn benchmark(record: &SweepRecord, name: &str) -> Option<Chart> {
    let mut rows: Vec<_> = record.rows.iter().filter_map(|row| Some((row, row.benchmark?))).take(MOST_ROWS).collect();
    if rows.is_empty() {
        return None;
    }
    // "All", written as 0, is the largest number of samples.
    let size = |setting: &Setting| if setting.samples == 0 { usize::MAX } else { setting.samples };
    rows.sort_by(|(a, _), (b, _)| {
        let (a, b) = (&a.setting, &b.setting);
        (a.rank, size(a), &a.targets).cmp(&(b.rank, size(b), &b.targets)).then(a.lr.total_cmp(&b.lr))
    });
    let base = record.benchmark_before.map(|rate| (rate, format!("base {:.0} %", 100.0 * rate)));
    Some(Chart {
        name: format!("{name}-benchmark"),
        title: match the_one(record) {
            Some(part) => format!("What is {part} worth on the benchmark?"),
            None => "What does each setting solve of the benchmark?".into(),
        },
        caption: format!(
            "pass@1 on the benchmark. {} What another choice of tasks would change is not in these lines, and is more. No setting was chosen by this.{}{}",
            reading(record),
            common(record),
            left_out(record)
        ),
        plot: Plot::Bars(Bars {
            x: "benchmark samples that pass".into(),
            references: base.into_iter().collect(),
            percent: true,
            ..bars(record, rows)
        }),
    })
}

/// A bar a setting: the mean over its seeds, and their range.
fn bars(record: &SweepRecord, rows: Vec<(&SettingRow, Spread)>) -> Bars {
    let (settings, spreads): (Vec<&SettingRow>, Vec<Spread>) = rows.into_iter().unzip();
    Bars {
        labels: labels(record, &settings),
        groups: vec![("mean".into(), spreads.iter().map(|spread| spread.mean).collect())],
        intervals: vec![spreads.iter().map(|spread| (spread.low, spread.high)).collect()],
        ..Bars::default()
    }
}

/// What a setting's label says, part by part.
fn parts(setting: &Setting) -> [String; 4] {
    [
        format!("rank {}", setting.rank),
        format!("lr {:e}", setting.lr),
        setting.targets.clone(),
        format!("{} samples", setting.samples_name()),
    ]
}

/// Which of the parts differ between the settings of a sweep.
fn varying(record: &SweepRecord) -> [bool; 4] {
    let all: Vec<[String; 4]> = record.rows.iter().map(|row| parts(&row.setting)).collect();
    std::array::from_fn(|part| all.iter().any(|setting| setting[part] != all[0][part]))
}

/// The part that differs, when it is the only one.
fn the_one(record: &SweepRecord) -> Option<&'static str> {
    let names = ["the rank", "the learning rate", "the choice of layers", "the number of samples"];
    let mut varying = names.into_iter().zip(varying(record)).filter_map(|(name, varies)| varies.then_some(name));
    varying.next().filter(|_| varying.next().is_none())
}

/// A label for each row: the parts that differ within the sweep, or all of a single setting's.
fn labels(record: &SweepRecord, rows: &[&SettingRow]) -> Vec<String> {
    let varies = varying(record);
    let shown = |part: usize| varies[part] || varies == [false; 4];
    let label = |row: &&SettingRow| {
        let parts = parts(&row.setting).into_iter().enumerate().filter(|(part, _)| shown(*part));
        let label = parts.map(|(_, text)| text).collect::<Vec<_>>().join(" · ");
        if start_kept(record, row) { label + " (start kept)" } else { label }
    };
    rows.iter().map(label).collect()
}

/// Whether every seed kept the weights that it began with: no step of training has the start's loss to so many digits.
fn start_kept(record: &SweepRecord, row: &SettingRow) -> bool {
    [row.loss.low, row.loss.high].iter().all(|loss| (loss - record.loss_before).abs() < 1e-6)
}

/// How bars and lines are to be read, for the caption.
fn reading(record: &SweepRecord) -> String {
    let counts = || record.rows.iter().map(|row| row.seeds.len());
    let seeds = match (counts().min().unwrap_or(0), counts().max().unwrap_or(0)) {
        (1, 1) => "one seed".into(),
        (fewest, most) if fewest == most => format!("{most} seeds"),
        (fewest, most) => format!("{fewest} to {most} seeds"),
    };
    let kept = if record.rows.iter().any(|row| start_kept(record, row)) {
        " Where the start was kept, no step of any seed was better, and the bar is the untrained base."
    } else {
        ""
    };
    format!(
        "A bar is the mean over {seeds}; the line on it, in brackets behind it, runs from the lowest to the highest seed; the dashed line is the base before training.{kept}"
    )
}

/// What all settings have in common, for the caption.
fn common(record: &SweepRecord) -> String {
    let varies = varying(record);
    let Some(first) = record.rows.first().filter(|_| varies != [false; 4] && varies != [true; 4]) else {
        return String::new();
    };
    let same = parts(&first.setting).into_iter().enumerate().filter(|(part, _)| !varies[*part]);
    format!(" In common: {}.", same.map(|(_, text)| text).collect::<Vec<_>>().join(", "))
}

fn left_out(record: &SweepRecord) -> String {
    match record.rows.len().saturating_sub(MOST_ROWS) {
        0 => String::new(),
        more => format!(" The last {more} settings are left out; the table has them."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rank: usize, samples: usize, rate: Option<f64>) -> SettingRow {
        let spread = |value: f64| Spread::over(&[value, value + 0.1]).unwrap();
        SettingRow {
            setting: Setting { rank, lr: 1e-3, targets: "attention".into(), samples },
            seeds: vec![1, 2],
            trainable: 100 * rank,
            loss: spread(1.0),
            pass_rate: None,
            syntax_valid_rate: None,
            benchmark: rate.map(spread),
            seconds: 1.0,
        }
    }

    fn record(rows: Vec<SettingRow>) -> SweepRecord {
        SweepRecord {
            experiment: "test".into(),
            digest: "d".into(),
            planned: rows.len(),
            loss_before: 2.0,
            benchmark_before: Some(0.5),
            rows,
            failed: Vec::new(),
        }
    }

    fn drawn(chart: &Chart) -> &Bars {
        let Plot::Bars(bars) = &chart.plot else { panic!("{}", chart.name) };
        bars
    }

    #[test]
    fn labels_say_what_varies_and_the_caption_what_does_not() {
        let charts = all(&record(vec![row(8, 0, None), row(2, 0, None)]), "sweep-rank");
        assert_eq!(charts.len(), 1, "no benchmark was measured");
        assert_eq!(drawn(&charts[0]).labels, ["rank 8", "rank 2"]);
        assert_eq!(charts[0].title, "Does the rank matter more than the seed?");
        assert!(charts[0].caption.ends_with("In common: lr 1e-3, attention, all samples."), "{}", charts[0].caption);
        let single = all(&record(vec![row(8, 50, None)]), "sweep");
        assert_eq!(drawn(&single[0]).labels, ["rank 8 · lr 1e-3 · attention · 50 samples"]);
    }

    #[test]
    fn the_benchmark_is_shown_in_the_order_of_the_settings_with_all_samples_last() {
        let rows = vec![row(8, 0, Some(0.7)), row(8, 400, Some(0.4)), row(8, 50, Some(0.6))];
        let charts = all(&record(rows), "sweep-samples");
        let [_, chart] = charts.as_slice() else { panic!("{charts:?}") };
        assert_eq!(chart.name, "sweep-samples-benchmark");
        assert_eq!(chart.title, "What is the number of samples worth on the benchmark?");
        let bars = drawn(chart);
        assert_eq!(bars.labels, ["50 samples", "400 samples", "all samples"]);
        let means: Vec<f64> = bars.groups[0].1.iter().map(|mean| (100.0 * mean).round()).collect();
        assert_eq!(means, [65.0, 45.0, 75.0]);
        assert_eq!(bars.references, [(0.5, "base 50 %".to_string())]);
    }

    #[test]
    fn a_setting_that_never_left_the_start_is_named_as_the_base() {
        let before = Spread::over(&[2.0 - 1e-9, 2.0]).unwrap();
        let kept = SettingRow { loss: before, ..row(8, 110, None) };
        let charts = all(&record(vec![row(8, 0, None), kept]), "sweep-samples");
        assert_eq!(drawn(&charts[0]).labels, ["all samples", "110 samples (start kept)"]);
        assert!(charts[0].caption.contains("mean over 2 seeds"), "{}", charts[0].caption);
        assert!(charts[0].caption.contains("the untrained base"), "{}", charts[0].caption);
    }
}
