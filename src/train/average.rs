//! The mean of the weights over the last part of a run (Izmailov et al. 2018; Sanyal et al. 2023 for language models).
//!
//! Single steps circle around what they all agree on; their mean lies nearer to it, at no cost in training. The run itself
//! goes on from its own weights: only what is evaluated, kept as best and left behind is the mean. Under an adapter A and B are
//! averaged apart; the mean of their products differs from that by a term of second order in how far they move.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use crate::error::{Error, Result};
use crate::experiment::OptimizerConfig;

/// The last step that does not count: `steps` − round(`average_last` · `steps`); `steps` itself when nothing is averaged.
pub fn average_start(config: &OptimizerConfig) -> usize {
    config.steps - (config.steps as f64 * config.average_last).round() as usize
}

/// The running mean of all parameters.
#[derive(Debug, Clone, Default)]
pub struct Average {
    means: BTreeMap<String, Tensor>,
    taken: usize,
}

impl Average {
    /// Steps in the mean; 0 before it begins.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Takes the weights as they are into the mean: m ← m·(n − 1)/n + w/n for the n-th.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn add(&mut self, parameters: &BTreeMap<String, Var>) -> Result<()> {
        self.taken += 1;
        let share = 1.0 / self.taken as f64;
        for (name, variable) in parameters {
            let mean = match self.means.get(name) {
                Some(mean) => ((mean * (1.0 - share))? + (variable.as_tensor() * share)?)?,
                None => variable.as_tensor().copy()?,
            };
            self.means.insert(name.clone(), mean);
        }
        Ok(())
    }

    /// Calls `measure` with the mean in place of the weights, and puts these back whatever it answers. Before the mean begins
    /// the weights stay where they are.
    ///
    /// # Errors
    /// Those of `measure`; [`Error::Tensor`].
    pub fn in_place<T>(&self, parameters: &BTreeMap<String, Var>, measure: impl FnOnce() -> Result<T>) -> Result<T> {
        let own: Vec<(&Var, Tensor)> = match self.taken {
            0 => Vec::new(),
            _ => parameters.values().map(|v| Ok((v, v.as_tensor().copy()?))).collect::<Result<_>>()?,
        };
        self.settle(parameters)?;
        let measured = measure();
        for (variable, weight) in own {
            variable.set(&weight)?;
        }
        measured
    }

    /// Leaves the mean in the parameters, where there is one.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn settle(&self, parameters: &BTreeMap<String, Var>) -> Result<()> {
        for (name, mean) in &self.means {
            parameters[name].set(mean)?;
        }
        Ok(())
    }

    /// The mean as tensors on the host, `average.NAME`; empty before it begins.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let host = |(name, mean): (&String, &Tensor)| Ok((format!("average.{name}"), mean.to_device(&Device::Cpu)?));
        self.means.iter().map(host).collect()
    }

    /// Restores what [`Average::state`] gave after `taken` steps.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when a mean is missing or of another shape.
    pub fn restore(state: &BTreeMap<String, Tensor>, parameters: &BTreeMap<String, Var>, taken: usize) -> Result<Self> {
        let mut means = BTreeMap::new();
        for (name, variable) in parameters.iter().filter(|_| taken > 0) {
            let key = format!("average.{name}");
            match state.get(&key).filter(|mean| mean.shape() == variable.shape()) {
                Some(mean) => means.insert(name.clone(), mean.to_device(variable.device())?),
                None => {
                    return Err(Error::Mismatch {
                        what: format!("{key} in the saved state"),
                        expected: format!("{:?}", variable.shape()),
                        found: state.get(&key).map_or("nothing".into(), |mean| format!("{:?}", mean.shape())),
                        remedy: "resume with the architecture and adapter of the saved run, or start anew".into(),
                    });
                }
            };
        }
        Ok(Self { means, taken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> BTreeMap<String, Var> {
        BTreeMap::from([("w".to_string(), Var::new(&[1f32, -2.0], &Device::Cpu).unwrap())])
    }

    fn values(parameters: &BTreeMap<String, Var>) -> Vec<f32> {
        parameters["w"].as_tensor().to_vec1().unwrap()
    }

    #[test]
    fn the_mean_is_that_of_all_steps_and_the_weights_come_back() {
        let parameters = parameters();
        let mut average = Average::default();
        average
            .in_place(&parameters, || {
                assert_eq!(values(&parameters), [1.0, -2.0]);
                Ok(())
            })
            .unwrap();
        for step in 1..=4u8 {
            parameters["w"].set(&Tensor::new(&[f32::from(step), 8.0], &Device::Cpu).unwrap()).unwrap();
            average.add(&parameters).unwrap();
        }
        assert_eq!(average.taken(), 4);
        let failed: Result<()> = average.in_place(&parameters, || {
            assert_eq!(values(&parameters), [2.5, 8.0]);
            Err(Error::invalid("a check failed", "none"))
        });
        assert!(failed.is_err());
        assert_eq!(values(&parameters), [4.0, 8.0], "training goes on from its own weights");
        average.settle(&parameters).unwrap();
        assert_eq!(values(&parameters), [2.5, 8.0]);
    }

    #[test]
    fn a_restored_mean_goes_on_to_the_bit_and_a_missing_one_is_named() {
        let parameters = parameters();
        let mut straight = Average::default();
        (0..3).for_each(|_| straight.add(&parameters).unwrap());
        let mut restored = Average::restore(&straight.state().unwrap(), &parameters, 3).unwrap();
        parameters["w"].set(&Tensor::new(&[0.1f32, 0.7], &Device::Cpu).unwrap()).unwrap();
        let [one, two] = [&mut straight, &mut restored].map(|average| {
            average.add(&parameters).unwrap();
            let mean = average.state().unwrap()["average.w"].to_vec1::<f32>().unwrap();
            mean.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        assert_eq!(one, two);
        let fault = Average::restore(&BTreeMap::new(), &parameters, 3).unwrap_err().to_string();
        assert!(fault.contains("average.w"), "{fault}");
    }
}
