//! Text to token ids and back; the end-of-sequence token; BPE training.
//!
//! A vocabulary is only usable here when a prompt and its solution, tokenised apart, give the tokens of the whole
//! program. A byte-level BPE trained with the usual GPT-2 split learns "newline + indentation" as one token; a prompt
//! that ends in a newline is then tokenised unlike anything in training, and the model answers with nothing. So the
//! pre-tokenizer trained here makes each newline a token of its own and each indentation independent of what follows,
//! and every vocabulary, loaded or trained, is checked.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::artifact;
use crate::error::{Error, Result};

/// The token that ends every document and every solution.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The token that fills a batch; never learned.
pub const PADDING: &str = "<|pad|>";

/// Other spellings of the end-of-sequence token that published vocabularies use.
const OTHER_ENDS: [&str; 3] = ["</s>", "<eos>", "<|end_of_text|>"];

/// Bytes are tokens of their own, so no vocabulary is smaller than this: 256 bytes and the two special tokens.
const SMALLEST_VOCABULARY: usize = 258;

/// The longest token, in bytes: long enough for twelve spaces of indentation and for most words.
const LONGEST_TOKEN: usize = 16;

/// How text is cut before merges are learned, in order of preference: a newline; the indentation of a line, whole; a
/// run of inner white space; a word; one digit; underscores; punctuation. A word, a digit or punctuation may carry the
/// single space before it.
const CUTS: &str = r"\n|(?<![^\n])[^\S\n]+|[^\S\n]{2,}| ?\p{L}+| ?\p{N}|_+| ?[^\s\p{L}\p{N}_]+|\s";

/// Prompts and solutions on which every vocabulary is checked when it is loaded or trained.
const PROBES: [(&str, &str); 4] = [
    ("def f(x: int) -> int:\n    \"\"\"Return x + 1.\"\"\"\n", "    return x + 1\n"),
    (
        "import math\n\n\ndef g(items):\n    '''Sum.'''\n",
        "    total = 0\n    for i in items:\n        total += i\n\n    return total\n",
    ),
    (
        "def h(s):\n    \"\"\"Ünï → 漢字 🦀\\n.\"\"\"\n",
        "    if s:\n\n        return s[::-1] != 'é'\n    return {1: [2]}\n",
    ),
    ("def k(s):\n", " return  s\n"),
];

/// A vocabulary with its merges; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    eos: u32,
    pad: u32,
    vocabulary: usize,
}

impl Tokenizer {
    /// Loads a `tokenizer.json` of the Hugging Face library. Truncation and padding stored in it are dropped, and a
    /// special token's name within a text is ordinary text.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Malformed`] when the file cannot be read; [`Error::Invalid`] with the offending text
    /// when it has no end-of-sequence token, loses text, or joins a prompt's last newline with the solution.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| {
            Error::malformed(path, None, e.to_string(), "give a tokenizer.json written by the `tokenizers` library")
        })?;
        Self::checked(inner).map_err(|e| match e {
            Error::Invalid { what, remedy } => Error::malformed(path, None, what, remedy),
            other => other,
        })
    }

    /// Trains a byte-level BPE of `vocabulary` tokens: `<|endoftext|>` is 0, `<|pad|>` is 1, then the 256 bytes, then
    /// merges (Sennrich et al. 2016) by falling frequency. Fewer tokens result when the texts repeat too little.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `vocabulary` is below 258 or above 65,536 (token streams are stored in 16 bits).
    pub fn train(texts: impl Iterator<Item = String> + Send, vocabulary: usize) -> Result<Self> {
        if !(SMALLEST_VOCABULARY..=1 << 16).contains(&vocabulary) {
            return Err(Error::invalid(
                format!("a vocabulary of {vocabulary} tokens cannot be trained"),
                format!("choose between {SMALLEST_VOCABULARY} (the bytes alone) and 65536"),
            ));
        }
        let cuts = Split::new(SplitPattern::Regex(CUTS.to_string()), SplitDelimiterBehavior::Isolated, false)
            .map_err(refused)?;
        let bytes = ByteLevel::new(false, false, false);
        let sequence = Sequence::new(vec![PreTokenizerWrapper::Split(cuts), PreTokenizerWrapper::ByteLevel(bytes)]);
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(sequence));
        inner.with_decoder(Some(ByteLevelDecoder::default()));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocabulary)
            .min_frequency(2)
            .show_progress(false)
            .max_token_length(Some(LONGEST_TOKEN))
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens([END_OF_TEXT, PADDING].map(|name| AddedToken::from(name, true)).to_vec())
            .build();
        inner.train(&mut tokenizers::models::TrainerWrapper::from(trainer), texts).map_err(refused)?;
        Self::checked(inner)
    }

    fn checked(mut inner: tokenizers::Tokenizer) -> Result<Self> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(refused)?;
        // The name of a special token in a user's text must not end that text.
        inner.set_encode_special_tokens(true);
        let named = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let eos = named(&[END_OF_TEXT]).or_else(|| named(&OTHER_ENDS)).ok_or_else(|| {
            Error::invalid(
                format!("the vocabulary has no end-of-sequence token ({END_OF_TEXT}, {})", OTHER_ENDS.join(", ")),
                "without one a model cannot learn to stop; use another tokenizer.json or train one",
            )
        })?;
        let pad = named(&[PADDING, "<pad>"]).unwrap_or(eos);
        let vocabulary = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let tokenizer = Self { inner: Arc::new(inner), eos, pad, vocabulary };
        for (prompt, solution) in PROBES {
            tokenizer.check_round_trip(&format!("{prompt}{solution}"))?;
            tokenizer.check_boundary(prompt, solution)?;
        }
        Ok(tokenizer)
    }

    /// Writes `tokenizer.json`, atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let json = self.inner.to_string(true).map_err(refused)?;
        artifact::write_atomic(path, |writer| writer.write_all(json.as_bytes()))
    }

    /// Token ids of a text; no special token is added.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the library refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(refused)?.get_ids().to_vec())
    }

    /// Text of token ids; special tokens are left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] when an id lies outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            return Err(Error::invalid(
                format!("token {id} lies outside the vocabulary of {}", self.vocabulary),
                "use the tokenizer.json that belongs to the model",
            ));
        }
        self.inner.decode(ids, true).map_err(refused)
    }

    /// The end-of-sequence token.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The padding token; the end-of-sequence token where the vocabulary has none.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The token with this id, as the vocabulary spells it; none outside the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of ids, special tokens included: the least number of rows of the model's embedding.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Checks that a prompt and its solution, tokenised apart, give the tokens of both together: what generation feeds
    /// the model must be what training showed it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the text around the boundary.
    pub fn check_boundary(&self, prompt: &str, solution: &str) -> Result<()> {
        let mut apart = self.encode(prompt)?;
        apart.extend(self.encode(solution)?);
        let together = self.encode(&format!("{prompt}{solution}"))?;
        if apart == together {
            return Ok(());
        }
        let at = apart.iter().zip(&together).take_while(|(a, b)| a == b).count();
        let around = |ids: &[u32]| {
            let ids = &ids[at.saturating_sub(2)..ids.len().min(at + 3)];
            ids.iter().map(|&id| self.inner.id_to_token(id).unwrap_or_default()).collect::<Vec<_>>().join("|")
        };
        Err(Error::invalid(
            format!(
                "a prompt and its solution are tokenised apart as {} but together as {}, at the end of {:?}",
                around(&apart),
                around(&together),
                prompt.lines().next_back().unwrap_or_default()
            ),
            "use a vocabulary whose pre-tokenizer isolates newlines, such as one trained by `codelora base train`",
        ))
    }

    /// Checks that decoding gives back the text.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first line that is lost.
    pub fn check_round_trip(&self, text: &str) -> Result<()> {
        let back = self.decode(&self.encode(text)?)?;
        if back == text {
            return Ok(());
        }
        let lost = text.split_inclusive('\n').zip(back.split_inclusive('\n').chain(std::iter::repeat("")));
        let (line, found) = lost.into_iter().find(|(a, b)| a != b).unwrap_or((text, &back));
        Err(Error::invalid(
            format!("the vocabulary turns {line:?} into {found:?}"),
            "use a byte-level vocabulary without a normaliser",
        ))
    }
}

fn refused(e: tokenizers::Error) -> Error {
    Error::invalid(format!("the tokenizer refused: {e}"), "check the text and the tokenizer.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::PreTokenizerWrapper as Wrapper;

    fn texts() -> impl Iterator<Item = String> + Send {
        (0..40).map(|i| {
            format!("def f_{i}(items: list[int]) -> int:\n    \"\"\"Return {i} items.\"\"\"\n    for item in items:\n        if item > {i}:\n            return item\n    return {i}\n")
        })
    }

    #[test]
    fn special_tokens_come_first_and_newlines_stand_alone() {
        let tokenizer = Tokenizer::train(texts(), 300).unwrap();
        assert_eq!((tokenizer.eos(), tokenizer.pad(), tokenizer.vocabulary()), (0, 1, 300));
        let newline = tokenizer.encode("\n").unwrap();
        assert_eq!(newline.len(), 1);
        let vocabulary = tokenizer.inner.get_vocab(true);
        // "Ċ" is the byte-level alphabet's letter for a newline.
        assert_eq!(vocabulary.keys().filter(|token| token.contains('Ċ')).count(), 1);
    }

    #[test]
    fn an_indentation_is_one_token_whatever_follows() {
        let tokenizer = Tokenizer::train(texts(), 300).unwrap();
        for spaces in ["    ", "        ", "            "] {
            let alone = tokenizer.encode(spaces).unwrap();
            assert_eq!(alone.len(), 1, "{spaces:?}");
            for rest in ["return 1\n", "# note\n", "\"\"\"Doc.\"\"\"\n", "7\n", "_x = 1\n"] {
                let line = tokenizer.encode(&format!("x\n{spaces}{rest}")).unwrap();
                assert_eq!(line[2], alone[0], "{spaces:?} before {rest:?}");
            }
        }
    }

    #[test]
    fn training_is_reproducible_and_survives_the_disk() {
        let one = Tokenizer::train(texts(), 300).unwrap();
        let two = Tokenizer::train(texts(), 300).unwrap();
        assert_eq!(one.inner.to_string(false).unwrap(), two.inner.to_string(false).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        one.save(&path).unwrap();
        let text = "def f(x):\n\treturn '漢 <|endoftext|>'\r\n";
        let loaded = Tokenizer::load(&path).unwrap();
        assert_eq!(loaded.encode(text).unwrap(), one.encode(text).unwrap());
        assert!(!loaded.encode(text).unwrap().contains(&loaded.eos()), "a text cannot end itself");
        loaded.check_round_trip(text).unwrap();
    }

    #[test]
    fn a_vocabulary_that_joins_newline_and_indentation_is_refused() {
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(Wrapper::ByteLevel(ByteLevel::new(false, false, true))));
        inner.with_decoder(Some(ByteLevelDecoder::default()));
        let trainer = BpeTrainer::builder()
            .vocab_size(500)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .build();
        inner.train(&mut tokenizers::models::TrainerWrapper::from(trainer), texts()).unwrap();
        let fault = Tokenizer::checked(inner).unwrap_err().to_string();
        assert!(fault.contains("tokenised apart as") && fault.contains("isolates newlines"), "{fault}");
    }

    #[test]
    fn a_vocabulary_smaller_than_the_bytes_is_refused() {
        assert!(Tokenizer::train(texts(), 100).unwrap_err().to_string().contains("258"));
        let tokenizer = Tokenizer::train(texts(), 300).unwrap();
        assert!(tokenizer.decode(&[300]).unwrap_err().to_string().contains("outside"));
    }

    #[test]
    fn the_earlier_attempts_vocabulary_passes() {
        let Ok(folder) = std::env::var("CODELORA_V1") else {
            eprintln!("skipped: CODELORA_V1 is not set");
            return;
        };
        let tokenizer = Tokenizer::load(&Path::new(&folder).join("tokenizer.json")).unwrap();
        assert_eq!((tokenizer.eos(), tokenizer.pad(), tokenizer.vocabulary()), (0, 1, 8000));
        assert_eq!(tokenizer.encode("\n").unwrap(), [200]);
        assert_eq!(tokenizer.encode("    ").unwrap(), [259]);
    }
}
