//! AdamW with decoupled decay (Loshchilov & Hutter 2019, algorithm 2), whose state can be saved and restored.
//!
//! candle's own keeps its moments private and in the parameter's type; here they are plain f32 beside the parameter, so that
//! a run resumes to the bit. On a CPU the update runs over raw slices, in parallel over chunks of each tensor; on a CUDA
//! device it is one kernel a parameter.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor, Var};
use rayon::prelude::*;
use std::sync::Mutex;

use crate::error::{Error, Result};
#[cfg(feature = "cuda")]
use crate::model::ops::cuda;
use crate::train::moments::Moments;

/// Elements a thread updates at once: the four arrays of a chunk stay in a core's second-level cache.
const CHUNK: usize = 16 * 1024;

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

/// Gradients by parameter name.
pub type Gradients = BTreeMap<String, Tensor>;

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

    /// One step with bias correction. `scale` multiplies each gradient (clipping). A parameter without a gradient
    /// keeps its value and its moments.
    ///
    /// θ ← θ − lr·λ·θ − lr · m̂ / (√v̂ + ε), with m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ).
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn step(&mut self, gradients: &Gradients, lr: f64, scale: f64) -> Result<()> {
        self.taken += 1;
        let correct = |beta: f64| 1.0 - beta.powi(self.taken as i32);
        let (first, second) = (correct(self.betas.first), correct(self.betas.second));
        for (name, slot) in &mut self.slots {
            let Some(gradient) = gradients.get(name) else { continue };
            let lr = lr * slot.rate;
            let update = Update {
                betas: (self.betas.first as f32, self.betas.second as f32),
                scale: scale as f32,
                keep: if slot.decays { (1.0 - lr * self.weight_decay) as f32 } else { 1.0 },
                rate: (lr / first) as f32,
                root: (1.0 / second) as f32,
            };
            match &mut slot.moments {
                Moments::Host(mean, square) => with_host(gradient, |gradient| {
                    let moments = Mutex::new((mean, square));
                    Ok(slot.variable.inplace_op1(&HostStep { update, gradient, moments })?)
                })?,
                #[cfg(feature = "cuda")]
                Moments::Device(moments) => cuda::step(&slot.variable, gradient, moments, update.numbers())?,
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

/// Global L2 norm over all gradients, summed in f64 and in a fixed order.
///
/// # Errors
/// [`Error::Tensor`].
pub fn global_norm(gradients: &Gradients) -> Result<f64> {
    #[cfg(feature = "cuda")]
    if gradients.values().next().is_some_and(|gradient| gradient.device().is_cuda()) {
        return Ok(cuda::norm_of(&gradients.values().collect::<Vec<_>>())?);
    }
    let mut sum = 0f64;
    for gradient in gradients.values() {
        sum += with_host(gradient, |values| {
            let parts = values.par_chunks(CHUNK).map(|chunk| chunk.iter().map(|&g| f64::from(g) * f64::from(g)).sum());
            Ok(parts.collect::<Vec<f64>>().iter().sum::<f64>())
        })?;
    }
    Ok(sum.sqrt())
}

/// Calls `body` with a tensor's values on the host: where they lie, if they lie there.
fn with_host<R>(tensor: &Tensor, body: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) {
        return body(&values[from..to]);
    }
    drop(storage);
    body(&tensor.flatten_all()?.to_vec1::<f32>()?)
}

fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    with_host(tensor, |values| Ok(values.to_vec()))
}

/// The numbers of one step for one parameter.
#[derive(Debug, Clone, Copy)]
struct Update {
    betas: (f32, f32),
    scale: f32,
    keep: f32,
    rate: f32,
    root: f32,
}

impl Update {
    /// In the order that the device's kernel takes them.
    #[cfg(feature = "cuda")]
    fn numbers(self) -> cuda::Numbers {
        [self.betas.0, self.betas.1, self.scale, self.keep, self.rate, self.root, EPSILON as f32]
    }

    fn apply(self, values: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        let (b1, b2) = self.betas;
        for (((w, &g), m), v) in values.iter_mut().zip(gradient).zip(mean).zip(square) {
            let g = g * self.scale;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *w = *w * self.keep - self.rate * *m / ((*v * self.root).sqrt() + EPSILON as f32);
        }
    }
}

/// An update in place of a parameter's storage. The lock only hands the moments through candle's shared reference.
struct HostStep<'a> {
    update: Update,
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
            .for_each(|(((w, g), m), v)| self.update.apply(w, g, m, v));
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
            optimizer.step(&BTreeMap::from([("layers.0.weight".to_string(), gradient)]), 1e-2, 1.0).unwrap();
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
        assert!((global_norm(&gradients(1.0)).unwrap() - 5.0).abs() < 1e-9);
        let after = |gradient_scale: f32, step_scale: f64| {
            let w = variable(&[0.5, -0.5], &[2]);
            let parameters = BTreeMap::from([("a".to_string(), w.clone())]);
            let mut optimizer = AdamW::new(&parameters, 0.0, Betas::default(), |_| 1.0).unwrap();
            // Two steps of unlike length: one alone has the same size whatever the scale.
            optimizer.step(&gradients(gradient_scale), 0.1, step_scale).unwrap();
            optimizer.step(&gradients(1.0), 0.1, 1.0).unwrap();
            w.to_vec1::<f32>().unwrap()
        };
        assert_eq!(after(1.0, 0.25), after(0.25, 1.0));
        assert_ne!(after(1.0, 0.25), after(1.0, 1.0));
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
                optimizer.step(&BTreeMap::from([("w".to_string(), gradient)]), 0.1, 0.7).unwrap();
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
                norms.push(global_norm(&gradients).unwrap());
                optimizer.step(&gradients, 1e-2, 0.7).unwrap();
            }
            (var.flatten_all().unwrap().to_vec1::<f32>().unwrap(), norms)
        };
        let ((there, norms), (here, expected)) = (run(&device), run(&Device::Cpu));
        assert!(there.iter().zip(&here).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(norms.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6 * b));
    }
}
