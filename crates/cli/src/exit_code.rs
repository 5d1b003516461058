//! Exit codes of the program, and the conversion of errors to them.

use std::error::Error;
use std::process::ExitCode;

use crate::config::ConfigError;
use voxline::audio::WavError;
use voxline::auth::{AuthError, AuthErrorKind};
use voxline::client::{BuildError, StartError, TranscriptError};
use voxline::decode::DecodeError;
use voxline::engine::EngineError;
use voxline::error::chain;
use voxline::net::TlsError;
use voxline::pipeline::PipelineError;
use voxline::session::SessionError;
use voxline::source::SourceError;
use voxline::speech::{SpeechError, SpeechErrorKind};
use voxline::spool::SpoolError;
use voxline_gateway::BadTls;
use voxline_gateway::authority::AuthorityError;

/// Name of standard output in messages.
pub(crate) const STDOUT: &str = "standard output";

/// An exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// No speech was recognised.
    Nothing = 1,
    /// Invalid usage, configuration or set-up: a flag, a file, a model.
    Setup = 2,
    /// Invalid input audio.
    Input = 3,
    /// Failed authentication.
    Authentication = 4,
    /// The service is unreachable or failed.
    Peer = 5,
    /// A limit of the service was reached.
    Limit = 6,
    /// Output can't be written.
    Output = 7,
    /// Interrupted by ctrl-c (128 + SIGINT).
    Interrupted = 130,
    /// Terminated (128 + SIGTERM).
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error that ends the program or a part of its work: a line for the user, and the exit code.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    message: String,
    /// `true` if the reader of standard output has closed the pipe, which is not reported.
    pub(crate) unread: bool,
}

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> CliError {
        CliError { exit, message: message.into(), unread: false }
    }

    /// Returns the error with the message of `error`, and those of the errors behind it.
    pub(crate) fn of(exit: Exit, error: &(dyn Error + 'static)) -> CliError {
        CliError::new(exit, chain(error).to_string())
    }

    /// Appends `more` to the message.
    pub(crate) fn with(self, more: &str) -> CliError {
        CliError { message: format!("{}{more}", self.message), ..self }
    }

    pub(crate) fn output(name: &str, error: &std::io::Error) -> CliError {
        CliError::new(Exit::Output, format!("{name}: {error}"))
    }

    /// Returns the error for a failed write to standard output. A pipe whose reader has closed it, as `head`
    /// does once it has its lines, ends the program silently and successfully.
    pub(crate) fn stdout(error: &std::io::Error) -> CliError {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => CliError {
                unread: true,
                ..CliError::new(Exit::Done, "standard output: closed by its reader")
            },
            _ => CliError::output(STDOUT, error),
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        CliError::of(Exit::Setup, &error)
    }
}

impl From<TlsError> for CliError {
    fn from(error: TlsError) -> CliError {
        CliError::of(Exit::Setup, &error)
    }
}

impl From<BadTls> for CliError {
    fn from(error: BadTls) -> CliError {
        CliError::of(Exit::Setup, &error)
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> CliError {
        CliError::of(Exit::Setup, &error)
    }
}

impl From<AuthorityError> for CliError {
    fn from(error: AuthorityError) -> CliError {
        CliError::of(Exit::Setup, &error)
    }
}

impl From<SourceError> for CliError {
    fn from(error: SourceError) -> CliError {
        CliError::of(Exit::Input, &error)
    }
}

impl From<DecodeError> for CliError {
    fn from(error: DecodeError) -> CliError {
        // Headerless audio looks like noise, and recording programs often write it to a pipe.
        let hint = match &error {
            DecodeError::UnknownFormat { .. } => {
                "; if it is headerless PCM, say which with --raw, as --raw s16le:16000"
            }
            _ => "",
        };
        CliError::of(Exit::Input, &error).with(hint)
    }
}

impl From<WavError> for CliError {
    fn from(error: WavError) -> CliError {
        match &error {
            WavError::Write { name, error, .. } if name == STDOUT => CliError::stdout(error),
            _ => CliError::of(Exit::Output, &error),
        }
    }
}

impl From<PipelineError> for CliError {
    fn from(error: PipelineError) -> CliError {
        match error {
            // The transcript itself tells where decoding stopped.
            PipelineError::Decode(error) | PipelineError::Stopped { error, .. } => error.into(),
            error => CliError::of(Exit::Input, &error),
        }
    }
}

impl From<AuthError> for CliError {
    fn from(error: AuthError) -> CliError {
        let exit = match error.kind() {
            AuthErrorKind::Unreachable => Exit::Peer,
            AuthErrorKind::Limit => Exit::Limit,
            AuthErrorKind::Setup => Exit::Setup,
            AuthErrorKind::Authentication => Exit::Authentication,
            _ => Exit::Peer,
        };
        CliError::of(exit, &error)
    }
}

impl From<SessionError> for CliError {
    fn from(error: SessionError) -> CliError {
        let exit = match &error {
            SessionError::Authentication { .. } => Exit::Authentication,
            SessionError::Limit { .. } => Exit::Limit,
            SessionError::Unsupported { .. } | SessionError::Vault { .. } | SessionError::Buffer { .. } => {
                Exit::Setup
            }
            SessionError::Journal { .. } => Exit::Output,
            _ => Exit::Peer,
        };
        CliError::of(exit, &error)
    }
}

impl From<SpoolError> for CliError {
    fn from(error: SpoolError) -> CliError {
        let exit = match &error {
            SpoolError::Io { .. } | SpoolError::Damaged { .. } => Exit::Output,
            _ => Exit::Setup,
        };
        CliError::of(exit, &error)
    }
}

impl From<BuildError> for CliError {
    fn from(error: BuildError) -> CliError {
        match error {
            BuildError::Token(error) => error.into(),
            error => CliError::of(Exit::Setup, &error),
        }
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> CliError {
        match error {
            StartError::Open(error) => error.into(),
            StartError::Source(error) => error.into(),
            StartError::Spool(error) => error.into(),
            error => CliError::of(Exit::Setup, &error),
        }
    }
}

impl From<TranscriptError> for CliError {
    fn from(error: TranscriptError) -> CliError {
        match error {
            TranscriptError::Session(error) => error.into(),
            TranscriptError::Source(error) => error.into(),
            TranscriptError::Spool(error) => error.into(),
            error => CliError::of(Exit::Peer, &error),
        }
    }
}

impl From<SpeechError> for CliError {
    fn from(error: SpeechError) -> CliError {
        let exit = match error.kind() {
            SpeechErrorKind::Authentication => Exit::Authentication,
            SpeechErrorKind::Limit => Exit::Limit,
            SpeechErrorKind::Request => Exit::Setup,
            _ => Exit::Peer,
        };
        CliError::of(exit, &error)
    }
}
