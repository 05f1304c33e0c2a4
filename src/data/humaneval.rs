//! HumanEval rows to tasks (Chen et al. 2021, <https://github.com/openai/human-eval>, MIT).
//!
//! The dataset is already split into prompt and body, and both are kept letter by letter where they are sound. Only the
//! edges are mended: blank lines before the body, more or less than one line end after it, foreign line ends.

use crate::data::filter::{Reason, Rejection};
use crate::data::python_source::{indent, lines, normalize_line_ends};
use crate::data::row::{Converted, Row};
use crate::data::task::{Provenance, Task};
use crate::experiment::Source;
use crate::seed::sha256;

/// Converts one line of `HumanEval.jsonl`: `HumanEval/0` becomes `he_0`. Our own rows in the same schema
/// ([`Source::EmbeddedHumaneval`]) become `own_he_0`.
///
/// # Errors
/// A [`Rejection`] with its reason; its id is empty when the row has none.
pub fn convert(line: &str, source: Source) -> Result<Converted, Rejection> {
    let mut row = Row::parse(line, source)?;
    let original_id = row.text("task_id")?.to_string();
    let number = original_id.rsplit('/').next().unwrap_or(&original_id);
    let (prefix, licence) = match source {
        Source::Humaneval => ("he", "MIT"),
        _ => ("own_he", "MIT OR Apache-2.0"),
    };
    row.id = format!("{prefix}_{number}");
    let entry_point = row.text("entry_point")?.to_string();
    let mut prompt = normalize_line_ends(row.text("prompt")?);
    let solution = normalize_line_ends(row.text("canonical_solution")?);
    let setup = normalize_line_ends(row.text("test")?);
    if !setup.contains("def check(") {
        return Err(row.reject(Reason::NoTests, "`test` defines no function `check`"));
    }
    if !prompt.contains(&format!("def {entry_point}(")) {
        return Err(row.reject(Reason::NoEntryPoint, format!("the prompt defines no `{entry_point}`")));
    }
    let original = format!("{prompt}{solution}");
    if !prompt.ends_with('\n') {
        prompt.push('\n');
    }
    let solution = body(&solution).map_err(|why| row.reject(Reason::NotSplit, why))?;
    let provenance = Provenance {
        source,
        original_id,
        official_split: Some("test".into()),
        licence: licence.into(),
        raw_sha256: sha256(line),
    };
    let tests = vec![format!("check({entry_point})")];
    let task = Task { id: row.id, prompt, solution, entry_point, setup, tests, provenance: Some(provenance) };
    Ok(Converted { task, original })
}

/// The body from its first statement, at four spaces, to exactly one line end.
fn body(solution: &str) -> Result<String, String> {
    let text = solution.trim_end();
    let start = text.len() - text.trim_start().len();
    let first_line = text[..start].rfind('\n').map_or(0, |line_end| line_end + 1);
    let text = &text[first_line..];
    if text.is_empty() {
        return Err("the body is empty".into());
    }
    let sound = text.starts_with("    ") && !text[4..].starts_with([' ', '\t']) && !text.contains("\n\t");
    if sound { Ok(format!("{text}\n")) } else { indent(text, &lines(text)?, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: &str, solution: &str) -> String {
        let test = "def check(candidate):\n    assert candidate(1) == 2\n";
        let row = serde_json::json!({
            "task_id": "Own/3", "prompt": prompt, "canonical_solution": solution, "entry_point": "f", "test": test
        });
        row.to_string()
    }

    #[test]
    fn sound_rows_are_kept_letter_by_letter() {
        let (prompt, solution) = ("\n\ndef f(x):\n    ''' Words.\n    '''\n", "    y = x  \n\n    return y + 1\n");
        let converted = convert(&row(prompt, solution), Source::EmbeddedHumaneval).expect("a sound row");
        assert_eq!((converted.task.prompt.as_str(), converted.task.solution.as_str()), (prompt, solution));
        assert_eq!((converted.task.id.as_str(), converted.task.tests[0].as_str()), ("own_he_3", "check(f)"));
    }

    #[test]
    fn edges_are_mended() {
        let body = |solution| {
            let converted = convert(&row("def f(x):\r\n    'w'", solution), Source::Humaneval);
            converted.map(|c| c.task.solution).map_err(|rejection| rejection.reason)
        };
        assert_eq!(body("\n  \n    return 2\n\n\n"), Ok("    return 2\n".into()));
        assert_eq!(body("\tif x:\r\n\t\treturn 2"), Ok("    if x:\n        return 2\n".into()));
        assert_eq!(body(" \n"), Err(Reason::NotSplit));
        let other = convert(&row("def g(x):\n", "    return 2\n"), Source::Humaneval);
        assert_eq!(other.map_err(|rejection| rejection.reason).unwrap_err(), Reason::NoEntryPoint);
    }
}
