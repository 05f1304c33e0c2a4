//! The house: imports point down only, each floor knows only what it may, and the README's figures of speed are the records'.

use std::fs;
use std::path::{Path, PathBuf};

use codelora::phases::speed;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The floor of a module, counted from the ground. `None` for the crate's own root.
fn floor(module: &str) -> Option<usize> {
    let floors: [&[&str]; 7] = [
        &["artifact", "error", "experiment", "memory", "progress", "python", "sandbox", "seed", "tokenizer"],
        &["data", "model"],
        &["train", "generate"],
        &["bench"],
        &["decide", "figures"],
        &["phases"],
        &["notebook"],
    ];
    floors.iter().position(|modules| modules.contains(&module))
}

#[test]
fn every_module_has_a_floor() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() > 15 && modules.iter().all(|module| floor(module).is_some()), "{modules:?}");
}

#[test]
fn imports_point_down() {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    assert!(files.len() > 60, "the walk found the sources");
    let mut faults = Vec::new();
    for path in files {
        let relative = path.strip_prefix(root().join("src")).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_string();
        let Some(own) = floor(&module) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            assert!(!line.contains("crate::{"), "{}:{}: name one module a line", relative.display(), number + 1);
            for rest in line.split("crate::").skip(1) {
                let target: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(other) = floor(&target) else { continue };
                // On one floor, only the ground and a module's own parts may know each other.
                let sideways = other == own && target != module && own != 0;
                if other > own || sideways {
                    faults.push(format!("{}:{}: {module} uses {target}", relative.display(), number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_a_floor_must_not_know() {
    let forbidden =
        [("data", "candle_core"), ("decide", "candle_core"), ("model", "tokenizers"), ("figures", "candle_core")];
    for (module, word) in forbidden {
        let mut files = Vec::new();
        let (folder, file) = (root().join("src").join(module), root().join("src").join(module).with_extension("rs"));
        if folder.is_dir() {
            rust_files(&folder, &mut files);
        } else {
            files.push(file);
        }
        for path in files {
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains(word), "{} knows {word}", path.display());
        }
    }
}

#[test]
fn only_the_notebook_module_knows_evcxr() {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    let knows = |path: &&PathBuf| fs::read_to_string(path).unwrap().contains("EVCXR_BEGIN_CONTENT");
    let found: Vec<_> = files.iter().filter(knows).collect();
    assert_eq!(found, [&root().join("src/notebook.rs")]);
}

#[test]
fn the_table_of_speeds_is_made_from_the_records() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let table = speed::table(&speed::read(&root().join("benches/records")).unwrap());
    let again = speed::splice(&readme, &table).unwrap();
    assert!(readme == again, "run `codelora bench-speed --splice README.md`");
}
