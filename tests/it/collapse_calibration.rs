//! Where the thresholds of collapse stand: beyond every human solution, and below what a model without a mask writes.

use std::fs;
use std::path::{Path, PathBuf};

use codelora::artifact;
use codelora::bench::collapse::{self, Shape, shape};
use codelora::bench::extract::body;
use codelora::bench::pass_at_k::{Interval, wilson};
use codelora::bench::tasks;
use codelora::bench::twins::{Twin, TwinsRecord};
use codelora::data::embedded;
use codelora::data::task::Task;
use codelora::decide::{Verdict, judge};
use codelora::experiment::Experiment;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Our own rows always, the public ones where they are.
pub fn human_tasks() -> Vec<Task> {
    let mut tasks = tasks::load(&root().join("data/benchmarks/simple20.jsonl")).unwrap();
    tasks.extend(embedded::other40().unwrap());
    let mut texts = vec![embedded::humaneval().to_string(), embedded::mbpp().to_string()];
    match std::env::var_os("CODELORA_EXTERNAL").map(PathBuf::from) {
        Some(folder) => {
            texts.extend(["HumanEval.jsonl", "mbpp.jsonl"].map(|name| fs::read_to_string(folder.join(name)).unwrap()));
        }
        None => println!("CODELORA_EXTERNAL is not set: only our own solutions are tried"),
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    for text in texts {
        fs::write(file.path(), text).unwrap();
        tasks.extend(tasks::load(file.path()).unwrap());
    }
    tasks
}

#[test]
fn no_human_solution_is_called_collapsed_and_none_is_cut() {
    let tasks = human_tasks();
    let named = |holds: &dyn Fn(&Task) -> bool| {
        tasks.iter().filter(|task| holds(task)).map(|task| task.id.as_str()).collect::<Vec<_>>()
    };
    let alarms = named(&|task| shape(&task.solution, &task.solution).collapsed);
    let trivial = named(&|task| !shape("", &task.solution).non_trivial);
    let cut = named(&|task| body(&task.prompt, &task.solution).trim_end() != task.solution.trim_end());
    let Interval { estimate, high, .. } = wilson(alarms.len(), tasks.len());
    println!(
        "{} solutions: {:.2} % called collapsed (at most {:.2} %), {} trivial, {} cut",
        tasks.len(),
        100.0 * estimate,
        100.0 * high,
        trivial.len(),
        cut.len()
    );
    assert!(alarms.is_empty(), "{alarms:?}");
    assert!(trivial.is_empty(), "{trivial:?}");
    assert!(cut.is_empty(), "{cut:?}");
}

#[test]
fn human_solutions_keep_their_distance_from_every_threshold() {
    let shapes: Vec<Shape> = human_tasks().iter().map(|task| shape(&task.solution, &task.solution)).collect();
    let most = |value: fn(&Shape) -> usize| shapes.iter().map(value).max().unwrap();
    let (pieces, characters) = (most(|shape| shape.repeated_pieces), most(|shape| shape.repeated_characters));
    let words = most(|shape| shape.stuttered_words);
    let distinct = shapes.iter().map(|shape| shape.distinct_4).fold(1.0, f64::min);
    let blank = shapes.iter().map(|shape| shape.whitespace).fold(0.0, f64::max);
    println!(
        "furthest: {pieces} pieces, {characters} characters, {words} words, {distinct:.2} distinct, {blank:.2} white space"
    );
    const { assert!(9 < collapse::REPEATED_PIECES && 9 < collapse::REPEATED_CHARACTERS && 0 < collapse::STUTTERED_WORDS) };
    const { assert!(0.46 > collapse::DISTINCT_4 && 0.93 < collapse::WHITESPACE) };
    // What the comments of the constants say is what is measured; each bound lies inside its threshold.
    assert!(pieces <= 9, "{pieces}");
    assert!(characters <= 9, "{characters}");
    assert!(words == 0, "{words}");
    assert!(distinct >= 0.46, "{distinct}");
    assert!(blank <= 0.93, "{blank}");
}

/// Share of what a twin wrote, as it stands in the record, that the thresholds of today call collapsed.
fn collapsed(twin: &Twin) -> Interval {
    let of = |text: &str, prompt: &str| shape(text, &body(prompt, text)).collapsed;
    let count = twin.written.iter().filter(|written| of(&written.completion, &written.prompt)).count();
    wilson(count, twin.written.len())
}

/// The same model, the same training, the same prompts: only the mask differs.
#[test]
fn the_model_without_a_mask_is_found_out_and_its_twin_is_not() {
    let record: TwinsRecord = artifact::read_json(&root().join("figures/records/twins.json")).unwrap();
    let (masked, unmasked) = (collapsed(&record.masked), collapsed(&record.unmasked));
    println!("called collapsed: {unmasked:?} without a mask, {masked:?} with one");
    let exp = Experiment::open(root().join("data/experiments/quick.toml")).unwrap();
    let gate = exp.config.gates.iter().find(|gate| gate.metric == "evaluation.after.collapsed").unwrap();
    assert_eq!(judge(gate, &unmasked).0, Verdict::Fail, "the gate that would have caught the earlier attempt");
    assert_ne!(judge(gate, &masked).0, Verdict::Fail);
    assert!(masked.estimate <= gate.threshold, "a model that is merely small is not collapsed: {masked:?}");
}
