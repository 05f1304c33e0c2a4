//! Training asked for the impossible, through the real program: one clear error each, and no adapter left behind.

use std::path::Path;

use codelora::experiment::Config;

use crate::small::{codelora, experiment, stderr, succeed};

/// The one error of a call that must fail.
fn refusal(arguments: &[&str]) -> String {
    let output = codelora(arguments).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    assert_eq!(message.matches("error:").count(), 1, "{message}");
    message
}

/// The error of training an experiment that `change` made impossible.
fn trained(folder: &Path, more: &[&str], change: impl FnOnce(&mut Config)) -> String {
    let file = experiment(folder, change);
    let arguments: Vec<&str> =
        ["train", "--experiment", file.to_str().unwrap()].into_iter().chain(more.iter().copied()).collect();
    let message = refusal(&arguments);
    assert!(message.contains("remedy:"), "{message}");
    assert!(!folder.join("run/adapter").exists(), "an adapter was left behind: {message}");
    message
}

#[test]
fn impossible_settings_are_refused_before_anything_is_collected() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |says: &[&str], change: &dyn Fn(&mut Config)| {
        let message = trained(folder.path(), &[], change);
        assert!(says.iter().all(|says| message.contains(says)), "{message}");
        assert!(!folder.path().join("data").exists(), "samples were collected first");
    };
    refused(&["`q_proj`", "fc1, fc2, lm_head, out_proj, qkv"], &|c| c.lora.targets = vec!["q_proj".into()]);
    refused(&["rank 0", "from 1 to 32"], &|c| c.lora.rank = 0);
    refused(&["rank 33", "from 1 to 32"], &|c| c.lora.rank = 33);
    refused(&["no target"], &|c| c.lora.targets.clear());
    refused(&["`fc9`"], &|c| c.lora.rank_pattern = [("fc9".to_string(), 2)].into());
    refused(&["dropout 1"], &|c| c.lora.dropout = 1.0);
    refused(&["lr = -0.1"], &|c| c.train.optimizer.lr = -0.1);
    refused(&["steps = 0"], &|c| c.train.optimizer.steps = 0);
    refused(&["average_last = 1"], &|c| c.train.optimizer.average_last = 1.0);
    refused(&["collapse_alarm = 1.5"], &|c| c.train.collapse_alarm = Some(1.5));
}

#[test]
fn samples_that_cannot_be_trained_on_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_string()
    };
    let row = |id: &str, body: &str| {
        serde_json::json!({ "id": id, "prompt": "def f(x):\n    \"\"\"Doc.\"\"\"\n", "solution": body }).to_string()
    };
    let long = row("too_long", &"    x = x + 1\n".repeat(200));
    let good = row("good", "    return x\n");
    for (text, says) in [
        (String::new(), vec!["no sample", "phase 1"]),
        (format!("{good}\n{long}\n"), vec!["too_long", "the context holds 256"]),
        (format!("{good}\n{{\"id\": 7}}\n"), vec!["train.jsonl:2"]),
    ] {
        let file = rows("train.jsonl", &text);
        let message = trained(folder.path(), &["--data-path", &file], |_| ());
        assert!(says.iter().all(|says| message.contains(says)), "{says:?} are not all in {message}");
    }
    let message = trained(folder.path(), &[], |config| config.train.samples = Some(100_000));
    assert!(message.contains("100000 training samples are asked for"), "{message}");
    let nothing = folder.path().join("nothing-held-out");
    std::fs::create_dir(&nothing).unwrap();
    let message = trained(&nothing, &[], |config| config.data.split.validation = 0);
    assert!(message.contains("no sample to validate on") && message.contains("[data.split]"), "{message}");
}

#[test]
fn a_learning_rate_that_diverges_names_the_step_and_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let message = trained(folder.path(), &["--lr", "1e38"], |config| config.train.optimizer.warmup_steps = 0);
    assert!(message.contains("at step 2"), "{message}");
    let state = folder.path().join("run/training/state.safetensors");
    assert!(message.contains(state.to_str().unwrap()) && state.is_file(), "{message}");
}

#[test]
fn an_adapter_of_another_base_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), |_| ());
    let file = file.to_str().unwrap();
    succeed(&["train", "--experiment", file]);
    let quick = ["--experiment", "data/experiments/quick.toml"];
    let adapter = folder.path().join("run/adapter");
    let output = folder.path().join("elsewhere");
    let message = refusal(&[
        "bench",
        quick[0],
        quick[1],
        "--checkpoint",
        adapter.to_str().unwrap(),
        "--output",
        output.to_str().unwrap(),
    ]);
    assert!(message.contains("base of the adapter") && message.contains("expected"), "{message}");
    // The run itself, under another seed than it was trained with.
    let text = std::fs::read_to_string(file).unwrap().replacen("[train]", "[train]\nseed = 4", 1);
    std::fs::write(file, text).unwrap();
    let message = refusal(&["train", "--experiment", file]);
    assert!(message.contains("--force"), "{message}");
}
