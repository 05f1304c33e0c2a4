//! `bench-speed`: each workload in a process of its own, then what was found.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use codelora::Experiment;
use codelora::phases::speed::{self, Options, Workload};

use super::arguments::Common;

/// Arguments of `bench-speed`.
#[derive(Args)]
pub struct SpeedArgs {
    #[command(flatten)]
    pub common: Common,
    /// Only these workloads: lora-step, full-step-29m, full-step-small, full-step-cuda, sampling, decode, decode-eight-bits, data, bpe-train, bpe-encode.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Times each is repeated; the figure is the median.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub repeat: usize,
    /// Text for the vocabulary's workloads, in megabytes.
    #[arg(long, value_name = "MB", default_value_t = 100)]
    pub megabytes: usize,
    /// Folder of the records.
    #[arg(long, value_name = "DIR", default_value = "benches/records")]
    pub records: PathBuf,
    /// Write the inputs here for peers, and measure nothing.
    #[arg(long, value_name = "DIR")]
    pub inputs: Option<PathBuf>,
    /// Print the table of the records, and measure nothing.
    #[arg(long)]
    pub table: bool,
    /// Put the table between its marks in this file, and measure nothing.
    #[arg(long, value_name = "FILE")]
    pub splice: Option<PathBuf>,
}

impl SpeedArgs {
    /// Measures, or does what was asked for instead.
    pub fn run(&self, experiment: &Experiment) -> Result<()> {
        if let Some(folder) = &self.inputs {
            speed::export(experiment, folder)?;
            println!("inputs for peers: {}", folder.display());
            return Ok(());
        }
        if self.table || self.splice.is_some() {
            let table = speed::table(&speed::read(&self.records)?);
            let Some(file) = &self.splice else {
                print!("{table}");
                return Ok(());
            };
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            let spliced = speed::splice(&text, &table)?;
            return Ok(codelora::artifact::write_atomic(file, |writer| writer.write_all(spliced.as_bytes()))?);
        }
        let workloads = match self.only.as_slice() {
            [] => Workload::ALL.to_vec(),
            names => names.iter().map(|name| Workload::named(name)).collect::<codelora::Result<Vec<_>>>()?,
        };
        let options = Options { repeat: self.repeat, megabytes: self.megabytes, records: self.records.clone() };
        if let &[workload] = workloads.as_slice() {
            match speed::run(experiment, workload, &options)? {
                Some(row) => println!(
                    "{:<16} {:>10.1} {:<9} {:>6.0} MiB at most",
                    row.workload, row.figure, row.unit, row.peak_mib
                ),
                None => println!("{:<16} skipped: name the public datasets with --external", workload.name()),
            }
            return Ok(());
        }
        workloads.iter().try_for_each(|workload| self.alone(*workload))
    }

    /// One workload in a process of its own.
    fn alone(&self, workload: Workload) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench-speed", "--only", workload.name()]).arg("--records").arg(&self.records);
        command.args(["--repeat", &self.repeat.to_string(), "--megabytes", &self.megabytes.to_string()]);
        for (name, value) in [("--experiment", &self.common.experiment), ("--external", &self.common.external)] {
            if let Some(value) = value {
                command.arg(name).arg(value);
            }
        }
        let status = command.status()?;
        anyhow::ensure!(status.success(), "{} failed: {status}", workload.name());
        Ok(())
    }
}
