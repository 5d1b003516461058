//! Errors of the facade.

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
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The service token is no token.
    #[error(transparent)]
    Token(#[from] AuthError),
    /// Neither credentials nor a token were given.
    #[error("no credentials: expected a client id with its secret, a service token, or a token provider")]
    NoCredentials,
    /// There is no home directory to keep tokens in, and no other directory was named.
    #[error("no directory to keep tokens in: the user has no home directory, so name one with token_dir")]
    NoTokenDirectory,
}

/// Reason a transcript ended before its audio did. Events before it stay true, and the
/// [ledger](super::Transcript::ledger) says how far it came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranscriptError {
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The source could not be read to its end. What was read before is final.
    #[error(transparent)]
    Source(#[from] PipelineError),
    /// A task of the session panicked: a defect of voxline.
    #[error("the session panicked")]
    Panicked,
}
