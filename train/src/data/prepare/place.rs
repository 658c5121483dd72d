//! The directory that is being made: its temporary name, its final name, and never half of it under the latter.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Problem};

/// Removes what it started unless it is finished.
pub(super) struct Place {
    wanted: PathBuf,
    temporary: PathBuf,
    aside: PathBuf,
}

impl Place {
    /// Checks that the directory may be made. Touches nothing.
    pub fn new(output: &Path, force: bool) -> Result<Self, Error> {
        let refuse = |found: &str, expected: &str, advice: &str| {
            Err(Error::config(
                Problem::new(output, "", found, expected).advise(advice),
            ))
        };
        let Some(name) = output.file_name() else {
            return refuse(
                "no name",
                "the name of a directory to make",
                "give --output one",
            );
        };
        let is_free = match fs::read_dir(output) {
            Ok(mut entries) => entries.next().is_none(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(_) => {
                return refuse(
                    "something else there",
                    "a directory or nothing",
                    "choose another --output",
                );
            }
        };
        if !is_free && !output.join("manifest.json").is_file() {
            return refuse(
                "a directory that holds other files",
                "a free name",
                "choose another --output",
            );
        }
        if !is_free && !force {
            return refuse(
                "an existing data directory",
                "a free name",
                "choose another --output or add --force",
            );
        }
        let beside = |what: &str| {
            let mut name = name.to_os_string();
            name.push(format!(".{what}-{}", std::process::id()));
            output.with_file_name(name)
        };
        Ok(Self {
            wanted: output.to_path_buf(),
            temporary: beside("tmp"),
            aside: beside("old"),
        })
    }

    /// Makes the temporary directory.
    pub fn start(&self) -> Result<&Path, Error> {
        fs::create_dir_all(&self.temporary)
            .map_err(|e| Error::resource(&self.temporary, "create the directory", e))?;
        Ok(&self.temporary)
    }

    /// Writes the manifest and gives the directory its final name.
    pub fn finish(&self, manifest: &str) -> Result<(), Error> {
        let path = self.temporary.join("manifest.json");
        let write = || -> io::Result<()> {
            let mut file = fs::File::create_new(&path)?;
            file.write_all(manifest.as_bytes())?;
            file.sync_all()?;
            fs::File::open(&self.temporary)?.sync_all()
        };
        write().map_err(|e| Error::resource(&path, "write", e))?;
        let rename = || -> io::Result<()> {
            if self.wanted.join("manifest.json").exists() {
                fs::rename(&self.wanted, &self.aside)?;
            }
            fs::rename(&self.temporary, &self.wanted)?;
            match fs::remove_dir_all(&self.aside) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            }
        };
        rename().map_err(|e| Error::resource(&self.wanted, "put the directory in place", e))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After `finish` it is gone; after an error nobody needs it, and a failure to remove it changes nothing.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}
