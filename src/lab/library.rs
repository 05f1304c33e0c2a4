//! The library that cells are compiled against: built with the program, and set aside whole.
//!
//! `notebooks/library` is one dynamic library of everything that a notebook uses. Cargo builds it where it built the program, from
//! the same compiled dependencies. What a cell's compiler has to see of it is then copied to `.lab/library`: the library itself,
//! what each crate in it declares, and its macros. So a later build of the project takes nothing away from under an open
//! notebook, and cargo, which compiles the cells, need not know of 270 packages: looking at them took a third of every cell.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use codelora::error::{Error, Result};
use serde_json::Value;

use super::{Lab, finished};

/// Beside the copies: which files they are copies of.
const CONTENTS: &str = "contents";

/// How the variables begin that `cargo run` sets for the program it starts.
const OF_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// Whether there is a library to compile cells against.
pub fn is_ready(lab: &Lab) -> bool {
    lab.library().join(CONTENTS).is_file()
}

/// Builds the library as this program was built, optimised or not, and brings `.lab/library` up to date.
///
/// # Errors
/// When the library does not compile, or a file cannot be copied.
pub fn build(lab: &Lab) -> Result<()> {
    if !is_ready(lab) {
        println!(
            "lab 4/4: the library for notebooks into .lab/library (seconds where the program was just built, minutes otherwise)"
        );
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["rustc", "--locked", "--package", "library", "--message-format", "json-render-diagnostics"]);
    if cfg!(debug_assertions) {
        // Notebooks train and sample: the library's own code is optimised even where the program's is not.
        cargo.args(["--config", "profile.dev.package.codelora.opt-level=3"]);
    } else {
        cargo.arg("--release");
    }
    // `cargo run` tells this program of its package, and a build script that watches such a variable (ring's) would run again,
    // with all that depends on it, whenever the project is built from in here and from outside by turns.
    let of_package =
        |name: &OsString| name.to_str().is_some_and(|name| OF_PACKAGE.iter().any(|of| name.starts_with(of)));
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_package(name)) {
        cargo.env_remove(name);
    }
    // The library and the cells share one standard library; told to the compiler here, it leaves the dependencies as they are.
    cargo.args(["--", "-C", "prefer-dynamic"]).current_dir(&lab.root).stdout(Stdio::piped());
    let purpose = "build the library for notebooks";
    let mut child = cargo.spawn().map_err(Error::io("start", "cargo"))?;
    let mut files = Vec::new();
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let message = serde_json::from_str(&line.map_err(Error::io("read the output of", "cargo"))?);
        files.extend(seen_by_compiler(&message.unwrap_or_default()));
    }
    finished(child.wait().map_err(Error::io("wait for", "cargo"))?, Path::new("cargo"), purpose)?;
    set_aside(&files, &lab.library())
}

/// The files of one of cargo's messages that a compiler looks into: what crates declare, dynamic libraries, macros.
fn seen_by_compiler(message: &Value) -> Vec<PathBuf> {
    let names = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let wanted = |name: &&str| name.ends_with(".rmeta") || name.ends_with(std::env::consts::DLL_SUFFIX);
    names.filter(wanted).map(PathBuf::from).collect()
}

/// Copies `files` into `folder`, which they then are all there is in; nothing is done when they are there already.
fn set_aside(files: &[PathBuf], folder: &Path) -> Result<()> {
    let contents = contents(files)?;
    if fs::read_to_string(folder.join(CONTENTS)).is_ok_and(|known| known == contents) {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    let new = tempfile::tempdir_in(parent).map_err(Error::io("create a folder in", parent))?;
    for file in files {
        let copy = new.path().join(file.file_name().unwrap_or_default());
        fs::copy(file, &copy).map_err(Error::io("write", &copy))?;
    }
    // The mark comes with the last step, so that a copy that was cut short is made again.
    fs::write(new.path().join(CONTENTS), contents).map_err(Error::io("write", new.path()))?;
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io("replace", folder))?;
    }
    fs::rename(new.keep(), folder).map_err(Error::io("write", folder))
}

/// A line for each file: its path, its bytes, and when it was written.
fn contents(files: &[PathBuf]) -> Result<String> {
    files.iter().try_fold(String::new(), |text, file| {
        let known = fs::metadata(file).map_err(Error::io("read", file))?;
        let written = known.modified().map_err(Error::io("read", file))?;
        let since = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(format!("{text}{} {} {}\n", file.display(), known.len(), since.as_nanos()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_the_whole_of_the_last_build_and_is_written_only_when_that_changed() {
        let root = tempfile::tempdir().unwrap();
        let (one, two, folder) =
            (root.path().join("one.rmeta"), root.path().join("two.so"), root.path().join("lab/library"));
        fs::write(&one, "one").unwrap();
        fs::write(&two, "two").unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        set_aside(&[one.clone(), two.clone()], &folder).unwrap();
        assert_eq!((read("one.rmeta").as_deref(), read("two.so").as_deref()), (Some("one"), Some("two")));
        // Nothing was built since: what lies there is left alone.
        fs::write(folder.join("one.rmeta"), "touched").unwrap();
        set_aside(&[one.clone(), two.clone()], &folder).unwrap();
        assert_eq!(read("one.rmeta").as_deref(), Some("touched"));
        fs::write(&two, "newer").unwrap();
        set_aside(std::slice::from_ref(&two), &folder).unwrap();
        assert_eq!((read("one.rmeta"), read("two.so").as_deref()), (None, Some("newer")));
        assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 1, "a folder was left over");
    }

    #[test]
    fn a_compiler_sees_declarations_and_dynamic_libraries_but_no_program() {
        let so = format!("target/liblibrary{}", std::env::consts::DLL_SUFFIX);
        let message = serde_json::json!({ "filenames": ["target/deps/liba.rlib", "target/deps/liba.rmeta", so, "target/build/run"] });
        assert_eq!(seen_by_compiler(&message), ["target/deps/liba.rmeta", so.as_str()].map(PathBuf::from));
        assert!(seen_by_compiler(&Value::Null).is_empty());
    }
}
