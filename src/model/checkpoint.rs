//! Weights on disk: safetensors (f32, f16, eight bits), PyTorch checkpoints, base folders.
//!
//! A base folder holds `arch.json`, `tokenizer.json` and `model.safetensors`. A PyTorch checkpoint is read by candle's
//! unpickler, which builds tensors and nothing else: no code of the file ever runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor, pickle};
use sha2::{Digest, Sha256};

use crate::artifact;
use crate::error::{Error, Result};
use crate::model::config::{ArchConfig, Normalization, PositionEncoding};
use crate::model::quantize::dequantize;
use crate::model::transformer::Transformer;

/// A base model, as loaded.
#[derive(Debug)]
pub struct Base {
    /// Its shape.
    pub config: ArchConfig,
    /// Its weights in f32 under the checkpoint's keys.
    pub weights: BTreeMap<String, Tensor>,
    /// SHA-256 of the weights; see [`digest`].
    pub digest: String,
}

impl Base {
    /// The transformer over these weights, frozen.
    ///
    /// # Errors
    /// As [`Transformer::new`].
    pub fn model(&self) -> Result<Transformer> {
        Transformer::from_weights(&self.config, &self.weights)
    }

    /// The same with its weights on `device`.
    ///
    /// # Errors
    /// As [`Base::model`]; [`Error::Tensor`] when they do not fit there.
    pub fn model_on(&self, device: &Device) -> Result<Transformer> {
        let moved = |(key, weight): (&String, &Tensor)| Ok((key.clone(), weight.to_device(device)?));
        Transformer::from_weights(&self.config, &self.weights.iter().map(moved).collect::<Result<_>>()?)
    }
}

/// Loads a base folder.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`]; [`Error::Mismatch`] that lists every missing, unexpected and mis-shaped key.
pub fn load(folder: &Path, device: &Device) -> Result<Base> {
    let config = ArchConfig::load(&folder.join("arch.json"))?;
    load_with(&config, &folder.join("model.safetensors"), device)
}

/// Loads weights for a known architecture from `.safetensors` or `.pt`.
///
/// # Errors
/// As [`load`].
pub fn load_with(config: &ArchConfig, file: &Path, device: &Device) -> Result<Base> {
    let mut weights: BTreeMap<String, Tensor> =
        dequantize(read(file, device)?)?.into_iter().filter(|(key, _)| !is_derived(key, config)).collect();
    check(config, &weights, file)?;
    for weight in weights.values_mut() {
        *weight = weight.to_device(device)?.to_dtype(DType::F32)?.contiguous()?;
    }
    let digest = digest(&weights)?;
    Ok(Base { config: config.clone(), weights, digest })
}

/// Reads the tensors of a `.pt`, `.pth` or `.safetensors` file.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`].
pub fn read(file: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let pickled = file.extension().is_some_and(|extension| extension == "pt" || extension == "pth");
    if pickled { read_pt(file) } else { read_safetensors(file, device) }
}

/// Keys that carry nothing of their own: rotary tables, and the head of a tied model.
pub(crate) fn is_derived(key: &str, config: &ArchConfig) -> bool {
    key.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && key == "lm_head.weight")
}

/// Every key a checkpoint of this architecture has, with its shape.
pub fn expected_shapes(config: &ArchConfig) -> BTreeMap<String, Vec<usize>> {
    let (hidden, vocab) = (config.hidden_dim, config.vocab_size);
    let mut shapes = BTreeMap::from([("token_embedding.weight".to_string(), vec![vocab, hidden])]);
    if config.position_encoding == PositionEncoding::Absolute {
        shapes.insert("position_embedding.weight".into(), vec![config.max_seq_length, hidden]);
    }
    if !config.tie_word_embeddings {
        shapes.insert("lm_head.weight".into(), vec![vocab, hidden]);
    }
    let mut norm = |name: String| {
        shapes.insert(format!("{name}.weight"), vec![hidden]);
        if config.normalization == Normalization::LayerNorm {
            shapes.insert(format!("{name}.bias"), vec![hidden]);
        }
    };
    norm("norm".into());
    for layer in 0..config.num_layers {
        norm(format!("layers.{layer}.norm1"));
        norm(format!("layers.{layer}.norm2"));
    }
    for layer in 0..config.num_layers {
        let prefix = format!("layers.{layer}");
        shapes.insert(format!("{prefix}.attn.qkv.weight"), vec![3 * hidden, hidden]);
        shapes.insert(format!("{prefix}.attn.out_proj.weight"), vec![hidden, hidden]);
        shapes.insert(format!("{prefix}.ffn.fc1.weight"), vec![config.fc1_dim(), hidden]);
        shapes.insert(format!("{prefix}.ffn.fc2.weight"), vec![hidden, config.ffn_dim()]);
    }
    shapes
}

/// Holds weights against an architecture.
///
/// # Errors
/// [`Error::Mismatch`] with all faults at once: keys that are missing, not expected, or of another shape.
pub fn check(config: &ArchConfig, weights: &BTreeMap<String, Tensor>, file: &Path) -> Result<()> {
    let faults = faults(config, weights);
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::Mismatch {
        what: format!("weights in {}", file.display()),
        expected: format!("the {} keys of the architecture", expected_shapes(config).len()),
        found: format!("{} faults:\n    {}", faults.len(), faults.join("\n    ")),
        remedy: "use the architecture file that belongs to this checkpoint (layers, widths, vocabulary, norm)".into(),
    })
}

/// Every key that is missing, not expected, or of another shape, with what was expected.
pub fn faults(config: &ArchConfig, weights: &BTreeMap<String, Tensor>) -> Vec<String> {
    let expected = expected_shapes(config);
    let mut faults = Vec::new();
    for (key, shape) in &expected {
        match weights.get(key) {
            None => faults.push(format!("missing {key} {shape:?}")),
            Some(weight) if weight.dims() != shape => {
                faults.push(format!("{key} is {:?}, expected {shape:?}", weight.dims()));
            }
            Some(_) => {}
        }
    }
    for key in weights.keys().filter(|key| !expected.contains_key(*key)) {
        faults.push(format!("unexpected {key} {:?}", weights[key].dims()));
    }
    faults
}

/// Reads a safetensors file, in the file's own float types.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for a file that is truncated or no safetensors.
pub fn read_safetensors(file: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let bytes = fs::read(file).map_err(Error::io("read", file))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, device).map_err(|e| {
        Error::malformed(file, None, format!("no readable safetensors: {e}"), "restore the file; it may be truncated")
    })?;
    Ok(tensors.into_iter().collect())
}

/// The metadata in the header of a safetensors file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for a file that is truncated or no safetensors.
pub fn read_header(file: &Path) -> Result<BTreeMap<String, String>> {
    let bytes = fs::read(file).map_err(Error::io("read", file))?;
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| {
        Error::malformed(file, None, format!("no readable safetensors: {e}"), "restore the file; it may be truncated")
    })?;
    Ok(header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Writes tensors as safetensors in `dtype` (f32 or f16; bytes stay bytes), atomically, with `metadata` in the header.
///
/// # Errors
/// [`Error::Io`], [`Error::Tensor`].
pub fn save_safetensors(
    tensors: &BTreeMap<String, Tensor>,
    file: &Path,
    dtype: DType,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    if !matches!(dtype, DType::F32 | DType::F16) {
        return Err(Error::invalid(format!("weights cannot be saved as {dtype:?}"), "save them as f32 or f16"));
    }
    let mut bytes = BTreeMap::new();
    for (key, tensor) in tensors {
        // Bytes are what `quantize` made of a matrix.
        let (kind, tensor) = match (tensor.dtype(), dtype) {
            (DType::U8, _) => (safetensors::Dtype::U8, tensor.clone()),
            (_, DType::F16) => (safetensors::Dtype::F16, tensor.to_dtype(dtype)?),
            _ => (safetensors::Dtype::F32, tensor.to_dtype(dtype)?),
        };
        bytes.insert(key, (kind, tensor.dims().to_vec(), little_endian(&tensor)?));
    }
    let fault = |e: safetensors::SafeTensorError| Error::invalid(format!("cannot serialise weights: {e}"), "report it");
    let mut views = Vec::with_capacity(bytes.len());
    for (key, (kind, shape, data)) in &bytes {
        views.push((key.as_str(), safetensors::tensor::TensorView::new(*kind, shape.clone(), data).map_err(fault)?));
    }
    let header = metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let serialised = safetensors::serialize(views, Some(header)).map_err(fault)?;
    artifact::write_atomic(file, |writer| writer.write_all(&serialised))
}

/// The bytes of a tensor, row by row, least significant byte first.
fn little_endian(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::U8 => flat.to_vec1::<u8>()?,
        DType::F16 => flat.to_vec1::<half::f16>()?.into_iter().flat_map(half::f16::to_le_bytes).collect(),
        _ => flat.to_dtype(DType::F32)?.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect(),
    })
}

/// Reads a PyTorch checkpoint: the tensors of `model_state_dict`, or of the file itself when it is a bare state dict.
///
/// # Errors
/// [`Error::Malformed`] when the file is no zip of a pickle, is truncated, or holds anything but tensors there.
pub fn read_pt(file: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = fs::metadata(file).map_err(Error::io("read", file))?.len();
    let refused = |what: String| {
        let what = format!("no readable PyTorch checkpoint: {what}");
        Error::malformed(file, None, what, "save it again with torch.save({\"model_state_dict\": …}, path)")
    };
    let key = Some("model_state_dict");
    let found = match pickle::read_pth_tensor_info(file, false, key) {
        Ok(found) if !found.is_empty() => (key, found),
        _ => (None, pickle::read_pth_tensor_info(file, false, None).map_err(|e| refused(e.to_string()))?),
    };
    let (key, tensors) = found;
    // A pickle may claim any shape; memory is only given to one that the file can fill.
    for tensor in &tensors {
        let dims = tensor.layout.dims().iter().map(|&dim| dim as u64);
        let size = dims.chain([tensor.dtype.size_in_bytes() as u64]).try_fold(1u64, u64::checked_mul);
        if size.is_none_or(|size| size > bytes) {
            let shape = tensor.layout.dims();
            return Err(refused(format!("{} claims the shape {shape:?} in a file of {bytes} bytes", tensor.name)));
        }
    }
    if tensors.is_empty() {
        let what = "the checkpoint holds no tensors";
        return Err(Error::malformed(file, None, what, "expected {\"model_state_dict\": {key: tensor}}"));
    }
    Ok(pickle::read_all_with_key(file, key).map_err(|e| refused(e.to_string()))?.into_iter().collect())
}

/// SHA-256 over keys, shapes and f32 values, in key order: the same for a checkpoint and its re-saved f32 copy.
///
/// # Errors
/// [`Error::Tensor`].
pub fn digest(weights: &BTreeMap<String, Tensor>) -> Result<String> {
    let mut hash = Sha256::new();
    for (key, weight) in weights {
        hash.update(key.as_bytes());
        for &dim in weight.dims() {
            hash.update((dim as u64).to_le_bytes());
        }
        hash.update(little_endian(&weight.to_dtype(DType::F32)?)?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
