//! Python files as documents, read by Python itself; its own standard library first of all.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::data::corpus::contamination::Contamination;
use crate::error::{Error, Result};
use crate::python;
use crate::seed::sha256;

/// Reads files with Python's own parser.
const READER: &str = include_str!("library.py");

/// Modules that are tests, tables or programs rather than library code, and `operator`, which defines benchmark tasks.
pub(crate) const SKIPPED_MODULES: [&str; 17] = [
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "pydoc_data",
    "encodings",
    "ensurepip",
    "__pycache__",
    "operator",
    "distutils",
    "lib-dynload",
    "_pydecimal",
    "this",
    "antigravity",
];

/// Names of benchmark functions and their neighbours, in lower case without underscores, that no function of the corpus
/// may have.
const EXCLUDED_NAMES: [&str; 28] = [
    "add",
    "addnumbers",
    "multiply",
    "mul",
    "maxvalue",
    "maximum",
    "max",
    "absvalue",
    "abs",
    "absolute",
    "iseven",
    "iseq",
    "sumlist",
    "sum",
    "fsum",
    "reverselist",
    "reverse",
    "reversed",
    "findmax",
    "removeduplicates",
    "unique",
    "linearsearch",
    "bubblesort",
    "sort",
    "stringreverse",
    "power",
    "pow",
    "fib",
];

/// Parts of a name that exclude a function wherever they stand.
const EXCLUDED_PARTS: [&str; 9] =
    ["prime", "factorial", "fibonacci", "palindrom", "vowel", "gcd", "flatten", "duplicates", "iseven"];

/// Functions of the standard library as (signature and docstring → body) pairs of at most 20 lines, and its files without
/// functions whose names come near a benchmark task's; both without what `contamination` knows.
///
/// # Errors
/// [`Error::Invalid`] when Python is missing or the reader fails.
pub fn standard_library(contamination: &Contamination) -> Result<(Vec<String>, Vec<String>)> {
    let (mut pairs, mut raw) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for row in read(json!({ "folders": [folder()?], "skip": SKIPPED_MODULES }))?.unwrap_or_default() {
        match row.kind.as_str() {
            _ if contamination.holds(&row.text) => {}
            "pair" if seen.insert(sha256(&row.text)) => pairs.push(row.text),
            "raw" if seen.insert(sha256(&row.text)) => raw.push(row.text),
            _ => {}
        }
    }
    Ok((pairs, raw))
}

/// Where the interpreter's standard library lies.
///
/// # Errors
/// [`Error::Invalid`] when Python is missing.
pub fn folder() -> Result<PathBuf> {
    let python = python::interpreter()?;
    let where_is = ["-I", "-c", "import sysconfig; print(sysconfig.get_paths()['stdlib'])"];
    let output = Command::new(&python).args(where_is).output().map_err(Error::io("run", &python))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// The documents of files, as the reader gives them. A file that ends the reader by a signal costs itself only.
///
/// # Errors
/// As [`standard_library`].
pub fn documents(files: &[PathBuf]) -> Result<Vec<Row>> {
    if let Some(rows) = read(json!({ "files": files, "skip": [] }))? {
        return Ok(rows);
    }
    if files.len() < 2 {
        return Ok(Vec::new());
    }
    let (left, right) = files.split_at(files.len() / 2);
    let mut rows = documents(left)?;
    rows.extend(documents(right)?);
    Ok(rows)
}

/// Runs the reader under `plan`; nothing when a signal ended it.
fn read(mut plan: Value) -> Result<Option<Vec<Row>>> {
    let python = python::interpreter()?;
    let failed = |what: String| {
        Error::invalid(
            format!("Python files could not be read: {what}"),
            "check the interpreter named by CODELORA_PYTHON",
        )
    };
    let limits = json!({
        "names": EXCLUDED_NAMES, "parts": EXCLUDED_PARTS, "body_lines": 20, "doc_chars": 160, "file_bytes": 200_000,
    });
    for (key, value) in limits.as_object().into_iter().flatten() {
        plan[key] = value.clone();
    }
    let mut child = Command::new(&python)
        .args(["-I", "-W", "ignore", "-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("run", &python))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(plan.to_string().as_bytes()).map_err(Error::io("write to", &python))?;
    }
    let output = child.wait_with_output().map_err(Error::io("run", &python))?;
    if output.status.signal().is_some() {
        return Ok(None);
    }
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let rows = text.lines().map(|line| serde_json::from_str(line).map_err(|e| failed(e.to_string())));
    Ok(Some(rows.collect::<Result<_>>()?))
}

/// A document.
#[derive(Debug, Clone, Deserialize)]
pub struct Row {
    /// `pair`, `raw`, or `foreign` for a file beyond ASCII, whose text is left out.
    pub kind: String,
    /// The file it comes from.
    pub path: PathBuf,
    /// The document.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{analyze, embedded};

    #[test]
    fn the_standard_library_gives_pairs_in_our_format_and_no_benchmark_function() {
        let mut benchmark = Contamination::default();
        benchmark.add_tasks(&embedded::benchmark20().unwrap());
        let (pairs, raw) = standard_library(&benchmark).unwrap();
        assert!(pairs.len() > 500 && raw.len() > 100, "{} pairs, {} files", pairs.len(), raw.len());
        let texts: Vec<String> = pairs.iter().chain(&raw).cloned().collect();
        // `xmlrpc.server` shows in its docstring how to serve a function that adds.
        assert!(!texts.iter().any(|text| benchmark.holds(text)));
        let (_, all) = standard_library(&Contamination::default()).unwrap();
        assert!(all.iter().any(|text| benchmark.holds(text)) && all.len() > raw.len());
        let facts = analyze::facts(&texts).unwrap();
        // Every pair parses; of the library's files a few do not stand the reader's limits (nesting, size).
        assert!(facts.iter().take(pairs.len()).all(Option::is_some));
        assert!(facts.iter().flatten().count() * 100 >= facts.len() * 99);
        for function in facts.into_iter().flatten().flat_map(|facts| facts.functions) {
            let name = function.name;
            let plain = name.to_lowercase().replace('_', "");
            assert!(!EXCLUDED_NAMES.contains(&plain.as_str()), "{name}");
            assert!(!EXCLUDED_PARTS.iter().any(|part| plain.contains(part)), "{name}");
        }
        for pair in &pairs {
            let mut lines = pair.lines();
            assert!(lines.next().is_some_and(|line| line.starts_with("def ") && line.ends_with(':')), "{pair}");
            assert!(
                lines.next().is_some_and(|line| line.starts_with("    \"\"\"") && line.ends_with("\"\"\"")),
                "{pair}"
            );
            assert!(lines.next().is_some_and(|line| line.starts_with("    ")), "{pair}");
            assert!(pair.ends_with('\n') && !pair.ends_with("\n\n"));
        }
    }

    #[test]
    fn lines_are_those_of_the_parser() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pages.py");
        let keep =
            "def scale(values, factor):\n    \"\"\"Scale values.\"\"\"\n    return [v * factor for v in values]\n";
        // Form feeds between sections, as old sources have them.
        let text = format!("import os\n\x0c\n\x0c\ndef add(a, b):\n    return a + b\n\x0c\n{keep}");
        std::fs::write(&file, text).unwrap();
        let rows = documents(&[file]).unwrap();
        let of =
            |kind: &str| rows.iter().filter(|row| row.kind == kind).map(|row| row.text.as_str()).collect::<Vec<_>>();
        assert_eq!(of("pair"), [keep]);
        let raw = of("raw");
        assert!(raw.len() == 1 && raw[0].contains("def scale") && !raw[0].contains("a + b"), "{raw:?}");
    }
}
