//! AdamW with decoupled decay (Loshchilov & Hutter 2019, algorithm 2), whose state can be saved and restored.
//!
//! candle's own keeps its moments private and in the parameter's type; here they are plain f32 beside the parameter, so that
//! a run resumes to the bit. On a CPU the update runs over raw slices, in parallel over chunks of each tensor; on a CUDA
//! device it is one kernel a parameter.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor, Var};
use rayon::prelude::*;
use std::sync::Mutex;

use crate::error::{Error, Result};
#[cfg(feature = "cuda")]
use crate::model::ops::cuda;
use crate::train::gradients::{CHUNK, Clip, Gradients, with_host};
use crate::train::moments::Moments;

/// Decay rates of the moments. β₂ = 0.95 forgets sooner than the usual 0.999, which suits runs of few steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Betas {
    /// Decay of the mean of gradients.
    pub first: f64,
    /// Decay of the mean of squared gradients.
    pub second: f64,
}

impl Default for Betas {
    fn default() -> Self {
        Self { first: 0.9, second: 0.95 }
    }
}

/// Added to the root of the second moment.
const EPSILON: f64 = 1e-8;

/// The moments of one parameter and its share of decay and rate.
#[derive(Debug, Clone)]
struct Slot {
    variable: Var,
    moments: Moments,
    decays: bool,
    rate: f64,
}

/// AdamW over named f32 parameters.
#[derive(Debug, Clone)]
pub struct AdamW {
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

impl AdamW {
    /// An optimiser with moments at zero. `rate_of` scales the learning rate of single parameters (LoRA+ for B).
    ///
    /// # Errors
    /// [`Error::Invalid`] when a parameter is not f32: moments in half precision stand still.
    pub fn new(
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
            let zeros = vec![0f32; variable.elem_count()];
            let slot = Slot {
                variable: variable.clone(),
                moments: Moments::new(variable, zeros.clone(), zeros)?,
                decays: decays(name, variable),
                rate: rate_of(name),
            };
            slots.insert(name.clone(), slot);
        }
        Ok(Self { slots, betas, weight_decay, taken: 0 })
    }

    /// Steps taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// One step with bias correction, each gradient as `clip` leaves it. A parameter without a gradient keeps its value and its
    /// moments.
    ///
    /// θ ← θ − lr·λ·θ − lr · m̂ / (√v̂ + ε), with m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ).
    ///
    /// # Errors
    /// [`Error::Invalid`] when gradients and parameters lie on different devices; [`Error::Tensor`].
    pub fn step(&mut self, gradients: &Gradients, lr: f64, clip: &Clip) -> Result<()> {
        self.taken += 1;
        let correct = |beta: f64| 1.0 - beta.powi(self.taken as i32);
        let (first, second) = (correct(self.betas.first), correct(self.betas.second));
        for (name, slot) in &mut self.slots {
            let Some(gradient) = gradients.get(name) else { continue };
            let lr = lr * slot.rate;
            let update = Update {
                betas: (self.betas.first as f32, self.betas.second as f32),
                keep: if slot.decays { (1.0 - lr * self.weight_decay) as f32 } else { 1.0 },
                rate: (lr / first) as f32,
                root: (1.0 / second) as f32,
            };
            match (&mut slot.moments, clip) {
                (Moments::Host(mean, square), Clip::Host { scale, .. }) => with_host(gradient, |gradient| {
                    let (scale, moments) = (*scale as f32, Mutex::new((mean, square)));
                    Ok(slot.variable.inplace_op1(&HostStep { update, scale, gradient, moments })?)
                })?,
                #[cfg(feature = "cuda")]
                (Moments::Device(moments), Clip::Device(clip)) => {
                    cuda::step(&slot.variable, gradient, moments, clip, update.numbers())?;
                }
                #[cfg(feature = "cuda")]
                _ => {
                    return Err(Error::invalid(
                        format!("the gradient of {name} lies on another device than the parameter"),
                        "compute the loss where the weights lie",
                    ));
                }
            }
        }
        Ok(())
    }

    /// The moments as tensors on the host: `mean.NAME` and `square.NAME`.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, slot) in &self.slots {
            let (mean, square) = slot.moments.to_host(&slot.variable)?;
            for (kind, values) in [("mean", mean), ("square", square)] {
                let tensor = Tensor::from_vec(values, slot.variable.shape(), &Device::Cpu)?;
                state.insert(format!("{kind}.{name}"), tensor);
            }
        }
        Ok(state)
    }

    /// Restores what [`AdamW::state`] gave after `taken` steps.
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
            slot.moments = Moments::new(&slot.variable, saved("mean")?, saved("square")?)?;
        }
        self.taken = taken;
        Ok(())
    }
}

fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    with_host(tensor, |values| Ok(values.to_vec()))
}

/// The numbers of one step for one parameter.
#[derive(Debug, Clone, Copy)]
struct Update {
    betas: (f32, f32),
    keep: f32,
    rate: f32,
    root: f32,
}

impl Update {
    /// In the order that the device's kernel takes them.
    #[cfg(feature = "cuda")]
    fn numbers(self) -> cuda::Numbers {
        [self.betas.0, self.betas.1, self.keep, self.rate, self.root, EPSILON as f32]
    }

    fn apply(self, scale: f32, values: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        let (b1, b2) = self.betas;
        for (((w, &g), m), v) in values.iter_mut().zip(gradient).zip(mean).zip(square) {
            let g = g * scale;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *w = *w * self.keep - self.rate * *m / ((*v * self.root).sqrt() + EPSILON as f32);
        }
    }
}

/// An update in place of a parameter's storage. The lock only hands the moments through candle's shared reference.
struct HostStep<'a> {
    update: Update,
    /// Multiplies the gradient.
    scale: f32,
    gradient: &'a [f32],
    moments: Mutex<(&'a mut Vec<f32>, &'a mut Vec<f32>)>,
}

impl HostStep<'_> {
    fn run(&self, values: &mut [f32]) {
        let Ok(mut moments) = self.moments.lock() else { return };
        let (mean, square) = &mut *moments;
        values
            .par_chunks_mut(CHUNK)
            .zip(self.gradient.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK))
            .zip(square.par_chunks_mut(CHUNK))
            .for_each(|(((w, g), m), v)| self.update.apply(self.scale, w, g, m, v));
    }
}

impl InplaceOp1 for HostStep<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a trainable parameter is contiguous f32");
        };
        self.run(&mut values[from..to]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::optim::{AdamW as Reference, Optimizer, ParamsAdamW};

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
        let mut optimizer = AdamW::new(&parameters, 0.1, Betas::default(), |_| 1.0).unwrap();
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
            let mut optimizer = AdamW::new(&parameters, 0.0, Betas::default(), |_| 1.0).unwrap();
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
        let run = |cut: bool| {
            let w = variable(&[0.5; 6], &[3, 2]);
            let parameters = BTreeMap::from([("w".to_string(), w.clone())]);
            let fresh = || AdamW::new(&parameters, 0.01, Betas::default(), |_| 2.0).unwrap();
            let mut optimizer = fresh();
            for step in 0..6 {
                if cut && step == 3 {
                    let state = optimizer.state().unwrap();
                    optimizer = fresh();
                    optimizer.restore(&state, 3).unwrap();
                }
                let gradient = w.as_tensor().sqr().unwrap();
                let gradients = BTreeMap::from([("w".to_string(), gradient)]);
                optimizer.step(&gradients, 0.1, &Clip::new(&gradients, 0.3).unwrap()).unwrap();
            }
            host(&w).unwrap()
        };
        assert_eq!(run(false), run(true));
    }

    #[test]
    fn a_half_precision_parameter_is_refused() {
        let half = Var::zeros((2, 2), DType::BF16, &Device::Cpu).unwrap();
        let parameters = BTreeMap::from([("w".to_string(), half)]);
        assert!(AdamW::new(&parameters, 0.0, Betas::default(), |_| 1.0).is_err());
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
            let mut optimizer = AdamW::new(&parameters, 0.1, Betas::default(), |_| 1.0).unwrap();
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
