//! Errors of engines.

use std::error::Error;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use super::UnsupportedRequest;

/// Error of an engine, or of loading one. The engine stays usable for other requests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A model or voice file is missing, damaged or of an unexpected structure. `hint` tells the operator
    /// what to do, for example which command fetches the file. The message has `reason` and `hint`.
    #[error("model {path}: {reason}; {hint}")]
    Model {
        /// Path of the file or directory.
        path: String,
        /// Defect of the file.
        reason: ModelFault,
        /// Suggested remedy.
        hint: String,
    },
    /// The engine does not support the request, which a caller may reduce to what it
    /// [supports](super::Capabilities::supported_part).
    #[error(transparent)]
    Unsupported(#[from] UnsupportedRequest),
    /// A program that the engine depends on (espeak-ng, festival) is not installed or failed. Another request
    /// may succeed, once the program is installed.
    #[error("program {program} failed")]
    Program {
        /// Name of the program.
        program: String,
        /// Reason of the failure.
        #[source]
        reason: ProgramFault,
    },
    /// The computation failed. The stream or the request is over, and a new one may be started.
    #[error("{engine} failed")]
    Inference {
        /// Name of the engine.
        engine: &'static str,
        /// Error of the computation.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl EngineError {
    /// Returns the error of a computation that failed: for an error, or for a reason that is text.
    pub fn inference(engine: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> EngineError {
        EngineError::Inference { engine, source: source.into() }
    }
}

/// Defect of the file of a model or a voice. A model that is missing is fetched, and so is one that is
/// damaged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFault {
    /// The file can't be read: it is missing, say.
    #[error("{0}")]
    Read(io::Error),
    /// The file can't be parsed.
    #[error("{0}")]
    Parse(Box<dyn Error + Send + Sync>),
    /// The file can be parsed, and is not what the engine needs: a description of the difference.
    #[error("{0}")]
    Content(String),
}

impl ModelFault {
    /// Returns the defect of a file that a parser refuses.
    pub fn parse(error: impl Error + Send + Sync + 'static) -> ModelFault {
        ModelFault::Parse(error.into())
    }
}

impl From<io::Error> for ModelFault {
    fn from(error: io::Error) -> ModelFault {
        ModelFault::Read(error)
    }
}

impl From<String> for ModelFault {
    fn from(content: String) -> ModelFault {
        ModelFault::Content(content)
    }
}

/// Reason why a program that an engine depends on gave no answer. Except for a missing program, the next
/// request may be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramFault {
    /// The program is not installed.
    #[error("not installed; on Debian: apt-get install {packages}")]
    Missing {
        /// Packages of Debian that have the program.
        packages: String,
    },
    /// The program can't be run, or its output can't be read.
    #[error("cannot be run")]
    Io(#[source] io::Error),
    /// The program was still running at its deadline, and was killed.
    #[error("no answer within {0:?}; killed")]
    Deadline(Duration),
    /// The program ended with an error, or by a signal.
    #[error("{status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Exit {
        /// Status of the process.
        status: ExitStatus,
        /// Last line that the program wrote to its standard error; empty if it wrote none.
        message: String,
    },
    /// The program answered something that the engine can't use, which this describes.
    #[error("{0}")]
    Answer(String),
}
