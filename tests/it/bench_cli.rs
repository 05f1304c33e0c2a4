//! `codelora bench` as a program: killed and called again, with its flags, at several temperatures.

use std::fs;
use std::path::Path;

use codelora::bench::report::EvaluationRecord;
use codelora::bench::run::Attempt;
use codelora::experiment::Experiment;
use codelora::sandbox::Outcome;

use crate::bench_harness::{small_experiment, untimed};

/// The program itself, on the small experiment.
fn bench(exp: &Experiment, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_codelora"));
    command.arg("bench").arg("--experiment").arg(&exp.file).args(arguments).stdout(std::process::Stdio::piped());
    command
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let (folder, exp) = small_experiment();
    let arguments = ["--samples", "40", "--v1-draws", "0"];
    // Other settings than the file's have a folder of their own, named by what differs.
    let own = exp.run_file("bench/samples40-draws0");
    let log = own.join("attempts-before.jsonl");
    let lines = || fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_string).collect::<Vec<_>>();
    let mut child = bench(&exp, &arguments).spawn().unwrap();
    while lines().len() < 20 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let made = lines();
    assert!(made.len() < 200 && !own.join("records/evaluation.json").exists(), "{} attempts", made.len());
    let output = bench(&exp, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let whole = lines();
    assert_eq!(whole.len(), 200);
    // Times differ from run to run: attempts that still have theirs were not made again. The last line may have been torn.
    assert!(made[..made.len() - 1].iter().all(|line| whole.contains(line)), "an attempt was made twice");
    let other = folder.path().join("other");
    let output = bench(&exp, &arguments).arg("--output").arg(&other).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["attempts-before.jsonl", "attempts-after.jsonl"] {
        let read = |folder: &Path| untimed(&codelora::artifact::read_jsonl::<Attempt>(&folder.join(name)).unwrap());
        assert_eq!(read(&own), read(&other), "{name}");
    }
}

#[test]
fn the_protocol_the_report_and_foreign_samples_have_their_flags() {
    let (folder, exp) = small_experiment();
    let run = |arguments: &[&str]| {
        let output = bench(&exp, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = run(&["--protocol", "v1", "--v1-draws", "1", "--report", "--write-samples"]);
    let own = exp.run_file("bench/v1-draws1");
    for file in ["report.html", "report.md", "samples-before.jsonl", "samples-after-evalplus.jsonl"] {
        assert!(own.join(file).is_file() && said.contains(file), "{file}: {said}");
    }
    let record: EvaluationRecord = codelora::artifact::read_json(&own.join("records/evaluation.json")).unwrap();
    let protocol = &record.protocol;
    assert_eq!((protocol.samples, protocol.temperature, protocol.top_k), (1, 0.8, 40));
    assert_eq!((protocol.max_new_tokens, protocol.template.as_str()), (100, "few_shot"));
    let page = fs::read_to_string(own.join("report.md")).unwrap();
    assert!(
        page.contains("Protocol: template few_shot, 1 samples a task, temperature 0.8, at most 100 tokens"),
        "{page}"
    );

    // What was written for others is judged as it was here.
    let samples = own.join("samples-after-evalplus.jsonl");
    let said = run(&["--judge", samples.to_str().unwrap()]);
    assert!(said.contains("pass@1") && said.contains("samples-after-evalplus"), "{said}");
    let judged = exp.run_file("bench/judged-samples-after-evalplus/attempts.jsonl");
    let judged: Vec<Attempt> = codelora::artifact::read_jsonl(&judged).unwrap();
    let after: Vec<Attempt> = codelora::artifact::read_jsonl(&own.join("attempts-after.jsonl")).unwrap();
    let verdicts = |attempts: &[Attempt]| attempts.iter().map(|a| a.outcome == Outcome::Passed).collect::<Vec<_>>();
    assert_eq!(verdicts(&judged), verdicts(&after));

    let nowhere = folder.path().join("none.jsonl");
    fs::write(&nowhere, "").unwrap();
    let output = bench(&exp, &["--judge", nowhere.to_str().unwrap()]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no sample in the file"));
}

#[test]
fn several_temperatures_are_measured_side_by_side() {
    let (_folder, exp) = small_experiment();
    let output = bench(&exp, &["--temperature", "0,0.8", "--samples", "3", "--v1-draws", "0"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let table = said.split("── temperatures").nth(1).unwrap_or_else(|| panic!("no table: {said}"));
    let rows: Vec<&str> = table.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(rows.len(), 6, "a head, a line, and a row for each temperature and checkpoint: {said}");
    for (row, start) in rows[2..].iter().zip(["0 ", "0 ", "0.8", "0.8"]) {
        assert!(row.starts_with(start), "{row}");
    }
    let record = |name: &str| -> EvaluationRecord {
        codelora::artifact::read_json(&exp.run_file("bench").join(name).join("records/evaluation.json")).unwrap()
    };
    let [greedy, random] = ["samples1-temperature0-draws0", "samples3-temperature0.8-draws0"].map(record);
    assert_eq!((greedy.before.attempts, random.before.attempts), (5, 15), "greedy has one sample");
    assert_eq!((greedy.protocol.temperature, random.protocol.temperature), (0.0, 0.8));
}
