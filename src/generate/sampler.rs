//! Chooses one token from the logits of one position. Plain slices: at a few thousand entries a tensor operation costs
//! more than the work, and the order of every sum is ours.

use rand::Rng;
use rand::rngs::StdRng;

use crate::error::{Error, Result};
use crate::generate::Sampling;

/// A token and ln p of it in nats under the untouched logits.
pub(crate) type Choice = (u32, f64);

impl Sampling {
    /// The likeliest token each time; nothing random.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self {
            repetition_penalty: 1.0,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            max_new_tokens,
            stop_at_dedent: true,
            stop: Vec::new(),
            seed: 0,
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the setting.
    pub fn check(&self) -> Result<()> {
        let fault = |name: &str, value: f64, range: &str| {
            Err(Error::invalid(format!("{name} = {value} is outside {range}"), format!("choose {name} in {range}")))
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return fault("temperature", self.temperature, "[0, ∞)");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fault("top_p", self.top_p, "(0, 1]");
        }
        if !(self.min_p >= 0.0 && self.min_p <= 1.0) {
            return fault("min_p", self.min_p, "[0, 1]");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return fault("repetition_penalty", self.repetition_penalty, "(0, ∞)");
        }
        if self.max_new_tokens == 0 {
            return fault("max_new_tokens", 0.0, "[1, ∞)");
        }
        Ok(())
    }

    /// Chooses from `logits` (one per token of the vocabulary), where `seen` holds the tokens before this position.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a logit is not a number.
    pub(crate) fn choose(&self, logits: &[f32], seen: &[u32], rng: &mut StdRng) -> Result<Choice> {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let normaliser: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
        if !normaliser.is_finite() || normaliser < 1.0 {
            return Err(Error::invalid(
                "the model's logits are not numbers",
                "check the checkpoint: training may have diverged",
            ));
        }
        let token = self.pick(self.penalised(logits, seen), rng);
        Ok((token, f64::from(logits[token as usize] - largest) - normaliser.ln()))
    }

    fn penalised(&self, logits: &[f32], seen: &[u32]) -> Vec<(u32, f32)> {
        let mut candidates: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        if self.repetition_penalty != 1.0 {
            let penalty = self.repetition_penalty as f32;
            for &token in seen {
                // A token may have been seen twice; the penalty applies once.
                if let Some((candidate, &original)) = candidates.get_mut(token as usize).zip(logits.get(token as usize))
                {
                    candidate.1 = if original > 0.0 { original / penalty } else { original * penalty };
                }
            }
        }
        candidates
    }

    fn pick(&self, mut candidates: Vec<(u32, f32)>, rng: &mut StdRng) -> u32 {
        // Equal logits: the smaller id first, so that the choice never depends on a sort's whims.
        let by_logit = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.temperature == 0.0 {
            return candidates.into_iter().min_by(by_logit).map_or(0, |best| best.0);
        }
        if self.top_k > 0 && self.top_k < candidates.len() {
            candidates.select_nth_unstable_by(self.top_k - 1, by_logit);
            candidates.truncate(self.top_k);
        }
        let largest = candidates.iter().map(|c| c.1).fold(f32::NEG_INFINITY, f32::max);
        let temperature = self.temperature as f32;
        for candidate in &mut candidates {
            candidate.1 = ((candidate.1 - largest) / temperature).exp();
        }
        if self.top_p < 1.0 {
            candidates.sort_unstable_by(by_logit);
            let total: f64 = candidates.iter().map(|c| f64::from(c.1)).sum();
            let mut mass = 0.0;
            // The token that crosses the mass is kept.
            let kept = candidates.iter().take_while(|c| {
                let below = mass < self.top_p * total;
                mass += f64::from(c.1);
                below
            });
            let kept = kept.count();
            candidates.truncate(kept.max(1));
        }
        if self.min_p > 0.0 {
            // The likeliest token has weight 1 here.
            candidates.retain(|c| f64::from(c.1) >= self.min_p);
        }
        // By id, so that a last-bit change of the logits moves the boundaries between tokens but never their order.
        candidates.sort_unstable_by_key(|c| c.0);
        let total: f64 = candidates.iter().map(|c| f64::from(c.1)).sum();
        let mut left = rng.random::<f64>() * total;
        for (token, weight) in &candidates {
            left -= f64::from(*weight);
            if left < 0.0 {
                return *token;
            }
        }
        // Rounding can leave a last crumb of mass.
        candidates.last().map_or(0, |last| last.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::rng;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 0.0];

    fn random(change: impl FnOnce(&mut Sampling)) -> Sampling {
        let mut sampling = Sampling { temperature: 1.0, ..Sampling::greedy(10) };
        change(&mut sampling);
        sampling
    }

    fn counts(sampling: &Sampling, seen: &[u32], draws: usize) -> Vec<f64> {
        let mut rng = rng(5, "sampler test");
        let mut counts = vec![0.0; LOGITS.len()];
        for _ in 0..draws {
            let (token, _) = sampling.choose(&LOGITS, seen, &mut rng).unwrap();
            counts[token as usize] += 1.0 / draws as f64;
        }
        counts
    }

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let total: f64 = logits.iter().map(|l| l.exp()).sum();
        logits.iter().map(|l| l.exp() / total).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 0.01, "found {found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn temperature_gives_the_softmax_of_scaled_logits() {
        for temperature in [0.5, 1.0, 2.0] {
            let scaled: Vec<f64> = LOGITS.iter().map(|l| f64::from(*l) / temperature).collect();
            assert_close(&counts(&random(|s| s.temperature = temperature), &[], 40_000), &softmax(&scaled));
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let e = f64::exp;
        let two = [0.0, e(1.0) / (1.0 + e(1.0)), 1.0 / (1.0 + e(1.0)), 0.0, 0.0];
        assert_close(&counts(&random(|s| s.top_k = 2), &[], 20_000), &two);
        // Masses sorted: 0.64, 0.24, 0.09, …: 0.7 is crossed by the second token.
        assert_close(&counts(&random(|s| s.top_p = 0.7), &[], 20_000), &two);
        assert_close(&counts(&random(|s| s.top_p = 0.5), &[], 100), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        // Relative to the likeliest: 1, 0.37, 0.14, …
        assert_close(&counts(&random(|s| s.min_p = 0.3), &[], 20_000), &two);
        assert_close(&counts(&random(|s| s.top_k = 1), &[], 100), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        // The penalty halves the positive logits of seen tokens, once each, and doubles the negative ones.
        let penalised = softmax(&[1.0, 1.5, 2.0, -2.0, 0.0]);
        let penalty = random(|s| s.repetition_penalty = 2.0);
        assert_close(&counts(&penalty, &[1, 3, 1, 1], 40_000), &penalised);
    }

    #[test]
    fn greedy_takes_the_largest_and_reports_its_likelihood() {
        let mut rng = rng(1, "greedy");
        let (token, likelihood) = Sampling::greedy(1).choose(&LOGITS, &[], &mut rng).unwrap();
        let expected = softmax(&LOGITS.map(f64::from))[1].ln();
        assert_eq!(token, 1);
        assert!((likelihood - expected).abs() < 1e-6);
        assert_eq!(Sampling::greedy(1).choose(&[2.0, 2.0], &[], &mut rng).unwrap().0, 0, "ties go to the smaller id");
    }

    #[test]
    fn bad_settings_and_bad_logits_are_errors() {
        assert!(random(|s| s.temperature = -1.0).check().is_err());
        assert!(random(|s| s.temperature = f64::NAN).check().is_err());
        assert!(random(|s| s.top_p = 0.0).check().is_err());
        assert!(random(|s| s.min_p = 1.5).check().is_err());
        assert!(random(|s| s.repetition_penalty = 0.0).check().is_err());
        assert!(random(|s| s.max_new_tokens = 0).check().is_err());
        assert!(random(|_| ()).check().is_ok());
        let mut rng = rng(1, "nan");
        for bad in [[f32::NAN, 1.0], [f32::INFINITY, 1.0], [f32::NEG_INFINITY, f32::NEG_INFINITY]] {
            assert!(random(|_| ()).choose(&bad, &[], &mut rng).is_err(), "{bad:?}");
        }
    }
}
