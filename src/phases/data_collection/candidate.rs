//! A converted row on its way through the checks.

use crate::data::analyze::CodeFacts;
use crate::data::filter::{Reason, Rejection};
use crate::data::fingerprint::Fingerprint;
use crate::data::python_source;
use crate::data::quality::{Fate, SampleFacts};
use crate::data::row::Converted;
use crate::data::task::Task;
use crate::data::verify::Verification;
use crate::experiment::Source;

/// A converted row on its way.
pub(super) struct Candidate {
    pub task: Task,
    pub source: Source,
    pub original: String,
    pub keep: bool,
    pub mended: bool,
    pub facts: Option<CodeFacts>,
    pub print: Option<Fingerprint>,
    pub verification: Option<Verification>,
    pub measured: SampleFacts,
    pub rejection: Option<Rejection>,
    pub fate: Option<Fate>,
}

impl Candidate {
    pub fn new(converted: Converted, source: Source) -> Self {
        let task = converted.task;
        let official_split = task.provenance.as_ref().and_then(|provenance| provenance.official_split.clone());
        let measured = SampleFacts {
            id: task.id.clone(),
            source,
            official_split,
            body_lines: python_source::statement_lines(&task.solution),
            prompt_tokens: 0,
            solution_tokens: 0,
            total_tokens: 0,
            docstring_words: 0,
            complexity: 0,
            names: 0,
            imports: Vec::new(),
            foreign_imports: Vec::new(),
            verified: false,
            seconds: 0.0,
            fate: Fate::Rejected(Reason::DoesNotParse),
        };
        Self {
            task,
            source,
            original: converted.original,
            keep: false,
            mended: false,
            facts: None,
            print: None,
            verification: None,
            measured,
            rejection: None,
            fate: None,
        }
    }

    pub fn program(&self) -> String {
        format!("{}{}", self.task.prompt, self.task.solution)
    }

    /// Rejects the row unless it is rejected already, or a person's `keep` overrules the reason.
    pub fn reject(&mut self, reason: Reason, detail: impl Into<String>, twin: Option<String>) {
        if self.rejection.is_none() && !(self.keep && reason.yields_to_keep()) {
            let rejection = Rejection::new(&self.task.id, self.source, reason, detail);
            self.rejection = Some(Rejection { twin, ..rejection });
        }
    }

    pub fn alive(&self) -> bool {
        self.rejection.is_none()
    }
}

/// The candidates that no check has rejected yet, with the facts that every one of them has.
pub(super) fn alive(candidates: &[Candidate]) -> Vec<(usize, &Task, &CodeFacts, &Fingerprint)> {
    let rows = candidates.iter().enumerate().filter(|(_, candidate)| candidate.alive());
    rows.filter_map(|(index, c)| Some((index, &c.task, c.facts.as_ref()?, c.print.as_ref()?))).collect()
}
