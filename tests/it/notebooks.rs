//! The notebooks as they are committed: chapters, small cells, no definitions, outputs fit for review.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

fn notebooks() -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("notebooks");
    let mut found: Vec<(String, Value)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ipynb"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            (name, serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap())
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn source(cell: &Value) -> String {
    match &cell["source"] {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().unwrap_or_default().to_string(),
    }
}

fn cells<'a>(notebook: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    notebook["cells"].as_array().unwrap().iter().filter(move |cell| cell["cell_type"] == kind)
}

#[test]
fn there_are_six_chapters_with_the_same_headings() {
    let notebooks = notebooks();
    assert_eq!(notebooks.len(), 6);
    for (name, notebook) in notebooks {
        let text: String = cells(&notebook, "markdown").map(|cell| source(cell) + "\n").collect();
        let places: Vec<usize> = ["# ", "## Question", "## Method", "## Run", "## Look", "## Decide"]
            .map(|heading| text.find(heading).unwrap_or_else(|| panic!("{name} lacks {heading}")))
            .to_vec();
        assert!(places[0] == 0 && places.is_sorted(), "{name}: headings in another order: {places:?}");
        assert_eq!(notebook["metadata"]["kernelspec"]["name"], "codelora", "{name}");
    }
}

#[test]
fn cells_are_small_and_define_nothing() {
    for (name, notebook) in notebooks() {
        let mut dependencies = 0;
        for cell in cells(&notebook, "code") {
            let text = source(cell);
            assert!(text.lines().count() <= 12, "{name}: a long cell:\n{text}");
            let defines = |line: &str| {
                let line = line.trim_start().trim_start_matches("pub ");
                ["fn ", "struct ", "impl ", "enum ", "trait "].iter().any(|item| line.starts_with(item))
            };
            assert!(!text.lines().any(defines), "{name}: a definition:\n{text}");
            dependencies += text.matches(":dep").count();
        }
        assert_eq!(dependencies, 1, "{name}");
    }
}

#[test]
fn outputs_are_committed_and_hold_no_trace_of_a_machine() {
    let mut bytes = 0;
    for (name, notebook) in notebooks() {
        let text = notebook.to_string();
        bytes += text.len();
        let shown = cells(&notebook, "code").filter(|cell| !cell["outputs"].as_array().unwrap().is_empty());
        assert!(shown.count() >= 3, "{name} was not executed: run `codelora lab --execute`");
        for cell in cells(&notebook, "code") {
            assert!(cell["execution_count"].is_null(), "{name}: an execution count");
            for output in cell["outputs"].as_array().unwrap() {
                assert_ne!(output["output_type"], "error", "{name}");
                assert_ne!(output["name"], "stderr", "{name}: {output}");
                let plain = output["data"]["text/plain"].to_string();
                assert!(plain.len() < 300, "{name}: a value that no display was found for: {}", &plain[..300]);
            }
        }
        for trace in ["/home/", "/root/", "/tmp/", env!("CARGO_MANIFEST_DIR")] {
            assert!(!text.contains(trace), "{name} holds {trace}");
        }
    }
    assert!(bytes < 4_000_000, "{bytes} bytes");
}
