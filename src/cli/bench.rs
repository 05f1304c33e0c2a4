//! `codelora bench`: its arguments, and what they ask for.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use codelora::Experiment;
use codelora::bench::tasks::v1_protocol;
use codelora::phases::{evaluation, judging};

use super::arguments::{Common, from_here, set};
use super::show;

/// Arguments of `bench`.
#[derive(Args, Clone)]
pub struct BenchArgs {
    #[command(flatten)]
    pub common: Common,
    /// Adapter folder to measure instead of the run's own.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// Task file: our tasks, HumanEval's rows or MBPP's.
    #[arg(long, value_name = "FILE")]
    pub benchmark: Option<PathBuf>,
    /// `v1` samples as the earlier benchmark did: two worked functions, temperature 0.8, top-k 40, one sample, 100 tokens.
    #[arg(long, value_enum)]
    pub protocol: Option<ProtocolName>,
    /// Samples per task.
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Sampling temperature; 0 is greedy, with one sample. Several, separated by commas, are measured one after the other
    /// and shown side by side.
    #[arg(long, value_name = "T", value_delimiter = ',')]
    pub temperature: Vec<f64>,
    /// Keep the k most likely tokens; 0 keeps all.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Keep the smallest set of tokens with this probability mass; 1 keeps all.
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,
    /// Keep tokens with at least this share of the likeliest token's probability; 0 keeps all.
    #[arg(long, value_name = "P")]
    pub min_p: Option<f64>,
    /// Divide the logits of tokens that occurred before; 1 changes nothing.
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f64>,
    /// Draw this many candidates for every sample and take the likeliest, by mean ln p per token; 1 chooses nothing.
    #[arg(long, value_name = "N")]
    pub best_of: Option<usize>,
    /// Round the matrices to eight bits before sampling.
    #[arg(long)]
    pub eight_bits: bool,
    /// Most tokens in a completion.
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// What stands before a task's prompt: `bare` or `few_shot`.
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Seconds a program may run.
    #[arg(long, value_name = "S")]
    pub time_limit: Option<f64>,
    /// Draws of the earlier protocol beside the declared one; 0 leaves it out.
    #[arg(long, value_name = "N")]
    pub v1_draws: Option<usize>,
    /// Where the attempts and the record go [default: the run; with another benchmark or other settings a folder of
    /// their own below it].
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Write report.html and report.md anew, and say where they lie.
    #[arg(long)]
    pub report: bool,
    /// Also write the attempts as samples for HumanEval's and EvalPlus' harnesses.
    #[arg(long)]
    pub write_samples: bool,
    /// Sample no model: judge the completions of this file, in HumanEval's or EvalPlus' format.
    #[arg(long, value_name = "FILE")]
    pub judge: Option<PathBuf>,
}

/// How completions are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProtocolName {
    /// As the experiment file declares.
    Declared,
    /// As the earlier benchmark did.
    V1,
}

/// Measures both checkpoints at every temperature, or judges samples made elsewhere.
pub fn run(args: &BenchArgs, experiment: &Experiment) -> Result<()> {
    if let Some(samples) = &args.judge {
        return show::judged(&judging::run(&args.apply(experiment.clone())?, samples)?);
    }
    let mut measured = Vec::new();
    for args in args.each() {
        let experiment = args.apply(experiment.clone())?;
        let evaluation = evaluation::run(&experiment)?;
        show::evaluation(&evaluation)?;
        let mut files = Vec::new();
        if args.report {
            files.extend(evaluation::write_report(&experiment, &evaluation)?);
        }
        if args.write_samples {
            files.extend(evaluation::write_samples(&experiment, &evaluation)?);
        }
        println!("attempts and records: {}", experiment.path(&experiment.config.paths.run).display());
        files.iter().for_each(|file| println!("written: {}", file.display()));
        measured.push(evaluation.record);
    }
    if measured.len() > 1 {
        show::temperatures(&measured);
    }
    Ok(())
}

impl BenchArgs {
    /// The arguments of each temperature alone. The earlier protocol has a temperature of its own: it is drawn once.
    fn each(&self) -> Vec<Self> {
        let alone = |(index, &temperature): (usize, &f64)| {
            let mut alone = Self { temperature: vec![temperature], ..self.clone() };
            alone.samples = if temperature == 0.0 { Some(1) } else { self.samples };
            alone.v1_draws = if index == 0 { self.v1_draws } else { Some(0) };
            alone.output = self.output.as_ref().map(|folder| folder.join(format!("temperature{temperature}")));
            alone
        };
        match self.temperature.len() {
            0 | 1 => vec![self.clone()],
            _ => self.temperature.iter().enumerate().map(alone).collect(),
        }
    }

    /// The experiment with the arguments in place of what its file says.
    fn apply(&self, mut experiment: Experiment) -> Result<Experiment> {
        let folder = match &self.output {
            Some(folder) => Some(from_here(&experiment, folder)?),
            None => self.variant().map(|name| experiment.config.paths.run.join("bench").join(name)),
        };
        let named = self.checkpoint.as_ref().map(|folder| from_here(&experiment, folder)).transpose()?;
        let benchmark = self.benchmark.as_ref().map(|file| from_here(&experiment, file)).transpose()?;
        let config = &mut experiment.config;
        if self.protocol == Some(ProtocolName::V1) {
            config.bench = v1_protocol(&config.bench, 1);
        }
        let bench = &mut config.bench;
        set(&mut bench.benchmark, benchmark);
        set(&mut bench.samples, self.samples);
        set(&mut bench.temperature, self.temperature.first().copied());
        set(&mut bench.top_k, self.top_k);
        set(&mut bench.top_p, self.top_p);
        set(&mut bench.min_p, self.min_p);
        set(&mut bench.repetition_penalty, self.repetition_penalty);
        set(&mut bench.best_of, self.best_of);
        bench.eight_bits |= self.eight_bits;
        set(&mut bench.max_new_tokens, self.max_new_tokens);
        set(&mut bench.template, self.template.clone());
        set(&mut bench.time_limit_s, self.time_limit);
        set(&mut bench.v1_draws, self.v1_draws);
        bench.adapter = named.or(bench.adapter.take());
        if let Some(folder) = folder {
            // Attempts and records go there; what is measured stays the run's adapter unless another is named.
            bench.adapter.get_or_insert(config.paths.run.join("adapter"));
            config.paths.run = folder.clone();
            config.paths.figures = folder.join("figures");
        }
        Ok(experiment)
    }

    /// A name for what differs from the experiment file, e.g. `other40-samples5`; none when nothing does.
    fn variant(&self) -> Option<String> {
        let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let word = |name: &str, value: Option<String>| value.map(|value| format!("{name}{value}"));
        let number = |value: Option<usize>| value.map(|value| value.to_string());
        let share = |value: Option<f64>| value.map(|value| value.to_string());
        let parts = [
            self.judge.as_ref().map(|file| format!("judged-{}", stem(file))),
            self.benchmark.as_ref().map(stem),
            self.checkpoint.as_ref().map(stem),
            self.protocol.filter(|name| *name == ProtocolName::V1).map(|_| "v1".into()),
            word("samples", number(self.samples)),
            word("temperature", share(self.temperature.first().copied())),
            word("top-k", number(self.top_k)),
            word("top-p", share(self.top_p)),
            word("min-p", share(self.min_p)),
            word("penalty", share(self.repetition_penalty)),
            word("best-of", number(self.best_of)),
            self.eight_bits.then(|| "eight-bits".into()),
            word("tokens", number(self.max_new_tokens)),
            self.template.clone(),
            word("limit", share(self.time_limit)),
            word("draws", number(self.v1_draws)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("-"))
    }
}
