//! The learning rate at each step: linear warm-up, then what the experiment file names.

use crate::experiment::{OptimizerConfig, Schedule};

/// Share of the steps over which [`Schedule::Wsd`] decays.
pub const DECAY_SHARE: f64 = 0.2;

/// The learning rate of step `step`, counted from 1 to `config.steps`.
///
/// Warm-up reaches the peak at step `warmup_steps`. With p the part of the remaining steps already taken:
/// constant lr; cosine lr·(1 + cos πp)/2 (Loshchilov & Hutter 2017, eq. 5); linear lr·(1 − p); warmup-stable-decay
/// lr until the last fifth of all steps, then a straight line to zero (Hägele et al. 2024). The three decays are above
/// zero at the last step, which would otherwise change nothing.
pub fn learning_rate(config: &OptimizerConfig, step: usize) -> f64 {
    if step < config.warmup_steps {
        return config.lr * step as f64 / config.warmup_steps as f64;
    }
    let left = config.steps.saturating_sub(step) as f64 + 1.0;
    let after_warmup = config.steps.saturating_sub(config.warmup_steps) as f64 + 1.0;
    let progress = 1.0 - (left / after_warmup).min(1.0);
    config.lr
        * match config.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Schedule::Linear => 1.0 - progress,
            Schedule::Wsd => (left / (config.steps - decay_start(config) + 1) as f64).min(1.0),
        }
}

/// The last step before a decay that depends on the number of steps: up to here a run with
/// [`Schedule::Wsd`] can still be made longer. Other schedules with a decay depend on it from the end of the warm-up.
pub fn decay_start(config: &OptimizerConfig) -> usize {
    match config.schedule {
        Schedule::Constant => config.steps,
        Schedule::Wsd => config.steps - (config.steps as f64 * DECAY_SHARE) as usize,
        Schedule::Cosine | Schedule::Linear => config.warmup_steps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Stepping;

    fn config(schedule: Schedule) -> OptimizerConfig {
        OptimizerConfig {
            rule: Stepping::AdamW,
            steps: 100,
            lr: 1.0,
            warmup_steps: 10,
            schedule,
            weight_decay: 0.0,
            clip: 1.0,
            average_last: 0.0,
        }
    }

    #[test]
    fn warm_up_rises_to_the_peak_and_decays_end_near_zero() {
        for schedule in [Schedule::Constant, Schedule::Cosine, Schedule::Linear, Schedule::Wsd] {
            let config = config(schedule);
            assert!((learning_rate(&config, 1) - 0.1).abs() < 1e-12, "{schedule:?}");
            assert!((learning_rate(&config, 10) - 1.0).abs() < 1e-12, "{schedule:?}");
            let last = learning_rate(&config, 100);
            assert!(last > 0.0, "{schedule:?}: the last step would change nothing");
            assert!(schedule == Schedule::Constant || last < 0.06, "{schedule:?}: {last}");
            let falls = (10..100).all(|s| learning_rate(&config, s + 1) <= learning_rate(&config, s));
            assert!(falls, "{schedule:?} rises after the warm-up");
        }
    }

    #[test]
    fn the_stable_part_does_not_depend_on_the_number_of_steps() {
        let short = config(Schedule::Wsd);
        let long = OptimizerConfig { steps: 1000, ..short.clone() };
        assert_eq!(decay_start(&short), 80);
        assert!((1..=80).all(|step| learning_rate(&short, step) == learning_rate(&long, step)));
        assert!(learning_rate(&short, 82) < learning_rate(&long, 82));
        assert!((learning_rate(&short, 91) - 10.0 / 21.0).abs() < 1e-12);
    }
}
