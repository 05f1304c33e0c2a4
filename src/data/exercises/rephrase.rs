//! Further names and phrasings for functions that other files define.
//!
//! What a function does stands in one place; how people ask for it has no end. A file of phrasings names a family and its rows
//! and adds to both. Its samples are a family of their own, so that a training can take the functions with or without
//! them, and what is withheld of the one is withheld of the other.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::family::{Family, REMEDY, Table, read};
use crate::error::{Error, Result};

/// The slot whose rows are whole functions.
const SLOT: &str = "task";

/// What a row gains.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Phrasings {
    /// Names beside those of the form.
    names: Vec<String>,
    /// Docstrings in place of those of the form.
    docs: Vec<String>,
}

/// The families that a file of phrasings makes of `families`: their rows, bodies and tests, with the file's docstrings and with its names
/// beside their own. The first two tests are shown as examples in some samples.
///
/// # Errors
/// [`Error::Malformed`] with the line of what does not fit: a family or row that does not exist, rows with different numbers of
/// phrasings, an unknown placeholder.
pub fn rephrase(path: &Path, text: &str, families: &[Family]) -> Result<Vec<Family>> {
    let file: BTreeMap<String, BTreeMap<String, Phrasings>> = read(path, text)?;
    let of_family = |(name, rows): (String, BTreeMap<String, Phrasings>)| {
        again(families, &name, &rows).map_err(|(place, fault)| {
            let line = text.lines().position(|line| line == place).map(|at| at + 1);
            Error::malformed(path, line, format!("{place}: {fault}"), REMEDY)
        })
    };
    file.into_iter().map(of_family).collect()
}

/// A family with the phrasings of its rows, or the line at fault and what is wrong.
fn again(
    families: &[Family],
    name: &str,
    phrasings: &BTreeMap<String, Phrasings>,
) -> std::result::Result<Family, (String, String)> {
    let place = |row: &str| format!("[{name}.{row}]");
    let first = phrasings.keys().next().map_or_else(String::new, |row| place(row));
    let Some(mut family) = families.iter().find(|family| family.name == name).cloned() else {
        return Err((first, "there is no such family".into()));
    };
    let rows = family.slots.get(SLOT).cloned().unwrap_or_default();
    let is = |row: &BTreeMap<String, String>, named: &str| row.get("n1").is_some_and(|name| name == named);
    let mut table: Table = Vec::with_capacity(phrasings.len());
    for (named, own) in phrasings {
        let Some(mut row) = rows.iter().find(|row| is(row, named)).cloned() else {
            return Err((place(named), format!("no row of slot {SLOT} has this name as its n1")));
        };
        row.extend(columns("name_again", &own.names).chain(columns("doc_again", &own.docs)));
        table.push(row);
    }
    let counts = phrasings.values().next().map_or((0, 0), |own| (own.names.len(), own.docs.len()));
    let keys =
        |kind: &str, count: usize| -> Vec<String> { (0..count).map(|at| format!("{{{SLOT}.{kind}{at}}}")).collect() };
    family.name = format!("{name}_rephrased");
    family.slots.insert(SLOT.into(), table);
    for form in &mut family.forms {
        form.names.extend(keys("name_again", counts.0));
        form.docs = keys("doc_again", counts.1);
        form.examples = form.tests.iter().take(2).cloned().collect();
    }
    match family.fault() {
        Some(fault) => Err((first, fault)),
        None => Ok(family),
    }
}

fn columns<'a>(kind: &'a str, texts: &'a [String]) -> impl Iterator<Item = (String, String)> + 'a {
    texts.iter().enumerate().map(move |(at, text)| (format!("{kind}{at}"), text.clone()))
}
