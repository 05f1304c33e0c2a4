//! The notebook workshop: a private Jupyter with a Rust kernel, under the project and nowhere else.
//!
//! Everything lives in two ignored folders: `.venv` (JupyterLab) and `.lab` (the kernel, its settings, and the library that
//! cells are compiled against).
//! Nothing in the user's home changes.

mod execute;
mod install;
mod kernel;
mod library;
mod own;
mod reading;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use codelora::error::{Error, Result};

pub use execute::{check, execute, html};
pub use kernel::launch;

/// The folders of the workshop.
#[derive(Debug, Clone)]
pub struct Lab {
    /// The project's root.
    pub root: PathBuf,
    /// Where the notebooks lie that are opened and executed.
    chapters: PathBuf,
}

impl Lab {
    /// The workshop of the project in `root`.
    ///
    /// # Errors
    /// When `root` holds no notebooks.
    pub fn at(root: &Path) -> Result<Self> {
        let lab = Self { root: root.to_path_buf(), chapters: root.join("notebooks") };
        if !lab.notebooks().join("kit/Cargo.toml").is_file() {
            return Err(Error::invalid(
                format!("{} holds no notebooks", root.display()),
                "run `codelora lab` inside a clone of the project",
            ));
        }
        Ok(lab)
    }

    /// The workshop with copies of the notebooks that open the experiment `name` in `file`, with the public datasets in `external`.
    ///
    /// # Errors
    /// As [`own::copies`].
    pub fn walking(self, name: &str, file: &Path, external: Option<&Path>) -> Result<Self> {
        let chapters = own::copies(&self.root, &execute::select(&self, &[])?, name, file, external)?;
        Ok(Self { chapters, ..self })
    }

    fn notebooks(&self) -> PathBuf {
        self.root.join("notebooks")
    }

    fn home(&self) -> PathBuf {
        self.root.join(".lab")
    }

    fn library(&self) -> PathBuf {
        self.home().join("library")
    }

    fn reading(&self) -> PathBuf {
        self.home().join("reading")
    }

    fn python(&self) -> PathBuf {
        self.root.join(".venv/bin/python")
    }

    fn evcxr(&self) -> PathBuf {
        self.home().join("bin/evcxr_jupyter")
    }

    /// Installs what is missing; quick when nothing is.
    ///
    /// # Errors
    /// When a step fails; the message names the step and what to install.
    pub fn install(&self) -> Result<()> {
        install::all(self)
    }

    /// Opens JupyterLab on the first notebook and waits until it is closed; without a browser, it prints where it listens.
    ///
    /// # Errors
    /// When Jupyter cannot start.
    pub fn open(&self, browser: bool) -> Result<()> {
        let mut jupyter = Command::new(self.python());
        // The module, not `jupyter lab`: that looks for a script, which names the folder it was installed in.
        jupyter.args(["-m", "jupyterlab"]).current_dir(&self.root);
        self.isolate(&mut jupyter);
        if !browser {
            jupyter.arg("--no-browser");
        }
        // The file server must reach the runs: the curves of chapter 3 read them while they go on.
        jupyter.arg(format!("--ServerApp.root_dir={}", self.root.display()));
        // As root, as in a container, Jupyter starts only when told that this is meant.
        jupyter.arg("--allow-root").arg(self.chapters.join("0-base-model.ipynb"));
        run(&mut jupyter, "start JupyterLab")
    }

    /// Prints a line for each part: its version, or what to do.
    ///
    /// # Errors
    /// When a part is missing.
    pub fn doctor(&self) -> Result<()> {
        let parts = install::parts(self);
        for (name, found, remedy) in &parts {
            match found {
                Some(found) => println!("{name:<14} {found}"),
                None => println!("{name:<14} missing: {remedy}"),
            }
        }
        let missing: Vec<&str> = parts.iter().filter(|(_, found, _)| found.is_none()).map(|(name, ..)| *name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!("missing: {}", missing.join(", ")), "do what the lines above say"))
    }

    /// Points Jupyter at our kernel and away from the user's home.
    fn isolate(&self, command: &mut Command) {
        let share = self.home().join("share/jupyter");
        command
            .env("JUPYTER_PATH", &share)
            .env("JUPYTER_DATA_DIR", &share)
            .env("JUPYTER_CONFIG_DIR", self.home().join("etc/jupyter"))
            .env("JUPYTER_RUNTIME_DIR", self.home().join("runtime"))
            .env("IPYTHONDIR", self.home().join("ipython"))
            .env("RUST_LIB_BACKTRACE", "0");
    }
}

/// Runs a command to its end with its output shown.
fn run(command: &mut Command, purpose: &str) -> Result<()> {
    let program = command.get_program().to_os_string();
    let status = command.status().map_err(|e| {
        Error::invalid(
            format!("cannot {purpose}: {} does not start ({e})", Path::new(&program).display()),
            "`codelora lab --doctor` says what is missing",
        )
    })?;
    finished(status, Path::new(&program), purpose)
}

/// Whether a command whose output was shown ended well.
fn finished(status: ExitStatus, program: &Path, purpose: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Error::invalid(
        format!("cannot {purpose}: {} ended with {status}", program.display()),
        "read the lines above; `codelora lab --doctor` says what is missing",
    ))
}
