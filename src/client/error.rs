//! Errors of the client.

use crate::auth::AuthError;
use crate::net::{BadEndpoint, TlsError};
use crate::pipeline::PipelineError;
use crate::session::SessionError;

/// Reason a [`Client`](super::Client) could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The endpoint is not the base address of a service.
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
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
    #[error("no directory to keep tokens in: the user has no home directory, so name one with token_dir")]
    NoTokenDirectory,
}

/// Reason a transcript ended before its audio did. Events before the error stay valid, and the
/// [ledger](super::Transcript::ledger) says how far the transcript came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranscriptError {
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The source could not be read to its end. All audio before the failure is final.
    #[error(transparent)]
    Source(#[from] PipelineError),
    /// The task of the session panicked, which is a defect of voxline, or its runtime was shut down.
    #[error("the session was broken off: it panicked, or its runtime was shut down")]
    Panicked,
}
