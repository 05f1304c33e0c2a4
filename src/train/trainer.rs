//! The loop: forward, loss, backward, step, evaluate, checkpoint. Pre-training a base and training an adapter differ in
//! their parameters and their batches, not here.
//!
//! Covered: accumulation, clipping, evaluation on fixed subsets and on generated code, early stopping, averaged weights, the best
//! checkpoint, a collapse alarm, exact resume, a time limit, Ctrl-C, divergence. Not covered: several devices.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use candle_core::{DType, Var};

use crate::error::{Error, Result};
use crate::memory;
use crate::model::checkpoint;
use crate::model::dropout::Dropout;
use crate::model::ops;
use crate::model::transformer::Transformer;
use crate::progress::Progress;
use crate::seed;
use crate::train::average::{Average, average_start};
use crate::train::batch::{Batch, Batches};
use crate::train::gradients::{Clip, Gradients};
use crate::train::job::{FixedSets, Job, Keep, Running, STOP, resume_file, stable_until};
use crate::train::loss::{batch_loss, bits_per_byte, mean_loss};
use crate::train::metrics::{EvaluationRow, GeneratedCheck, MetricsFile, StepRecord, StopReason, TrainingRecord};
use crate::train::optimizer::Optimizer;
use crate::train::pending::{Pending, Taken};
use crate::train::schedule::learning_rate;
use crate::train::state::{self, Best, Position};
use crate::train::tensorboard::EventFile;

/// Trains `parameters`, the variables of `model`, on the batches of `data`. `check` is called at each evaluation with the
/// step and may judge generated code.
///
/// # Errors
/// [`Error::Invalid`] when a state lies in the folder and neither resume nor force is asked for, or a parameter gets no
/// gradient; [`Error::Mismatch`] when the saved state is another run's; [`Error::Diverged`] when the loss or the
/// gradient stops being a number; [`Error::Interrupted`] on [`request_stop`](crate::train::job::request_stop); [`Error::Io`], [`Error::Tensor`].
pub fn fit(
    model: &Transformer,
    parameters: &BTreeMap<String, Var>,
    job: &Job,
    data: &dyn Batches,
    fixed: &FixedSets,
    check: &mut dyn FnMut(usize) -> Result<Option<GeneratedCheck>>,
) -> Result<TrainingRecord> {
    memory::keep_freed();
    let _running = Running::begin();
    let mut run = Run::open(model, parameters, job, fixed)?;
    let stop = run.go(data, check)?;
    if stop != StopReason::Finished {
        println!("{}: {stop}", job.name);
    }
    run.finish(stop)
}

/// A run in progress.
struct Run<'a> {
    model: &'a Transformer,
    parameters: &'a BTreeMap<String, Var>,
    job: &'a Job,
    fixed: &'a FixedSets,
    optimizer: Optimizer,
    average: Average,
    position: Position,
    steps: Vec<StepRecord>,
    evaluations: Vec<EvaluationRow>,
    step_file: MetricsFile,
    evaluation_file: MetricsFile,
    events: EventFile,
    progress: Progress,
    pending: Pending,
    begun: Instant,
    /// The step that this process began after.
    first: usize,
    seconds_before: f64,
}

impl<'a> Run<'a> {
    fn open(
        model: &'a Transformer,
        parameters: &'a BTreeMap<String, Var>,
        job: &'a Job,
        fixed: &'a FixedSets,
    ) -> Result<Self> {
        let rate = |name: &str| if name.contains("lora_B") { job.lr_ratio } else { 1.0 };
        let mut optimizer =
            Optimizer::new(job.optimizer.rule, parameters, job.optimizer.weight_decay, job.betas, rate)?;
        let exists = job.state_file().is_file();
        if exists && !job.resume && !job.force {
            return Err(Error::invalid(
                format!("a run lies in {}", job.folder.display()),
                "continue it with --resume, or start anew with --force",
            ));
        }
        let (mut position, average) = if exists && job.resume {
            state::restore(&resume_file(job)?, parameters, &mut optimizer, &job.digest)?
        } else {
            (Position { digest: job.digest.clone(), ..Position::default() }, Average::default())
        };
        (position.planned_steps, position.average_last) = (job.optimizer.steps, job.optimizer.average_last);
        let step = position.step;
        let (step_file, steps) = MetricsFile::open(&job.folder.join("metrics.jsonl"), step, |r: &StepRecord| r.step)?;
        let (evaluation_file, evaluations) =
            MetricsFile::open(&job.folder.join("evaluations.jsonl"), step, |r: &EvaluationRow| r.step)?;
        let seconds_before = position.seconds;
        let begun = Instant::now();
        Ok(Self {
            model,
            parameters,
            job,
            fixed,
            optimizer,
            average,
            position,
            steps,
            evaluations,
            step_file,
            evaluation_file,
            events: EventFile::create(&job.folder.join("tensorboard"), step)?,
            progress: Progress::new(job.name.clone(), job.optimizer.steps),
            pending: Pending::default(),
            begun,
            first: step,
            seconds_before,
        })
    }

    fn go(
        &mut self,
        data: &dyn Batches,
        check: &mut dyn FnMut(usize) -> Result<Option<GeneratedCheck>>,
    ) -> Result<StopReason> {
        let job = self.job;
        let total = job.optimizer.steps;
        self.progress.add(self.position.step);
        if self.position.step == 0 {
            // A state exists from the first moment, so that "the last good checkpoint" is never missing.
            self.save()?;
            self.evaluate(check)?;
        }
        let mut saved = Instant::now();
        while self.position.step < total {
            self.take_step(data)?;
            if self.pending.len() >= job.read_every {
                self.settle()?;
            }
            let step = self.position.step;
            let evaluated = step.is_multiple_of(job.eval_every.max(1)) || step == total;
            let stop = if evaluated { self.evaluate(check)? } else { None };
            if step == stable_until(&job.optimizer) && step < total {
                self.save_to(&job.stable_file())?;
            }
            let interrupted = STOP.load(Ordering::SeqCst);
            let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
            let time_up = job.minutes.is_some_and(|limit| minutes >= limit) && step < total;
            if evaluated || interrupted || time_up || stop.is_some() || saved.elapsed() >= job.checkpoint_every {
                self.save()?;
                saved = Instant::now();
            }
            if interrupted {
                return Err(Error::Interrupted { checkpoint: job.state_file() });
            }
            if let Some(stop) = stop {
                self.progress.finish();
                return Ok(stop);
            }
            if time_up {
                self.progress.finish();
                return Ok(StopReason::TimeUp(minutes));
            }
        }
        self.progress.finish();
        Ok(StopReason::Finished)
    }

    fn take_step(&mut self, data: &dyn Batches) -> Result<()> {
        let job = self.job;
        let step = self.position.step + 1;
        let begun = Instant::now();
        let batches = data.step(step)?;
        let tokens: usize = batches.iter().map(|batch| batch.targets.len()).sum();
        let mut dropout = Dropout::new(seed::rng(job.seed, &format!("dropout {step}")));
        let mut gradients = Gradients::new();
        let mut losses = Vec::new();
        for batch in &batches {
            // Each micro-batch counts by its supervised tokens, so that accumulation changes memory, not the result.
            let share = batch.targets.len() as f64 / tokens as f64;
            let loss = batch_loss(self.model, batch, &mut dropout, job.label_smoothing)?;
            losses.push((loss.detach(), share));
            let mut found = ops::backward(&(loss * share)?)?;
            for (name, variable) in self.parameters {
                let gradient = found.remove(variable).ok_or_else(|| {
                    Error::invalid(
                        format!("parameter {name} received no gradient at step {step}"),
                        "an operation without a backward pass lies between it and the loss; run `codelora base audit`",
                    )
                })?;
                let sum = match gradients.remove(name) {
                    Some(sum) => (sum + gradient)?,
                    None => gradient,
                };
                gradients.insert(name.clone(), sum);
            }
        }
        let clip = Clip::new(&gradients, job.optimizer.clip)?;
        let lr = learning_rate(&job.optimizer, step);
        self.optimizer.step(&gradients, lr, &clip)?;
        if step > average_start(&job.optimizer) {
            self.average.add(self.parameters)?;
        }
        self.position.step = step;
        self.position.tokens_seen += tokens;
        let real = batches.iter().map(|batch| batch.real).sum();
        let computed = batches.iter().map(|batch| batch.rows * batch.seq).sum();
        self.pending.push(Taken { step, lr, losses, clip, tokens, real, computed }, begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Reads the numbers of the steps that wait for it and writes them down.
    fn settle(&mut self) -> Result<()> {
        // Evaluations measure without smoothing: the two must not be taken for the same number.
        let loss = if self.job.label_smoothing > 0.0 { "smoothed loss" } else { "loss" };
        for row in self.pending.read()? {
            if !row.loss.is_finite() || !row.grad_norm.is_finite() {
                return Err(Error::Diverged { step: row.step, loss: row.loss, checkpoint: self.job.state_file() });
            }
            // The pace so far, evaluations included.
            let pace = self.begun.elapsed().as_secs_f64() / (row.step - self.first) as f64;
            let left = (self.job.optimizer.steps - row.step) as f64 * pace / 60.0;
            self.progress.note(
                1,
                format!(
                    "{loss} {:.3} nats/token  lr {:.1e}  {:.0} tokens/s  {left:.0} min left",
                    row.loss, row.lr, row.tokens_per_second
                ),
            );
            self.step_file.append(&row)?;
            self.events.scalars(row.step, &row.scalars())?;
            self.steps.push(row);
        }
        Ok(())
    }

    /// Measures the average, where there is one, or the weights as they are.
    fn evaluate(
        &mut self,
        check: &mut dyn FnMut(usize) -> Result<Option<GeneratedCheck>>,
    ) -> Result<Option<StopReason>> {
        self.settle()?;
        let average = std::mem::take(&mut self.average);
        let stop = average.in_place(self.parameters, || self.measure(average.taken(), check));
        self.average = average;
        stop
    }

    /// Measures the weights at hand, remembers the best, and says whether to stop.
    fn measure(
        &mut self,
        averaged: usize,
        check: &mut dyn FnMut(usize) -> Result<Option<GeneratedCheck>>,
    ) -> Result<Option<StopReason>> {
        let (job, step) = (self.job, self.position.step);
        let [train_loss, validation_loss] = [&self.fixed.train, &self.fixed.validation].map(|set| self.measured(set));
        let (train_loss, validation_loss) = (train_loss?, validation_loss?);
        let row = EvaluationRow {
            step,
            averaged,
            train_loss,
            validation_loss,
            bits_per_byte: self.fixed.tokens_per_byte.map(|tokens| bits_per_byte(validation_loss, tokens)),
            generated: check(step)?,
        };
        println!("{}: {row}", job.name);
        let pass_rate = row.generated.as_ref().map_or(0.0, |g| g.pass_rate);
        let loss = row.validation_loss;
        let better = self.position.best.as_ref().is_none_or(|best| best.is_beaten_by(pass_rate, loss));
        if better {
            self.position.best = Some(Best { step, pass_rate, loss, since: 0 });
            if job.keep == Keep::Best {
                let weights = self.parameters.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
                checkpoint::save_safetensors(&weights, &job.best_file(), DType::F32, &BTreeMap::new())?;
            }
        } else if let Some(best) = &mut self.position.best {
            best.since += 1;
        }
        let since = self.position.best.as_ref().map_or(0, |best| best.since);
        // An untrained model may well repeat itself; the alarm is for a model that training made worse.
        let collapsed =
            row.generated.as_ref().map(|g| g.collapse_rate).filter(|&rate| step > 0 && rate > job.collapse_alarm);
        self.evaluation_file.append(&row)?;
        self.events.scalars(step, &row.scalars())?;
        self.evaluations.push(row);
        Ok(match collapsed {
            Some(rate) => Some(StopReason::Collapsed(rate)),
            None if job.patience > 0 && since >= job.patience => Some(StopReason::Patience(since)),
            None => None,
        })
    }

    /// The loss on a fixed set. A model that can no longer be measured is not asked to write code either.
    fn measured(&self, set: &[Batch]) -> Result<f64> {
        let loss = mean_loss(self.model, set)?;
        if loss.is_finite() || set.is_empty() { Ok(loss) } else { Err(self.diverged(loss)) }
    }

    fn diverged(&self, loss: f64) -> Error {
        Error::Diverged { step: self.position.step, loss, checkpoint: self.job.state_file() }
    }

    fn save(&mut self) -> Result<()> {
        self.save_to(&self.job.state_file())
    }

    /// Saves the run, unless its weights are no numbers: the last good state must stay.
    fn save_to(&mut self, file: &std::path::Path) -> Result<()> {
        self.settle()?;
        for variable in self.parameters.values() {
            if !variable.sum_all()?.to_scalar::<f32>()?.is_finite() {
                return Err(self.diverged(f64::NAN));
            }
        }
        self.position.seconds = self.seconds_before + self.begun.elapsed().as_secs_f64();
        self.position.averaged = self.average.taken();
        state::save(file, self.parameters, &self.optimizer, &self.average, &self.position)
    }

    fn finish(mut self, stop: StopReason) -> Result<TrainingRecord> {
        self.position.seconds = self.seconds_before + self.begun.elapsed().as_secs_f64();
        let mut kept_step = self.position.step;
        self.average.settle(self.parameters)?;
        let best = self.position.best.as_ref().filter(|best| best.step != kept_step);
        if let (Keep::Best, Some(best), false) = (self.job.keep, best, matches!(stop, StopReason::TimeUp(_))) {
            let weights = checkpoint::read_safetensors(&self.job.best_file(), self.model.device())?;
            for (name, variable) in self.parameters {
                if let Some(weight) = weights.get(name) {
                    variable.set(weight)?;
                }
            }
            kept_step = best.step;
        }
        Ok(TrainingRecord {
            name: self.job.name.clone(),
            digest: self.job.digest.clone(),
            inputs: self.job.digest.clone(),
            trainable_parameters: self.parameters.values().map(|v| v.elem_count()).sum(),
            steps: self.steps,
            evaluations: self.evaluations,
            tokens_seen: self.position.tokens_seen,
            seconds: self.position.seconds,
            kept_step,
            stop,
        })
    }
}
