//! MBPP rows to tasks (Austin et al. 2021, <https://github.com/google-research/google-research/tree/master/mbpp>,
//! CC-BY-4.0).
//!
//! MBPP has whole programs. The prompt becomes what the entry function needs (imports, helpers, constants), its
//! signature and a docstring made from the question; the solution becomes its body alone. Both `test_list` and
//! `challenge_test_list` (16 tests in 11 rows, none of them in 71–510) must hold.

use std::collections::BTreeSet;

use crate::data::filter::{Reason, Rejection};
use crate::data::python_source::{
    Kind, Line, Statement, bound, indent, lines, names, normalize_line_ends, split_function, statements,
};
use crate::data::row::{Converted, Row};
use crate::data::task::{Provenance, Task};
use crate::experiment::Source;
use crate::seed::sha256;

/// The split that MBPP's authors gave a task: 1–10 few-shot prompts, 11–510 test, 511–600 validation, 601–974 train.
pub fn official_split(task_id: u64) -> &'static str {
    match task_id {
        ..=10 => "prompt",
        11..=510 => "test",
        511..=600 => "validation",
        _ => "train",
    }
}

/// Converts one line of `mbpp.jsonl`: task 601 becomes `mbpp_601`. Our own rows in the same schema
/// ([`Source::EmbeddedMbpp`]) become `own_mbpp_601`.
///
/// # Errors
/// A [`Rejection`] with its reason; its id is empty when the row has none.
pub fn convert(line: &str, source: Source) -> Result<Converted, Rejection> {
    let mut row = Row::parse(line, source)?;
    let task_id = row.number("task_id")?;
    let (prefix, licence) = match source {
        Source::Mbpp => ("mbpp", "CC-BY-4.0"),
        _ => ("own_mbpp", "MIT OR Apache-2.0"),
    };
    row.id = format!("{prefix}_{task_id}");
    let code = normalize_line_ends(row.text("code")?);
    let setup = normalize_line_ends(row.text_or("test_setup_code", "")?);
    let tests: Vec<String> = row.texts("test_list")?.iter().map(|test| normalize_line_ends(test)).collect();
    if tests.is_empty() {
        return Err(row.reject(Reason::NoTests, "`test_list` is empty"));
    }
    let program = Program::read(&code).map_err(|why| row.reject(Reason::NotSplit, why))?;
    let entry = program.entry(&tests).map_err(|why| row.reject(Reason::NoEntryPoint, why))?;
    // A few rows have harder tests besides, which are part of the proof; the entry function is named by the usual ones.
    let harder = row.texts_or_none("challenge_test_list")?;
    let tests: Vec<String> = tests.into_iter().chain(harder.iter().map(|test| normalize_line_ends(test))).collect();
    let wanted = tests.iter().chain([&setup]);
    let (prompt, solution) = program
        .split(&entry, wanted, &docstring(row.text("text")?))
        .map_err(|why| row.reject(Reason::NotSplit, why))?;
    let provenance = Provenance {
        source,
        original_id: task_id.to_string(),
        official_split: Some(official_split(task_id).into()),
        licence: licence.into(),
        raw_sha256: sha256(line),
    };
    let task = Task { id: row.id, prompt, solution, entry_point: entry, setup, tests, provenance: Some(provenance) };
    Ok(Converted { task, original: code })
}

/// A question as the one line of a docstring, escaped so that Python reads back the same words.
fn docstring(question: &str) -> String {
    let words = question.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = words.replace('\\', "\\\\").replace("\"\"\"", "\\\"\\\"\\\"");
    if text.ends_with('"') && !text.ends_with("\\\"") {
        text.truncate(text.len() - 1);
        text.push_str("\\\"");
    }
    format!("    \"\"\"{text}\"\"\"\n")
}

/// A program's statements at column 0.
struct Program<'a> {
    source: &'a str,
    lines: Vec<Line>,
    statements: Vec<Statement>,
}

impl<'a> Program<'a> {
    fn read(source: &'a str) -> Result<Self, String> {
        let lines = lines(source)?;
        let statements = statements(source, &lines);
        Ok(Self { source, lines, statements })
    }

    fn text(&self, statement: &Statement) -> &[Line] {
        &self.lines[statement.lines.clone()]
    }

    fn head_word(&self, statement: &Statement) -> &'a str {
        let token = self.lines[statement.head].tokens[0];
        &self.source[token.start..token.end]
    }

    /// The names a statement binds: of a `def` or `class` its own, of a compound statement those of its lines.
    fn binds(&self, statement: &Statement) -> Vec<&'a str> {
        match self.head_word(statement) {
            "def" | "async" | "class" => bound(self.source, &self.lines[statement.head]),
            _ => self.text(statement).iter().flat_map(|line| bound(self.source, line)).collect(),
        }
    }

    fn is_function(&self, statement: &Statement) -> bool {
        ["def", "async"].contains(&self.head_word(statement))
    }

    /// The one function that every test calls.
    fn entry(&self, tests: &[String]) -> Result<String, String> {
        let functions = self.statements.iter().filter(|statement| self.is_function(statement));
        let mut shared: BTreeSet<&str> = functions.flat_map(|statement| self.binds(statement)).collect();
        for test in tests {
            let called = called(test)?;
            shared.retain(|name| called.iter().any(|call| call == name));
        }
        match shared.len() {
            0 => Err("no function of the program is called by all tests".into()),
            1 => Ok(shared.first().copied().unwrap_or_default().to_string()),
            _ => Err(format!("the tests all call {}", shared.into_iter().collect::<Vec<_>>().join(", "))),
        }
    }

    /// Prompt and solution for `entry`, whose prompt also provides what the texts in `wanted` name.
    fn split<'w>(
        &self,
        entry: &str,
        wanted: impl Iterator<Item = &'w String>,
        docstring: &str,
    ) -> Result<(String, String), String> {
        // The last definition is the one that the tests run.
        let place = self.statements.iter().rposition(|s| self.is_function(s) && self.binds(s).contains(&entry));
        let place = place.ok_or("the entry function is not at column 0")?;
        let function = &self.statements[place];
        let mut needed: BTreeSet<String> = names(self.source, self.text(function)).map(str::to_string).collect();
        for text in wanted {
            needed.extend(names(text, &lines(text)?).map(str::to_string));
        }
        let kept = self.reachable(place, entry, needed);
        let (mut prompt, mut after_block) = (String::new(), false);
        for statement in kept.iter().map(|&index| &self.statements[index]) {
            let block = statement.lines.len() > 1;
            if !prompt.is_empty() && (block || after_block) {
                prompt.push('\n');
            }
            prompt.push_str(&indent(self.source, self.text(statement), 0)?);
            after_block = block;
        }
        if !prompt.is_empty() {
            prompt.push('\n');
        }
        let split = split_function(self.source, self.text(function), function.head - function.lines.start)?;
        prompt.push_str(&split.header);
        prompt.push('\n');
        prompt.push_str(docstring);
        Ok((prompt, split.body))
    }

    /// The statements that `needed` names lead to, in order, `entry`'s own definitions left out.
    fn reachable(&self, place: usize, entry: &str, mut needed: BTreeSet<String>) -> Vec<usize> {
        let mut kept = BTreeSet::new();
        loop {
            let before = kept.len();
            for (index, statement) in self.statements.iter().enumerate() {
                if index == place || kept.contains(&index) {
                    continue;
                }
                let binds = self.binds(statement);
                if self.is_function(statement) && binds.contains(&entry) {
                    continue;
                }
                let head = &self.lines[statement.head];
                let star = self.head_word(statement) == "from" && self.source[..head.end()].ends_with('*');
                // A statement that binds nothing acts on what its first name holds: `heapq.heapify(queue)`.
                let acts = binds.is_empty() && {
                    let first = names(self.source, self.text(statement)).next().unwrap_or_default();
                    self.statements.iter().any(|other| self.binds(other).contains(&first)) && needed.contains(first)
                };
                if star || acts || binds.iter().any(|name| needed.contains(*name)) {
                    kept.insert(index);
                    needed.extend(names(self.source, self.text(statement)).map(str::to_string));
                }
            }
            if kept.len() == before {
                return kept.into_iter().collect();
            }
        }
    }
}

/// The names that a test calls.
fn called(test: &str) -> Result<Vec<&str>, String> {
    let lines = lines(test).map_err(|why| format!("a test cannot be read: {why}"))?;
    let tokens: Vec<_> = lines.iter().flat_map(|line| &line.tokens).collect();
    let calls = tokens.windows(2).filter(|pair| pair[0].kind == Kind::Name && &test[pair[1].start..pair[1].end] == "(");
    Ok(calls.map(|pair| &test[pair[0].start..pair[0].end]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(code: &str, tests: &[&str]) -> String {
        let text = r#"Write a "function" that ends in \d and """quotes""""#;
        serde_json::json!({"task_id": 601, "text": text, "code": code, "test_list": tests, "test_setup_code": ""})
            .to_string()
    }

    #[test]
    fn the_prompt_holds_what_the_entry_needs_and_the_solution_the_body_alone() {
        let code = [
            "import math\r\nimport re, sys\r\nLIMIT = 3\r\nUNUSED = 4\r\n",
            "class Pair(object):\r\n\tdef __init__(self, a):\r\n\t\tself.a = a\r\n",
            "def other(x):\r\n  return UNUSED\r\n",
            "def f(p): \r\n  return helper(p.a) + LIMIT\r\n",
            "def helper(a):\r\n\treturn math.floor(a)\r\nprint(f(Pair(1)))",
        ];
        let row = row(&code.concat(), &["assert f(Pair(1)) == 4"]);
        let task = convert(&row, Source::EmbeddedMbpp).expect("a sound row").task;
        let prompt = [
            "import math\nLIMIT = 3\n\n",
            "class Pair(object):\n    def __init__(self, a):\n        self.a = a\n\n",
            "def helper(a):\n    return math.floor(a)\n\n",
            "def f(p):\n",
            r#"    """Write a "function" that ends in \\d and \"\"\"quotes\"\"\"""""#,
            "\n",
        ];
        assert_eq!(task.prompt, prompt.concat());
        assert_eq!(task.solution, "    return helper(p.a) + LIMIT\n");
        assert_eq!((task.id.as_str(), task.entry_point.as_str()), ("own_mbpp_601", "f"));
    }

    #[test]
    fn the_harder_tests_of_a_row_are_tests() {
        let of = |harder: serde_json::Value| {
            let mut row: serde_json::Value =
                serde_json::from_str(&row("def f(x): return abs(x)", &["assert f(1) == 1"])).expect("it is JSON");
            row["challenge_test_list"] = harder;
            convert(&row.to_string(), Source::Mbpp)
        };
        let task = of(serde_json::json!(["assert f(-2) == 2"])).expect("a sound row").task;
        assert_eq!(task.tests, ["assert f(1) == 1", "assert f(-2) == 2"]);
        assert_eq!(of(serde_json::json!([])).expect("a sound row").task.tests.len(), 1);
        assert_eq!(of(serde_json::json!("f(1)")).expect_err("not a list").reason, Reason::WrongType);
    }

    #[test]
    fn each_fault_has_its_name() {
        let reason = |line: &str| convert(line, Source::Mbpp).expect_err("the row is faulty").reason;
        assert_eq!(reason("{"), Reason::BrokenJson);
        assert_eq!(reason("[]"), Reason::WrongType);
        assert_eq!(reason("{}"), Reason::MissingField);
        assert_eq!(reason(r#"{"task_id": "x"}"#), Reason::WrongType);
        assert_eq!(reason(&row("def f(): pass", &[])), Reason::NoTests);
        assert_eq!(reason(&row("def f(x): return x", &["assert g(1)"])), Reason::NoEntryPoint);
        assert_eq!(reason(&row("def f(x): return x\ndef g(x): return x", &["assert f(g(1))"])), Reason::NoEntryPoint);
        assert_eq!(reason(&row("def f(x):\n  '''only words'''", &["assert f(1)"])), Reason::NotSplit);
        assert_eq!(reason(&row("def f(x): return (x", &["assert f(1)"])), Reason::NotSplit);
    }
}
