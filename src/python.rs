//! The Python interpreter the project uses, found once.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// Oldest version that runs what datasets and models write.
const OLDEST: (u32, u32) = (3, 9);

/// The real executable behind `python3` (a version manager's shim costs 50 ms a start), or `CODELORA_PYTHON`.
///
/// # Errors
/// [`Error::Invalid`] when there is no Python ≥ 3.9.
pub fn interpreter() -> Result<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(find).clone().ok_or_else(|| {
        Error::invalid(
            format!("no Python {}.{} or newer answers to `python3`", OLDEST.0, OLDEST.1),
            "install python3, or name one in the environment variable CODELORA_PYTHON",
        )
    })
}

fn find() -> Option<PathBuf> {
    let command = std::env::var_os("CODELORA_PYTHON").unwrap_or_else(|| "python3".into());
    let script = "import os, sys; print(*sys.version_info[:2], os.path.realpath(sys.executable))";
    let output = Command::new(command).args(["-I", "-c", script]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut words = text.trim().splitn(3, ' ');
    let version = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let path = words.next()?;
    (version >= OLDEST).then(|| PathBuf::from(path))
}
