//! The verb `sweep`: plans the points, starts them, shows the table.

use std::path::PathBuf;

use anyhow::{Result, bail};
use codelora::Experiment;
use codelora::phases::sweep::{self, Runner, Sweep};
use codelora::train::sweep::Grid;

use super::arguments::SweepArgs;
use super::show;

impl SweepArgs {
    fn grid(&self) -> Grid {
        Grid {
            ranks: self.rank.clone(),
            lrs: self.lr.clone(),
            targets: self.targets.clone(),
            samples: self.samples.clone(),
            seeds: self.seeds.clone(),
        }
    }

    fn folder(&self, experiment: &Experiment) -> PathBuf {
        let beside = || {
            let run = &experiment.config.paths.run;
            run.with_file_name(format!("{}-sweep", run.file_name().unwrap_or_default().to_string_lossy()))
        };
        self.output.clone().unwrap_or_else(beside)
    }
}

/// This program with the arguments of a verb, for a process of its own.
fn this(arguments: &[&str]) -> Result<Vec<String>> {
    let program = std::env::current_exe()?.display().to_string();
    Ok(std::iter::once(program).chain(arguments.iter().map(ToString::to_string)).collect())
}

/// Plans and runs a sweep, here or on Slurm.
pub fn run(args: &SweepArgs, experiment: &Experiment) -> Result<()> {
    let sweep = sweep::plan(experiment, &args.grid(), args.bench, &args.folder(experiment))?;
    let runner = Runner { command: this(&["sweep", "--point"])?, jobs: args.jobs, retries: args.retries };
    if args.slurm {
        let job = sweep::submit(&sweep, &runner, &this(&["sweep", "--report"])?)?;
        println!("{} points submitted as job {} ({})", job.points, job.array, job.script.display());
        println!("job {} writes the table and the figure when the last has ended", job.report);
        return Ok(());
    }
    sweep.run(&runner)?;
    report(&sweep)
}

/// Writes and shows the report. A point that failed is an error after everything else is written.
pub fn report(sweep: &Sweep) -> Result<()> {
    let record = sweep.report()?;
    show::sweep(&record);
    println!("table and figures: {}\n", sweep.folder().display());
    if record.failed.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> = record
        .failed
        .iter()
        .map(|failure| format!("    {} ({} attempts): {}", failure.point, failure.attempts, failure.reason))
        .collect();
    bail!(
        "{} of {} points did not end:\n{}\n  remedy: correct the cause and call the sweep again; what has ended stays",
        record.failed.len(),
        record.planned,
        reasons.join("\n")
    )
}
