//! Bases from elsewhere: what fits is imported exactly, what does not is listed whole, what is hostile builds nothing.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use codelora::model::checkpoint;
use codelora::phases::import::{self, Import};
use codelora::tokenizer::Tokenizer;

type Outcome = codelora::Result<()>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn tokenizer(folder: &Path, size: usize) -> PathBuf {
    let texts = (0..200).map(|i| format!("def f_{i}(values):\n    return [value + {i} for value in values]\n"));
    let file = folder.join(format!("tokenizer-{size}.json"));
    Tokenizer::train(texts, size).unwrap().save(&file).unwrap();
    file
}

#[test]
fn a_starcoder2_folder_of_the_transformers_library_gives_its_logits() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let source = golden("starcoder2_golden");
    assert!(source.join("model.safetensors.index.json").is_file(), "the golden folder is sharded");
    let output = folder.path().join("base");
    let request = Import {
        checkpoint: source.clone(),
        arch: None,
        tokenizer: Some(tokenizer(folder.path(), 290)),
        output: output.clone(),
        force: false,
    };
    let imported = import::run(&request)?;
    assert!(imported.findings.iter().all(|finding| finding.audit != "causality" || finding.sound));
    let expected = checkpoint::read_safetensors(&source.join("golden.safetensors"), &Device::Cpu)?;
    let base = checkpoint::load(&output, &Device::Cpu)?;
    assert_eq!(base.digest, imported.digest);
    let logits = base.model()?.forward(&expected["ids"].to_dtype(DType::U32)?)?;
    let off = (logits - &expected["logits"])?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(off < 1e-4, "logits differ by {off}");
    assert!(import::run(&request).unwrap_err().to_string().contains("--force"));
    Ok(())
}

#[test]
fn settings_that_are_not_built_are_listed_together() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(golden("starcoder2_golden/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("hidden_act", "gelu_pytorch_tanh".into()),
        ("use_bias", true.into()),
        ("num_key_value_heads", 1.into()),
        ("sliding_window", 16.into()),
        ("rope_scaling", serde_json::json!({ "type": "linear", "factor": 2.0 })),
        ("rope_parameters", serde_json::json!({ "rope_type": "yarn" })),
    ] {
        config[key] = value;
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let fault = codelora::model::huggingface::arch(folder.path()).unwrap_err().to_string();
    for part in [
        "hidden_act",
        "use_bias",
        "num_key_value_heads is 1",
        "sliding_window is 16",
        "rope_scaling",
        "yarn",
        "6 that are not",
    ] {
        assert!(fault.contains(part), "{part} in {fault}");
    }
}

#[test]
fn every_mismatch_is_listed_at_once_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let arch = folder.path().join("arch.json");
    let text = fs::read_to_string(golden("lora_golden/arch.json")).unwrap();
    let mut wrong: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layers = wrong["architecture"]["num_layers"].as_u64().unwrap();
    wrong["architecture"]["num_layers"] = (layers + 1).into();
    wrong["architecture"]["ffn_multiplier"] = 7.0.into();
    fs::write(&arch, wrong.to_string()).unwrap();
    let output = folder.path().join("base");
    let request = |arch: PathBuf, tokenizer: PathBuf| Import {
        checkpoint: golden("lora_golden/base.pt"),
        arch: Some(arch),
        tokenizer: Some(tokenizer),
        output: output.clone(),
        force: false,
    };
    let fault = import::run(&request(arch, tokenizer(folder.path(), 300))).unwrap_err().to_string();
    for part in [
        "tokens, expected at most the 24 rows of vocab_size",
        &format!("missing layers.{layers}.attn.qkv.weight"),
        "layers.0.ffn.fc1.weight is",
    ] {
        assert!(fault.contains(part), "{part} in {fault}");
    }
    // Files that are missing do not hide each other.
    let fault = import::run(&request("no/arch.json".into(), "no/tokenizer.json".into())).unwrap_err().to_string();
    assert!(fault.contains("no/arch.json") && fault.contains("no/tokenizer.json"), "{fault}");
    assert!(!output.exists());
}

/// An archive in zip's simplest form: stored entries, without checksums that anybody checks before reading.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0u32, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
    };
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let offset = bytes.len() as u32;
        let mut common = Vec::new();
        for half in [20u16, 0, 0, 0, 0] {
            common.extend(half.to_le_bytes());
        }
        for word in [crc(content), content.len() as u32, content.len() as u32] {
            common.extend(word.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&common);
        bytes.extend(name.as_bytes());
        bytes.extend(*content);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (count, start) = (entries.len() as u16, bytes.len() as u32);
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// `{"w": tensor}` whose tensor claims `shape` over a storage of two floats.
fn claiming(shape: [i32; 2]) -> Vec<u8> {
    let text = |s: &str| [b"X".as_slice(), &(s.len() as u32).to_le_bytes(), s.as_bytes()].concat();
    let int = |value: i32| [b"J".as_slice(), &value.to_le_bytes()].concat();
    let pickle = [
        b"\x80\x02}".to_vec(),
        text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        int(2),
        b"tQ".to_vec(),
        int(0),
        int(shape[0]),
        int(shape[1]),
        b"\x86".to_vec(),
        int(shape[1]),
        int(1),
        b"\x86\x89ccollections\nOrderedDict\n)RtRs.".to_vec(),
    ];
    zip(&[("archive/data.pkl", &pickle.concat()), ("archive/data/0", &[0, 0, 128, 63, 0, 0, 0, 64])])
}

#[test]
fn a_pickle_that_lies_or_calls_builds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("base.pt");
    let write = |bytes: &[u8]| fs::File::create(&file).unwrap().write_all(bytes).unwrap();
    write(&claiming([1, 2]));
    assert_eq!(checkpoint::read_pt(&file).unwrap()["w"].dims(), [1, 2], "the honest one is read");
    // Four terabytes, and a size that overflows.
    for shape in [[1 << 20, 1 << 20], [i32::MAX, i32::MAX]] {
        write(&claiming(shape));
        let fault = checkpoint::read_pt(&file).unwrap_err().to_string();
        assert!(fault.contains("claims the shape"), "{fault}");
    }
    let marker = folder.path().join("called");
    let command = format!("touch {}", marker.display());
    let call =
        [b"\x80\x02cposix\nsystem\nX".as_slice(), &(command.len() as u32).to_le_bytes(), command.as_bytes(), b"\x85R."];
    write(&zip(&[("archive/data.pkl", &call.concat())]));
    assert!(checkpoint::read_pt(&file).is_err());
    assert!(!marker.exists(), "the pickle's call was made");
    let whole = fs::read(golden("lora_golden/base.pt")).unwrap();
    for cut in [whole.len() / 3, whole.len() - 30] {
        write(&whole[..cut]);
        assert!(checkpoint::read_pt(&file).unwrap_err().to_string().contains("no readable PyTorch checkpoint"));
    }
}
