//! Raw rows from where they lie: compiled in, generated, in the external folder, or in a file of the user's.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::data::filter::{Reason, Rejection};
use crate::data::row::Converted;
use crate::data::{embedded, exercises, humaneval, imported, mbpp};
use crate::error::{Error, Result};
use crate::experiment::{DataConfig, Source};
use crate::sandbox::Program;

/// What one source gave: every row is one or the other.
#[derive(Debug, Default)]
pub struct Collected {
    /// Rows that came in.
    pub read: usize,
    /// Those that became a task.
    pub converted: Vec<Converted>,
    /// Those that did not.
    pub rejections: Vec<Rejection>,
}

/// The file of the external folder in which a source lies, where it has one.
pub fn external_file(source: Source) -> Option<&'static str> {
    match source {
        Source::Humaneval => Some("HumanEval.jsonl"),
        Source::Mbpp => Some("mbpp.jsonl"),
        _ => None,
    }
}

/// Reads and converts every row of a source. `import` is the resolved [`DataConfig::import`].
///
/// # Errors
/// When the source's file is missing or empty. A bad row is a [`Rejection`].
pub fn collect(
    source: Source,
    config: &DataConfig,
    seed: u64,
    external: &Path,
    import: Option<&Path>,
) -> Result<Collected> {
    match source {
        Source::EmbeddedHumaneval => Ok(convert(source, "humaneval.jsonl", embedded::humaneval().as_bytes())),
        Source::EmbeddedMbpp => Ok(convert(source, "mbpp.jsonl", embedded::mbpp().as_bytes())),
        Source::Exercises => generated(seed, config),
        Source::Humaneval | Source::Mbpp | Source::Imported => {
            let path = match (external_file(source), import) {
                (Some(name), _) => external.join(name),
                (None, Some(path)) => path.to_path_buf(),
                (None, None) => {
                    return Err(Error::invalid(
                        "the source `imported` is listed but no file is named",
                        "set `import = \"FILE.jsonl\"` in the section [data]",
                    ));
                }
            };
            if !path.is_file() {
                let remedy = if external_file(source).is_some() {
                    "download the datasets with `codelora data --fetch`, or name their folder with --external DIR"
                } else {
                    "check `import` in the section [data]"
                };
                return Err(Error::invalid(format!("{} is missing", path.display()), remedy));
            }
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            if bytes.iter().all(u8::is_ascii_whitespace) {
                return Err(Error::malformed(&path, 1, "the file is empty", "fetch or export it again"));
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Ok(convert(source, &name, &bytes))
        }
    }
}

/// Converts each line; blank lines do not count as rows.
fn convert(source: Source, file: &str, bytes: &[u8]) -> Collected {
    let mut collected = Collected::default();
    let mut seen = BTreeSet::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        collected.read += 1;
        let place = format!("{file}:{}", index + 1);
        match one(source, line) {
            Ok(converted) if seen.insert(converted.task.id.clone()) => collected.converted.push(converted),
            Ok(converted) => {
                let detail = format!("an earlier row has the id {}", converted.task.id);
                let rejection = Rejection::new(place, source, Reason::DuplicateId, detail);
                collected.rejections.push(rejection.with_twin(converted.task.id));
            }
            Err(mut rejection) => {
                rejection.detail = format!("{place}: {}", rejection.detail);
                if rejection.id.is_empty() || seen.contains(&rejection.id) {
                    rejection.id = place;
                }
                seen.insert(rejection.id.clone());
                collected.rejections.push(rejection);
            }
        }
    }
    collected
}

fn one(source: Source, line: &[u8]) -> std::result::Result<Converted, Rejection> {
    let text = std::str::from_utf8(line)
        .map_err(|fault| Rejection::new("", source, Reason::NotUtf8, format!("byte {}", fault.valid_up_to() + 1)))?;
    let text = text.trim_end_matches('\r');
    match source {
        Source::Humaneval | Source::EmbeddedHumaneval => humaneval::convert(text, source),
        Source::Mbpp | Source::EmbeddedMbpp => mbpp::convert(text, source),
        Source::Imported | Source::Exercises => imported::convert(text),
    }
}

fn generated(seed: u64, config: &DataConfig) -> Result<Collected> {
    let whole = |task: crate::data::task::Task| {
        let Program { code, .. } = task.program(&task.solution);
        Converted { task, original: code }
    };
    let converted: Vec<Converted> =
        exercises::generate(seed, config.exercises, &config.exercise_files)?.into_iter().map(whole).collect();
    Ok(Collected { read: converted.len(), converted, rejections: Vec::new() })
}
