//! Arguments to experiments, results to tables. Computes nothing itself.

mod arguments;
mod base;
mod bench;
mod show;
mod speed;
mod sweep;
mod train;

use std::path::Path;

use anyhow::Result;
use codelora::data::fetch;
use codelora::experiment::EXTERNAL;
use codelora::phases::{data_collection, decisions, training, walk};
use codelora::{Error, Experiment};

pub use arguments::Cli;
use arguments::{Common, LabArgs, Verb};

use crate::lab::{self, Lab};

/// The experiment of a call without arguments.
const DEFAULT_EXPERIMENT: &str = "data/experiments/quick.toml";

/// Runs the verb that was asked for.
pub fn run(cli: Cli) -> Result<()> {
    match cli.verb.unwrap_or(Verb::Run(cli.common)) {
        Verb::Run(common) => {
            stop_on_request();
            let experiment = open(&common)?;
            require_data(&experiment)?;
            let walk = walk::run(&experiment)?;
            show::walk(&experiment, &walk)
        }
        Verb::Data(args) => {
            let experiment = args.apply(open(&args.common)?)?;
            if args.fetch {
                fetch::fetch(&experiment.external)?;
            }
            require_data(&experiment)?;
            show::data(&data_collection::run(&experiment)?)
        }
        Verb::Base(args) => base::run(args),
        Verb::Train(args) => {
            stop_on_request();
            let experiment = args.apply(open(&args.common)?)?;
            require_data(&experiment)?;
            args.check(&experiment)?;
            show::training(&training::run(&experiment)?)
        }
        Verb::Sweep(args) => {
            if let Some(folder) = &args.point {
                stop_on_request();
                codelora::phases::sweep::run_point(folder)?;
                return Ok(());
            }
            if let Some(folder) = &args.report {
                return sweep::report(&codelora::phases::sweep::open(folder)?);
            }
            let experiment = open(&args.common)?;
            require_data(&experiment)?;
            sweep::run(&args, &experiment)
        }
        Verb::Bench(args) => bench::run(&args, &open(&args.common)?),
        Verb::Decide(common) => show::decisions(&decisions::run(&open(&common)?)?),
        Verb::Figures(common) => {
            let experiment = open(&common)?;
            let drawn = walk::figures(&experiment)?;
            println!("{} figures in {}", drawn, experiment.path(&experiment.config.paths.figures).display());
            Ok(())
        }
        Verb::Lab(args) => run_lab(&args),
        Verb::Export(args) => args.run(&open(&args.common)?),
        Verb::BenchSpeed(args) => args.run(&open(&args.common)?),
    }
}

/// Opens the experiment that the arguments name, with their overrides.
fn open(common: &Common) -> Result<Experiment> {
    let file = common.experiment.clone().unwrap_or_else(|| DEFAULT_EXPERIMENT.into());
    let mut experiment = Experiment::open(file)?.forced(common.force);
    if let Some(folder) = &common.external {
        experiment = experiment.with_external(folder);
    }
    Ok(experiment)
}

/// Downloads the public datasets when the experiment needs them, unless somebody named a folder: that is the user's own.
fn require_data(experiment: &Experiment) -> Result<()> {
    if experiment.needs_external() { require_external(experiment) } else { Ok(()) }
}

/// Downloads the public datasets where they are missing from the experiment's own place for them.
fn require_external(experiment: &Experiment) -> Result<()> {
    if experiment.has_external() {
        return Ok(());
    }
    if experiment.external != experiment.root.join(EXTERNAL) {
        anyhow::bail!(
            "{} lacks HumanEval.jsonl or mbpp.jsonl\n  remedy: put both there, or leave --external out and let them be downloaded",
            experiment.external.display()
        );
    }
    Ok(fetch::fetch(&experiment.external)?)
}

/// Ctrl-C asks a training run to save its state and stop; a second one, or one outside training, ends the program at
/// once.
fn stop_on_request() {
    let handler = || {
        if !codelora::train::job::request_stop() {
            std::process::exit(130);
        }
        eprintln!("stopping after this step; press Ctrl-C again to stop at once");
    };
    // A handler that is set already is the same one.
    let _ = ctrlc::set_handler(handler);
}

fn run_lab(args: &LabArgs) -> Result<()> {
    let here = std::env::current_dir().map_err(Error::io("read", "."))?;
    let root = match std::env::var_os("CODELORA_ROOT") {
        Some(root) => root.into(),
        None => here
            .ancestors()
            .find(|folder| folder.join("notebooks/kit").is_dir())
            .unwrap_or(Path::new("."))
            .to_path_buf(),
    };
    let lab = Lab::at(&root)?;
    if let Some(connection) = &args.kernel {
        return Ok(lab::launch(&lab, connection)?);
    }
    if args.doctor {
        return Ok(lab.doctor()?);
    }
    // Before the installation, which may take long: a faulty file is told at once.
    let lab = match &args.experiment {
        Some(file) => lab.walking(&Experiment::open(file)?.config.name, file, args.external.as_deref())?,
        None => lab,
    };
    lab.install()?;
    if let Some(numbers) = &args.execute {
        return Ok(lab::execute(&lab, numbers)?);
    }
    if let Some(numbers) = &args.check {
        return Ok(lab::check(&lab, numbers)?);
    }
    if args.html {
        return Ok(lab::html(&lab)?);
    }
    Ok(lab.open(!args.no_browser)?)
}
