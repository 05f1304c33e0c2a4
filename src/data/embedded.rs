//! Our own tasks, compiled in: rows in the schemas of HumanEval and MBPP, and two benchmarks.
//!
//! The rows are written for this project and carry, on purpose, the irregularities of the real files: Windows line ends,
//! tabs, odd indents, helpers before the function under test, setup code after it. They go through the same converters.
//! `tests/golden/check_embedded.py` proves every row with plain Python.
//!
//! The functions of [`benchmark20`] must never be training data, neither by name nor by AST nor by behaviour. Those of
//! [`other40`] may be: the exercises cover their kinds.

use crate::data::task::Task;
use crate::error::{Error, Result};

const SIMPLE20: &str = include_str!("../../data/benchmarks/simple20.jsonl");
const OTHER40: &str = include_str!("../../data/benchmarks/other40.jsonl");

/// Rows in HumanEval's schema (`task_id`, `prompt`, `entry_point`, `canonical_solution`, `test`), one JSON object a line.
pub fn humaneval() -> &'static str {
    include_str!("../../data/embedded/humaneval.jsonl")
}

/// Rows in MBPP's schema (`text`, `code`, `task_id`, `test_setup_code`, `test_list`, `challenge_test_list`), one JSON object a
/// line. The ids lie in MBPP's official ranges: 1–10 prompt, 11–510 test, 511–600 validation, 601–974 train.
pub fn mbpp() -> &'static str {
    include_str!("../../data/embedded/mbpp.jsonl")
}

/// The 20 tasks the project is judged by: `data/benchmarks/simple20.jsonl`, with the canonical solutions.
///
/// # Errors
/// [`Error::Malformed`] when the compiled-in file is not JSON lines of [`Task`]s; the unit tests rule it out.
pub fn benchmark20() -> Result<Vec<Task>> {
    parse("data/benchmarks/simple20.jsonl", SIMPLE20)
}

/// Forty other tasks of the same difficulty: `data/benchmarks/other40.jsonl`. The exercises hold functions like them, so they
/// measure how much of its training a model can write down again, where the twenty measure what it makes of it.
///
/// # Errors
/// As for [`benchmark20`].
pub fn other40() -> Result<Vec<Task>> {
    parse("data/benchmarks/other40.jsonl", OTHER40)
}

fn parse(path: &str, text: &str) -> Result<Vec<Task>> {
    let row = |(index, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|fault| Error::malformed(path, index + 1, fault.to_string(), "restore the file and rebuild"))
    };
    text.lines().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    /// The twenty names, as the project's story fixes them.
    const TWENTY: [&str; 20] = [
        "add",
        "multiply",
        "max_value",
        "abs_value",
        "is_even",
        "is_prime",
        "factorial",
        "fibonacci",
        "sum_list",
        "reverse_list",
        "find_max",
        "count_vowels",
        "remove_duplicates",
        "is_palindrome",
        "gcd",
        "linear_search",
        "bubble_sort",
        "flatten_list",
        "string_reverse",
        "power",
    ];

    fn rows(text: &str) -> Vec<BTreeMap<String, Value>> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn text<'a>(row: &'a BTreeMap<String, Value>, field: &str) -> &'a str {
        row[field].as_str().unwrap()
    }

    #[test]
    fn the_benchmark_is_the_twenty_in_order() {
        let names: Vec<String> = benchmark20().unwrap().into_iter().map(|task| task.entry_point).collect();
        assert_eq!(names, TWENTY);
    }

    #[test]
    fn benchmark_tasks_are_whole() {
        let mut ids = BTreeSet::new();
        for task in benchmark20().unwrap().into_iter().chain(other40().unwrap()) {
            assert_eq!(task.id, format!("bench_{}", task.entry_point));
            assert!(task.prompt.starts_with(&format!("def {}(", task.entry_point)), "{}", task.id);
            assert!(task.prompt.ends_with("\"\"\"\n"), "{}", task.id);
            assert!(task.solution.starts_with("    ") && task.solution.ends_with('\n'), "{}", task.id);
            assert!(!task.solution.ends_with("\n\n"), "{}", task.id);
            assert!(task.tests.len() >= 6, "{}", task.id);
            assert!(
                task.tests.iter().all(|test| test.starts_with("assert ") && test.contains(&task.entry_point)),
                "{}",
                task.id
            );
            assert!(ids.insert(task.id.clone()), "{} twice", task.id);
        }
        assert_eq!(ids.len(), 60);
    }

    #[test]
    fn humaneval_rows_are_whole() {
        let rows = rows(humaneval());
        assert!(rows.len() >= 30, "{}", rows.len());
        for (number, row) in rows.iter().enumerate() {
            let id = text(row, "task_id");
            assert_eq!(id, format!("Embedded/{number}"));
            assert!(text(row, "prompt").contains(&format!("def {}(", text(row, "entry_point"))), "{id}");
            assert!(text(row, "canonical_solution").ends_with('\n'), "{id}");
            assert!(text(row, "test").matches("assert ").count() >= 5, "{id}");
        }
    }

    #[test]
    fn mbpp_rows_are_whole_and_in_every_official_split() {
        let rows = rows(mbpp());
        assert!(rows.len() >= 60, "{}", rows.len());
        let ids: BTreeSet<u64> = rows.iter().map(|row| row["task_id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), rows.len(), "ids repeat");
        for range in [1..=10, 11..=70, 71..=510, 511..=600, 601..=974] {
            assert!(ids.range(range.clone()).next().is_some(), "no id in {range:?}");
        }
        for row in &rows {
            let tests = row["test_list"].as_array().unwrap();
            assert!(tests.len() + row["challenge_test_list"].as_array().unwrap().len() >= 3, "{}", row["task_id"]);
            assert!(text(row, "code").contains("def "), "{}", row["task_id"]);
            assert!(!text(row, "text").trim().is_empty(), "{}", row["task_id"]);
        }
    }
}
