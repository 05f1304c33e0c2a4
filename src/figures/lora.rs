//! Figures of phase 2.

use std::collections::BTreeMap;

use super::chart::{Bars, Chart, Lines, Plot, Series};

/// Trainable parameters by kind of layer: `layers` holds names such as `layers.0.attn.qkv` and their counts.
pub fn parameters(layers: &[(&str, usize)], trainable: usize, total: usize) -> Chart {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in layers {
        *kinds.entry(name.rsplit('.').next().unwrap_or(name)).or_default() += count;
    }
    let mut rows: Vec<(&str, usize)> = kinds.into_iter().collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Chart {
        name: "lora-parameters".into(),
        title: "Where are the trainable parameters?".into(),
        caption: format!(
            "Parameters of A and B by kind of linear layer, over all blocks: {trainable} of {total} ({:.1} %). The rest is \
             frozen.",
            100.0 * trainable as f64 / total.max(1) as f64
        ),
        plot: Plot::Bars(Bars {
            x: "trainable parameters".into(),
            labels: rows.iter().map(|(kind, _)| kind.to_string()).collect(),
            groups: vec![("parameters".into(), rows.iter().map(|(_, count)| *count as f64).collect())],
            ..Bars::default()
        }),
    }
}

/// One batch learned by the adapter alone: `losses` before each step, in nats per token; `learned` is what the last must
/// fall below.
pub fn memorise(losses: &[f64], samples: usize, learned: f64) -> Chart {
    Chart {
        name: "lora-memorise".into(),
        title: "Can the adapter alone learn one batch by heart?".into(),
        caption: format!(
            "Loss of one batch of {samples} samples, trained on again and again while the base is frozen. An adapter that \
             cannot learn these will not learn more."
        ),
        plot: Plot::Lines(Lines {
            x: "step on the same batch".into(),
            y: "loss (nats/token)".into(),
            series: vec![Series {
                label: "loss".into(),
                points: (0..).zip(losses).map(|(step, loss)| (f64::from(step), *loss)).collect(),
                ..Series::default()
            }],
            references: vec![(learned, format!("learned: {learned}"))],
            from_zero: true,
            ..Lines::default()
        }),
    }
}
