//! Files that phases leave behind: written whole or not at all, read with the line of every fault.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Writes a file through a temporary neighbour and a rename, creating its folder: nothing is ever half-written.
///
/// # Errors
/// [`Error::Io`] when the folder or the file cannot be written, and whatever `fill` returns.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(Error::io("write", path))?;
    let mut writer = BufWriter::new(temporary);
    fill(&mut writer).and_then(|()| writer.flush()).map_err(Error::io("write", path))?;
    let temporary = writer.into_inner().map_err(|e| Error::io("write", path)(e.into_error()))?;
    // A temporary file is private to its owner; an artifact has the modes of any other file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let modes = fs::Permissions::from_mode(0o644);
        temporary.as_file().set_permissions(modes).map_err(Error::io("write", path))?;
    }
    temporary.persist(path).map_err(|e| Error::io("write", path)(e.error))?;
    Ok(())
}

/// Writes rows as JSON Lines, atomically.
///
/// # Errors
/// [`Error::Io`].
pub fn write_jsonl<T: Serialize>(path: &Path, rows: impl IntoIterator<Item = T>) -> Result<()> {
    write_atomic(path, |writer| {
        for row in rows {
            serde_json::to_writer(&mut *writer, &row)?;
            writer.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Writes one value as indented JSON, atomically.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_atomic(path, |writer| {
        serde_json::to_writer_pretty(&mut *writer, value)?;
        writer.write_all(b"\n")
    })
}

/// Removes a file, where there is one.
///
/// # Errors
/// [`Error::Io`].
pub fn remove(path: &Path) -> Result<()> {
    if path.exists() { fs::remove_file(path).map_err(Error::io("remove", path)) } else { Ok(()) }
}

/// Reads one JSON value.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] with the line of the fault.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::malformed(path, e.line(), e.to_string(), "correct the JSON or restore the file"))
}

/// Reads JSON Lines; empty lines are skipped.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] with the line of the first fault.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut rows = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io("read", path))?;
        if !line.trim().is_empty() {
            let row = serde_json::from_str(&line)
                .map_err(|e| Error::malformed(path, number + 1, e.to_string(), "correct the row or remove the line"))?;
            rows.push(row);
        }
    }
    Ok(rows)
}
