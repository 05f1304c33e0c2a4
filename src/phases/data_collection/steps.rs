//! The way of a row through the checks, in order; the first check that fails names the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::candidate::{Candidate, alive};
use super::files::{WORKLIST, tokenizer_path};
use super::summary::{Outcome, outcome, record};
use crate::bench::tasks as bench_tasks;
use crate::data::analyze::{self, CodeFacts};
use crate::data::decontaminate::{self, Forbidden};
use crate::data::duplicates::{Cluster, groups};
use crate::data::filter::{Reason, Rejection, not_simple};
use crate::data::fingerprint::Fingerprint;
use crate::data::python_source;
use crate::data::quality::Fate;
use crate::data::read;
use crate::data::split::{self, Entry, Part};
use crate::data::task::Task;
use crate::data::verify;
use crate::data::worklist::{self, Decision};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Source};
use crate::sandbox::Limits;
use crate::tokenizer::Tokenizer;

/// Longest time for one probe of a sample's behaviour: a benchmark's tests take milliseconds.
const PROBE_SECONDS: f64 = 5.0;

/// Runs every step.
pub(super) fn collect(exp: &Experiment) -> Result<Outcome> {
    let config = &exp.config.data;
    let tokenizer = tokenizer(exp)?;
    let mut clock = Clock::new();
    let (mut candidates, mut rejections, read) = gather(exp)?;
    clock.lap("read and convert");
    apply_worklist(exp, &mut candidates)?;
    analyze(exp, &mut candidates)?;
    clock.lap("analyse");
    verify(exp, &mut candidates)?;
    clock.lap("verify");
    let benchmark = benchmark(exp)?;
    decontaminate(exp, &mut candidates, &benchmark)?;
    clock.lap("decontaminate");
    measure(exp, &mut candidates, &tokenizer)?;
    clock.lap("filter");
    let clusters = duplicates(&mut candidates, config.near_duplicate);
    clock.lap("duplicates");
    let usable: BTreeSet<usize> = (0..candidates.len()).filter(|&index| candidates[index].alive()).collect();
    divide(exp, &mut candidates, &benchmark)?;
    clock.lap("split");

    rejections.extend(candidates.iter().filter_map(|candidate| candidate.rejection.clone()));
    for candidate in &mut candidates {
        let rejected = candidate.rejection.as_ref().map(|rejection| Fate::Rejected(rejection.reason));
        candidate.measured.fate = rejected.or(candidate.fate).unwrap_or(Fate::Rejected(Reason::Surplus));
    }
    let total: usize = read.iter().map(|(_, rows)| rows).sum();
    let record = record(exp, &candidates, &rejections, &read, &usable, clusters, clock.laps);
    let out = record.train + record.validation + record.held_out + rejections.len();
    if total != out {
        let what = format!("{total} rows came in, but {out} went out");
        return Err(Error::invalid(what, "this is a fault of the program: report the experiment file"));
    }
    Ok(outcome(candidates, rejections, record))
}

/// Seconds, rounded: more digits are noise, and short decimals read back as the same number.
fn tenths_of_ms(seconds: f64) -> f64 {
    (seconds * 1e4).round() / 1e4
}

struct Clock {
    since: Instant,
    laps: Vec<(String, f64)>,
}

impl Clock {
    fn new() -> Self {
        Self { since: Instant::now(), laps: Vec::new() }
    }

    fn lap(&mut self, name: &str) {
        self.laps.push((name.into(), tenths_of_ms(self.since.elapsed().as_secs_f64())));
        self.since = Instant::now();
    }
}

fn tokenizer(exp: &Experiment) -> Result<Tokenizer> {
    let path = tokenizer_path(exp);
    if !path.is_file() {
        let remedy = "make the base first (`codelora base`), or set `tokenizer = \"FILE\"` in the section [data]";
        return Err(Error::invalid(format!("there is no vocabulary at {}", path.display()), remedy));
    }
    Tokenizer::load(&path)
}

type Gathered = (Vec<Candidate>, Vec<Rejection>, Vec<(Source, usize)>);

/// Reads and converts every source.
fn gather(exp: &Experiment) -> Result<Gathered> {
    let config = &exp.config.data;
    let import = config.import.as_ref().map(|path| exp.path(path));
    let (mut candidates, mut rejections, mut read) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for &source in &config.sources {
        let collected = read::collect(source, config, exp.config.seed, &exp.external, import.as_deref())?;
        read.push((source, collected.read));
        rejections.extend(collected.rejections);
        for converted in collected.converted {
            let mut candidate = Candidate::new(converted, source);
            if !seen.insert(candidate.task.id.clone()) {
                let twin = Some(candidate.task.id.clone());
                candidate.reject(Reason::DuplicateId, "a row of an earlier source has this id", twin);
                rejections.extend(candidate.rejection);
                continue;
            }
            candidates.push(candidate);
        }
    }
    Ok((candidates, rejections, read))
}

/// Honours a person's decisions.
fn apply_worklist(exp: &Experiment, candidates: &mut [Candidate]) -> Result<()> {
    let items = worklist::read(&exp.data_file(WORKLIST))?;
    let by_id: BTreeMap<&str, _> = items.iter().map(|item| (item.id.as_str(), item)).collect();
    for candidate in candidates {
        let Some(item) = by_id.get(candidate.task.id.as_str()) else { continue };
        match item.decision {
            Decision::Undecided => {}
            Decision::Keep => candidate.keep = true,
            Decision::Drop => candidate.reject(Reason::DroppedByHand, item.note.clone(), None),
            Decision::Fix if item.prompt.is_none() && item.solution.is_none() => {
                candidate.reject(Reason::AwaitsFix, "the worklist holds neither prompt nor solution for it", None);
            }
            Decision::Fix => {
                candidate.mended = true;
                candidate.task.prompt = item.prompt.clone().unwrap_or_else(|| candidate.task.prompt.clone());
                candidate.task.solution = item.solution.clone().unwrap_or_else(|| candidate.task.solution.clone());
                candidate.measured.body_lines = python_source::statement_lines(&candidate.task.solution);
            }
        }
    }
    Ok(())
}

/// Parses every program and its original; the body's tree must not have changed.
fn analyze(exp: &Experiment, candidates: &mut [Candidate]) -> Result<()> {
    let converted = candidates.iter().map(Candidate::program);
    let originals = candidates.iter().map(|candidate| candidate.original.clone());
    let programs: Vec<String> = converted.chain(originals).collect();
    let mut facts = analyze::facts_cached(&programs, &exp.data_file("cache/facts.jsonl"))?;
    let originals = facts.split_off(candidates.len());
    for ((candidate, facts), original) in candidates.iter_mut().zip(facts).zip(originals) {
        let Some(facts) = facts else {
            candidate.reject(Reason::DoesNotParse, "prompt + solution do not compile", None);
            continue;
        };
        let entry = candidate.task.entry_point.clone();
        let Some(function) = facts.function(&entry) else {
            candidate.reject(Reason::NoEntryPoint, format!("{entry} is not defined at column 0"), None);
            continue;
        };
        let body = |facts: &CodeFacts| facts.function(&entry).map(|function| function.body_sha256.clone());
        if !candidate.mended && original.as_ref().and_then(body) != Some(function.body_sha256.clone()) {
            candidate.reject(Reason::BodyChanged, "the syntax tree of the body differs from the dataset's", None);
        }
        let measured = &mut candidate.measured;
        measured.docstring_words = function.docstring_words;
        measured.complexity = facts.complexity;
        measured.names = facts.names;
        measured.imports.clone_from(&facts.imports);
        measured.foreign_imports.clone_from(&facts.foreign_imports);
        candidate.print = Some(Fingerprint::new(&candidate.program(), &facts.form));
        candidate.facts = Some(facts);
    }
    Ok(())
}

/// Executes every sample that parses.
fn verify(exp: &Experiment, candidates: &mut [Candidate]) -> Result<()> {
    let limits = Limits::seconds(exp.config.data.time_limit_s);
    let places: Vec<usize> = (0..candidates.len()).filter(|&index| candidates[index].alive()).collect();
    let tasks: Vec<Task> = places.iter().map(|&index| candidates[index].task.clone()).collect();
    let verifications = verify::verify(&tasks, limits, &exp.data_file("cache/executions.jsonl"))?;
    for (index, verification) in places.into_iter().zip(verifications) {
        let candidate = &mut candidates[index];
        candidate.measured.verified = verification.proven();
        candidate.measured.seconds = tenths_of_ms(verification.seconds);
        if verification.outcome != crate::sandbox::Outcome::Passed {
            let detail = format!("{:?}: {}", verification.outcome, verification.message);
            candidate.reject(Reason::Unverified, detail, None);
        } else if !verification.proven() {
            candidate.reject(Reason::TestsProveNothing, "the body `return None` passes too", None);
        }
        candidate.verification = Some(verification);
    }
    Ok(())
}

/// The benchmark's tasks, and those of the files to keep out.
fn benchmark(exp: &Experiment) -> Result<Vec<Forbidden>> {
    let mut tasks = Vec::new();
    for path in [&exp.config.bench.benchmark].into_iter().chain(&exp.config.data.keep_out) {
        tasks.extend(bench_tasks::load(&exp.path(path))?);
    }
    let programs: Vec<String> = tasks.iter().map(Forbidden::program).collect();
    let facts = analyze::facts_cached(&programs, &exp.data_file("cache/facts.jsonl"))?;
    decontaminate::forbid(tasks, &facts)
}

fn decontaminate(exp: &Experiment, candidates: &mut [Candidate], benchmark: &[Forbidden]) -> Result<()> {
    let found = {
        let alive = alive(candidates);
        let tasks: Vec<&Task> = alive.iter().map(|row| row.1).collect();
        let facts: Vec<&CodeFacts> = alive.iter().map(|row| row.2).collect();
        let prints: Vec<&Fingerprint> = alive.iter().map(|row| row.3).collect();
        let limits = Limits::seconds(exp.config.data.time_limit_s.min(PROBE_SECONDS));
        let cache = exp.data_file("cache/executions.jsonl");
        let near = exp.config.data.near_duplicate;
        let found = decontaminate::check(&tasks, &facts, &prints, benchmark, near, limits, &cache)?;
        alive.iter().map(|row| row.0).zip(found).collect::<Vec<_>>()
    };
    for (index, contamination) in found {
        if let Some(contamination) = contamination {
            candidates[index].reject(contamination.reason, contamination.detail, Some(contamination.twin));
        }
    }
    Ok(())
}

/// Counts tokens and applies the definition of "simple".
fn measure(exp: &Experiment, candidates: &mut [Candidate], tokenizer: &Tokenizer) -> Result<()> {
    for candidate in candidates {
        let (prompt, solution) = (&candidate.task.prompt, &candidate.task.solution);
        candidate.measured.prompt_tokens = tokenizer.encode(prompt)?.len();
        candidate.measured.solution_tokens = tokenizer.encode(solution)?.len();
        candidate.measured.total_tokens = candidate.measured.prompt_tokens + candidate.measured.solution_tokens + 1;
        if !candidate.alive() {
            continue;
        }
        if let Err(fault) = tokenizer.check_boundary(prompt, solution) {
            let fault = fault.to_string();
            candidate.reject(Reason::TokenBoundary, fault.lines().next().unwrap_or_default(), None);
        }
        for (reason, detail) in not_simple(&candidate.measured, &exp.config.data) {
            candidate.reject(reason, detail, None);
        }
    }
    Ok(())
}

/// Groups the verified samples and rejects what asks the same and answers the same as an earlier sample.
fn duplicates(candidates: &mut [Candidate], near: f64) -> Vec<Cluster> {
    let verified: Vec<usize> =
        (0..candidates.len()).filter(|&i| candidates[i].measured.verified && candidates[i].print.is_some()).collect();
    let prints: Vec<&Fingerprint> = verified.iter().filter_map(|&index| candidates[index].print.as_ref()).collect();
    let ids = |members: Vec<usize>| members.into_iter().map(|m| candidates[verified[m]].task.id.clone()).collect();
    let clusters = groups(&prints, near)
        .into_iter()
        .map(|(members, likeness)| Cluster { members: ids(members), likeness })
        .collect();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut answers: BTreeMap<(String, String), String> = BTreeMap::new();
    for candidate in candidates.iter_mut().filter(|candidate| candidate.alive()) {
        let Some(print) = candidate.print.clone() else { continue };
        let question = (print.form, python_source::last_string_words(&candidate.task.prompt));
        let id = candidate.task.id.clone();
        if let Some(twin) = answers.get(&question) {
            candidate.reject(Reason::Duplicate, "the same question and the same syntax tree", Some(twin.clone()));
        } else if let Some(twin) = texts.get(&print.text) {
            candidate.reject(Reason::Duplicate, "the same program text", Some(twin.clone()));
        }
        if candidate.alive() {
            texts.entry(print.text).or_insert_with(|| id.clone());
            answers.entry(question).or_insert(id);
        }
    }
    clusters
}

/// Divides what is left and proves that nothing leaks.
fn divide(exp: &Experiment, candidates: &mut [Candidate], benchmark: &[Forbidden]) -> Result<()> {
    let config = &exp.config.data;
    let (places, entries): (Vec<usize>, Vec<Entry>) = {
        let alive = alive(candidates);
        alive.iter().map(|(index, task, _, print)| (*index, Entry::new(task, (*print).clone()))).unzip()
    };
    let parts = split::divide(&entries, &config.split, config.near_duplicate, exp.config.seed);
    let of = |part: Part| -> Vec<(&str, &Fingerprint)> {
        let members = entries.iter().zip(&parts).filter(|(_, other)| **other == part);
        members.map(|(entry, _)| (entry.id.as_str(), &entry.print)).collect()
    };
    let forbidden = benchmark.iter().filter_map(|f| Some((f.task.id.as_str(), f.print()?))).collect();
    let splits = [
        ("train", of(Part::Train)),
        ("validation", of(Part::Validation)),
        ("held-out", of(Part::HeldOut)),
        ("benchmark", forbidden),
    ];
    split::check_leakage(&splits, config.near_duplicate)?;
    for (place, part) in places.into_iter().zip(&parts) {
        let candidate = &mut candidates[place];
        match *part {
            Part::Train => candidate.fate = Some(Fate::Train),
            Part::Validation => candidate.fate = Some(Fate::Validation),
            Part::HeldOut => candidate.fate = Some(Fate::HeldOut),
            Part::Surplus => candidate.reject(Reason::Surplus, "the plan asks for no more", None),
            Part::Repeats(twin, likeness) => {
                let twin = Some(entries[twin].id.clone());
                candidate.reject(Reason::NearDuplicateAcrossSplits, format!("{likeness:?}"), twin);
            }
        }
    }
    Ok(())
}
