//! Task, prompt, keywords and accuracy, on their ways from a client to the recogniser.

use std::sync::{Arc, Mutex};

use reqwest::Response;
use secrecy::ExposeSecret;
use serde_json::Value;
use voxline::client::{Live, StartError, Transcript, TranscriptError, Transcription};
use voxline::engine::{
    Accuracy, Capabilities, EngineError, Latency, RecognitionRequest, Recognizer, RecognizerStream, Task,
};
use voxline::protocol::HintError;
use voxline::session::SessionError;
use voxline::transcript::{FinalSegment, TranscriptEvent};
use voxline_engines::wer::normal;
use voxline_testing::DigestRecognizer;

use super::client::client;
use voxline_fixtures::clips;
use voxline_fixtures::gateway::audio::{wav, wav_of};
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::Server;
use voxline_fixtures::gateway::tokens::minted;
use voxline_fixtures::whisper::whisper;

/// A recogniser that takes every request, and keeps those that it was started with.
struct Obliging {
    digests: DigestRecognizer,
    requests: Mutex<Vec<RecognitionRequest>>,
}

impl Obliging {
    fn new() -> Arc<Obliging> {
        Arc::new(Obliging { digests: DigestRecognizer::new(8_000), requests: Mutex::default() })
    }

    /// Returns the last request, without its language and context.
    fn last(&self) -> RecognitionRequest {
        self.requests.lock().unwrap().last().expect("a stream was started").clone()
    }
}

impl Recognizer for Obliging {
    fn name(&self) -> &str {
        "obliging"
    }

    fn capabilities(&self) -> Capabilities {
        let mut all = Capabilities::default();
        all.tasks = vec![Task::Transcribe, Task::Translate];
        all.accuracy = vec![Accuracy::Fast, Accuracy::Balanced, Accuracy::Best];
        (all.prompt, all.keywords) = (true, true);
        all
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        self.requests.lock().unwrap().push(request.clone());
        self.digests.start(&RecognitionRequest::new())
    }
}

/// Posts a recording to `/asr`, with a query.
async fn asr(server: &Server, query: &str, recording: Vec<u8>) -> Response {
    let plain = minted(server);
    let request = http_client().unwrap().post(url(server, &format!("/asr?{query}")));
    request.bearer_auth(plain.expose_secret()).body(recording).send().await.unwrap()
}

/// Returns the text of an answer of `/asr`.
async fn text(answer: Response) -> String {
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    answer["result"]["texts"][0]["punctuated_text"].as_str().unwrap_or_default().to_owned()
}

/// Returns the final results of a transcript.
async fn finals(mut transcript: Transcript) -> Vec<FinalSegment> {
    let mut finals = Vec::new();
    while let Some(event) = transcript.next().await {
        if let TranscriptEvent::Final(segment) = event.unwrap() {
            finals.push(segment);
        }
    }
    finals
}

/// Sends these samples in a live session. Returns its final results.
async fn heard_live(live: Transcription<Live>, pcm: &[i16]) -> Vec<FinalSegment> {
    let (mut audio, transcript) = live.start().unwrap();
    let speaking = async {
        audio.push(pcm).await.unwrap();
        audio.finish().await.unwrap();
    };
    let (finals, ()) = tokio::join!(finals(transcript), speaking);
    finals
}

#[tokio::test]
async fn a_recogniser_is_asked_what_the_client_asks() {
    let recogniser = Obliging::new();
    let server = Server::start(recogniser.clone()).await;
    let (client, _tokens) = client(&server);
    let live = client.live(16_000).task(Task::Translate).prompt("Dear Sir,").accuracy(Accuracy::Best);
    let (audio, transcript) = live.keywords(["Voxline", "Anna Kowalska"]).start().unwrap();
    audio.finish().await.unwrap();
    finals(transcript).await;
    let asked = RecognitionRequest::new().task(Task::Translate).prompt("Dear Sir,").accuracy(Accuracy::Best);
    let asked = asked.keywords(["Voxline", "Anna Kowalska"]);
    assert_eq!(recogniser.last(), asked);

    let query = "task=translate&prompt=Dear+Sir,&keywords=Voxline,+Anna%20Kowalska,&accuracy=best";
    text(asr(&server, query, wav(1, 16_000, 16_000)).await).await;
    assert_eq!(recogniser.last(), asked.latency(Latency::Relaxed));
    text(asr(&server, "", wav(1, 16_000, 16_000)).await).await;
    assert_eq!(recogniser.last(), RecognitionRequest::new().latency(Latency::Relaxed));
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_supported_or_too_long_is_refused_by_its_name() {
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let long = "k".repeat(101);
    let long_query = format!("keywords={long}");
    let refused = [
        ("task=translate", "task 'translate' is not supported by this engine"),
        ("task=rhyme", "'rhyme' is not one of transcribe, translate"),
        ("prompt=Dear+Sir,", "prompt is not supported by this engine"),
        ("keywords=Voxline", "keywords are not supported by this engine"),
        (&long_query, "keyword of 101 bytes, the limit is 100"),
        ("accuracy=best", "accuracy 'best' is not supported by this engine"),
        ("accuracy=finest", "'finest' is not one of fast, balanced, best"),
    ];
    for (query, reason) in refused {
        let answer = asr(&server, query, wav(1, 16_000, 16_000)).await;
        assert_eq!(answer.status(), 400);
        let answer = answer.text().await.unwrap();
        assert!(answer.contains(reason), "{answer}");
    }

    let (client, _tokens) = client(&server);
    let Err(error) = client.live(16_000).keywords([long]).start() else { panic!("it is too long") };
    assert!(matches!(error, StartError::Hints(HintError::Keyword(101))), "{error}");
    let (_audio, mut transcript) = client.live(16_000).task(Task::Translate).start().unwrap();
    let error = transcript.next().await.unwrap().unwrap_err();
    let TranscriptError::Session(SessionError::Unsupported { reason, .. }) = error else {
        panic!("another error: {error}")
    };
    assert!(reason.contains("task 'translate'"), "{reason}");
    server.stop().await;
}

/// The recording says both spellings alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyword_decides_how_a_word_is_spelt() {
    let whisper = whisper().clone();
    let server = Server::start(Arc::new(whisper)).await;
    let pcm = clips::audio("en-16k", "goforward");
    let plain = text(asr(&server, "language=en", wav_of(&pcm)).await).await;
    assert_eq!(normal(&plain), ["go", "forward", "ten", "meters"]);
    let query = "language=en&keywords=metres,Voxline";
    let british = text(asr(&server, query, wav_of(&pcm)).await).await;
    assert_eq!(normal(&british), ["go", "forward", "ten", "metres"]);

    let (client, _tokens) = client(&server);
    let live = client.live(16_000).language("en").keywords(["metres", "Voxline"]);
    let finals = heard_live(live, &pcm).await;
    let live: Vec<&str> = finals.iter().map(|segment| &*segment.text).collect();
    assert_eq!(live.join(" "), british);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russian_speech_is_translated_live_and_by_request() {
    let whisper = whisper().clone();
    let server = Server::start(Arc::new(whisper)).await;
    let pcm = clips::audio("ru-telephone", "auth-incorrect");
    let english = text(asr(&server, "task=translate", wav_of(&pcm)).await).await;
    let is_english = |text: &str| {
        text.to_lowercase().contains("password") && !text.chars().any(|c| ('а'..='я').contains(&c))
    };
    assert!(is_english(&english), "{english}");

    let (client, _tokens) = client(&server);
    let finals = heard_live(client.live(16_000).task(Task::Translate), &pcm).await;
    let said: Vec<&FinalSegment> = finals.iter().filter(|segment| !segment.text.is_empty()).collect();
    let text = said.iter().map(|segment| &*segment.text).collect::<Vec<_>>().join(" ");
    assert!(is_english(&text), "{text}");
    for segment in said {
        assert_eq!(segment.language.as_deref(), Some("ru"));
        assert!(segment.words.is_empty(), "a word of a translation is placed: {segment:?}");
    }
    server.stop().await;
}
