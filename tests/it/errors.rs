//! The chains of errors: no text is lost in them, and none is printed twice.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use voxline::audio::{FramePos, WavError, WavWriter};
use voxline::auth::{AuthError, SlotsError, VaultError};
use voxline::client::{BuildError, StartError, TranscriptError};
use voxline::decode::{At, DecodeError, DecodeFault, ExceededLimit};
use voxline::engine::{EngineError, ModelFault, ProgramFault};
use voxline::error::chain;
use voxline::net::{ConnectError, Endpoint, RequestError, TlsError, Trust};
use voxline::peer::ConnectionLost;
use voxline::pipeline::{PipelineError, Report};
use voxline::protocol::Violation;
use voxline::recovery::{Failure, FailureKind, Recovery};
use voxline::resample::Resampler;
use voxline::session::SessionError;
use voxline::source::{Source, SourceError};
use voxline::speech::{Interruption, SpeechError};
use voxline::spool::{SpoolError, SpooledError};
use voxline::transcript::{Format, WriterError};

/// The innermost message of every error below that has an error of the system behind it.
const CAUSE: &str = "the cable was cut";

fn cause() -> io::Error {
    io::Error::other(CAUSE)
}

fn endpoint() -> String {
    "https://speech.example".to_owned()
}

fn unreachable() -> AuthError {
    let source = RequestError::from(ConnectError::from(cause())).into();
    AuthError::Unreachable { endpoint: endpoint(), source, may_have_arrived: true }
}

fn decoding() -> DecodeError {
    DecodeError::Read { name: "a.wav".to_owned(), at: At { frame: 1, sample_rate: 8_000 }, error: cause() }
}

fn spool() -> SpoolError {
    SpoolError::Io { path: PathBuf::from("call.spool"), source: cause() }
}

fn failure(kind: FailureKind) -> Failure {
    Failure::new(Recovery::Retry, kind, "cannot reach the peer").caused_by(ConnectError::from(cause()))
}

fn sessions() -> impl Iterator<Item = SessionError> {
    let kinds = [
        FailureKind::Unreachable,
        FailureKind::Authentication,
        FailureKind::Vault,
        FailureKind::Limit,
        FailureKind::Unsupported,
        FailureKind::Protocol,
    ];
    let journal = SessionError::Journal { source: io::Error::from(spool()).into() };
    let unreadable = SessionError::Violation(Violation::Unreadable { source: cause().into() });
    kinds.into_iter().map(|kind| SessionError::from(failure(kind))).chain([journal, unreadable])
}

/// Returns every error of the library that can have an error of the system behind it.
fn caused() -> Vec<Box<dyn Error>> {
    let stopped = |error| PipelineError::Stopped { error, report: Report::default() };
    let no_speech =
        |source| SpeechError::Unreachable { endpoint: endpoint(), recovery: Recovery::Retry, source };
    let request = || RequestError::Lost(cause().into());
    let path = || PathBuf::from("tokens.vault");
    let (model, hint) = ("model.bin".to_owned(), "fetch it".to_owned());
    let model = EngineError::Model { path: model, reason: ModelFault::Read(cause()), hint };
    let mut errors: Vec<Box<dyn Error>> = vec![
        Box::new(WavError::Create { name: "a.wav".to_owned(), error: cause() }),
        Box::new(WavError::Write { name: "a.wav".to_owned(), frames: 1, error: cause() }),
        Box::new(WriterError::Output { format: Format::Srt, error: cause() }),
        Box::new(SourceError::Open { path: "a.wav".to_owned(), error: cause() }),
        Box::new(StartError::Open(SourceError::Open { path: "a.wav".to_owned(), error: cause() })),
        Box::new(decoding()),
        Box::new(PipelineError::Decode(decoding())),
        Box::new(stopped(decoding())),
        Box::new(PipelineError::Thread(cause())),
        Box::new(TlsError::Read { path: path(), error: cause() }),
        Box::new(TlsError::Config(Box::new(cause()))),
        Box::new(TlsError::Client(Box::new(cause()))),
        Box::new(BuildError::Tls(TlsError::Read { path: path(), error: cause() })),
        Box::new(ConnectError::from(cause())),
        Box::new(ConnectionLost::Failed(cause().into())),
        Box::new(request()),
        Box::new(unreachable()),
        Box::new(AuthError::Waiting { error: Box::new(unreachable()), wait: Duration::from_secs(1) }),
        Box::new(AuthError::Vault(VaultError::Io { path: path(), source: Arc::new(cause()) })),
        Box::new(no_speech(Interruption::Request(request()))),
        Box::new(no_speech(Interruption::BrokenOff(Some(request())))),
        Box::new(SpeechError::Auth(unreachable())),
        Box::new(spool()),
        Box::new(io::Error::from(spool())),
        Box::new(SpooledError::Spool(spool())),
        Box::new(StartError::Spool(spool())),
        Box::new(TranscriptError::Source(stopped(decoding()))),
        Box::new(failure(FailureKind::Unreachable)),
        Box::new(model),
        Box::new(EngineError::Program { program: "espeak-ng".to_owned(), reason: ProgramFault::Io(cause()) }),
        Box::new(EngineError::inference("whisper", cause())),
    ];
    errors.extend(sessions().map(|error| Box::new(error) as Box<dyn Error>));
    errors.extend(sessions().map(|error| Box::new(TranscriptError::Session(error)) as Box<dyn Error>));
    errors
}

/// Returns errors that calls of the library return, and errors behind which there is one of the library.
fn others() -> Vec<Box<dyn Error>> {
    let rates = Resampler::new(1, 16_000).unwrap_err();
    let at = At { frame: 1, sample_rate: 8_000 };
    let last = Box::new(DecodeFault::Malformed("no frame".to_owned()));
    let broken = DecodeFault::BrokenPackets { packets: 256, last };
    let slots = SlotsError::AllTaken { held: "25 held".to_owned() };
    vec![
        Box::new(WavWriter::create("no/such/place.wav", 16_000, 1).unwrap_err()),
        Box::new(Source::open("no/such/place.wav").unwrap_err()),
        Box::new(Trust::with_file(Path::new("no/such/place.pem")).unwrap_err()),
        Box::new("http://speech.example".parse::<Endpoint>().unwrap_err()),
        Box::new(DecodeError::Header { name: "a.m4a".to_owned(), fault: DecodeFault::NoIndex }),
        Box::new(DecodeError::Corrupt { name: "a.m4a".to_owned(), at, fault: broken }),
        Box::new(DecodeError::Limit { name: "a.m4a".to_owned(), at, limit: ExceededLimit::Frames(1) }),
        Box::new(PipelineError::Resample { name: "a.wav".to_owned(), error: rates }),
        Box::new(AuthError::Slots(slots)),
        Box::new(SessionError::Violation(Violation::FinalIndex { index: 2, next: 1 })),
        Box::new(SpooledError::Session(SessionError::Violation(Violation::BinaryFrame))),
        Box::new(SpoolError::Damaged { path: PathBuf::from("a"), offset: 1, position: FramePos(1) }),
    ]
}

/// Checks that no error of the chain has the message of the one behind it.
fn assert_no_repetition(error: &(dyn Error + 'static)) {
    for error in successors(Some(error), |&error| error.source()) {
        let (said, source) = (error.to_string(), error.source().map(ToString::to_string));
        assert!(!said.is_empty() && !said.ends_with(':'), "{error:?}");
        assert!(
            source.is_none_or(|source| !said.contains(&source)),
            "{error:?} has its source's message: {said}"
        );
    }
}

#[test]
fn no_message_has_that_of_its_source() {
    caused().iter().chain(&others()).for_each(|error| assert_no_repetition(&**error));
}

#[test]
fn a_printed_chain_has_each_message_once() {
    for error in caused() {
        let printed = chain(&*error).to_string();
        assert_eq!(printed.matches(CAUSE).count(), 1, "{printed}");
        assert!(printed.starts_with(&error.to_string()), "{printed}");
    }
}
