//! A gateway with a recogniser that counts seconds and with voices that are tones, for the dialects that send
//! recordings and texts.

use std::sync::{Arc, Mutex};

use reqwest::{Client, Response};
use secrecy::ExposeSecret;
use voxline::audio::{FramePos, FrameRange, sample};
use voxline::decode::{self, Block, Decoder};
use voxline::engine::{
    Capabilities, EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment, Task,
};
use voxline::source::Source;
use voxline::transcript::Word;
use voxline_gateway::authority::Terms;

use voxline_fixtures::gateway::http::http_client;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::Tone;

/// A recogniser that hears the number of each second, and remembers what it was asked for. A second of
/// digital silence has no words.
#[derive(Default)]
pub(super) struct Counting {
    pub(super) requests: Mutex<Vec<RecognitionRequest>>,
}

impl Recognizer for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.tasks = vec![Task::Transcribe, Task::Translate];
        (capabilities.prompt, capabilities.keywords, capabilities.words) = (true, true, true);
        capabilities
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        self.capabilities().check(request)?;
        self.requests.lock().unwrap().push(request.clone());
        Ok(Box::new(CountingStream { pcm: Vec::new(), committed: 0 }))
    }
}

struct CountingStream {
    pcm: Vec<i16>,
    /// Number of frames before those of `pcm`.
    committed: u64,
}

impl CountingStream {
    fn segment(&mut self, frames: usize) -> Segment {
        let pcm: Vec<i16> = self.pcm.drain(..frames).collect();
        let start = FramePos(self.committed);
        self.committed += frames as u64;
        let range = FrameRange::new(start, FramePos(self.committed));
        if pcm.iter().all(|sample| *sample == 0) {
            return Segment::silence(range);
        }
        let text = format!("{}.", start.0 / 16_000);
        let words = vec![Word { range, text: text.clone(), confidence: 0.75 }];
        Segment {
            text,
            language: Some("en".to_owned()),
            confidence: Some(0.75),
            avg_log_probability: Some(-0.25),
            compression_ratio: Some(0.5),
            no_speech_probability: Some(0.125),
            tokens: vec![7, 8],
            words,
            ..Segment::silence(range)
        }
    }
}

impl RecognizerStream for CountingStream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.pcm.extend_from_slice(pcm);
        Ok((0..self.pcm.len() / 16_000).map(|_| self.segment(16_000)).collect())
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        let rest = self.pcm.len();
        Ok(if rest == 0 { Vec::new() } else { vec![self.segment(rest)] })
    }
}

/// A gateway with a client that has a service token.
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) http: Client,
    pub(super) token: String,
    pub(super) recognizer: Arc<Counting>,
}

impl Stage {
    /// Starts a gateway with default settings.
    pub(super) async fn new() -> Stage {
        Stage::with(Setup::default()).await
    }

    /// Starts a gateway whose voices are tones.
    pub(super) async fn with(setup: Setup) -> Stage {
        let recognizer = Arc::new(Counting::default());
        let setup = Setup { voices: Tone::voices(), ..setup };
        let server = Server::with(recognizer.clone(), setup).await;
        let token = service_token(&server, Terms::default());
        Stage { server, http: http_client().unwrap(), token, recognizer }
    }
}

pub(super) fn service_token(server: &Server, terms: Terms) -> String {
    let token = server.gateway.authority().create_service_token("test", terms).unwrap().token;
    token.expose_secret().to_owned()
}

pub(super) fn content_type(answer: &Response) -> &str {
    answer.headers()["content-type"].to_str().unwrap()
}

/// Returns the container, the codec and the samples of a recording.
pub(super) fn decoded(bytes: Vec<u8>) -> (&'static str, &'static str, Vec<i16>) {
    let mut decoder = Decoder::open(Source::bytes("speech", bytes), decode::Options::default()).unwrap();
    let info = decoder.info().clone();
    assert_eq!(info.channels, 1);
    let (mut block, mut samples) = (Block::new(), Vec::new());
    while decoder.next_block(&mut block).unwrap() {
        samples.extend(sample::quantise(block.samples()));
    }
    (info.container, info.codec, samples)
}
