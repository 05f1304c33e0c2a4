//! Runs untrusted Python and says what became of it.
//!
//! # How
//! One Python process per worker, the parent, builds the walls once and then forks two processes a program:
//!
//! - the **program** runs the untrusted code and answers calls;
//! - the **judge** runs the setup and the tests. A function of the code is to it a reference: calling one sends the
//!   arguments over a pipe and gets a value back, rebuilt by trusted code from plain data (`python/wire.py`).
//!
//! The judge alone knows the tests and a secret number, the nonce, and gives it away after the last test; [`Outcome::Passed`]
//! needs it. The parent never reads them, so no later program inherits them in its memory.
//!
//! # What is covered
//! - *False verdicts.* The code shares no memory, frames, files or descriptors with the tests. Exiting, printing,
//!   redefined built-ins, `ctypes`, `gc`, `atexit` and forged messages can change only what its own functions return.
//!   An object that claims to equal everything equals nothing: objects of the code's classes are equal only to themselves.
//! - *Files.* Only Python's standard library and the system's shared libraries can be read, only a scratch folder
//!   written, emptied after each program: by a mount namespace (own, or bubblewrap's) and by Landlock, each alone enough.
//! - *Network.* By seccomp and by a network namespace, each alone enough.
//! - *Processes and signals.* By seccomp: a program is one thread of one process, and can signal nobody.
//! - *Resources.* Wall time, CPU time, address space, file size, open files, size of a message; in namespaces also the
//!   scratch folder's size and number of files. Printed output is thrown away.
//! - *Traces.* Empty environment, no capabilities, no new privileges, all processes killed at the end.
//!
//! When no layer in force covers files, network or processes, [`Sandbox::new`] refuses.
//!
//! # What is not
//! - Names that the tests take from the code other than the function under test (helpers of a prompt) are the code's to
//!   redefine, except built-ins and modules. A test's helper belongs in [`Program::setup`].
//! - A function can tell its calls apart and answer known arguments from a table; so could it anywhere.
//! - Programs that need threads or processes fail, and so does a test that compares two objects of the code's own
//!   classes with `==`, or relies on what a call did to anything but its own arguments and the code's globals.
//! - The setup's names are not visible to the code.
//! - Without namespaces the scratch folder's total size is bounded by time alone, and the existence, size and times of
//!   other files can be asked for, though not their contents.
//! - Faults of the kernel, and channels such as timing.
//! - Systems other than Linux have limits and separate processes only.

mod plan;
mod verdict;
#[cfg(target_os = "linux")]
mod walls;
mod zygote;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::plan::Layer;
use self::plan::Plan;
use self::zygote::Zygote;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// A program and the tests it must pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Untrusted code.
    pub code: String,
    /// Trusted Python that runs after the code and before the tests.
    pub setup: String,
    /// Trusted statements that raise unless the code is right; run in order.
    pub tests: Vec<String>,
}

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "detail")]
pub enum Outcome {
    /// Every test held, proven by the nonce.
    Passed,
    /// An assertion of a test failed.
    WrongAnswer,
    /// Another exception, by its class name.
    Exception(String),
    /// A name that does not exist.
    NameError,
    /// The code does not compile.
    SyntaxError,
    /// The completion holds no statement.
    Empty,
    /// The completion repeats itself or is white space.
    Collapsed,
    /// The wall or CPU limit was reached.
    TimedOut,
    /// The memory limit was reached.
    OutOfMemory,
}

/// Limits of one program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Wall-clock time.
    pub wall: Duration,
    /// Address space, in bytes.
    pub memory: u64,
    /// Largest message between the code and its tests, in bytes: a function cannot return more. What a program prints is
    /// thrown away.
    pub output: usize,
    /// Largest file, in bytes.
    pub file: u64,
    /// Open files.
    pub open_files: u64,
}

impl Limits {
    /// `seconds` of wall-clock time and the defaults for the rest: 512 MiB of address space, messages of 4 MiB, files of
    /// 16 MiB, 32 open files.
    pub fn seconds(seconds: f64) -> Self {
        let wall = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
        Self { wall, memory: 512 << 20, output: 4 << 20, file: 16 << 20, open_files: 32 }
    }
}

impl Default for Limits {
    /// Five seconds; see [`Limits::seconds`].
    fn default() -> Self {
        Self::seconds(5.0)
    }
}

/// What one program did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// The verdict.
    pub outcome: Outcome,
    /// Message of the exception, or the failing test; empty when passed.
    pub message: String,
    /// Tests that held before the first failure.
    pub tests_passed: usize,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// A layer of protection and whether this system has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// E.g. `landlock`, `seccomp`, `rlimits`.
    pub name: String,
    /// Why it is missing, or `None` when it is in force.
    pub missing: Option<String>,
}

/// Runs programs, each in a process of its own. Clones share their Python processes.
#[derive(Debug, Clone)]
pub struct Sandbox {
    limits: Limits,
    plan: Arc<Plan>,
    idle: Arc<Mutex<Vec<Zygote>>>,
    tickets: Arc<AtomicU64>,
}

impl Sandbox {
    /// Prepares to run programs under `limits`, behind every layer of protection that this machine has.
    ///
    /// # Errors
    /// When Python is missing, or when nothing on this machine keeps off a whole kind of harm (files, network,
    /// processes) and the environment variable `CODELORA_ALLOW_UNPROTECTED` is not `1`.
    pub fn new(limits: Limits) -> Result<Self> {
        Self::without(limits, &[])
    }

    /// As [`Sandbox::new`] with some layers left out: to show that the others hold alone, or where one is broken.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn without(limits: Limits, layers: &[Layer]) -> Result<Self> {
        if limits.wall.is_zero() {
            return Err(Error::invalid("a program's time limit is zero", "give it a positive number of seconds"));
        }
        let (plan, first) = Plan::find(&limits, layers)?;
        let gaps = plan.gaps();
        if !gaps.is_empty() && std::env::var_os("CODELORA_ALLOW_UNPROTECTED").is_none_or(|value| value != "1") {
            let missing = plan.missing.iter().map(|(layer, reason)| format!("{layer:?}: {reason}"));
            return Err(Error::invalid(
                format!(
                    "nothing here keeps untrusted programs from {} ({})",
                    gaps.join(", nor from "),
                    missing.collect::<Vec<_>>().join("; ")
                ),
                "run on Linux with seccomp and Landlock or user namespaces, or, in a machine made to be thrown away, \
                 set CODELORA_ALLOW_UNPROTECTED=1",
            ));
        }
        let idle = Arc::new(Mutex::new(vec![first]));
        Ok(Self { limits, plan: Arc::new(plan), idle, tickets: Arc::default() })
    }

    /// The limits of every program.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The layers of protection, present or missing.
    pub fn protections(&self) -> Vec<Protection> {
        self.plan.protections()
    }

    /// Runs one program.
    ///
    /// # Errors
    /// When the machine fails, never because of what the program does.
    pub fn run(&self, program: &Program) -> Result<Execution> {
        let start = Instant::now();
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let nonce = verdict::nonce()?;
        let mut zygote = match self.lock().pop() {
            Some(zygote) => zygote,
            None => Zygote::start(&self.plan, &self.limits)?,
        };
        Ok(match zygote.run(program, ticket, &nonce) {
            Ok((report, told)) => {
                if report.read {
                    self.lock().push(zygote);
                }
                verdict::judge(&report, told, &nonce)
            }
            // The parent is dead or stuck, whatever the program did to it; dropping it kills all that is left.
            Err(_) if start.elapsed() >= self.limits.wall => {
                Execution::ended(Outcome::TimedOut, "the program had to be stopped from outside", &start)
            }
            Err(_) => Execution::ended(Outcome::OutOfMemory, "the program's parent process died", &start),
        })
    }

    /// Runs many programs on all cores and keeps their order.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub fn run_all(&self, programs: &[Program], progress: &Progress) -> Result<Vec<Execution>> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(programs.len());
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Execution)>> {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(program) = programs.get(index) else { return Ok(done) };
                let execution = self.run(program).inspect_err(|_| next.store(programs.len(), Ordering::Relaxed))?;
                done.push((index, execution));
                progress.add(1);
            }
        };
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::invalid("a thread of the sandbox failed", "report this as a fault")))
            });
            joined.collect::<Result<Vec<_>>>()
        })?;
        let mut executions: Vec<_> = results.into_iter().flatten().collect();
        executions.sort_by_key(|(index, _)| *index);
        Ok(executions.into_iter().map(|(_, execution)| execution).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Zygote>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Execution {
    fn ended(outcome: Outcome, message: &str, start: &Instant) -> Self {
        Self { outcome, message: message.into(), tests_passed: 0, seconds: start.elapsed().as_secs_f64() }
    }
}
