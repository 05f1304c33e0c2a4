//! Exact, structural and near duplicates.
//!
//! Near is measured by the Jaccard similarity of token 5-grams, with every name of the program's own replaced by one
//! placeholder, so that renaming hides nothing. Groups are found with MinHash and banding (Broder 1997; Leskovec et al.,
//! *Mining of Massive Datasets*, ch. 3) and each candidate pair is then measured exactly.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::python_source::{Kind, lines};
use crate::seed::sha256;

/// Tokens in a shingle.
const SHINGLE: usize = 5;

/// Bands and rows of the MinHash signature: a pair of similarity 0.8 is missed with probability (1 − 0.8⁴)¹⁶ ≈ 2·10⁻⁴.
const BANDS: usize = 16;
/// Rows of a band.
const ROWS: usize = 4;

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

/// Samples that repeat each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Ids, in the order of the samples; at least two.
    pub members: Vec<String>,
    /// The weakest likeness that holds the cluster together.
    pub likeness: Likeness,
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

/// For each of `these` the first of `those` that it repeats. Compares every pair, so that nothing slips through.
pub fn twins(these: &[&Fingerprint], those: &[&Fingerprint], near: f64) -> Vec<Option<(usize, Likeness)>> {
    let find = |one: &&Fingerprint| {
        those.iter().enumerate().find_map(|(place, other)| Some((place, one.likeness(other, near)?)))
    };
    these.par_iter().map(find).collect()
}

/// Groups of two and more that repeat each other, by transitive closure; each a list of indices and its weakest likeness.
pub fn groups(prints: &[&Fingerprint], near: f64) -> Vec<(Vec<usize>, Likeness)> {
    let mut buckets: BTreeMap<(usize, u64), Vec<usize>> = BTreeMap::new();
    let signatures: Vec<Vec<u64>> = prints.par_iter().map(|print| bands(&print.shingles)).collect();
    let mut forms: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, print) in prints.iter().enumerate() {
        forms.entry(&print.form).or_default().push(index);
        for (band, &hash) in signatures[index].iter().enumerate() {
            buckets.entry((band, hash)).or_default().push(index);
        }
    }
    let mut parent: Vec<usize> = (0..prints.len()).collect();
    let mut weakest = vec![Likeness::Exact; prints.len()];
    let candidates = forms.into_values().chain(buckets.into_values());
    for bucket in candidates.filter(|bucket| bucket.len() > 1) {
        for (place, &one) in bucket.iter().enumerate() {
            for &other in &bucket[place + 1..] {
                let (a, b) = (root(&mut parent, one), root(&mut parent, other));
                if a != b
                    && let Some(likeness) = prints[one].likeness(prints[other], near)
                {
                    let (low, high) = (a.min(b), a.max(b));
                    parent[high] = low;
                    weakest[low] = weakest[low].max(weakest[high]).max(likeness);
                }
            }
        }
    }
    let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..prints.len() {
        found.entry(root(&mut parent, index)).or_default().push(index);
    }
    let several = found.into_iter().filter(|(_, members)| members.len() > 1);
    several.map(|(root, members)| (members, weakest[root])).collect()
}

fn root(parent: &mut [usize], mut index: usize) -> usize {
    while parent[index] != index {
        parent[index] = parent[parent[index]];
        index = parent[index];
    }
    index
}

/// One hash a band over the smallest shingle under each of `BANDS · ROWS` permutations.
fn bands(shingles: &[u64]) -> Vec<u64> {
    let smallest = |seed: u64| shingles.iter().map(|&shingle| mix(shingle ^ mix(seed))).min().unwrap_or(seed);
    let band = |band: usize| (0..ROWS).fold(0, |sum, row| mix(sum ^ smallest((band * ROWS + row) as u64 + 1)));
    (0..BANDS).map(band).collect()
}

/// The finaliser of SplitMix64 (Steele et al. 2014): a permutation of 64-bit words.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Keywords and built-in names, sorted.
const PYTHON_WORDS: [&str; 84] = [
    "False",
    "None",
    "True",
    "abs",
    "all",
    "and",
    "any",
    "as",
    "assert",
    "async",
    "await",
    "bin",
    "bool",
    "break",
    "bytes",
    "chr",
    "class",
    "complex",
    "continue",
    "def",
    "del",
    "dict",
    "divmod",
    "elif",
    "else",
    "enumerate",
    "except",
    "filter",
    "finally",
    "float",
    "for",
    "format",
    "from",
    "frozenset",
    "getattr",
    "global",
    "hash",
    "hex",
    "id",
    "if",
    "import",
    "in",
    "input",
    "int",
    "is",
    "isinstance",
    "issubclass",
    "iter",
    "lambda",
    "len",
    "list",
    "map",
    "max",
    "min",
    "next",
    "nonlocal",
    "not",
    "object",
    "oct",
    "or",
    "ord",
    "pass",
    "pow",
    "print",
    "raise",
    "range",
    "repr",
    "return",
    "reversed",
    "round",
    "set",
    "slice",
    "sorted",
    "str",
    "sum",
    "super",
    "try",
    "tuple",
    "type",
    "vars",
    "while",
    "with",
    "yield",
    "zip",
];

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

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

    #[test]
    fn banding_finds_the_groups_that_comparing_all_pairs_finds() {
        let mut rng = crate::seed::rng(1, "duplicates");
        let mut prints = Vec::new();
        for base in 0..40 {
            let words: Vec<String> = (0..60).map(|_| format!("w{}", rng.random_range(0..50))).collect();
            for copy in 0..3 {
                let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
                words[30] = ["a", "b", "c"][copy];
                let text = format!("{base}-{copy}");
                prints.push(Fingerprint { text: text.clone(), form: text, shingles: shingles(&words) });
            }
        }
        let prints: Vec<&Fingerprint> = prints.iter().collect();
        let groups = groups(&prints, 0.8);
        assert_eq!(groups.len(), 40);
        assert!(groups.iter().all(|(members, likeness)| members.len() == 3 && *likeness == Likeness::Near));
    }

    #[test]
    fn ten_thousand_samples_take_seconds() {
        let mut rng = crate::seed::rng(2, "duplicates");
        let prints: Vec<Fingerprint> = (0..10_000)
            .map(|index| {
                let words: Vec<String> =
                    (0..60).map(|place| format!("{}", place * 7 + rng.random_range(0..3))).collect();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                Fingerprint { text: index.to_string(), form: index.to_string(), shingles: shingles(&words) }
            })
            .collect();
        let prints: Vec<&Fingerprint> = prints.iter().collect();
        let start = std::time::Instant::now();
        groups(&prints, 0.8);
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    }
}
