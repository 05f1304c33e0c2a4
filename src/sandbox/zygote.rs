//! A Python process that forks a fresh pair of processes per program, seen from Rust.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::plan::Plan;
use super::{Limits, Program};
use crate::error::{Error, Result};

/// The Python side, one script of five parts.
const SCRIPT: &str = concat!(
    include_str!("python/wire.py"),
    include_str!("python/confine.py"),
    include_str!("python/program.py"),
    include_str!("python/judge.py"),
    include_str!("python/zygote.py"),
);

/// How long the Python side may take beyond a program's limit before it is taken for dead.
const GRACE: Duration = Duration::from_millis(700);

/// How long a start may take; a loaded machine needs some of it.
const START: Duration = Duration::from_secs(60);

/// A running parent of programs. Dropping it ends it and everything it started.
#[derive(Debug)]
pub struct Zygote {
    child: Child,
    channel: UnixStream,
    verdicts: UnixDatagram,
    /// The scratch folder, where it lies on the machine's own disk.
    scratch: Option<tempfile::TempDir>,
    /// Protections that failed, with the reason.
    pub missing: BTreeMap<String, String>,
}

/// What the parent says of one program.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// The wall limit was reached.
    pub late: bool,
    /// The judge took the request off the channel; if not, this parent ends itself.
    pub read: bool,
    /// Wait status of the judge's process.
    pub judge: i32,
    /// Wait status of the program's process; `None` when it had to be killed, as is usual.
    pub program: Option<i32>,
    /// Wall time.
    pub seconds: f64,
}

/// What the judge says of one program.
#[derive(Debug, Deserialize)]
pub struct Verdict {
    /// The request's number.
    pub ticket: u64,
    /// `passed`, `failed`, `syntax` or `gone`.
    pub kind: String,
    /// Tests that held.
    pub passed: usize,
    /// Class of the exception.
    #[serde(default)]
    pub class: String,
    /// Whether it was the assertion of a test.
    #[serde(default)]
    pub assertion: bool,
    /// What to tell a person.
    pub message: String,
    /// The secret, when every test held.
    #[serde(default)]
    pub nonce: String,
}

#[derive(Serialize)]
struct Request<'a> {
    ticket: u64,
    nonce: &'a str,
    #[serde(flatten)]
    program: &'a Program,
}

impl Zygote {
    /// Starts a parent with the layers of `plan`.
    pub fn start(plan: &Plan, limits: &Limits) -> Result<Self> {
        let fault = |error: std::io::Error| {
            Error::invalid(format!("the sandbox could not be started: {error}"), "check that python3 runs here")
        };
        // Behind a mount namespace this folder only carries the new root for a moment; else the programs write in it.
        let scratch = tempfile::Builder::new().prefix("codelora-sandbox-").tempdir().map_err(fault)?;
        let (channel, theirs) = UnixStream::pair().map_err(fault)?;
        let (verdicts, told) = UnixDatagram::pair().map_err(fault)?;
        let output = theirs.try_clone().map_err(fault)?;
        let child = plan
            .command(limits)
            .args(["-s", "-S", "-B", "-c", SCRIPT])
            .env_clear()
            // String hashes decide the order of sets: with a fixed seed a verdict can be repeated.
            .env("PYTHONHASHSEED", "0")
            .env("PYTHONIOENCODING", "utf-8")
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(output)))
            .stderr(Stdio::from(OwnedFd::from(told)))
            .process_group(0)
            .spawn()
            .map_err(fault)?;
        let missing = BTreeMap::new();
        let place = plan.scratch().unwrap_or_else(|| scratch.path().to_path_buf());
        let mut zygote = Self { child, channel, verdicts, scratch: Some(scratch), missing };
        zygote.verdicts.set_nonblocking(true).map_err(fault)?;
        zygote.channel.set_read_timeout(Some(START)).map_err(fault)?;
        zygote.channel.set_write_timeout(Some(START)).map_err(fault)?;
        let config = json!({
            "linux": cfg!(target_os = "linux"),
            "namespaces": plan.unshare,
            "landlock": plan.landlock_descriptor(),
            "filter": plan.filter_hex(),
            "pivot_root": plan.pivot_root(),
            "readable": plan.readable,
            "scratch": place,
            "wall": limits.wall.as_secs_f64(),
            "memory": limits.memory,
            "output": limits.output,
            "file": limits.file,
            "open_files": limits.open_files,
        });
        let hello = zygote.send(config.to_string().as_bytes()).and_then(|()| zygote.line());
        let hello = hello.map_err(|error| {
            let trace = zygote.datagrams().concat();
            let what = format!("the sandbox could not be started: {error}: {}", String::from_utf8_lossy(&trace));
            Error::invalid(what, "check that python3 runs here and has the ctypes module")
        })?;
        #[derive(Deserialize)]
        struct Hello {
            missing: BTreeMap<String, String>,
        }
        let hello: Hello = serde_json::from_str(&hello).map_err(|error| fault(error.into()))?;
        zygote.missing = hello.missing;
        if plan.unshare || plan.scratch().is_some() {
            // From here on the folder is in memory, inside the namespace, and goes with it.
            zygote.scratch = None;
        }
        let patience = limits.wall + GRACE;
        zygote.channel.set_read_timeout(Some(patience)).map_err(fault)?;
        Ok(zygote)
    }

    /// Runs one program. An I/O error means that this parent is dead or stuck and must be dropped.
    pub fn run(&mut self, program: &Program, ticket: u64, nonce: &str) -> std::io::Result<(Report, Option<Verdict>)> {
        self.datagrams();
        let request = serde_json::to_vec(&Request { ticket, nonce, program })?;
        self.channel.write_all(b"g")?;
        self.send(&request)?;
        let report: Report = serde_json::from_str(&self.line()?)?;
        let mut parsed = self.datagrams().into_iter().filter_map(|data| serde_json::from_slice::<Verdict>(&data).ok());
        let verdict = parsed.rfind(|verdict| verdict.ticket == ticket);
        Ok((report, verdict))
    }

    fn send(&mut self, data: &[u8]) -> std::io::Result<()> {
        let size = u32::try_from(data.len()).map_err(std::io::Error::other)?;
        self.channel.write_all(&size.to_be_bytes())?;
        self.channel.write_all(data)
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            self.channel.read_exact(&mut byte)?;
            match byte[0] {
                b'\n' => return String::from_utf8(line).map_err(std::io::Error::other),
                other => line.push(other),
            }
        }
    }

    /// Everything waiting on the verdicts' socket.
    fn datagrams(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 64 << 10];
        std::iter::from_fn(|| self.verdicts.recv(&mut buffer).ok().filter(|&n| n > 0).map(|n| buffer[..n].to_vec()))
            .collect()
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let _ = self.channel.shutdown(Shutdown::Both);
        kill_group(&self.child);
        let _ = self.child.wait();
        // Not before: until then something could still write there.
        drop(self.scratch.take());
    }
}

/// Kills the child's process group, which is its own since its start; its children die with it by their death signal.
#[allow(
    unsafe_code,
    reason = "the standard library kills single processes only; the group is our child's and not yet reaped"
)]
fn kill_group(child: &Child) {
    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
}

/// A command that runs `python`, if need be under a wrapper.
pub fn command(words: &[std::ffi::OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}
