//! Tests of training: a run that is stopped, resumed, made longer or sent astray.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use candle_core::{DType, Device, Tensor, Var};
use codelora::data::corpus::TokenStream;
use codelora::data::task::{Sample, Task};
use codelora::error::Error;
use codelora::experiment::{Compute, Experiment, LoraConfig, OptimizerConfig, Schedule, Stepping};
use codelora::model::config::ArchConfig;
use codelora::model::dropout::Dropout;
use codelora::model::init::init;
use codelora::model::transformer::Transformer;
use codelora::model::{checkpoint, device, lora};
use codelora::seed;
use codelora::tokenizer::Tokenizer;
use codelora::train::adamw::Betas;
use codelora::train::batch::{Batches, Encoded, SampleBatches, encode};
use codelora::train::job::{FixedSets, Job, Keep, request_stop};
use codelora::train::loss::{batch_loss, mean_loss};
use codelora::train::metrics::{GeneratedCheck, StepRecord, StopReason, TrainingRecord};
use codelora::train::trainer::fit;
use codelora::train::windows::{Cut, Part, WindowBatches};
use rand::Rng;

/// The flag of Ctrl-C belongs to the process, so runs of this file take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn arch() -> ArchConfig {
    serde_json::from_value(serde_json::json!({
        "arch_type": "transformer", "num_layers": 2, "hidden_dim": 32, "num_heads": 4, "ffn_multiplier": 2.0,
        "normalization": "layernorm", "activation": "gelu", "position_encoding": "rope",
        "attention_dropout": 0.1, "residual_dropout": 0.1, "vocab_size": 64, "max_seq_length": 32,
        "tie_word_embeddings": true
    }))
    .unwrap()
}

fn fresh() -> (Transformer, BTreeMap<String, Var>) {
    let parameters = init(&arch(), &mut seed::rng(5, "weights"), &Device::Cpu).unwrap();
    let weights: BTreeMap<String, Tensor> =
        parameters.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    (Transformer::from_weights(&arch(), &weights).unwrap(), parameters)
}

fn adapter_config(targets: &str, dropout: f64, lr_ratio: f64) -> LoraConfig {
    LoraConfig {
        rank: 4,
        alpha: 8.0,
        dropout,
        targets: vec![targets.into()],
        rslora: false,
        dora: false,
        lr_ratio,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
    }
}

/// Moves every B away from zero, where A has no gradient.
fn disturb(parameters: &BTreeMap<String, Var>, size: f32) {
    for (name, b) in parameters.iter().filter(|(name, _)| name.contains("lora_B")) {
        let rng = &mut seed::rng(5, name);
        let values: Vec<f32> = (0..b.elem_count()).map(|_| rng.random_range(-size..size)).collect();
        b.set(&Tensor::from_vec(values, b.shape(), &Device::Cpu).unwrap()).unwrap();
    }
}

/// Documents that count upwards: something to learn.
fn windows(folder: &Path) -> WindowBatches {
    let mut rng = seed::rng(5, "documents");
    let documents = (0..60).map(|_| {
        let (start, length) = (rng.random_range(2..30u32), rng.random_range(5..20u32));
        Ok((start..start + length).chain([0]).collect())
    });
    let stream = TokenStream::write(&folder.join("stream"), documents).unwrap();
    WindowBatches::new(vec![Part { stream, weight: 1.0, cut: Cut::Packed }], 4, 32, 5, "test").unwrap()
}

fn new_job(folder: &Path, steps: usize) -> Job {
    Job {
        name: "test".into(),
        digest: "d".into(),
        seed: 5,
        optimizer: OptimizerConfig {
            rule: Stepping::AdamW,
            steps,
            lr: 3e-3,
            warmup_steps: 2,
            schedule: Schedule::Wsd,
            weight_decay: 0.1,
            clip: 1.0,
            average_last: 0.0,
        },
        betas: Betas::default(),
        lr_ratio: 1.0,
        label_smoothing: 0.0,
        eval_every: 5,
        patience: 0,
        keep: Keep::Last,
        collapse_alarm: f64::INFINITY,
        folder: folder.to_path_buf(),
        resume: true,
        force: false,
        minutes: None,
        checkpoint_every: Duration::from_secs(3600),
        read_every: 1,
    }
}

type Check = dyn FnMut(usize) -> codelora::Result<Option<GeneratedCheck>>;

fn train(job: &Job, data: &dyn Batches, check: &mut Check) -> (codelora::Result<TrainingRecord>, String) {
    let (model, parameters) = fresh();
    let fixed =
        FixedSets { train: data.step(1001).unwrap(), validation: data.step(1002).unwrap(), ..FixedSets::default() };
    let record = fit(&model, &parameters, job, data, &fixed, check);
    (record, checkpoint::digest(&model.weights()).unwrap())
}

fn none(_: usize) -> codelora::Result<Option<GeneratedCheck>> {
    Ok(None)
}

#[test]
fn a_stopped_run_goes_on_to_the_bit_and_a_longer_one_from_its_stable_part() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let data = windows(folder.path());
    let whole = new_job(&folder.path().join("whole"), 20);
    let (record, straight) = train(&whole, &data, &mut none);
    let record = record.unwrap();
    assert_eq!((record.steps.len(), record.kept_step, record.stop.clone()), (20, 20, StopReason::Finished));
    assert!(record.steps[19].loss < record.steps[0].loss - 0.5, "it learned nothing");

    // Ctrl-C at step 10, then on.
    let cut = new_job(&folder.path().join("cut"), 20);
    let (stopped, _) = train(&cut, &data, &mut |step| {
        if step == 10 {
            request_stop();
        }
        Ok(None)
    });
    assert!(matches!(stopped, Err(Error::Interrupted { ref checkpoint }) if checkpoint.is_file()), "{stopped:?}");
    let (resumed, weights) = train(&cut, &data, &mut none);
    let resumed = resumed.unwrap();
    assert_eq!(weights, straight, "10 + 10 steps are not 20");
    assert_eq!(
        resumed.steps.iter().map(|s| s.loss).collect::<Vec<_>>(),
        record.steps.iter().map(|s| s.loss).collect::<Vec<_>>()
    );
    assert_eq!(resumed.tokens_seen, 20 * 4 * 32);

    // A run of 10 steps has begun to decay after 8; made longer, it goes on from there.
    let mut longer = new_job(&folder.path().join("longer"), 10);
    train(&longer, &data, &mut none).0.unwrap();
    longer.optimizer.steps = 20;
    let (record, weights) = train(&longer, &data, &mut none);
    assert_eq!(record.unwrap().steps.len(), 20);
    assert_eq!(weights, straight, "the longer run is not the run of 20 steps");

    // Another experiment's state is never taken over, nor overwritten unasked.
    let other = Job { digest: "e".into(), ..whole.clone() };
    assert!(matches!(train(&other, &data, &mut none).0, Err(Error::Mismatch { .. })));
    let unasked = Job { resume: false, ..whole };
    assert!(train(&unasked, &data, &mut none).0.unwrap_err().to_string().contains("--resume"));
}

/// The mean of the weights that a run without averaging has after each of the steps, in f64.
fn mean_of_steps(
    folder: &Path,
    data: &dyn Batches,
    steps: std::ops::RangeInclusive<usize>,
) -> BTreeMap<String, Vec<f64>> {
    let mut job = new_job(folder, 20);
    job.minutes = Some(0.0);
    // A loss over nothing is no number, which a saved state cannot hold.
    let known = || data.step(1002).unwrap();
    let fixed = FixedSets { train: known(), validation: known(), ..FixedSets::default() };
    let (mut sums, count) = (BTreeMap::<String, Vec<f64>>::new(), steps.clone().count() as f64);
    for step in 1..=*steps.end() {
        let (model, parameters) = fresh();
        fit(&model, &parameters, &job, data, &fixed, &mut none).unwrap();
        for (name, weight) in model.weights().into_iter().filter(|_| steps.contains(&step)) {
            let values = weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let sum = sums.entry(name).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value) / count);
        }
    }
    sums
}

#[test]
fn the_last_steps_are_averaged_and_the_run_itself_is_not_changed() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let data = windows(folder.path());
    let averaging = |name: &str, steps, share| {
        let mut job = new_job(&folder.path().join(name), steps);
        (job.optimizer.average_last, job.eval_every) = (share, 1);
        job
    };
    let plain = train(&new_job(&folder.path().join("plain"), 20), &data, &mut none).0.unwrap();
    let whole = averaging("whole", 20, 0.25);
    let (model, parameters) = fresh();
    let fixed = FixedSets { validation: data.step(1002).unwrap(), ..FixedSets::default() };
    let record = fit(&model, &parameters, &whole, &data, &fixed, &mut none).unwrap();
    let losses = |record: &TrainingRecord| record.steps.iter().map(|s| s.loss.to_bits()).collect::<Vec<_>>();
    assert_eq!(losses(&record), losses(&plain), "averaging changed the steps");
    let averaged: Vec<usize> = record.evaluations.iter().map(|row| row.averaged).collect();
    assert_eq!(averaged[14..], [0, 0, 1, 2, 3, 4, 5], "evaluations 0 to 20, of which the last five see a mean");

    let expected = mean_of_steps(&folder.path().join("steps"), &data, 16..=20);
    for (name, weight) in model.weights() {
        let values = weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let far = values.iter().zip(&expected[&name]).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(far < 1e-6, "{name} is {far:.1e} from the mean of steps 16 to 20");
    }
    assert_eq!(mean_loss(&model, &fixed.validation).unwrap(), record.evaluations[20].validation_loss);
    let straight = checkpoint::digest(&model.weights()).unwrap();

    // Ctrl-C in the midst of the average.
    let cut = averaging("cut", 20, 0.25);
    let stop_at = |at: usize| {
        move |step: usize| {
            if step == at {
                request_stop();
            }
            Ok(None)
        }
    };
    assert!(matches!(train(&cut, &data, &mut stop_at(17)).0, Err(Error::Interrupted { .. })));
    assert_eq!(train(&cut, &data, &mut none).1, straight, "17 + 3 steps are not 20");

    // An average that is asked for later, while it has not begun.
    let late = averaging("late", 20, 0.0);
    assert!(matches!(train(&late, &data, &mut stop_at(15)).0, Err(Error::Interrupted { .. })));
    assert_eq!(train(&averaging("late", 20, 0.25), &data, &mut none).1, straight);

    // A run of 10 steps averages after 5; made longer, it goes on from there.
    train(&averaging("longer", 10, 0.5), &data, &mut none).0.unwrap();
    assert_eq!(train(&averaging("longer", 20, 0.25), &data, &mut none).1, straight);

    // An average that has begun is never mixed with another.
    let other = train(&averaging("whole", 20, 0.1), &data, &mut none);
    assert_eq!(other.0.unwrap().evaluations.iter().map(|row| row.averaged).max(), Some(2));
    std::fs::remove_file(cut.stable_file()).unwrap();
    let fault = train(&averaging("cut", 20, 0.1), &data, &mut none).0.unwrap_err().to_string();
    assert!(fault.contains("the last 0.25 of them averaged") && fault.contains("the last 0.1 of"), "{fault}");
}

#[test]
fn the_best_evaluation_may_be_that_of_an_average() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let data = windows(folder.path());
    let mut job = new_job(&folder.path().join("run"), 20);
    (job.keep, job.eval_every, job.optimizer.average_last) = (Keep::Best, 2, 0.5);
    let mut best_at_16 = |step: usize| {
        let pass_rate = if step == 16 { 0.5 } else { 0.25 };
        Ok(Some(GeneratedCheck { samples: 4, pass_rate, syntax_valid_rate: 1.0, collapse_rate: 0.0, mean_tokens: 9.0 }))
    };
    let (model, parameters) = fresh();
    let fixed = FixedSets { validation: data.step(1002).unwrap(), ..FixedSets::default() };
    let record = fit(&model, &parameters, &job, &data, &fixed, &mut best_at_16).unwrap();
    let kept = record.kept_evaluation().unwrap();
    assert_eq!((record.kept_step, kept.averaged), (16, 6));
    assert_eq!(mean_loss(&model, &fixed.validation).unwrap(), kept.validation_loss, "another model was kept");
}

#[test]
fn numbers_that_are_read_late_are_the_same_numbers() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let data = windows(folder.path());
    let run = |read_every: usize, stop_after: Option<usize>| {
        let mut job = new_job(&folder.path().join(format!("{read_every} {stop_after:?}")), 17);
        (job.eval_every, job.read_every) = (6, read_every);
        if let Some(stop_after) = stop_after {
            let mut stop = move |step: usize| {
                if step == stop_after {
                    request_stop();
                }
                Ok(None)
            };
            let (stopped, _) = train(&job, &data, &mut stop);
            assert!(matches!(stopped, Err(Error::Interrupted { .. })), "{stopped:?}");
        }
        let (record, digest) = train(&job, &data, &mut none);
        let rows = record.unwrap().steps.into_iter().map(|row| StepRecord { tokens_per_second: 0.0, ..row });
        let rows: Vec<StepRecord> = rows.collect();
        let written = std::fs::read_to_string(job.folder.join("metrics.jsonl")).unwrap();
        assert_eq!(written.lines().count(), 17);
        (rows, digest)
    };
    let at_once = run(1, None);
    assert_eq!(at_once.0.iter().map(|row| row.step).collect::<Vec<_>>(), (1..=17).collect::<Vec<_>>());
    assert_eq!(at_once, run(4, None), "four together, and what an evaluation cuts off");
    assert_eq!(at_once, run(100, None), "as late as possible");
    assert_eq!(at_once, run(100, Some(6)), "stopped and resumed");
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_with_a_good_checkpoint() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let data = windows(folder.path());
    let folder_of = folder.path();
    let mut job = new_job(&folder_of.join("run"), 20);
    job.optimizer.lr = f64::INFINITY;
    let (result, _) = train(&job, &data, &mut none);
    let good = |result: codelora::Result<TrainingRecord>, expected: usize| {
        let Err(Error::Diverged { step, checkpoint, .. }) = result else { panic!("{result:?}") };
        assert_eq!(step, expected);
        for (name, tensor) in checkpoint::read_safetensors(&checkpoint, &Device::Cpu).unwrap() {
            let sum = tensor.sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(sum.is_finite(), "{name} of the last good checkpoint");
        }
    };
    good(result, 2);
    // Numbers that are read late name the same step.
    (job.folder, job.eval_every, job.read_every) = (folder_of.join("late"), 20, 20);
    good(train(&job, &data, &mut none).0, 2);
    // An evaluation right after the fatal step must neither save it nor ask the model to write.
    job.eval_every = 1;
    for (folder, measured) in [("evaluated", true), ("saved", false)] {
        job.folder = folder_of.join(folder);
        let fixed = if measured { data.step(1).unwrap() } else { Vec::new() };
        let fixed = FixedSets { validation: fixed, ..FixedSets::default() };
        let mut check = |step: usize| {
            assert!(step == 0 || !measured, "a model that is no model was asked to write");
            Ok(None)
        };
        let (model, parameters) = fresh();
        good(fit(&model, &parameters, &job, &data, &fixed, &mut check), 1);
    }
}

/// Samples that count upwards from the prompt's last token.
fn samples(count: u32) -> Vec<Encoded> {
    (0..count)
        .map(|i| {
            let (start, length) = (2 + i % 20, 6 + i % 9);
            Encoded { tokens: (start..start + length).chain([0]).collect(), prompt: 3 }
        })
        .collect()
}

#[test]
fn real_samples_in_the_plans_batches_are_mostly_real_tokens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tokenizer = Tokenizer::load(&root.join("data/base/small/tokenizer.json")).unwrap();
    let tasks = codelora::data::exercises::generate(5, 550, &[]).unwrap();
    let sample = |(i, task): (usize, Task)| Sample { id: i.to_string(), prompt: task.prompt, solution: task.solution };
    let samples: Vec<Sample> = tasks.into_iter().enumerate().map(sample).collect();
    for batch_size in [8, 16] {
        let encoded = encode(&samples, &tokenizer, 256).unwrap();
        let data = SampleBatches::new(encoded, batch_size, 1, tokenizer.pad(), 5).unwrap();
        let steps = 1..=data.steps_per_epoch();
        let batches: Vec<_> = steps.flat_map(|step| data.step(step).unwrap()).collect();
        let real: usize = batches.iter().map(|batch| batch.real).sum();
        let computed: usize = batches.iter().map(|batch| batch.rows * batch.seq).sum();
        let padding = 1.0 - real as f64 / computed as f64;
        println!("batches of {batch_size}: {:.1} % padding", 100.0 * padding);
        assert!(padding < 0.10, "{padding:.3} of the computed tokens are padding");
    }
}

#[test]
fn accumulation_changes_memory_and_not_the_result() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let run = |accumulation: usize| {
        let data = SampleBatches::new(samples(64), 12, accumulation, 1, 5).unwrap();
        let (model, parameters) = fresh();
        let mut job = new_job(&folder.path().join(accumulation.to_string()), 6);
        job.seed = 6;
        // Dropout masks depend on the shape of a micro-batch, so this model goes without.
        let mut plain = arch();
        (plain.attention_dropout, plain.residual_dropout) = (0.0, 0.0);
        let model = Transformer::from_weights(&plain, &model.weights()).unwrap();
        let record = fit(&model, &parameters, &job, &data, &FixedSets::default(), &mut none).unwrap();
        record.steps.iter().map(|s| (s.loss, s.grad_norm)).collect::<Vec<_>>()
    };
    for (one, three) in run(1).iter().zip(run(3)) {
        assert!((one.0 - three.0).abs() < 1e-4 && (one.1 - three.1).abs() < 1e-3, "{one:?} {three:?}");
    }
}

#[test]
fn the_best_evaluation_is_kept_and_patience_ends_the_run() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let data = windows(folder.path());
    let mut job = new_job(&folder.path().join("run"), 60);
    (job.keep, job.patience) = (Keep::Best, 2);
    // The generated code is best at step 10 and never again.
    let check = |collapsed: bool| {
        move |step: usize| {
            let (pass_rate, collapse_rate) =
                if step == 10 { (0.5, 0.0) } else { (0.25, f64::from(u8::from(collapsed))) };
            Ok(Some(GeneratedCheck { samples: 4, pass_rate, syntax_valid_rate: 1.0, collapse_rate, mean_tokens: 9.0 }))
        }
    };
    let (record, weights) = train(&job, &data, &mut check(false));
    let record = record.unwrap();
    assert_eq!((record.kept_step, record.stop.clone()), (10, StopReason::Patience(2)));
    assert_eq!(record.kept_evaluation().unwrap().generated.as_ref().unwrap().pass_rate, 0.5);
    let mut ten = new_job(&folder.path().join("ten"), 60);
    ten.minutes = Some(0.0);
    let mut last = String::new();
    for _ in 0..10 {
        last = train(&ten, &data, &mut none).1;
    }
    assert_eq!(weights, last, "what is left behind is not step 10");

    job.folder = folder.path().join("alarm");
    job.collapse_alarm = 0.5;
    let (record, _) = train(&job, &data, &mut check(true));
    assert_eq!(record.unwrap().stop, StopReason::Collapsed(1.0));
}

#[test]
fn training_an_adapter_leaves_every_bit_of_the_base() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let (mut model, _) = fresh();
    let before = checkpoint::digest(&model.weights()).unwrap();
    let config = adapter_config("all-linear", 0.1, 1.0);
    let adapter = lora::attach(&mut model, &config, &mut seed::rng(5, "adapter")).unwrap();
    let data = SampleBatches::new(samples(64), 16, 1, 1, 5).unwrap();
    let mut job = new_job(folder.path(), 20);
    job.optimizer.lr = 1e-2;
    let record = fit(&model, &adapter.parameters(), &job, &data, &FixedSets::default(), &mut none).unwrap();
    assert!(record.steps[19].loss < record.steps[0].loss - 0.1, "the adapter learned nothing");
    assert_eq!(checkpoint::digest(&model.weights()).unwrap(), before);
    let moved = adapter
        .parameters()
        .iter()
        .filter(|(name, _)| name.contains("lora_B"))
        .all(|(_, b)| b.as_tensor().abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
    assert!(moved, "a B stayed zero");
}

#[test]
fn the_small_bases_experiment_says_how_it_is_trained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let exp = Experiment::open(root.join("data/experiments/base-small.toml")).unwrap();
    let pretrain = exp.config.base.pretrain.as_ref().unwrap();
    let arch = ArchConfig::load(&exp.path(&pretrain.arch)).unwrap();
    assert_eq!((arch.vocab_size, arch.max_seq_length), (pretrain.vocabulary, pretrain.context));
    assert!(pretrain.raw_share + pretrain.pair_share < 1.0);
    let text = std::fs::read_to_string(&exp.file).unwrap().replace("raw_share", "row_share");
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("typo.toml");
    std::fs::write(&path, text).unwrap();
    let fault = Experiment::open(&path).unwrap_err().to_string();
    assert!(fault.contains("raw_share") || fault.contains("row_share"), "{fault}");
}

#[test]
fn bf16_products_leave_master_weights_in_f32() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let data = windows(folder.path());
    let mut job = new_job(&folder.path().join("bf16"), 12);
    job.optimizer.lr = 1e-3;
    let (model, parameters) = fresh();
    let model = model.computing_in(DType::BF16);
    let record = fit(&model, &parameters, &job, &data, &FixedSets::default(), &mut none).unwrap();
    job.folder = folder.path().join("f32");
    let exact = train(&job, &data, &mut none).0.unwrap();
    for (half, full) in record.steps.iter().zip(&exact.steps) {
        // The same dropout masks, so only the rounding of products differs: eight bits of mantissa.
        assert!((half.loss - full.loss).abs() < 0.02 * full.loss, "{half:?} {full:?}");
    }
    assert!(record.steps.iter().zip(&exact.steps).any(|(half, full)| half.loss != full.loss), "nothing was in bf16");
    assert!(record.steps[11].loss < record.steps[0].loss);
    assert!(parameters.values().all(|v| v.dtype() == DType::F32));
}

#[test]
fn an_adapter_learns_beside_bf16_products_and_stays_in_f32() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let data = windows(folder.path());
    for dora in [false, true] {
        let run = |device: &Device, floats: DType| {
            let place =
                |(key, var): (&String, &Var)| (key.clone(), var.as_detached_tensor().to_device(device).unwrap());
            let frozen = fresh().1.iter().map(place).collect();
            let mut model = Transformer::from_weights(&arch(), &frozen).unwrap().computing_in(floats);
            let plan = serde_json::json!({ "rank": 8, "alpha": 16.0, "dropout": 0.05, "targets": ["all-linear"], "dora": dora });
            let plan: LoraConfig = serde_json::from_value(plan).unwrap();
            let adapter = lora::attach(&mut model, &plan, &mut seed::rng(5, "adapter")).unwrap();
            let mut job = new_job(&folder.path().join(format!("{dora} {floats:?} {}", device.is_cpu())), 30);
            job.optimizer.lr = 1e-2;
            let record = fit(&model, &adapter.parameters(), &job, &data, &FixedSets::default(), &mut none).unwrap();
            assert!(adapter.parameters().values().all(|var| var.dtype() == DType::F32));
            record.steps.iter().map(|step| step.loss).collect::<Vec<f64>>()
        };
        let full = run(&Device::Cpu, DType::F32);
        let near = |other: &[f64], share: f64| other.iter().zip(&full).all(|(a, b)| (a - b).abs() < share * b);
        let half = run(&Device::Cpu, DType::BF16);
        assert!(near(&half, 0.02) && half != full && half[29] < half[0], "{half:?} {full:?}");
        let Ok((card, _)) = device::open(Compute::Cuda) else {
            eprintln!("skipped on a card: there is none, or no support for it in this build");
            continue;
        };
        for (floats, share) in [(DType::F32, 1e-3), (DType::BF16, 0.02)] {
            let there = run(&card, floats);
            assert!(near(&there, share), "{floats:?}: {there:?} {full:?}");
        }
    }
}

#[test]
fn the_full_size_base_takes_its_first_twenty_steps_and_resumes() {
    let _turn = turn();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let exp = Experiment::open(root.join("data/experiments/base-29m.toml")).unwrap();
    let pretrain = exp.config.base.pretrain.as_ref().unwrap();
    let arch = ArchConfig::load(&exp.path(&pretrain.arch)).unwrap();
    assert_eq!((arch.vocab_size, arch.max_seq_length), (pretrain.vocabulary, pretrain.context));
    assert!(exp.path(pretrain.recipe.as_ref().unwrap()).is_file());
    assert!(pretrain.optimizer.steps * pretrain.batch_size * pretrain.context >= 200_000_000);
    let parameters = init(&arch, &mut seed::rng(5, "weights"), &Device::Cpu).unwrap();
    let weights: BTreeMap<String, Tensor> =
        parameters.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    assert_eq!(parameters.values().map(|v| v.elem_count()).sum::<usize>(), 29_180_928, "the earlier attempt's size");
    let model = Transformer::from_weights(&arch, &weights).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let documents = (0..40u32).map(|i| Ok((0..9).map(|t| (i * 9 + t * 7) % 8000).collect()));
    let stream = TokenStream::write(&folder.path().join("stream"), documents).unwrap();
    let part = Part { stream, weight: 1.0, cut: Cut::Anywhere };
    let data = WindowBatches::new(vec![part], 4, 12, 5, "test").unwrap().accumulated(4).unwrap();
    let mut job = new_job(&folder.path().join("run"), 20);
    job.optimizer = OptimizerConfig { steps: 20, warmup_steps: 10, ..pretrain.optimizer.clone() };
    job.eval_every = 10;
    let known = || data.first(1).unwrap();
    let fixed = FixedSets { train: known(), validation: known(), ..FixedSets::default() };
    let mut stop_at_10 = |step| {
        if step == 10 {
            request_stop();
        }
        Ok(None)
    };
    let stopped = fit(&model, &parameters, &job, &data, &fixed, &mut stop_at_10);
    assert!(matches!(stopped, Err(Error::Interrupted { .. })), "{stopped:?}");
    // The resumed process has other weights until it reads the state.
    for variable in parameters.values() {
        variable.set(&variable.as_tensor().zeros_like().unwrap()).unwrap();
    }
    let record = fit(&model, &parameters, &job, &data, &fixed, &mut none).unwrap();
    assert_eq!((record.steps.len(), record.tokens_seen), (20, 20 * 4 * 12));
    // ln 8000 = 8.99: an untrained model knows nothing; what it has seen 20 times over it begins to know.
    assert!((record.steps[0].loss - 8.99).abs() < 0.3, "{record:?}");
    assert!(record.steps[10].loss < record.steps[0].loss, "what was learned was lost on the way");
    assert!(record.evaluations[2].validation_loss < record.evaluations[0].validation_loss - 1.0, "{record:?}");
}

/// One step of an adapter on every linear layer and on the head, and its parameters after it.
fn one_step(lr_ratio: f64) -> BTreeMap<String, Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, _) = fresh();
    let config = adapter_config("all-linear", 0.0, lr_ratio);
    let parameters = lora::attach(&mut model, &config, &mut seed::rng(5, "adapter")).unwrap().parameters();
    disturb(&parameters, 0.05);
    let data = SampleBatches::new(samples(16), 16, 1, 1, 5).unwrap();
    let mut job = new_job(folder.path(), 1);
    (job.lr_ratio, job.optimizer.weight_decay, job.optimizer.warmup_steps) = (lr_ratio, 0.0, 0);
    let before: BTreeMap<String, Tensor> =
        parameters.iter().map(|(k, v)| (k.clone(), v.as_tensor().copy().unwrap())).collect();
    fit(&model, &parameters, &job, &data, &FixedSets::default(), &mut none).unwrap();
    let moved = |(name, after): (&String, &Var)| {
        let step = (after.as_tensor() - &before[name]).unwrap().flatten_all().unwrap();
        (name.clone(), step.to_vec1::<f32>().unwrap())
    };
    parameters.iter().map(moved).collect()
}

#[test]
fn the_learning_rate_ratio_of_lora_plus_is_that_of_b_alone() {
    let _turn = turn();
    let (plain, plus) = (one_step(1.0), one_step(16.0));
    for (name, step) in &plain {
        let factor = if name.contains("lora_B") { 16.0 } else { 1.0 };
        for (a, b) in step.iter().zip(&plus[name]) {
            assert!((a * factor - b).abs() <= 1e-3 * (a * factor).abs() + 1e-7, "{name}: {a} and {b}");
        }
        assert!(step.iter().any(|step| *step != 0.0), "{name} did not move");
    }
}

#[test]
fn a_loss_of_supervised_positions_is_that_of_all_logits_picked_by_hand() {
    let (model, _) = fresh();
    let data = SampleBatches::new(samples(9), 9, 1, 1, 5).unwrap();
    let batch = &data.step(1).unwrap()[0];
    assert!(batch.real < batch.rows * batch.seq && batch.supervised.len() < batch.real);
    let loss = mean_loss(&model, std::slice::from_ref(batch)).unwrap();
    let ids = Tensor::from_slice(&batch.ids, (batch.rows, batch.seq), &Device::Cpu).unwrap();
    let logits: Vec<Vec<f32>> = model.forward(&ids).unwrap().flatten(0, 1).unwrap().to_vec2().unwrap();
    let nats = batch.supervised.iter().zip(&batch.targets).map(|(&position, &target)| {
        let row: Vec<f64> = logits[position as usize].iter().map(|&logit| f64::from(logit)).collect();
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        top + row.iter().map(|logit| (logit - top).exp()).sum::<f64>().ln() - row[target as usize]
    });
    let expected = nats.sum::<f64>() / batch.targets.len() as f64;
    assert!((loss - expected).abs() < 1e-5, "{loss} and {expected}");
}

#[test]
fn an_adapter_of_the_head_drops_in_training_alone() {
    let mut config = arch();
    (config.tie_word_embeddings, config.attention_dropout, config.residual_dropout) = (false, 0.0, 0.0);
    let parameters = init(&config, &mut seed::rng(5, "weights"), &Device::Cpu).unwrap();
    let weights = parameters.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    let mut model = Transformer::from_weights(&config, &weights).unwrap();
    let of_head = adapter_config("lm_head", 0.5, 1.0);
    let adapter = lora::attach(&mut model, &of_head, &mut seed::rng(5, "adapter")).unwrap();
    disturb(&adapter.parameters(), 1.0);
    let batch = &SampleBatches::new(samples(9), 9, 1, 1, 5).unwrap().step(1).unwrap()[0];
    let loss = |dropout: &mut Dropout| batch_loss(&model, batch, dropout, 0.0).unwrap().to_scalar::<f32>().unwrap();
    let (off, again) = (loss(&mut Dropout::off()), loss(&mut Dropout::off()));
    assert_eq!(off.to_bits(), again.to_bits());
    let on = loss(&mut Dropout::new(seed::rng(5, "masks")));
    assert!((on - off).abs() > 1e-3, "{on} and {off}");
}
