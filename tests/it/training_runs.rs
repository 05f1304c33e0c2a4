//! Training through the real program: a run that is killed and resumed, and every variant of the adapter.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use candle_core::Device;
use codelora::artifact;
use codelora::experiment::Config;
use codelora::model::checkpoint;
use codelora::phases::lora::LoraRecord;
use codelora::train::metrics::TrainingRecord;
use codelora::train::state;

use crate::small::{codelora, experiment, stderr, succeed};

fn record(run: &Path) -> TrainingRecord {
    artifact::read_json(&run.join("records/training.json")).unwrap()
}

#[test]
fn twenty_steps_are_ten_a_kill_and_ten_more_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), |config| {
        config.train.optimizer.steps = 20;
        config.train.eval_every = 10;
        config.train.batch_size = 16;
        config.train.optimizer.warmup_steps = 4;
        config.train.optimizer.average_last = 0.6;
        config.train.accumulation = 2;
        config.lora.lr_ratio = 4.0;
    });
    let file = file.to_str().unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let arguments =
        |run: &Path| ["train", "--experiment", file, "--output-dir", run.to_str().unwrap()].map(String::from).to_vec();
    let train = |run: &Path, more: &[&str]| {
        let arguments = arguments(run);
        let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        codelora(&all)
    };
    // Nothing is there to be resumed yet.
    let early = train(&cut, &["--resume"]).output().unwrap();
    assert!(!early.status.success() && stderr(&early).contains("no saved state"), "{}", stderr(&early));
    assert!(train(&whole, &[]).output().unwrap().status.success());

    let mut running = train(&cut, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let saved = cut.join("training/state.safetensors");
    let step = || state::position(&saved).map_or(0, |position| position.step);
    let begun = Instant::now();
    while step() < 10 {
        assert!(begun.elapsed() < Duration::from_secs(120), "step 10 was never saved");
        assert!(running.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.kill().unwrap();
    assert!(!running.wait().unwrap().success());
    assert_eq!(step(), 10, "the last checkpoint is that of step 10");
    assert!(!cut.join("records/training.json").exists(), "the run had ended");

    let resumed = train(&cut, &["--resume"]).output().unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    // The tensors, not the file: the order of its header's notes is random.
    let weights = |run: &Path| {
        let file = run.join("adapter/adapter_model.safetensors");
        checkpoint::digest(&checkpoint::read_safetensors(&file, &Device::Cpu).unwrap()).unwrap()
    };
    assert_eq!(weights(&whole), weights(&cut), "10 + 10 steps are not 20");
    let (straight, resumed) = (record(&whole), record(&cut));
    let losses = |record: &TrainingRecord| record.steps.iter().map(|s| (s.step, s.loss.to_bits())).collect::<Vec<_>>();
    assert_eq!(losses(&straight), losses(&resumed));
    assert_eq!(losses(&resumed).len(), 20);
    assert_eq!((straight.evaluations, straight.tokens_seen), (resumed.evaluations, resumed.tokens_seen));
    let metrics = std::fs::read_to_string(cut.join("training/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 20, "the rows of a killed run are not doubled");
    // What is done is reopened.
    succeed(&["train", "--experiment", file, "--output-dir", cut.to_str().unwrap()]);
}

#[test]
fn every_variant_of_the_adapter_is_proven_trained_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    type Change<'a> = &'a dyn Fn(&mut Config);
    let variants: [(&str, Change); 3] = [
        ("dora", &|c| c.lora.dora = true),
        ("rslora and lora+", &|c| (c.lora.rslora, c.lora.lr_ratio) = (true, 16.0)),
        ("patterns", &|c| {
            c.lora.targets = vec!["attention".into(), "lm_head".into()];
            c.lora.rank_pattern = [("out_proj".to_string(), 2)].into();
            c.lora.alpha_pattern = [("layers.0.attn.qkv".to_string(), 32.0)].into();
        }),
    ];
    for (index, (name, change)) in variants.into_iter().enumerate() {
        let file = experiment(folder.path(), |config| {
            config.paths.run = folder.path().join(format!("run{index}"));
            change(config);
        });
        succeed(&["train", "--experiment", file.to_str().unwrap()]);
        let run = folder.path().join(format!("run{index}"));
        let proofs = artifact::read_json::<LoraRecord>(&run.join("records/lora.json")).unwrap().proofs;
        println!("{name}: {proofs:?}");
        assert!(run.join("adapter/adapter_model.safetensors").is_file(), "{name}");
    }
}

#[test]
fn every_flag_of_the_plan_takes_the_place_of_what_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), |config| config.train.optimizer.steps = 40);
    let file = file.to_str().unwrap();
    succeed(&["data", "--experiment", file]);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // The named files lie in other places than the experiment's, whose weights are gone.
    std::fs::create_dir(path("mine")).unwrap();
    for file in ["model.safetensors", "arch.json", "tokenizer.json"] {
        std::fs::copy(path(&format!("base/{file}")), path(&format!("mine/{file}"))).unwrap();
    }
    std::fs::remove_file(path("base/model.safetensors")).unwrap();
    std::fs::remove_file(path("base/arch.json")).unwrap();
    let samples = std::fs::read_to_string(path("data/v2_train.jsonl")).unwrap();
    let lines: Vec<&str> = samples.lines().collect();
    std::fs::write(path("train.jsonl"), lines[..9].join("\n") + "\n").unwrap();
    std::fs::write(path("val.jsonl"), lines[9..12].join("\n") + "\n").unwrap();
    std::fs::remove_dir_all(path("data")).unwrap();
    let named = [
        ("--init-checkpoint", path("mine/model.safetensors")),
        ("--arch-json", path("mine/arch.json")),
        ("--tokenizer-path", path("mine/tokenizer.json")),
        ("--data-path", path("train.jsonl")),
        ("--val-path", path("val.jsonl")),
        ("--output-dir", path("elsewhere")),
        ("--max-steps", "3".into()),
        ("--lr", "0.002".into()),
        ("--batch-size", "2".into()),
        ("--eval-interval", "2".into()),
    ];
    let flags = named.iter().flat_map(|(flag, value)| [*flag, value.as_str()]);
    let arguments: Vec<&str> = ["train", "--experiment", file].into_iter().chain(flags).collect();
    succeed(&arguments);
    let record = record(&folder.path().join("elsewhere"));
    assert_eq!(record.steps.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(record.evaluations.iter().map(|row| row.step).collect::<Vec<_>>(), [0, 2, 3]);
    assert!(record.steps.iter().all(|row| row.lr <= 0.002) && record.steps.iter().any(|row| row.lr > 0.0001));
    let written = record.evaluations[0].generated.as_ref().map_or(0, |check| check.samples);
    assert_eq!(written, 3, "the tasks to solve are those of --val-path");
}
