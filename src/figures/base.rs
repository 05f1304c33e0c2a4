//! Figures of phase 0: is the base a language model at all?

use std::collections::BTreeSet;

use super::chart::{Bars, Chart, Histogram, Lines, Plot, Series};
use crate::data::corpus::SourceStatistics;
use crate::data::corpus::gather::OriginStatistics;
use crate::model::audit::{AuditRecord, Leak, Overfit};
use crate::train::metrics::{EvaluationRow, TrainingRecord};

/// Every figure of the audits, and of the training where it is known.
pub fn all(audit: &AuditRecord, training: Option<&TrainingRecord>, corpus: &[SourceStatistics]) -> Vec<Chart> {
    let mut charts = vec![causality(audit), leak(&[("this base", &audit.leak)]), gradient(audit), overfit(audit)];
    charts.extend(training.map(self::training));
    charts.extend(training.and_then(generated));
    charts.extend((!corpus.is_empty()).then(|| self::corpus(corpus)));
    charts
}

/// Which logits moved when a token changed.
pub fn causality(audit: &AuditRecord) -> Chart {
    let places = &audit.causality.places;
    Chart {
        name: "base-causality".into(),
        title: "Does a changed token move the past?".into(),
        caption: format!(
            "{} tokens were changed one at a time. Share of the logits that moved in any bit: before the token none may, \
             from it on most must, or the probe would be blind.",
            audit.causality.changed
        ),
        plot: Plot::Bars(Bars {
            x: "logits that moved".into(),
            labels: places.iter().map(|place| format!("token {}", place.position)).collect(),
            groups: vec![
                ("before it".into(), places.iter().map(|place| place.earlier).collect()),
                ("from it on".into(), places.iter().map(|place| place.later).collect()),
            ],
            percent: true,
            x_at_least: 1.0,
            ..Bars::default()
        }),
    }
}

/// Loss with and without the mask, of one model or several.
pub fn leak(models: &[(&str, &Leak)]) -> Chart {
    let losses = |of: fn(&Leak) -> f64| models.iter().map(|(_, leak)| of(leak)).collect();
    Chart {
        name: "base-leak".into(),
        title: "Does it do better when it may see the answer?".into(),
        caption:
            "Loss on unseen code with the causal mask and with the mask taken off. A model that was trained without a \
                  mask falls to a fraction of its loss when it is taken off; a causal one gains nothing from it."
                .into(),
        plot: Plot::Bars(Bars {
            x: "loss (nats/token)".into(),
            labels: models.iter().map(|(name, _)| name.to_string()).collect(),
            groups: vec![
                ("with the mask".into(), losses(|leak| leak.masked)),
                ("without".into(), losses(|leak| leak.unmasked)),
            ],
            ..Bars::default()
        }),
    }
}

/// Gradient norms of all tensors.
pub fn gradient(audit: &AuditRecord) -> Chart {
    const BINS_PER_DECADE: f64 = 2.0;
    let logs: Vec<f64> = audit.gradient.norms.values().filter(|norm| **norm > 0.0).map(|norm| norm.log10()).collect();
    let start = logs.iter().copied().fold(f64::INFINITY, f64::min).min(0.0).floor();
    let end = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max).max(start + 1.0).ceil();
    let mut counts = vec![0.0; ((end - start) * BINS_PER_DECADE) as usize];
    for log in &logs {
        let bin = ((log - start) * BINS_PER_DECADE) as usize;
        counts[bin.min(((end - start) * BINS_PER_DECADE) as usize - 1)] += 1.0;
    }
    Chart {
        name: "base-gradient".into(),
        title: "Does every tensor receive a gradient?".into(),
        caption: format!(
            "Norms of the gradients of all {} tensors on one batch; {} receive none. An operation without a backward pass \
             would show here, and nowhere else.",
            audit.gradient.tensors,
            audit.gradient.missing.len()
        ),
        plot: Plot::Histogram(Histogram {
            x: "norm of the gradient, as a power of ten".into(),
            y: "tensors".into(),
            start,
            width: 1.0 / BINS_PER_DECADE,
            groups: vec![("tensors".into(), counts)],
            ..Histogram::default()
        }),
    }
}

/// One batch learned by heart.
pub fn overfit(audit: &AuditRecord) -> Chart {
    Chart {
        name: "base-overfit".into(),
        title: "Can a model of this shape learn one batch by heart?".into(),
        caption:
            "A fresh model of the base's shape, trained on the same 128 tokens again and again. One that cannot learn \
                  them has a fault in its operations or its optimiser."
                .into(),
        plot: Plot::Lines(Lines {
            x: "step on the same batch".into(),
            y: "loss (nats/token)".into(),
            series: vec![Series {
                label: "loss".into(),
                points: (1..).zip(&audit.overfit.losses).map(|(step, loss)| (f64::from(step), *loss)).collect(),
                ..Series::default()
            }],
            references: vec![(Overfit::LEARNED, format!("learned: {}", Overfit::LEARNED))],
            from_zero: true,
            ..Lines::default()
        }),
    }
}

/// The pre-training of the base.
pub fn training(record: &TrainingRecord) -> Chart {
    let held_out = record.evaluations.iter().map(|row: &EvaluationRow| (row.step as f64, row.validation_loss));
    Chart {
        name: "base-training".into(),
        title: "How was the base trained?".into(),
        caption: format!(
            "Pre-training, this stage alone: the loss of each step's batch, and of held-out text of the same mixture, over {:.2}M \
             tokens. Batches outside the axis are drawn at its edge.",
            record.tokens_seen as f64 / 1e6
        ),
        plot: Plot::Lines(Lines {
            x: "optimiser step".into(),
            y: "loss (nats/token)".into(),
            series: vec![
                Series {
                    label: "batch".into(),
                    points: record.steps.iter().map(|row| (row.step as f64, row.loss)).collect(),
                    faint: true,
                    ..Series::default()
                },
                Series { label: "held out".into(), points: held_out.collect(), marked: true, ..Series::default() },
            ],
            from_zero: true,
            ..Lines::default()
        }),
    }
}

/// What the base wrote while it was trained, where that was looked at.
pub fn generated(record: &TrainingRecord) -> Option<Chart> {
    let chart = super::training::generated(record);
    let samples = record.evaluations.iter().find_map(|row| Some(row.generated.as_ref()?.samples))?;
    Some(Chart {
        name: "base-generated".into(),
        title: format!("What does {} write while it is trained?", record.name),
        caption: format!(
            "{samples} simple tasks outside the benchmark, of kinds that the exercises hold too, completed greedily at each evaluation."
        ),
        ..chart
    })
}

/// Files of each origin, kept and left out by reason.
pub fn origins(origins: &[OriginStatistics]) -> Chart {
    let reasons: BTreeSet<&str> = origins.iter().flat_map(|o| o.rejected.keys().map(String::as_str)).collect();
    let mut counts: Vec<(String, f64)> = vec![("kept".into(), origins.iter().map(|o| o.kept as f64).sum())];
    for reason in reasons {
        let total = origins.iter().map(|o| o.rejected.get(reason).copied().unwrap_or(0) as f64).sum();
        counts.push((reason.to_string(), total));
    }
    counts[1..].sort_by(|a, b| b.1.total_cmp(&a.1));
    Chart {
        name: "base-corpus-files".into(),
        title: "Which files enter the corpus?".into(),
        caption: format!(
            "Python files of {} origins: kept, and left out by the first reason that applied.",
            origins.len()
        ),
        plot: Plot::Bars(Bars {
            x: "files".into(),
            labels: counts.iter().map(|(reason, _)| reason.clone()).collect(),
            groups: vec![("files".into(), counts.iter().map(|(_, count)| *count).collect())],
            ..Bars::default()
        }),
    }
}

/// Tokens of each source.
pub fn corpus(sources: &[SourceStatistics]) -> Chart {
    let tokens = |of: fn(&SourceStatistics) -> usize| sources.iter().map(|source| of(source) as f64).collect();
    Chart {
        name: "base-corpus".into(),
        title: "What is the base trained on?".into(),
        caption:
            "Tokens of each source after filters, de-duplication and decontamination. What is held out is chosen by \
                  each document's own digest."
                .into(),
        plot: Plot::Bars(Bars {
            x: "tokens".into(),
            labels: sources.iter().map(|source| source.source.clone()).collect(),
            groups: vec![
                ("train".into(), tokens(|source| source.tokens)),
                ("held out".into(), tokens(|source| source.held_out_tokens)),
            ],
            stacked: true,
            ..Bars::default()
        }),
    }
}
