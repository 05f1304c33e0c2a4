//! The notebooks for an experiment of one's own: copies that open it, under `notebooks/own/NAME`.
//!
//! A copy that is there already is kept, with whatever was written into it: only the lines that name the experiment are brought
//! up to date.

use std::fs;
use std::path::{Path, PathBuf};

use codelora::artifact;
use codelora::error::{Error, Result};
use serde_json::{Value, json};

/// How a committed notebook opens its experiment.
const OPENS: &str = "Experiment::open(\"../data/experiments/quick.toml\")?";

/// How it names the library, and how a copy two folders further down does.
const KIT: [&str; 2] = ["kit = { path = \"kit\" }", "kit = { path = \"../../kit\" }"];

/// Copies `notebooks` into the folder of the experiment `name` below `root`, without outputs, and lets each open `file`, with the
/// public datasets in `external`. Returns the copies' folder.
///
/// # Errors
/// When a notebook cannot be read or written, or does not say what it opens.
pub fn copies(root: &Path, notebooks: &[PathBuf], name: &str, file: &Path, external: Option<&Path>) -> Result<PathBuf> {
    if Path::new(name).file_name() != Some(name.as_ref()) {
        let what = format!("{}: the name `{name}` names no folder", file.display());
        return Err(Error::invalid(what, "give the experiment a name without `/`"));
    }
    let folder = root.join("notebooks/own").join(name);
    let mut opens = format!("Experiment::open({:?})?", seen_from(root, file)?);
    if let Some(external) = external {
        opens = format!("{opens}.with_external({:?})", seen_from(root, external)?);
    }
    for notebook in notebooks {
        let copy = folder.join(notebook.file_name().unwrap_or_default());
        let kept = copy.is_file();
        let mut content: Value = artifact::read_json(if kept { &copy } else { notebook })?;
        let mut found = false;
        for cell in content["cells"].as_array_mut().into_iter().flatten().filter(|cell| cell["cell_type"] == "code") {
            let lines = cell["source"].as_array_mut().into_iter().flatten();
            for line in lines {
                let text = line.as_str().unwrap_or_default();
                if let Some((before, _)) = text.split_once("Experiment::open(") {
                    found = true;
                    *line = json!(format!("{before}{opens};\n"));
                } else {
                    *line = json!(text.replace(KIT[0], KIT[1]));
                }
            }
            if !kept {
                cell["outputs"] = json!([]);
            }
        }
        if !found {
            let what = format!("{}: no cell opens an experiment", copy.display());
            return Err(Error::invalid(what, format!("write `let experiment = {OPENS};` into its first cell")));
        }
        artifact::write_json(&copy, &content)?;
    }
    Ok(folder)
}

/// A path as a notebook in `notebooks/own/NAME` names it: from there when it lies below `root`, else in full.
fn seen_from(root: &Path, path: &Path) -> Result<String> {
    let absolute = |path: &Path| fs::canonicalize(path).map_err(Error::io("find", path));
    let (root, path) = (absolute(root)?, absolute(path)?);
    let seen = path.strip_prefix(&root).map_or_else(|_| path.clone(), |inside| Path::new("../../..").join(inside));
    Ok(seen.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(notebook: &Path) -> String {
        let content: Value = artifact::read_json(notebook).unwrap();
        let lines = content["cells"][0]["source"].as_array().unwrap();
        lines.iter().map(|line| line.as_str().unwrap()).collect()
    }

    #[test]
    fn a_copy_opens_the_other_experiment_and_keeps_what_was_written_into_it() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let committed = root.path().join("notebooks/1-data.ipynb");
        let lines = [":dep kit = { path = \"kit\" }\n", &format!("let experiment = {OPENS};\n"), "show(1)"];
        let content = json!({ "cells": [{ "cell_type": "code", "source": lines, "outputs": ["old"] }] });
        artifact::write_json(&committed, &content).unwrap();
        let experiment = root.path().join("data/experiments/own.toml");
        artifact::write_json(&experiment, &1).unwrap();
        let copies = |external| copies(root.path(), std::slice::from_ref(&committed), "own", &experiment, external);
        let copy = copies(None).unwrap().join("1-data.ipynb");
        let opens = "let experiment = Experiment::open(\"../../../data/experiments/own.toml\")?";
        assert_eq!(source(&copy), format!(":dep kit = {{ path = \"../../kit\" }}\n{opens};\nshow(1)"));
        let mut written: Value = artifact::read_json(&copy).unwrap();
        assert_eq!(written["cells"][0]["outputs"], json!([]));
        written["cells"][0]["source"][2] = json!("show(2)");
        written["cells"][0]["outputs"] = json!(["new"]);
        artifact::write_json(&copy, &written).unwrap();
        copies(Some(elsewhere.path())).unwrap();
        let external = fs::canonicalize(elsewhere.path()).unwrap();
        let opens = format!("{opens}.with_external({:?})", external.display().to_string());
        assert_eq!(source(&copy), format!(":dep kit = {{ path = \"../../kit\" }}\n{opens};\nshow(2)"));
        let kept: Value = artifact::read_json(&copy).unwrap();
        assert_eq!(kept["cells"][0]["outputs"], json!(["new"]));
        assert!(source(&committed).contains("quick.toml"), "the committed notebook was changed");
    }

    #[test]
    fn a_name_that_leads_out_of_the_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for name in ["../quick", "a/b", "..", ""] {
            let refused = copies(root.path(), &[], name, root.path(), None).unwrap_err().to_string();
            assert!(refused.contains("without `/`"), "{name}: {refused}");
        }
    }

    #[test]
    fn a_notebook_that_opens_nothing_is_named() {
        let root = tempfile::tempdir().unwrap();
        let notebook = root.path().join("notebooks/1-data.ipynb");
        artifact::write_json(&notebook, &json!({ "cells": [] })).unwrap();
        let refused =
            copies(root.path(), std::slice::from_ref(&notebook), "own", &notebook, None).unwrap_err().to_string();
        assert!(refused.contains("1-data.ipynb") && refused.contains("remedy"), "{refused}");
    }
}
