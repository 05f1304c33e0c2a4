//! Choices of slot rows that are never drawn, because they behave like a function of a benchmark.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::family::{Family, read};
use crate::error::{Error, Result};

/// A choice of slot rows that behaves like a function of a benchmark, and so is never drawn.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withheld {
    /// The function of the benchmark.
    pub task: String,
    /// The family.
    pub family: String,
    /// For each slot that matters, a text that one of its rows holds. Empty withholds the whole family.
    pub rows: BTreeMap<String, String>,
}

/// Gives each family its share of the file of withheld choices; a family withheld as a whole goes.
///
/// # Errors
/// [`Error::Malformed`] when the file names a family, a slot or a row that does not exist.
pub fn withhold(path: &Path, text: &str, families: &mut Vec<Family>) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        withheld: Vec<Withheld>,
    }
    let file: File = read(path, text)?;
    for entry in file.withheld {
        let family = families.iter_mut().find(|family| family.name == entry.family);
        let exists = |family: &Family| {
            let row = |(slot, text)| family.slots.get(slot)?.iter().find(|row| row.values().any(|value| value == text));
            entry.rows.iter().all(|pick| row(pick).is_some())
        };
        match family {
            Some(family) if exists(family) => family.withheld.push(entry.rows),
            _ => {
                let what = format!("there is no family {} with the rows {:?}", entry.family, entry.rows);
                return Err(Error::malformed(path, None, what, "remove the entry, or name the row as the family does"));
            }
        }
    }
    families.retain(|family| family.operator_combinations() > 0);
    Ok(())
}
