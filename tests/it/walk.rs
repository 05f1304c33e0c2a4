//! The whole walk through the real program, on a tiny base: what it prints, what it leaves, and that it opens that again.

use crate::small::{codelora, experiment, stderr};

#[test]
fn the_walk_leaves_what_it_says_and_opens_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), |config| (config.bench.samples, config.bench.v1_draws) = (2, 1));
    let walk = |more: &[&str]| {
        let arguments: Vec<&str> =
            ["run", "--experiment", file.to_str().unwrap()].into_iter().chain(more.iter().copied()).collect();
        let output = codelora(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // From the tables on: before them stand the lines of what was computed.
        let tables = said.find("── data collection").map_or("", |place| &said[place..]).to_owned();
        (output.status.success(), tables, stderr(&output))
    };
    let (ended, first, fault) = walk(&[]);
    assert!(ended, "{fault}");
    for part in ["base model", "LoRA", "training", "evaluation", "decisions", "pass@1 [over tasks]", "time: data"] {
        assert!(first.contains(part), "{part} is missing in {first}");
    }
    for left in [
        "data/v2_raw/embedded_mbpp.jsonl",
        "data/v2_train.jsonl",
        "data/v2_val.jsonl",
        "run/adapter/adapter_config.json",
        "run/records/evaluation.json",
        "run/decisions.md",
        "figures/evaluation-pass-rate.svg",
        "figures/evaluation-pass-rate.png",
    ] {
        assert!(folder.path().join(left).is_file(), "{left} is missing");
    }
    let tables = |said: &str| said.lines().filter(|line| !line.starts_with("time:")).collect::<Vec<_>>().join("\n");
    let (ended, second, fault) = walk(&[]);
    assert!(ended, "{fault}");
    assert_eq!(tables(&first), tables(&second), "what was computed and what was opened again differ");

    // A changed experiment is noticed, and made anew only when that is asked for.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("seed = 17", "seed = 18")).unwrap();
    let (ended, _, fault) = walk(&[]);
    assert!(!ended && fault.contains("--force"), "{fault}");
    let (ended, forced, fault) = walk(&["--force"]);
    assert!(ended && !forced.is_empty(), "{fault}");
}
