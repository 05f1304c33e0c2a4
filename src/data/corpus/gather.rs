//! Files of many origins to documents on disk: screened, parsed, without repeats and without benchmarks, in bounded memory.
//!
//! Files pass in blocks. A block is read and screened in parallel, its repeats are found in order, what is left is parsed by
//! Python, and the documents go to two files of JSON lines, `raw` and `pairs`. The order of origins and files decides which of
//! several repeats stays, so the result does not depend on the number of cores.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::corpus::contamination::Contamination;
use crate::data::corpus::library::{self, Row};
use crate::data::corpus::repeats::{Repeats, Sketch};
use crate::data::corpus::screen::{self, Rejection};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Files of a block.
const BLOCK: usize = 1024;
/// Files that one Python process parses: enough that its start does not count.
const PER_PROCESS: usize = 128;

/// A folder of Python files and where it comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Name and version of the package, or the folder as the user named it.
    pub name: String,
    /// Licence, as an SPDX identifier; empty where the user answers for it.
    pub licence: String,
    /// The folder.
    pub folder: PathBuf,
    /// Names of files and folders to leave out.
    pub skip: Vec<String>,
}

/// What one origin contributed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OriginStatistics {
    /// Name and version of the package, or the folder as the user named it.
    pub origin: String,
    /// Licence, as an SPDX identifier; empty where the user answers for it.
    pub licence: String,
    /// Python files found.
    pub files: usize,
    /// Bytes of them that were read.
    pub bytes_read: usize,
    /// Files that were kept.
    pub kept: usize,
    /// Bytes of the files that were kept.
    pub bytes: usize,
    /// (Signature and docstring → body) pairs that were kept.
    pub pairs: usize,
    /// Files that were not kept, by reason.
    pub rejected: BTreeMap<String, usize>,
    /// Pairs that were not kept, by reason.
    pub rejected_pairs: BTreeMap<String, usize>,
}

/// What is left out beside what no corpus wants.
#[derive(Debug)]
pub struct Rules {
    /// Leave tests out.
    pub skip_tests: bool,
    /// Passages of benchmarks.
    pub contamination: Contamination,
}

/// Documents as JSON strings, one a line.
pub struct Spool {
    file: PathBuf,
    writer: BufWriter<File>,
}

impl Spool {
    fn create(file: PathBuf) -> Result<Self> {
        let writer = BufWriter::new(File::create(&file).map_err(Error::io("create", &file))?);
        Ok(Self { file, writer })
    }

    fn push(&mut self, text: &str) -> Result<()> {
        let line = serde_json::to_writer(&mut self.writer, text).map_err(std::io::Error::from);
        line.and_then(|()| self.writer.write_all(b"\n")).map_err(Error::io("write", &self.file))
    }

    fn finish(mut self) -> Result<PathBuf> {
        self.writer.flush().map_err(Error::io("write", &self.file))?;
        Ok(self.file)
    }

    /// The documents of a spool file.
    ///
    /// # Errors
    /// [`Error::Io`]; each document's own [`Error::Malformed`].
    pub fn read(file: &Path) -> Result<impl Iterator<Item = Result<String>> + Send + use<>> {
        let path = file.to_path_buf();
        let lines = BufReader::new(File::open(file).map_err(Error::io("read", file))?).lines();
        Ok(lines.zip(1..).map(move |(line, number): (_, usize)| {
            let line = line.map_err(Error::io("read", &path))?;
            serde_json::from_str(&line)
                .map_err(|e| Error::malformed(&path, number, e.to_string(), "gather the corpus anew"))
        }))
    }
}

/// What [`gather`] leaves.
#[derive(Debug, Clone)]
pub struct Gathered {
    /// Spool of pairs.
    pub pairs: PathBuf,
    /// Spool of files.
    pub raw: PathBuf,
    /// Counts by origin.
    pub origins: Vec<OriginStatistics>,
}

/// Gathers the documents of `origins` into `folder`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Invalid`] when Python is missing.
pub fn gather(origins: &[Origin], rules: &Rules, folder: &Path) -> Result<Gathered> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let mut raw = Spool::create(folder.join("raw.jsonl"))?;
    let mut pairs = Spool::create(folder.join("pairs.jsonl"))?;
    let (mut files_seen, mut pairs_seen) = (Repeats::default(), Repeats::default());
    let mut statistics = Vec::new();
    for origin in origins {
        let mut count =
            OriginStatistics { origin: origin.name.clone(), licence: origin.licence.clone(), ..Default::default() };
        let mut files = Vec::new();
        walk(&origin.folder, &origin.skip, &mut files)?;
        count.files = files.len();
        let progress = Progress::new(origin.name.clone(), files.len());
        for block in files.chunks(BLOCK) {
            let kept = screened(block, &origin.folder, rules, &mut files_seen, &mut count);
            for row in documents(&kept, rules)? {
                match row {
                    Document::Raw(text) => {
                        count.kept += 1;
                        count.bytes += text.len();
                        raw.push(&text)?;
                    }
                    Document::Pair(text, sketch) => match pairs_seen.admit(&sketch) {
                        Ok(()) => {
                            count.pairs += 1;
                            pairs.push(&text)?;
                        }
                        Err(why) => *count.rejected_pairs.entry(why.name().into()).or_default() += 1,
                    },
                    Document::Rejected(why) => *count.rejected.entry(why.name().into()).or_default() += 1,
                    Document::RejectedPair(why) => *count.rejected_pairs.entry(why.name().into()).or_default() += 1,
                }
            }
            progress.add(block.len());
        }
        progress.finish();
        statistics.push(count);
    }
    Ok(Gathered { pairs: pairs.finish()?, raw: raw.finish()?, origins: statistics })
}

/// Python files below a folder, in the order of their names. Links are not followed.
fn walk(folder: &Path, skip: &[String], found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let mut entries: Vec<_> = entries.collect::<std::io::Result<_>>().map_err(Error::io("read", folder))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().map_err(Error::io("read", &path))?;
        let left_out = |name: &str| skip.iter().any(|skipped| skipped == name);
        if kind.is_dir() && !name.starts_with('.') && name != "__pycache__" && !left_out(&name) {
            walk(&path, skip, found)?;
        } else if let (true, Some(stem)) = (kind.is_file(), name.strip_suffix(".py"))
            && !left_out(stem)
        {
            found.push(path);
        }
    }
    Ok(())
}

/// The files of a block that are worth parsing.
fn screened(
    block: &[PathBuf],
    folder: &Path,
    rules: &Rules,
    seen: &mut Repeats,
    count: &mut OriginStatistics,
) -> Vec<PathBuf> {
    let look = |path: &PathBuf| {
        let inside = path.strip_prefix(folder).unwrap_or(path);
        if rules.skip_tests && screen::is_test(inside) {
            return Err(Rejection::Test);
        }
        let text = screen::read(path)?;
        Ok((text.len(), Sketch::new(&text)))
    };
    let looks: Vec<_> = block.par_iter().map(look).collect();
    let mut kept = Vec::new();
    for (path, look) in block.iter().zip(looks) {
        let admitted = look.and_then(|(bytes, sketch)| {
            count.bytes_read += bytes;
            seen.admit(&sketch)
        });
        match admitted {
            Ok(()) => kept.push(path.clone()),
            Err(why) => *count.rejected.entry(why.name().into()).or_default() += 1,
        }
    }
    kept
}

/// What became of a file or of a pair in it.
enum Document {
    Raw(String),
    Pair(String, Box<Sketch>),
    Rejected(Rejection),
    RejectedPair(Rejection),
}

/// Parses files and holds their documents against the benchmarks.
fn documents(files: &[PathBuf], rules: &Rules) -> Result<Vec<Document>> {
    let of_process = |files: &[PathBuf]| -> Result<Vec<Document>> {
        let rows = library::documents(files)?;
        let mut left: std::collections::BTreeSet<&PathBuf> = files.iter().collect();
        for row in rows.iter().filter(|row| row.kind != "pair") {
            left.remove(&row.path);
        }
        let unparsable = left.iter().map(|_| Document::Rejected(Rejection::Unparsable));
        let judged = rows.iter().map(|row: &Row| match (row.kind.as_str(), rules.contamination.holds(&row.text)) {
            ("foreign", _) => Document::Rejected(Rejection::Foreign),
            ("pair", true) => Document::RejectedPair(Rejection::Contaminated),
            ("pair", false) => Document::Pair(row.text.clone(), Box::new(Sketch::new(&row.text))),
            (_, true) => Document::Rejected(Rejection::Contaminated),
            (_, false) => Document::Raw(row.text.clone()),
        });
        Ok(judged.chain(unparsable).collect())
    };
    let parts: Vec<Vec<Document>> = files.par_chunks(PER_PROCESS).map(of_process).collect::<Result<_>>()?;
    Ok(parts.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::embedded;

    fn module(name: &str, count: usize) -> String {
        let functions = (0..count).map(|i| {
            format!(
                "def {name}_{i}(first, second):\n    \"\"\"Return the {name} of two values, case {i}.\"\"\"\n    \
                 left = first.{name}({i})\n    right = second[{i}:]\n    return left, right, '{name}{i}'\n\n\n"
            )
        });
        functions.collect()
    }

    #[test]
    fn what_a_folder_gives_is_counted_by_reason() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let path = folder.path().join("source").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let sort = embedded::benchmark20().unwrap().into_iter().find(|t| t.entry_point == "bubble_sort").unwrap();
        write("a.py", module("span", 6).as_bytes());
        write("b/copy.py", module("span", 6).replace("\n\n\n", "\n\n").as_bytes());
        write("b/other.py", module("weight", 6).as_bytes());
        write("broken.py", format!("{}def (:\n", module("broken", 3)).as_bytes());
        write("tests/test_a.py", module("tested", 6).as_bytes());
        write("foreign.py", module("größe", 6).as_bytes());
        write("image.py", &[0; 4096]);
        write("huge.py", &vec![b'x'; 3_000_000]);
        write("stolen.py", format!("import os\n\n\ndef order(values):\n{}\n", sort.solution).as_bytes());
        write("notes.txt", b"no Python");
        #[cfg(unix)]
        std::os::unix::fs::symlink("/", folder.path().join("source/loop")).unwrap();
        let mut contamination = Contamination::default();
        contamination.add_tasks(&[sort]);
        let rules = Rules { skip_tests: true, contamination };
        let origin = Origin {
            name: "source".into(),
            licence: String::new(),
            folder: folder.path().join("source"),
            skip: Vec::new(),
        };
        let gathered = gather(&[origin], &rules, &folder.path().join("spool")).unwrap();
        let count = &gathered.origins[0];
        let expected =
            ["binary", "does not parse", "exact repeat", "holds a benchmark task", "not ASCII", "test", "too large"];
        assert_eq!(count.rejected.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{count:?}");
        assert_eq!((count.files, count.kept), (9, 2), "{count:?}");
        let raw: Vec<String> = Spool::read(&gathered.raw).unwrap().map(Result::unwrap).collect();
        assert_eq!(raw.len(), 2);
        assert!(raw[0].contains("span_0") && raw[1].contains("weight_0"));
        let pairs: Vec<String> = Spool::read(&gathered.pairs).unwrap().map(Result::unwrap).collect();
        assert_eq!(pairs.len(), count.pairs);
        assert!(pairs.iter().all(|pair| pair.starts_with("def ")));
    }
}
