//! Which layers of protection this machine offers, and whether together they leave a gap.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
#[cfg(target_os = "linux")]
use std::{os::fd::AsRawFd, os::fd::OwnedFd, sync::Arc};

use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
use super::walls;
use super::{Limits, Protection, zygote};
use crate::error::{Error, Result};
use crate::python;

/// A layer that can be left out with [`Sandbox::without`](super::Sandbox::without).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Own user, mount, process, network, IPC and host-name spaces, made by `unshare`.
    Namespaces,
    /// The same through the program `bwrap`, asked for when `unshare` is refused.
    Bubblewrap,
    /// Landlock: rules on files, TCP and signals that a process lays upon itself.
    Landlock,
    /// seccomp: a list of the allowed system calls.
    Seccomp,
}

impl Layer {
    /// All layers, strongest first.
    pub const ALL: [Layer; 4] = [Layer::Namespaces, Layer::Bubblewrap, Layer::Landlock, Layer::Seccomp];

    fn name(self) -> &'static str {
        match self {
            Layer::Namespaces => "namespaces",
            Layer::Bubblewrap => "bubblewrap",
            Layer::Landlock => "landlock",
            Layer::Seccomp => "seccomp",
        }
    }
}

/// What each kind of harm is kept off by; one layer of a row is enough.
const CLASSES: [(&str, &[Layer]); 3] = [
    ("reading and writing files outside the scratch folder", &[Layer::Namespaces, Layer::Bubblewrap, Layer::Landlock]),
    ("using the network", &[Layer::Namespaces, Layer::Bubblewrap, Layer::Seccomp]),
    ("starting processes and signalling others", &[Layer::Seccomp]),
];

/// The layers to build, and how to start Python under them.
#[derive(Debug, Clone)]
pub struct Plan {
    python: PathBuf,
    bubblewrap: bool,
    #[cfg(target_os = "linux")]
    landlock: Option<Arc<OwnedFd>>,
    filter: Option<String>,
    /// Make own namespaces.
    pub unshare: bool,
    /// The only files and folders that the programs may read.
    pub readable: Vec<PathBuf>,
    /// Layers that are not in force, with the reason.
    pub missing: BTreeMap<Layer, String>,
}

impl Plan {
    /// Finds out by trying: starts a parent with every layer but those left out and drops what the kernel refuses.
    pub fn find(limits: &Limits, without: &[Layer]) -> Result<(Self, zygote::Zygote)> {
        let mut plan = Self::wished(without)?;
        if plan.missing.contains_key(&Layer::Namespaces) {
            plan.try_bubblewrap(limits, without);
        }
        let mut first = zygote::Zygote::start(&plan, limits)?;
        if let Some(reason) = first.missing.get("namespaces") {
            // A process that failed half-way stands in half-built namespaces: begin again without.
            plan.missing.insert(Layer::Namespaces, reason.clone());
            plan.unshare = false;
            plan.try_bubblewrap(limits, without);
            first = zygote::Zygote::start(&plan, limits)?;
        }
        for layer in [Layer::Landlock, Layer::Seccomp] {
            if let Some(reason) = first.missing.get(layer.name()) {
                plan.missing.insert(layer, reason.clone());
            }
        }
        if let Some(reason) = first.missing.get("limits") {
            return Err(Error::invalid(
                format!("the sandbox cannot set its limits: {reason}"),
                "raise the hard limits of this shell (ulimit -H)",
            ));
        }
        Ok((plan, first))
    }

    /// The kinds of harm that no layer in force keeps off.
    pub fn gaps(&self) -> Vec<&'static str> {
        let open = |(_, layers): &&(&str, &[Layer])| layers.iter().all(|layer| self.missing.contains_key(layer));
        CLASSES.iter().filter(open).map(|(name, _)| *name).collect()
    }

    /// The layers as told to the user.
    pub fn protections(&self) -> Vec<Protection> {
        let mut told = vec![Protection { name: "own processes, limits, cleared environment".into(), missing: None }];
        for layer in Layer::ALL {
            // Bubblewrap stands in for the namespaces: it is wanted only where those cannot be made.
            if layer == Layer::Bubblewrap && self.unshare {
                continue;
            }
            told.push(Protection { name: layer.name().into(), missing: self.missing.get(&layer).cloned() });
        }
        told
    }

    /// The command that starts Python.
    pub fn command(&self, limits: &Limits) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if self.bubblewrap {
            words.extend(["bwrap", "--unshare-all", "--cap-drop", "ALL"].map(Into::into));
            for path in &self.readable {
                match std::fs::read_link(path) {
                    Ok(target) => words.extend(["--symlink".into(), target.into(), path.into()]),
                    Err(_) => words.extend(["--ro-bind".into(), path.into(), path.into()]),
                }
            }
            let size = (4 * limits.file).to_string();
            words.extend(["--dev", "/dev", "--size", &size, "--tmpfs", "/scratch"].map(Into::into));
            words.extend(["--remount-ro", "/", "--chdir", "/", "--"].map(Into::into));
        }
        words.push(self.python.clone().into());
        zygote::command(&words)
    }

    /// The scratch folder as the programs see it, where that is settled already.
    pub fn scratch(&self) -> Option<PathBuf> {
        self.bubblewrap.then(|| "/scratch".into())
    }

    /// The seccomp filter in hexadecimal.
    pub fn filter_hex(&self) -> Option<&str> {
        self.filter.as_deref()
    }

    fn try_bubblewrap(&mut self, limits: &Limits, without: &[Layer]) {
        let left_out = without.contains(&Layer::Bubblewrap);
        self.missing.remove(&Layer::Bubblewrap);
        self.bubblewrap = true;
        let reason = if left_out {
            Some("left out on request".into())
        } else {
            zygote::Zygote::start(self, limits).err().map(|error| error.to_string())
        };
        if let Some(reason) = reason {
            self.missing.insert(Layer::Bubblewrap, reason);
            self.bubblewrap = false;
        }
    }
}

#[cfg(target_os = "linux")]
impl Plan {
    fn wished(without: &[Layer]) -> Result<Self> {
        let (python, readable) = readable()?;
        let mut missing: BTreeMap<Layer, String> =
            without.iter().map(|&layer| (layer, "left out on request".to_string())).collect();
        missing.entry(Layer::Bubblewrap).or_insert_with(|| "not needed".into());
        let mut landlock = None;
        if !without.contains(&Layer::Landlock) {
            match walls::ruleset(&readable) {
                Ok(Some(fd)) => landlock = Some(Arc::new(fd)),
                Ok(None) => drop(missing.insert(Layer::Landlock, "this kernel has no Landlock".into())),
                Err(reason) => drop(missing.insert(Layer::Landlock, reason)),
            }
        }
        let mut filter = None;
        if !without.contains(&Layer::Seccomp) {
            match walls::filter() {
                Ok(bytes) => filter = Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
                Err(reason) => drop(missing.insert(Layer::Seccomp, reason)),
            }
        }
        let unshare = !without.contains(&Layer::Namespaces);
        Ok(Self { python, bubblewrap: false, landlock, filter, unshare, readable, missing })
    }

    /// The Landlock rule set's descriptor, which the Python side inherits.
    pub fn landlock_descriptor(&self) -> Option<i32> {
        self.landlock.as_ref().map(|fd| fd.as_raw_fd())
    }

    /// The number of the system call.
    pub fn pivot_root(&self) -> i64 {
        walls::PIVOT_ROOT
    }
}

#[cfg(not(target_os = "linux"))]
impl Plan {
    fn wished(_without: &[Layer]) -> Result<Self> {
        let reason = format!("not on {}", std::env::consts::OS);
        let missing = Layer::ALL.into_iter().map(|layer| (layer, reason.clone())).collect();
        let python = python::interpreter()?;
        Ok(Self { python, bubblewrap: false, filter: None, unshare: false, readable: Vec::new(), missing })
    }

    /// No Landlock here.
    pub fn landlock_descriptor(&self) -> Option<i32> {
        None
    }

    /// No such call here.
    pub fn pivot_root(&self) -> i64 {
        -1
    }
}

/// Python, and what it reads: its standard library, the shared libraries it has loaded, and the system's.
#[cfg(target_os = "linux")]
fn readable() -> Result<(PathBuf, Vec<PathBuf>)> {
    let python = python::interpreter()?;
    let script = "import ctypes, sys\n\
        print(*sys.path, sep='\\n')\n\
        print(*{line.split(maxsplit=5)[5] for line in open('/proc/self/maps') if '/' in line}, sep='', end='')";
    let output = Command::new(&python).args(["-I", "-S", "-c", script]).env_clear().output();
    let output = output.map_err(Error::io("run", &python))?;
    if !output.status.success() {
        return Err(Error::invalid(
            format!("{} cannot be used: {}", python.display(), String::from_utf8_lossy(&output.stderr).trim()),
            "use a Python that has its standard library with ctypes, named in CODELORA_PYTHON",
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut paths: Vec<PathBuf> = text.lines().map(PathBuf::from).chain(walls::system_folders()).collect();
    paths.retain(|path| path.is_absolute() && path.exists());
    paths.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !kept.iter().any(|above| path.starts_with(above)) {
            kept.push(path);
        }
    }
    Ok((python, kept))
}
