//! What the workshop needs, step by step: each step looks first, says what it does, and is skipped when done.

use std::fs;
use std::path::Path;
use std::process::Command;

use codelora::artifact;
use codelora::error::{Error, Result};
use codelora::{python, seed};

use super::{Lab, library, reading, run};

/// The kernel's version; the committed outputs were made with it.
const EVCXR: &str = "0.22.0";

/// Runs every step that is not done yet.
pub fn all(lab: &Lab) -> Result<()> {
    environment(lab)?;
    sources()?;
    evcxr(lab)?;
    kernelspec(lab)?;
    library::build(lab)?;
    reading::write(&lab.root, &lab.reading())
}

/// JupyterLab in `.venv`, with the pinned versions of `notebooks/requirements.txt`.
fn environment(lab: &Lab) -> Result<()> {
    let requirements = lab.notebooks().join("requirements.txt");
    let wanted = fs::read(&requirements).map_err(Error::io("read", &requirements))?;
    let stamp = lab.root.join(".venv/codelora-requirements.sha256");
    let digest = seed::sha256(wanted);
    if fs::read_to_string(&stamp).is_ok_and(|found| found == digest) {
        return Ok(());
    }
    println!("lab 1/4: JupyterLab into .venv (about a minute)");
    let venv = lab.root.join(".venv");
    run(Command::new(python::interpreter()?).args(["-m", "venv"]).arg(&venv), "create .venv (Debian: python3-venv)")?;
    let mut pip = Command::new(lab.python());
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&requirements);
    run(&mut pip, "install JupyterLab")?;
    artifact::write_atomic(&stamp, |writer| writer.write_all(digest.as_bytes()))
}

/// The sources of Rust's standard library, which rustup leaves out by default: without them the kernel cannot find out the type
/// of a variable that a `?` gave.
fn sources() -> Result<()> {
    if reading::standard_library().is_some() {
        return Ok(());
    }
    println!("lab 2/4: the sources of Rust's standard library, rust-src");
    let purpose =
        "install rust-src, the sources of Rust's standard library (without rustup: your system's package rust-src)";
    run(Command::new("rustup").args(["component", "add", "rust-src"]), purpose)
}

/// The evcxr kernel, compiled into `.lab/bin`.
fn evcxr(lab: &Lab) -> Result<()> {
    if installed_evcxr(lab).is_some_and(|version| version == EVCXR) {
        return Ok(());
    }
    println!("lab 3/4: the Rust kernel evcxr_jupyter {EVCXR} into .lab (10 to 20 minutes, once)");
    let mut install = Command::new("cargo");
    install
        .args(["install", "evcxr_jupyter", "--locked", "--force", "--version", EVCXR, "--root"])
        .arg(lab.home())
        // Its own folder: the project's target folder would rebuild everything for other features.
        .env("CARGO_TARGET_DIR", lab.home().join("target-evcxr"));
    run(&mut install, "install evcxr_jupyter")?;
    let leftovers = lab.home().join("target-evcxr");
    fs::remove_dir_all(&leftovers).map_err(Error::io("remove", leftovers))
}

/// The version of the kernel in `.lab/bin`, as cargo noted it down beside; none without kernel or note.
fn installed_evcxr(lab: &Lab) -> Option<String> {
    let noted = fs::read_to_string(lab.home().join(".crates.toml")).ok().filter(|_| lab.evcxr().is_file())?;
    let version = noted.lines().find_map(|line| line.strip_prefix("\"evcxr_jupyter ")?.split(' ').next())?;
    Some(version.to_string())
}

/// The kernelspec `codelora`: Jupyter starts this program, which starts the kernel in a free build folder.
fn kernelspec(lab: &Lab) -> Result<()> {
    let program = std::env::current_exe().map_err(Error::io("find", "codelora"))?;
    let spec = serde_json::json!({
        "argv": [program, "lab", "--kernel", "{connection_file}"],
        "display_name": "Rust (codelora)",
        "language": "rust",
        "interrupt_mode": "message",
        "env": { "CODELORA_ROOT": lab.root, "CODELORA_PROGRAM": program, "RUST_LIB_BACKTRACE": "0" },
    });
    artifact::write_json(&lab.home().join("share/jupyter/kernels/codelora/kernel.json"), &spec)?;
    // Offline: every crate is there since the project itself was built, and a lookup costs seconds at each `:dep`.
    let settings = "[evcxr]\noffline_mode = true\nopt_level = \"0\"\n";
    artifact::write_atomic(&lab.home().join("etc/evcxr/evcxr.toml"), |writer| writer.write_all(settings.as_bytes()))?;
    // JupyterLab asks for news and updates on its first start; a workshop needs neither.
    let overrides = serde_json::json!({
        "@jupyterlab/apputils-extension:notification": { "checkForUpdates": false, "fetchNews": "false" }
    });
    artifact::write_json(&lab.root.join(".venv/share/jupyter/lab/settings/overrides.json"), &overrides)
}

/// A part of the workshop: its name, its version or state, and what to do where there is none.
pub type Part = (&'static str, Option<String>, &'static str);

/// Every part that the workshop needs.
pub fn parts(lab: &Lab) -> Vec<Part> {
    let version = |program: &Path, args: &[&str]| -> Option<String> {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_string();
        output.status.success().then_some(text)
    };
    let python = python::interpreter().ok();
    vec![
        ("cargo", version(Path::new("cargo"), &["--version"]), "install Rust with rustup"),
        ("linker", version(Path::new("cc"), &["--version"]), "install a C compiler (Debian: build-essential)"),
        ("python", python.and_then(|p| version(&p, &["--version"])), "install Python 3.9 or newer"),
        ("rust-src", reading::standard_library().map(|_| "ready".to_string()), "run `codelora lab`"),
        ("jupyter", version(&lab.python(), &["-m", "jupyterlab", "--version"]), "run `codelora lab`"),
        ("evcxr", installed_evcxr(lab), "run `codelora lab`"),
        ("library", library::is_ready(lab).then(|| "ready".to_string()), "run `codelora lab`"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_of_another_version_is_not_taken_for_ours() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("notebooks/kit")).unwrap();
        fs::write(root.path().join("notebooks/kit/Cargo.toml"), "").unwrap();
        let lab = Lab::at(root.path()).unwrap();
        fs::create_dir_all(lab.home().join("bin")).unwrap();
        let note = "[v1]\n\"evcxr_jupyter 0.21.1 (registry+https://example.org)\" = [\"evcxr_jupyter\"]\n";
        fs::write(lab.home().join(".crates.toml"), note).unwrap();
        assert_eq!(installed_evcxr(&lab), None, "the note alone is no kernel");
        fs::write(lab.evcxr(), "").unwrap();
        assert_eq!(installed_evcxr(&lab).as_deref(), Some("0.21.1"));
        fs::remove_file(lab.home().join(".crates.toml")).unwrap();
        assert_eq!(installed_evcxr(&lab), None, "a kernel of which nobody knows where it is from");
        let missing = parts(&lab).into_iter().filter(|(_, found, _)| found.is_none()).map(|(name, ..)| name);
        assert!(missing.collect::<Vec<_>>().ends_with(&["jupyter", "evcxr", "library"]));
    }
}
