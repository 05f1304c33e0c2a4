//! The record of phase 1 as tables.

use std::collections::BTreeSet;

use polars::df;
use polars::prelude::{Column, DataFrame};

use super::{DataRecord, Fate, SourceCounts, share};
use crate::data::filter::Reason;
use crate::error::Result;

impl DataRecord {
    /// A row for each source and one for all: counts from rows read to samples in each split, and the verified rate. The
    /// usable samples are those of the splits and those that were left out while dividing.
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
        let rejected = |reason: Reason| {
            let of = |counts: &SourceCounts| self.rejections.get(&reason).and_then(|by| by.get(&counts.source));
            let mut column: Vec<u64> =
                self.sources.iter().map(|counts| of(counts).copied().unwrap_or(0) as u64).collect();
            column.push(column.iter().sum());
            column
        };
        let mut table = df!(
            "source" => names,
            "read" => of(|counts| counts.read),
            "converted" => of(|counts| counts.converted),
            "verified" => of(|counts| counts.verified),
            "verified rate" => rates,
            "within tokens" => of(|counts| counts.within_tokens),
            "usable" => of(|counts| counts.usable),
            "repeats another split" => rejected(Reason::NearDuplicateAcrossSplits),
            "train" => of(|counts| counts.train),
            "validation" => of(|counts| counts.validation),
            "held out" => of(|counts| counts.held_out),
        )?;
        // Most plans take every sample.
        if self.rejected(Reason::Surplus) > 0 {
            table = table.hstack(&[Column::new("surplus".into(), rejected(Reason::Surplus))])?;
        }
        Ok(table)
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

    /// A row for each cluster of samples that repeat each other: how many there are, and how many of them a split holds.
    ///
    /// # Errors
    /// [`crate::Error::Table`].
    pub fn clusters_table(&self) -> Result<DataFrame> {
        let clusters = &self.clusters;
        let kept = self.samples.iter().filter(|facts| !matches!(facts.fate, Fate::Rejected(_)));
        let kept: BTreeSet<&str> = kept.map(|facts| facts.id.as_str()).collect();
        let count = |members: &[String]| members.iter().filter(|id| kept.contains(id.as_str())).count() as u64;
        Ok(df!(
            "likeness" => clusters.iter().map(|cluster| cluster.likeness.label()).collect::<Vec<_>>(),
            "size" => clusters.iter().map(|cluster| cluster.members.len() as u64).collect::<Vec<_>>(),
            "kept" => clusters.iter().map(|cluster| count(&cluster.members)).collect::<Vec<_>>(),
            "members" => clusters.iter().map(|cluster| cluster.members.join(" ")).collect::<Vec<_>>(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> DataRecord {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/figures/records/data.json");
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    fn numbers(table: &DataFrame, name: &str) -> Vec<u64> {
        table.column(name).unwrap().u64().unwrap().into_no_null_iter().collect()
    }

    #[test]
    fn every_usable_sample_is_accounted_for() {
        let mut record = committed();
        let table = record.sources_table().unwrap();
        let parts = ["repeats another split", "train", "validation", "held out"].map(|name| numbers(&table, name));
        for (row, usable) in numbers(&table, "usable").into_iter().enumerate() {
            assert_eq!(usable, parts.iter().map(|part| part[row]).sum::<u64>());
        }
        assert!(table.column("surplus").is_err(), "a column that says nothing");
        let source = record.sources[0].source;
        record.rejections.entry(Reason::Surplus).or_default().insert(source, 7);
        let surplus = numbers(&record.sources_table().unwrap(), "surplus");
        assert_eq!((surplus[0], surplus.last()), (7, Some(&7)));
    }

    #[test]
    fn of_a_cluster_no_more_are_kept_than_it_has() {
        let table = committed().clusters_table().unwrap();
        let (size, kept) = (numbers(&table, "size"), numbers(&table, "kept"));
        assert!(size.iter().zip(&kept).all(|(size, kept)| kept <= size));
        assert!(kept.contains(&1));
    }
}
