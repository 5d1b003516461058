//! The stream of numbered chunks, called by an independent client with the documented requests. The
//! recogniser writes digests, so that a text proves which samples were received.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::timeout;
use voxline_gateway::authority::{Budget, NewToken, Scope, Terms};
use voxline_gateway::{ChunkedOptions, Options};
use voxline_testing::DigestRecognizer;

use crate::stream::{audio, digest};
use voxline_fixtures::formats::mend_ogg;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{http_client, http_client_from, refusal, url};
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
async fn a_client_that_never_says_last_is_done_after_the_gap() {
    let options = Options {
        chunked: ChunkedOptions { gap: Duration::from_millis(200), ..ChunkedOptions::default() },
        ..options()
    };
    let bench = Bench::new(options).await;
    let (task, pcm) = (bench.task().await, audio(1_000));
    task.added("1", file(16_000, &pcm)).await;
    task.comes_to(&text(&pcm), "done").await;
    assert_eq!(task.refused("2", file(16_000, &pcm)).await, OVER);
    // The last chunk may be repeated, because its answer may have been lost.
    task.added("1", file(16_000, &pcm)).await;
    assert_eq!(bench.recognizer.recordings(), [pcm]);
    bench.server.stop().await;
}

#[tokio::test]
async fn a_task_without_a_chunk_is_done_in_the_end() {
    let bench = Bench::new(Options {
        chunked: ChunkedOptions { opening: Duration::ZERO, ..ChunkedOptions::default() },
        ..options()
    })
    .await;
    let task = bench.task().await;
    task.comes_to("", "done").await;
    assert_eq!(task.refused("0", file(16_000, &audio(CHUNK as u64))).await, OVER);
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

#[tokio::test]
async fn a_task_token_opens_its_task_and_nothing_else() {
    let bench = Bench::new(options()).await;
    let creator = minted(&bench.server);
    let (task, other) = (bench.task_of(&creator).await, bench.task_of(&creator).await);
    let unknown = "05ad987e-ceee-4186-acdb-956148b91692";
    // A client without a task token can't tell an existing task from an unknown one.
    for token in ["wrong", creator.expose_secret()] {
        for id in [task.id.as_str(), unknown] {
            let answer = task.ask_result(token, id).await;
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert_eq!(refusal(answer).await, NO_TOKEN);
            let parameters = format!("task_id={id}&chunk_num=0");
            let chunk = task.add_as(token, &parameters, wav(1, 16_000, 100)).await;
            assert_eq!(refusal(chunk).await, NO_TOKEN);
        }
    }
    // Neither can the owner of another task.
    for id in [task.id.as_str(), unknown] {
        assert_eq!(refusal(task.ask_result(&other.token, id).await).await, NO_TASK);
        let parameters = format!("task_id={id}&chunk_num=0");
        let chunk = task.add_as(&other.token, &parameters, wav(1, 16_000, 100)).await;
        assert_eq!(refusal(chunk).await, NO_TASK);
    }
    let task_token = SecretString::from(task.token.clone());
    assert_eq!(refusal(bench.ask_task(&task_token).await).await, NO_TOKEN);
    assert!(bench.recognizer.recordings().iter().all(Vec::is_empty));
    bench.server.stop().await;
}

#[tokio::test]
async fn a_result_is_kept_as_long_as_the_options_say() {
    let bench = Bench::new(Options {
        chunked: ChunkedOptions { kept: Duration::ZERO, ..ChunkedOptions::default() },
        ..options()
    })
    .await;
    let (task, pcm) = (bench.task().await, audio(100));
    // The answer itself still comes.
    assert_eq!(task.added("0&last=1", file(16_000, &pcm)).await, text(&pcm));
    let forgotten =
        async { while task.ask_result(&task.token, &task.id).await.status() != StatusCode::NOT_FOUND {} };
    timeout(PATIENCE, forgotten).await.unwrap();
    assert_eq!(refusal(task.ask_result(&task.token, &task.id).await).await, NO_TASK);
    assert_eq!(task.refused("1", file(16_000, &pcm)).await, NO_TASK);
    bench.server.stop().await;
}

#[tokio::test]
async fn tasks_are_charged_and_counted_like_sessions() {
    let bench = Bench::new(Options { max_sessions: 2, ..options() }).await;
    let budget = Budget { per_day: None, total: Some(1) };
    let terms = Terms { audio: budget, max_sessions: Some(1), ..Terms::default() };
    let NewToken { id, token } = bench.service(terms);
    let task = bench.task_of(&token).await;
    task.added("0", wav(1, 16_000, 8_000)).await;
    let one_too_many = bench.task_of(&token).await;
    let full = one_too_many.add("0", wav(1, 16_000, 100)).await;
    assert_eq!(full.headers()["retry-after"], "5");
    assert_eq!(refusal(full).await, (StatusCode::TOO_MANY_REQUESTS, 429));
    let (second, third) = (bench.task().await, bench.task().await);
    second.added("0", wav(1, 16_000, 100)).await;
    let full = third.add("0", wav(1, 16_000, 100)).await;
    assert_eq!(full.headers()["retry-after"], "5");
    assert_eq!(refusal(full).await, (StatusCode::TOO_MANY_REQUESTS, 429));
    let full = bench.ask_task(&minted(&bench.server)).await;
    assert_eq!(full.headers()["retry-after"], "5");
    assert_eq!(refusal(full).await, (StatusCode::TOO_MANY_REQUESTS, 429));

    task.added("0", wav(1, 16_000, 8_000)).await;
    // A chunk that exceeds the budget costs nothing and is not recognised; a shorter one may fit.
    assert_eq!(task.refused("1", wav(1, 16_000, 16_000)).await, (StatusCode::FORBIDDEN, 403));
    task.added("1&last=1", wav(1, 16_000, 8_000)).await;
    let used = bench.server.gateway.authority().usage(Some("test")).unwrap();
    assert_eq!(used.iter().find(|entry| entry.id == id).unwrap().total.audio_ms, 1_000);
    assert_eq!(refusal(bench.ask_task(&token).await).await, (StatusCode::FORBIDDEN, 403));

    // A task that is done frees its place.
    second.added("1&last=1", wav(1, 16_000, 100)).await;
    let emptied = async { while bench.live().await > 0 {} };
    timeout(PATIENCE, emptied).await.expect("both leave their places");
    third.added("0&last=1", wav(1, 16_000, 100)).await;
    // A chunk that can't be paid for starts no recognition.
    assert_eq!(one_too_many.refused("0", wav(1, 16_000, 100)).await, (StatusCode::FORBIDDEN, 403));
    timeout(PATIENCE, async { while bench.live().await > 0 {} }).await.expect("nothing is begun");
    bench.server.stop().await;
}

#[tokio::test]
async fn a_task_without_a_chunk_holds_no_place() {
    const PLACES: usize = 2;
    let bench = Bench::new(Options { max_sessions: PLACES, ..options() }).await;
    let token = minted(&bench.server);
    let mut crashed = Vec::new();
    for _ in 0..4 * PLACES {
        crashed.push(bench.task_of(&token).await);
    }
    assert_eq!(bench.live().await, 0);
    let pcm = audio(CHUNK as u64);
    for _ in 0..2 * PLACES {
        let task = bench.task().await;
        assert_eq!(task.added("0&last=1", file(16_000, &pcm)).await, text(&pcm));
    }
    // These tasks were not abandoned after all.
    for task in crashed {
        assert_eq!(task.result().await, (String::new(), "in_progress".to_owned()));
        let chunk =
            async { while task.add("0&last=1", file(16_000, &pcm)).await.status() != StatusCode::OK {} };
        timeout(PATIENCE, chunk).await.expect("a place is free once those before are done");
        assert_eq!(task.result().await, (text(&pcm), "done".to_owned()));
    }
    bench.server.stop().await;
}

#[tokio::test]
async fn a_task_of_a_gateway_that_stops_begins_no_more() {
    let bench = Bench::new(Options { drain: PATIENCE, ..options() }).await;
    let (task, pcm) = (bench.task().await, audio(CHUNK as u64));
    let begun = bench.task().await;
    begun.added("0", file(16_000, &pcm)).await;
    bench.server.begin_stop();
    let readiness = || bench.http.get(url(&bench.server, "/readyz")).send();
    let draining = async { while readiness().await.unwrap().status() == StatusCode::OK {} };
    timeout(PATIENCE, draining).await.expect("it drains");
    assert_eq!(task.refused("0", file(16_000, &pcm)).await, (StatusCode::SERVICE_UNAVAILABLE, 503));
    begun.added("1&last=1", file(16_000, &pcm)).await;
    timeout(PATIENCE / 2, bench.server.stop()).await.expect("a task without a chunk holds nothing up");
}

#[tokio::test]
async fn scope_and_network_are_asked_for() {
    let bench = Bench::new(options()).await;
    let forbidden = (StatusCode::FORBIDDEN, 4048);
    let other = bench.service(Terms { scopes: [Scope::AsrShort].into_iter().collect(), ..Terms::default() });
    assert_eq!(refusal(bench.ask_task(&other.token).await).await, forbidden);

    let networks = vec![std::net::IpAddr::from(Ipv4Addr::LOCALHOST).into()];
    let task = bench.task_of(&bench.service(Terms { networks, ..Terms::default() }).token).await;
    assert_eq!(task.result().await.1, "in_progress");
    let elsewhere = http_client_from([127, 0, 0, 2]);
    let address = url(&bench.server, &format!("/asr_stream/get_result?task_id={}", task.id));
    let answer = elsewhere.get(address).bearer_auth(&task.token).send().await.unwrap();
    assert_eq!(refusal(answer).await, forbidden);
    // Both refusals are audited and counted, as those of any token.
    let metrics = bench.http.get(url(&bench.server, "/metrics")).send().await.unwrap().text().await.unwrap();
    for reason in ["scope", "address"] {
        let counted = format!("voxline_tokens_refused_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.contains(&counted), "{counted}{metrics}");
    }
    bench.server.stop().await;
}

#[tokio::test]
async fn a_task_ends_with_its_token() {
    let bench = Bench::new(options()).await;
    let NewToken { id, token } = bench.service(Terms::default());
    let (live, done) = (bench.task_of(&token).await, bench.task_of(&token).await);
    live.added("0", wav(1, 16_000, 100)).await;
    done.added("0&last=1", wav(1, 16_000, 100)).await;
    let bystander = bench.task().await;
    bench.server.gateway.authority().revoke_token(&id).unwrap();
    let ended = async { while bench.live().await > 1 {} };
    timeout(Duration::from_secs(1), ended).await.expect("it ends within a second");
    for task in [&live, &done] {
        assert_eq!(task.refused("1", wav(1, 16_000, 100)).await, NO_TOKEN);
        assert_eq!(refusal(task.ask_result(&task.token, &task.id).await).await, NO_TOKEN);
    }
    bystander.added("0&last=1", wav(1, 16_000, 100)).await;

    // A token that expires does not take the task's result along.
    let short = bench.service(Terms { expires_in: Some(1), ..Terms::default() });
    let (task, pcm) = (bench.task_of(&short.token).await, audio(100));
    task.added("0", file(16_000, &pcm)).await;
    task.comes_to(&text(&pcm), "done").await;
    bench.server.gateway.authority().revoke_token(&bench.service(Terms::default()).id).unwrap();
    assert_eq!(task.refused("1", file(16_000, &pcm)).await, OVER);
    assert_eq!(task.result().await.0, text(&pcm));
    bench.server.stop().await;
}

#[tokio::test]
async fn a_stopping_gateway_lets_tasks_finish_and_takes_no_more() {
    let bench = Bench::new(Options { drain: PATIENCE, ..options() }).await;
    let (token, pcm) = (minted(&bench.server), audio(2_000));
    let task = bench.task_of(&token).await;
    // A task that was done before does not delay the stop.
    bench.task_of(&token).await.added("0&last=1", file(16_000, &pcm)).await;
    task.added("0", file(16_000, &pcm[..CHUNK])).await;
    bench.server.begin_stop();
    let draining = async {
        let readiness = || bench.http.get(url(&bench.server, "/readyz")).send();
        while readiness().await.unwrap().status() == StatusCode::OK {}
    };
    timeout(PATIENCE, draining).await.unwrap();
    let refused = bench.ask_task(&token).await;
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refusal(refused).await, (StatusCode::SERVICE_UNAVAILABLE, 503));
    assert_eq!(task.added("1&last=1", file(16_000, &pcm[CHUNK..])).await, text(&pcm));
    // The stop waits for this task no longer than the task takes.
    timeout(PATIENCE / 2, bench.server.stop()).await.unwrap();
}
