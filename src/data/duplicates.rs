//! Exact, structural and near duplicates.
//!
//! Near is measured by the Jaccard similarity of token 5-grams, with every name of the program's own replaced by one
//! placeholder, so that renaming hides nothing. Groups are found with MinHash and banding (Broder 1997; Leskovec et al.,
//! *Mining of Massive Datasets*, ch. 3) and each candidate pair is then measured exactly.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::fingerprint::{Fingerprint, Likeness};

/// Bands and rows of the MinHash signature: a pair of similarity 0.8 is missed with probability (1 − 0.8⁴)¹⁶ ≈ 2·10⁻⁴.
const BANDS: usize = 16;
/// Rows of a band.
const ROWS: usize = 4;

/// Samples that repeat each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Ids, in the order of the samples; at least two.
    pub members: Vec<String>,
    /// The weakest likeness that holds the cluster together.
    pub likeness: Likeness,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fingerprint::shingles;
    use rand::Rng;

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
