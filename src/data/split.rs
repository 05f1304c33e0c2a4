//! Train, validation and held-out, without leakage.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;

use crate::data::duplicates::twins;
use crate::data::fingerprint::{Fingerprint, Likeness};
use crate::data::task::Task;
use crate::error::{Error, Result};
use crate::experiment::{Source, SplitConfig, SplitPlan};
use crate::seed;

/// Where a sample goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Into train.
    Train,
    /// Into validation.
    Validation,
    /// Into held-out.
    HeldOut,
    /// Nowhere: it repeats the sample at this index, which is in another split.
    Repeats(usize, Likeness),
    /// Nowhere: the plan asks for no more.
    Surplus,
}

/// What the division needs to know of a sample.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The sample's id.
    pub id: String,
    /// Its source.
    pub source: Source,
    /// Its number in the source, where it has one: MBPP's plan goes by it.
    pub number: Option<u64>,
    /// What it looks like to its duplicates.
    pub print: Fingerprint,
}

impl Entry {
    /// The entry of a task.
    pub fn new(task: &Task, print: Fingerprint) -> Self {
        let provenance = task.provenance.as_ref();
        let source = provenance.map_or(Source::Imported, |provenance| provenance.source);
        let number = provenance.and_then(|provenance| provenance.original_id.rsplit('/').next()?.parse().ok());
        Self { id: task.id.clone(), source, number, print }
    }

    /// Whether the sample may fill any split: it was made, not collected.
    fn is_made(&self) -> bool {
        matches!(self.source, Source::Exercises | Source::Imported)
    }

    /// The split that the honest plan gives a collected sample.
    fn honest(&self) -> Part {
        match (self.source, self.number) {
            (Source::Mbpp | Source::EmbeddedMbpp, Some(11..=70)) => Part::Validation,
            (Source::Mbpp | Source::EmbeddedMbpp, Some(71..=510)) => Part::HeldOut,
            _ => Part::Train,
        }
    }
}

/// Divides samples by the plan. Collected samples come first; made ones fill what is missing of train and validation
/// and give way wherever they repeat a sample of validation or held-out.
pub fn divide(entries: &[Entry], config: &SplitConfig, near: f64, seed: u64) -> Vec<Part> {
    let mut division = Division { entries, near, seed, parts: vec![None; entries.len()] };
    let limit = if config.train == 0 { usize::MAX } else { config.train };
    let collected: Vec<usize> = (0..entries.len()).filter(|&index| !entries[index].is_made()).collect();
    let made: Vec<usize> = (0..entries.len()).filter(|&index| entries[index].is_made()).collect();
    match config.plan {
        SplitPlan::Honest => {
            let of = |part: Part| collected.iter().copied().filter(move |&index| entries[index].honest() == part);
            let held_out: Vec<usize> = of(Part::HeldOut).collect();
            division.fill(of(Part::Train).collect(), Part::Train, limit, &[]);
            let train = division.members(Part::Train);
            division.fill(of(Part::Validation).collect(), Part::Validation, config.validation, &train);
            division.made(made, config.validation, limit, &held_out);
            let taken = [division.members(Part::Train), division.members(Part::Validation)].concat();
            division.fill(held_out, Part::HeldOut, usize::MAX, &taken);
        }
        SplitPlan::Pooled => {
            division.fill(collected.clone(), Part::Validation, config.validation, &[]);
            let rest: Vec<usize> =
                collected.into_iter().filter(|&i| division.parts[i] != Some(Part::Validation)).collect();
            let validation = division.members(Part::Validation);
            division.fill(rest, Part::Train, limit, &validation);
            division.made(made, config.validation, limit, &[]);
        }
    }
    division.parts.into_iter().map(|part| part.unwrap_or(Part::Surplus)).collect()
}

struct Division<'a> {
    entries: &'a [Entry],
    near: f64,
    seed: u64,
    parts: Vec<Option<Part>>,
}

impl Division<'_> {
    fn members(&self, part: Part) -> Vec<usize> {
        (0..self.parts.len()).filter(|&index| self.parts[index] == Some(part)).collect()
    }

    /// Puts up to `limit` of the samples into a part, stratified by source; what repeats one of `others` is left out.
    fn fill(&mut self, samples: Vec<usize>, part: Part, limit: usize, others: &[usize]) {
        let samples = self.without_twins(samples, others);
        let room = limit.saturating_sub(self.members(part).len());
        let chosen = self.stratified(&samples, room);
        for index in samples {
            self.parts[index] = Some(Part::Surplus);
        }
        for index in chosen {
            self.parts[index] = Some(part);
        }
    }

    /// Fills validation, then train, from made samples.
    fn made(&mut self, mut made: Vec<usize>, validation: usize, train: usize, held_out: &[usize]) {
        made.shuffle(&mut seed::rng(self.seed, "split: made samples"));
        let missing = validation.saturating_sub(self.members(Part::Validation).len());
        if missing > 0 {
            let collected = [self.members(Part::Train), held_out.to_vec()].concat();
            let free = self.without_twins(made.clone(), &collected);
            for &index in free.iter().take(missing) {
                self.parts[index] = Some(Part::Validation);
            }
        }
        made.retain(|&index| self.parts[index] != Some(Part::Validation));
        let guarded = [self.members(Part::Validation), held_out.to_vec()].concat();
        let free = self.without_twins(made, &guarded);
        let room = train.saturating_sub(self.members(Part::Train).len());
        for (place, index) in free.into_iter().enumerate() {
            self.parts[index] = Some(if place < room { Part::Train } else { Part::Surplus });
        }
    }

    /// The samples that repeat none of `others`; the rest are marked with their twins.
    fn without_twins(&mut self, samples: Vec<usize>, others: &[usize]) -> Vec<usize> {
        let prints = |indices: &[usize]| indices.iter().map(|&index| &self.entries[index].print).collect::<Vec<_>>();
        let twins = twins(&prints(&samples), &prints(others), self.near);
        let mut free = Vec::with_capacity(samples.len());
        for (index, twin) in samples.into_iter().zip(twins) {
            match twin {
                Some((place, likeness)) => self.parts[index] = Some(Part::Repeats(others[place], likeness)),
                None => free.push(index),
            }
        }
        free
    }

    /// `count` of the samples, drawn by seed, each source in proportion to its size (largest remainders).
    fn stratified(&self, samples: &[usize], count: usize) -> Vec<usize> {
        if count >= samples.len() {
            return samples.to_vec();
        }
        let mut strata: BTreeMap<Source, Vec<usize>> = BTreeMap::new();
        for &index in samples {
            strata.entry(self.entries[index].source).or_default().push(index);
        }
        let share = |size: usize| size * count / samples.len();
        let mut quotas: Vec<(Source, usize, usize)> = strata
            .iter()
            .map(|(&source, members)| (source, share(members.len()), members.len() * count % samples.len()))
            .collect();
        let missing = count - quotas.iter().map(|quota| quota.1).sum::<usize>();
        quotas.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
        for quota in quotas.iter_mut().take(missing) {
            quota.1 += 1;
        }
        let mut chosen = Vec::with_capacity(count);
        for (source, quota, _) in quotas {
            let mut members = strata.remove(&source).unwrap_or_default();
            members.shuffle(&mut seed::rng(self.seed, &format!("split: {}", source.name())));
            chosen.extend(members.into_iter().take(quota));
        }
        chosen
    }
}

/// Proves that no sample of one split is, or repeats, a sample of another: train, validation, held-out, benchmark.
///
/// # Errors
/// [`Error::Invalid`] naming the first pairs.
pub fn check_leakage(splits: &[(&str, Vec<(&str, &Fingerprint)>)], near: f64) -> Result<()> {
    let mut leaks = Vec::new();
    for (place, (name, samples)) in splits.iter().enumerate() {
        for (other_name, others) in &splits[place + 1..] {
            let prints = |rows: &[(&str, &Fingerprint)]| rows.iter().map(|row| row.1.clone()).collect::<Vec<_>>();
            let (one, two) = (prints(samples), prints(others));
            let found = twins(&one.iter().collect::<Vec<_>>(), &two.iter().collect::<Vec<_>>(), near);
            for ((id, _), twin) in samples.iter().zip(found) {
                let same = others.iter().find(|(other, _)| other == id).map(|(other, _)| *other);
                if let Some(other) = same.or(twin.map(|(place, _)| others[place].0)) {
                    leaks.push(format!("{id} ({name}) repeats {other} ({other_name})"));
                }
            }
        }
    }
    if leaks.is_empty() {
        return Ok(());
    }
    let (count, first) = (leaks.len(), leaks.into_iter().take(3).collect::<Vec<_>>().join("; "));
    Err(Error::invalid(
        format!("{count} samples leak from one split into another: {first}"),
        "collect again with --force; if it stays, drop one of each pair in the worklist",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(source: Source, number: u64) -> Entry {
        let text = format!("{source:?}{number}");
        let shingles = (0..20).map(|place| number * 100 + place + 10_000_000 * source as u64).collect();
        let print = Fingerprint { text: text.clone(), form: text.clone(), shingles };
        Entry { id: text, source, number: Some(number), print }
    }

    fn corpus() -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..164).map(|n| entry(Source::Humaneval, n)).collect();
        entries.extend((1..=974).map(|n| entry(Source::Mbpp, n)));
        entries.extend((2000..2300).map(|n| entry(Source::Exercises, n)));
        entries
    }

    fn count(parts: &[Part], part: Part) -> usize {
        parts.iter().filter(|&&other| other == part).count()
    }

    #[test]
    fn the_honest_plan_goes_by_the_official_numbers() {
        let entries = corpus();
        let config = SplitConfig { plan: SplitPlan::Honest, train: 700, validation: 50 };
        let parts = divide(&entries, &config, 0.8, 1);
        assert_eq!(count(&parts, Part::Train), 700);
        assert_eq!(count(&parts, Part::Validation), 50);
        assert_eq!(count(&parts, Part::HeldOut), 440);
        for (entry, part) in entries.iter().zip(&parts).filter(|(entry, _)| entry.source == Source::Mbpp) {
            let number = entry.number.expect("every row has one");
            assert_eq!(*part == Part::HeldOut, (71..=510).contains(&number));
            assert!(*part != Part::Validation || (11..=70).contains(&number));
        }
        assert_eq!(parts, divide(&entries, &config, 0.8, 1));
        assert_ne!(parts, divide(&entries, &config, 0.8, 2));
    }

    #[test]
    fn the_pooled_plan_keeps_the_proportions_of_the_sources() {
        let entries = corpus();
        let config = SplitConfig { plan: SplitPlan::Pooled, train: 500, validation: 50 };
        let parts = divide(&entries, &config, 0.8, 1);
        let train = entries.iter().zip(&parts).filter(|(_, part)| **part == Part::Train);
        let human_eval = train.filter(|(entry, _)| entry.source == Source::Humaneval).count();
        assert_eq!((count(&parts, Part::Train), count(&parts, Part::Validation)), (500, 50));
        assert_eq!(human_eval, 72);
    }

    #[test]
    fn a_repeated_sample_stays_out_and_a_planted_leak_is_an_error() {
        let mut entries = vec![entry(Source::Humaneval, 1), entry(Source::Mbpp, 100), entry(Source::Exercises, 7)];
        entries[1].print = entries[0].print.clone();
        let config = SplitConfig { plan: SplitPlan::Honest, train: 0, validation: 0 };
        let parts = divide(&entries, &config, 0.8, 1);
        assert_eq!(parts, [Part::Train, Part::Repeats(0, Likeness::Exact), Part::Train]);
        let row = |index: usize| (entries[index].id.as_str(), &entries[index].print);
        assert!(check_leakage(&[("train", vec![row(0)]), ("held-out", vec![row(2)])], 0.8).is_ok());
        let leak = check_leakage(&[("train", vec![row(0), row(2)]), ("held-out", vec![row(1)])], 0.8);
        assert!(leak.unwrap_err().to_string().contains("Humaneval1 (train) repeats Mbpp100 (held-out)"));
    }
}
