//! What to run, where its files lie, and how it is asked to stop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candle_core::Device;

use crate::error::{Error, Result};
use crate::experiment::OptimizerConfig;
use crate::train::adamw::Betas;
use crate::train::average::average_start;
use crate::train::batch::Batch;
use crate::train::schedule::decay_start;
use crate::train::state;

/// Set by Ctrl-C: the loop saves its state after the step at hand and stops.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);

/// Whether a loop is running that can save its state.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Asks the running loop to save its state and stop with [`Error::Interrupted`]. Says whether one will: no loop runs
/// outside training, and one that was asked before is not asked again.
pub fn request_stop() -> bool {
    RUNNING.load(Ordering::SeqCst) && !STOP.swap(true, Ordering::SeqCst)
}

/// Held while a loop runs.
pub(crate) struct Running;

impl Running {
    pub(crate) fn begin() -> Self {
        STOP.store(false, Ordering::SeqCst);
        RUNNING.store(true, Ordering::SeqCst);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::SeqCst);
    }
}

/// Which weights a run leaves in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Those of the last step.
    Last,
    /// Those of the best evaluation: highest pass rate of generated code, then lowest validation loss.
    Best,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Job {
    /// Name of the run, shown while it runs.
    pub name: String,
    /// Digest of everything that a state must share with the run that goes on from it. A base's leaves out the number of steps, which
    /// may grow; an adapter's holds it, for its schedule ends with them.
    pub digest: String,
    /// The experiment's seed.
    pub seed: u64,
    /// Steps, learning rate, decay, clip.
    pub optimizer: OptimizerConfig,
    /// Decay rates of the moments.
    pub betas: Betas,
    /// Learning-rate ratio of `lora_B` parameters to the others (LoRA+).
    pub lr_ratio: f64,
    /// Label smoothing ε.
    pub label_smoothing: f64,
    /// Steps between evaluations.
    pub eval_every: usize,
    /// Evaluations without improvement before the run stops; 0 never stops.
    pub patience: usize,
    /// Which weights to leave behind.
    pub keep: Keep,
    /// Share of collapsed samples above which the run stops; 1 or more never stops.
    pub collapse_alarm: f64,
    /// Folder for state and metrics.
    pub folder: PathBuf,
    /// Go on from a saved state, where there is one.
    pub resume: bool,
    /// Start anew although a state lies there.
    pub force: bool,
    /// Save the state and stop after this many minutes.
    pub minutes: Option<f64>,
    /// Time between two checkpoints; one is also written at each evaluation.
    pub checkpoint_every: Duration,
    /// Steps whose loss and gradient norm are read together, see [`read_every`].
    pub read_every: usize,
}

/// Steps after which losses and gradient norms are read: each on a CPU, where they are known at once; every 16 on a device, which
/// would have to be waited for. A loss that is no number is noticed so much later, and never saved.
pub fn read_every(device: &Device) -> usize {
    if device.is_cpu() { 1 } else { 16 }
}

/// Fixed batches on which the loss is compared over time.
#[derive(Debug, Clone, Default)]
pub struct FixedSets {
    /// From the training data.
    pub train: Vec<Batch>,
    /// Held out.
    pub validation: Vec<Batch>,
    /// Tokens per byte of the held-out text, where losses are also wanted in bits per byte.
    pub tokens_per_byte: Option<f64>,
}

/// Refuses settings with which nothing can be learned; `section` is where they stand in the experiment file.
///
/// # Errors
/// [`Error::Invalid`] that names the first.
pub fn check_settings(
    section: &str,
    optimizer: &OptimizerConfig,
    label_smoothing: f64,
    eval_every: usize,
) -> Result<()> {
    let positive = |value: f64| value.is_finite() && value > 0.0;
    let share = |value: f64| (0.0..1.0).contains(&value);
    let settings = [
        ("steps", optimizer.steps as f64, optimizer.steps > 0, "at least 1"),
        ("lr", optimizer.lr, positive(optimizer.lr), "above 0"),
        ("clip", optimizer.clip, positive(optimizer.clip), "above 0"),
        ("weight_decay", optimizer.weight_decay, share(optimizer.weight_decay), "in [0, 1)"),
        ("average_last", optimizer.average_last, share(optimizer.average_last), "in [0, 1)"),
        ("label_smoothing", label_smoothing, share(label_smoothing), "in [0, 1)"),
        ("eval_every", eval_every as f64, eval_every > 0, "at least 1"),
    ];
    match settings.into_iter().find(|(_, _, holds, _)| !holds) {
        None => Ok(()),
        Some((name, value, _, wanted)) => {
            Err(Error::invalid(format!("{name} = {value} in [{section}]"), format!("choose a value {wanted}")))
        }
    }
}

impl Job {
    /// The file of the latest state.
    pub fn state_file(&self) -> PathBuf {
        self.folder.join("state.safetensors")
    }

    /// The state of the last step that does not depend on the number of steps, from which a longer run can go on.
    pub fn stable_file(&self) -> PathBuf {
        self.folder.join("stable.safetensors")
    }

    pub(crate) fn best_file(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }
}

/// The last step that is the same for every number of steps: then the learning rate falls or the average begins.
pub(crate) fn stable_until(optimizer: &OptimizerConfig) -> usize {
    decay_start(optimizer).min(average_start(optimizer))
}

/// The state to go on from. A run that is to become longer, or to average other steps, cannot go on from a state whose learning
/// rate has begun to fall or whose average has begun; it goes on from the one saved before.
pub(crate) fn resume_file(job: &Job) -> Result<PathBuf> {
    let (latest, asked) = (state::position(&job.state_file())?, &job.optimizer);
    let planned = OptimizerConfig { steps: latest.planned_steps, average_last: latest.average_last, ..asked.clone() };
    let before = |start: fn(&OptimizerConfig) -> usize| latest.step <= start(&planned).min(start(asked));
    let same_rates = planned.steps == asked.steps || before(decay_start);
    let same_average = average_start(&planned) == average_start(asked) || before(average_start);
    if same_rates && same_average {
        return Ok(job.state_file());
    }
    let stable = job.stable_file();
    if stable.is_file() && state::position(&stable)?.step <= stable_until(asked) {
        return Ok(stable);
    }
    let plan = |optimizer: &OptimizerConfig| match optimizer.average_last {
        0.0 => format!("{} steps", optimizer.steps),
        share => format!("{} steps, the last {share} of them averaged", optimizer.steps),
    };
    Err(Error::Mismatch {
        what: format!("plan of the run in {}", job.folder.display()),
        expected: plan(&planned),
        found: plan(asked),
        remedy:
            "its learning rate has begun to fall or its average has begun; keep the plan, or start anew with --force"
                .into(),
    })
}
