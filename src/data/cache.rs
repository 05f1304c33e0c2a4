//! Results that cost time, kept by the hash of what they were computed from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::Result;

/// A file of results, each under the hash of its input. Removing the file costs time, never a result.
#[derive(Debug)]
pub struct Cache<T> {
    path: PathBuf,
    entries: BTreeMap<String, T>,
    changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Entry<T> {
    key: String,
    value: T,
}

impl<T: Serialize + DeserializeOwned> Cache<T> {
    /// Opens a cache. A file that is missing or cannot be read is an empty cache: it is only a shortcut.
    pub fn open(path: &Path) -> Self {
        let rows: Vec<Entry<T>> = artifact::read_jsonl(path).unwrap_or_default();
        let entries = rows.into_iter().map(|entry| (entry.key, entry.value)).collect();
        Self { path: path.to_path_buf(), entries, changed: false }
    }

    /// The result for `key`.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.entries.get(key)
    }

    /// Keeps a result.
    pub fn insert(&mut self, key: String, value: T) {
        self.changed = true;
        self.entries.insert(key, value);
    }

    /// Writes the file when something is new.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn save(&mut self) -> Result<()> {
        if self.changed {
            artifact::write_jsonl(&self.path, self.entries.iter().map(|(key, value)| Pair { key, value }))?;
            self.changed = false;
        }
        Ok(())
    }
}

/// An [`Entry`] that is written without a copy.
#[derive(Serialize)]
struct Pair<'a, T> {
    key: &'a str,
    value: &'a T,
}
