//! Synthetic exercises: families of short functions with slots, seeded, any number of distinct samples on demand.
//!
//! A family is data (`data/exercises/*.toml`), not code. It ties phrasing to operators: one word of the docstring that
//! changes is one operator of the body that changes, so that a model must read the docstring to write the body. The
//! engine is four short files: [`family`] reads and checks the tables, [`rephrase`] adds phrasings to them, `template` fills
//! placeholders, `draw` picks.
//!
//! Covered: distinct samples, balance over families, provenance; no sample has the name of one of the benchmark's functions,
//! however it is spelled, and choices that behave like one are withheld (`withheld.toml`). Not covered: execution
//! ([`verify`](crate::data::verify)) and decontamination by syntax tree and behaviour
//! ([`decontaminate`](crate::data::decontaminate)), which every sample that an adapter trains on passes later, whatever its
//! source. The hundred thousands on which a base is trained are too many to be run each time: for them stand the withheld
//! choices, found by running every choice against the benchmark (`tests/golden/check_exercises.py`).

mod draw;
pub mod family;
mod phrasing;
pub mod rephrase;
mod template;
pub mod withheld;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use rand::seq::SliceRandom;

use crate::data::decontaminate::plain;
use crate::data::embedded;
use crate::data::task::{Provenance, Task};
use crate::error::{Error, Result};
use crate::experiment::Source;
use crate::seed;

pub use family::{Category, Common, Family, Form};

/// The family files, compiled in. A file of the folder that is not named here fails a test.
const FILES: &[(&str, &str)] = &[
    ("algorithms.toml", include_str!("../../../data/exercises/algorithms.toml")),
    ("arithmetic.toml", include_str!("../../../data/exercises/arithmetic.toml")),
    ("compositions.toml", include_str!("../../../data/exercises/compositions.toml")),
    ("conditionals.toml", include_str!("../../../data/exercises/conditionals.toml")),
    ("course_decisions.toml", include_str!("../../../data/exercises/course_decisions.toml")),
    ("course_lists.toml", include_str!("../../../data/exercises/course_lists.toml")),
    ("course_numbers.toml", include_str!("../../../data/exercises/course_numbers.toml")),
    ("course_pairs.toml", include_str!("../../../data/exercises/course_pairs.toml")),
    ("course_structures.toml", include_str!("../../../data/exercises/course_structures.toml")),
    ("course_text.toml", include_str!("../../../data/exercises/course_text.toml")),
    ("dictionaries.toml", include_str!("../../../data/exercises/dictionaries.toml")),
    ("everyday_decisions.toml", include_str!("../../../data/exercises/everyday_decisions.toml")),
    ("everyday_lists.toml", include_str!("../../../data/exercises/everyday_lists.toml")),
    ("everyday_money.toml", include_str!("../../../data/exercises/everyday_money.toml")),
    ("everyday_numbers.toml", include_str!("../../../data/exercises/everyday_numbers.toml")),
    ("everyday_people.toml", include_str!("../../../data/exercises/everyday_people.toml")),
    ("everyday_tables.toml", include_str!("../../../data/exercises/everyday_tables.toml")),
    ("everyday_text.toml", include_str!("../../../data/exercises/everyday_text.toml")),
    ("lists.toml", include_str!("../../../data/exercises/lists.toml")),
    ("loops.toml", include_str!("../../../data/exercises/loops.toml")),
    ("plain.toml", include_str!("../../../data/exercises/plain.toml")),
    ("plain_lists.toml", include_str!("../../../data/exercises/plain_lists.toml")),
    ("plain_structures.toml", include_str!("../../../data/exercises/plain_structures.toml")),
    ("plain_text.toml", include_str!("../../../data/exercises/plain_text.toml")),
    ("practice_algorithms.toml", include_str!("../../../data/exercises/practice_algorithms.toml")),
    ("practice_decisions.toml", include_str!("../../../data/exercises/practice_decisions.toml")),
    ("practice_lists.toml", include_str!("../../../data/exercises/practice_lists.toml")),
    ("practice_numbers.toml", include_str!("../../../data/exercises/practice_numbers.toml")),
    ("practice_structures.toml", include_str!("../../../data/exercises/practice_structures.toml")),
    ("practice_text.toml", include_str!("../../../data/exercises/practice_text.toml")),
    ("recursion.toml", include_str!("../../../data/exercises/recursion.toml")),
    ("short_lists.toml", include_str!("../../../data/exercises/short_lists.toml")),
    ("short_numbers.toml", include_str!("../../../data/exercises/short_numbers.toml")),
    ("short_structures.toml", include_str!("../../../data/exercises/short_structures.toml")),
    ("short_text.toml", include_str!("../../../data/exercises/short_text.toml")),
    ("strings.toml", include_str!("../../../data/exercises/strings.toml")),
    ("structures.toml", include_str!("../../../data/exercises/structures.toml")),
];

/// Further phrasings of the functions in [`FILES`], compiled in too.
const REPHRASED: &[(&str, &str)] = &[
    ("rephrased_course_decisions.toml", include_str!("../../../data/exercises/rephrased_course_decisions.toml")),
    ("rephrased_course_lists.toml", include_str!("../../../data/exercises/rephrased_course_lists.toml")),
    ("rephrased_course_numbers.toml", include_str!("../../../data/exercises/rephrased_course_numbers.toml")),
    ("rephrased_course_pairs.toml", include_str!("../../../data/exercises/rephrased_course_pairs.toml")),
    ("rephrased_course_structures.toml", include_str!("../../../data/exercises/rephrased_course_structures.toml")),
    ("rephrased_course_text.toml", include_str!("../../../data/exercises/rephrased_course_text.toml")),
    ("rephrased_plain.toml", include_str!("../../../data/exercises/rephrased_plain.toml")),
    ("rephrased_plain_lists.toml", include_str!("../../../data/exercises/rephrased_plain_lists.toml")),
    ("rephrased_plain_structures.toml", include_str!("../../../data/exercises/rephrased_plain_structures.toml")),
    ("rephrased_plain_text.toml", include_str!("../../../data/exercises/rephrased_plain_text.toml")),
    ("rephrased_short_lists.toml", include_str!("../../../data/exercises/rephrased_short_lists.toml")),
    ("rephrased_short_numbers.toml", include_str!("../../../data/exercises/rephrased_short_numbers.toml")),
    ("rephrased_short_structures.toml", include_str!("../../../data/exercises/rephrased_short_structures.toml")),
    ("rephrased_short_text.toml", include_str!("../../../data/exercises/rephrased_short_text.toml")),
];

/// Names and subjects that any family may use.
const COMMON: (&str, &str) = ("common.toml", include_str!("../../../data/exercises/common.toml"));

/// Choices that behave like a function of the benchmark.
const WITHHELD: (&str, &str) = ("withheld.toml", include_str!("../../../data/exercises/withheld.toml"));

/// Licence of every exercise: they are this project's own work.
const LICENCE: &str = "MIT OR Apache-2.0";

/// What samples are drawn from.
struct Catalogue {
    families: Vec<Family>,
    /// Names of the benchmark's functions.
    refused: BTreeSet<String>,
}

fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| match read_catalogue() {
        Ok(catalogue) => catalogue,
        Err(error) => panic!("{error}"),
    });
    &CATALOGUE
}

fn read_catalogue() -> Result<Catalogue> {
    let folder = Path::new("data/exercises");
    let common = Common::parse(&folder.join(COMMON.0), COMMON.1)?;
    let mut families = Vec::new();
    for (file, text) in FILES {
        let mut own = family::parse(&folder.join(file), text, &common)?;
        own.iter_mut().for_each(|family| stem(file).clone_into(&mut family.file));
        families.extend(own);
    }
    withheld::withhold(&folder.join(WITHHELD.0), WITHHELD.1, &mut families)?;
    for (file, text) in REPHRASED {
        let mut own = rephrase::rephrase(&folder.join(file), text, &families)?;
        own.iter_mut().for_each(|family| stem(file).clone_into(&mut family.file));
        families.extend(own);
    }
    let refused = embedded::benchmark20()?.iter().map(|task| plain(&task.entry_point)).collect();
    Ok(Catalogue { families, refused })
}

/// All families, in the order of the files.
///
/// # Panics
/// When a file that was compiled in is malformed; a test reads them all, so a released build cannot.
pub fn families() -> &'static [Family] {
    &catalogue().families
}

/// SHA-256 over all family files: what [`generate`] gives depends on it beside its arguments.
pub fn digest() -> String {
    let texts: Vec<&str> = FILES.iter().chain(REPHRASED).chain([&COMMON, &WITHHELD]).map(|(_, text)| *text).collect();
    seed::sha256(texts.join("\n"))
}

/// The families of the files named in `files` without their `.toml`, or all of them when it is empty.
///
/// # Errors
/// [`Error::Invalid`] for a file that does not exist.
fn chosen(files: &[String]) -> Result<impl Iterator<Item = &'static Family>> {
    let known = || FILES.iter().chain(REPHRASED).map(|(file, _)| stem(file));
    if let Some(stranger) = files.iter().find(|file| !known().any(|name| name == file.as_str())) {
        let what = format!("there is no exercise file {stranger:?}");
        return Err(Error::invalid(what, format!("name some of: {}", known().collect::<Vec<_>>().join(", "))));
    }
    Ok(families().iter().filter(move |family| files.is_empty() || files.contains(&family.file)))
}

fn stem(file: &str) -> &str {
    file.trim_end_matches(".toml")
}

/// `count` distinct exercises (by prompt and solution) from the families of `files` (all when empty), the same for the same
/// `seed`; fewer only when every family is exhausted. A smaller `count` gives a prefix of a larger one.
///
/// Families take turns. A family with many operator combinations is drawn more often than one with few, by the square
/// root of their number times the family's weight, and less and less as its own combinations are used up, so that none dominates.
///
/// # Errors
/// [`Error::Invalid`] for a file that does not exist.
pub fn generate(seed: u64, count: usize, files: &[String]) -> Result<Vec<Task>> {
    let mut streams: Vec<Stream> = chosen(files)?.map(|family| Stream::new(family, seed)).collect();
    let mut order = seed::rng(seed, "exercises: order of families");
    let mut seen = BTreeSet::new();
    let mut tasks = Vec::with_capacity(count);
    while tasks.len() < count && !streams.is_empty() {
        streams.shuffle(&mut order);
        for stream in &mut streams {
            stream.credit += stream.weight();
        }
        // One sample a turn, so that a few hundred exercises already come from as many families.
        loop {
            let mut turn = streams.iter_mut().filter(|stream| stream.credit >= 1.0 && !stream.exhausted).peekable();
            if turn.peek().is_none() || tasks.len() == count {
                break;
            }
            for stream in turn.take(count - tasks.len()) {
                stream.credit -= 1.0;
                if let Some(drawn) = stream.next(&mut seen) {
                    tasks.push(task(tasks.len(), drawn));
                }
            }
        }
        streams.retain(|stream| !stream.exhausted);
    }
    Ok(tasks)
}

fn task(index: usize, drawn: draw::Drawn) -> Task {
    let text = format!("{}{}", drawn.prompt, drawn.solution);
    Task {
        id: format!("ex_{index:06}"),
        prompt: drawn.prompt,
        solution: drawn.solution,
        entry_point: drawn.entry_point,
        setup: drawn.setup,
        tests: drawn.tests,
        provenance: Some(Provenance {
            source: Source::Exercises,
            original_id: drawn.choice,
            official_split: None,
            licence: LICENCE.to_owned(),
            raw_sha256: seed::sha256(text),
        }),
    }
}

/// The samples of one family, in the order in which they are drawn.
struct Stream {
    family: &'static Family,
    rng: rand::rngs::StdRng,
    /// Texts the family can give, at most.
    combinations: f64,
    /// √(operator combinations), at most [`Self::HEAVIEST`], times the family's weight.
    breadth: f64,
    credit: f64,
    taken: f64,
    exhausted: bool,
}

impl Stream {
    /// Draws without a new sample after which a family counts as exhausted.
    const TRIES: usize = 64;
    /// Most samples of one family in one round, for a weight of 1.
    const HEAVIEST: f64 = 6.0;

    fn new(family: &'static Family, seed: u64) -> Self {
        let rng = seed::rng(seed, &format!("exercises: family {}", family.name));
        let combinations = family.combinations() as f64;
        let breadth = (family.operator_combinations() as f64).sqrt().min(Self::HEAVIEST) * family.weight;
        Self { family, rng, combinations, breadth, credit: 0.0, taken: 0.0, exhausted: false }
    }

    /// Samples for the coming round: the breadth, decaying with the share of the family's texts that is already taken.
    fn weight(&self) -> f64 {
        self.breadth * (1.0 - self.taken / self.combinations).max(0.05)
    }

    fn next(&mut self, seen: &mut BTreeSet<(String, String)>) -> Option<draw::Drawn> {
        for _ in 0..Self::TRIES {
            let Some(drawn) = draw::draw(self.family, &catalogue().refused, &mut self.rng) else { continue };
            if seen.insert((drawn.prompt.clone(), drawn.solution.clone())) {
                self.taken += 1.0;
                return Some(drawn);
            }
        }
        self.exhausted = true;
        None
    }
}

#[cfg(test)]
mod tests;
