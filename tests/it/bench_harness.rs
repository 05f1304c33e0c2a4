//! The benchmark end to end: known answers, a random model, a log that was cut off.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use codelora::bench::collapse::shape;
use codelora::bench::report::{self, CheckpointResult, compare};
use codelora::bench::run::{Attempt, AttemptLog, Measured, attempts, replay};
use codelora::bench::self_test::self_test;
use codelora::bench::{samples, tasks};
use codelora::data::task::Task;
use codelora::experiment::{BenchConfig, Experiment};
use codelora::generate::{Finish, Request, Speed, generate};
use codelora::model::config::ArchConfig;
use codelora::model::init::init;
use codelora::model::transformer::Transformer;
use codelora::model::{checkpoint, lora};
use codelora::phases::{decisions, evaluation};
use codelora::progress::Progress;
use codelora::sandbox::{Limits, Outcome, Sandbox};
use codelora::seed::rng;
use codelora::tokenizer::Tokenizer;

use crate::collapse_calibration::human_tasks;

fn benchmark() -> Vec<Task> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/benchmarks/simple20.jsonl");
    tasks::load(&file).unwrap()
}

fn sandbox() -> Sandbox {
    Sandbox::new(Limits::seconds(10.0)).unwrap()
}

/// A model of the shipped base's shape, with random weights.
fn random_model(layers: usize, hidden: usize) -> (Transformer, Tokenizer) {
    let texts: Vec<String> = benchmark().iter().map(|task| format!("{}{}", task.prompt, task.solution)).collect();
    let tokenizer = Tokenizer::train(texts.into_iter(), 2048).unwrap();
    let arch = serde_json::json!({
        "arch_type": "transformer", "num_layers": layers, "hidden_dim": hidden, "num_heads": 6, "ffn_multiplier": 3.0,
        "normalization": "layernorm", "activation": "gelu", "position_encoding": "rope", "tie_word_embeddings": true,
        "vocab_size": 2048, "max_seq_length": 256,
    });
    let config: ArchConfig = serde_json::from_value(arch).unwrap();
    let weights = init(&config, &mut rng(3, "init"), &Device::Cpu).unwrap();
    let weights = weights.into_iter().map(|(key, var)| (key, var.as_tensor().detach()));
    let weights: std::collections::BTreeMap<String, Tensor> = weights.collect();
    (Transformer::from_weights(&config, &weights).unwrap(), tokenizer)
}

fn config(samples: usize) -> BenchConfig {
    BenchConfig {
        compute: None,
        benchmark: PathBuf::from("data/benchmarks/simple20.jsonl"),
        samples,
        temperature: 0.8,
        top_k: 0,
        top_p: 1.0,
        max_new_tokens: 24,
        template: "bare".into(),
        time_limit_s: 3.0,
        adapter: None,
        eight_bits: false,
        min_p: 0.0,
        repetition_penalty: 1.0,
        stop: Vec::new(),
        best_of: 1,
        v1_draws: 5,
    }
}

/// Attempts without what differs between runs: times, and the last bits of numbers that went through JSON.
pub fn untimed(attempts: &[Attempt]) -> Vec<Attempt> {
    let untimed = |attempt: &Attempt| {
        let mut attempt = Attempt { seconds: 0.0, log_likelihood: 0.0, ..attempt.clone() };
        (attempt.shape.distinct_4, attempt.shape.whitespace) = (0.0, 0.0);
        attempt
    };
    attempts.iter().map(untimed).collect()
}

#[test]
fn right_answers_pass_and_spoilt_ones_do_not() {
    let result = self_test(&benchmark(), &sandbox()).unwrap();
    assert!(result.canonical >= 20 && result.mutated >= 60, "{result:?}");
    assert_eq!((result.canonical_passed, result.mutated_passed), (result.canonical, 0), "{:?}", result.faults);
}

#[test]
fn the_self_test_can_fail() {
    let mut tasks = benchmark();
    tasks.truncate(2);
    tasks[0].solution = "    return 'wrong'\n".into();
    tasks[1].tests = vec!["pass".into()];
    let result = self_test(&tasks, &sandbox()).unwrap();
    assert_eq!(result.canonical_passed, 1);
    assert!(result.mutated_passed > 0);
    assert_eq!(result.faults.len(), 2);
}

#[test]
fn every_kind_of_failure_has_its_outcome() {
    let tasks = benchmark();
    let task = tasks.iter().find(|task| task.entry_point == "add").unwrap();
    let cases = [
        (task.solution.clone(), Outcome::Passed),
        (format!("{}\n\nimport nothing_of_the_kind\n", task.solution), Outcome::Passed),
        ("    return 0\n".into(), Outcome::WrongAnswer),
        ("    return [][1]\n".into(), Outcome::Exception("IndexError".into())),
        ("    return undefined_name\n".into(), Outcome::NameError),
        ("    return (\n".into(), Outcome::SyntaxError),
        ("    # nothing\n".into(), Outcome::Empty),
        (String::new(), Outcome::Empty),
        ("\n".repeat(100), Outcome::Collapsed),
        (format!("    return {}\n", ")".repeat(40)), Outcome::Collapsed),
        ("    while True:\n        pass\n".into(), Outcome::TimedOut),
    ];
    let completions: Vec<(String, String)> = cases.iter().map(|(text, _)| (task.id.clone(), text.clone())).collect();
    let sandbox = Sandbox::new(Limits::seconds(2.0)).unwrap();
    let attempts = replay(&tasks, &completions, &sandbox, &Progress::new("cases", cases.len())).unwrap();
    for (attempt, (text, expected)) in attempts.iter().zip(&cases) {
        assert_eq!(attempt.outcome, *expected, "{text:?}: {}", attempt.message);
    }
    assert!(replay(&tasks, &[("nobody".into(), String::new())], &sandbox, &Progress::new("x", 1)).is_err());
}

#[test]
fn a_run_that_was_cut_off_continues_and_ends_the_same() {
    let (model, tokenizer) = random_model(2, 48);
    let (tasks, sandbox, config) = (benchmark(), sandbox(), config(3));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attempts.jsonl");
    let measure = |log: AttemptLog| -> Measured {
        let progress = Progress::new("attempts", tasks.len() * config.samples);
        attempts(&model, &tokenizer, &tasks, &config, 5, &sandbox, log, &progress).unwrap()
    };
    let whole = measure(AttemptLog::open(&path, "stamp").unwrap());
    assert_eq!(whole.attempts.len(), tasks.len() * 3);
    assert_eq!(untimed(&codelora::artifact::read_jsonl::<Attempt>(&path).unwrap()), untimed(&whole.attempts));
    // Keep ten attempts and a piece of the eleventh.
    let text = fs::read_to_string(&path).unwrap();
    let end = text.match_indices('\n').nth(9).unwrap().0 + 40;
    fs::write(&path, &text[..end]).unwrap();
    let resumed = measure(AttemptLog::open(&path, "stamp").unwrap());
    assert_eq!(untimed(&resumed.attempts), untimed(&whole.attempts));
    assert!(resumed.speed.tokens < whole.speed.tokens);
    let again = measure(AttemptLog::open(&path, "stamp").unwrap());
    assert_eq!((again.speed.tokens, untimed(&again.attempts)), (0, untimed(&whole.attempts)));

    let result = CheckpointResult::new("random", &tasks, &whole, 5);
    assert_eq!(result.outcomes.values().sum::<usize>(), result.attempts);
    assert_eq!(result.finishes.values().sum::<usize>(), result.attempts);
    assert!(result.pass_at_10.is_none(), "three samples say nothing about ten");
    assert!(result.pass_at_1.high > 0.1, "20 tasks leave doubt");
    let change = compare(&result, &result, 5);
    assert_eq!((change.p_value, change.difference.estimate, change.same.len()), (1.0, 0.0, tasks.len()));
}

#[test]
fn greedy_samples_are_one_sample() {
    let (model, tokenizer) = random_model(1, 48);
    let config = BenchConfig { temperature: 0.0, ..config(2) };
    let progress = Progress::new("attempts", 2);
    let tasks = &benchmark()[..1];
    let run = attempts(&model, &tokenizer, tasks, &config, 5, &sandbox(), AttemptLog::in_memory(), &progress);
    assert!(run.unwrap_err().to_string().contains("samples = 1"));
}

#[test]
fn of_several_candidates_the_likeliest_is_the_sample() {
    let (model, tokenizer) = random_model(1, 48);
    let (tasks, sandbox) = (&benchmark()[..3], sandbox());
    let measure = |config: &BenchConfig| {
        let progress = Progress::new("attempts", tasks.len() * config.samples);
        attempts(&model, &tokenizer, tasks, config, 5, &sandbox, AttemptLog::in_memory(), &progress).unwrap().attempts
    };
    let chosen = measure(&BenchConfig { best_of: 4, ..config(2) });
    assert_eq!(chosen.len(), 6);
    let sampling = tasks::sampling(&config(2), 5);
    for attempt in &chosen {
        let task = tasks.iter().find(|task| task.id == attempt.task).unwrap();
        let keys = (0..4).map(|n| match n {
            0 => format!("{}#{}", task.id, attempt.sample),
            n => format!("{}#{}.{n}", task.id, attempt.sample),
        });
        let requests: Vec<_> = keys.map(|key| Request { key, prompt: task.prompt.clone() }).collect();
        let candidates =
            generate(&model, &tokenizer, &requests, &sampling, &Progress::new("candidates", requests.len())).unwrap();
        let most = candidates.iter().map(|c| c.log_likelihood / c.tokens.len() as f64).fold(f64::MIN, f64::max);
        assert!((attempt.log_likelihood / attempt.tokens as f64 - most).abs() < 1e-4, "{}", attempt.task);
        assert!(candidates.iter().any(|candidate| candidate.text == attempt.completion));
    }
    let (alone, mean) = (measure(&config(2)), |a: &Attempt| a.log_likelihood / a.tokens as f64);
    assert!(chosen.iter().zip(&alone).all(|(chosen, alone)| mean(chosen) >= mean(alone) - 1e-4), "more is never less");
    assert!(chosen.iter().zip(&alone).any(|(chosen, alone)| chosen.completion != alone.completion));
    for (best_of, temperature) in [(0, 0.8), (2, 0.0)] {
        let config = BenchConfig { best_of, temperature, ..config(1) };
        let progress = Progress::new("attempts", 3);
        let run = attempts(&model, &tokenizer, tasks, &config, 5, &sandbox, AttemptLog::in_memory(), &progress);
        assert!(run.unwrap_err().to_string().contains("best_of"));
    }
}

#[test]
fn the_likeliest_samples_rate_is_of_one_sample_a_task() {
    let (tasks, shape) = (&benchmark()[..2], shape("", ""));
    let attempt = |task: usize, sample, log_likelihood, tokens, outcome| Attempt {
        task: tasks[task].id.clone(),
        sample,
        completion: String::new(),
        body: String::new(),
        tokens,
        finish: Finish::EndOfSequence,
        log_likelihood,
        outcome,
        message: String::new(),
        tests_passed: 0,
        tests: 1,
        seconds: 0.0,
        shape,
    };
    let measured = |attempts| Measured { attempts, speed: Speed { tokens: 0, seconds: 0.0 }, seconds: 0.0 };
    let likeliest = |attempts| CheckpointResult::new("x", tasks, &measured(attempts), 5).pass_at_1_likeliest;
    let found = likeliest(vec![
        attempt(0, 0, -4.0, 2, Outcome::WrongAnswer),
        attempt(0, 1, -5.0, 10, Outcome::Passed), // less likely as a whole, likelier by the token
        attempt(1, 0, -1.0, 10, Outcome::WrongAnswer),
        attempt(1, 1, -2.0, 10, Outcome::Passed),
    ]);
    assert_eq!(found.unwrap().estimate, 0.5);
    let one = vec![attempt(0, 0, -4.0, 2, Outcome::Passed), attempt(1, 0, -4.0, 2, Outcome::Passed)];
    assert!(likeliest(one).is_none(), "one sample is no choice");
    let foreign = (0..2).flat_map(|task| (0..2).map(move |sample| (task, sample)));
    let foreign = foreign.map(|(task, sample)| attempt(task, sample, 0.0, 0, Outcome::Passed)).collect();
    assert!(likeliest(foreign).is_none(), "nothing is known of samples made elsewhere");
}

const GATE: &str = "[[gate]]\nname = \"solves\"\nmetric = \"evaluation.after.expected_solved\"\nrule = \"at_least\"\n\
                    threshold = 5\nreason = \"r\"\non_pass = \"p\"\non_fail = \"f\"\n";

/// A folder with an experiment, a small random base and an adapter whose updates are not zero.
pub fn small_experiment() -> (tempfile::TempDir, Experiment) {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(folder.path().join("Cargo.toml"), "").unwrap();
    let text = fs::read_to_string(root.join("data/experiments/quick.toml")).unwrap();
    let text = text.split("[[gate]]").next().unwrap().replace("samples = 20 ", "samples = 2 ");
    let text = text.replace("max_new_tokens = 100", "max_new_tokens = 16").replace("v1_draws = 20 ", "v1_draws = 5 ");
    fs::write(folder.path().join("quick.toml"), format!("{text}\n{GATE}")).unwrap();
    let exp = Experiment::open(folder.path().join("quick.toml")).unwrap();
    let tasks: String = benchmark()[..5].iter().map(|task| serde_json::to_string(task).unwrap() + "\n").collect();
    fs::create_dir_all(folder.path().join("data/benchmarks")).unwrap();
    fs::write(exp.path(&exp.config.bench.benchmark), tasks).unwrap();
    let base = exp.path(&exp.config.base.folder);
    let (mut model, tokenizer) = random_model(2, 48);
    fs::create_dir_all(&base).unwrap();
    model.config().save(&base.join("arch.json")).unwrap();
    tokenizer.save(&base.join("tokenizer.json")).unwrap();
    checkpoint::save_safetensors(&model.weights(), &base.join("model.safetensors"), DType::F32, &Default::default())
        .unwrap();
    let base = checkpoint::load(&base, &Device::Cpu).unwrap();
    let adapter = lora::attach(&mut model, &exp.config.lora, &mut rng(1, "adapter")).unwrap();
    for variable in adapter.parameters().values() {
        let moved = (variable.as_tensor().ones_like().unwrap() * 0.05).unwrap();
        variable.set(&(variable.as_tensor() + moved).unwrap()).unwrap();
    }
    adapter.save_peft(&exp.adapter_folder(), &base.digest).unwrap();
    (folder, exp)
}

#[test]
fn the_phase_measures_reopens_and_refuses_what_it_was_not_made_with() {
    let (_folder, exp) = small_experiment();
    let first = evaluation::run(&exp).unwrap();
    let record = &first.record;
    assert_eq!((record.before.attempts, record.after.attempts), (10, 10));
    assert_eq!((record.v1_before.draws.len(), record.v1_after.tasks), (5, 5));
    assert_eq!(record.self_test.mutated_passed, 0);
    let texts = |attempts: &[Attempt]| attempts.iter().map(|a| a.completion.clone()).collect::<Vec<_>>();
    assert_ne!(texts(&first.before), texts(&first.after), "the adapter has an effect");
    let again = evaluation::run(&exp).unwrap();
    assert!((again.record.seconds - record.seconds).abs() < 1e-9, "reopened, not measured again");
    assert_eq!((&again.record.inputs, &again.record.before.outcomes), (&record.inputs, &record.before.outcomes));
    assert_eq!(untimed(&again.after), untimed(&first.after));
    let forced = evaluation::run(&exp.clone().forced(true)).unwrap();
    assert_eq!(untimed(&forced.after), untimed(&first.after), "and reproducible");

    let page = fs::read_to_string(exp.run_file("report.html")).unwrap();
    assert!(page.contains("Self-test: 5 of 5") && page.contains("is_even") && !page.contains("<script"));
    assert!(report::markdown(record).contains("| pass@1 [over tasks] |"));
    assert_eq!(report::task_table(record).unwrap().height(), 5);
    assert_eq!(report::attempt_table(&first.after).unwrap().height(), 10);
    assert!(report::checkpoint_table(record).unwrap().height() > 8);

    let decisions = decisions::run(&exp).unwrap().record;
    assert!((decisions.decisions[0].value.high - record.after.expected_solved.high).abs() < 1e-9);
    assert_eq!(decisions.decisions[0].evidence.file, "data/runs/quick/records/evaluation.json");

    // Another adapter under the same experiment must not be taken for the one that was measured.
    let base = exp.path(&exp.config.base.folder).join("model.safetensors");
    let adapter = exp.adapter_folder().join("adapter_model.safetensors");
    let saved = fs::read(&adapter).unwrap();
    fs::copy(&base, &adapter).unwrap();
    let error = evaluation::run(&exp).unwrap_err().to_string();
    assert!(error.contains("adapter") && error.contains("--force"), "{error}");
    let error = evaluation::run(&exp.clone().forced(true)).unwrap_err().to_string();
    assert!(error.contains("adapter_model.safetensors"), "{error}");
    fs::write(&adapter, saved).unwrap();
    let mut changed = exp.clone();
    changed.config.bench.temperature = 0.5;
    let error = evaluation::run(&changed).unwrap_err().to_string();
    assert!(error.contains("--force"), "{error}");
}

#[test]
fn samples_go_out_and_come_back() {
    let tasks = benchmark();
    let completions: Vec<_> = tasks.iter().map(|task| (task.id.clone(), task.solution.clone())).collect();
    let attempts = replay(&tasks, &completions, &sandbox(), &Progress::new("samples", tasks.len())).unwrap();
    assert!(attempts.iter().all(|attempt| attempt.outcome == Outcome::Passed));
    let folder = tempfile::tempdir().unwrap();
    let (ours, plus) = (folder.path().join("samples.jsonl"), folder.path().join("plus.jsonl"));
    samples::write_humaneval(&ours, &tasks, &attempts).unwrap();
    samples::write_evalplus(&plus, &tasks, &attempts).unwrap();
    assert_eq!(samples::read(&ours, &tasks).unwrap(), completions);
    assert_eq!(samples::read(&plus, &tasks).unwrap(), completions);
    fs::write(&ours, "{\"task_id\": \"HumanEval/999\", \"completion\": \"\"}\n").unwrap();
    let error = samples::read(&ours, &tasks).unwrap_err().to_string();
    assert!(error.contains(":1: there is no task"), "{error}");
}

#[test]
fn known_answers_are_judged_right_on_every_set_at_hand() {
    let tasks = human_tasks();
    let result = self_test(&tasks, &Sandbox::new(Limits::seconds(30.0)).unwrap()).unwrap();
    println!(
        "{} of {} solutions passed, {} of {} spoilt ones",
        result.canonical_passed, result.canonical, result.mutated_passed, result.mutated
    );
    assert_eq!(result.mutated_passed, 0, "{:?}", result.faults);
    // MBPP holds one row whose tests need a name that neither its code nor its setup brings.
    assert!(result.canonical - result.canonical_passed <= 1, "{:?}", result.faults);
}

/// Run with `cargo test --release --test it -- --ignored speed --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn speed_with_the_shape_of_the_shipped_base() {
    let (model, tokenizer) = random_model(6, 192);
    let tasks = benchmark();
    let config = BenchConfig { max_new_tokens: 100, ..config(20) };
    let progress = Progress::new("attempts", tasks.len() * config.samples);
    let log = AttemptLog::in_memory();
    let measured = attempts(&model, &tokenizer, &tasks, &config, 5, &sandbox(), log, &progress).unwrap();
    let speed = measured.speed;
    println!("{} tokens, {:.0} tokens/s, {:.1} s in all", speed.tokens, speed.tokens_per_second(), measured.seconds);
    // A random model leaves the function at once; without stops every sample is as long as it can be.
    let requests: Vec<_> = tasks
        .iter()
        .flat_map(|task| (0..20).map(|i| Request { key: format!("{i}"), prompt: task.prompt.clone() }))
        .collect();
    let sampling = codelora::generate::Sampling { stop_at_dedent: false, ..tasks::sampling(&config, 5) };
    let speed = codelora::generate::stream(&model, &tokenizer, &requests, &sampling, |_, _| Ok(())).unwrap();
    println!(
        "without stops: {} tokens, {:.0} tokens/s, {:.1} s",
        speed.tokens,
        speed.tokens_per_second(),
        speed.seconds
    );
    let programs: Vec<_> = tasks.iter().flat_map(|task| (0..20).map(|_| task.program(&task.solution))).collect();
    let start = std::time::Instant::now();
    sandbox().run_all(&programs, &Progress::new("programs", programs.len())).unwrap();
    println!("{:.0} programs/s", programs.len() as f64 / start.elapsed().as_secs_f64());
}
