//! Errors of the client.

use crate::auth::AuthError;
use crate::net::{EndpointError, TlsError};
#[cfg(feature = "decode")]
use crate::pipeline::PipelineError;
use crate::protocol::HintError;
use crate::session::SessionError;
#[cfg(feature = "decode")]
use crate::source::SourceError;
use crate::spool::{SpoolError, SpooledError};

/// Reason a [`Client`](super::Client) could not be built. The caller corrects what the variant names; no
/// request was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The endpoint is not the base address of a service.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The service token can't be sent in a header.
    #[error(transparent)]
    Token(#[from] AuthError),
    /// Neither credentials nor a token nor a provider of tokens was given.
    #[error("no credentials: expected a client id with its secret, a service token, or a token provider")]
    NoCredentials,
    /// No directory for tokens was given, and the user has no home directory.
    #[cfg(feature = "oauth")]
    #[error("no directory to keep tokens in: the user has no home directory, so name one with token_dir")]
    NoTokenDirectory,
}

/// Reason a transcription could not be started. Nothing was sent, so the caller may start it again once what
/// the variant names is corrected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The source can't be opened.
    #[cfg(feature = "decode")]
    #[error(transparent)]
    Open(#[from] SourceError),
    /// The source holds no audio that can be decoded.
    #[cfg(feature = "decode")]
    #[error(transparent)]
    Source(#[from] PipelineError),
    /// The channels are split, and each has a transcript of its own.
    #[cfg(feature = "decode")]
    #[error("the channels are split: start_by_channel has a transcript for each")]
    SplitChannels,
    /// Live audio has a sample rate that no session takes.
    #[error("a sample rate of {actual}, expected 8000 to 48000")]
    SampleRate {
        /// Frames per second, as given.
        actual: u32,
    },
    /// The prompt or the keywords are too long.
    #[error(transparent)]
    Hints(#[from] HintError),
    /// The spool can't be opened, or belongs to other audio.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The source has fewer channels than the spools that an earlier process left.
    #[cfg(feature = "decode")]
    #[error("{source_name}: has {channels} channels, but its spools are of {spools}")]
    Channels {
        /// Name of the source.
        source_name: String,
        /// Number of channels that the source has.
        channels: usize,
        /// Number of channels that have a spool.
        spools: usize,
    },
}

/// Reason a transcript ended before its audio did. Events before the error stay valid, and the
/// [ledger](super::Transcript::ledger) says how far the transcript came. One that [is
/// resumable](super::Transcript::is_resumable) goes on in a later process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranscriptError {
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The source could not be read to its end. All audio before the failure is final.
    #[cfg(feature = "decode")]
    #[error(transparent)]
    Source(#[from] PipelineError),
    /// The spool can't be written or read. A later process resumes the transcription.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The task of the session, or the one that waits for the reader of its source, panicked, which is a
    /// defect of voxline, or their runtime was shut down.
    #[error("the session was broken off: it panicked, or its runtime was shut down")]
    Panicked,
}

impl From<SpooledError> for TranscriptError {
    fn from(error: SpooledError) -> TranscriptError {
        match error {
            SpooledError::Session(error) => TranscriptError::Session(error),
            SpooledError::Spool(error) => TranscriptError::Spool(error),
        }
    }
}
