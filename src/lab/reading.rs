//! What the kernel's rust-analyzer reads: the library's own sources, and of what lies below it only the packages whose types
//! a cell is likely to keep in a variable.
//!
//! evcxr asks rust-analyzer for the type of every variable. Left alone it reads the sources of all 270 packages first: 17 of
//! the first cell's 21 seconds, and 1.3 GB. It learns of packages from `cargo metadata`, which heeds `RUSTFLAGS`; evcxr's own
//! builds replace that variable. So a condition set there is seen by the reader and not by the compiler, and
//! `notebooks/kit/Cargo.toml` has dependencies for the reader alone: the packages written here. Each is a manifest and nothing
//! else, which points at the sources of the package it stands for.
//!
//! The standard library is read likewise: `RUST_SRC_PATH` names a folder in which only [`STANDARD`] lie. Without cargo's
//! manifest beside them, rust-analyzer takes them for the whole, and spends no time on the vendors' intrinsics, which are 43 %
//! of its lines.
//!
//! The price: a variable that holds a type of another package needs it written out, `let x: Type = …`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use codelora::artifact;
use codelora::error::{Error, Result};
use serde_json::Value;

/// The packages whose sources are read: the library, its tables and its tensors.
const READ: [&str; 9] = [
    "library",
    "codelora",
    "candle-core",
    "polars",
    "polars-core",
    "polars-error",
    "polars-lazy",
    "polars-plan",
    "polars-utils",
];

/// The parts of the standard library that are read.
const STANDARD: [&str; 3] = ["core", "alloc", "std"];

/// Makes a kernel read what [`write`] left below `folder`.
pub fn point(kernel: &mut Command, folder: &Path) {
    kernel.env("RUSTFLAGS", "--cfg reading").env("RUST_SRC_PATH", folder.join("standard"));
}

/// Where rustc's installation keeps the standard library's sources, when it has them.
pub fn standard_library() -> Option<PathBuf> {
    let sysroot = PathBuf::from(rustc(&["--print", "sysroot"]).ok()?);
    Some(sysroot.join("lib/rustlib/src/rust/library")).filter(|library| library.join("core").is_dir())
}

/// What rustc answers to a question about itself.
fn rustc(question: &[&str]) -> Result<String> {
    let missing = || Error::invalid("rustc does not answer", "install Rust with rustup");
    let output = Command::new("rustc").args(question).output().map_err(|_| missing())?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_string();
    Some(answer).filter(|_| output.status.success()).ok_or_else(missing)
}

/// Writes below `folder` what is to be read: one manifest for each package of [`READ`], for the versions and features that the
/// project in `root` is built with, and links to the parts of the standard library.
///
/// # Errors
/// When cargo does not know the project's packages, or `folder` cannot be written.
pub fn write(root: &Path, folder: &Path) -> Result<()> {
    packages(root, folder)?;
    let Some(library) = standard_library() else { return Ok(()) };
    let links = folder.join("standard");
    fs::create_dir_all(&links).map_err(Error::io("create", &links))?;
    for part in STANDARD {
        link(&library.join(part), &links.join(part))?;
    }
    Ok(())
}

/// A link at `place` to `target`, in place of an older one.
#[cfg(unix)]
fn link(target: &Path, place: &Path) -> Result<()> {
    if fs::read_link(place).is_ok_and(|known| known == target) {
        return Ok(());
    }
    let aside = place.with_extension("new");
    let _left_by_a_crash = fs::remove_file(&aside);
    let made = std::os::unix::fs::symlink(target, &aside).and_then(|()| fs::rename(&aside, place));
    made.map_err(Error::io("link", place))
}

/// Without links rust-analyzer finds nothing there and reads the whole standard library.
#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> Result<()> {
    Ok(())
}

/// The manifests of [`write`].
fn packages(root: &Path, folder: &Path) -> Result<()> {
    let known = metadata(root)?;
    let by_id = |list: &Value| -> HashMap<String, Value> {
        let entries = list.as_array().cloned().unwrap_or_default();
        entries.into_iter().map(|entry| (text(&entry["id"]).to_string(), entry)).collect()
    };
    let (packages, nodes) = (by_id(&known["packages"]), by_id(&known["resolve"]["nodes"]));
    let is_read = |package: &Value| READ.contains(&text(&package["name"]));
    for (id, package) in packages.iter().filter(|(_, package)| is_read(package)) {
        let below: Vec<(&str, &str)> = list(&nodes[id]["deps"])
            .filter(|edge| list(&edge["dep_kinds"]).any(|kind| kind["kind"].is_null()))
            .filter_map(|edge| Some((text(&edge["name"]), packages.get(text(&edge["pkg"]))?)))
            .filter(|(_, package)| is_read(package))
            .map(|(name, package)| (name, text(&package["name"])))
            .collect();
        let features: Vec<&str> = list(&nodes[id]["features"]).map(text).collect();
        let path = folder.join(text(&package["name"])).join("Cargo.toml");
        let manifest = manifest(package, &features, &below)?;
        artifact::write_atomic(&path, |writer| writer.write_all(manifest.as_bytes()))?;
    }
    Ok(())
}

/// The manifest that stands for `package`: its sources and the features it is built with, and `below` it, as pairs of the name
/// in Rust and the package's, what is read as well.
fn manifest(package: &Value, features: &[&str], below: &[(&str, &str)]) -> Result<String> {
    let name = text(&package["name"]);
    let is_library = |target: &&Value| list(&target["crate_types"]).any(|kind| matches!(text(kind), "lib" | "dylib"));
    let library = list(&package["targets"]).find(is_library).ok_or_else(|| {
        Error::invalid(format!("the package {name} has no library"), "name another one in src/lab/reading.rs")
    })?;
    // A feature may not be called like a dependency.
    let features: Vec<_> = features.iter().filter(|feature| !below.iter().any(|(name, _)| name == *feature)).collect();
    let on: Vec<_> = features.iter().filter(|feature| ***feature != "default").collect();
    let mut lines = vec![
        format!("[package]\nname = \"{name}-reading\"\nversion = \"0.1.0\"\nedition = {}", package["edition"]),
        format!("[lib]\nname = {}\npath = {}", library["name"], library["src_path"]),
        format!("[features]\ndefault = {on:?}"),
    ];
    lines.extend(on.iter().map(|feature| format!("{feature:?} = []")));
    lines.push("[dependencies]".to_string());
    lines.extend(
        below.iter().map(|(rust, name)| format!("{rust} = {{ package = \"{name}-reading\", path = \"../{name}\" }}")),
    );
    Ok(lines.join("\n") + "\n")
}

/// What `cargo metadata` says of the project in `root` on this platform: a build brought no other one's packages.
fn metadata(root: &Path) -> Result<Value> {
    let remedy = "run `cargo build` first: it downloads what the project needs";
    let mut command = Command::new("cargo");
    command
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            &rustc(&["--print", "host-tuple"])?,
        ])
        .current_dir(root);
    let output = command.output().map_err(Error::io("start", "cargo"))?;
    if !output.status.success() {
        return Err(Error::invalid(String::from_utf8_lossy(&output.stderr).trim().to_string(), remedy));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| Error::invalid(format!("cargo metadata: {e}"), remedy))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_sees_the_listed_packages_with_their_sources_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        write(root, folder.path()).unwrap();
        let seen = Command::new("cargo")
            .args(["metadata", "--offline", "--format-version", "1"])
            .current_dir(folder.path().join("library"))
            .output()
            .unwrap();
        assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stderr));
        let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
        let mut names: Vec<_> = list(&seen["packages"]).map(|package| text(&package["name"]).to_string()).collect();
        names.sort();
        let mut wanted = READ.map(|name| format!("{name}-reading")).to_vec();
        wanted.sort();
        assert_eq!(names, wanted);
        for part in STANDARD.iter().filter(|_| standard_library().is_some()) {
            assert!(folder.path().join("standard").join(part).join("src/lib.rs").is_file(), "{part}");
        }
        for target in list(&seen["packages"]).flat_map(|package| list(&package["targets"])) {
            assert!(Path::new(text(&target["src_path"])).is_file(), "{target}");
        }
    }
}
