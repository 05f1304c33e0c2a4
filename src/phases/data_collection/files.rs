//! What phase 1 leaves behind: one stamp over all its files, checked when they are reopened.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DataCollection;
use crate::artifact;
use crate::data::quality::DataRecord;
use crate::data::read::external_file;
use crate::data::task::Task;
use crate::data::worklist::{self, Decision};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Phase, Source};
use crate::sandbox::Outcome;
use crate::seed::sha256;

/// A person's decisions.
pub(super) const WORKLIST: &str = "worklist.jsonl";
const STAMP: &str = "stamp.json";
const TRAIN: &str = "v2_train.jsonl";
const VALIDATION: &str = "v2_val.jsonl";
const HELD_OUT: &str = "v2_held_out.jsonl";
const REJECTS: &str = "rejects.jsonl";
const RECORD: &str = "record.json";

/// A row of `v2_raw`: the task and what its tests said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RawRow {
    #[serde(flatten)]
    pub task: Task,
    /// Whether the solution passes and the empty body fails.
    pub verified: bool,
    /// What became of the solution; absent when it does not parse.
    pub outcome: Option<Outcome>,
    /// Seconds its tests took.
    pub seconds: f64,
}

/// Ties the files to the experiment and to everything they were made of.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    /// Of the experiment's sections.
    digest: String,
    /// SHA-256 of each input by name.
    inputs: BTreeMap<String, String>,
    /// SHA-256 of each file by its name in the data folder.
    files: BTreeMap<String, String>,
}

/// The vocabulary that counts tokens.
pub(super) fn tokenizer_path(exp: &Experiment) -> PathBuf {
    match &exp.config.data.tokenizer {
        Some(path) => exp.path(path),
        None => exp.path(&exp.config.base.folder).join("tokenizer.json"),
    }
}

/// SHA-256 of each input that is there, by name.
pub(super) fn inputs(exp: &Experiment) -> Result<BTreeMap<String, String>> {
    let data = &exp.config.data;
    let mut paths = vec![tokenizer_path(exp), exp.path(&exp.config.bench.benchmark)];
    paths.extend(data.keep_out.iter().map(|path| exp.path(path)));
    paths.extend(data.sources.iter().filter_map(|&source| external_file(source)).map(|name| exp.external.join(name)));
    if data.sources.contains(&Source::Imported) {
        paths.extend(data.import.iter().map(|path| exp.path(path)));
    }
    let mut inputs = BTreeMap::new();
    for path in paths.iter().filter(|path| path.is_file()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        inputs.insert(name, sha256(fs::read(path).map_err(Error::io("read", path))?));
    }
    let mut items = worklist::read(&exp.data_file(WORKLIST))?;
    items.retain(|item| item.decision != Decision::Undecided);
    inputs.insert("decisions".into(), sha256(serde_json::to_string(&items).unwrap_or_default()));
    Ok(inputs)
}

/// SHA-256 over train, validation and held-out.
pub(super) fn content_sha256(collection: &DataCollection) -> Result<String> {
    let parts = (&collection.train, &collection.validation, &collection.held_out);
    let text = serde_json::to_string(&parts).map_err(|e| Error::invalid(e.to_string(), "report this sample"))?;
    Ok(sha256(text))
}

fn raw_name(source: Source) -> String {
    format!("v2_raw/{}.jsonl", source.name())
}

/// Writes every file, the stamp last.
pub(super) fn write(
    exp: &Experiment,
    raw: &BTreeMap<Source, Vec<RawRow>>,
    collection: &DataCollection,
    inputs: BTreeMap<String, String>,
) -> Result<()> {
    // Without its stamp a half-written collection is nothing; the old stamp must not vouch for new files.
    let stamp_path = exp.data_file(STAMP);
    artifact::remove(&stamp_path)?;
    for (&source, rows) in raw {
        artifact::write_jsonl(&exp.data_file(raw_name(source)), rows)?;
    }
    artifact::write_jsonl(&exp.data_file(TRAIN), &collection.train)?;
    artifact::write_jsonl(&exp.data_file(VALIDATION), &collection.validation)?;
    artifact::write_jsonl(&exp.data_file(HELD_OUT), &collection.held_out)?;
    artifact::write_jsonl(&exp.data_file(REJECTS), &collection.rejections)?;
    for record in [exp.data_file(RECORD), exp.record_file("data")] {
        artifact::write_json(&record, &collection.record)?;
    }
    let mut files = BTreeMap::new();
    for name in
        raw.keys().map(|&source| raw_name(source)).chain([TRAIN, VALIDATION, HELD_OUT, REJECTS, RECORD].map(Into::into))
    {
        let path = exp.data_file(&name);
        files.insert(name, sha256(fs::read(&path).map_err(Error::io("read", &path))?));
    }
    let stamp = Stamp { digest: exp.digest(Phase::Data), inputs, files };
    artifact::write_json(&stamp_path, &stamp)
}

/// What an earlier run left, or `None` when there is nothing or an input changed since.
pub(super) fn reopen(exp: &Experiment, inputs: &BTreeMap<String, String>) -> Result<Option<DataCollection>> {
    let stamp_path = exp.data_file(STAMP);
    if !stamp_path.exists() {
        return Ok(None);
    }
    let stamp: Stamp = artifact::read_json(&stamp_path)?;
    let digest = exp.digest(Phase::Data);
    if stamp.digest != digest {
        let what =
            format!("the samples in {} belong to another experiment", exp.path(&exp.config.paths.data).display());
        return Err(mismatch(what, &digest, &stamp.digest));
    }
    // An input that is gone since (a folder once named with --external) changes nothing about what was made of it.
    let changed: Vec<&String> =
        inputs.iter().filter(|(name, hash)| stamp.inputs.get(*name) != Some(hash)).map(|(name, _)| name).collect();
    if !changed.is_empty() {
        println!(
            "collecting anew, because these changed: {}",
            changed.into_iter().cloned().collect::<Vec<_>>().join(", ")
        );
        return Ok(None);
    }
    for (name, hash) in &stamp.files {
        let path = exp.data_file(name);
        let Ok(bytes) = fs::read(&path) else { return Ok(None) };
        let found = sha256(bytes);
        if found != *hash {
            return Err(mismatch(format!("{} was changed after it was written", path.display()), hash, &found));
        }
    }
    if !stamp.files.contains_key(RECORD) {
        return Ok(None);
    }
    let record: DataRecord = artifact::read_json(&exp.data_file(RECORD))?;
    // Runs that share the samples, as the points of a sweep do, each keep the record beside their own.
    let own = exp.record_file("data");
    if fs::read(&own).ok() != fs::read(exp.data_file(RECORD)).ok() {
        artifact::write_json(&own, &record)?;
    }
    read(exp, record).map(Some)
}

fn mismatch(what: String, expected: &str, found: &str) -> Error {
    let remedy = "run again with --force to collect anew, or give the experiment another data folder in [paths]";
    Error::Mismatch { what, expected: expected.into(), found: found.into(), remedy: remedy.into() }
}

fn read(exp: &Experiment, record: DataRecord) -> Result<DataCollection> {
    let file = |name: &str| exp.data_file(Path::new(name));
    let train: Vec<crate::data::task::Sample> = artifact::read_jsonl(&file(TRAIN))?;
    let validation: Vec<crate::data::task::Sample> = artifact::read_jsonl(&file(VALIDATION))?;
    let held_out: Vec<Task> = artifact::read_jsonl(&file(HELD_OUT))?;
    let kept: std::collections::BTreeSet<&str> = train
        .iter()
        .chain(&validation)
        .map(|sample| sample.id.as_str())
        .chain(held_out.iter().map(|task| task.id.as_str()))
        .collect();
    let mut tasks = Vec::with_capacity(kept.len());
    for counts in &record.sources {
        let rows: Vec<RawRow> = artifact::read_jsonl(&file(&raw_name(counts.source)))?;
        tasks.extend(rows.into_iter().map(|row| row.task).filter(|task| kept.contains(task.id.as_str())));
    }
    let rejections = artifact::read_jsonl(&file(REJECTS))?;
    Ok(DataCollection { tasks, train, validation, held_out, rejections, record })
}
