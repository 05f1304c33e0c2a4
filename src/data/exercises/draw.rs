//! One sample of a family: picks a form, slot rows, words, a phrasing and a body, and writes them out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use rand::Rng;
use rand::rngs::StdRng;

use crate::data::decontaminate::plain;

use super::family::Family;
use super::phrasing;
use super::template::render;

/// Share of samples whose signature has no annotations.
const UNTYPED: f64 = 0.08;
/// Share of samples that show an example, among those that have one.
const WITH_EXAMPLE: f64 = 0.12;

/// A sample, written out.
#[derive(Debug)]
pub struct Drawn {
    /// Imports, signature and docstring.
    pub prompt: String,
    /// The body.
    pub solution: String,
    /// The function's name.
    pub entry_point: String,
    /// Python that runs before the tests.
    pub setup: String,
    /// Assertions.
    pub tests: Vec<String>,
    /// Family, form and the picks, e.g. `count_compared form=0 cmp=2 items=1 name=0 doc=1 body=0`.
    pub choice: String,
}

/// Draws a sample, or `None` when the picks do not fit together: two words that are the same, a withheld choice, or a
/// name among `refused`.
pub fn draw(family: &Family, refused: &BTreeSet<String>, rng: &mut StdRng) -> Option<Drawn> {
    let at = rng.random_range(0..family.forms.len());
    let form = &family.forms[at];
    let used = family.used(form);
    let mut choice = format!("{} form={at}", family.name);
    let mut values: BTreeMap<String, &str> = BTreeMap::new();
    let mut picks = BTreeMap::new();
    for (slot, rows) in family.slots.iter().filter(|(slot, _)| used.contains(slot.as_str())) {
        let row = rng.random_range(0..rows.len());
        picks.insert(slot.as_str(), row);
        let _ = write!(choice, " {slot}={row}");
        values.extend(rows[row].iter().map(|(column, value)| (format!("{slot}.{column}"), value.as_str())));
    }
    if family.withholds(&picks) {
        return None;
    }
    let mut words = BTreeSet::new();
    for (table, rows) in family.vars.iter().filter(|(table, _)| used.contains(table.as_str())) {
        let row = rng.random_range(0..rows.len());
        let _ = write!(choice, " {table}={row}");
        let names: BTreeSet<&str> = rows[row].values().map(String::as_str).collect();
        if !names.is_disjoint(&words) {
            return None;
        }
        words.extend(names);
        values.extend(rows[row].iter().map(|(column, value)| (format!("{table}.{column}"), value.as_str())));
    }
    for (word, list) in family.words.iter().filter(|(word, _)| used.contains(word.as_str())) {
        let picked = rng.random_range(0..list.len());
        let _ = write!(choice, " {word}={picked}");
        if !words.insert(list[picked].as_str()) {
            return None;
        }
        values.insert(word.clone(), &list[picked]);
    }
    let name = pick(&form.names, &[], rng);
    let doc = rng.random_range(0..form.docs.len());
    let body = pick(&form.bodies, &form.weights, rng);
    let _ = write!(choice, " name={name} doc={doc} body={body}");

    let lookup = |key: &str| values.get(key).copied();
    let entry_point = render(&form.names[name], &lookup).ok()?;
    if refused.contains(&plain(&entry_point)) || !is_name(&entry_point) {
        return None;
    }
    let lookup = |key: &str| if key == "f" { Some(entry_point.as_str()) } else { values.get(key).copied() };
    let fill = |text: &String| render(text, &lookup).ok();
    let doc = phrasing::vary(&fill(&form.docs[doc])?, rng);
    let example = if !form.examples.is_empty() && rng.random_bool(WITH_EXAMPLE) {
        Some(fill(&form.examples[rng.random_range(0..form.examples.len())])?)
    } else {
        None
    };
    let signature = signature(&entry_point, &fill(&form.args)?, &fill(&form.returns)?, rng.random_bool(UNTYPED));
    let imports = form.imports.iter().map(fill).collect::<Option<Vec<_>>>()?;
    let tests = form.tests.iter().chain(&form.examples).map(fill).collect::<Option<Vec<_>>>()?;
    let body = fill(&form.bodies[body])?;
    Some(Drawn {
        prompt: prompt(&imports, &signature, &doc, example.as_deref()),
        solution: indent(&body),
        setup: fill(&form.setup)?,
        tests: tests.iter().map(|test| format!("assert {test}")).collect(),
        entry_point,
        choice,
    })
}

/// An index of `list`, by `weights` or, without, by 4 : 2 : 1 : 1 : ….
fn pick(list: &[String], weights: &[u32], rng: &mut StdRng) -> usize {
    let weight = |at: usize| weights.get(at).copied().unwrap_or(if at < 2 { 4 >> at } else { 1 });
    let mut left = rng.random_range(0..(0..list.len()).map(weight).sum::<u32>());
    for at in 0..list.len() {
        match left.checked_sub(weight(at)) {
            Some(rest) => left = rest,
            None => return at,
        }
    }
    0
}

fn is_name(text: &str) -> bool {
    let of_names = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(of_names)
}

fn signature(name: &str, args: &str, returns: &str, untyped: bool) -> String {
    if untyped {
        format!("def {name}({}):", without_annotations(args))
    } else {
        format!("def {name}({args}) -> {returns}:")
    }
}

/// `a: list[int], b: int = 1` becomes `a, b=1`.
fn without_annotations(args: &str) -> String {
    let mut parts = vec![String::new()];
    let mut depth = 0usize;
    for c in args.chars() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let bare = |part: &String| {
        let (name, rest) = part.split_once(':').unwrap_or((part, ""));
        match rest.split_once('=') {
            Some((_, default)) => format!("{}={}", name.trim(), default.trim()),
            None => name.trim().to_owned(),
        }
    };
    parts.iter().map(bare).collect::<Vec<_>>().join(", ")
}

fn prompt(imports: &[String], signature: &str, doc: &str, example: Option<&str>) -> String {
    let mut text = imports.join("\n");
    if !imports.is_empty() {
        text.push_str("\n\n\n");
    }
    let _ = write!(text, "{signature}\n    \"\"\"{doc}");
    if let Some((call, value)) = example.and_then(|example| example.split_once(" == ")) {
        let _ = write!(text, "\n\n    >>> {call}\n    {value}\n    ");
    }
    text.push_str("\"\"\"\n");
    text
}

/// The body under its function: every line that is not empty moves right by four spaces.
fn indent(body: &str) -> String {
    let mut text = String::new();
    for line in body.trim_start_matches('\n').trim_end().lines() {
        if !line.is_empty() {
            text.push_str("    ");
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_go_and_defaults_stay() {
        let args = "table: dict[str, list[int]], limit: int = 3, word";
        assert_eq!(without_annotations(args), "table, limit=3, word");
        assert_eq!(without_annotations(""), "");
    }

    #[test]
    fn earlier_bodies_are_likelier() {
        let mut rng = crate::seed::rng(1, "test");
        let list = vec![String::new(); 3];
        let mut counts = [0; 3];
        for _ in 0..7000 {
            counts[pick(&list, &[], &mut rng)] += 1;
        }
        assert!(counts[0] > 3700 && counts[1] > 1800 && counts[2] < 1200, "{counts:?}");
    }

    #[test]
    fn a_body_moves_right_and_ends_once() {
        assert_eq!(indent("\nif x:\n    return 1\n\nreturn 2\n\n"), "    if x:\n        return 1\n\n    return 2\n");
    }
}
