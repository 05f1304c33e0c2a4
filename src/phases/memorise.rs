//! Can the adapter alone learn one batch by heart, and does the base stay as it was while it does?
//!
//! An adapter that cannot learn four samples will not learn five hundred; a base that moves is not frozen.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifact;
use crate::data::task::Sample;
use crate::error::Result;
use crate::experiment::{Experiment, Phase, Stepping};
use crate::figures;
use crate::figures::chart::Chart;
use crate::model::audit::Overfit;
use crate::model::checkpoint;
use crate::model::dropout::Dropout;
use crate::model::ops;
use crate::phases::{data_collection, lora};
use crate::seed::sha256;
use crate::train::adamw::Betas;
use crate::train::batch::{Encoded, encode, pad};
use crate::train::gradients::{Clip, Gradients};
use crate::train::loss::batch_loss;
use crate::train::optimizer::Optimizer;

/// Samples in the batch.
const SAMPLES: usize = 4;

/// Most steps; an adapter that can learn needs far fewer.
const STEPS: usize = 200;

/// Peak rates for a whole run are smaller; here one batch is all there is to fit.
const LEARNING_RATE: f64 = 2e-3;

/// One batch, learned by the adapter alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoriseRecord {
    /// Digest of the experiment's sections, the base and the samples.
    pub inputs: String,
    /// Samples in the batch.
    pub samples: usize,
    /// Supervised tokens in the batch.
    pub tokens: usize,
    /// Trainable parameters.
    pub trainable: usize,
    /// Loss before each step, in nats per supervised token.
    pub losses: Vec<f64>,
    /// Whether every weight of the base is what it was, to the bit.
    pub base_unchanged: bool,
    /// Wall time of the steps, in seconds.
    #[serde(default)]
    pub seconds: f64,
}

impl MemoriseRecord {
    /// Whether the last loss lies below [`Overfit::LEARNED`] and the base did not move.
    pub fn holds(&self) -> bool {
        self.base_unchanged && self.losses.last().is_some_and(|loss| *loss < Overfit::LEARNED)
    }

    /// The loss over steps.
    pub fn chart(&self) -> Chart {
        figures::lora::memorise(&self.losses, self.samples, Overfit::LEARNED)
    }
}

/// Trains a fresh adapter on the first training samples again and again until it knows them, and leaves
/// `records/memorise.json`; reopens what is there. The adapter is thrown away.
///
/// # Errors
/// Those of phases 1 and 2; [`Error::Invalid`](crate::Error::Invalid) when there is no sample; [`Error::Tensor`](crate::Error::Tensor).
pub fn run(exp: &Experiment) -> Result<MemoriseRecord> {
    let reuse = exp.clone().forced(false);
    let lora::Lora { model, adapter, tokenizer, base_digest, .. } = lora::run(&reuse)?;
    let data = data_collection::run(&reuse)?;
    let samples: Vec<Sample> = data.train.into_iter().take(SAMPLES).collect();
    let inputs = sha256(json!([exp.digest(Phase::Lora), base_digest, samples]).to_string());
    let record_file = exp.record_file("memorise");
    if record_file.is_file() && !exp.force {
        let record: MemoriseRecord = artifact::read_json(&record_file)?;
        // Seconds of work: when something changed, it is simply done again.
        if record.inputs == inputs {
            return Ok(record);
        }
    }
    let begun = Instant::now();
    let context = exp.config.data.max_tokens.min(model.config().max_seq_length);
    let encoded = encode(&samples, &tokenizer, context)?;
    let batch = pad(&encoded.iter().collect::<Vec<&Encoded>>(), tokenizer.pad());
    let parameters = adapter.parameters();
    let mut optimizer = Optimizer::new(Stepping::AdamW, &parameters, 0.0, Betas::default(), |_| 1.0)?;
    let mut losses = Vec::new();
    while losses.len() < STEPS && losses.last().is_none_or(|loss| *loss >= Overfit::LEARNED / 2.0) {
        let loss = batch_loss(&model, &batch, &mut Dropout::off(), 0.0)?;
        losses.push(f64::from(loss.to_scalar::<f32>()?));
        let found = ops::backward(&loss)?;
        let of = |name: &String, variable| Some((name.clone(), found.get(variable)?.clone()));
        let gradients: Gradients =
            parameters.iter().filter_map(|(name, variable)| of(name, variable.as_tensor())).collect();
        optimizer.step(&gradients, LEARNING_RATE, &Clip::new(&gradients, f64::INFINITY)?)?;
    }
    let record = MemoriseRecord {
        inputs,
        samples: samples.len(),
        tokens: batch.targets.len(),
        trainable: adapter.parameter_count(),
        losses,
        base_unchanged: checkpoint::digest(&model.weights())? == base_digest,
        seconds: begun.elapsed().as_secs_f64(),
    };
    artifact::write_json(&record_file, &record)?;
    Ok(record)
}
