//! Makes a base folder of weights from elsewhere: a PyTorch checkpoint, safetensors, or a Hugging Face Starcoder2 folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};

use crate::artifact;
use crate::error::{Error, Result};
use crate::model::audit::{self, Finding};
use crate::model::checkpoint;
use crate::model::config::ArchConfig;
use crate::model::huggingface;
use crate::model::transformer::Transformer;
use crate::phases::base_model::audited_code;
use crate::tokenizer::Tokenizer;

/// What to import, and where to.
#[derive(Debug, Clone)]
pub struct Import {
    /// `.pt`, `.safetensors`, or a Hugging Face folder.
    pub checkpoint: PathBuf,
    /// Architecture file; a Hugging Face folder brings its own.
    pub arch: Option<PathBuf>,
    /// Vocabulary; a Hugging Face folder brings its own.
    pub tokenizer: Option<PathBuf>,
    /// The base folder to write.
    pub output: PathBuf,
    /// Overwrite a base that lies there.
    pub force: bool,
}

/// What was imported.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The shape.
    pub arch: ArchConfig,
    /// Parameters, a tied head counted once.
    pub parameters: usize,
    /// SHA-256 of the weights.
    pub digest: String,
    /// What the causality and leak audits say.
    pub findings: Vec<Finding>,
}

/// Reads weights, architecture and vocabulary, holds them against each other, and writes a base folder in f32. Nothing is
/// written unless everything fits.
///
/// # Errors
/// [`Error::Mismatch`] with every fault at once: of the files, keys, shapes, values and vocabulary; [`Error::Invalid`] when
/// a base lies in the output folder and force is not asked for; [`Error::Io`].
pub fn run(import: &Import) -> Result<Imported> {
    let target = import.output.join("model.safetensors");
    if target.exists() && !import.force {
        return Err(Error::invalid(
            format!("a base lies in {}", import.output.display()),
            "choose another --output, or overwrite it with --force",
        ));
    }
    let mut faults = Vec::new();
    let arch = kept(arch(import), &mut faults);
    let tokenizer = kept(tokenizer(import), &mut faults);
    let weights = kept(weights(import), &mut faults);
    if let (Some(arch), Some(tokenizer)) = (&arch, &tokenizer)
        && tokenizer.vocabulary() > arch.vocab_size
    {
        let (tokens, rows) = (tokenizer.vocabulary(), arch.vocab_size);
        faults.push(format!("the vocabulary has {tokens} tokens, expected at most the {rows} rows of vocab_size"));
    }
    let weights = weights.map(|weights| match &arch {
        Some(arch) => weights.into_iter().filter(|(key, _)| !checkpoint::is_derived(key, arch)).collect(),
        None => weights,
    });
    if let Some(weights) = &weights {
        faults.extend(arch.iter().flat_map(|arch| checkpoint::faults(arch, weights)));
        faults.extend(not_numbers(weights)?);
    }
    let (Some(arch), Some(tokenizer), Some(weights), true) = (arch, tokenizer, weights, faults.is_empty()) else {
        return Err(Error::Mismatch {
            what: format!("what was found in {}", import.checkpoint.display()),
            expected: "weights, architecture and vocabulary that fit each other".into(),
            found: format!("{} faults:\n    {}", faults.len(), faults.join("\n    ")),
            remedy: "name the --arch-json and --tokenizer-path that belong to this checkpoint".into(),
        });
    };
    let model = Transformer::from_weights(&arch, &weights)?;
    let code = audited_code(&tokenizer, arch.max_seq_length)?;
    let findings =
        vec![audit::causality(&model, &code.narrow(0, 0, 1)?)?.finding(), audit::leak(&model, &code)?.finding()];
    let imported = Imported {
        parameters: weights.values().map(|weight| weight.elem_count()).sum(),
        digest: checkpoint::digest(&weights)?,
        findings,
        arch,
    };
    // The folder may have held a base that was trained here; how that came about is not this one's story.
    artifact::remove(&import.output.join("pretraining.json"))?;
    imported.arch.save(&import.output.join("arch.json"))?;
    tokenizer.save(&import.output.join("tokenizer.json"))?;
    let header = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    checkpoint::save_safetensors(&weights, &target, DType::F32, &header)?;
    let card = card(import, &imported);
    artifact::write_atomic(&import.output.join("README.md"), |writer| writer.write_all(card.as_bytes()))?;
    Ok(imported)
}

/// The value, or its error among the faults.
fn kept<T>(result: Result<T>, faults: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| faults.push(error.to_string().replace('\n', "\n    "))).ok()
}

fn arch(import: &Import) -> Result<ArchConfig> {
    match &import.arch {
        Some(file) => ArchConfig::load(file),
        None if huggingface::is_folder(&import.checkpoint) => huggingface::arch(&import.checkpoint),
        None => Err(Error::invalid("no architecture was named", "name it with --arch-json")),
    }
}

fn tokenizer(import: &Import) -> Result<Tokenizer> {
    let own = import.checkpoint.join("tokenizer.json");
    match &import.tokenizer {
        Some(file) => Tokenizer::load(file),
        None if own.is_file() => Tokenizer::load(&own),
        None => Err(Error::invalid("no vocabulary was named", "name it with --tokenizer-path")),
    }
}

fn weights(import: &Import) -> Result<BTreeMap<String, Tensor>> {
    let read = match import.checkpoint.is_dir() {
        true => huggingface::weights(&import.checkpoint, &Device::Cpu)?,
        false => checkpoint::read(&import.checkpoint, &Device::Cpu)?,
    };
    let plain = |(key, weight): (String, Tensor)| Ok((key, weight.to_dtype(DType::F32)?.contiguous()?));
    read.into_iter().map(plain).collect()
}

fn not_numbers(weights: &BTreeMap<String, Tensor>) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (key, weight) in weights {
        let values = weight.flatten_all()?.to_vec1::<f32>()?;
        let bad = values.iter().filter(|value| !value.is_finite()).count();
        if bad > 0 {
            faults.push(format!("{key} holds {bad} values that are no finite numbers"));
        }
    }
    Ok(faults)
}

fn card(import: &Import, imported: &Imported) -> String {
    let name = import.checkpoint.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut text = format!(
        "# Imported base\n\nFrom `{name}`: {:.2}M parameters, SHA-256 of the weights `{}`.\n\n| audit | verdict | finding |\n\
         |---|---|---|\n",
        imported.parameters as f64 / 1e6,
        imported.digest
    );
    for finding in &imported.findings {
        let verdict = if finding.sound { "sound" } else { "UNSOUND" };
        text += &format!("| {} | {verdict} | {} |\n", finding.audit, finding.says);
    }
    text
}
