//! A sweep as a Slurm job array: one task a point, and a job after the last that writes the report.
//!
//! Partition, time and memory are not named here: `sbatch` reads them from `SBATCH_PARTITION`, `SBATCH_TIMELIMIT` and the
//! like.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ATTEMPT, Runner, Sweep};
use crate::artifact;
use crate::error::{Error, Result};

/// What was handed to Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The array script.
    pub script: PathBuf,
    /// Job of the array.
    pub array: String,
    /// Job that writes the report when the array has ended.
    pub report: String,
    /// Points in the array.
    pub points: usize,
}

/// Writes `array.sh` and `report.sh` into the sweep's folder and submits both. `report` is the program and its arguments
/// that write the report; the sweep's folder follows.
///
/// # Errors
/// [`Error::Invalid`] when every point has ended, when there is no `sbatch`, or when it refuses.
pub fn submit(sweep: &Sweep, runner: &Runner, report: &[String]) -> Result<Submitted> {
    let points = sweep.open_points();
    if points.is_empty() {
        return Err(Error::invalid("every point of this sweep has ended", "run it without --slurm to see the report"));
    }
    let (script, after) = (sweep.folder.join("array.sh"), sweep.folder.join("report.sh"));
    artifact::write_atomic(&script, |writer| writer.write_all(array_script(sweep, &points, runner).as_bytes()))?;
    let text = format!("#!/bin/bash\n{}\nexec {} {}\n", header(sweep, "report"), words(report), word(&sweep.folder));
    artifact::write_atomic(&after, |writer| writer.write_all(text.as_bytes()))?;
    let array = sbatch(&[], &script)?;
    let report = sbatch(&[format!("--dependency=afterany:{array}")], &after)?;
    Ok(Submitted { script, array, report, points: points.len() })
}

fn array_script(sweep: &Sweep, points: &[PathBuf], runner: &Runner) -> String {
    let list: Vec<String> = points.iter().map(|point| format!("  {}", word(point))).collect();
    format!(
        r#"#!/bin/bash
{header}
#SBATCH --array=0-{last}%{jobs}
points=(
{list}
)
point="${{points[$SLURM_ARRAY_TASK_ID]}}"
for attempt in $(seq 1 {attempts}); do
  echo "{ATTEMPT} $attempt" >> "$point/log.txt"
  {command} "$point" >> "$point/log.txt" 2>&1 && exit 0
done
exit 1
"#,
        header = header(sweep, "points"),
        last = points.len() - 1,
        jobs = runner.jobs.max(1),
        list = list.join("\n"),
        attempts = runner.retries + 1,
        command = words(&runner.command),
    )
}

fn header(sweep: &Sweep, part: &str) -> String {
    format!(
        "#SBATCH --job-name=\"codelora-{}-{part}\"\n#SBATCH --output=\"{}/slurm-%j.log\"",
        sweep.name,
        sweep.folder.display()
    )
}

/// Submits a script and returns the number of its job.
fn sbatch(options: &[String], script: &Path) -> Result<String> {
    let output = Command::new("sbatch").arg("--parsable").args(options).arg(script).output().map_err(|e| {
        Error::invalid(format!("`sbatch` cannot be started: {e}"), "run this on a Slurm node, or without --slurm")
    })?;
    if !output.status.success() {
        let says = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(Error::invalid(
            format!("sbatch refused {}: {says}", script.display()),
            "name what your cluster wants in SBATCH_PARTITION, SBATCH_TIMELIMIT, …",
        ));
    }
    // `--parsable` prints the job, and after a semicolon the cluster where there are several.
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim().split(';').next().unwrap_or_default().to_string())
}

fn words(words: &[String]) -> String {
    words.iter().map(|part| word(Path::new(part))).collect::<Vec<_>>().join(" ")
}

/// A word for the shell, whatever is in it.
fn word(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
