//! A sweep: the training phase at every point of a grid, each point a process of its own.
//!
//! A point is a folder under `points/`: `settings.json` says what to run, `log.txt` is what its process printed,
//! `point.json` is there when it has ended. So a sweep that was stopped goes on where it stood, whoever runs its points:
//! this machine or a Slurm cluster.

mod slurm;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::bench::report::EvaluationRecord;
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Phase};
use crate::figures;
use crate::figures::chart::Chart;
use crate::phases::{data_collection, evaluation, training};
use crate::progress::Progress;
use crate::train::sweep::{Failure, Grid, Point, PointResult, SweepRecord};

pub use slurm::{Submitted, submit};

/// Where the points of a sweep are listed, in its folder.
const PLAN: &str = "sweep.json";

/// What they found, likewise.
const RECORD: &str = "record.json";

/// The sweeps of an experiment that have a record: `(name, file)`. A sweep is the experiment's when its folder's name is that
/// of the run and `-sweep` or `-sweep-…`; its name is the part from `sweep` on.
pub fn records(exp: &Experiment) -> Vec<(String, PathBuf)> {
    let run = exp.path(&exp.config.paths.run);
    let prefix = format!("{}-", run.file_name().unwrap_or_default().to_string_lossy());
    let beside = run.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let named = beside.filter_map(|entry| {
        let name = entry.file_name().to_str()?.strip_prefix(&prefix)?.to_string();
        (name == "sweep" || name.starts_with("sweep-")).then(|| (name, entry.path().join(RECORD)))
    });
    let mut found: Vec<_> = named.filter(|(_, file)| file.is_file()).collect();
    found.sort();
    found
}

/// A sweep, planned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sweep {
    /// The experiment file.
    experiment: PathBuf,
    /// Folder with the public datasets.
    external: PathBuf,
    /// Name of the experiment.
    name: String,
    /// Digest of the experiment's sections that a point depends on.
    digest: String,
    /// Whether every point's adapter is measured on the experiment's benchmark.
    #[serde(default)]
    bench: bool,
    /// The points, in the order of the grid.
    points: Vec<Point>,
    /// The sweep's own folder.
    #[serde(skip)]
    folder: PathBuf,
}

/// What a point's process is told.
#[derive(Debug, Serialize, Deserialize)]
struct Settings {
    experiment: PathBuf,
    external: PathBuf,
    digest: String,
    #[serde(default)]
    bench: bool,
    point: Point,
}

/// Digest of what a point depends on: of the benchmark as well when that is measured.
fn digest(exp: &Experiment, bench: bool) -> String {
    exp.digest(if bench { Phase::Evaluation } else { Phase::Training })
}

/// How the points are run.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The program and its first arguments; the folder of a point follows.
    pub command: Vec<String>,
    /// Points at a time.
    pub jobs: usize,
    /// How often a failed point is started again.
    pub retries: usize,
}

/// Plans a sweep in `folder` and collects the samples that all points share. With `bench`, every point's adapter is measured
/// on the experiment's benchmark as well. Points that have ended stay.
///
/// # Errors
/// [`Error::Invalid`] for an impossible grid; [`Error::Mismatch`] when the folder holds a sweep of another experiment
/// (under `force` that one is replaced); those of phase 1.
pub fn plan(exp: &Experiment, grid: &Grid, bench: bool, folder: &Path) -> Result<Sweep> {
    let folder = exp.path(folder);
    let sweep = Sweep {
        experiment: exp.file.clone(),
        external: exp.external.clone(),
        name: exp.config.name.clone(),
        digest: digest(exp, bench),
        bench,
        points: grid.points(exp)?,
        folder: folder.clone(),
    };
    if folder.join(PLAN).is_file() {
        let there = open(&folder)?;
        if exp.force {
            let points = folder.join("points");
            fs::remove_dir_all(&points).map_err(Error::io("remove", &points))?;
        } else if there.digest != sweep.digest {
            return Err(Error::Mismatch {
                what: format!("digest of the experiment behind {}", folder.display()),
                expected: there.digest,
                found: sweep.digest,
                remedy: "use another --output, or --force to sweep anew".into(),
            });
        }
    }
    data_collection::run(&exp.clone().forced(false))?;
    for point in &sweep.points {
        let settings = Settings {
            experiment: sweep.experiment.clone(),
            external: sweep.external.clone(),
            digest: sweep.digest.clone(),
            bench,
            point: point.clone(),
        };
        artifact::write_json(&sweep.point_folder(point).join("settings.json"), &settings)?;
    }
    artifact::write_json(&folder.join(PLAN), &sweep)?;
    Ok(sweep)
}

/// Opens the sweep in `folder`.
///
/// # Errors
/// [`Error::Io`] or [`Error::Malformed`] when there is none.
pub fn open(folder: &Path) -> Result<Sweep> {
    let sweep: Sweep = artifact::read_json(&folder.join(PLAN))?;
    Ok(Sweep { folder: folder.to_path_buf(), ..sweep })
}

/// Runs one point in this process and leaves `point.json` in its folder.
///
/// # Errors
/// [`Error::Mismatch`] when the experiment file was changed since the sweep was planned; those of the training phase.
pub fn run_point(folder: &Path) -> Result<PointResult> {
    let settings: Settings = artifact::read_json(&folder.join("settings.json"))?;
    let exp = Experiment::open(&settings.experiment)?.with_external(&settings.external);
    let digest = digest(&exp, settings.bench);
    if digest != settings.digest {
        return Err(Error::Mismatch {
            what: format!("digest of {}", settings.experiment.display()),
            expected: settings.digest,
            found: digest,
            remedy: "the file was changed since the sweep was planned: plan it again".into(),
        });
    }
    let folder = folder.canonicalize().map_err(Error::io("read", folder))?;
    let exp = settings.point.apply(exp, &folder);
    let training = training::run(&exp)?;
    let measured = settings.bench.then(|| evaluation::adapted_alone(&exp)).transpose()?;
    let benchmark = measured.map(|result| result.pass_at_1.estimate);
    let result = PointResult::new(settings.point, digest, &training.record, benchmark)?;
    artifact::write_json(&folder.join("point.json"), &result)?;
    Ok(result)
}

impl Sweep {
    /// The sweep's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn point_folder(&self, point: &Point) -> PathBuf {
        self.folder.join("points").join(point.name())
    }

    /// The points that have not ended, by their folders.
    pub fn open_points(&self) -> Vec<PathBuf> {
        let folders = self.points.iter().map(|point| self.point_folder(point));
        folders.filter(|folder| !folder.join("point.json").is_file()).collect()
    }

    /// Runs every point that has not ended, on this machine. A point that fails is started again, then left.
    ///
    /// # Errors
    /// [`Error::Io`] when a process cannot be started or its log cannot be written.
    pub fn run(&self, runner: &Runner) -> Result<()> {
        let open = self.open_points();
        let progress = Progress::new(format!("sweep of {}", self.name), self.points.len());
        progress.add(self.points.len() - open.len());
        let queue = Mutex::new(open.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || -> Result<()> {
            while let Some(folder) = next() {
                let ended = attempt(runner, &folder)?;
                let name = folder.file_name().unwrap_or_default().to_string_lossy();
                progress.note(1, format!("{name} {}", if ended { "ended" } else { "FAILED" }));
            }
            Ok(())
        };
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..runner.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
        });
        progress.finish();
        results.into_iter().collect()
    }

    /// Gathers what has ended and what has not, and writes `record.json`, `table.md` and the figure into the sweep's folder.
    ///
    /// # Errors
    /// [`Error::Invalid`] when no point has ended; [`Error::Io`], [`Error::Malformed`]; [`Error::Mismatch`] when a point
    /// belongs to another experiment.
    pub fn report(&self) -> Result<SweepRecord> {
        let (mut results, mut failed) = (Vec::new(), Vec::new());
        for point in &self.points {
            let folder = self.point_folder(point);
            let file = folder.join("point.json");
            if !file.is_file() {
                failed.push(failure(point, &folder));
                continue;
            }
            let result: PointResult = artifact::read_json(&file)?;
            if result.digest != self.digest {
                return Err(Error::Mismatch {
                    what: format!("digest behind {}", file.display()),
                    expected: self.digest.clone(),
                    found: result.digest,
                    remedy: "use another --output, or --force to sweep anew".into(),
                });
            }
            results.push(result);
        }
        if results.is_empty() {
            let reasons: BTreeMap<&str, &str> = failed.iter().map(|f| (f.reason.as_str(), f.point.as_str())).collect();
            let reasons: Vec<String> = reasons.iter().map(|(reason, point)| format!("{point}: {reason}")).collect();
            return Err(Error::invalid(
                format!("none of the {} points has ended:\n    {}", self.points.len(), reasons.join("\n    ")),
                format!("the logs are in {}", self.folder.join("points").display()),
            ));
        }
        let mut record = SweepRecord::new(&self.name, &self.digest, &results, failed);
        record.benchmark_before = self.benchmark_before()?;
        artifact::write_json(&self.folder.join(RECORD), &record)?;
        let charts = figures::sweep::all(&record, "sweep");
        artifact::write_atomic(&self.folder.join("table.md"), |writer| write_table(writer, &record, &charts))?;
        for chart in &charts {
            figures::draw(chart)?.save(&self.folder)?;
        }
        Ok(record)
    }

    /// pass@1 of the base, when the points are measured and the experiment's own run has measured it by the same protocol.
    fn benchmark_before(&self) -> Result<Option<f64>> {
        let file = Experiment::open(&self.experiment)?.record_file("evaluation");
        if !self.bench || !file.is_file() {
            return Ok(None);
        }
        let record: EvaluationRecord = artifact::read_json(&file)?;
        Ok((record.digest == self.digest).then_some(record.before.pass_at_1.estimate))
    }
}

/// Starts a point until it ends, at most `retries` times again. Says whether it ended.
fn attempt(runner: &Runner, folder: &Path) -> Result<bool> {
    for attempt in 1..=runner.retries + 1 {
        if start(runner, folder, attempt)?.success() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One attempt at a point, its words appended to the point's log.
fn start(runner: &Runner, folder: &Path, attempt: usize) -> Result<ExitStatus> {
    let path = folder.join("log.txt");
    let mut log = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
    writeln!(log, "{ATTEMPT} {attempt}").map_err(Error::io("write", &path))?;
    let (out, err) = (log.try_clone().map_err(Error::io("open", &path))?, log);
    let [program, arguments @ ..] = runner.command.as_slice() else {
        return Err(Error::invalid("no program runs the points", "name one in Runner::command"));
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(folder).stdout(out).stderr(err);
    command.status().map_err(Error::io("start", program))
}

/// How a log marks the beginning of an attempt.
const ATTEMPT: &str = "── attempt";

fn failure(point: &Point, folder: &Path) -> Failure {
    let log = fs::read_to_string(folder.join("log.txt")).unwrap_or_default();
    let reason = log.lines().rfind(|line| line.starts_with("error:")).or_else(|| log.lines().next_back());
    Failure {
        point: point.name(),
        attempts: log.lines().filter(|line| line.starts_with(ATTEMPT)).count(),
        reason: reason.unwrap_or("never started").trim_start_matches("error: ").to_string(),
    }
}

fn write_table(writer: &mut dyn Write, record: &SweepRecord, charts: &[Chart]) -> std::io::Result<()> {
    writeln!(writer, "# Sweep of {}\n", record.experiment)?;
    writeln!(
        writer,
        "Mean ± standard deviation [lowest, highest] over seeds. Loss in nats/token, {:.4} before training.\n",
        record.loss_before
    )?;
    for (index, row) in record.table().iter().enumerate() {
        writeln!(writer, "| {} |", row.join(" | "))?;
        if index == 0 {
            writeln!(writer, "|{}", "---|".repeat(row.len()))?;
        }
    }
    for failure in &record.failed {
        writeln!(writer, "\nFailed after {} attempts: {}: {}", failure.attempts, failure.point, failure.reason)?;
    }
    charts.iter().try_for_each(|chart| writeln!(writer, "\n![{}]({}.svg)", chart.title, chart.name))
}
