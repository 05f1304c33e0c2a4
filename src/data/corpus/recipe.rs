//! A recipe of named, permissively licensed packages: what is fetched, from where, under which licence.
//!
//! Packages are fetched by `pip` as wheels, which are archives: unpacking one runs no code of the package. Nothing fetched is
//! ever committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::data::corpus::gather::Origin;
use crate::error::{Error, Result};
use crate::python;

/// Licences under which a package may enter, as SPDX identifiers.
const PERMISSIVE: [&str; 8] =
    ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "PSF-2.0", "Unlicense"];

/// Unpacks the Python files and the metadata of wheels: `target wheel…`.
const UNPACK: &str = "
import sys, zipfile
for wheel in sys.argv[2:]:
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.endswith('.py') or '.dist-info/' in n and n.count('/') == 1]
        archive.extractall(sys.argv[1], names)
";

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The packages.
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name in the package index.
    pub name: String,
    /// The exact version.
    pub version: String,
    /// Its licence, as an SPDX identifier.
    pub licence: String,
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] with the line of an unknown key, and for a name, version or licence that cannot
    /// be used.
    pub fn load(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(Error::io("read", file))?;
        let recipe: Self = toml::from_str(&text).map_err(|e| {
            let line = e.span().map(|span| text[..span.start].matches('\n').count() + 1);
            Error::malformed(file, line, e.message().to_string(), "a package has name, version and licence")
        })?;
        for package in &recipe.packages {
            package.check().map_err(|what| {
                let line = text.lines().position(|line| line.contains(&format!("\"{}\"", package.name)));
                let remedy = format!("use a plain name and version, and one of the licences {}", PERMISSIVE.join(", "));
                Error::malformed(file, line.map(|line| line + 1), what, remedy)
            })?;
        }
        Ok(recipe)
    }

    /// Fetches what is not in `folder` yet, and returns every package as an origin.
    ///
    /// # Errors
    /// [`Error::Invalid`] with pip's last words when a package cannot be fetched; [`Error::Io`].
    pub fn fetch(&self, folder: &Path) -> Result<Vec<Origin>> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        self.packages.iter().map(|package| package.fetch(folder)).collect()
    }
}

impl Package {
    fn check(&self) -> Result<(), String> {
        let plain = |text: &str| {
            let rest = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
            text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(rest)
        };
        if !plain(&self.name) || !plain(&self.version) {
            return Err(format!("{:?} {:?} is no package", self.name, self.version));
        }
        if !PERMISSIVE.contains(&self.licence.as_str()) {
            return Err(format!("{} is under {:?}, which is not known to be permissive", self.name, self.licence));
        }
        Ok(())
    }

    fn fetch(&self, folder: &Path) -> Result<Origin> {
        let name = format!("{}-{}", self.name, self.version);
        let target = folder.join(&name);
        if !target.is_dir() {
            println!("fetching {name}");
            let wheels = tempfile::tempdir_in(folder).map_err(Error::io("create", folder))?;
            self.download(wheels.path())?;
            let unpacked = tempfile::tempdir_in(folder).map_err(Error::io("create", folder))?;
            unpack(wheels.path(), unpacked.path())?;
            // Whole or not at all: a folder of this name is a package that was unpacked to its end.
            fs::rename(unpacked.keep(), &target).map_err(Error::io("create", &target))?;
        }
        Ok(Origin { name, licence: self.licence.clone(), folder: target, skip: Vec::new() })
    }

    fn download(&self, folder: &Path) -> Result<()> {
        let python = python::interpreter()?;
        // A source distribution would run its own build code; a wheel is only unpacked.
        let output = Command::new(&python)
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
            .args(["--only-binary", ":all:", "--ignore-requires-python", "--dest"])
            .arg(folder)
            .arg(format!("{}=={}", self.name, self.version))
            .output()
            .map_err(Error::io("run", &python))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no message").to_string();
        Err(Error::invalid(
            format!("pip could not fetch {} {}: {said}", self.name, self.version),
            "check the network and that this Python has pip; or take the package out of the recipe",
        ))
    }
}

/// Unpacks every wheel of a folder into `target`.
fn unpack(wheels: &Path, target: &Path) -> Result<()> {
    let python = python::interpreter()?;
    let entries = fs::read_dir(wheels).map_err(Error::io("read", wheels))?;
    let wheels: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let output = Command::new(&python)
        .args(["-I", "-c", UNPACK])
        .arg(target)
        .args(&wheels)
        .output()
        .map_err(Error::io("run", &python))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no message").to_string();
    Err(Error::invalid(format!("a wheel could not be unpacked: {said}"), "run again; the package is fetched anew"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_names_what_is_wrong_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recipe.toml");
        let fault = |text: &str| {
            fs::write(&file, text).unwrap();
            Recipe::load(&file).unwrap_err().to_string()
        };
        let package = |name: &str, licence: &str| {
            format!("# note\n[[package]]\nname = \"{name}\"\nversion = \"1.0\"\nlicence = \"{licence}\"\n")
        };
        let message = fault(&package("good", "GPL-3.0-only"));
        assert!(message.contains("recipe.toml:3") && message.contains("GPL-3.0-only"), "{message}");
        assert!(fault(&package("--index-url", "MIT")).contains("is no package"));
        assert!(fault(&package("good", "MIT").replace("version", "versoin")).contains("recipe.toml:4"));
        fs::write(&file, package("good", "MIT")).unwrap();
        assert_eq!(Recipe::load(&file).unwrap().packages.len(), 1);
    }

    #[test]
    fn the_recipe_of_the_repository_can_be_read() {
        let recipe = Recipe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/corpus.toml")).unwrap();
        let names: std::collections::BTreeSet<&str> = recipe.packages.iter().map(|p| p.name.as_str()).collect();
        assert!(names.len() == recipe.packages.len() && names.len() > 20);
    }
}
