//! Training as a process of its own, as chapter 3 starts it: with the real program, on a tiny base.

use std::path::Path;

use codelora::Experiment;
use codelora::phases::background;

use crate::small;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_codelora"))
}

#[test]
fn a_run_goes_on_by_itself_and_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = small::experiment(folder.path(), |config| config.train.optimizer.steps = 12);
    let experiment = Experiment::open(file).unwrap();
    let run = background::start_with(&experiment, program()).unwrap();
    assert!(run.is_running(), "{}", run.log_tail(5));
    // Another kernel that opens the chapter finds the run and starts no second one.
    assert_eq!(background::start_with(&experiment, Path::new("/nowhere")).unwrap(), run);
    let training = background::wait(&experiment, &run).unwrap();
    assert!(!run.is_running());
    assert_eq!(training.record.steps.len(), 12);
    assert_eq!(run.evaluations().unwrap().len(), training.record.evaluations.len());
    let written = codelora::phases::training::written(&experiment).unwrap();
    assert!(written.iter().any(|row| row.step == 0) && written.iter().any(|row| row.step == 12), "{written:?}");
    // A run that is done is reopened, whatever the program.
    assert_eq!(background::start(&experiment).unwrap(), run);
}

#[test]
fn a_run_that_fails_says_why_and_a_changed_experiment_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = small::experiment(folder.path(), |_| {});
    let mut experiment = Experiment::open(file).unwrap();
    std::fs::remove_file(folder.path().join("base/model.safetensors")).unwrap();
    let run = background::start_with(&experiment, program()).unwrap();
    let said = background::wait(&experiment, &run).unwrap_err().to_string();
    assert!(said.contains("model.safetensors") && said.contains("training.log"), "{said}");
    experiment.config.train.optimizer.steps += 1;
    let said = background::start_with(&experiment, program()).unwrap_err().to_string();
    assert!(said.contains("experiment file"), "{said}");
}

#[test]
fn a_run_of_a_terminal_is_found_and_no_second_one_starts_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = small::experiment(folder.path(), |_| {});
    let experiment = Experiment::open(&file).unwrap();
    std::fs::create_dir_all(folder.path().join("run")).unwrap();
    // What `codelora train` holds while it trains.
    let held = std::fs::File::create(folder.path().join("run/training.lock")).unwrap();
    held.lock().unwrap();
    let run = background::start_with(&experiment, Path::new("/nowhere")).unwrap();
    assert!(run.is_running());
    let second = small::codelora(&["train", "--experiment", file.to_str().unwrap()]).output().unwrap();
    let said = small::stderr(&second);
    assert!(!second.status.success() && said.contains("another process trains in"), "{said}");
    drop(held);
    assert!(!run.is_running());
    small::succeed(&["train", "--experiment", file.to_str().unwrap()]);
}
