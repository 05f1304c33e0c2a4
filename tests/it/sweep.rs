//! A sweep through the real program: points are processes, what has ended stays, what fails is retried and reported.

use std::fs;
use std::path::Path;
use std::process::Command;

use codelora::artifact;
use codelora::train::sweep::SweepRecord;

use crate::small::{codelora, experiment, root, stderr};

fn record(folder: &Path) -> SweepRecord {
    artifact::read_json(&folder.join("record.json")).unwrap()
}

fn attempts(folder: &Path, point: &str) -> usize {
    let log = fs::read_to_string(folder.join("points").join(point).join("log.txt")).unwrap_or_default();
    log.matches("── attempt").count()
}

#[test]
fn a_sweep_separates_settings_from_seeds_and_goes_on_where_it_stood() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), |experiment| experiment.train.optimizer.lr = 1e-3);
    let output = folder.path().join("sweep");
    let sweep = |rank: &str| {
        let arguments = ["sweep", "--experiment", file.to_str().unwrap(), "--rank", rank, "--seeds", "1,2"];
        codelora(&arguments).args(["--jobs", "2", "--bench", "--output"]).arg(&output).output().unwrap()
    };
    // A rank of 64 does not fit a matrix of 32: those points fail, twice each, and the others are reported.
    let first = sweep("2,64");
    let message = stderr(&first);
    assert_eq!(first.status.code(), Some(1), "{message}");
    assert!(message.contains("2 of 4 points did not end") && message.contains("(2 attempts): rank 64"), "{message}");
    let found = record(&output);
    assert_eq!((found.rows.len(), found.failed.len(), found.planned), (1, 2, 4));
    assert_eq!(found.rows[0].seeds, [1, 2]);
    let loss = found.rows[0].loss;
    assert!(loss.low < loss.high && loss.deviation.is_some(), "two seeds gave the same run: {loss:?}");
    assert!(found.rows[0].benchmark.is_some_and(|rate| rate.low >= 0.0 && rate.high <= 1.0), "{:?}", found.rows[0]);
    for name in ["table.md", "sweep-validation.svg", "sweep-validation.png", "sweep-benchmark.svg"] {
        assert!(output.join(name).is_file(), "{name}");
    }

    // Another grid over the same points: what has ended is not run again.
    let second = sweep("2,4");
    assert!(second.status.success(), "{}", stderr(&second));
    let found = record(&output);
    assert_eq!((found.rows.len(), found.failed.len()), (2, 0));
    let name = |rank: usize, seed: u64| format!("rank{rank}-lr1e-3-all-linear-all-seed{seed}");
    assert_eq!([attempts(&output, &name(2, 1)), attempts(&output, &name(4, 2))], [1, 1]);
    let table = fs::read_to_string(output.join("table.md")).unwrap();
    assert!(table.contains(" ± "), "{table}");

    // Another experiment's sweep is not mixed with this one.
    let text = fs::read_to_string(&file).unwrap().replace("steps = 4", "steps = 5");
    fs::write(&file, text).unwrap();
    let third = sweep("2,4");
    assert!(stderr(&third).contains("--force"), "{}", stderr(&third));
}

/// A Slurm cluster of this machine, ended when dropped.
struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    /// None, with the reason printed, where Slurm is not installed.
    fn start() -> Option<Self> {
        let cluster = Self { folder: tempfile::tempdir().unwrap() };
        let output = cluster.script("start");
        let says = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        if output.status.code() == Some(77) {
            println!("skipped: {}", says.trim());
            return None;
        }
        assert!(output.status.success(), "the cluster did not start: {says}");
        Some(cluster)
    }

    fn script(&self, verb: &str) -> std::process::Output {
        let script = root().join("tests/peers/slurm.sh");
        Command::new("bash").arg(script).arg(verb).arg(self.folder.path()).output().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.script("stop");
    }
}

#[test]
fn a_sweep_runs_as_a_slurm_job_array() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), |_| ());
    let output = folder.path().join("a sweep");
    let submitted = codelora(&["sweep", "--experiment", file.to_str().unwrap(), "--rank", "2,64", "--seeds", "1,2"])
        .args(["--slurm", "--jobs", "2", "--output"])
        .arg(&output)
        .env("SLURM_CONF", cluster.folder.path().join("slurm.conf"))
        .output()
        .unwrap();
    let says = String::from_utf8_lossy(&submitted.stdout).into_owned() + &stderr(&submitted);
    assert!(submitted.status.success() && says.contains("4 points submitted as job"), "{says}");
    let begun = std::time::Instant::now();
    while !output.join("table.md").is_file() {
        let logs = || cluster.script("logs");
        assert!(begun.elapsed().as_secs() < 120, "no report came: {}", String::from_utf8_lossy(&logs().stdout));
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let found = record(&output);
    assert_eq!((found.rows.len(), found.failed.len(), found.rows[0].seeds.len()), (1, 2, 2));
    assert!(found.failed.iter().all(|f| f.attempts == 2 && f.reason.contains("rank 64")), "{:?}", found.failed);
}
