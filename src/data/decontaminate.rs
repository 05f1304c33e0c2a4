//! Keeps the benchmark out of the data, by name, by syntax tree and by behaviour.
//!
//! Every function that a sample defines counts, helpers and nested ones too. Names are compared without case and
//! underscores. Behaviour means: a function at column 0 that takes as many arguments as a benchmark task passes at least
//! four in five of that task's tests, so that a solution that errs at an edge counts as a solution.
//!
//! *How strict that is.* Of HumanEval and MBPP it removes 69 samples: 27 by name, 4 by tree, 38 by behaviour. Asking for
//! every test would find 13 fewer by behaviour; seven in ten would find ten more, of which one (a search in a sorted list)
//! is related to a task. With only the first three tests of each task the criteria would remove 95: the surplus are
//! strangers that agree with a task on three inputs, such as Bell numbers with factorials.

use std::path::Path;

use crate::data::analyze::{CodeFacts, FunctionFacts};
use crate::data::filter::Reason;
use crate::data::fingerprint::{Fingerprint, jaccard, shingles};
use crate::data::task::Task;
use crate::data::verify::{EMPTY_BODY, execute_cached};
use crate::error::{Error, Result};
use crate::sandbox::{Limits, Outcome, Program};

const PROBE: &str = include_str!("probe.py");

/// A benchmark task and what it looks like.
#[derive(Debug, Clone)]
pub struct Forbidden {
    /// The task.
    pub task: Task,
    /// Fewest and most arguments of its function.
    arguments: std::ops::RangeInclusive<usize>,
    /// Its canonical solution, where it has one.
    canonical: Option<Canonical>,
}

/// What a canonical solution looks like.
#[derive(Debug, Clone)]
struct Canonical {
    function: FunctionFacts,
    shingles: Vec<u64>,
    print: Fingerprint,
}

impl Forbidden {
    /// The fingerprint of prompt + canonical solution, where there is one.
    pub fn print(&self) -> Option<&Fingerprint> {
        self.canonical.as_ref().map(|canonical| &canonical.print)
    }

    /// The program whose facts [`forbid`] asks for: prompt and canonical solution, or an empty body.
    pub fn program(task: &Task) -> String {
        let body = if task.solution.is_empty() { EMPTY_BODY } else { &task.solution };
        format!("{}{body}", task.prompt)
    }
}

/// Why a sample repeats the benchmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contamination {
    /// By name, tree or behaviour.
    pub reason: Reason,
    /// The benchmark task's id.
    pub twin: String,
    /// Which function of the sample, and how.
    pub detail: String,
}

/// Names without case and underscores: `is_Prime` and `isprime` are one.
pub(crate) fn plain(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

fn form_shingles(form: &str) -> Vec<u64> {
    let word = |word| match word {
        word if is_number(word) => "v",
        word => word,
    };
    shingles(&form.split(' ').map(word).collect::<Vec<_>>())
}

/// Whether a word of a form is a numbered name such as `v3`.
fn is_number(word: &str) -> bool {
    word.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Prepares the benchmark; `facts` are those of [`Forbidden::program`] of each task. A task without canonical solution
/// is compared by name and behaviour only.
///
/// # Errors
/// [`Error::Invalid`] when a task's program does not parse or does not define its function.
pub fn forbid(tasks: Vec<Task>, facts: &[Option<CodeFacts>]) -> Result<Vec<Forbidden>> {
    let forbidden = |(task, facts): (Task, &Option<CodeFacts>)| {
        let found = facts.as_ref().and_then(|facts| Some((facts, facts.function(&task.entry_point)?.clone())));
        let Some((facts, function)) = found else {
            let what = format!("the program of benchmark task {} does not define {}", task.id, task.entry_point);
            return Err(Error::invalid(what, "correct the task's prompt or its canonical solution"));
        };
        let canonical = (!task.solution.is_empty()).then(|| Canonical {
            print: Fingerprint::new(&Forbidden::program(&task), &facts.form),
            shingles: form_shingles(&function.form),
            function: function.clone(),
        });
        Ok(Forbidden { task, arguments: function.min_args..=function.max_args, canonical })
    };
    tasks.into_iter().zip(facts).map(forbidden).collect()
}

/// For each sample, how it repeats a benchmark task, if it does. Behaviour is only tried where name and tree are clean.
///
/// # Errors
/// When the sandbox cannot be set up or the machine fails.
pub fn check(
    tasks: &[&Task],
    facts: &[&CodeFacts],
    prints: &[&Fingerprint],
    benchmark: &[Forbidden],
    near: f64,
    limits: Limits,
    cache_file: &Path,
) -> Result<Vec<Option<Contamination>>> {
    let statics = facts.iter().zip(prints).map(|(facts, print)| by_sight(facts, print, benchmark, near));
    let mut found: Vec<Option<Contamination>> = statics.collect();
    let clean: Vec<usize> = (0..tasks.len()).filter(|&index| found[index].is_none()).collect();
    let pairs: Vec<Vec<Pair>> = clean.iter().map(|&index| pairs(facts[index], benchmark)).collect();
    let suspects: Vec<usize> = (0..clean.len()).filter(|&place| !pairs[place].is_empty()).collect();
    let table = probe_table(benchmark);
    let program = |task: &Task, pairs: &[Pair]| {
        let test = |pair: &Pair| format!("assert _codelora_differs({}, {:?})", pair.task, pair.function);
        let code = format!("{}{}{PROBE}\n{table}\n", task.prompt, task.solution);
        Program { code, setup: String::new(), tests: pairs.iter().map(test).collect() }
    };
    let programs: Vec<Program> = suspects.iter().map(|&place| program(tasks[clean[place]], &pairs[place])).collect();
    let first = execute_cached(&programs, limits, cache_file, "probe behaviour")?;
    // A probe that did not come to its end says nothing of the pairs behind the fault: they are tried one by one.
    let mut single = Vec::new();
    for (&place, execution) in suspects.iter().zip(&first) {
        match execution.outcome {
            Outcome::Passed => {}
            Outcome::WrongAnswer => {
                let pair = pairs[place].get(execution.tests_passed);
                found[clean[place]] = pair.map(|pair| pair.contamination(benchmark));
            }
            _ => single.extend(pairs[place].iter().map(|pair| (clean[place], pair))),
        }
    }
    let programs: Vec<Program> =
        single.iter().map(|&(index, pair)| program(tasks[index], std::slice::from_ref(pair))).collect();
    let second = execute_cached(&programs, limits, cache_file, "probe again")?;
    for ((index, pair), execution) in single.into_iter().zip(second) {
        if execution.outcome == Outcome::WrongAnswer && found[index].is_none() {
            found[index] = Some(pair.contamination(benchmark));
        }
    }
    Ok(found)
}

/// A function of a sample and the place of a benchmark task that could be called like it.
struct Pair {
    task: usize,
    function: String,
}

impl Pair {
    fn contamination(&self, benchmark: &[Forbidden]) -> Contamination {
        Contamination {
            reason: Reason::BenchmarkBehaviour,
            twin: benchmark[self.task].task.id.clone(),
            detail: format!("{} passes at least four in five of its tests", self.function),
        }
    }
}

fn pairs(facts: &CodeFacts, benchmark: &[Forbidden]) -> Vec<Pair> {
    let functions = facts.functions.iter().filter(|function| function.top_level);
    let fits = |function: &FunctionFacts, forbidden: &Forbidden| {
        forbidden.arguments.clone().any(|count| (function.min_args..=function.max_args).contains(&count))
    };
    functions
        .flat_map(|function| {
            let fitting = (0..benchmark.len()).filter(move |&task| fits(function, &benchmark[task]));
            fitting.map(|task| Pair { task, function: function.name.clone() })
        })
        .collect()
}

/// The benchmark's tests as a Python table: `(name, setup, tests)`.
fn probe_table(benchmark: &[Forbidden]) -> String {
    let rows: Vec<_> = benchmark.iter().map(|f| (&f.task.entry_point, &f.task.setup, &f.task.tests)).collect();
    let json = serde_json::to_string(&rows).unwrap_or_default();
    let literal = serde_json::Value::from(json).to_string();
    format!("_CODELORA_TASKS = __import__('json').loads({literal})")
}

/// By name and by tree.
fn by_sight(facts: &CodeFacts, print: &Fingerprint, benchmark: &[Forbidden], near: f64) -> Option<Contamination> {
    let contamination =
        |reason, forbidden: &Forbidden, detail| Some(Contamination { reason, twin: forbidden.task.id.clone(), detail });
    for function in &facts.functions {
        let name = plain(&function.name);
        if let Some(forbidden) = benchmark.iter().find(|forbidden| plain(&forbidden.task.entry_point) == name) {
            return contamination(Reason::BenchmarkName, forbidden, format!("defines {}", function.name));
        }
    }
    for function in &facts.functions {
        let own = form_shingles(&function.form);
        for (forbidden, canonical) in benchmark.iter().filter_map(|f| Some((f, f.canonical.as_ref()?))) {
            let similarity = match function.form == canonical.function.form {
                true => 1.0,
                false => jaccard(&own, &canonical.shingles, near),
            };
            if similarity >= near {
                let detail = format!("the tree of {} is alike by {similarity:.2}", function.name);
                return contamination(Reason::BenchmarkTree, forbidden, detail);
            }
        }
    }
    let repeats = |forbidden: &&Forbidden| forbidden.print().is_some_and(|other| print.likeness(other, near).is_some());
    let alike = benchmark.iter().find(repeats)?;
    contamination(Reason::BenchmarkTree, alike, "the whole program is alike".into())
}
