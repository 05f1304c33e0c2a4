//! Notebooks without a browser: executed in order and saved, or rendered as pages.

use std::path::{Path, PathBuf};
use std::process::Command;

use codelora::error::{Error, Result};

use super::{Lab, run};

/// Executes and saves one notebook; a panic or a failed `?` only writes to stderr, so stderr counts as failure.
const SCRIPT: &str = include_str!("execute.py");

/// Renders notebooks as pages that load nothing from anywhere.
const SITE: &str = include_str!("site.py");

/// Executes the notebooks with these numbers (all when empty), in order, and saves them with their outputs.
///
/// # Errors
/// At the first notebook that fails, with the cell and what it printed.
pub fn execute(lab: &Lab, numbers: &[usize]) -> Result<()> {
    for notebook in select(lab, numbers)? {
        run(&mut script(lab, &notebook), "execute the notebook")?;
    }
    Ok(())
}

/// Executes the notebooks with these numbers (all when empty) into copies under `target/notebooks`, and compares what their
/// cells show with what is saved.
///
/// # Errors
/// When a notebook fails, or, after all were executed, when one shows something else.
pub fn check(lab: &Lab, numbers: &[usize]) -> Result<()> {
    let folder = lab.root.join("target/notebooks");
    std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let mut outcome = Ok(());
    for notebook in select(lab, numbers)? {
        let copy = folder.join(notebook.file_name().unwrap_or_default());
        outcome = outcome.and(run(script(lab, &notebook).arg(copy), "reproduce the notebook"));
    }
    outcome
}

fn script(lab: &Lab, notebook: &Path) -> Command {
    let mut command = Command::new(lab.python());
    command.args(["-c", SCRIPT]).arg(notebook).arg(&lab.root).current_dir(&lab.chapters);
    lab.isolate(&mut command);
    command
}

/// Renders all notebooks as read-only pages into `target/site`, with an `index.html`; they need no network.
///
/// # Errors
/// When a notebook cannot be rendered, or its page would load something from elsewhere.
pub fn html(lab: &Lab) -> Result<()> {
    let mut command = Command::new(lab.python());
    command.args(["-c", SITE, "target/site"]).args(select(lab, &[])?).current_dir(&lab.root);
    lab.isolate(&mut command);
    run(&mut command, "render the notebooks")
}

/// The notebooks with these numbers, in order; all when empty.
pub(super) fn select(lab: &Lab, numbers: &[usize]) -> Result<Vec<PathBuf>> {
    let folder = &lab.chapters;
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "ipynb"));
    found.sort();
    if numbers.is_empty() {
        return Ok(found);
    }
    let number_of = |path: &PathBuf| -> Option<usize> { path.file_name()?.to_str()?.split('-').next()?.parse().ok() };
    if let Some(missing) = numbers.iter().find(|number| !found.iter().any(|path| number_of(path) == Some(**number))) {
        let names: Vec<_> = found.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
        return Err(Error::invalid(
            format!("there is no notebook {missing}"),
            format!("choose among {}", names.join(", ")),
        ));
    }
    found.retain(|path| number_of(path).is_some_and(|number| numbers.contains(&number)));
    Ok(found)
}
