//! Exact and near repeats over a whole corpus, in some 600 bytes of memory a document.
//!
//! Near is measured by MinHash (Broder 1997) over 5-grams of words: the share of 64 smallest hashes that two documents have
//! in common estimates the Jaccard similarity of their 5-grams. Banding (Leskovec et al., *Mining of Massive Datasets*,
//! ch. 3) finds who to compare with.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU32;

use crate::data::corpus::screen::Rejection;

/// Words in a shingle.
const SHINGLE: usize = 5;
/// Hashes in a sketch.
const HASHES: usize = 64;
/// Bands of a sketch: a pair of similarity 0.8 is missed with probability (1 − 0.8⁴)¹⁶ ≈ 2·10⁻⁴.
const BANDS: usize = 16;
/// Share of equal hashes from which a document is a near repeat.
const NEAR: f64 = 0.8;

/// What a document looks like to its repeats.
#[derive(Debug, Clone)]
pub struct Sketch {
    /// A hash of its words in order.
    whole: u128,
    /// The smallest hash of its shingles under each permutation.
    smallest: [u32; HASHES],
}

impl Sketch {
    /// The sketch of a text.
    pub fn new(text: &str) -> Self {
        let words: Vec<u64> = words(text).map(|word| hash(word.as_bytes())).collect();
        // Multiplying by an odd number and adding another permutes 32-bit words.
        let factors: [(u32, u32); HASHES] = std::array::from_fn(|place| {
            let random = mix(place as u64 + 1);
            (random as u32 | 1, (random >> 32) as u32)
        });
        let mut smallest = [u32::MAX; HASHES];
        for gram in words.windows(SHINGLE.min(words.len().max(1))) {
            let shingle = (mix(chain(gram)) >> 32) as u32;
            for ((factor, term), least) in factors.iter().zip(&mut smallest) {
                *least = (*least).min(shingle.wrapping_mul(*factor).wrapping_add(*term));
            }
        }
        let reversed = words.iter().rev().fold(0, |sum: u64, &word| mix(sum ^ word));
        Self { whole: u128::from(chain(&words)) << 64 | u128::from(reversed), smallest }
    }

    fn bands(&self) -> impl Iterator<Item = u64> + '_ {
        let rows = self.smallest.chunks(HASHES / BANDS).enumerate();
        rows.map(|(band, rows)| rows.iter().fold(mix(band as u64), |sum, &row| mix(sum ^ u64::from(row))))
    }

    /// Estimated Jaccard similarity of the shingles, in [0, 1].
    fn similarity(&self, other: &[u32; HASHES]) -> f64 {
        self.smallest.iter().zip(other).filter(|(a, b)| a == b).count() as f64 / HASHES as f64
    }
}

/// Every document so far.
#[derive(Debug, Default)]
pub struct Repeats {
    exact: HashSet<u128>,
    /// The latest document with a band.
    bands: HashMap<u64, NonZeroU32, BuildHasherDefault<Identity>>,
    taken: Vec<Taken>,
}

/// A document that was taken in.
#[derive(Debug)]
struct Taken {
    smallest: [u32; HASHES],
    /// The document before it with the same band, for each of its bands.
    before: [Option<NonZeroU32>; BANDS],
}

impl Repeats {
    /// Takes a document in, unless it repeats an earlier one.
    ///
    /// # Errors
    /// [`Rejection::Exact`] or [`Rejection::Near`].
    pub fn admit(&mut self, sketch: &Sketch) -> Result<(), Rejection> {
        if !self.exact.insert(sketch.whole) {
            return Err(Rejection::Exact);
        }
        for (number, band) in sketch.bands().enumerate() {
            let mut next = self.bands.get(&band).copied();
            while let Some(place) = next {
                let other = self.get(place);
                if sketch.similarity(&other.smallest) >= NEAR {
                    return Err(Rejection::Near);
                }
                next = other.before[number];
            }
        }
        // Places are counted from 1.
        let place = NonZeroU32::MIN.saturating_add(self.taken.len() as u32);
        let mut before = [None; BANDS];
        for (before, band) in before.iter_mut().zip(sketch.bands()) {
            *before = self.bands.insert(band, place);
        }
        self.taken.push(Taken { smallest: sketch.smallest, before });
        Ok(())
    }

    fn get(&self, place: NonZeroU32) -> &Taken {
        &self.taken[place.get() as usize - 1]
    }
}

/// Words, numbers and single signs; white space separates.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let in_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = match in_word(first) {
            true => rest.find(|c| !in_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

/// FNV-1a, then mixed.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// One hash of hashes in order.
pub(crate) fn chain(hashes: &[u64]) -> u64 {
    hashes
        .iter()
        .fold(hashes.len() as u64, |sum, &hash| (sum ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}

/// The finaliser of SplitMix64 (Steele et al. 2014): a permutation of 64-bit words.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Keys that are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn words_are_cut_at_signs_and_spaces() {
        assert_eq!(words("  ab_1=(é)\n\n12 ").collect::<Vec<_>>(), ["ab_1", "=", "(", "é", ")", "12"]);
    }

    #[test]
    fn the_sketch_estimates_the_jaccard_similarity() {
        let mut rng = crate::seed::rng(3, "repeats");
        for changed in [0, 5, 20, 60] {
            let one: Vec<String> = (0..600).map(|_| format!("w{}", rng.random_range(0..5000))).collect();
            let mut other = one.clone();
            (0..changed).for_each(|place| other[place * 10] = format!("new{place}"));
            let grams = |words: &[String]| words.windows(SHINGLE).map(<[String]>::to_vec).collect::<HashSet<_>>();
            let (a, b) = (grams(&one), grams(&other));
            let jaccard = a.intersection(&b).count() as f64 / a.union(&b).count() as f64;
            let estimate = Sketch::new(&one.join(" ")).similarity(&Sketch::new(&other.join(" ")).smallest);
            // Three standard errors of 64 draws.
            let margin = 3.0 * (jaccard * (1.0 - jaccard) / HASHES as f64).sqrt() + 0.02;
            assert!((estimate - jaccard).abs() <= margin, "{changed}: {estimate} for {jaccard}");
        }
    }

    #[test]
    fn a_repeat_is_found_behind_others_of_its_bands() {
        const ROWS: usize = HASHES / BANDS;
        let mut fresh = 0;
        let mut unlike = || -> [u32; HASHES] {
            std::array::from_fn(|_| {
                fresh += 1;
                fresh
            })
        };
        let mut repeats = Repeats::default();
        let mut admit = |whole: u128, smallest| repeats.admit(&Sketch { whole, smallest });
        let first = unlike();
        // Before it and after it come others that have one of its first four bands and nothing else of it.
        let others = |unlike: &mut dyn FnMut() -> [u32; HASHES]| -> Vec<[u32; HASHES]> {
            let mut with_band = |band: usize| {
                let mut other = unlike();
                other[band * ROWS..(band + 1) * ROWS].copy_from_slice(&first[band * ROWS..(band + 1) * ROWS]);
                other
            };
            (0..4).map(&mut with_band).collect()
        };
        let (early, late) = (others(&mut unlike), others(&mut unlike));
        for (whole, smallest) in (0..).zip(early.into_iter().chain([first]).chain(late)) {
            assert_eq!(admit(whole, smallest), Ok(()));
        }
        // Four fifths of its hashes, and of its bands only those four whole.
        let mut near = first;
        (4..BANDS).for_each(|band| near[band * ROWS] = u32::MAX - band as u32);
        assert_eq!(admit(100, near), Err(Rejection::Near));
        near[ROWS - 1] = 0;
        assert_eq!(admit(101, near), Ok(()), "51 of 64 are fewer than four fifths");
    }

    #[test]
    fn repeats_are_found_whatever_their_layout() {
        let function = |name: &str, count: usize| {
            (0..count).map(|i| format!("    {name}_{i} = compute({i}, value) + {}\n", i * 7)).collect::<String>()
        };
        let mut repeats = Repeats::default();
        let long = function("a", 60);
        assert_eq!(repeats.admit(&Sketch::new(&long)), Ok(()));
        assert_eq!(repeats.admit(&Sketch::new(&long.replace("    ", "\t"))), Err(Rejection::Exact));
        assert_eq!(repeats.admit(&Sketch::new(&format!("{long}    return a_1\n"))), Err(Rejection::Near));
        assert_eq!(repeats.admit(&Sketch::new(&function("b", 60))), Ok(()));
        assert_eq!(repeats.admit(&Sketch::new("x = 1")), Ok(()));
    }
}
