//! A task: a prompt, a solution, and the tests that prove it. The unit of data, training and evaluation alike.

use serde::{Deserialize, Serialize};

use crate::experiment::Source;
use crate::sandbox::Program;

/// One programming task. With its solution proven it is a training sample; without, a benchmark task.
///
/// `prompt + solution` is a whole Python program: the prompt ends in a newline after the docstring, the solution is the
/// body alone, indented by four spaces, and ends in exactly one newline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Unique name, e.g. `he_0`, `mbpp_601`, `ex_000123`, `bench_gcd`.
    pub id: String,
    /// Imports, helpers, signature and docstring.
    pub prompt: String,
    /// The body of the function; empty where unknown.
    #[serde(default)]
    pub solution: String,
    /// The function under test.
    pub entry_point: String,
    /// Python that runs after the program and before the tests.
    #[serde(default)]
    pub setup: String,
    /// Statements that raise unless the program is right, e.g. `assert add(1, 2) == 3`.
    pub tests: Vec<String>,
    /// Where the task comes from.
    #[serde(default)]
    pub provenance: Option<Provenance>,
}

/// Where a task comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The family of rows.
    pub source: Source,
    /// The id in the source, e.g. `HumanEval/0` or `601`.
    pub original_id: String,
    /// The source's own split (`train`, `validation`, `test`, `prompt`), where it has one.
    pub official_split: Option<String>,
    /// Licence of the row, as an SPDX identifier.
    pub licence: String,
    /// SHA-256 of the raw row.
    pub raw_sha256: String,
}

/// The three fields of `v2_train.jsonl` and `v2_val.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The task's id.
    pub id: String,
    /// What the model is given.
    pub prompt: String,
    /// What it is to write.
    pub solution: String,
}

impl Task {
    /// The program that the tests are run against when the model (or the dataset) wrote `completion`.
    pub fn program(&self, completion: &str) -> Program {
        Program { code: format!("{}{completion}", self.prompt), setup: self.setup.clone(), tests: self.tests.clone() }
    }

    /// The training sample.
    pub fn sample(&self) -> Sample {
        Sample { id: self.id.clone(), prompt: self.prompt.clone(), solution: self.solution.clone() }
    }
}
