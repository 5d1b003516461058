//! The stream of numbered chunks, called by an independent client with the documented requests. The
//! recogniser writes digests, so that a text proves which samples were received.

mod lifetime;
mod rights;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::timeout;
use voxline_gateway::Options;
use voxline_gateway::authority::{NewToken, Terms};
use voxline_testing::DigestRecognizer;

use crate::stream::{audio, digest};
use voxline_fixtures::formats::mend_ogg;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{http_client, refusal, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::tokens::minted;
use voxline_fixtures::samples::sample;

/// Half a second.
const SEGMENT: usize = 8_000;
/// Number of frames that the public clients send in a chunk.
const CHUNK: usize = 1_000;
/// Longest wait of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

const OUT_OF_ORDER: (StatusCode, u64) = (StatusCode::BAD_REQUEST, 4101);
const OVER: (StatusCode, u64) = (StatusCode::BAD_REQUEST, 4102);
const NO_TASK: (StatusCode, u64) = (StatusCode::NOT_FOUND, 4104);
const NO_TOKEN: (StatusCode, u64) = (StatusCode::UNAUTHORIZED, 4048);

/// Returns the options of a gateway that stops without waiting for unfinished work.
fn options() -> Options {
    Options { drain: Duration::ZERO, ..Options::default() }
}

/// A gateway and a client of it.
struct Bench {
    server: Server,
    recognizer: Arc<DigestRecognizer>,
    http: Client,
}

impl Bench {
    async fn new(options: Options) -> Bench {
        let recognizer = Arc::new(DigestRecognizer::new(SEGMENT));
        let server = Server::with(recognizer.clone(), Setup { options, ..Setup::default() }).await;
        Bench { server, recognizer, http: http_client().unwrap() }
    }

    fn service(&self, terms: Terms) -> NewToken {
        self.server.gateway.authority().create_service_token("test", terms).unwrap()
    }

    async fn ask_task(&self, token: &SecretString) -> Response {
        let request = self.http.post(url(&self.server, "/asr_stream/create_task"));
        request.bearer_auth(token.expose_secret()).send().await.unwrap()
    }

    async fn task_of(&self, token: &SecretString) -> Task<'_> {
        let answer = self.ask_task(token).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = answer.json().await.unwrap();
        let text = |name: &str| answer["result"][name].as_str().unwrap().to_owned();
        assert_eq!(
            answer,
            json!({ "qid": qid(&answer), "result": {
                "task_id": text("task_id"), "task_token": text("task_token"),
            }})
        );
        Task { bench: self, id: text("task_id"), token: text("task_token") }
    }

    async fn task(&self) -> Task<'_> {
        self.task_of(&minted(&self.server)).await
    }

    /// Returns the number of sessions and tasks of the gateway.
    async fn live(&self) -> u64 {
        let health = self.http.get(url(&self.server, "/healthz")).send().await.unwrap();
        health.json::<Value>().await.unwrap()["sessions"].as_u64().unwrap()
    }
}

struct Task<'a> {
    bench: &'a Bench,
    id: String,
    token: String,
}

impl Task<'_> {
    /// Sends a chunk with these parameters and this token.
    async fn add_as(&self, token: &str, parameters: &str, file: Vec<u8>) -> Response {
        let address = url(&self.bench.server, &format!("/asr_stream/add_chunk?{parameters}"));
        let request = self.bench.http.post(address).bearer_auth(token);
        request.header("content-type", "audio/wave").body(file).send().await.unwrap()
    }

    /// Sends a chunk. `position` is its number, with further parameters if any.
    async fn add(&self, position: &str, file: Vec<u8>) -> Response {
        self.add_as(&self.token, &format!("task_id={}&chunk_num={position}", self.id), file).await
    }

    /// Sends a chunk. Returns the text so far, from an answer that must have the documented shape.
    async fn added(&self, position: &str, file: Vec<u8>) -> String {
        let answer = self.add(position, file).await;
        if answer.status() != StatusCode::OK {
            panic!("{position}: {}", answer.text().await.unwrap());
        }
        let answer: Value = answer.json().await.unwrap();
        // A digest has neither capitals nor punctuation.
        let text = answer["result"]["text"].as_str().unwrap().to_owned();
        let expected = json!({ "qid": qid(&answer), "result": { "text": text, "punctuated_text": text } });
        assert_eq!(answer, expected);
        text
    }

    async fn refused(&self, position: &str, file: Vec<u8>) -> (StatusCode, u64) {
        refusal(self.add(position, file).await).await
    }

    async fn ask_result(&self, token: &str, id: &str) -> Response {
        let address = url(&self.bench.server, &format!("/asr_stream/get_result?task_id={id}"));
        self.bench.http.get(address).bearer_auth(token).send().await.unwrap()
    }

    /// Returns text and status, from an answer that must have the documented shape.
    async fn result(&self) -> (String, String) {
        let answer = self.ask_result(&self.token, &self.id).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = answer.json().await.unwrap();
        let text = |name: &str| answer["result"][name].as_str().unwrap().to_owned();
        let (said, status) = (text("text"), text("status"));
        let result = json!({ "text": said, "punctuated_text": said, "status": status });
        assert_eq!(answer, json!({ "qid": qid(&answer), "result": result }));
        (said, status)
    }

    /// Requests the result until the task has `text` and `status`.
    async fn comes_to(&self, text: &str, status: &str) {
        let expected = (text.to_owned(), status.to_owned());
        let asking = async { while self.result().await != expected {} };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("not '{text}', {status}"));
    }
}

fn qid(answer: &Value) -> &str {
    let qid = answer["qid"].as_str().unwrap();
    assert!(is_hex(qid, 32), "{qid}");
    qid
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns a complete WAV file of these samples.
fn file(rate: u32, pcm: &[i16]) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    pcm.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
    writer.finalize().unwrap();
    file.into_inner()
}

/// Returns the text that the recogniser gives for all of `pcm`.
fn text(pcm: &[i16]) -> String {
    pcm.chunks(SEGMENT).map(digest).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_public_client_hears_what_the_whole_recording_says() {
    let bench = Bench::new(options()).await;
    let token = minted(&bench.server);
    let pcm = audio(20_500);
    let whole = bench.http.post(url(&bench.server, "/asr")).bearer_auth(token.expose_secret());
    let whole: Value = whole.body(file(16_000, &pcm)).send().await.unwrap().json().await.unwrap();

    // One client counts from 0 and marks only the last chunk; the other counts from 1 and also marks the
    // chunks that are not the last.
    for (first, other) in [(0, ""), (1, "&last=0")] {
        let task = bench.task_of(&token).await;
        let groups: Vec<&str> = task.id.split('-').collect();
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(is_hex(&task.id.replace('-', ""), 32) && groups[2].starts_with('4'), "{}", task.id);
        assert!(is_hex(&task.token, 64));

        let chunks: Vec<&[i16]> = pcm.chunks(CHUNK).collect();
        let (last, others) = chunks.split_last().unwrap();
        for (index, chunk) in others.iter().enumerate() {
            task.added(&format!("{}{other}", first + index), file(16_000, chunk)).await;
        }
        // Two final results, and the partial result for the rest.
        task.comes_to(&text(&pcm[..20_000]), "in_progress").await;
        let said = task.added(&format!("{}&last=1", first + others.len()), file(16_000, last)).await;
        assert_eq!(said, text(&pcm));
        assert_eq!(said, whole["result"]["texts"][0]["text"]);
        assert_eq!(task.result().await, (said, "done".to_owned()));
    }
    for heard in bench.recognizer.recordings() {
        assert_eq!(heard, pcm);
    }
    bench.server.stop().await;
}

#[tokio::test]
async fn a_chunk_that_is_repeated_is_heard_once() {
    let bench = Bench::new(options()).await;
    let (task, pcm) = (bench.task().await, audio(4_000));
    let chunk = |index: usize| file(16_000, &pcm[index * CHUNK..][..CHUNK]);
    // All are sent at once, and wait for one another.
    let answers = join_all((0..8).map(|_| task.added("0", chunk(0)))).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    task.added("1", chunk(1)).await;
    for (position, index) in [("0", 0), ("1", 2), ("3", 2), ("1&last=1", 1), ("18446744073709551615", 2)] {
        assert_eq!(task.refused(position, chunk(index)).await, OUT_OF_ORDER, "{position}");
    }
    // A refused chunk leaves its number free.
    task.added("2", chunk(2)).await;
    let done = task.added("3&last=1", chunk(3)).await;
    assert_eq!(done, text(&pcm));
    assert_eq!(task.added("3&last=1", chunk(3)).await, done);
    assert_eq!(task.refused("4", chunk(0)).await, OVER);
    assert_eq!(bench.recognizer.recordings(), std::slice::from_ref(&pcm));

    let other = bench.task().await;
    assert_eq!(other.refused("2", chunk(0)).await, OUT_OF_ORDER);
    bench.server.stop().await;
}

#[tokio::test]
async fn a_chunk_has_the_documented_limits() {
    let bench = Bench::new(options()).await;
    let task = bench.task().await;
    let opus = fs::read(sample("speech-16k-mono-voip.opus")).unwrap();
    for (code, file) in [
        (4009, vec![0; 32_101]),
        (4033, b"no audio at all".to_vec()),
        (4034, Vec::new()),
        (4043, wav(1, 8_000, 8_001)),
        (4044, wav(2, 16_000, 100)),
        (4045, wav(1, 4_000, 100)),
    ] {
        assert_eq!(task.refused("0", file).await, (StatusCode::BAD_REQUEST, code));
    }
    for position in ["", "x", "-1", "0&last=2", "0&last="] {
        let answer = task.refused(position, wav(1, 16_000, 100)).await;
        assert_eq!(answer, (StatusCode::BAD_REQUEST, 400), "{position}");
    }
    let nameless = task.add_as(&task.token, "chunk_num=0", wav(1, 16_000, 100)).await;
    assert_eq!(refusal(nameless).await, (StatusCode::BAD_REQUEST, 400));

    // Whole seconds fit, at other rates and in other containers: here an Ogg Opus file with one page of
    // audio, which is its last.
    let pages: Vec<usize> =
        opus.windows(4).enumerate().filter(|(_, w)| w == b"OggS").map(|(at, _)| at).collect();
    task.added("0", wav(1, 16_000, 16_000)).await;
    task.added("1", wav(1, 8_000, 8_000)).await;
    let mut page = opus[..pages[3]].to_vec();
    page[pages[2] + 5] |= 4;
    mend_ogg(&mut page);
    task.added("2&last=1", page).await;
    let heard = &bench.recognizer.recordings()[0];
    assert!((46_000..=48_000).contains(&heard.len()), "{}", heard.len());
    bench.server.stop().await;
}
