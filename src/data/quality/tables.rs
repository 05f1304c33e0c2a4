//! The record of phase 1 as tables.

use polars::df;
use polars::prelude::DataFrame;

use super::{DataRecord, SampleFacts, SourceCounts, share};
use crate::error::Result;

impl DataRecord {
    /// A row for each source and one for all: counts from rows read to samples in each split, and the verified rate.
    ///
    /// # Errors
    /// [`crate::Error::Table`].
    pub fn sources_table(&self) -> Result<DataFrame> {
        let of = |get: fn(&SourceCounts) -> usize| {
            let mut column: Vec<u64> = self.sources.iter().map(|counts| get(counts) as u64).collect();
            column.push(column.iter().sum());
            column
        };
        let mut names: Vec<&str> = self.sources.iter().map(|counts| counts.source.name()).collect();
        names.push("all");
        let mut rates: Vec<f64> = self.sources.iter().map(|counts| share(counts.verified, counts.converted)).collect();
        rates.push(self.verified_rate());
        Ok(df!(
            "source" => names,
            "read" => of(|counts| counts.read),
            "converted" => of(|counts| counts.converted),
            "verified" => of(|counts| counts.verified),
            "verified rate" => rates,
            "within tokens" => of(|counts| counts.within_tokens),
            "usable" => of(|counts| counts.usable),
            "train" => of(|counts| counts.train),
            "validation" => of(|counts| counts.validation),
            "held out" => of(|counts| counts.held_out),
        )?)
    }

    /// A row for each reason and source: how many rows it rejected.
    ///
    /// # Errors
    /// [`crate::Error::Table`].
    pub fn rejections_table(&self) -> Result<DataFrame> {
        let rows = self.rejections.iter().flat_map(|(reason, by_source)| {
            by_source.iter().map(move |(source, &count)| (reason.label(), source.name(), count as u64))
        });
        let rows: Vec<(&str, &str, u64)> = rows.collect();
        Ok(df!(
            "reason" => rows.iter().map(|row| row.0).collect::<Vec<_>>(),
            "source" => rows.iter().map(|row| row.1).collect::<Vec<_>>(),
            "rows" => rows.iter().map(|row| row.2).collect::<Vec<_>>(),
        )?)
    }

    /// A row for each converted row: its measurements and what became of it.
    ///
    /// # Errors
    /// [`crate::Error::Table`].
    pub fn samples_table(&self) -> Result<DataFrame> {
        let samples = &self.samples;
        let of = |get: fn(&SampleFacts) -> usize| samples.iter().map(|facts| get(facts) as u64).collect::<Vec<_>>();
        Ok(df!(
            "id" => samples.iter().map(|facts| facts.id.as_str()).collect::<Vec<_>>(),
            "source" => samples.iter().map(|facts| facts.source.name()).collect::<Vec<_>>(),
            "verified" => samples.iter().map(|facts| facts.verified).collect::<Vec<_>>(),
            "body lines" => of(|facts| facts.body_lines),
            "prompt tokens" => of(|facts| facts.prompt_tokens),
            "solution tokens" => of(|facts| facts.solution_tokens),
            "total tokens" => of(|facts| facts.total_tokens),
            "docstring words" => of(|facts| facts.docstring_words),
            "complexity" => of(|facts| facts.complexity),
            "names" => of(|facts| facts.names),
            "imports" => samples.iter().map(|facts| facts.imports.join(" ")).collect::<Vec<_>>(),
            "seconds" => samples.iter().map(|facts| facts.seconds).collect::<Vec<_>>(),
            "fate" => samples.iter().map(|facts| facts.fate.label()).collect::<Vec<_>>(),
        )?)
    }

    /// A row for each cluster of samples that repeat each other.
    ///
    /// # Errors
    /// [`crate::Error::Table`].
    pub fn clusters_table(&self) -> Result<DataFrame> {
        let clusters = &self.clusters;
        Ok(df!(
            "likeness" => clusters.iter().map(|cluster| cluster.likeness.label()).collect::<Vec<_>>(),
            "size" => clusters.iter().map(|cluster| cluster.members.len() as u64).collect::<Vec<_>>(),
            "members" => clusters.iter().map(|cluster| cluster.members.join(" ")).collect::<Vec<_>>(),
        )?)
    }
}
