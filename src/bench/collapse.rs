//! Collapse, measured: what a completion looks like when the model has fallen into a loop, a stutter or into white space.
//!
//! A completion is read as *pieces*: words, numbers, single signs and newlines; other white space separates pieces. Five
//! measures are held against thresholds. The thresholds were set on human solutions alone, 1,319 of HumanEval, MBPP and our own
//! tasks, each with room above the furthest that one of them reaches; what the miniature model without a mask writes was
//! held against them afterwards. `tests/it/collapse_calibration.rs` measures both anew.
//!
//! *Not covered*: nonsense that repeats nothing. That is what the share of valid syntax is for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// From this many pieces of back-to-back repetition a completion is collapsed; human solutions reach 9.
pub const REPEATED_PIECES: usize = 12;
/// A shorter repetition counts when it is at least three quarters of the completion.
pub const REPEATED_SHARE: f64 = 0.75;
/// The shortest repetition that [`REPEATED_SHARE`] applies to.
pub const REPEATED_SHORTEST: usize = 8;
/// Below this share of distinct 4-grams a completion is collapsed; human solutions reach 0.47.
pub const DISTINCT_4: f64 = 0.3;
/// Pieces a completion must have before [`DISTINCT_4`] applies.
pub const DISTINCT_PIECES: usize = 24;
/// From this many characters of back-to-back repetition inside one word or chain of signs (`________`, `apepepep`, `((((((((`)
/// a completion is collapsed; human solutions reach 9.
pub const REPEATED_CHARACTERS: usize = 16;
/// From this many words that directly follow themselves a completion is collapsed; human solutions have none, and one may
/// be a slip.
pub const STUTTERED_WORDS: usize = 2;
/// From this share of white space a completion is collapsed; human solutions reach 0.93.
pub const WHITESPACE: f64 = 0.95;
/// Characters a completion must have before [`WHITESPACE`] applies.
pub const WHITESPACE_CHARACTERS: usize = 8;

/// Copies of an n-gram, one after the other, that make a repetition.
const COPIES: usize = 3;
/// Longest n-gram whose repetition is looked for, in pieces: about two lines of code.
const LONGEST_GRAM: usize = 24;
/// Longest string whose repetition inside a word is looked for, in characters.
const LONGEST_SYLLABLE: usize = 8;

/// Measures of one completion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Most pieces covered by at least three back-to-back copies of one n-gram.
    pub repeated_pieces: usize,
    /// Most characters covered by at least three back-to-back copies of one short string, white space apart. A vocabulary's
    /// tokens are often parts of a word: a loop of them shows here and not in the pieces.
    #[serde(default)]
    pub repeated_characters: usize,
    /// Words and numbers that directly follow themselves, as in `values values`; no Python outside strings and comments has
    /// them but `not not`, which does not count.
    #[serde(default)]
    pub stuttered_words: usize,
    /// Share of distinct 4-grams of pieces among all of them, in (0, 1]; 1 for texts too short to have any (Li et al. 2016).
    pub distinct_4: f64,
    /// Share of white-space characters, in [0, 1].
    pub whitespace: f64,
    /// Whether there is a statement beside `pass`, `...`, `return`, `return None` and docstrings.
    pub non_trivial: bool,
    /// Whether the thresholds call it collapsed.
    pub collapsed: bool,
}

/// Measures a completion, uncut, and the body that was cut from it.
pub fn shape(completion: &str, body: &str) -> Shape {
    let pieces = pieces(completion);
    let characters = completion.chars().count();
    let blanks = completion.chars().filter(|c| c.is_whitespace()).count();
    let whitespace = if characters == 0 { 0.0 } else { blanks as f64 / characters as f64 };
    let (repeated_pieces, distinct_4) = (repeated(&pieces, LONGEST_GRAM), distinct(&pieces, 4));
    let chains = completion.split_whitespace().map(|chain| chain.chars().collect::<Vec<_>>());
    let repeated_characters = chains.map(|chain| repeated(&chain, LONGEST_SYLLABLE)).max().unwrap_or(0);
    let stuttered_words = stuttered(&pieces);
    let share = repeated_pieces as f64 / pieces.len().max(1) as f64;
    let looping = repeated_pieces >= REPEATED_PIECES
        || (repeated_pieces >= REPEATED_SHORTEST && share >= REPEATED_SHARE)
        || repeated_characters >= REPEATED_CHARACTERS
        || stuttered_words >= STUTTERED_WORDS
        || (pieces.len() >= DISTINCT_PIECES && distinct_4 < DISTINCT_4);
    let blank = characters >= WHITESPACE_CHARACTERS && whitespace >= WHITESPACE;
    Shape {
        repeated_pieces,
        repeated_characters,
        stuttered_words,
        distinct_4,
        whitespace,
        non_trivial: non_trivial(body),
        collapsed: looping || blank,
    }
}

/// Words, numbers, single signs and newlines.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut word = None;
    for (at, c) in text.char_indices() {
        let in_word = c.is_alphanumeric() || c == '_';
        if let (Some(start), false) = (word, in_word) {
            pieces.push(&text[start..at]);
            word = None;
        }
        if in_word {
            word.get_or_insert(at);
        } else if c == '\n' || !c.is_whitespace() {
            pieces.push(&text[at..at + c.len_utf8()]);
        }
    }
    pieces.extend(word.map(|start| &text[start..]));
    pieces
}

/// Most items covered by at least [`COPIES`] back-to-back copies of one n-gram of at most `longest` items.
fn repeated<T: PartialEq>(items: &[T], longest: usize) -> usize {
    let mut most = 0;
    for gram in 1..=longest.min(items.len()) {
        let mut run = 0;
        for at in gram..items.len() {
            run = if items[at] == items[at - gram] { run + 1 } else { 0 };
            if run >= (COPIES - 1) * gram {
                most = most.max(run + gram);
            }
        }
    }
    most
}

/// Words and numbers that directly follow themselves.
fn stuttered(pieces: &[&str]) -> usize {
    let in_word = |piece: &str| piece.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    pieces.windows(2).filter(|pair| pair[0] == pair[1] && pair[0] != "not" && in_word(pair[0])).count()
}

/// Share of distinct n-grams.
fn distinct(pieces: &[&str], n: usize) -> f64 {
    let all = pieces.windows(n).count();
    if all == 0 { 1.0 } else { pieces.windows(n).collect::<BTreeSet<_>>().len() as f64 / all as f64 }
}

/// Whether a body does anything: a line beside blanks, comments, docstrings, `pass`, `...` and a bare `return`.
pub fn non_trivial(body: &str) -> bool {
    let mut quote: Option<&str> = None;
    for line in body.lines().map(str::trim) {
        if let Some(end) = quote {
            quote = if line.contains(end) { None } else { quote };
            continue;
        }
        let opening = ["\"\"\"", "'''"].into_iter().find(|mark| line.starts_with(mark));
        if let Some(mark) = opening {
            quote = if line[mark.len()..].contains(mark) { None } else { Some(mark) };
        } else if !line.is_empty()
            && !line.starts_with('#')
            && !matches!(line, "pass" | "..." | "return" | "return None" | "\"\"" | "''")
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collapsed(completion: &str) -> bool {
        shape(completion, completion).collapsed
    }

    #[test]
    fn the_failures_of_the_earlier_attempt_are_seen() {
        // Newlines alone passed its detector; the others are the patterns it knew.
        for failure in [
            "\n".repeat(100),
            "\n".repeat(8),
            "    \n".repeat(30),
            ")".repeat(10),
            format!("    return x{}", ")".repeat(60)),
            ":".repeat(10),
            "#".repeat(20),
            "def ".repeat(20),
            "return ".repeat(20),
            "    x = x + 1\n".repeat(5),
            "    return return return return return return return return return return return return\n".into(),
            "a, b, ".repeat(6),
            "    if x == 1:\n        return 2\n".repeat(3),
            // Loops of parts of words, and stutters: what a model without a mask writes.
            format!("    return{}", "_".repeat(40)),
            format!("    x = sm{}all\n", "ap".repeat(8)),
            "    if numbers numbers in in range(n):\n".into(),
        ] {
            assert!(collapsed(&failure), "{failure:?} {:?}", shape(&failure, &failure));
        }
    }

    #[test]
    fn ordinary_code_is_not_collapsed() {
        for code in [
            "",
            "    return a + b\n",
            "\n    return 1\n",
            "    total = 0\n    for number in numbers:\n        total += number\n    return total\n",
            "    return (j * j * j * j * j)\n",
            "    grid = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]\n    grid[0][1] = 5\n    return grid\n",
            "    return not not x\n",
            "    # that that is, is\n    return x ____ y\n",
            "    return f(g(h(i((x + 1) * 10000000000))))\n",
            "    if x > 0:\n        return 1\n    if x < 0:\n        return -1\n    return 0\n",
        ] {
            assert!(!collapsed(code), "{code:?} {:?}", shape(code, code));
        }
    }

    #[test]
    fn measures_are_what_they_say() {
        assert_eq!(pieces("  ab_1 = (é)\n\n 12"), ["ab_1", "=", "(", "é", ")", "\n", "\n", "12"]);
        assert_eq!(repeated(&["a", "b", "a", "b", "a", "b", "c"], 24), 6);
        assert_eq!(repeated(&["a", "b", "a", "b", "a"], 24), 0, "two copies and a half");
        assert_eq!(repeated(&["a"; 5], 24), 5);
        assert_eq!(shape("x = a___b___ abcabcabcab\n_", "").repeated_characters, 11, "white space ends a chain");
        assert_eq!(stuttered(&["a", "a", "(", "(", "a", "\n", "\n", "1", "1", "1", "not", "not"]), 3);
        assert_eq!(distinct(&["a"; 7], 4), 0.25);
        assert_eq!(distinct(&["a", "b"], 4), 1.0);
        assert_eq!(shape("\n\n  ", "").whitespace, 1.0);
    }

    #[test]
    fn trivial_bodies_are_told_apart() {
        for trivial in [
            "",
            "\n\n",
            "    pass\n",
            "    return None\n",
            "    \"\"\"Say.\n    x = 1\n    \"\"\"\n",
            "    # x\n    ...\n",
        ] {
            assert!(!non_trivial(trivial), "{trivial:?}");
        }
        for body in ["    return 1\n", "    \"\"\"Say.\"\"\"\n    x = 1\n", "    '''a\n    b'''\n    return x\n"] {
            assert!(non_trivial(body), "{body:?}");
        }
    }
}
