//! Figures of phase 3, training.

use super::chart::{Chart, Lines, Plot, Series};
use crate::train::metrics::{StepRecord, TrainingRecord};

/// Every figure of the training phase, in the order of the notebook.
pub fn all(record: &TrainingRecord) -> Vec<Chart> {
    vec![loss(record), generated(record), learning_rate(record), gradient_norm(record), throughput(record)]
}

/// Loss over steps: each step, and the fixed subsets at each evaluation.
pub fn loss(record: &TrainingRecord) -> Chart {
    let evaluations = |label: &str, value: fn(&crate::train::metrics::EvaluationRow) -> f64| Series {
        label: label.into(),
        points: record.evaluations.iter().map(|row| (row.step as f64, value(row))).collect(),
        marked: true,
        ..Series::default()
    };
    let validation = match (record.evaluations.first(), record.kept_evaluation()) {
        (Some(first), Some(kept)) if first.validation_loss.is_finite() => {
            format!("validation ({:.3} at the start, {:.3} kept)", first.validation_loss, kept.validation_loss)
        }
        _ => "validation".into(),
    };
    Chart {
        name: "training-loss".into(),
        title: "Does the adapter learn, and does it generalise?".into(),
        caption: "Cross-entropy on supervised tokens: of each step's batch, and of fixed subsets of the training and the validation split without dropout. A batch holds samples of one length, so single batches vary; those above the axis are drawn at its edge. A validation curve that rises while the others fall would be overfitting.".into(),
        plot: Plot::Lines(Lines {
            x: "optimiser step".into(),
            y: "loss (nats/token)".into(),
            series: vec![
                Series { faint: true, ..steps(record, "batch", |row| row.loss) },
                evaluations("train subset", |row| row.train_loss),
                evaluations(&validation, |row| row.validation_loss),
            ],
            from_zero: true,
            ..Lines::default()
        }),
    }
}

/// What the model wrote during training.
pub fn generated(record: &TrainingRecord) -> Chart {
    let rows =
        || record.evaluations.iter().filter_map(|row| row.generated.as_ref().map(|check| (row.step as f64, check)));
    let curve = |label: &str, value: fn(&crate::train::metrics::GeneratedCheck) -> f64| Series {
        label: label.into(),
        points: rows().map(|(step, check)| (step, 100.0 * value(check))).collect(),
        marked: true,
        ..Series::default()
    };
    Chart {
        name: "training-generated".into(),
        title: "What does the model write while it trains?".into(),
        caption: "A small fixed sample of validation prompts, completed at each evaluation. Loss alone once hid a model that wrote nothing but newlines; these three curves would have shown it.".into(),
        plot: Plot::Lines(Lines {
            x: "optimiser step".into(),
            y: "share of completions (%)".into(),
            series: vec![
                curve("passes its tests", |check| check.pass_rate),
                curve("parses", |check| check.syntax_valid_rate),
                curve("collapsed", |check| check.collapse_rate),
            ],
            y_at_least: 100.0,
            from_zero: true,
            ..Lines::default()
        }),
    }
}

/// The learning rate over steps.
pub fn learning_rate(record: &TrainingRecord) -> Chart {
    single(
        record,
        "training-learning-rate",
        "Which learning rate did each step have?",
        "Linear warm-up, then the schedule of the experiment.",
        "learning rate",
        |row| row.lr,
    )
}

/// Gradient norm over steps.
pub fn gradient_norm(record: &TrainingRecord) -> Chart {
    let largest = record.steps.iter().map(|row| row.grad_norm).fold(0.0, f64::max);
    single(
        record,
        "training-gradient-norm",
        "How large were the gradients?",
        &format!(
            "Global L2 norm of each step's gradient before clipping; the largest is {largest:.2}. A norm above the experiment's clip is scaled down to it."
        ),
        "gradient norm",
        |row| row.grad_norm,
    )
}

/// Speed over steps.
pub fn throughput(record: &TrainingRecord) -> Chart {
    single(
        record,
        "training-throughput",
        "How fast did it train?",
        "Computed tokens per second, padding left out. Steps of short samples compute less at a time; other work on the machine shows as dips.",
        "tokens/s",
        |row| row.tokens_per_second,
    )
}

fn single(
    record: &TrainingRecord,
    name: &str,
    title: &str,
    caption: &str,
    y: &str,
    value: fn(&StepRecord) -> f64,
) -> Chart {
    Chart {
        name: name.into(),
        title: title.into(),
        caption: caption.into(),
        plot: Plot::Lines(Lines {
            x: "optimiser step".into(),
            y: y.into(),
            series: vec![steps(record, y, value)],
            from_zero: true,
            ..Lines::default()
        }),
    }
}

fn steps(record: &TrainingRecord, label: &str, value: fn(&StepRecord) -> f64) -> Series {
    Series {
        label: label.into(),
        points: record.steps.iter().map(|row| (row.step as f64, value(row))).collect(),
        ..Series::default()
    }
}
