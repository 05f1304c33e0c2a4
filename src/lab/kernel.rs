//! The kernel: evcxr, with a folder of its own to compile cells in.
//!
//! evcxr compiles each cell in a folder of its own choosing, `EVCXR_TMPDIR`. Two kernels in one folder would overwrite each
//! other's cells, so each kernel takes the first slot that is not locked; a slot that was used before is warm.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use codelora::error::{Error, Result};

use super::{Lab, reading};

/// More kernels at once than anyone opens.
const SLOTS: usize = 8;

/// Becomes the kernel: takes the first free slot and replaces this process by evcxr. Called by Jupyter.
///
/// # Errors
/// When every slot is taken or the kernel does not start.
pub fn launch(lab: &Lab, connection: &Path) -> Result<()> {
    let (folder, lock) = take_slot(&lab.home().join("cells"))?;
    let mut kernel = Command::new(lab.evcxr());
    kernel
        .arg("--control_file")
        .arg(connection)
        .env("EVCXR_TMPDIR", folder)
        .env("EVCXR_CONFIG_DIR", lab.home().join("etc/evcxr"))
        .env("CODELORA_LIBRARY", lab.library())
        .env(LOADER_PATH, loader_path(&lab.library()))
        // The lock lives as long as some process has the file open: the kernel carries it as its unused standard input.
        .stdin(Stdio::from(lock));
    reading::point(&mut kernel, &lab.reading());
    Err(replace(&mut kernel))
}

/// Where the system's loader looks for libraries first. A cell names the library relative to the folder it was compiled in, and
/// evcxr moves it to another.
const LOADER_PATH: &str = if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };

/// The library's folder before what the loader's path holds already.
fn loader_path(library: &Path) -> OsString {
    let before = std::env::var_os(LOADER_PATH).unwrap_or_default();
    let folders = std::iter::once(library.to_path_buf()).chain(std::env::split_paths(&before));
    std::env::join_paths(folders).unwrap_or_else(|_| library.into())
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

/// The first folder of `build` that no kernel works in, and its lock.
fn take_slot(build: &Path) -> Result<(PathBuf, File)> {
    for index in 0..SLOTS {
        let folder = build.join(format!("slot-{index}"));
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let path = folder.with_extension("lock");
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        if lock.try_lock().is_ok() {
            return Ok((folder, lock));
        }
    }
    Err(Error::invalid(format!("{SLOTS} kernels are running already"), "close a notebook"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_at_the_same_time_work_in_different_folders() {
        let build = tempfile::tempdir().unwrap();
        let mut taken: Vec<_> = (0..SLOTS).map(|_| take_slot(build.path()).unwrap()).collect();
        assert!(take_slot(build.path()).unwrap_err().to_string().contains("close a notebook"));
        let (folder, lock) = taken.remove(2);
        drop(lock);
        assert_eq!(take_slot(build.path()).unwrap().0, folder, "a folder that was left is taken again");
    }
}
