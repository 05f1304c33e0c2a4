//! Figures of the earlier failure: what a missing mask does to a loss, and to what a model writes.

use std::collections::BTreeMap;

use super::chart::{Bars, Chart, Lines, Plot, Series};
use crate::bench::twins::{Twin, TwinsRecord, Written};
use crate::model::audit::{EARLIER, Floor};
use crate::sandbox::Outcome;

/// Every figure of the twins, in the order of the notebook.
pub fn all(record: &TwinsRecord) -> Vec<Chart> {
    vec![floors(record), losses(record), written(record), earlier()]
}

/// What the earlier attempt's log reports, beside the floor of its label smoothing.
pub fn earlier() -> Chart {
    let record = EARLIER.audited().expect("the constant has reports");
    Chart {
        name: "base-earlier-log".into(),
        title: "What did the earlier attempt's log report?".into(),
        ..reported(&record, "the earlier attempt at some of its 50,000 steps")
    }
}

/// The losses of both twins and the floor.
pub fn losses(record: &TwinsRecord) -> Chart {
    let curve = |label: &str, twin: &Twin| Series {
        label: label.into(),
        points: twin.training.steps.iter().map(|row| (row.step as f64, row.loss)).collect(),
        ..Series::default()
    };
    let last = |twin: &Twin| twin.training.steps.last().map_or(f64::NAN, |row| row.loss);
    Chart {
        name: "base-twins".into(),
        title: "What does a missing mask do to the loss?".into(),
        caption: format!(
            "Two models, alike to the bit at the start, on the same batches; one sees the token it is asked for. After {} \
             steps its loss is {:.2} nats/token, {:.2} above the floor {:.2} that label smoothing leaves to a model that \
             knows the answer; its twin stands at {:.2}. The lower curve is the one that looks perfect.",
            record.masked.training.kept_step,
            last(&record.unmasked),
            last(&record.unmasked) - record.floor,
            record.floor,
            last(&record.masked)
        ),
        plot: Plot::Lines(Lines {
            x: "optimiser step".into(),
            y: "loss with label smoothing (nats/token)".into(),
            series: vec![curve("with a mask", &record.masked), curve("without", &record.unmasked)],
            references: vec![(record.floor, format!("floor {:.2}", record.floor))],
            from_zero: true,
            ..Lines::default()
        }),
    }
}

/// What both twins write.
pub fn written(record: &TwinsRecord) -> Chart {
    type Measure = fn(&Written) -> bool;
    let measures: [(&str, Measure); 4] = [
        ("collapsed", |written| written.outcome == Outcome::Collapsed),
        ("parses", Written::parses),
        ("does something", |written| written.shape.non_trivial),
        ("passes its tests", |written| written.outcome == Outcome::Passed),
    ];
    let shares = |twin: &Twin| measures.iter().map(|(_, holds)| twin.share(*holds)).collect();
    Chart {
        name: "base-twins-written".into(),
        title: "What does a missing mask do to what the model writes?".into(),
        caption: format!(
            "{} completions of exercises that neither twin has seen, sampled as the earlier attempt sampled. The twin with \
             the perfect loss read its answers off the next token; here there is none to read.",
            record.masked.written.len()
        ),
        plot: Plot::Bars(Bars {
            x: "share of completions".into(),
            labels: measures.iter().map(|(name, _)| name.to_string()).collect(),
            groups: vec![("with a mask".into(), shares(&record.masked)), ("without".into(), shares(&record.unmasked))],
            percent: true,
            x_at_least: 1.0,
            ..Bars::default()
        }),
    }
}

/// How far the earlier attempt's last losses and the twins' stand above the floor of their label smoothing.
pub fn floors(record: &TwinsRecord) -> Chart {
    let last = |twin: &Twin| twin.training.steps.last().map_or(f64::NAN, |row| row.loss) - record.floor;
    let (training, validation) = EARLIER.last();
    let rows = [
        ("earlier attempt, validation", validation - EARLIER.floor()),
        ("earlier attempt, training", training - EARLIER.floor()),
        ("twin without a mask", last(&record.unmasked)),
        ("twin with a mask", last(&record.masked)),
    ];
    Chart {
        name: "base-floor".into(),
        title: "How far is a loss from the best that is possible?".into(),
        caption: format!(
            "Last loss minus the floor that label smoothing {} leaves to a model that knows the next token: {:.4} nats/token \
             for the earlier attempt's {} tokens, {:.4} for the twins' {}. The earlier attempt reported {:.4} in training and \
             {:.4} in validation. Only a model that sees the answer comes so near.",
            EARLIER.smoothing,
            EARLIER.floor(),
            EARLIER.vocabulary,
            record.floor,
            record.arch.vocab_size,
            training,
            validation
        ),
        plot: Plot::Bars(Bars {
            x: "loss above its floor (nats/token)".into(),
            labels: rows.iter().map(|(label, _)| label.to_string()).collect(),
            groups: vec![("distance".into(), rows.iter().map(|(_, distance)| *distance).collect())],
            digits: Some(2),
            ..Bars::default()
        }),
    }
}

/// The losses of a log beside the floor of their label smoothing.
pub fn log(record: &Floor) -> Chart {
    reported(record, "a log")
}

fn reported(record: &Floor, whose: &str) -> Chart {
    let names = BTreeMap::from([("train_loss", "training"), ("val_loss", "validation"), ("loss", "loss")]);
    let series = record.curves.iter().map(|(kind, points)| Series {
        label: names.get(kind.as_str()).unwrap_or(&kind.as_str()).to_string(),
        points: points.iter().map(|&(step, loss)| (step as f64, loss)).collect(),
        marked: points.len() < 30,
        ..Series::default()
    });
    Chart {
        name: "base-log".into(),
        title: "How near does the reported loss come to its floor?".into(),
        caption: format!(
            "Losses of {whose} and the floor that label smoothing {} over {} tokens leaves to a model \
             that knows the next token: {:.4} nats/token. The lowest report, {:.4} at step {}, stands {:.4} above it.",
            record.smoothing,
            record.vocabulary,
            record.floor,
            record.lowest,
            record.step,
            record.lowest - record.floor
        ),
        plot: Plot::Lines(Lines {
            x: "optimiser step".into(),
            y: "reported loss (nats/token)".into(),
            series: series.collect(),
            references: vec![(record.floor, format!("floor {:.3}", record.floor))],
            from_zero: true,
            ..Lines::default()
        }),
    }
}
