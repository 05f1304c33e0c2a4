//! The card beside the weights: what the base is, what it was trained on, how well it does.

use super::PretrainRecord;
use crate::model::config::ArchConfig;

/// The model card.
pub(super) fn card(arch: &ArchConfig, record: &PretrainRecord) -> String {
    let training = &record.training;
    let real_code = match record.origins.len() {
        0 => "Python's own standard library".to_string(),
        count => format!("real code of {count} origins"),
    };
    let averaged = match training.kept_evaluation().map_or(0, |row| row.averaged) {
        0 => String::new(),
        steps => format!("; the weights are the mean of the last {steps} steps"),
    };
    let mut text = format!(
        "# {}\n\nA causal Python model of {:.2}M parameters, trained from scratch by this project on generated exercises and \
         {real_code}. It is small and knows little; it exists so that the whole experiment can be run and understood from \
         the first token.\n\n\
         | | |\n|---|---|\n\
         | shape | {} layers × {} hidden × {} heads, vocabulary {}, context {} |\n\
         | tokens seen | {:.2}M in {} steps of {} × {} |\n\
         | optimizer | {:?}, peak learning rate {}, {} warm-up steps, {:?}, weight decay {}, clip {}{} |\n\
         | time | {:.0} minutes on {} |\n\
         | seed | {} |\n\n## Corpus\n\n| source | documents | tokens | held-out nats/token | held-out bits/byte |\n|---|---|---|---|---|\n",
        training.name,
        record.parameters as f64 / 1e6,
        arch.num_layers,
        arch.hidden_dim,
        arch.num_heads,
        record.vocabulary,
        arch.max_seq_length,
        training.tokens_seen as f64 / 1e6,
        training.kept_step,
        record.config.batch_size,
        record.config.context,
        record.config.optimizer.rule,
        record.config.optimizer.lr,
        record.config.optimizer.warmup_steps,
        record.config.optimizer.schedule,
        record.config.optimizer.weight_decay,
        record.config.optimizer.clip,
        averaged,
        training.seconds / 60.0,
        record.hardware,
        record.seed,
    );
    if let Some(start) = &record.start {
        let before = start.tokens_seen as f64 / 1e6;
        let whole = record.tokens_seen() as f64 / 1e6;
        let row = format!(
            "| went on from | `{}`, which had seen {before:.2}M tokens: {whole:.2}M in all; weights {} |\n| seed |",
            start.name,
            &start.digest[..12]
        );
        text = text.replacen("| seed |", &row, 1);
    }
    for source in &record.corpus {
        let loss = record.held_out.iter().find(|loss| loss.source == source.source);
        let (nats, bits) = loss.map_or((f64::NAN, f64::NAN), |l| (l.nats_per_token, l.bits_per_byte));
        text += &format!("| {} | {} | {} | {nats:.3} | {bits:.3} |\n", source.source, source.documents, source.tokens);
    }
    text += "\nMixture by tokens: ";
    let exercises = 1.0 - record.config.raw_share - record.config.pair_share;
    text += &format!(
        "{:.0} % exercises, {:.0} % docstring pairs, {:.0} % raw code. No function of the benchmark's names is in it.\n",
        100.0 * exercises,
        100.0 * record.config.pair_share,
        100.0 * record.config.raw_share
    );
    if !record.origins.is_empty() {
        text += "\n| origin | licence | files | kept | bytes kept | pairs |\n|---|---|---|---|---|---|\n";
        for o in &record.origins {
            text +=
                &format!("| {} | {} | {} | {} | {} | {} |\n", o.origin, o.licence, o.files, o.kept, o.bytes, o.pairs);
        }
    }
    let held_out = training.kept_evaluation().and_then(|row| row.generated.as_ref());
    if let Some(check) = held_out {
        text += &format!(
            "\nGreedily and without an adapter it solves {:.0} % of {} simple tasks outside the benchmark.\n",
            100.0 * check.pass_rate,
            check.samples
        );
    }
    text += &format!(
        "\nMade by `codelora base train --experiment data/experiments/{}.toml`. Weights: MIT OR Apache-2.0; the standard \
         library is under the PSF licence.\n",
        training.name
    );
    text
}
