//! The command line as a user meets it: help with examples, one clear error, exit codes.

use std::path::Path;
use std::process::{Command, Output};

fn codelora(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_codelora"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in ["run", "data", "base", "train", "bench", "decide", "figures", "lab", "export"] {
        let output = codelora(&[verb, "--help"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("Example"), "{verb}: {text}");
        // `base` has verbs of its own below it.
        assert!(verb == "base" || text.contains("--experiment <FILE>"), "{verb}: {text}");
    }
}

#[test]
fn the_plans_own_flags_are_there() {
    let text = |verb: &str| String::from_utf8_lossy(&codelora(&[verb, "--help"]).stdout).into_owned();
    let train = text("train");
    for flag in [
        "--init-checkpoint",
        "--arch-json",
        "--tokenizer-path",
        "--data-path",
        "--val-path",
        "--output-dir",
        "--max-steps",
        "--lr",
        "--batch-size",
        "--eval-interval",
    ] {
        assert!(train.contains(flag), "train lacks {flag}");
    }
    let bench = text("bench");
    for flag in
        ["--checkpoint", "--samples", "--temperature", "--benchmark", "--output", "--protocol", "--report", "--judge"]
    {
        assert!(bench.contains(flag), "bench lacks {flag}");
    }
}

#[test]
fn a_usage_error_is_code_2_and_any_other_code_1() {
    assert_eq!(codelora(&["train", "--no-such-flag"]).status.code(), Some(2));
    let output = codelora(&["data", "--experiment", "no/such/file.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no/such/file.toml"), "{}", stderr(&output));
    // A call without a verb walks the experiment that it names.
    let output = codelora(&["--experiment", "no/such/file.toml"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("no/such/file.toml"), "{}", stderr(&output));
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let quick = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/experiments/quick.toml");
    let text = std::fs::read_to_string(quick).unwrap().replacen("[data]", "[data]\nexcercises = 3", 1);
    let line = text.lines().position(|line| line.starts_with("excercises")).unwrap() + 1;
    let file = folder.path().join("typo.toml");
    std::fs::write(&file, text).unwrap();
    let output = codelora(&["data", "--experiment", file.to_str().unwrap()]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("excercises") && message.contains("remedy"), "{message}");
    assert!(message.contains(&format!("typo.toml:{line}")), "{message}");
    assert_eq!(message.matches("error:").count(), 1, "{message}");
}

#[test]
fn a_missing_base_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let quick = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/experiments/quick.toml");
    let text = std::fs::read_to_string(quick).unwrap().replace("data/base/small", "data/base/none");
    let file = folder.path().join("no-base.toml");
    std::fs::write(folder.path().join("Cargo.toml"), "").unwrap();
    std::fs::write(&file, text).unwrap();
    let output = codelora(&["base", "audit", "--experiment", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("codelora base train"), "{}", stderr(&output));
    assert!(!folder.path().join("figures").exists(), "nothing was written");
}

#[test]
fn a_cause_is_told_once_and_a_missing_adapter_says_how_to_get_one() {
    let output = codelora(&["data", "--experiment", "no/such.toml"]);
    assert_eq!(stderr(&output).matches("No such file").count(), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("remedy: check the path"), "{}", stderr(&output));
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().display().to_string();
    let said = stderr(&codelora(&["bench", "--checkpoint", &none, "--output", &none]));
    assert!(said.contains("adapter_model.safetensors is missing") && said.contains("codelora train"), "{said}");
}

#[test]
fn a_named_folder_without_the_datasets_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let named = folder.path().join("mistyped");
    for command in [
        ["data", "--experiment", "data/experiments/v2.toml"].as_slice(),
        &["base", "corpus", "--experiment", "data/experiments/base-small.toml", "--folder", "src"],
    ] {
        let output = codelora(&[command, &["--external", named.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("lacks HumanEval.jsonl"), "{}", stderr(&output));
        assert!(!named.exists());
    }
}
