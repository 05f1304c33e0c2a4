//! The optimiser: every parameter with its rule, AdamW or Muon, whose state can be saved and restored.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::experiment::Stepping;
use crate::train::adamw::{Betas, Moments};
use crate::train::gradients::{Clip, Gradients, with_host};
use crate::train::muon::{self, Momentum};

/// What scales the step of one parameter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// The learning rate.
    pub lr: f64,
    /// What decay leaves of the weights: 1 − lr·λ.
    pub keep: f64,
}

/// What a rule remembers of a parameter.
#[derive(Debug, Clone)]
enum Memory {
    AdamW(Moments),
    /// With the number of matrices that lie above each other.
    Muon(Momentum, usize),
}

/// A parameter with its share of decay and rate.
#[derive(Debug, Clone)]
struct Slot {
    variable: Var,
    memory: Memory,
    decays: bool,
    rate: f64,
}

/// An optimiser over named f32 parameters.
#[derive(Debug, Clone)]
pub struct Optimizer {
    slots: BTreeMap<String, Slot>,
    betas: Betas,
    weight_decay: f64,
    taken: usize,
}

/// Whether decoupled decay applies: matrices decay; norms, biases (vectors) and embeddings do not, as their scale
/// carries meaning.
pub fn decays(name: &str, variable: &Var) -> bool {
    variable.rank() >= 2 && !name.contains("embedding")
}

/// Whether Muon applies: to matrices between hidden states. Embedding and head have rows of tokens, most of which a step does not
/// see.
fn is_hidden(name: &str, variable: &Var) -> bool {
    variable.rank() == 2 && name.starts_with("layers.")
}

impl Optimizer {
    /// An optimiser that remembers nothing yet. `rate_of` scales the learning rate of single parameters (LoRA+ for B).
    ///
    /// # Errors
    /// [`Error::Invalid`] when a parameter is not f32 (moments in half precision stand still) or lies where its rule has no
    /// kernel.
    pub fn new(
        rule: Stepping,
        parameters: &BTreeMap<String, Var>,
        weight_decay: f64,
        betas: Betas,
        rate_of: impl Fn(&str) -> f64,
    ) -> Result<Self> {
        let mut slots = BTreeMap::new();
        for (name, variable) in parameters {
            if variable.dtype() != DType::F32 {
                return Err(Error::invalid(
                    format!("parameter {name} is {:?}", variable.dtype()),
                    "keep trainable parameters in f32 and cast them in the forward pass",
                ));
            }
            let memory = if rule == Stepping::Muon && is_hidden(name, variable) {
                if !variable.device().is_cpu() {
                    return Err(muon::not_here());
                }
                Memory::Muon(
                    Momentum(vec![0.0; variable.elem_count()]),
                    if name.ends_with("qkv.weight") { 3 } else { 1 },
                )
            } else {
                let zeros = vec![0f32; variable.elem_count()];
                Memory::AdamW(Moments::new(variable, zeros.clone(), zeros)?)
            };
            let slot = Slot { variable: variable.clone(), memory, decays: decays(name, variable), rate: rate_of(name) };
            slots.insert(name.clone(), slot);
        }
        Ok(Self { slots, betas, weight_decay, taken: 0 })
    }

    /// Steps taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// One step, each gradient as `clip` leaves it. A parameter without a gradient keeps its value and what is remembered of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when gradients and parameters lie on different devices; [`Error::Tensor`].
    pub fn step(&mut self, gradients: &Gradients, lr: f64, clip: &Clip) -> Result<()> {
        self.taken += 1;
        let mut matrices = Vec::new();
        for (name, slot) in &mut self.slots {
            let Some(gradient) = gradients.get(name) else { continue };
            let lr = lr * slot.rate;
            let rates = Rates { lr, keep: if slot.decays { 1.0 - lr * self.weight_decay } else { 1.0 } };
            match &mut slot.memory {
                Memory::AdamW(moments) => {
                    moments.step(&slot.variable, gradient, clip, rates, self.betas, self.taken)?;
                }
                Memory::Muon(momentum, parts) => matrices.push((momentum, &slot.variable, gradient, rates, *parts)),
            }
        }
        // AdamW shares the elements of a parameter among the threads, Muon the parameters.
        matrices.into_par_iter().try_for_each(|(momentum, variable, gradient, rates, parts)| {
            momentum.step(variable, gradient, clip, rates, parts)
        })
    }

    /// What is remembered, as tensors on the host: `mean.NAME`, and of AdamW `square.NAME`.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, slot) in &self.slots {
            match &slot.memory {
                Memory::AdamW(moments) => {
                    let (mean, square) = moments.to_host(&slot.variable)?;
                    for (kind, values) in [("mean", mean), ("square", square)] {
                        let tensor = Tensor::from_vec(values, slot.variable.shape(), &Device::Cpu)?;
                        state.insert(format!("{kind}.{name}"), tensor);
                    }
                }
                Memory::Muon(Momentum(mean), _) => {
                    let tensor = Tensor::from_vec(mean.clone(), slot.variable.shape(), &Device::Cpu)?;
                    state.insert(format!("mean.{name}"), tensor);
                }
            }
        }
        Ok(state)
    }

    /// Restores what [`Optimizer::state`] gave after `taken` steps.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when a moment is missing or of another size.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, taken: usize) -> Result<()> {
        for (name, slot) in &mut self.slots {
            let wanted = slot.variable.elem_count();
            let saved = |kind: &str| {
                let key = format!("{kind}.{name}");
                let found = state.get(&key).map(host).transpose()?.unwrap_or_default();
                if found.len() != wanted {
                    return Err(Error::Mismatch {
                        what: format!("elements of {key} in the saved state"),
                        expected: wanted.to_string(),
                        found: found.len().to_string(),
                        remedy: "resume with the architecture and adapter of the saved run, or start anew".into(),
                    });
                }
                Ok(found)
            };
            match &mut slot.memory {
                Memory::AdamW(moments) => *moments = Moments::new(&slot.variable, saved("mean")?, saved("square")?)?,
                Memory::Muon(momentum, _) => momentum.0 = saved("mean")?,
            }
        }
        self.taken = taken;
        Ok(())
    }
}

fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    with_host(tensor, |values| Ok(values.to_vec()))
}

#[cfg(test)]
mod tests {
    use candle_nn::optim::{AdamW as Reference, Optimizer as _, ParamsAdamW};

    use super::*;
    use crate::train::adamw::EPSILON;

    fn variable(values: &[f32], shape: &[usize]) -> Var {
        Var::from_tensor(&Tensor::from_slice(values, shape, &Device::Cpu).unwrap()).unwrap()
    }

    fn unclipped(gradients: &Gradients) -> Clip {
        Clip::new(gradients, f64::INFINITY).unwrap()
    }

    #[test]
    fn steps_agree_with_candles_optimizer() {
        let ours = variable(&[0.5, -1.0, 2.0, 0.1], &[2, 2]);
        let theirs = variable(&[0.5, -1.0, 2.0, 0.1], &[2, 2]);
        let parameters = BTreeMap::from([("layers.0.weight".to_string(), ours.clone())]);
        let mut optimizer = Optimizer::new(Stepping::AdamW, &parameters, 0.1, Betas::default(), |_| 1.0).unwrap();
        let params = ParamsAdamW { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: EPSILON, weight_decay: 0.1 };
        let mut reference = Reference::new(vec![theirs.clone()], params).unwrap();
        let target = Tensor::new(&[[1f32, 2.0], [-3.0, 0.4]], &Device::Cpu).unwrap();
        for _ in 0..25 {
            let loss = |v: &Var| v.as_tensor().sub(&target).unwrap().sqr().unwrap().sum_all().unwrap();
            let gradient = loss(&ours).backward().unwrap().get(&ours).unwrap().clone();
            let gradients = BTreeMap::from([("layers.0.weight".to_string(), gradient)]);
            optimizer.step(&gradients, 1e-2, &unclipped(&gradients)).unwrap();
            reference.backward_step(&loss(&theirs)).unwrap();
        }
        let (a, b) = (host(&ours).unwrap(), host(&theirs).unwrap());
        assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 1e-6), "{a:?} {b:?}");
        assert!((a[0] - 0.5).abs() > 0.1, "nothing moved");
    }

    #[test]
    fn norms_biases_and_embeddings_do_not_decay() {
        assert!(decays("layers.0.ffn.fc1.weight", &variable(&[1.0; 4], &[2, 2])));
        assert!(!decays("layers.0.norm1.weight", &variable(&[1.0; 4], &[4])));
        assert!(!decays("token_embedding.weight", &variable(&[1.0; 4], &[2, 2])));
    }

    #[test]
    fn clipping_is_a_step_with_a_shorter_gradient() {
        let gradients = |scale: f32| {
            let values = [3.0, 4.0].map(|value: f32| value * scale);
            BTreeMap::from([("a".to_string(), Tensor::new(&values, &Device::Cpu).unwrap())])
        };
        let after = |scale: f32, limit: f64| {
            let w = variable(&[0.5, -0.5], &[2]);
            let parameters = BTreeMap::from([("a".to_string(), w.clone())]);
            let mut optimizer = Optimizer::new(Stepping::AdamW, &parameters, 0.0, Betas::default(), |_| 1.0).unwrap();
            // Two steps of unlike length: one alone has the same size whatever the scale.
            let (first, second) = (gradients(scale), gradients(1.0));
            optimizer.step(&first, 0.1, &Clip::new(&first, limit).unwrap()).unwrap();
            optimizer.step(&second, 0.1, &unclipped(&second)).unwrap();
            w.to_vec1::<f32>().unwrap()
        };
        // (3, 4) is 5 long.
        assert_eq!(after(1.0, 1.25), after(0.25, f64::INFINITY));
        assert_ne!(after(1.0, 1.25), after(1.0, f64::INFINITY));
    }

    #[test]
    fn a_restored_optimizer_goes_on_to_the_bit() {
        for rule in [Stepping::AdamW, Stepping::Muon] {
            let run = |cut: bool| {
                let w = variable(&[0.5, -0.2, 0.1, 0.7, 0.3, -0.9], &[3, 2]);
                let parameters = BTreeMap::from([("layers.0.attn.qkv.weight".to_string(), w.clone())]);
                let fresh = || Optimizer::new(rule, &parameters, 0.01, Betas::default(), |_| 2.0).unwrap();
                let mut optimizer = fresh();
                for step in 0..6 {
                    if cut && step == 3 {
                        let state = optimizer.state().unwrap();
                        optimizer = fresh();
                        optimizer.restore(&state, 3).unwrap();
                    }
                    let gradient = w.as_tensor().sqr().unwrap();
                    let gradients = BTreeMap::from([("layers.0.attn.qkv.weight".to_string(), gradient)]);
                    optimizer.step(&gradients, 0.1, &Clip::new(&gradients, 0.3).unwrap()).unwrap();
                }
                host(&w).unwrap()
            };
            assert_eq!(run(false), run(true));
        }
    }

    #[test]
    fn muon_takes_the_matrices_of_blocks_and_nothing_else() {
        let muon = |name: &str, shape: &[usize]| is_hidden(name, &variable(&[1.0; 4], shape));
        assert!(muon("layers.0.ffn.fc1.weight", &[2, 2]));
        assert!(!muon("layers.0.norm1.weight", &[4]));
        assert!(!muon("token_embedding.weight", &[2, 2]) && !muon("lm_head.weight", &[2, 2]));
    }

    #[test]
    fn a_half_precision_parameter_is_refused() {
        let half = Var::zeros((2, 2), DType::BF16, &Device::Cpu).unwrap();
        let parameters = BTreeMap::from([("w".to_string(), half)]);
        assert!(Optimizer::new(Stepping::AdamW, &parameters, 0.0, Betas::default(), |_| 1.0).is_err());
    }

    /// The kernels against the loop above, on the device itself; without one the test says so.
    #[cfg(feature = "cuda")]
    #[test]
    fn steps_on_a_cuda_device_agree_with_the_host() {
        let device = match Device::new_cuda(0) {
            Ok(device) => device,
            Err(error) => return eprintln!("skipped: no CUDA device answers ({error})"),
        };
        let random = |name: &str| {
            let values = crate::model::init::normal(&mut crate::seed::rng(1, name), 300 * 41, 1.0);
            Tensor::from_vec(values, (300, 41), &Device::Cpu).unwrap()
        };
        let values = random("w");
        let run = |device: &Device| {
            let var = Var::from_tensor(&values.to_device(device).unwrap()).unwrap();
            let parameters = BTreeMap::from([("w".to_string(), var.clone())]);
            let mut optimizer = Optimizer::new(Stepping::AdamW, &parameters, 0.1, Betas::default(), |_| 1.0).unwrap();
            let mut norms = Vec::new();
            for step in 0..4 {
                let gradient = random(&format!("g{step}")).to_device(device).unwrap();
                let gradients = BTreeMap::from([("w".to_string(), gradient)]);
                // Some 111 long: clipped at every step.
                let clip = Clip::new(&gradients, 80.0).unwrap();
                optimizer.step(&gradients, 1e-2, &clip).unwrap();
                norms.push(clip.norm().unwrap());
            }
            (var.flatten_all().unwrap().to_vec1::<f32>().unwrap(), norms)
        };
        let ((there, norms), (here, expected)) = (run(&device), run(&Device::Cpu));
        assert!(there.iter().zip(&here).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(norms.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6 * b));
    }
}
