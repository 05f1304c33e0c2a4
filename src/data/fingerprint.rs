//! What a program looks like to its duplicates: its text, its syntax tree, its token 5-grams.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::python_source::{Kind, lines};
use crate::seed::sha256;

/// Tokens in a shingle.
const SHINGLE: usize = 5;

/// How alike two samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Likeness {
    /// The same program text, white space, comments and docstrings aside.
    Exact,
    /// The same syntax tree, names, docstrings and annotations aside.
    SameTree,
    /// Most token 5-grams in common.
    Near,
}

impl Likeness {
    /// Its name in tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Exact => "same text",
            Self::SameTree => "same tree",
            Self::Near => "nearly the same",
        }
    }
}

/// What a program looks like to its duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// SHA-256 of its tokens.
    pub text: String,
    /// SHA-256 of its normalised syntax tree.
    pub form: String,
    /// Hashes of its token 5-grams, sorted, each once.
    pub shingles: Vec<u64>,
}

impl Fingerprint {
    /// The fingerprint of a program whose normalised tree is `form`.
    pub fn new(program: &str, form: &str) -> Self {
        let tokens = tokens(program);
        let own: Vec<&str> = tokens.iter().map(|&(kind, text)| placeholder(kind, text)).collect();
        let exact: Vec<&str> = tokens.iter().map(|&(_, text)| text).collect();
        Self { text: sha256(exact.join("\n")), form: sha256(form), shingles: shingles(&own) }
    }

    /// How alike two programs are, when they are alike at all.
    pub fn likeness(&self, other: &Self, near: f64) -> Option<Likeness> {
        if self.text == other.text {
            Some(Likeness::Exact)
        } else if self.form == other.form {
            Some(Likeness::SameTree)
        } else {
            (jaccard(&self.shingles, &other.shingles, near) >= near).then_some(Likeness::Near)
        }
    }
}

/// The program's tokens without comments and without statements that are only a string.
fn tokens(program: &str) -> Vec<(Kind, &str)> {
    // Source that cannot be lexed never becomes a sample; for anything else its words are as good as its tokens.
    let Ok(lines) = lines(program) else {
        return program.split_whitespace().map(|word| (Kind::Operator, word)).collect();
    };
    let statements = lines.iter().filter(|line| line.tokens.iter().any(|token| token.kind != Kind::Text));
    let tokens = statements.flat_map(|line| &line.tokens).filter(|token| token.kind != Kind::Comment);
    let mut found: Vec<(Kind, &str)> = Vec::new();
    for token in tokens {
        let text = &program[token.start..token.end];
        // An attribute belongs to its object, not to the program: it keeps its name.
        let attribute = token.kind == Kind::Name && found.last().is_some_and(|&(_, before)| before == ".");
        found.push((if attribute { Kind::Operator } else { token.kind }, text));
    }
    found
}

/// The token as it counts for nearness: names that are neither keywords nor built-in are all one.
fn placeholder(kind: Kind, text: &str) -> &str {
    let kept = kind != Kind::Name || PYTHON_WORDS.binary_search(&text).is_ok();
    if kept { text } else { "_" }
}

/// Hashes of the n-grams of `words`, sorted, each once; of the whole when it is shorter.
pub(crate) fn shingles(words: &[&str]) -> Vec<u64> {
    let hash = |gram: &[&str]| {
        let digest = Sha256::digest(gram.join("\n").as_bytes());
        digest.iter().take(8).fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte))
    };
    let found: BTreeSet<u64> = match words.len() {
        0 => BTreeSet::new(),
        1..=SHINGLE => [hash(words)].into(),
        _ => words.windows(SHINGLE).map(hash).collect(),
    };
    found.into_iter().collect()
}

/// |a ∩ b| / |a ∪ b| of two sorted lists; 0 as soon as it is clear that `least` is out of reach.
pub(crate) fn jaccard(a: &[u64], b: &[u64], least: f64) -> f64 {
    let (small, large) = (a.len().min(b.len()), a.len().max(b.len()));
    if small == 0 || (small as f64) < least * large as f64 {
        return 0.0;
    }
    let (mut i, mut j, mut common) = (0, 0, 0_usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, common) = (i + 1, j + 1, common + 1),
        }
    }
    common as f64 / (a.len() + b.len() - common) as f64
}

/// Keywords and built-in names, sorted.
#[rustfmt::skip]
const PYTHON_WORDS: [&str; 84] = [
    "False", "None", "True", "abs", "all", "and", "any", "as", "assert", "async", "await", "bin", "bool",
    "break", "bytes", "chr", "class", "complex", "continue", "def", "del", "dict", "divmod", "elif", "else",
    "enumerate", "except", "filter", "finally", "float", "for", "format", "from", "frozenset", "getattr",
    "global", "hash", "hex", "id", "if", "import", "in", "input", "int", "is", "isinstance", "issubclass",
    "iter", "lambda", "len", "list", "map", "max", "min", "next", "nonlocal", "not", "object", "oct", "or",
    "ord", "pass", "pow", "print", "raise", "range", "repr", "return", "reversed", "round", "set", "slice",
    "sorted", "str", "sum", "super", "try", "tuple", "type", "vars", "while", "with", "yield", "zip",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn print(program: &str) -> Fingerprint {
        Fingerprint::new(program, program)
    }

    #[test]
    fn the_words_can_be_searched() {
        assert!(PYTHON_WORDS.is_sorted());
    }

    #[test]
    fn renaming_hides_nothing_and_another_operator_shows() {
        let one = print(
            "def f(a):\n    '''x'''\n    total = 0\n    for i in a:\n        total += i.size\n    return total\n",
        );
        let two = print("def g(xs):\n    s = 0  # so far\n    for x in xs:\n        s += x.size\n    return s\n");
        let three = print("def g(xs):\n    s = 1\n    for x in xs:\n        s *= x.width\n    return s\n");
        assert_eq!(one.shingles, two.shingles);
        assert_eq!(one.likeness(&two, 0.8), Some(Likeness::Near));
        assert_eq!(two.likeness(&three, 0.8), None);
    }
}
