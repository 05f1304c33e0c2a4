//! What a family file says, read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::template;
use crate::error::{Error, Result};

/// Fewest tests of a form: fewer let a wrong body pass.
const FEWEST_TESTS: usize = 4;

/// The kind of programming a family practises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Numbers and formulas.
    Arithmetic,
    /// Lists of numbers or words.
    Lists,
    /// Text.
    Strings,
    /// Searching, ordering, counting by an algorithm.
    Algorithms,
    /// Stacks, queues, matrices, sets, tuples.
    Structures,
    /// Branches.
    Conditionals,
    /// Explicit loops.
    Loops,
    /// Functions that call themselves.
    Recursion,
    /// Mappings.
    Dictionaries,
}

impl Category {
    /// All categories, in the order of the enum.
    pub const ALL: [Self; 9] = [
        Self::Arithmetic,
        Self::Lists,
        Self::Strings,
        Self::Algorithms,
        Self::Structures,
        Self::Conditionals,
        Self::Loops,
        Self::Recursion,
        Self::Dictionaries,
    ];

    /// The name used in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "arithmetic",
            Self::Lists => "lists",
            Self::Strings => "strings",
            Self::Algorithms => "algorithms",
            Self::Structures => "structures",
            Self::Conditionals => "conditionals",
            Self::Loops => "loops",
            Self::Recursion => "recursion",
            Self::Dictionaries => "dictionaries",
        }
    }
}

/// Rows with the same columns; a sample picks one row.
pub type Table = Vec<BTreeMap<String, String>>;

/// Functions that differ by the choice of slot rows and words.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Unique over all files.
    pub name: String,
    /// What it practises.
    pub category: Category,
    /// How much more often it is drawn than its breadth alone would have it.
    #[serde(default = "once")]
    pub weight: f64,
    /// The file it stands in, without `.toml`.
    #[serde(skip)]
    pub file: String,
    /// Tables of which each sample picks one row; a row's columns are `{slot.column}`.
    #[serde(default)]
    pub slots: BTreeMap<String, Table>,
    /// Names that belong together, e.g. `{pair.a}` and `{pair.b}`: tables like slots, but no operator depends on the row.
    #[serde(default)]
    pub vars: BTreeMap<String, Table>,
    /// Plain alternatives of which each sample picks one: `{word}`. The words of one sample always differ.
    #[serde(default)]
    pub words: BTreeMap<String, Vec<String>>,
    /// Choices of slot rows that no sample may have, because they are a benchmark's function; from [`Withheld`](super::withheld::Withheld).
    #[serde(skip)]
    pub withheld: Vec<BTreeMap<String, String>>,
    /// A sample has one of these forms.
    #[serde(rename = "form")]
    pub forms: Vec<Form>,
}

fn once() -> f64 {
    1.0
}

/// A signature with phrasings and bodies that fit it. All strings are templates.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Names of the function, the likelier first.
    pub names: Vec<String>,
    /// Parameters with annotations, e.g. `values: list[int], limit: int`.
    pub args: String,
    /// The annotation of the result.
    pub returns: String,
    /// Docstrings of one line, all equally likely.
    pub docs: Vec<String>,
    /// Equivalent bodies, the likelier first.
    pub bodies: Vec<String>,
    /// How likely each body is, relative to the others; 4 : 2 : 1 : 1 … when absent.
    #[serde(default)]
    pub weights: Vec<u32>,
    /// Python expressions that must be true; `{f}` is the function's name.
    pub tests: Vec<String>,
    /// Calls with their value, `{f}(2, 3) == 5`: proven like tests, and shown in the docstring of some samples.
    #[serde(default)]
    pub examples: Vec<String>,
    /// Lines before the function.
    #[serde(default)]
    pub imports: Vec<String>,
    /// Python that runs before the tests.
    #[serde(default)]
    pub setup: String,
}

impl Form {
    /// Every template of the form that reaches prompt or solution.
    fn texts(&self) -> impl Iterator<Item = &String> {
        let lists = [&self.names, &self.docs, &self.bodies, &self.imports];
        lists.into_iter().flatten().chain([&self.args, &self.returns])
    }

    /// Every template of the form.
    fn templates(&self) -> impl Iterator<Item = &String> {
        self.texts().chain(&self.tests).chain(&self.examples).chain([&self.setup])
    }
}

impl Family {
    /// Distinct choices of slot rows, summed over the forms: the different functions the family can ask for.
    pub fn operator_combinations(&self) -> u64 {
        self.forms.iter().map(|form| self.choices(&self.used(form))).sum()
    }

    /// Distinct choices of slot rows, words, names, docstrings and bodies, summed over the forms. Some give the same
    /// text, so this bounds the number of distinct samples from above.
    pub fn combinations(&self) -> u64 {
        let of = |form: &Form| {
            let used = self.used(form);
            let named = |name: &String| used.contains(name.as_str());
            let vars = self.vars.iter().filter(|(name, _)| named(name)).map(|(_, rows)| rows.len());
            let words = self.words.iter().filter(|(name, _)| named(name)).map(|(_, list)| list.len());
            let texts = [form.names.len(), form.docs.len(), form.bodies.len()];
            let free =
                vars.chain(words).chain(texts).fold(1, |product: u64, count| product.saturating_mul(count as u64));
            self.choices(&used).saturating_mul(free)
        };
        self.forms.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Choices of rows of the slots in `used`, without those withheld.
    fn choices(&self, used: &BTreeSet<&str>) -> u64 {
        let slots: Vec<(&String, &Table)> =
            self.slots.iter().filter(|(name, _)| used.contains(name.as_str())).collect();
        let all: usize = slots.iter().map(|(_, rows)| rows.len()).product();
        let allowed = |choice: &usize| {
            let mut rest = *choice;
            let mut picks = BTreeMap::new();
            for (name, rows) in &slots {
                picks.insert(name.as_str(), rest % rows.len());
                rest /= rows.len();
            }
            !self.withholds(&picks)
        };
        (0..all).filter(allowed).count() as u64
    }

    /// Whether `picks`, the row of each slot, are withheld.
    pub(super) fn withholds(&self, picks: &BTreeMap<&str, usize>) -> bool {
        let has = |slot: &String, text: &String| {
            picks.get(slot.as_str()).is_some_and(|row| self.slots[slot][*row].values().any(|value| value == text))
        };
        self.withheld.iter().any(|rows| rows.iter().all(|(slot, text)| has(slot, text)))
    }

    /// Names of the slots and words that the texts of `form` name, directly or through a value.
    pub(super) fn used(&self, form: &Form) -> BTreeSet<&str> {
        let mut used = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = form.texts().flat_map(|text| template::keys(text)).collect();
        while let Some(key) = open.pop() {
            let (name, column) = key.split_once('.').unwrap_or((key, ""));
            if !seen.insert(key) {
                continue;
            }
            if let Some((table, rows)) = self.slots.get_key_value(name).or_else(|| self.vars.get_key_value(name)) {
                used.insert(table.as_str());
                let values = rows.iter().filter_map(|row| row.get(column));
                open.extend(values.flat_map(|value| template::keys(value)));
            } else if let Some((word, list)) = self.words.get_key_value(name) {
                used.insert(word.as_str());
                open.extend(list.iter().flat_map(|value| template::keys(value)));
            }
        }
        used
    }

    /// What is wrong with the family, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        if self.forms.is_empty() {
            return Some("it has no form".to_owned());
        }
        for (slot, rows) in self.slots.iter().chain(&self.vars) {
            let columns: Vec<_> = rows.iter().map(|row| row.keys().collect::<Vec<_>>()).collect();
            if columns.is_empty() || columns.iter().any(|keys| keys != &columns[0]) {
                return Some(format!("slot {slot} has no rows, or rows with different columns"));
            }
        }
        if let Some((word, _)) =
            self.words.iter().find(|(name, list)| list.is_empty() || self.slots.contains_key(*name))
        {
            return Some(format!("word {word} has no alternatives, or is a slot too"));
        }
        let value = |key: &str| -> Option<&str> {
            match key.split_once('.') {
                Some((table, column)) => {
                    let rows = self.slots.get(table).or_else(|| self.vars.get(table))?;
                    rows.first()?.get(column).map(String::as_str)
                }
                None if key == "f" => Some("f"),
                None => self.words.get(key)?.first().map(String::as_str),
            }
        };
        for form in &self.forms {
            if form.tests.len() < FEWEST_TESTS {
                return Some(format!("a form has fewer than {FEWEST_TESTS} tests"));
            }
            if form.names.is_empty() || form.docs.is_empty() || form.bodies.is_empty() {
                return Some("a form lacks names, docs or bodies".to_owned());
            }
            if !form.weights.is_empty() && form.weights.len() != form.bodies.len() {
                return Some("a form has another number of weights than of bodies".to_owned());
            }
            let values = self.slots.values().chain(self.vars.values()).flatten().flat_map(BTreeMap::values);
            let words = self.words.values().flatten();
            for text in form.templates().chain(values).chain(words) {
                if let Err(fault) = template::render(text, &value) {
                    return Some(fault);
                }
            }
        }
        None
    }
}

/// Words, vars and slots that any family may use without defining them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Common {
    words: BTreeMap<String, Vec<String>>,
    vars: BTreeMap<String, Table>,
    slots: BTreeMap<String, Table>,
}

impl Common {
    /// Reads the file of common names.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the line at fault.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        read(path, text)
    }

    /// Gives `family` the names that it does not define itself.
    fn complete(&self, family: &mut Family) {
        let free = |name: &String, family: &Family| {
            !family.slots.contains_key(name) && !family.words.contains_key(name) && !family.vars.contains_key(name)
        };
        for (word, list) in &self.words {
            if free(word, family) {
                family.words.insert(word.clone(), list.clone());
            }
        }
        for (name, rows) in &self.vars {
            if free(name, family) {
                family.vars.insert(name.clone(), rows.clone());
            }
        }
        // Slots count as operators, so a family gets only those that its texts name.
        let named: BTreeSet<String> = {
            let own = family.slots.values().flatten().flat_map(BTreeMap::values);
            let texts = family.forms.iter().flat_map(Form::templates).chain(own);
            let tables = texts.flat_map(|text| template::keys(text)).filter_map(|key| Some(key.split_once('.')?.0));
            tables.map(str::to_owned).collect()
        };
        for (slot, rows) in &self.slots {
            if free(slot, family) && named.contains(slot) {
                family.slots.insert(slot.clone(), rows.clone());
            }
        }
    }
}

pub(super) const REMEDY: &str = "see data/exercises/README.md for the format";

pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        Error::malformed(path, line, error.message(), REMEDY)
    })
}

/// The families of one file, completed with the common names.
///
/// # Errors
/// [`Error::Malformed`] with the line or the family at fault.
pub fn parse(path: &Path, text: &str, common: &Common) -> Result<Vec<Family>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        family: Vec<Family>,
    }
    let mut file: File = read(path, text)?;
    let mut names = BTreeSet::new();
    for family in &mut file.family {
        common.complete(family);
        let fault =
            if names.insert(family.name.clone()) { family.fault() } else { Some("its name is taken".to_owned()) };
        if let Some(fault) = fault {
            let line = text.lines().position(|line| line == format!("name = \"{}\"", family.name)).map(|at| at + 1);
            return Err(Error::malformed(path, line, format!("family {}: {fault}", family.name), REMEDY));
        }
    }
    Ok(file.family)
}
