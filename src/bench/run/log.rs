//! The log of attempts: appended line by line while a run goes on, written in order when it ends.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::artifact;
use crate::bench::run::Attempt;
use crate::data::task::Task;
use crate::error::{Error, Result};

/// Attempts made so far, in memory and, if wanted, in a file.
#[derive(Debug)]
pub struct AttemptLog {
    attempts: BTreeMap<(String, usize), Attempt>,
    file: Option<(PathBuf, File)>,
}

impl AttemptLog {
    /// A log that is not kept.
    pub fn in_memory() -> Self {
        Self { attempts: BTreeMap::new(), file: None }
    }

    /// Opens or begins the log at `path`. Beside it, `<path>.stamp` says what the attempts were made with: a log with
    /// another stamp is an error.
    ///
    /// The last line may be torn, when the program died while writing it; it is dropped.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] with the line of any other fault; [`Error::Mismatch`] when the log was made with
    /// something else.
    pub fn open(path: &Path, stamp: &str) -> Result<Self> {
        let stamp_file = path.with_extension("jsonl.stamp");
        if path.exists() {
            let found = fs::read_to_string(&stamp_file).unwrap_or_default();
            if found.trim() != stamp {
                return Err(Error::Mismatch {
                    what: format!("what the attempts in {} were made with", path.display()),
                    expected: stamp.into(),
                    found: if found.is_empty() { "no stamp".into() } else { found.trim().into() },
                    remedy: "use --force to measure again".into(),
                });
            }
        } else {
            artifact::write_atomic(&stamp_file, |writer| writeln!(writer, "{stamp}"))?;
        }
        let text = if path.exists() { fs::read(path).map_err(Error::io("read", path))? } else { Vec::new() };
        // What follows the last newline was never finished, and may end within a letter.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut attempts = BTreeMap::new();
        let lines = text[..whole].split(|byte| *byte == b'\n');
        for (number, line) in (1..).zip(lines).filter(|(_, line)| !line.is_empty()) {
            let attempt: Attempt = serde_json::from_slice(line)
                .map_err(|e| Error::malformed(path, number, e.to_string(), "remove the line or use --force"))?;
            attempts.insert((attempt.task.clone(), attempt.sample), attempt);
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("write", path))?;
        file.set_len(whole as u64).map_err(Error::io("write", path))?;
        Ok(Self { attempts, file: Some((path.to_path_buf(), file)) })
    }

    /// Removes a log and its stamp.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(path: &Path) -> Result<()> {
        for file in [path.to_path_buf(), path.with_extension("jsonl.stamp")] {
            artifact::remove(&file)?;
        }
        Ok(())
    }

    /// Whether this attempt was made.
    pub fn holds(&self, task: &str, sample: usize) -> bool {
        self.attempts.contains_key(&(task.to_string(), sample))
    }

    /// Adds an attempt, to the file too.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn push(&mut self, attempt: Attempt) -> Result<()> {
        if let Some((path, file)) = &mut self.file {
            let mut line = serde_json::to_vec(&attempt)
                .map_err(|e| Error::invalid(format!("an attempt cannot be written: {e}"), "report this"))?;
            line.push(b'\n');
            // One call, so that only the last line can ever be torn.
            file.write_all(&line).map_err(Error::io("write", path.as_path()))?;
        }
        self.attempts.insert((attempt.task.clone(), attempt.sample), attempt);
        Ok(())
    }

    /// All attempts by task and sample, and the file rewritten in that order.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Invalid`] when an attempt is missing.
    pub(super) fn finish(mut self, tasks: &[Task], samples: usize) -> Result<Vec<Attempt>> {
        let mut ordered = Vec::with_capacity(tasks.len() * samples);
        for task in tasks {
            for sample in 0..samples {
                ordered.extend(self.attempts.remove(&(task.id.clone(), sample)));
            }
        }
        if ordered.len() != tasks.len() * samples {
            let what = format!("{} attempts of {} tasks with {samples} samples", ordered.len(), tasks.len());
            return Err(Error::invalid(what, "give every task an id of its own"));
        }
        if let Some((path, _)) = &self.file {
            artifact::write_jsonl(path, &ordered)?;
        }
        Ok(ordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::collapse::shape;
    use crate::generate::Finish;
    use crate::sandbox::Outcome;

    fn attempt(task: &str, sample: usize) -> Attempt {
        Attempt {
            task: task.into(),
            sample,
            completion: "    return \"\\n\"\n".into(),
            body: "    return \"\\n\"\n".into(),
            tokens: 5,
            finish: Finish::Limit,
            log_likelihood: -1.5,
            outcome: Outcome::Exception("KeyError".into()),
            message: "é".into(),
            tests_passed: 1,
            tests: 3,
            seconds: 0.25,
            shape: shape("", ""),
        }
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_the_rest_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempts.jsonl");
        let mut log = AttemptLog::open(&path, "s").unwrap();
        log.push(attempt("b", 0)).unwrap();
        log.push(attempt("a", 1)).unwrap();
        drop(log);
        let whole = fs::read(&path).unwrap();
        // Torn at every byte, also within the two of its `é`.
        for end in 0..whole.len() / 2 - 1 {
            fs::write(&path, [whole.as_slice(), &whole[..end]].concat()).unwrap();
            AttemptLog::open(&path, "s").unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        let mut log = AttemptLog::open(&path, "s").unwrap();
        assert!(log.holds("b", 0) && log.holds("a", 1) && !log.holds("a", 0));
        log.push(attempt("a", 0)).unwrap();
        drop(log);
        assert_eq!(artifact::read_jsonl::<Attempt>(&path).unwrap()[2], attempt("a", 0));
    }

    #[test]
    fn another_stamp_or_a_broken_line_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempts.jsonl");
        AttemptLog::open(&path, "s").unwrap().push(attempt("a", 0)).unwrap();
        let error = AttemptLog::open(&path, "t").unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        fs::write(&path, "{}\n").unwrap();
        let error = AttemptLog::open(&path, "s").unwrap_err().to_string();
        assert!(error.contains(":1: "), "{error}");
        AttemptLog::remove(&path).unwrap();
        assert!(AttemptLog::open(&path, "t").is_ok());
    }
}
