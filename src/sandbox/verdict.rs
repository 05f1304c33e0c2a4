//! From the words of the Python side to an [`Outcome`], and the secret that makes "passed" believable.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;

use super::zygote::{Report, Verdict};
use super::{Execution, Outcome};
use crate::error::{Error, Result};

/// Sixteen bytes from the system: a secret, so it must not follow from the experiment's seed.
pub fn nonce() -> Result<String> {
    let source = "/dev/urandom";
    let mut bytes = [0; 16];
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).map_err(Error::io("read", source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Puts the parent's report and the judge's verdict together.
pub fn judge(report: &Report, verdict: Option<Verdict>, nonce: &str) -> Execution {
    let seconds = report.seconds;
    let tests_passed = verdict.as_ref().map_or(0, |verdict| verdict.passed);
    let of = |outcome, message: String| Execution { outcome, message, tests_passed, seconds };
    if report.late {
        return of(Outcome::TimedOut, format!("stopped after {seconds:.1} s"));
    }
    let Some(verdict) = verdict else {
        return of(signalled(report.judge), "the tests' process ended early".into());
    };
    match verdict.kind.as_str() {
        "passed" if verdict.nonce == nonce => of(Outcome::Passed, String::new()),
        "syntax" => of(Outcome::SyntaxError, verdict.message),
        "failed" if verdict.assertion => of(Outcome::WrongAnswer, verdict.message),
        "failed" => of(raised(verdict.class), verdict.message),
        _ => of(report.program.map_or_else(|| Outcome::Exception("SystemExit".into()), signalled), verdict.message),
    }
}

fn raised(class: String) -> Outcome {
    match class.as_str() {
        "NameError" => Outcome::NameError,
        "MemoryError" => Outcome::OutOfMemory,
        _ => Outcome::Exception(class),
    }
}

/// The outcome of a process that ended by itself, from its wait status.
fn signalled(status: i32) -> Outcome {
    match std::process::ExitStatus::from_raw(status).signal() {
        None => Outcome::Exception("SystemExit".into()),
        // Nobody here sent it: the kernel ran out of memory.
        Some(libc::SIGKILL) => Outcome::OutOfMemory,
        Some(libc::SIGXCPU) => Outcome::TimedOut,
        Some(libc::SIGSEGV) => Outcome::Exception("SIGSEGV".into()),
        Some(libc::SIGABRT) => Outcome::Exception("SIGABRT".into()),
        Some(number) => Outcome::Exception(format!("signal {number}")),
    }
}
