//! Bases trained through the real program: killed, interrupted, out of disk, and at full size.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::Device;
use codelora::artifact;
use codelora::data::corpus::{Corpus, Documents, Texts};
use codelora::data::exercises;
use codelora::experiment::{Experiment, PretrainConfig};
use codelora::model::checkpoint;
use codelora::phases::pretraining::PretrainRecord;
use codelora::tokenizer::Tokenizer;
use codelora::train::metrics::TrainingRecord;
use codelora::train::state::{self, Position};
use serde_json::json;

use crate::small::{codelora, experiment, root, stderr};

/// Writes an experiment that trains a base of two layers for 20 steps, with its corpus of a few hundred exercises already
/// made: `folder/run/{tokenizer.json, corpus}`.
fn pretraining(folder: &Path, change: impl FnOnce(&mut PretrainConfig)) -> PathBuf {
    let arch = folder.join("arch.json");
    let small = json!({ "architecture": {
        "arch_type": "transformer", "num_layers": 2, "hidden_dim": 32, "num_heads": 4, "ffn_multiplier": 2.0,
        "normalization": "layernorm", "activation": "gelu", "position_encoding": "rope", "vocab_size": 2048,
        "attention_dropout": 0.1, "residual_dropout": 0.1, "max_seq_length": 64, "tie_word_embeddings": true
    } });
    std::fs::write(&arch, small.to_string()).unwrap();
    let full_size = Experiment::open(root().join("data/experiments/base-29m.toml")).unwrap();
    let mut config = full_size.config.base.pretrain.unwrap();
    (config.arch, config.recipe, config.vocabulary, config.compute) = (arch, None, 2048, None);
    (config.batch_size, config.accumulation, config.context) = (4, 2, 32);
    (config.optimizer.steps, config.optimizer.warmup_steps, config.eval_every) = (20, 2, 10);
    change(&mut config);
    let file = experiment(folder, |experiment| {
        experiment.bench.max_new_tokens = 4;
        experiment.base.pretrain = Some(config);
    });
    corpus(&folder.join("run"));
    let stamp = codelora::phases::corpus::digest(&Experiment::open(&file).unwrap()).unwrap();
    artifact::write_json(&folder.join("run/corpus/made-with.json"), &stamp).unwrap();
    file
}

/// Of each source: one in fifty is held out, and each source must have some.
const DOCUMENTS: usize = 1000;

/// A corpus of exercises in the shipped vocabulary.
fn corpus(run: &Path) {
    let tokenizer = Tokenizer::load(&root().join("data/base/small/tokenizer.json")).unwrap();
    let text = |seed| {
        let tasks = exercises::generate(seed, DOCUMENTS, &[]).unwrap().into_iter();
        Documents::Held(tasks.map(|task| format!("{}{}", task.prompt, task.solution)).collect())
    };
    let texts = Texts { exercises: text(1), pairs: text(2), raw: text(3), origins: Vec::new() };
    Corpus::build(&run.join("corpus"), &tokenizer, &texts).unwrap();
    tokenizer.save(&run.join("tokenizer.json")).unwrap();
}

/// `base train`, to be started.
fn train(file: &Path, more: &[&str]) -> Command {
    let arguments = ["base", "train", "--experiment", file.to_str().unwrap()];
    codelora(&arguments.iter().chain(more).copied().collect::<Vec<_>>())
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
}

fn position(folder: &Path) -> Option<Position> {
    state::position(&folder.join("run/pretraining/state.safetensors")).ok()
}

/// Waits until the run has saved `step`.
fn wait_for(running: &mut Child, folder: &Path, step: usize) {
    let begun = Instant::now();
    while position(folder).is_none_or(|position| position.step < step) {
        assert!(begun.elapsed() < Duration::from_secs(240), "step {step} was never saved");
        assert!(running.try_wait().unwrap().is_none(), "the run ended before step {step}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn record(folder: &Path) -> TrainingRecord {
    artifact::read_json::<PretrainRecord>(&folder.join("base/pretraining.json")).unwrap().training
}

fn weights(folder: &Path) -> String {
    let file = folder.join("base/model.safetensors");
    checkpoint::digest(&checkpoint::read_safetensors(&file, &Device::Cpu).unwrap()).unwrap()
}

/// Losses of every step that a run wrote down, to the bit.
fn losses(folder: &Path) -> Vec<(usize, u64)> {
    let rows = artifact::read_jsonl::<serde_json::Value>(&folder.join("run/pretraining/metrics.jsonl")).unwrap();
    let row =
        |row: serde_json::Value| (row["step"].as_u64().unwrap() as usize, row["loss"].as_f64().unwrap().to_bits());
    rows.into_iter().map(row).collect()
}

#[test]
fn a_base_that_is_killed_or_interrupted_goes_on_to_the_bit() {
    let folders: BTreeMap<&str, tempfile::TempDir> =
        ["whole", "killed", "interrupted"].map(|name| (name, tempfile::tempdir().unwrap())).into();
    let averaged = |config: &mut PretrainConfig| config.optimizer.average_last = 0.3;
    let files: BTreeMap<&str, PathBuf> =
        folders.iter().map(|(&name, folder)| (name, pretraining(folder.path(), averaged))).collect();
    let start = |name: &str| {
        let mut command = train(&files[name], &[]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    succeed(train(&files["whole"], &[]));
    let whole = record(folders["whole"].path());
    assert_eq!((whole.kept_step, whole.kept_evaluation().unwrap().averaged), (20, 6));
    let check = whole.evaluations[2].generated.as_ref().expect("what a base writes is checked");
    assert_eq!(check.samples, 40);

    let mut killed = start("killed");
    wait_for(&mut killed, folders["killed"].path(), 10);
    killed.kill().unwrap();
    assert!(!killed.wait().unwrap().success());
    assert!(!folders["killed"].path().join("base/pretraining.json").exists(), "the run had ended");

    let mut interrupted = start("interrupted");
    wait_for(&mut interrupted, folders["interrupted"].path(), 0);
    let signal = Command::new("kill").args(["-INT", &interrupted.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = interrupted.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("continue with --resume from"), "{}", stderr(&output));
    assert!(position(folders["interrupted"].path()).unwrap().step < 20, "the run had ended");

    // Unasked, nothing is overwritten.
    let unasked = train(&files["killed"], &[]).output().unwrap();
    assert!(!unasked.status.success() && stderr(&unasked).contains("--resume"), "{}", stderr(&unasked));
    for name in ["killed", "interrupted"] {
        let folder = folders[name].path();
        succeed(train(&files[name], &["--resume"]));
        assert_eq!(weights(folder), weights(folders["whole"].path()), "{name}: the parts are not the whole");
        assert_eq!(losses(folder), losses(folders["whole"].path()), "{name}");
        assert_eq!(record(folder).evaluations, whole.evaluations, "{name}");
    }
}

/// A limit on the size of a file stands for a full disk: the write fails in the same place, with an error of the system.
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_costs_nothing_that_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    // With the average the state grows by a third at step 11: the first that does not fit.
    let file = pretraining(folder.path(), |config| config.optimizer.average_last = 0.5);
    succeed(train(&file, &["--minutes", "0"]));
    let first = std::fs::metadata(folder.path().join("run/pretraining/state.safetensors")).unwrap().len();
    let limit = (first * 7 / 6 / 512).to_string();
    let arguments = ["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\"", &limit];
    let resume = train(&file, &["--resume"]);
    let mut limited = Command::new("sh");
    limited.args(arguments).arg(resume.get_program()).args(resume.get_args()).current_dir(root());
    let output = limited.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot write") && message.contains("state.safetensors"), "{message}");
    assert_eq!(position(folder.path()).unwrap().step, 10, "the state before is whole");
    let left = std::fs::read_dir(folder.path().join("run/pretraining")).unwrap().flatten();
    let names: Vec<String> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().all(|name| !name.starts_with(".tmp")), "{names:?}");
    // With room again, it goes on.
    succeed(train(&file, &["--resume"]));
    assert_eq!(record(folder.path()).kept_step, 20);
}

/// The full-size base as its experiment file says, for 20 steps and a resume: about an hour on two cores.
#[test]
#[ignore = "takes about an hour"]
fn the_full_size_base_takes_its_first_steps_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = pretraining(folder.path(), |config| {
        let written = Experiment::open(root().join("data/experiments/base-29m.toml")).unwrap();
        let written = written.config.base.pretrain.unwrap();
        let steps = config.optimizer.steps;
        *config = PretrainConfig { arch: root().join(&written.arch), recipe: None, eval_every: 10, ..written };
        // A device holds 64 sequences at once; here that would be 10 GB.
        (config.optimizer.steps, config.compute, config.accumulation) = (steps, None, 4);
    });
    let mut running = train(&file, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while position(folder.path()).is_none_or(|position| position.step < 10) {
        assert!(begun.elapsed() < Duration::from_secs(7200), "step 10 was never saved");
        std::thread::sleep(Duration::from_secs(1));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    succeed(train(&file, &["--resume"]));
    let record = record(folder.path());
    assert_eq!((record.kept_step, record.tokens_seen), (20, 20 * 64 * 256));
    assert_eq!(losses(folder.path()).len(), 20);
    assert!(record.evaluations[2].validation_loss < record.evaluations[0].validation_loss - 0.5);
}
