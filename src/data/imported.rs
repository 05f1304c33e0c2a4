//! Samples made elsewhere, by any model or hand: JSON Lines in the schema of `v2_raw`. They pass every check that the
//! datasets' rows pass.

use crate::data::filter::{Reason, Rejection};
use crate::data::python_source::{bound, lines, normalize_line_ends, statements};
use crate::data::row::{Converted, Row};
use crate::data::task::{Provenance, Task};
use crate::experiment::Source;
use crate::seed::sha256;

/// Converts one line: `id`, `prompt`, `solution` and `tests` are needed; `entry_point` (else the last function of the
/// prompt), `setup` and `licence` may be given. Other fields are ignored.
///
/// # Errors
/// A [`Rejection`] with its reason; its id is empty when the row has none.
pub fn convert(line: &str) -> Result<Converted, Rejection> {
    let mut row = Row::parse(line, Source::Imported)?;
    row.id = row.text("id")?.to_string();
    let prompt = normalize_line_ends(row.text("prompt")?);
    let solution = normalize_line_ends(row.text("solution")?);
    let setup = normalize_line_ends(row.text_or("setup", "")?);
    let licence = row.text_or("licence", "unknown")?.to_string();
    let tests = row.texts("tests")?;
    if tests.is_empty() {
        return Err(row.reject(Reason::NoTests, "`tests` is empty"));
    }
    let entry_point = match row.text_or("entry_point", "")? {
        "" => {
            last_function(&prompt).ok_or_else(|| row.reject(Reason::NoEntryPoint, "the prompt defines no function"))?
        }
        name => name.to_string(),
    };
    let shaped =
        prompt.ends_with('\n') && solution.starts_with("    ") && solution.trim_end().len() + 1 == solution.len();
    if !shaped || solution[4..].starts_with([' ', '\t', '\n']) || !solution.ends_with('\n') {
        let why = "the prompt must end in a line end, the solution begin at four spaces and end in one line end";
        return Err(row.reject(Reason::NotSplit, why));
    }
    let provenance = Provenance {
        source: Source::Imported,
        original_id: row.id.clone(),
        official_split: None,
        licence,
        raw_sha256: sha256(line),
    };
    let original = format!("{prompt}{solution}");
    let task = Task { id: row.id, prompt, solution, entry_point, setup, tests, provenance: Some(provenance) };
    Ok(Converted { task, original })
}

/// The name of the last function that the prompt defines at column 0.
fn last_function(prompt: &str) -> Option<String> {
    let lines = lines(prompt).ok()?;
    let heads: Vec<_> = statements(prompt, &lines).into_iter().map(|statement| statement.head).collect();
    let is_def = |line: &&crate::data::python_source::Line| prompt[line.start()..].starts_with("def ");
    let line = heads.into_iter().rev().map(|head| &lines[head]).find(is_def)?;
    bound(prompt, line).first().map(ToString::to_string)
}
