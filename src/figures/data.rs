//! Figures of phase 1.

use std::collections::BTreeMap;

use super::chart::{Bars, Chart, Histogram, Plot};
use crate::data::quality::{DataRecord, Fate, SampleFacts};

/// Every figure of phase 1, in the order of the notebook.
pub fn all(record: &DataRecord) -> Vec<Chart> {
    vec![
        decision(record),
        verified(record),
        rejections(record),
        tokens(record),
        token_parts(record),
        body_lines(record),
        docstring_words(record),
        complexity(record),
        imports(record),
        duplicates(record),
        split(record),
    ]
}

/// Verified samples against the plan's decision points of 400 and 500.
pub fn decision(record: &DataRecord) -> Chart {
    let rows = [
        ("rows read", record.read),
        ("converted", record.converted),
        ("verified", record.verified),
        ("usable", record.usable),
        ("train", record.train),
    ];
    Chart {
        name: "data-decision".into(),
        title: "Are there enough verified samples to proceed?".into(),
        caption: "Samples left after each step of phase 1, against the plan's decision points: 500 verified samples proceed to LoRA, fewer than 400 call for more exercises.".into(),
        plot: Plot::Bars(Bars {
            x: "samples".into(),
            labels: rows.iter().map(|(label, _)| label.to_string()).collect(),
            groups: vec![("samples".into(), rows.iter().map(|(_, n)| *n as f64).collect())],
            references: vec![(400.0, "400".into()), (500.0, "500".into())],
            ..Bars::default()
        }),
    }
}

/// Share of converted rows that pass their own tests, by source, beside the earlier attempt.
pub fn verified(record: &DataRecord) -> Chart {
    let share = |verified: usize, converted: usize| verified as f64 / converted.max(1) as f64;
    let mut labels = vec!["earlier attempt, MBPP".to_string()];
    let mut values = vec![share(record.earlier.verified, record.earlier.converted)];
    for counts in &record.sources {
        labels.push(counts.source.name().replace('_', " "));
        values.push(share(counts.verified, counts.converted));
    }
    Chart {
        name: "data-verified".into(),
        title: "How many converted samples pass their own tests?".into(),
        caption: "Share of converted samples whose solution passes its own tests when executed, by source. The earlier attempt never ran its samples.".into(),
        plot: Plot::Bars(Bars {
            x: "verified share of converted samples".into(),
            labels,
            groups: vec![("verified".into(), values)],
            x_at_least: 1.0,
            percent: true,
            ..Bars::default()
        }),
    }
}

/// Rejected rows by reason, coloured by source.
pub fn rejections(record: &DataRecord) -> Chart {
    let labels = record.rejections.keys().map(|reason| reason.label().to_string()).collect();
    let groups = record
        .sources
        .iter()
        .map(|counts| {
            let by_reason = record.rejections.values();
            let values = by_reason.map(|by_source| *by_source.get(&counts.source).unwrap_or(&0) as f64).collect();
            (counts.source.name().replace('_', " "), values)
        })
        .collect();
    Chart {
        name: "data-rejections".into(),
        title: "Why were rows rejected?".into(),
        caption: "Rejected rows by reason and source. Every one is a line of rejects.jsonl with its reason and detail."
            .into(),
        plot: Plot::Bars(Bars { x: "rejected rows".into(), labels, groups, stacked: true, ..Bars::default() }),
    }
}

/// Lengths of samples in tokens, with the model's context.
pub fn tokens(record: &DataRecord) -> Chart {
    let limit = record.limits.tokens as f64;
    histogram(
        record,
        "data-tokens",
        "How long are the samples?",
        "Tokens of prompt, solution and end-of-sequence for each verified sample. Samples to the right of the line do not fit the model's context and are rejected, never cut.",
        "tokens per sample",
        16.0,
        Some((limit, "context")),
        |facts| facts.total_tokens as f64,
    )
}

/// Tokens of prompts and of solutions, beside each other.
pub fn token_parts(record: &DataRecord) -> Chart {
    const WIDTH: usize = 32;
    let verified = || record.samples.iter().filter(|facts| facts.verified);
    let limit = record.limits.tokens;
    // What does not fit the context alone shares one row at the end.
    let rows = limit.div_ceil(WIDTH);
    let count = |tokens: fn(&SampleFacts) -> usize| {
        let mut counts = vec![0.0; rows + 1];
        verified().for_each(|facts| counts[(tokens(facts) / WIDTH).min(rows)] += 1.0);
        counts
    };
    let mut labels: Vec<String> =
        (0..rows).map(|row| format!("{}–{} tokens", row * WIDTH, ((row + 1) * WIDTH).min(limit) - 1)).collect();
    labels.push(format!("{limit} tokens and more"));
    let (mut prompts, mut solutions) = (count(|facts| facts.prompt_tokens), count(|facts| facts.solution_tokens));
    let filled = (0..=rows).rev().find(|&row| prompts[row] + solutions[row] > 0.0).map_or(0, |row| row + 1);
    labels.truncate(filled);
    prompts.truncate(filled);
    solutions.truncate(filled);
    Chart {
        name: "data-token-parts".into(),
        title: "What takes the tokens: the question or the answer?".into(),
        caption: format!(
            "Verified samples by the tokens of their prompt and of their solution. Both and one end-of-sequence must fit {limit}."
        ),
        plot: Plot::Bars(Bars {
            x: "samples".into(),
            labels,
            groups: vec![("prompt".into(), prompts), ("solution".into(), solutions)],
            ..Bars::default()
        }),
    }
}

/// Lines of the bodies.
pub fn body_lines(record: &DataRecord) -> Chart {
    let limit = record.limits.body_lines as f64;
    histogram(
        record,
        "data-body-lines",
        "How many lines do the solutions have?",
        "Lines of each verified solution, without blank lines and comments.",
        "lines of the body",
        1.0,
        Some((limit, "limit")),
        |facts| facts.body_lines as f64,
    )
}

/// Words of the docstrings.
pub fn docstring_words(record: &DataRecord) -> Chart {
    histogram(
        record,
        "data-docstring-words",
        "How much does a prompt say?",
        "Words of the docstring of each verified sample.",
        "words of the docstring",
        4.0,
        None,
        |facts| facts.docstring_words as f64,
    )
}

/// Cyclomatic complexity of the solutions.
pub fn complexity(record: &DataRecord) -> Chart {
    let limit = record.limits.complexity as f64;
    histogram(
        record,
        "data-complexity",
        "How complex are the solutions?",
        "Cyclomatic complexity (McCabe 1976: one plus the number of branches) of the most complex function of each verified sample.",
        "cyclomatic complexity",
        1.0,
        Some((limit, "limit")),
        |facts| facts.complexity as f64,
    )
}

/// Modules that samples import.
pub fn imports(record: &DataRecord) -> Chart {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for facts in record.samples.iter().filter(|facts| facts.verified) {
        for module in &facts.imports {
            *counts.entry(module).or_default() += 1;
        }
    }
    let mut rows: Vec<(&str, usize)> = counts.into_iter().collect();
    rows.sort_by_key(|(module, count)| (std::cmp::Reverse(*count), *module));
    let all = rows.len();
    rows.truncate(12);
    let which = if all > rows.len() { format!("the {} most used of {all}", rows.len()) } else { format!("all {all}") };
    Chart {
        name: "data-imports".into(),
        title: "Which modules do the samples need?".into(),
        caption: format!("Verified samples that import a module: {which} modules."),
        plot: Plot::Bars(Bars {
            x: "samples".into(),
            labels: rows.iter().map(|(module, _)| module.to_string()).collect(),
            groups: vec![("samples".into(), rows.iter().map(|(_, count)| *count as f64).collect())],
            ..Bars::default()
        }),
    }
}

/// Sizes of the clusters of samples that repeat each other.
pub fn duplicates(record: &DataRecord) -> Chart {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for cluster in &record.clusters {
        *sizes.entry(cluster.members.len()).or_default() += 1;
    }
    // Sizes between that no cluster has share a row, so that the rows leave none out.
    let mut rows: Vec<(String, f64)> = Vec::new();
    let mut next = 2;
    for (&size, &count) in &sizes {
        match size - next {
            0 => {}
            1 => rows.push((format!("{next} samples"), 0.0)),
            _ => rows.push((format!("{next}–{} samples", size - 1), 0.0)),
        }
        rows.push((format!("{size} samples"), count as f64));
        next = size + 1;
    }
    Chart {
        name: "data-duplicates".into(),
        title: "How often do samples repeat each other?".into(),
        caption: "Clusters of verified samples that are exact, structural or near duplicates, by how many samples they hold. Likeness chains, so two of a cluster may be unlike. A sample is dropped when an earlier one has the same text, or asks the same question and has the same syntax tree; others of a cluster may stay, those alike in the same split.".into(),
        plot: Plot::Bars(Bars {
            x: "clusters".into(),
            labels: rows.iter().map(|(label, _)| label.clone()).collect(),
            groups: vec![("clusters".into(), rows.iter().map(|(_, count)| *count).collect())],
            ..Bars::default()
        }),
    }
}

/// What train, validation and held-out are made of.
pub fn split(record: &DataRecord) -> Chart {
    let groups = record
        .sources
        .iter()
        .map(|s| (s.source.name().replace('_', " "), vec![s.train as f64, s.validation as f64, s.held_out as f64]))
        .collect();
    Chart {
        name: "data-split".into(),
        title: "What are the splits made of?".into(),
        caption: "Samples of each split by source. Nothing in one split is an exact or near duplicate of anything in another.".into(),
        plot: Plot::Bars(Bars {
            x: "samples".into(),
            labels: ["train", "validation", "held-out"].map(String::from).into(),
            groups,
            stacked: true,
            ..Bars::default()
        }),
    }
}

/// A histogram of one whole number of the verified samples, kept and rejected stacked, and the limit that it may reach.
#[allow(clippy::too_many_arguments)] // eight plain values read better at the call than a builder
fn histogram(
    record: &DataRecord,
    name: &str,
    title: &str,
    caption: &str,
    x: &str,
    width: f64,
    limit: Option<(f64, &str)>,
    measure: impl Fn(&SampleFacts) -> f64,
) -> Chart {
    let verified: Vec<&SampleFacts> = record.samples.iter().filter(|facts| facts.verified).collect();
    let values = || verified.iter().map(|facts| measure(facts));
    let (first, last) = (values().fold(1.0, f64::min), values().fold(1.0, f64::max));
    let bin = |value: f64| ((value - first) / width).floor() as usize;
    let bins = bin(last) + 1;
    let count = |kept: bool| {
        let mut counts = vec![0.0; bins];
        for facts in verified.iter().filter(|facts| kept != matches!(facts.fate, Fate::Rejected(_))) {
            counts[bin(measure(facts))] += 1.0;
        }
        counts
    };
    Chart {
        name: name.into(),
        title: title.into(),
        caption: caption.into(),
        plot: Plot::Histogram(Histogram {
            x: x.into(),
            y: "samples".into(),
            // Edges lie between whole numbers: a bin of one stands on its number.
            start: first - 0.5,
            width,
            groups: vec![("kept".into(), count(true)), ("rejected or left over".into(), count(false))],
            references: limit.map(|(limit, name)| (limit + 0.5, format!("{name}: {limit:.0}"))).into_iter().collect(),
        }),
    }
}
