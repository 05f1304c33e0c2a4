//! Phase 1 from end to end: every row is accounted for, artifacts reopen, a person's decisions hold, nothing leaks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use codelora::data::filter::Reason;
use codelora::data::task::Sample;
use codelora::experiment::{Experiment, SplitPlan};
use codelora::phases::data_collection::{self, DataCollection};
use codelora::tokenizer::Tokenizer;
use codelora::{Error, artifact};

/// The default experiment with its folders under `folder` and a vocabulary of its own.
fn experiment(folder: &Path, change: impl FnOnce(&mut codelora::experiment::Config)) -> Experiment {
    let mut exp = Experiment::open("data/experiments/quick.toml").expect("the default experiment opens");
    exp.config.paths.data = folder.join("data");
    exp.config.paths.run = folder.join("run");
    exp.config.paths.figures = folder.join("figures");
    exp.config.data.exercises = 40;
    let tokenizer = folder.join("tokenizer.json");
    if !tokenizer.exists() {
        let texts = codelora::data::exercises::generate(1, 200, &[])
            .unwrap()
            .into_iter()
            .map(|task| task.prompt + &task.solution);
        let trained = Tokenizer::train(texts, 1024).expect("a vocabulary can be trained");
        trained.save(&tokenizer).expect("the vocabulary can be written");
    }
    exp.config.data.tokenizer = Some(tokenizer);
    change(&mut exp.config);
    exp
}

fn run(exp: &Experiment) -> DataCollection {
    data_collection::run(exp).expect("the phase runs")
}

fn assert_nothing_is_lost(collection: &DataCollection) {
    let record = &collection.record;
    let out = collection.train.len() + collection.validation.len() + collection.held_out.len();
    assert_eq!(record.read, out + collection.rejections.len());
    let ids: BTreeSet<&str> = collection.tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids.len(), out, "a sample is in two splits");
    assert_eq!(collection.tasks.len(), out);
}

/// Rows that try to break the phase; `tests` hold for the good ones.
fn imported(folder: &Path, rows: &[&[u8]]) -> PathBuf {
    let path = folder.join("import.jsonl");
    fs::write(&path, rows.join(&b'\n')).expect("the file can be written");
    path
}

fn sample(id: &str, body: &str) -> String {
    let prompt = "def triple_all(values):\n    \"\"\"Return a list with each of the values times three.\"\"\"\n";
    let tests = ["assert triple_all([1, 2]) == [3, 6]", "assert triple_all([]) == []"];
    serde_json::json!({"id": id, "prompt": prompt, "solution": body, "tests": tests}).to_string()
}

#[test]
fn hostile_and_broken_rows_are_named_and_cost_no_other_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = [
        sample("good", "    return [value * 3 for value in values]\n"),
        "{\"id\": \"torn\", ".into(),
        "[1, 2]".into(),
        "{\"id\": \"bare\"}".into(),
        "{\"id\": 7}".into(),
        sample("good", "    return [3 * value for value in values]\n"),
        sample("wrong", "    return values\n"),
        sample("hangs", "    while True:\n        pass\n"),
        sample("forks", "    import os\n    while True:\n        os.fork()\n"),
        sample("eats", "    return [0] * 10 ** 12\n"),
        sample("prints", "    while True:\n        print(\"x\" * 1000)\n"),
        sample("leaves", "    import os\n    os._exit(0)\n"),
        sample("syntax", "    return [value * 3 for value in\n"),
        sample("tabbed", "\treturn [value * 3 for value in values]\n"),
        sample("long", &format!("{}    return [value * 3 for value in values]\n", "    values = values\n".repeat(40))),
        sample("foreign", "    import numpy\n    return [value * 3 for value in values]\n"),
        sample("again", "    return [v * 3 for v in values]\n"),
        sample("named", "    def gcd(a):\n        return a * 3\n    return [gcd(value) for value in values]\n"),
        sample("trivial", "    return 1\n")
            .replace("assert triple_all([]) == []", "1")
            .replace("assert triple_all([1, 2]) == [3, 6]", "1"),
    ];
    let behaviour = serde_json::json!({
        "id": "behaves", "prompt": "def join_up(first, second):\n    \"\"\"Put two together.\"\"\"\n",
        "solution": "    result = first\n    result += second\n    return result\n", "tests": ["assert join_up(2, 3) == 5"]
    });
    let behaviour = behaviour.to_string();
    let mut bytes: Vec<&[u8]> = rows.iter().map(String::as_bytes).collect();
    bytes.extend([b"{\"id\": \"\xff\"}".as_slice(), behaviour.as_bytes()]);
    let import = imported(folder.path(), &bytes);
    let exp = experiment(folder.path(), |config| {
        config.data.sources = vec![codelora::experiment::Source::Imported];
        config.data.import = Some(import);
        config.data.time_limit_s = 1.0;
        config.data.split.validation = 0;
    });
    let collection = run(&exp);
    assert_nothing_is_lost(&collection);
    let found: BTreeMap<&str, Reason> = collection.rejections.iter().map(|r| (r.id.as_str(), r.reason)).collect();
    let expected = [
        ("import.jsonl:2", Reason::BrokenJson),
        ("bare", Reason::MissingField),
        ("import.jsonl:5", Reason::WrongType),
        ("import.jsonl:6", Reason::DuplicateId),
        ("import.jsonl:20", Reason::NotUtf8),
        ("wrong", Reason::Unverified),
        ("hangs", Reason::Unverified),
        ("forks", Reason::Unverified),
        ("eats", Reason::Unverified),
        ("prints", Reason::Unverified),
        ("leaves", Reason::Unverified),
        ("syntax", Reason::DoesNotParse),
        ("tabbed", Reason::NotSplit),
        ("foreign", Reason::Unverified),
        ("again", Reason::Duplicate),
        ("named", Reason::BenchmarkName),
        ("trivial", Reason::TestsProveNothing),
        ("behaves", Reason::BenchmarkBehaviour),
    ];
    for (id, reason) in expected {
        assert_eq!(found.get(id), Some(&reason), "{id}: {:?}", collection.rejections);
    }
    assert!(matches!(found.get("long"), Some(Reason::TooManyLines | Reason::TooManyTokens)));
    assert_eq!(collection.train.iter().map(|sample| sample.id.as_str()).collect::<Vec<_>>(), ["good"]);
}

#[test]
fn each_broken_row_of_the_golden_file_is_rejected_for_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy("tests/golden/broken_mbpp.jsonl", folder.path().join("mbpp.jsonl")).expect("the golden file is there");
    let exp = experiment(folder.path(), |config| {
        config.data.sources = vec![codelora::experiment::Source::Mbpp];
        config.data.time_limit_s = 1.0;
    });
    let collection = run(&exp.with_external(folder.path()));
    assert_nothing_is_lost(&collection);
    let found: BTreeMap<&str, Reason> = collection.rejections.iter().map(|r| (r.id.as_str(), r.reason)).collect();
    let expected = [
        ("mbpp.jsonl:2", Reason::BrokenJson),
        ("mbpp.jsonl:3", Reason::WrongType),
        ("mbpp_904", Reason::MissingField),
        ("mbpp.jsonl:5", Reason::WrongType),
        ("mbpp_906", Reason::WrongType),
        ("mbpp_907", Reason::NoTests),
        ("mbpp_908", Reason::NoEntryPoint),
        ("mbpp_909", Reason::NoEntryPoint),
        ("mbpp_910", Reason::NotSplit),
        ("mbpp_911", Reason::Unverified),
        ("mbpp_912", Reason::TestsProveNothing),
        ("mbpp_913", Reason::Unverified),
        ("mbpp.jsonl:14", Reason::DuplicateId),
        ("mbpp_915", Reason::BenchmarkName),
        ("mbpp_916", Reason::BenchmarkBehaviour),
    ];
    assert_eq!(found, BTreeMap::from(expected));
    assert_eq!(collection.train.iter().map(|sample| sample.id.as_str()).collect::<Vec<_>>(), ["mbpp_901"]);
}

#[test]
fn the_embedded_walk_reopens_notices_changes_and_honours_the_worklist() {
    let folder = tempfile::tempdir().expect("a folder");
    let exp = experiment(folder.path(), |_| {});
    let first = run(&exp);
    assert_nothing_is_lost(&first);
    assert!(first.record.verified_rate() > 0.95, "{:?}", first.rejections);
    for file in
        ["v2_raw/embedded_humaneval.jsonl", "v2_raw/embedded_mbpp.jsonl", "v2_raw/exercises.jsonl", "rejects.jsonl"]
    {
        assert!(exp.data_file(file).is_file(), "{file}");
    }
    let train: Vec<Sample> = artifact::read_jsonl(&exp.data_file("v2_train.jsonl")).expect("exactly three fields");
    assert_eq!(train, first.train);

    let start = Instant::now();
    let again = run(&exp);
    assert!(start.elapsed().as_millis() < 1000, "{:?}", start.elapsed());
    assert_eq!((&again.train, &again.held_out, &again.tasks), (&first.train, &first.held_out, &first.tasks));
    assert!(again.record == first.record, "the record changes when it is reopened");

    let mut other = exp.clone();
    other.config.data.split.plan = SplitPlan::Pooled;
    assert!(matches!(data_collection::run(&other), Err(Error::Mismatch { .. })));

    let dropped = &first.train[0].id;
    let note = format!("{{\"id\": {dropped:?}, \"decision\": \"drop\", \"note\": \"unclear question\"}}\n");
    fs::write(exp.data_file("worklist.jsonl"), &note).expect("the worklist can be written");
    let curated = run(&exp);
    let rejection = curated.rejections.iter().find(|rejection| &rejection.id == dropped).expect("it is rejected");
    assert_eq!((rejection.reason, rejection.detail.as_str()), (Reason::DroppedByHand, "unclear question"));
    let kept = fs::read_to_string(exp.data_file("worklist.jsonl")).expect("the worklist stays");
    assert!(kept.contains("unclear question"));

    fs::write(exp.data_file("v2_train.jsonl"), "{}").expect("a file can be spoilt");
    let error = data_collection::run(&exp).expect_err("a changed file is noticed").to_string();
    assert!(error.contains("v2_train.jsonl was changed") && error.contains("--force"), "{error}");
}

#[test]
fn missing_inputs_say_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let public = |config: &mut codelora::experiment::Config| {
        config.data.sources = vec![codelora::experiment::Source::Mbpp];
    };
    let exp = experiment(folder.path(), public).with_external(folder.path().join("nowhere"));
    let error = data_collection::run(&exp).expect_err("nothing is there").to_string();
    assert!(error.contains("mbpp.jsonl is missing") && error.contains("--external"), "{error}");
    fs::write(folder.path().join("mbpp.jsonl"), "\n").expect("a file can be written");
    let error = data_collection::run(&exp.with_external(folder.path())).expect_err("it is empty").to_string();
    assert!(error.contains("mbpp.jsonl:1: the file is empty"), "{error}");
    let exp = experiment(folder.path(), |config| config.data.tokenizer = Some("/nowhere/tokenizer.json".into()));
    let error = data_collection::run(&exp).expect_err("there is no vocabulary").to_string();
    assert!(error.contains("no vocabulary") && error.contains("[data]"), "{error}");
}

#[test]
fn the_public_datasets_reach_their_counts_and_plain_python_agrees() {
    let (Some(external), Some(v1)) = (std::env::var_os("CODELORA_EXTERNAL"), std::env::var_os("CODELORA_V1")) else {
        println!(
            "skipped: set CODELORA_EXTERNAL and CODELORA_V1 to the folders of the datasets and the earlier vocabulary"
        );
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = std::env::var_os("CODELORA_KEEP").map_or(folder.path().to_path_buf(), PathBuf::from);
    for (file, least_train) in [("data/experiments/v2.toml", 500), ("data/experiments/v2-clean.toml", 500)] {
        let mut exp = Experiment::open(file).expect("the experiment opens").with_external(&external);
        let place = folder.join(&exp.config.name);
        exp.config.paths.data = place.join("data");
        exp.config.paths.figures = place.join("figures");
        exp.config.data.tokenizer = Some(Path::new(&v1).join("tokenizer.json"));
        let start = Instant::now();
        let collection = run(&exp.clone().forced(true));
        println!(
            "{file}: {:.1} s\n{}",
            start.elapsed().as_secs_f64(),
            collection.record.sources_table().expect("a table")
        );
        println!("{}", collection.record.rejections_table().expect("a table"));
        println!("{:?} clusters {}", collection.record.seconds, collection.record.clusters.len());
        assert_nothing_is_lost(&collection);
        let record = &collection.record;
        assert_eq!(record.converted, 1138);
        assert!(record.verified >= 1137, "{}", record.verified);
        assert!(record.within_tokens >= 1070, "{}", record.within_tokens);
        assert!(record.train >= least_train, "{}", record.train);
        let start = Instant::now();
        run(&exp.clone().forced(true));
        println!("again, from the cache: {:.2} s", start.elapsed().as_secs_f64());
        let start = Instant::now();
        run(&exp);
        println!("reopened: {:.2} s", start.elapsed().as_secs_f64());
        let mut python = Command::new("python3");
        python.arg("tests/verify_rows.py").arg(place.join("data"));
        assert!(python.status().expect("python3 runs").success());
    }
}
