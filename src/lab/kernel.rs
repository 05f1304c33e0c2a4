//! The kernel's build folder: warmed once, never shared by two kernels at a time.
//!
//! evcxr compiles each cell in a folder of its own choosing, `EVCXR_TMPDIR`. A fixed one is the real cache: whatever
//! a cell loads with `:dep` is compiled there once. Two kernels in one folder would overwrite each other's cells, so
//! each kernel takes the first slot that is not locked. A slot that was not built since the first one was is brought up to
//! date by copying, times of change included, which is what cargo goes by.
//!
//! evcxr begins with a cell that loads nothing, and cargo then strikes every version from the lock file that nothing needs
//! any more; the next `:dep` would choose the versions anew, among all that lie on this machine, and build whatever came out
//! differently: minutes in the first cell. So evcxr's folder, `cell`, is one member of a workspace, and beside it lies
//! another, `warm`, that names the library all the time: the lock file is the workspace's, and the versions stay.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use codelora::artifact;
use codelora::error::{Error, Result};

use super::{Lab, reading, run};

/// More kernels at once than anyone opens; each slot holds a build of 1 to 3 GB.
const SLOTS: usize = 8;

/// The workspace of a slot. Only its root may set a profile, so evcxr's is written here: cells stay quick to compile, the
/// library they call stays fast. The project's manifest does not reach there, so its exceptions for polars are carried over
/// ([`workspace`]).
const WORKSPACE: &str = r#"[workspace]
resolver = "3"
members = ["cell", "warm"]
[profile.dev]
opt-level = 0
debug = false
strip = "debuginfo"
rpath = true
lto = false
debug-assertions = true
codegen-units = 16
panic = "unwind"
incremental = true
overflow-checks = true
[profile.dev.package."*"]
opt-level = 3
debug = false
debug-assertions = false
overflow-checks = false
"#;

/// What evcxr writes into its folder when it starts; cargo wants every member to be there before.
const CELL: &str = r#"[package]
name = "ctx"
version = "1.0.0"
edition = "2024"
[lib]
crate-type = ["cdylib"]
"#;

fn slot(lab: &Lab, index: usize) -> PathBuf {
    lab.home().join(format!("build/slot-{index}"))
}

/// The folder of a slot that evcxr works in.
fn cell(slot: &Path) -> PathBuf {
    slot.join("cell")
}

/// In each slot: a text that changes whenever slot 0 was built anew.
const MARK: &str = "built";

fn stamp(lab: &Lab) -> PathBuf {
    slot(lab, 0).join("versions")
}

/// Whether the first slot has been built with the present dependencies.
pub fn is_warm(lab: &Lab) -> bool {
    let lock = lab.root.join("Cargo.lock");
    match (fs::read(stamp(lab)), fs::read(lock)) {
        (Ok(built), Ok(wanted)) => built == wanted,
        _ => false,
    }
}

/// Builds in slot 0 what the notebooks load, exactly as the kernel will, so that the first cell does not wait for it.
///
/// # Errors
/// When the library does not compile.
pub fn warm(lab: &Lab) -> Result<()> {
    let folder = slot(lab, 0);
    let first_time = !is_warm(lab);
    if first_time {
        println!("lab 4/4: the library for notebooks into .lab/build (10 to 25 minutes, once)");
    }
    let write = |path: PathBuf, text: &str| artifact::write_atomic(&path, |writer| writer.write_all(text.as_bytes()));
    let (cell, warm) = (cell(&folder), folder.join("warm"));
    // Optional, so that the kernel's rust-analyzer reads the library when a cell loads it and not before.
    let manifest = format!(
        "[package]\nname = \"warm\"\nversion = \"1.0.0\"\nedition = \"2024\"\n[dependencies]\nkit = {{ path = {:?}, optional = true }}\n",
        lab.notebooks().join("kit").display().to_string()
    );
    let lock = lab.root.join("Cargo.lock");
    let versions = fs::read(&lock).map_err(Error::io("read", &lock))?;
    write(folder.join("Cargo.toml"), &workspace(lab)?)?;
    write(warm.join("Cargo.toml"), &manifest)?;
    write(warm.join("src/lib.rs"), "")?;
    // A kernel may be at work in there.
    if !cell.join("Cargo.toml").is_file() {
        write(cell.join("Cargo.toml"), CELL)?;
        write(cell.join("src/lib.rs"), "")?;
    }
    reading::write(&lab.root, &host()?, &lab.reading())?;
    // The project's own versions, so that nothing is resolved or downloaded anew.
    artifact::write_atomic(&folder.join("Cargo.lock"), |writer| writer.write_all(&versions))?;
    if first_time {
        // The kernel asks cargo, offline, about every package of every platform; a build brings only this platform's.
        let mut fetch = Command::new("cargo");
        fetch.args(["fetch", "--quiet"]).current_dir(&folder).env("CARGO_NET_OFFLINE", "false");
        run(&mut fetch, "download the library's dependencies")?;
    }
    // `check` as well: the kernel calls it for a cell that is wrong, and the first mistake would wait for a minute.
    for verb in ["build", "check"] {
        let mut cargo = Command::new("cargo");
        cargo
            .args([verb, "--package", "warm", "--features", "warm/kit", "--target", &host()?])
            .current_dir(&cell)
            .env("CARGO_TARGET_DIR", "target")
            .env("CARGO_BUILD_BUILD_DIR", "target")
            .env("RUSTFLAGS", "-Cprefer-dynamic");
        if !first_time {
            cargo.arg("--quiet");
        }
        run(&mut cargo, "build the library for notebooks")?;
    }
    write(folder.join(MARK), &newest(&cell.join("target"))?)?;
    artifact::write_atomic(&stamp(lab), |writer| writer.write_all(&versions))
}

/// When the library that cells load was last written below `target`: the same as long as nothing was built.
fn newest(target: &Path) -> Result<String> {
    let file = target.join(host()?).join("debug").join(format!("libkit{}", std::env::consts::DLL_SUFFIX));
    let modified = fs::metadata(&file).and_then(|known| known.modified()).map_err(Error::io("read", &file))?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{}\n", since.as_nanos()))
}

/// [`WORKSPACE`] and the dev profile's exceptions for single packages, as the project's manifest has them.
fn workspace(lab: &Lab) -> Result<String> {
    let path = lab.root.join("Cargo.toml");
    let manifest = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let exceptions = manifest.split("\n[").filter(|section| section.starts_with("profile.dev.package.polars"));
    Ok(exceptions.fold(WORKSPACE.to_string(), |text, section| text + "[" + section.trim_end() + "\n"))
}

/// The target triple of this machine, as `rustc -vV` names it.
///
/// # Errors
/// When rustc does not answer.
pub fn host() -> Result<String> {
    let missing = || Error::invalid("`rustc -vV` does not answer", "install Rust with rustup");
    let output = Command::new("rustc").arg("-vV").output().map_err(|_| missing())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_string).ok_or_else(missing)
}

/// Becomes the kernel: takes the first free slot and replaces this process by evcxr. Called by Jupyter.
///
/// # Errors
/// When every slot is taken or the kernel does not start.
pub fn launch(lab: &Lab, connection: &Path) -> Result<()> {
    let (folder, lock) = take_slot(lab)?;
    let mut kernel = Command::new(lab.evcxr());
    kernel
        .arg("--control_file")
        .arg(connection)
        .env("EVCXR_TMPDIR", cell(&folder))
        .env("EVCXR_CONFIG_DIR", lab.home().join("etc/evcxr"))
        // The lock lives as long as some process has the file open: the kernel carries it as its unused standard input.
        .stdin(Stdio::from(lock));
    reading::point(&mut kernel, &lab.reading());
    Err(replace(&mut kernel))
}

#[cfg(unix)]
fn replace(kernel: &mut Command) -> Error {
    use std::os::unix::process::CommandExt;
    let failure = kernel.exec();
    Error::io("start", kernel.get_program())(failure)
}

#[cfg(not(unix))]
fn replace(kernel: &mut Command) -> Error {
    match kernel.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(failure) => Error::io("start", kernel.get_program())(failure),
    }
}

fn take_slot(lab: &Lab) -> Result<(PathBuf, File)> {
    for index in 0..SLOTS {
        let folder = slot(lab, index);
        let path = folder.with_extension("lock");
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        if lock.try_lock().is_err() {
            continue;
        }
        // A slot of last week looks stale to cargo, which would build the library again: minutes for what copying does in
        // seconds. The mark is copied last, so that a copy that was cut short is taken up again.
        if index > 0 && mark(&folder) != mark(&slot(lab, 0)) {
            copy(&slot(lab, 0), &folder).map_err(Error::io("copy the warm build to", &folder))?;
            let built = folder.join(MARK);
            fs::copy(slot(lab, 0).join(MARK), &built).map_err(Error::io("write", &built))?;
        }
        return Ok((folder, lock));
    }
    Err(Error::invalid(format!("{SLOTS} kernels are running already"), "close a notebook"))
}

/// What a slot was last built as; nothing where it never was.
fn mark(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(MARK)).ok()
}

/// Brings `to` up to date with `from`: files that differ in size or time of change are copied with their times. The cells
/// of other kernels are left out, and so is the mark.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        let name = name.to_string_lossy();
        if name == MARK || name.starts_with("libcode_") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
            continue;
        }
        // A kernel that is at work may take its files away in the meantime.
        let Ok(known) = entry.metadata() else { continue };
        let modified = known.modified()?;
        let same =
            |there: fs::Metadata| there.len() == known.len() && there.modified().is_ok_and(|time| time == modified);
        if !fs::metadata(&target).is_ok_and(same) && fs::copy(entry.path(), &target).is_ok() {
            File::options().write(true).open(&target)?.set_modified(modified)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_brought_up_to_date_with_times_and_without_other_kernels_cells() {
        let folder = tempfile::tempdir().unwrap();
        let (warm, other) = (folder.path().join("slot-0"), folder.path().join("slot-1"));
        fs::create_dir_all(warm.join("target")).unwrap();
        for (name, text) in [("target/libkit.so", "one"), ("target/libcode_3.so", "cell"), (MARK, "1")] {
            fs::write(warm.join(name), text).unwrap();
        }
        let copied = |name: &str| fs::read_to_string(other.join(name)).ok();
        copy(&warm, &other).unwrap();
        assert_eq!(copied("target/libkit.so").as_deref(), Some("one"));
        assert_eq!((copied("target/libcode_3.so"), mark(&other)), (None, None));
        let time = |slot: &Path| fs::metadata(slot.join("target/libkit.so")).unwrap().modified().unwrap();
        assert_eq!(time(&warm), time(&other));
        fs::write(warm.join("target/libkit.so"), "two").unwrap();
        copy(&warm, &other).unwrap();
        assert_eq!(copied("target/libkit.so").as_deref(), Some("two"));
        assert_eq!(time(&warm), time(&other));
    }
}
