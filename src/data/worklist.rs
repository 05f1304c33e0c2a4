//! Decisions of a person on single samples: keep, drop or fix.
//!
//! `worklist.jsonl` lies in the data folder, a row for each sample worth a look. A person sets `decision`; the next run
//! honours it and never removes it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::data::filter::{Reason, Rejection};
use crate::error::Result;

/// What a person decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Nothing yet.
    #[default]
    #[serde(rename = "")]
    Undecided,
    /// Let the sample pass filters of taste (length, complexity, names, modules, duplicates within train).
    Keep,
    /// Leave it out.
    Drop,
    /// Use the corrected `prompt` or `solution` of this row; it must pass every check again.
    Fix,
}

/// One row of the worklist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkItem {
    /// The sample's id.
    pub id: String,
    /// `"keep"`, `"drop"`, `"fix"` or, undecided, `""`.
    #[serde(default)]
    pub decision: Decision,
    /// Why the sample is worth a look.
    #[serde(default)]
    pub why: String,
    /// The corrected prompt, for `fix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The corrected solution, for `fix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solution: Option<String>,
    /// Anything the person wants to remember.
    #[serde(default)]
    pub note: String,
}

/// The worklist; empty when there is none.
///
/// # Errors
/// [`crate::Error::Malformed`] with the line of the first fault.
pub fn read(path: &Path) -> Result<Vec<WorkItem>> {
    if path.exists() { artifact::read_jsonl(path) } else { Ok(Vec::new()) }
}

/// Adds a row for each rejection that a person could overrule or mend. Rows that are there stay as they are.
pub fn propose(mut items: Vec<WorkItem>, rejections: &[Rejection]) -> Vec<WorkItem> {
    for rejection in rejections {
        let mendable = matches!(rejection.reason, Reason::Unverified | Reason::TestsProveNothing | Reason::AwaitsFix);
        if (mendable || rejection.reason.yields_to_keep()) && !items.iter().any(|item| item.id == rejection.id) {
            let why = format!("{}: {}", rejection.reason.label(), rejection.detail);
            let id = rejection.id.clone();
            items.push(WorkItem {
                id,
                decision: Decision::Undecided,
                why,
                prompt: None,
                solution: None,
                note: String::new(),
            });
        }
    }
    items
}
