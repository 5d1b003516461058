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

use crate::cli::{Place, text};
use crate::gateway::{url, wav};
use crate::stream::minted;
use crate::stream::socket::Socket;
use crate::support::http::http_client;
use crate::support::server::{Server, Setup};
use crate::support::serving::Serving;
use voxline_fixtures::clips;
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
        let body = clip_as_wav(&clips::audio("ru-telephone", prompt));
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

#[test]
fn what_is_detected_is_one_of_the_languages_allowed() {
    let whisper = whisper();
    let request = RecognitionRequest::from(&"ru,en".parse::<Languages>().unwrap());
    let mut russian = 0;
    for set in ["ru-telephone", "en-telephone"] {
        for prompt in SHORT {
            let mut stream = whisper.start(&request).unwrap();
            let mut segments = stream.push(&clips::audio(set, prompt)).unwrap();
            segments.extend(stream.flush().unwrap());
            for segment in segments.iter().filter(|segment| !segment.text.is_empty()) {
                let language = segment.language.as_deref().unwrap();
                assert!(["ru", "en"].contains(&language), "{set} {prompt}: {segment:?}");
                russian += usize::from(set == "ru-telephone" && language == "ru");
            }
        }
    }
    assert!(russian >= 2, "only {russian} of {} prompts are Russian", SHORT.len());
}

/// One word is too little to tell Russian from Polish. A stream that starts anew after Russian speech knows
/// the language from its context.
#[test]
fn the_language_settled_on_travels_with_the_context() {
    let whisper = whisper();
    let listen = |pcm: &[i16], context: Option<String>| {
        let mut request = RecognitionRequest::new();
        request.context = context;
        let mut stream = whisper.start(&request).unwrap();
        let mut segments = stream.push(pcm).unwrap();
        segments.extend(stream.flush().unwrap());
        segments.into_iter().rfind(|segment| !segment.text.is_empty()).expect("something is said")
    };
    let word = clips::audio("ru-telephone", "vm-isunavail");
    let before = listen(&clips::audio("ru-telephone", "queue-youarenext"), None);
    assert_eq!(before.language.as_deref(), Some("ru"));
    let context = before.context.expect("what was detected is told");
    assert_ne!(listen(&word, None).language.as_deref(), Some("ru"), "the word alone is clear by now");
    let behind = listen(&word, Some(context));
    assert_eq!(behind.language.as_deref(), Some("ru"), "{behind:?}");
    // A context of another version.
    listen(&word, Some("{\"language\":7}".to_owned()));
}

/// A word that Whisper alone takes for three words of Polish.
const POLISH: &str = "vm-isunavail";

/// The real program, whose language is set by flag, configuration key or environment variable. Its client
/// names none, like those of the original service.
#[tokio::test]
async fn serve_hears_russian_where_its_operator_says_so() {
    let place = Place::new();
    place.run(&["gateway", "project", "create", "calls", "--state", "state"]);
    let token = place.run(&["gateway", "service-token", "create", "calls", "--state", "state"]);
    let token = text(&token.stdout).trim();
    place.file("russian.toml", "language = \"ru\"\n");
    let recording = clip_as_wav(&clips::audio("ru-telephone", POLISH));
    let cases = [
        (vec!["--language", "ru"], None),
        (vec!["--config", "russian.toml"], None),
        (vec![], Some(("VOXLINE_LANGUAGE", "ru"))),
    ];
    for (flags, variable) in cases {
        let usual =
            ["serve", "--listen", "127.0.0.1:0", "--state", "state", "--threads", "1", "--max-sessions", "1"];
        let mut serve = place.command(&[&usual[..], &flags].concat());
        serve.envs(variable);
        let serving = Serving::start(serve);
        let request = http_client().unwrap().post(format!("{}/asr", serving.endpoint)).bearer_auth(token);
        let answer: Value = request.body(recording.clone()).send().await.unwrap().json().await.unwrap();
        let said = answer["result"]["texts"][0]["text"].as_str().unwrap_or_default();
        assert!(!said.is_empty() && is_russian(said), "{flags:?} {variable:?}: {answer}");
        assert_eq!(serving.stop().0.code(), Some(0));
    }
}

fn clip_as_wav(pcm: &[i16]) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    pcm.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
    writer.finalize().unwrap();
    file.into_inner()
}
