//! The text of a base: gathered, cleaned, tokenised, counted.

use std::path::Path;

use serde_json::json;

use crate::artifact;
use crate::data::corpus::contamination::Contamination;
use crate::data::corpus::gather::{Origin, OriginStatistics, Rules};
use crate::data::corpus::library::{self, SKIPPED_MODULES};
use crate::data::corpus::recipe::Recipe;
use crate::data::corpus::{Corpus, Texts};
use crate::data::{embedded, exercises};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, PretrainConfig};
use crate::seed::sha256;
use crate::tokenizer::Tokenizer;

/// A vocabulary and a corpus in its tokens.
#[derive(Debug)]
pub struct Prepared {
    /// The vocabulary.
    pub tokenizer: Tokenizer,
    /// The token streams.
    pub corpus: Corpus,
    /// Where real code comes from; empty when that is the standard library alone.
    pub origins: Vec<OriginStatistics>,
}

/// The vocabulary and the corpus of an experiment's `[base.pretrain]`, made at the first call and opened at later ones. They
/// lie in the run's folder: `tokenizer.json`, `corpus/`.
///
/// # Errors
/// [`Error::Invalid`] when the experiment has no such section, or the public benchmarks are wanted and missing;
/// [`Error::Mismatch`] when the corpus there was made with other settings; those of gathering and of the tokenizer.
pub fn run(exp: &Experiment) -> Result<Prepared> {
    let config = settings(exp)?;
    let folder = exp.run_file("corpus");
    let vocabulary = exp.run_file("tokenizer.json");
    let made_with = folder.join("made-with.json");
    let digest = digest(exp)?;
    if vocabulary.is_file() && Corpus::exists(&folder) && !exp.force {
        let found = if made_with.is_file() { artifact::read_json(&made_with)? } else { "no stamp".to_string() };
        if found != digest {
            return Err(Error::Mismatch {
                what: format!("settings behind the corpus in {}", folder.display()),
                expected: digest,
                found,
                remedy: "use --force to build it anew, or another run folder".into(),
            });
        }
        let (corpus, origins) = (Corpus::open(&folder)?, Corpus::origins(&folder)?);
        return Ok(Prepared { tokenizer: Tokenizer::load(&vocabulary)?, corpus, origins });
    }
    let texts = texts(exp, config, &folder)?;
    // Without its stamp a corpus that is half made anew is never taken for a whole one.
    artifact::remove(&made_with)?;
    let tokenizer = match config.vocabulary {
        _ if let Some(start) = &config.start => Tokenizer::load(&exp.path(start).join("tokenizer.json"))?,
        0 => Tokenizer::load(&exp.tokenizer_file())?,
        size => {
            println!("training a vocabulary of {size} tokens");
            Tokenizer::train(texts.sample()?, size)?
        }
    };
    tokenizer.save(&vocabulary)?;
    println!("tokenising");
    let corpus = Corpus::build(&folder, &tokenizer, &texts)?;
    artifact::write_json(&made_with, &digest)?;
    for source in corpus.statistics() {
        println!("  {:<10} {:>7} documents  {:>9} tokens", source.source, source.documents, source.tokens);
    }
    Ok(Prepared { tokenizer, corpus, origins: texts.origins })
}

/// The experiment's `[base.pretrain]`.
///
/// # Errors
/// [`Error::Invalid`] when there is none.
pub(crate) fn settings(exp: &Experiment) -> Result<&PretrainConfig> {
    exp.config.base.pretrain.as_ref().ok_or_else(|| {
        Error::invalid(
            format!("{} does not say how a base is trained", exp.file.display()),
            "add [base.pretrain]; data/experiments/base-small.toml is an example",
        )
    })
}

/// SHA-256 over what an experiment's corpus depends on; it lies beside the corpus as `made-with.json`.
///
/// # Errors
/// [`Error::Invalid`] when the experiment has no `[base.pretrain]`; [`Error::Io`] for a recipe that cannot be read.
pub fn digest(exp: &Experiment) -> Result<String> {
    let config = settings(exp)?;
    let recipe = config.recipe.as_ref().map(|file| {
        let file = exp.path(file);
        std::fs::read_to_string(&file).map_err(Error::io("read", file))
    });
    let exercises = json!([exercises::digest(), exp.config.seed, config.exercises, config.exercise_files]);
    let parts =
        json!([exercises, config.start, config.vocabulary, recipe.transpose()?, config.folders, config.keep_tests]);
    Ok(sha256(parts.to_string()))
}

/// Exercises and real code.
fn texts(exp: &Experiment, config: &PretrainConfig, folder: &Path) -> Result<Texts> {
    let exercises = exercises::generate(exp.config.seed, config.exercises, &config.exercise_files)?;
    if config.recipe.is_none() && config.folders.is_empty() {
        println!("collecting {} exercises and the standard library", exercises.len());
        return Texts::collect(&exercises, &benchmark()?);
    }
    let mut origins = vec![Origin {
        name: "standard library".into(),
        licence: "PSF-2.0".into(),
        folder: library::folder()?,
        skip: SKIPPED_MODULES.map(str::to_string).to_vec(),
    }];
    if let Some(recipe) = &config.recipe {
        let recipe = Recipe::load(&exp.path(recipe))?;
        origins.extend(recipe.fetch(&exp.external.join("packages"))?);
    }
    origins.extend(config.folders.iter().map(|folder| Origin {
        name: folder.display().to_string(),
        licence: String::new(),
        folder: exp.path(folder),
        skip: Vec::new(),
    }));
    let rules = Rules { skip_tests: !config.keep_tests, contamination: benchmarks(exp)? };
    Texts::gather(&exercises, &origins, &rules, folder)
}

/// HumanEval, MBPP's test rows, and our own benchmark.
fn benchmarks(exp: &Experiment) -> Result<Contamination> {
    if !exp.has_external() {
        return Err(Error::invalid(
            format!("HumanEval and MBPP, which the corpus must not hold, are not in {}", exp.external.display()),
            "run `codelora data --fetch`, or name their folder with --external DIR",
        ));
    }
    let mut contamination = benchmark()?;
    contamination.add_public(&exp.external)?;
    Ok(contamination)
}

/// Our own benchmark.
fn benchmark() -> Result<Contamination> {
    let mut contamination = Contamination::default();
    contamination.add_tasks(&embedded::benchmark20()?);
    Ok(contamination)
}
