//! What the steps made: the record of the phase, and the samples in their splits.

use std::collections::{BTreeMap, BTreeSet};

use super::DataCollection;
use super::candidate::Candidate;
use super::files::RawRow;
use crate::data::duplicates::Cluster;
use crate::data::filter::{Reason, Rejection};
use crate::data::quality::{DataRecord, EARLIER, Fate, SampleFacts, SimpleLimits, SourceCounts};
use crate::experiment::{Experiment, Phase, Source};

/// What the steps make.
pub(super) struct Outcome {
    /// Every converted row by source.
    pub raw: BTreeMap<Source, Vec<RawRow>>,
    /// The phase's result; its record still lacks the hash of its content.
    pub collection: DataCollection,
}

/// Counts what came of every row.
pub(super) fn record(
    exp: &Experiment,
    candidates: &[Candidate],
    rejections: &[Rejection],
    read: &[(Source, usize)],
    usable: &BTreeSet<usize>,
    clusters: Vec<Cluster>,
    seconds: Vec<(String, f64)>,
) -> DataRecord {
    let config = &exp.config.data;
    let within = |facts: &SampleFacts| facts.verified && facts.total_tokens <= config.max_tokens;
    let counts = |&(source, read): &(Source, usize)| {
        let own = || candidates.iter().enumerate().filter(move |(_, candidate)| candidate.source == source);
        let count = |test: &dyn Fn(&SampleFacts) -> bool| own().filter(|(_, c)| test(&c.measured)).count();
        SourceCounts {
            source,
            read,
            converted: own().count(),
            verified: count(&|facts| facts.verified),
            within_tokens: count(&within),
            usable: own().filter(|(index, _)| usable.contains(index)).count(),
            train: count(&|facts| facts.fate == Fate::Train),
            validation: count(&|facts| facts.fate == Fate::Validation),
            held_out: count(&|facts| facts.fate == Fate::HeldOut),
        }
    };
    let sources: Vec<SourceCounts> = read.iter().map(counts).collect();
    let sum = |get: fn(&SourceCounts) -> usize| sources.iter().map(get).sum();
    let mut by_reason: BTreeMap<Reason, BTreeMap<Source, usize>> = BTreeMap::new();
    for rejection in rejections {
        *by_reason.entry(rejection.reason).or_default().entry(rejection.source).or_default() += 1;
    }
    let mut record = DataRecord {
        name: exp.config.name.clone(),
        digest: exp.digest(Phase::Data),
        content_sha256: String::new(),
        read: sum(|counts| counts.read),
        converted: sum(|counts| counts.converted),
        verified: sum(|counts| counts.verified),
        within_tokens: sum(|counts| counts.within_tokens),
        usable: usable.len(),
        train: sum(|counts| counts.train),
        validation: sum(|counts| counts.validation),
        held_out: sum(|counts| counts.held_out),
        earlier: EARLIER,
        rejections: by_reason,
        samples: candidates.iter().map(|candidate| candidate.measured.clone()).collect(),
        clusters,
        limits: SimpleLimits {
            tokens: config.max_tokens,
            body_lines: config.max_body_lines,
            complexity: config.max_complexity,
            names: config.max_names,
            near_duplicate: config.near_duplicate,
        },
        missed: Vec::new(),
        plan: config.split.plan,
        seconds,
        sources,
    };
    record.missed = record.missed_limits(&config.quality);
    record
}

/// Puts every row where its fate says.
pub(super) fn outcome(candidates: Vec<Candidate>, rejections: Vec<Rejection>, record: DataRecord) -> Outcome {
    let mut raw: BTreeMap<Source, Vec<RawRow>> = record.sources.iter().map(|c| (c.source, Vec::new())).collect();
    let mut collection = DataCollection {
        tasks: Vec::new(),
        train: Vec::new(),
        validation: Vec::new(),
        held_out: Vec::new(),
        rejections,
        record,
    };
    for candidate in candidates {
        let Candidate { task, source, verification, measured, .. } = candidate;
        match measured.fate {
            Fate::Train => collection.train.push(task.sample()),
            Fate::Validation => collection.validation.push(task.sample()),
            Fate::HeldOut => collection.held_out.push(task.clone()),
            Fate::Rejected(_) => {}
        }
        if !matches!(measured.fate, Fate::Rejected(_)) {
            collection.tasks.push(task.clone());
        }
        let outcome = verification.map(|verification| verification.outcome);
        let row = RawRow { task, verified: measured.verified, outcome, seconds: measured.seconds };
        raw.entry(source).or_default().push(row);
    }
    Outcome { raw, collection }
}
