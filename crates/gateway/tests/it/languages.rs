//! The language of requests that name none: that of the project, else that of the gateway. Clients written
//! for the original service never name a language.

use std::sync::{Arc, Mutex};

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline::language::Languages;
use voxline_gateway::Options;
use voxline_gateway::admin::{Command, perform};

use voxline_fixtures::clips;
use voxline_fixtures::gateway::audio::{wav, wav_of};
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tokens::minted;
use voxline_fixtures::whisper::whisper;

/// A recogniser that recognises nothing and keeps the requests it was started with.
#[derive(Default)]
struct Listed(Mutex<Vec<RecognitionRequest>>);

struct Deaf {
    heard: u64,
}

impl Recognizer for Listed {
    fn name(&self) -> &str {
        "listed"
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        self.0.lock().unwrap().push(request.clone());
        Ok(Box::new(Deaf { heard: 0 }))
    }
}

impl RecognizerStream for Deaf {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        let range = FrameRange::new(FramePos(self.heard), FramePos(self.heard + pcm.len() as u64));
        self.heard = range.end.0;
        Ok(vec![Segment::silence(range)])
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        Ok(Vec::new())
    }
}

fn speaking(languages: &str) -> Setup {
    let languages = languages.parse().unwrap();
    Setup { options: Options { languages, ..Options::default() }, ..Setup::default() }
}

#[tokio::test]
async fn without_a_language_it_is_the_projects_else_the_gateways() {
    // Each case lists the languages of the gateway, of the project and of the request; then those that the
    // recogniser is started with. A dash means none.
    let cases = [
        ["auto", "-", "-", ""],
        ["ru", "-", "-", "ru"],
        ["ru,en", "-", "-", "ru,en"],
        ["ru", "en,de", "-", "en,de"],
        ["ru", "auto", "-", ""],
        ["ru", "en,de", "fr", "fr"],
    ];
    for case in cases {
        let [gateway, project, named, languages] = case;
        let named = Some(named).filter(|named| *named != "-");
        let recognizer = Arc::new(Listed::default());
        let server = Server::with(recognizer.clone(), speaking(gateway)).await;
        if project != "-" {
            let languages: Languages = project.parse().unwrap();
            let set = Command::SetLanguages { name: "test".to_owned(), languages: Some(languages) };
            perform(server.gateway.authority(), set).unwrap();
        }
        let token = server.tokens().token().await.unwrap();
        let (http, plain) = (http_client().unwrap(), minted(&server));
        let query = named.map(|named| format!("?language={named}")).unwrap_or_default();
        let post = async |path: &str, token: &str| {
            let request = http.post(url(&server, path)).bearer_auth(token);
            let answer = request.body(wav(1, 16_000, 16_000)).send().await.unwrap();
            assert!(answer.status().is_success(), "{path}: {answer:?}");
            answer.json::<Value>().await.unwrap()
        };
        post(&format!("/asr{query}"), plain.expose_secret()).await;
        let created = post(&format!("/asr_stream/create_task{query}"), plain.expose_secret()).await;
        let task = |field: &str| created["result"][field].as_str().unwrap();
        let first = format!("/asr_stream/add_chunk?task_id={}&chunk_num=0&last=1", task("task_id"));
        post(&first, task("task_token")).await;
        let mut socket = Socket::dial(&server, &token).await;
        let mut start = json!({ "type": "start", "sample_rate": 16_000 });
        if let Some(named) = named {
            start["language"] = json!(named);
        }
        socket.say(&start);
        socket.hear("ready").await;
        drop(socket);
        server.stop().await;

        let asked = recognizer.0.lock().unwrap();
        // The language of a request for a task is also tried before the first chunk, in one more stream.
        assert_eq!(asked.len(), 3 + usize::from(named.is_some()), "{asked:?}");
        for request in asked.iter() {
            assert_eq!(request.languages.join(","), languages, "{case:?}");
        }
    }
}

/// Prompts of a word or two, which Whisper alone takes for Polish, Bulgarian or Serbian.
const SHORT: [&str; 3] = ["vm-goodbye", "vm-isunavail", "hello-world"];
/// Number of prompts if all are requested: the shortest ones from [`SHORTEST`] samples on, which contain a
/// word.
const PROMPTS: usize = 43;
const SHORTEST: usize = 9_600;

/// Returns the names of some prompts, or of all if `VOXLINE_PROMPTS` is set.
#[allow(clippy::disallowed_methods, reason = "a knob of the tests")]
fn prompts() -> Vec<String> {
    if std::env::var_os("VOXLINE_PROMPTS").is_none() {
        return SHORT.map(str::to_owned).to_vec();
    }
    let mut prompts: Vec<(usize, String)> = clips::names("ru-telephone")
        .into_iter()
        // Leaves out tones, and names of protocols and programs, which are spelt in Latin letters.
        .filter(|name| {
            !["spy-", "beep", "ascending", "descending"].iter().any(|start| name.starts_with(start))
        })
        .map(|name| (clips::audio("ru-telephone", &name).len(), name))
        .filter(|(length, _)| *length >= SHORTEST)
        .collect();
    prompts.sort();
    prompts.truncate(PROMPTS);
    assert_eq!(prompts.len(), PROMPTS);
    prompts.into_iter().map(|(_, name)| name).collect()
}

/// Returns whether a text of the API consists of Russian letters.
fn is_russian(text: &str) -> bool {
    text.chars().all(|c| matches!(c, 'а'..='я' | 'ё' | ' ' | '-') || c.is_ascii_digit())
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures that it prints")]
async fn short_russian_prompts_are_russian() {
    let whisper = whisper().clone();
    let server = Server::with(Arc::new(whisper), speaking("ru")).await;
    let plain = minted(&server);
    let (mut silent, mut foreign, prompts) = (Vec::new(), Vec::new(), prompts());
    for prompt in &prompts {
        let body = wav_of(&clips::audio("ru-telephone", prompt));
        let request = http_client().unwrap().post(url(&server, "/asr")).bearer_auth(plain.expose_secret());
        let answer: Value = request.body(body).send().await.unwrap().json().await.unwrap();
        let text = answer["result"]["texts"][0]["text"].as_str().unwrap_or_default();
        println!("{prompt}: {text}");
        if text.is_empty() {
            silent.push(prompt);
        } else if !is_russian(text) {
            foreign.push(format!("{prompt}: {answer}"));
        }
    }
    let (all, dumb) = (prompts.len(), silent.len());
    println!("{all} prompts: {} in another script, {dumb} without words: {silent:?}", foreign.len());
    assert!(foreign.is_empty(), "{foreign:?}");
    // A single word, trimmed closely, may give no text.
    assert!(dumb * 10 <= all, "{silent:?}");
    server.stop().await;
}
