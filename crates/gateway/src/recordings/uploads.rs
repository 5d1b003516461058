//! Uploads of long recordings, which are kept in temporary files instead of memory.
//!
//! A file has no name: it disappears with the gateway, however that ends. The start of an upload stays in
//! memory, so a short recording needs no file.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};
use std::mem;
use std::sync::Arc;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::error::{ApiError, BUSY_WAIT};
use crate::http::request_log;
use crate::options::RecordingOptions;
use voxline::error::chain;
use voxline::source::Source;

/// Bytes that are gathered before they are written to the file.
const BUFFER: usize = 128 * 1024;
/// Unit of the disk budget, in bytes: a semaphore takes 32-bit numbers of permits.
const UNIT: u64 = 1024;

/// The disk space for uploads.
pub(crate) struct UploadStore {
    options: RecordingOptions,
    /// Units of disk space that are left.
    space: Arc<Semaphore>,
}

/// Reason why an upload can't be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("audio is larger than {0} bytes")]
    TooLarge(u64),
    #[error("all of the space for uploads is taken")]
    NoSpace,
    #[error("the disk for uploads is full")]
    DiskFull,
    #[error("upload could not be stored")]
    Disk(#[source] io::Error),
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> ApiError {
        match error {
            UploadError::TooLarge(_) => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, 4009, error.to_string()),
            UploadError::NoSpace => {
                ApiError::busy(StatusCode::TOO_MANY_REQUESTS, &error.to_string(), BUSY_WAIT)
            }
            UploadError::DiskFull => {
                tracing::error!("the disk for uploads is full");
                ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, &error.to_string(), BUSY_WAIT)
            }
            UploadError::Disk(_) => ApiError::internal(&chain(&error)),
        }
    }
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> UploadError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => UploadError::DiskFull,
            _ => UploadError::Disk(error),
        }
    }
}

impl UploadStore {
    /// Creates a store without uploads.
    pub(crate) fn new(options: &RecordingOptions) -> UploadStore {
        let units = usize::try_from(options.disk_bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        let space = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
        UploadStore { options: options.clone(), space }
    }

    /// Returns the size of the largest upload that is stored, in bytes.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// Returns [`UploadError::NoSpace`] if all space is taken.
    pub(crate) fn begin(self: &Arc<UploadStore>) -> Result<Upload, UploadError> {
        let reserved = self.space.clone().try_acquire_many_owned(1).map_err(|_| UploadError::NoSpace)?;
        let store = self.clone();
        Ok(Upload { store, reserved, file: None, buffer: Vec::new(), length: 0 })
    }
}

/// An upload that is arriving. Its space is free again once this value is dropped.
pub(crate) struct Upload {
    store: Arc<UploadStore>,
    /// Permits for the units that the upload takes.
    reserved: OwnedSemaphorePermit,
    /// File with the bytes before those of `buffer`; `None` while there are no such bytes.
    file: Option<File>,
    buffer: Vec<u8>,
    length: u64,
}

impl Upload {
    /// Appends bytes.
    ///
    /// # Errors
    /// Returns [`UploadError`] if the upload is too large, or the disk has no room or fails. The upload is
    /// then incomplete.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.length += bytes.len() as u64;
        let max_bytes = self.store.options.max_bytes;
        if self.length > max_bytes {
            return Err(UploadError::TooLarge(max_bytes));
        }
        self.reserve()?;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER { self.flush().await } else { Ok(()) }
    }

    /// Reserves the units that the upload takes now.
    fn reserve(&mut self) -> Result<(), UploadError> {
        let missing = self.length.div_ceil(UNIT).saturating_sub(self.reserved.num_permits() as u64);
        let missing = u32::try_from(missing).map_err(|_| UploadError::NoSpace)?;
        let more = self.store.space.clone().try_acquire_many_owned(missing);
        self.reserved.merge(more.map_err(|_| UploadError::NoSpace)?);
        Ok(())
    }

    /// Writes the buffer to the file.
    async fn flush(&mut self) -> Result<(), UploadError> {
        let (file, mut buffer) = (self.file.take(), mem::take(&mut self.buffer));
        let directory = self.store.options.directory.clone();
        let write = move || -> io::Result<(File, Vec<u8>)> {
            let mut file = match (file, directory) {
                (Some(file), _) => file,
                (None, Some(directory)) => tempfile::tempfile_in(directory)?,
                (None, None) => tempfile::tempfile()?,
            };
            file.write_all(&buffer)?;
            buffer.clear();
            Ok((file, buffer))
        };
        let written = request_log::spawn_blocking(write).await;
        let (file, buffer) = written.map_err(|panic| UploadError::Disk(io::Error::other(panic)))??;
        (self.file, self.buffer) = (Some(file), buffer);
        Ok(())
    }

    /// Ends the upload, which is now complete. Returns its bytes, and the permit for their space.
    ///
    /// # Errors
    /// Returns [`UploadError`] if the disk has no room or fails.
    pub(crate) async fn finish(mut self) -> Result<(Source, OwnedSemaphorePermit), UploadError> {
        if self.file.is_some() {
            self.flush().await?;
        }
        let Upload { reserved, file, buffer, .. } = self;
        let Some(mut file) = file else { return Ok((Source::bytes("audio", buffer), reserved)) };
        file.rewind()?;
        Ok((Source::file("audio", file), reserved))
    }

    /// Returns the number of bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn store(options: RecordingOptions) -> Arc<UploadStore> {
        Arc::new(UploadStore::new(&options))
    }

    #[tokio::test]
    async fn an_upload_takes_space_until_its_permit_is_dropped() {
        let store = store(RecordingOptions {
            max_bytes: 4 << 20,
            disk_bytes: 4 << 20,
            ..RecordingOptions::default()
        });
        let mut upload = store.begin().unwrap();
        for _ in 0..48 {
            upload.write(&[7; 65_536]).await.unwrap();
        }
        assert_eq!(upload.length(), 3 << 20);
        assert!(upload.file.is_some() && upload.buffer.capacity() <= 2 * BUFFER);
        let (source, permit) = upload.finish().await.unwrap();
        let mut second = store.begin().unwrap();
        second.write(&[0; 1 << 20]).await.unwrap();
        assert!(matches!(second.write(&[0]).await, Err(UploadError::NoSpace)));
        assert!(matches!(store.begin().err(), Some(UploadError::NoSpace)));
        drop((second, permit));
        // The bytes are still there, though no space is counted for them any more.
        assert!(source.is_seekable());
        assert_eq!(store.space.available_permits(), 4 << 10);
    }

    #[tokio::test]
    async fn an_upload_is_refused_at_its_first_byte_too_many() {
        let store = store(RecordingOptions { max_bytes: 1_000, ..RecordingOptions::default() });
        let mut upload = store.begin().unwrap();
        upload.write(&[0; 1_000]).await.unwrap();
        assert!(matches!(upload.write(&[0]).await, Err(UploadError::TooLarge(1_000))));
    }

    #[tokio::test]
    async fn a_short_upload_needs_no_disk_and_a_longer_one_fails_without() {
        let directory = Some(PathBuf::from("/dev/null/uploads"));
        let store = store(RecordingOptions { directory, ..RecordingOptions::default() });
        let mut upload = store.begin().unwrap();
        upload.write(b"RIFF").await.unwrap();
        drop(upload.finish().await.unwrap());
        let mut upload = store.begin().unwrap();
        assert!(matches!(upload.write(&[0; BUFFER]).await, Err(UploadError::Disk(_))));
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = ApiError::from(UploadError::from(io::Error::from(ErrorKind::StorageFull)));
        assert_eq!((full.status, full.retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(BUSY_WAIT)));
        let broken = ApiError::from(UploadError::from(io::Error::from(ErrorKind::PermissionDenied)));
        assert_eq!(broken.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
