//! Pass rates and how sure one may be of them.
//!
//! *Covered*: chance in the sampling of attempts and in the choice of tasks. *Not covered*: tasks of another kind.

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::seed::rng;

/// The 97.5 % point of the normal distribution: all intervals are two-sided at 95 %.
const Z: f64 = 1.959_963_984_540_054;
/// Resamples of a bootstrap: the ends of the interval then vary by about 1 % of its width between seeds.
const RESAMPLES: usize = 10_000;
/// Tasks that must differ from the commonest rate before a bootstrap over tasks is believed alone.
const ENOUGH_DIFFERING: usize = 5;
/// Up to this many differing pairs the permutation test enumerates all 2^n sign patterns.
const EXACT_PAIRS: usize = 16;
/// Random sign patterns beyond that.
const PERMUTATIONS: usize = 50_000;

/// An estimate and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The point estimate.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Observations behind it (tasks for clustered intervals, attempts for Wilson's).
    pub n: usize,
}

impl Interval {
    /// A count or another value without uncertainty: all three numbers are the same.
    pub fn exact(value: f64) -> Self {
        Self { estimate: value, low: value, high: value, n: 1 }
    }

    /// The interval in another unit, e.g. a share times the number of tasks.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { estimate: self.estimate * factor, low: self.low * factor, high: self.high * factor, n: self.n }
    }
}

/// The unbiased estimate of pass@k from `n` samples of which `c` passed: 1 − C(n−c, k) / C(n, k), the chance that `k`
/// samples drawn without replacement hold a passing one (Chen et al. 2021, eq. 1).
///
/// `None` when it is not defined: `k` is 0 or larger than `n`, or `c` is larger than `n`.
pub fn pass_at_k(n: usize, c: usize, k: usize) -> Option<f64> {
    if k == 0 || k > n || c > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    // C(n−c, k) / C(n, k) as a product of factors below 1, so that no binomial overflows.
    let miss: f64 = (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - miss)
}

/// Wilson's score interval of a share (Wilson 1927): it does not collapse to a point at 0 of n or n of n.
///
/// With no observation the share is unknown: estimate 0, interval [0, 1].
pub fn wilson(successes: usize, n: usize) -> Interval {
    wilson_share(successes as f64 / n.max(1) as f64, n)
}

/// [`wilson`] for a share that need not be a whole number of `n`.
fn wilson_share(share: f64, n: usize) -> Interval {
    if n == 0 {
        return Interval { estimate: 0.0, low: 0.0, high: 1.0, n };
    }
    let count = n as f64;
    let centre = (share + Z * Z / (2.0 * count)) / (1.0 + Z * Z / count);
    let half = Z / (1.0 + Z * Z / count) * (share * (1.0 - share) / count + Z * Z / (4.0 * count * count)).sqrt();
    // At the edges the formula gives 0 and 1 up to rounding.
    let low = if share == 0.0 { 0.0 } else { centre - half };
    let high = if share == 1.0 { 1.0 } else { centre + half };
    Interval { estimate: share, low, high, n }
}

/// The mean over tasks of a rate in [0, 1], with the percentile bootstrap over *tasks*: attempts of one task resemble
/// each other, so tasks are what is resampled (Cameron, Gelbach & Miller 2008).
///
/// When nearly every task has the same rate there is little to resample, and a bootstrap would claim near certainty; where
/// fewer than five differ from the rest the interval is widened to Wilson's over the tasks, with the mean as their share
/// (0 of 20 tasks leaves up to 16 %). Rates in [0, 1] spread no more than solved and unsolved tasks of the same mean.
pub fn task_bootstrap(rates: &[f64], seed: u64) -> Interval {
    let n = rates.len();
    let of_rate = |rate: &f64| rates.iter().filter(|other| *other == rate).count();
    let alike = rates.iter().map(of_rate).max().unwrap_or(0);
    if n - alike >= ENOUGH_DIFFERING {
        return mean_bootstrap(rates, seed);
    }
    let bounds = wilson_share(rates.iter().sum::<f64>() / n.max(1) as f64, n);
    if alike == n {
        return bounds;
    }
    let resampled = mean_bootstrap(rates, seed);
    Interval { low: resampled.low.min(bounds.low), high: resampled.high.max(bounds.high), ..resampled }
}

/// The mean over tasks of a paired difference in [−1, 1], with the percentile bootstrap over tasks. When all tasks differ
/// alike, a bootstrap would claim certainty; then the doubt of [`wilson`] at 0 of n stands on both sides.
pub fn difference_bootstrap(differences: &[f64], seed: u64) -> Interval {
    let n = differences.len();
    if differences.windows(2).all(|pair| pair[0] == pair[1]) {
        let (estimate, doubt) = (differences.first().copied().unwrap_or(0.0), wilson(0, n).high);
        return Interval { estimate, low: (estimate - doubt).max(-1.0), high: (estimate + doubt).min(1.0), n };
    }
    mean_bootstrap(differences, seed)
}

fn mean_bootstrap(values: &[f64], seed: u64) -> Interval {
    let n = values.len();
    let mut rng = rng(seed, "bootstrap over tasks");
    let mut means: Vec<f64> =
        (0..RESAMPLES).map(|_| (0..n).map(|_| values[rng.random_range(0..n)]).sum::<f64>() / n as f64).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[(share * (RESAMPLES - 1) as f64).round() as usize];
    Interval { estimate: values.iter().sum::<f64>() / n as f64, low: at(0.025), high: at(0.975), n }
}

/// Two-sided p-value of the paired permutation test: how often the mean difference is at least as large in size when
/// each task's sign is a coin's (Fisher 1935). All sign patterns are counted while few tasks differ; beyond that,
/// random patterns with the observed one among them, which keeps the test valid (Phipson & Smyth 2010).
pub fn paired_permutation(differences: &[f64], seed: u64) -> f64 {
    let differing: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let observed = differing.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ in the last bits.
    let at_least = |sum: f64| sum.abs() >= observed - 1e-9;
    if differing.len() <= EXACT_PAIRS {
        let patterns = 1usize << differing.len();
        let hits = (0..patterns)
            .filter(|pattern| {
                let signed = differing.iter().enumerate();
                at_least(signed.map(|(i, d)| if pattern >> i & 1 == 1 { -d } else { *d }).sum())
            })
            .count();
        return hits as f64 / patterns as f64;
    }
    let mut rng = rng(seed, "paired permutation");
    let hits = (0..PERMUTATIONS)
        .filter(|_| at_least(differing.iter().map(|d| if rng.random::<bool>() { -d } else { *d }).sum()))
        .count();
    (hits + 1) as f64 / (PERMUTATIONS + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts k-subsets of n samples that hold one of the first c, by enumeration.
    fn brute_force(n: usize, c: usize, k: usize) -> f64 {
        let subsets = (0u32..1 << n).filter(|set| set.count_ones() as usize == k);
        let (hits, all) = subsets.fold((0, 0), |(hits, all), set| {
            let hit = set & ((1 << c) - 1) != 0;
            (hits + usize::from(hit), all + 1)
        });
        hits as f64 / all as f64
    }

    #[test]
    fn pass_at_k_equals_enumeration() {
        for n in 1..=10 {
            for c in 0..=n {
                for k in 1..=n {
                    let estimate = pass_at_k(n, c, k).unwrap();
                    assert!((estimate - brute_force(n, c, k)).abs() < 1e-12, "n {n} c {c} k {k}: {estimate}");
                }
            }
        }
        assert_eq!(pass_at_k(5, 1, 6), None);
        assert_eq!(pass_at_k(5, 6, 1), None);
        assert_eq!(pass_at_k(5, 1, 0), None);
        assert!((pass_at_k(100_000, 1, 50_000).unwrap() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn pass_at_k_is_unbiased() {
        // Σ_c P(c of n pass | p) · pass@k(n, c, k) = 1 − (1 − p)^k for every p.
        let (n, k) = (12, 5);
        for p in [0.03, 0.4, 0.9] {
            let mut mass: f64 = f64::powi(1.0 - p, n as i32);
            let mut expected = 0.0;
            for c in 0..=n {
                expected += mass * pass_at_k(n, c, k).unwrap();
                mass *= (n - c) as f64 / (c + 1) as f64 * p / (1.0 - p);
            }
            assert!((expected - (1.0 - (1.0 - p).powi(k as i32))).abs() < 1e-12);
        }
    }

    #[test]
    fn wilson_ends_solve_the_score_equation() {
        for (c, n) in [(0, 20), (1, 20), (7, 20), (20, 20), (3, 400)] {
            let interval = wilson(c, n);
            let score = |p: f64| (c as f64 / n as f64 - p).powi(2) * n as f64 - Z * Z * p * (1.0 - p);
            for end in [interval.low, interval.high] {
                assert!(score(end).abs() < 1e-9, "{c}/{n}: {end}");
            }
            assert!(interval.low <= interval.estimate && interval.estimate <= interval.high);
        }
        assert!((wilson(0, 20).high - 0.1611).abs() < 1e-4);
        assert_eq!(wilson(0, 0).high, 1.0);
    }

    #[test]
    fn bootstrap_equals_the_exact_resampling_distribution() {
        // With three tasks there are 27 resamples; the ends of the percentile interval are known.
        let rates = [0.0, 0.3, 0.9];
        let interval = task_bootstrap(&rates, 3);
        assert!((interval.estimate - 0.4).abs() < 1e-12);
        // P(mean = 0) = 1/27 > 2.5 %, P(mean = 0.9) = 1/27 > 2.5 %.
        assert_eq!((interval.low, interval.high), (0.0, 0.9 * 3.0 / 3.0));
        assert_eq!(interval, task_bootstrap(&rates, 3));
    }

    #[test]
    fn bootstrap_covers_the_truth_about_as_often_as_it_says() {
        let mut random = rng(1, "coverage");
        let (trials, tasks, mean) = (200, 30, 0.4);
        let covered = (0..trials)
            .filter(|trial| {
                // A task's rate is uniform in [0, 0.8].
                let rates: Vec<f64> = (0..tasks).map(|_| random.random::<f64>() * 2.0 * mean).collect();
                let interval = task_bootstrap(&rates, *trial);
                interval.low <= mean && mean <= interval.high
            })
            .count();
        let share = covered as f64 / trials as f64;
        assert!((0.88..=0.99).contains(&share), "covered {share}");
    }

    #[test]
    fn certainty_is_never_claimed_from_equal_tasks() {
        let none = task_bootstrap(&[0.0; 20], 1);
        assert_eq!(none.low, 0.0);
        assert!(none.high > 0.15);
        let all = task_bootstrap(&[1.0; 20], 1);
        assert!(all.low < 0.85);
        assert_eq!(task_bootstrap(&[], 1).high, 1.0);
        let unchanged = difference_bootstrap(&[0.0; 20], 1);
        assert!(unchanged.low < -0.1 && unchanged.high > 0.1);
        assert_eq!(difference_bootstrap(&[], 1).high, 1.0);
        let risen = difference_bootstrap(&[0.5, 0.4, 0.6, 0.5], 1);
        assert!((risen.estimate - 0.5).abs() < 1e-12 && risen.low >= 0.4 && risen.high <= 0.6);
    }

    #[test]
    fn permutation_test_equals_enumeration_and_is_sane() {
        // Four rises: only the two patterns with equal signs are as extreme, 2/16.
        assert_eq!(paired_permutation(&[0.2, 0.1, 0.3, 0.4, 0.0], 1), 0.125);
        assert_eq!(paired_permutation(&[0.0; 20], 1), 1.0);
        assert_eq!(paired_permutation(&[], 1), 1.0);
        let one_sided = [0.5; 20];
        assert!(paired_permutation(&one_sided, 1) < 1e-3, "sampled patterns");
        let balanced: Vec<f64> = (0..20).map(|i| if i % 2 == 0 { 0.3 } else { -0.3 }).collect();
        assert!(paired_permutation(&balanced, 1) > 0.99);
        // Sampled and exact agree: 17 differing pairs against the same value by counting.
        let values: Vec<f64> = (0..17).map(|i| if i < 12 { 1.0 } else { -1.0 }).collect();
        let exact = 2.0 * (0..=5).map(|k| binomial(17, k)).sum::<f64>() / 2f64.powi(17);
        assert!((paired_permutation(&values, 2) - exact).abs() < 0.01);
    }

    fn binomial(n: u64, k: u64) -> f64 {
        (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product()
    }
}
