//! Training as a process of its own: a cell that is stopped, or a kernel that is restarted, never takes the run with it.
//!
//! The child is this program's `train` verb. It writes what every run writes, so that anybody can follow it by its
//! files. Its log stays locked as long as it lives, and the run's folder as long as anybody trains there: that is how others know.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::artifact;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::phases::training::{self, Training};
use crate::train::metrics::EvaluationRow;

/// A training run that goes on elsewhere, or has ended: where its files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Background {
    /// The experiment's name.
    pub name: String,
    /// The project's root.
    pub root: PathBuf,
    /// The run's folder, with `metrics.jsonl` and `evaluations.jsonl`.
    pub folder: PathBuf,
    /// What the child prints.
    pub log: PathBuf,
    /// Locked while a process trains there.
    pub lock: PathBuf,
    /// Steps that the run will have.
    pub steps: usize,
}

/// Starts `codelora train` on the experiment's file, unless a run of it is going on or has ended already. Returns at once.
///
/// # Errors
/// As [`start_with`]; [`Error::Invalid`] when the program is not found.
pub fn start(exp: &Experiment) -> Result<Background> {
    if is_done(exp) { Ok(of(exp)) } else { start_with(exp, &program()?) }
}

fn is_done(exp: &Experiment) -> bool {
    exp.record_file("training").is_file() && !exp.force
}

fn of(exp: &Experiment) -> Background {
    Background {
        name: exp.config.name.clone(),
        root: exp.root.clone(),
        folder: exp.run_file("training"),
        log: exp.run_file("training.log"),
        lock: training::lock_file(exp),
        steps: exp.config.train.optimizer.steps,
    }
}

/// As [`start`], with the codelora program at `program`.
///
/// # Errors
/// [`Error::Invalid`] when the experiment was changed after it was opened: the child reads the file; [`Error::Io`].
pub fn start_with(exp: &Experiment, program: &Path) -> Result<Background> {
    let run = of(exp);
    if is_done(exp) {
        return Ok(run);
    }
    let file = Experiment::open(&exp.file)?;
    if serde_json::to_value(&file.config).ok() != serde_json::to_value(&exp.config).ok() {
        return Err(Error::invalid(
            format!("the experiment differs from {}, and a process of its own reads that file", exp.file.display()),
            "save the change in an experiment file and open that, or call phases::training::run, which trains here",
        ));
    }
    fs::create_dir_all(exp.run_file("")).map_err(Error::io("create", exp.run_file("")))?;
    // The lock first, the rest after: another kernel's run must not lose its log.
    let open = File::options().create(true).append(true).open(&run.log);
    let log = open.map_err(Error::io("open", &run.log))?;
    if log.try_lock().is_err() || run.is_training() {
        return Ok(run);
    }
    log.set_len(0).map_err(Error::io("clear", &run.log))?;
    let errors = log.try_clone().map_err(Error::io("open", &run.log))?;
    let mut child = Command::new(program);
    child.args(["train", "--experiment"]).arg(&exp.file).arg("--external").arg(&exp.external);
    if exp.force {
        child.arg("--force");
    }
    child.stdin(Stdio::null()).stdout(log).stderr(errors);
    // In a group of its own, so that neither Ctrl-C nor the end of a kernel reaches it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut child, 0);
    child.spawn().map_err(Error::io("start", child.get_program()))?;
    Ok(run)
}

/// The program that the workshop was started with; its kernels carry the path.
fn program() -> Result<PathBuf> {
    let named = std::env::var_os("CODELORA_PROGRAM").map(PathBuf::from);
    let own = std::env::current_exe().ok().filter(|path| path.file_stem().is_some_and(|stem| stem == "codelora"));
    named.or(own).filter(|path| path.is_file()).ok_or_else(|| {
        Error::invalid(
            "the codelora program is not where this kernel looks for it",
            "start Jupyter with `codelora lab`, or run `codelora train` in a terminal and reopen the run here",
        )
    })
}

impl Background {
    /// Whether the run goes on at this moment, whoever started it.
    pub fn is_running(&self) -> bool {
        is_locked(&self.log) || self.is_training()
    }

    /// Whether a process takes steps in the run's folder: this program's child, or one of a terminal.
    fn is_training(&self) -> bool {
        is_locked(&self.lock)
    }

    /// The evaluations so far.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Malformed`].
    pub fn evaluations(&self) -> Result<Vec<EvaluationRow>> {
        let file = self.folder.join("evaluations.jsonl");
        if file.is_file() { artifact::read_jsonl(&file) } else { Ok(Vec::new()) }
    }

    /// The last lines that the run printed.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Waits for the run with one printed line at each evaluation, and opens what it left. When the waiting is interrupted,
/// the run goes on.
///
/// # Errors
/// [`Error::Invalid`] with the last lines of the log when the run ended without a result; those of [`training::run`].
pub fn wait(exp: &Experiment, run: &Background) -> Result<Training> {
    let (begun, mut shown) = (Instant::now(), run.evaluations().map_or(0, |rows| rows.len()));
    let mut first: Option<(usize, Duration)> = None;
    while run.is_running() {
        std::thread::sleep(Duration::from_millis(500));
        // A row may be half written; the next look finds it whole.
        let rows = run.evaluations().unwrap_or_default();
        for row in rows.iter().skip(shown) {
            let (step, now) = (row.step, begun.elapsed());
            println!(
                "{}{}",
                line(row, run.steps, now),
                left(*first.get_or_insert((step, now)), (step, now), run.steps)
            );
        }
        shown = shown.max(rows.len());
    }
    if !exp.record_file("training").is_file() {
        let what = format!("the run ended without a result; its last lines:\n{}", run.log_tail(6));
        return Err(Error::invalid(what, format!("read {}, mend the cause, and run this cell again", shown_path(run))));
    }
    training::run(&exp.clone().forced(false))
}

fn is_locked(file: &Path) -> bool {
    File::open(file).is_ok_and(|file| file.try_lock_shared().is_err())
}

fn shown_path(run: &Background) -> String {
    let relative: &Path = run.log.strip_prefix(&run.root).unwrap_or(&run.log);
    relative.display().to_string()
}

/// What remains of `steps`, by the pace between two evaluations; nothing where there is no pace yet, or nothing remains.
fn left(first: (usize, Duration), now: (usize, Duration), steps: usize) -> String {
    let (done, remaining) = (now.0.saturating_sub(first.0), steps.saturating_sub(now.0));
    if done == 0 || remaining == 0 {
        return String::new();
    }
    let seconds = (now.1 - first.1).as_secs_f64() / done as f64 * remaining as f64;
    if seconds < 90.0 {
        format!("  about {seconds:.0} s left")
    } else {
        format!("  about {:.0} min left", seconds / 60.0)
    }
}

fn line(row: &EvaluationRow, steps: usize, elapsed: Duration) -> String {
    let wrote = row.generated.as_ref().map_or(String::new(), |check| {
        format!("  passed {:.0} %  parses {:.0} %", 100.0 * check.pass_rate, 100.0 * check.syntax_valid_rate)
    });
    let (train, validation) = (row.train_loss, row.validation_loss);
    let seconds = elapsed.as_secs();
    format!(
        "step {}/{steps} after {seconds} s  train {train:.3}  validation {validation:.3} nats/token{wrote}",
        row.step
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_the_pace_since_the_first_evaluation_seen() {
        let at = |step: usize, seconds: u64| (step, Duration::from_secs(seconds));
        assert_eq!(left(at(0, 4), at(0, 4), 200), "");
        assert_eq!(left(at(0, 4), at(50, 34), 200), "  about 2 min left");
        assert_eq!(left(at(50, 0), at(150, 60), 200), "  about 30 s left");
        assert_eq!(left(at(0, 4), at(200, 124), 200), "");
    }
}
