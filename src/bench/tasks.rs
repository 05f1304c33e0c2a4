//! Benchmark tasks and the prompts made of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::data::task::Task;
use crate::data::{humaneval, mbpp};
use crate::error::{Error, Result};
use crate::experiment::{BenchConfig, Source};
use crate::generate::Sampling;

/// Two worked functions of our own; none is a task of the benchmark.
const FEW_SHOT: &str = include_str!("../../data/benchmarks/few_shot.py");

/// What stands before a task's own prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Nothing: the task's prompt as it is.
    Bare,
    /// Two worked functions.
    FewShot,
}

impl Template {
    /// Every template.
    pub const ALL: [Self; 2] = [Self::Bare, Self::FewShot];

    /// The name used in experiment files: `bare` or `few_shot`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::FewShot => "few_shot",
        }
    }

    /// The template of that name.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the names there are.
    pub fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|template| template.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|template| template.name()).collect();
            Error::invalid(
                format!("there is no prompt template {name:?}"),
                format!("choose one of {}", names.join(", ")),
            )
        })
    }

    /// What the model is given for a task.
    pub fn render(self, task: &Task) -> String {
        match self {
            Self::Bare => task.prompt.clone(),
            Self::FewShot => format!("{FEW_SHOT}{}", task.prompt),
        }
    }
}

/// The settings of the earlier attempt's benchmark: two worked functions, temperature 0.8, top-k 40, 100 tokens, nothing
/// else. Its one sample per task is drawn `draws` times over, because one run alone says little.
pub fn v1_protocol(config: &BenchConfig, draws: usize) -> BenchConfig {
    BenchConfig {
        samples: draws,
        temperature: 0.8,
        top_k: 40,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        stop: Vec::new(),
        best_of: 1,
        max_new_tokens: 100,
        template: Template::FewShot.name().into(),
        ..config.clone()
    }
}

/// How completions are drawn under a configuration.
pub fn sampling(config: &BenchConfig, seed: u64) -> Sampling {
    Sampling {
        temperature: config.temperature,
        top_k: config.top_k,
        top_p: config.top_p,
        min_p: config.min_p,
        repetition_penalty: config.repetition_penalty,
        stop: config.stop.clone(),
        seed,
        ..Sampling::greedy(config.max_new_tokens)
    }
}

/// Reads tasks, one JSON object a line. Three schemas are known by their keys: our own ([`Task`]; also the earlier
/// benchmark's `{"id", "prompt", "tests"}`, whose function is the prompt's last), HumanEval's and MBPP's.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] with the line when a row is no task, has no test, defines no function, does not end
/// its prompt in a newline, or repeats an id.
pub fn load(path: &Path) -> Result<Vec<Task>> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut tasks = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let fault = |what: String| {
            Error::malformed(path, number, what, "each line is {\"id\", \"prompt\", \"entry_point\", \"tests\"}")
        };
        let task = parse(line).map_err(&fault)?;
        if let Some(first) = seen.insert(task.id.clone(), number) {
            return Err(fault(format!("the id {:?} was used on line {first}", task.id)));
        }
        tasks.push(task);
    }
    if tasks.is_empty() {
        return Err(Error::malformed(
            path,
            None,
            "no task in the file",
            "name a file of tasks, one JSON object a line",
        ));
    }
    Ok(tasks)
}

fn parse(line: &str) -> Result<Task, String> {
    let mut row: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let Some(fields) = row.as_object_mut() else { return Err("not a JSON object".into()) };
    if fields.contains_key("canonical_solution") {
        return humaneval::convert(line, Source::Humaneval).map(|row| row.task).map_err(|rejection| rejection.detail);
    }
    if fields.contains_key("test_list") {
        return mbpp::convert(line, Source::Mbpp).map(|row| row.task).map_err(|rejection| rejection.detail);
    }
    if !fields.contains_key("entry_point") {
        let prompt = fields.get("prompt").and_then(Value::as_str).unwrap_or_default();
        let name = last_function(prompt).ok_or("the prompt defines no function")?;
        fields.insert("entry_point".into(), name.into());
    }
    let task: Task = serde_json::from_value(row).map_err(|e| e.to_string())?;
    if task.tests.is_empty() {
        return Err(format!("{} has no test", task.id));
    }
    if !task.prompt.ends_with('\n') {
        return Err(format!("the prompt of {} does not end in a newline", task.id));
    }
    let definition = format!("def {}", task.entry_point);
    if !task.prompt.split(&definition).skip(1).any(|rest| rest.trim_start().starts_with('(')) {
        return Err(format!("the prompt of {} does not define {}", task.id, task.entry_point));
    }
    Ok(task)
}

/// The name of the last function that begins in column zero.
fn last_function(prompt: &str) -> Option<String> {
    let definition = prompt.lines().rev().find_map(|line| line.strip_prefix("def "))?;
    let name = definition.split('(').next()?.trim();
    (!name.is_empty()).then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Vec<Task>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        load(file.path())
    }

    const ROW: &str = r#"{"id": "a", "prompt": "import math\ndef half(x):\n    \"\"\"Halve.\"\"\"\n", "tests": ["assert half(2) == 1"]}"#;

    #[test]
    fn the_earlier_schema_is_read() {
        let tasks = load_text(&format!("{ROW}\n\n")).unwrap();
        assert_eq!((tasks.len(), tasks[0].entry_point.as_str()), (1, "half"));
    }

    #[test]
    fn faults_name_the_line() {
        let twice = format!("{ROW}\n{ROW}\n");
        let cases = [
            (twice.as_str(), ":2: the id \"a\" was used on line 1"),
            ("\n{\"id\": 1}\n", ":2: "),
            ("[]\n", ":1: not a JSON object"),
            ("{\"id\": \"a\", \"prompt\": \"def f():\\n\", \"tests\": []}", ":1: a has no test"),
            ("{\"id\": \"a\", \"prompt\": \"def f():\", \"tests\": [\"f()\"]}", "does not end in a newline"),
            ("{\"id\": \"a\", \"prompt\": \"x\\n\", \"tests\": [\"f()\"]}", "defines no function"),
            (
                "{\"id\": \"a\", \"prompt\": \"def fg():\\n\", \"entry_point\": \"f\", \"tests\": [\"f()\"]}",
                "does not define f",
            ),
            ("", "no task"),
        ];
        let spaced = "{\"id\": \"a\", \"prompt\": \"def f ():\\n\", \"entry_point\": \"f\", \"tests\": [\"f()\"]}";
        assert_eq!(load_text(spaced).unwrap().len(), 1, "a space before the parenthesis is Python too");
        for (text, expected) in cases {
            let error = load_text(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} gave {error}");
        }
    }

    #[test]
    fn templates_keep_the_tasks_prompt_last() {
        let task = &load_text(ROW).unwrap()[0];
        for template in Template::ALL {
            assert!(template.render(task).ends_with(&task.prompt));
            assert_eq!(Template::named(template.name()).unwrap(), template);
        }
        assert!(Template::named("chat").is_err());
        assert!(Template::FewShot.render(task).matches("\ndef ").count() >= 2);
        assert!(FEW_SHOT.ends_with("\n\n\n"), "two blank lines before the next function");
    }
}
