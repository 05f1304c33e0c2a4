//! Why a row is rejected: every row that comes in leaves as a sample or as a [`Rejection`] with a named [`Reason`].

use serde::{Deserialize, Serialize};

use crate::data::quality::SampleFacts;
use crate::experiment::{DataConfig, Source};

/// A row that did not become a sample, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// The task's id, or the row's place (`mbpp.jsonl:17`) when it has none.
    pub id: String,
    /// The family of rows.
    pub source: Source,
    /// The named reason.
    pub reason: Reason,
    /// What exactly is wrong: the measured value and its limit, the exception, the fault in the JSON.
    pub detail: String,
    /// The sample or benchmark task that this row repeats, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<String>,
}

impl Rejection {
    /// A rejection without a twin.
    pub fn new(id: impl Into<String>, source: Source, reason: Reason, detail: impl Into<String>) -> Self {
        Self { id: id.into(), source, reason, detail: detail.into(), twin: None }
    }

    /// The same rejection with the sample it repeats.
    #[must_use]
    pub fn with_twin(mut self, twin: impl Into<String>) -> Self {
        self.twin = Some(twin.into());
        self
    }
}

/// The reasons, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The line is not UTF-8.
    NotUtf8,
    /// The line is not JSON.
    BrokenJson,
    /// A field is missing.
    MissingField,
    /// A field has the wrong type or an impossible value.
    WrongType,
    /// An earlier row has the same id.
    DuplicateId,
    /// There is nothing to test the sample with.
    NoTests,
    /// No function, or more than one, that all tests call.
    NoEntryPoint,
    /// The code cannot be split into prompt and body.
    NotSplit,
    /// Prompt and solution together are not a Python program.
    DoesNotParse,
    /// The conversion changed the syntax tree of the body.
    BodyChanged,
    /// A person marked the row `fix` and the worklist holds no corrected text yet.
    AwaitsFix,
    /// A person marked the row `drop`.
    DroppedByHand,
    /// The sample fails its own tests.
    Unverified,
    /// The body `return None` passes the tests, so passing proves nothing.
    TestsProveNothing,
    /// A function has the name of a benchmark task.
    BenchmarkName,
    /// A function has the syntax tree of a benchmark task, or nearly.
    BenchmarkTree,
    /// A function passes the tests of a benchmark task.
    BenchmarkBehaviour,
    /// Prompt and solution tokenised apart differ from the whole.
    TokenBoundary,
    /// More tokens than the context holds.
    TooManyTokens,
    /// More body lines than a simple sample has.
    TooManyLines,
    /// More branches than a simple sample has.
    TooComplex,
    /// More names to keep in mind than a simple sample has.
    TooManyNames,
    /// A module that a simple sample does not need.
    Dependency,
    /// The same question with the same answer as an earlier sample.
    Duplicate,
    /// Nearly the same as a sample of another split.
    NearDuplicateAcrossSplits,
    /// A good sample beyond the number that the plan asks for.
    Surplus,
}

impl Reason {
    /// Every reason, in order.
    pub const ALL: [Self; 26] = [
        Self::NotUtf8,
        Self::BrokenJson,
        Self::MissingField,
        Self::WrongType,
        Self::DuplicateId,
        Self::NoTests,
        Self::NoEntryPoint,
        Self::NotSplit,
        Self::DoesNotParse,
        Self::BodyChanged,
        Self::AwaitsFix,
        Self::DroppedByHand,
        Self::Unverified,
        Self::TestsProveNothing,
        Self::BenchmarkName,
        Self::BenchmarkTree,
        Self::BenchmarkBehaviour,
        Self::TokenBoundary,
        Self::TooManyTokens,
        Self::TooManyLines,
        Self::TooComplex,
        Self::TooManyNames,
        Self::Dependency,
        Self::Duplicate,
        Self::NearDuplicateAcrossSplits,
        Self::Surplus,
    ];

    /// The reason in words, for tables and figures.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not UTF-8",
            Self::BrokenJson => "broken JSON",
            Self::MissingField => "missing field",
            Self::WrongType => "wrong type",
            Self::DuplicateId => "duplicate id",
            Self::NoTests => "no tests",
            Self::NoEntryPoint => "no entry point",
            Self::NotSplit => "cannot be split",
            Self::DoesNotParse => "does not parse",
            Self::BodyChanged => "body changed",
            Self::AwaitsFix => "awaits a fix by hand",
            Self::DroppedByHand => "dropped by hand",
            Self::Unverified => "fails its tests",
            Self::TestsProveNothing => "tests prove nothing",
            Self::BenchmarkName => "benchmark: same name",
            Self::BenchmarkTree => "benchmark: same tree",
            Self::BenchmarkBehaviour => "benchmark: same behaviour",
            Self::TokenBoundary => "token boundary",
            Self::TooManyTokens => "too many tokens",
            Self::TooManyLines => "too many lines",
            Self::TooComplex => "too complex",
            Self::TooManyNames => "too many names",
            Self::Dependency => "dependency",
            Self::Duplicate => "duplicate",
            Self::NearDuplicateAcrossSplits => "near-duplicate across splits",
            Self::Surplus => "surplus",
        }
    }

    /// Whether a person's `keep` in the worklist overrides the reason. Proof, contamination and leakage never yield.
    pub fn yields_to_keep(self) -> bool {
        matches!(self, Self::TooManyLines | Self::TooComplex | Self::TooManyNames | Self::Dependency | Self::Duplicate)
    }
}

/// Every reason why a verified sample is not simple enough, with the measured value and its limit.
///
/// "Simple" is: at most `max_tokens` tokens with EOS, `max_body_lines` lines, a cyclomatic complexity of at most
/// `max_complexity`, at most `max_names` names bound in the program, and no module beyond `dependencies`
/// (when that list is empty: beyond Python's standard library).
pub fn not_simple(facts: &SampleFacts, config: &DataConfig) -> Vec<(Reason, String)> {
    let limits = [
        (Reason::TooManyTokens, facts.total_tokens, config.max_tokens, "tokens with EOS"),
        (Reason::TooManyLines, facts.body_lines, config.max_body_lines, "body lines"),
        (Reason::TooComplex, facts.complexity, config.max_complexity, "cyclomatic complexity"),
        (Reason::TooManyNames, facts.names, config.max_names, "names"),
    ];
    let over = limits.into_iter().filter(|(_, value, limit, _)| value > limit);
    let mut found: Vec<(Reason, String)> =
        over.map(|(reason, value, limit, unit)| (reason, format!("{value} {unit}, limit {limit}"))).collect();
    let allowed = |module: &String| match config.dependencies.is_empty() {
        true => !facts.foreign_imports.contains(module),
        false => config.dependencies.contains(module),
    };
    let foreign = facts.imports.iter().filter(|module| !allowed(module));
    found.extend(foreign.map(|module| (Reason::Dependency, format!("imports {module}"))));
    found
}
