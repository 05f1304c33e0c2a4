//! One error for the whole crate. Each message names the place (file, line), the fault and the remedy.
//!
//! A model's failure is not an error: it is an [`Outcome`](crate::sandbox::Outcome).

use std::path::{Path, PathBuf};

/// Everything that can stop a phase.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read, written or created.
    #[error("cannot {action} {}: {source}\n  remedy: {}", path.display(), remedy(action, source))]
    Io {
        /// What was tried: "read", "write", "create", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file was read but says something it must not.
    #[error("{}{}: {what}\n  remedy: {remedy}", path.display(), line.map(|l| format!(":{l}")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where one can be named.
        line: Option<usize>,
        /// What is wrong there.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// Two things that must agree do not: a digest, a vocabulary, a shape.
    #[error("{what}: expected {expected}, found {found}\n  remedy: {remedy}")]
    Mismatch {
        /// What was compared.
        what: String,
        /// The value it must have.
        expected: String,
        /// The value it has.
        found: String,
        /// What to do about it.
        remedy: String,
    },
    /// A request that cannot be met: a missing input, an impossible setting, a protection that is absent.
    #[error("{what}\n  remedy: {remedy}")]
    Invalid {
        /// What is wrong.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The loss stopped being a number.
    #[error("the loss became {loss} at step {step}; the last good checkpoint is {}\n  remedy: lower the learning rate or the gradient clip, then resume", checkpoint.display())]
    Diverged {
        /// The step, counted from 1.
        step: usize,
        /// The loss in nats per token.
        loss: f64,
        /// Where the last finite state lies.
        checkpoint: PathBuf,
    },
    /// The user asked to stop (Ctrl-C); the state is on disk.
    #[error("stopped on request; continue with --resume from {}", checkpoint.display())]
    Interrupted {
        /// Where the state lies.
        checkpoint: PathBuf,
    },
    /// The tensor library refused.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The table library refused.
    #[error("table operation failed: {0}")]
    Table(#[from] polars::error::PolarsError),
    /// A figure could not be drawn.
    #[error("figure {name} could not be drawn: {what}")]
    Figure {
        /// The figure's file stem.
        name: String,
        /// The drawing library's answer.
        what: String,
    },
}

/// What to do about a refusal of the system.
fn remedy(action: &str, refusal: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match refusal.kind() {
        ErrorKind::NotFound if action == "start" => "install it, or add its folder to PATH",
        ErrorKind::NotFound | ErrorKind::NotADirectory => "check the path",
        ErrorKind::IsADirectory => "name a file, not a folder",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "choose another place, or allow this one",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room and run again",
        _ => "see what the system says, and run again",
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`], for use in `map_err`: `fs::read(p).map_err(Error::io("read", p))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// An [`Error::Malformed`] at a line of a file.
    pub fn malformed(
        path: impl AsRef<Path>,
        line: impl Into<Option<usize>>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let path = path.as_ref().to_path_buf();
        Self::Malformed { path, line: line.into(), what: what.into(), remedy: remedy.into() }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), remedy: remedy.into() }
    }
}
