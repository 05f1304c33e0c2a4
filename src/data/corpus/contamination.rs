//! Keeps the text of benchmarks out of a corpus, by n-grams and by what it defines.
//!
//! A document is contaminated when it holds at least half of the 10-grams of one task's solution or docstring. A single
//! shared 10-gram is no sign: `for i in range(len(x)):` is eleven words. What is too short for 10-grams is found by its name: no
//! document may hold `def` and the name of a task of ours, be it code or an example in a docstring.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::path::Path;

use serde::Deserialize;

use crate::artifact;
use crate::data::corpus::repeats::{Identity, chain, hash, words};
use crate::data::decontaminate::plain;
use crate::data::task::Task;
use crate::error::Result;

/// Words in a gram.
const GRAM: usize = 10;
/// Share of a passage's grams that a document must hold.
const SHARE: f64 = 0.5;
/// Grams that a passage must have to be looked for.
const FEWEST: usize = 3;

/// Passages that no document may hold.
#[derive(Debug, Default)]
pub struct Contamination {
    /// Which passages a gram occurs in.
    grams: HashMap<u64, Vec<u32>, BuildHasherDefault<Identity>>,
    /// Distinct grams of each passage.
    sizes: Vec<usize>,
    /// Names that no document may define, in lower case without underscores.
    names: BTreeSet<String>,
}

/// The fields of HumanEval's and MBPP's rows that are looked for.
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    task_id: serde_json::Value,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    canonical_solution: String,
    #[serde(default)]
    code: String,
}

impl Contamination {
    /// The tasks of a benchmark of ours.
    pub fn add_tasks(&mut self, tasks: &[Task]) {
        for task in tasks {
            self.add(&task.solution);
            self.add(&task.prompt);
            self.names.insert(plain(&task.entry_point));
        }
    }

    /// HumanEval, and MBPP's test rows (11–510), from their files in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Malformed`](crate::Error::Malformed).
    pub fn add_public(&mut self, folder: &Path) -> Result<()> {
        for row in artifact::read_jsonl::<Row>(&folder.join("HumanEval.jsonl"))? {
            self.add(&row.prompt);
            self.add(&row.canonical_solution);
        }
        for row in artifact::read_jsonl::<Row>(&folder.join("mbpp.jsonl"))? {
            if row.task_id.as_u64().is_some_and(|id| (11..=510).contains(&id)) {
                self.add(&row.code);
            }
        }
        Ok(())
    }

    /// A passage that no document may hold; without effect when it is too short.
    fn add(&mut self, passage: &str) {
        let grams = grams(passage);
        if grams.len() < FEWEST {
            return;
        }
        let place = self.sizes.len() as u32;
        self.sizes.push(grams.len());
        for gram in grams {
            self.grams.entry(gram).or_default().push(place);
        }
    }

    /// Passages that are looked for.
    pub fn passages(&self) -> usize {
        self.sizes.len()
    }

    /// Whether a document defines one of the names, in its code or in a text of it.
    fn defines(&self, document: &str) -> bool {
        document.match_indices("def ").any(|(at, found)| {
            let rest = document[at + found.len()..].trim_start();
            let name: &str = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            rest[name.len()..].trim_start().starts_with('(') && self.names.contains(&plain(name))
        })
    }

    /// Whether a document holds one of the passages or defines one of the names.
    pub fn holds(&self, document: &str) -> bool {
        if self.defines(document) {
            return true;
        }
        // Nearly no gram of a document is one of the benchmarks', so only those that are need to be told apart.
        let (mut seen, mut found) = (BTreeSet::new(), HashMap::<u32, usize>::new());
        for gram in hashes(document).windows(GRAM).map(chain) {
            if let Some(places) = self.grams.get(&gram)
                && seen.insert(gram)
            {
                places.iter().for_each(|&place| *found.entry(place).or_default() += 1);
            }
        }
        found.iter().any(|(&place, &count)| count as f64 >= SHARE * self.sizes[place as usize] as f64)
    }
}

/// Distinct grams of a text.
fn grams(text: &str) -> BTreeSet<u64> {
    hashes(text).windows(GRAM).map(chain).collect()
}

fn hashes(text: &str) -> Vec<u64> {
    words(text).map(|word| hash(word.as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::embedded;

    #[test]
    fn a_copied_solution_is_found_and_an_idiom_is_not() {
        let mut contamination = Contamination::default();
        contamination.add_tasks(&embedded::benchmark20().unwrap());
        assert!(contamination.passages() > 20);
        let tasks = embedded::benchmark20().unwrap();
        let sort = tasks.iter().find(|task| task.entry_point == "bubble_sort").unwrap();
        let copied = format!("import os\n\n\ndef order(values):\n{}\n\nprint(order([2, 1]))\n", sort.solution);
        assert!(contamination.holds(&copied));
        let idiom = "def show(items):\n    for i in range(len(items)):\n        print(items[i])\n    return None\n";
        assert!(!contamination.holds(idiom));
    }

    #[test]
    fn a_benchmark_function_in_a_docstring_is_found() {
        let mut contamination = Contamination::default();
        contamination.add_tasks(&embedded::benchmark20().unwrap());
        for quoted in ["def is_prime(n):", ">>> def isPrime (n):", "... def add(x, y): return x + y"] {
            let document = format!("def show():\n    \"\"\"For example:\n\n    {quoted}\n    \"\"\"\n    return 1\n");
            assert!(contamination.holds(&document), "{quoted}");
        }
        for other in ["def is_primes(n):", "def add_all(x):", "undefined add (x)", "adds def"] {
            assert!(!contamination.holds(&format!("x = 1\n{other}\n")), "{other}");
        }
    }

    #[test]
    fn the_public_test_rows_are_found() {
        let Ok(folder) = std::env::var("CODELORA_EXTERNAL") else {
            eprintln!("skipped: CODELORA_EXTERNAL is not set");
            return;
        };
        let mut contamination = Contamination::default();
        contamination.add_public(Path::new(&folder)).unwrap();
        let rows: Vec<Row> = artifact::read_jsonl(&Path::new(&folder).join("HumanEval.jsonl")).unwrap();
        let long = rows.iter().filter(|row| grams(&row.canonical_solution).len() >= FEWEST);
        let (mut seen, mut all) = (0, 0);
        for row in long {
            all += 1;
            seen += usize::from(contamination.holds(&format!("x = 1\n{}\ny = 2\n", row.canonical_solution)));
        }
        assert!(all > 100 && seen == all, "{seen} of {all}");
    }
}
