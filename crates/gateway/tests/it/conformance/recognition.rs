//! `/asr`: types, limits, codes, and the answer as the public clients read it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::Value;
use voxline_gateway::Options;
use voxline_gateway::authority::{Scope, Terms};
use voxline_testing::{DigestRecognizer, ManualClock};

use super::{Answer, CLIENTS, ask, get, head, is_hex, is_qid, post, read_answer, server, token};
use voxline_engines::wer::WordErrors;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::samples::models_dir;
use voxline_fixtures::samples::sample;

/// 2022-09-21, 15:15:59 UTC.
const NOW: Duration = Duration::from_secs(1_663_773_359);
const BOTH: [&str; 2] = ["speech-16k-mono-s16.wav", "speech-16k-mono-voip.opus"];

/// Returns the only hypothesis of an answer, which must have the documented shape.
fn hypothesis(answer: &Answer) -> Value {
    let answer = answer.ok();
    assert!(is_qid(&answer["qid"]), "{answer}");
    assert_eq!(answer.as_object().unwrap().len(), 2);
    let result = answer["result"].as_object().unwrap();
    let phrase: Vec<&str> = result["phrase_id"].as_str().unwrap().split('-').collect();
    assert!(phrase.iter().all(|group| is_hex(group)) && phrase[2].starts_with('4'), "{phrase:?}");
    assert!(phrase.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]), "{phrase:?}");
    assert_eq!(result.len(), 2);
    let [text] = &result["texts"].as_array().unwrap()[..] else { panic!("{result:?}") };
    assert_eq!(text.as_object().unwrap().len(), 3);
    assert!(text["text"].is_string() && text["punctuated_text"].is_string(), "{text}");
    assert!((0.0..=1.0).contains(&text["confidence"].as_f64().unwrap()), "{text}");
    text.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_known_by_its_bytes_whatever_its_type() {
    let server = server(Options::default()).await;
    let token = token(&server);
    for client in CLIENTS {
        for file in BOTH {
            let file = fs::read(sample(file)).unwrap();
            let ask = |content_type: &str, path: &str| {
                ask(client, &server, &post(path, file.clone()).under(&token).typed(content_type))
            };
            let text = hypothesis(&ask("audio/wave", "/asr"));
            for content_type in [
                "audio/wav",
                "audio/ogg; codecs=opus",
                "audio/ogg codecs=opus",
                "application/octet-stream",
                "multipart/form-data; boundary=x",
                "application/x-www-form-urlencoded",
                "",
            ] {
                assert_eq!(hypothesis(&ask(content_type, "/asr")), text, "{content_type}");
            }
            assert_eq!(hypothesis(&ask("audio/wave", "/asr?language=ru-RU")), text);
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phrase_is_named_by_the_gateways_clock() {
    let setup = Setup { clock: Arc::new(ManualClock::new(NOW)), ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await;
    let token = token(&server);
    for client in CLIENTS {
        let answer = ask(client, &server, &post("/asr", wav(1, 16_000, 16_000)).under(&token));
        hypothesis(&answer);
        let phrase = answer.ok()["result"]["phrase_id"].as_str().unwrap().to_owned();
        assert!(phrase.starts_with("20220921-1515-4"), "{phrase}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_has_its_code_and_holds_to_the_frame() {
    let server = server(Options::default()).await;
    let token = token(&server);
    let opus = fs::read(sample(BOTH[1])).unwrap();
    for client in CLIENTS {
        let answer = |file: Vec<u8>| ask(client, &server, &post("/asr", file).under(&token));
        for rate in [8_000, 16_000, 22_050, 44_100, 48_000] {
            hypothesis(&answer(wav(1, rate, rate)));
        }
        hypothesis(&answer(wav(1, 8_000, 8_000 * 300)));
        for (code, file) in [
            (4009, vec![0; 20 * 1024 * 1024 + 1]),
            (4033, b"no audio at all".to_vec()),
            (4033, vec![0; 20 * 1024 * 1024]),
            (4034, Vec::new()),
            (4034, wav(1, 16_000, 100)[..30].to_vec()),
            (4034, opus[..60].to_vec()),
            (4043, wav(1, 8_000, 8_000 * 300 + 1)),
            (4044, wav(2, 16_000, 100)),
            (4045, wav(1, 4_000, 100)),
        ] {
            let length = file.len();
            assert_eq!(answer(file).refusal(), (400, code), "{client:?}, {length} bytes");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_ask_is_told_so_before_anything_else() {
    let server = server(Options::default()).await;
    let authority = server.gateway.authority();
    let terms = Terms { scopes: [Scope::Tts].into_iter().collect(), ..Terms::default() };
    let deaf = authority.create_service_token("test", terms).unwrap().token;
    let service = authority.create_service_token("test", Terms::default()).unwrap().token;
    for client in CLIENTS {
        let answer =
            |token: &str| ask(client, &server, &post("/asr?language=a&language=b", "no audio").under(token));
        assert_eq!(answer("bad").refusal(), (401, 4048));
        assert_eq!(answer(deaf.expose_secret()).refusal(), (403, 4048));
        assert_eq!(answer(service.expose_secret()).refusal(), (400, 400));
        let bare = ask(client, &server, &post("/asr", "no audio"));
        assert_eq!(bare.refusal(), (401, 4048));
    }
    let project = authority.projects().unwrap()[0].name.clone();
    authority.set_active(&project, false).unwrap();
    for client in CLIENTS {
        let answer = ask(client, &server, &post("/asr", wav(1, 16_000, 100)).under(service.expose_secret()));
        assert_eq!(answer.refusal(), (400, 4049));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_refused_before_it_is_sent() {
    let server = server(Options::default()).await;
    let token = token(&server);
    let large = post("/asr", vec![0; 20 * 1024 * 1024 + 1]);
    for (request, expected) in [
        (large.clone().under(&token), (400, 4009)),
        (large.clone().under("bad"), (401, 4048)),
        (large.clone().under(&token).with("Expect", "100-continue"), (400, 4009)),
    ] {
        // No byte of the body is ever sent.
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.write_all(&head(&request)).unwrap();
        let mut first = [0; 12];
        socket.peek(&mut first).unwrap();
        assert_eq!(first, *format!("HTTP/1.1 {}", expected.0).as_bytes());
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_answer(socket).refusal(), expected);
    }
    // A body without a declared length is refused as soon as it exceeds the limit.
    let mut socket = TcpStream::connect(server.address).unwrap();
    let chunked = get("/asr").under(&token).with("Transfer-Encoding", "chunked");
    let chunked = super::Request { method: "POST", ..chunked };
    socket.write_all(&head(&chunked)).unwrap();
    let mut sent = 0;
    let mut chunk = b"10000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x10000, 0);
    chunk.extend(b"\r\n");
    while sent <= 20 * 1024 * 1024 {
        socket.write_all(&chunk).unwrap();
        sent += 0x10000;
    }
    let mut first = [0; 12];
    socket.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 400");
    drop(socket);
    server.stop().await;
}

/// Returns the text as the public clients read it from an answer: the first hypothesis, the one with the
/// highest confidence, and all joined as if they were segments.
fn as_clients_read(answer: &Value) -> [String; 3] {
    let texts = answer["result"]["texts"].as_array().unwrap();
    let text = |hypothesis: &Value| hypothesis["punctuated_text"].as_str().unwrap().to_owned();
    let sure = |hypothesis: &Value| hypothesis["confidence"].as_f64().unwrap();
    let surest = texts.iter().max_by(|a, b| sure(a).total_cmp(&sure(b)));
    [
        texts.first().map(text).unwrap_or_default(),
        surest.map(text).unwrap_or_default(),
        texts.iter().map(text).collect::<Vec<_>>().join(".\n"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_voice_says_is_heard_and_silence_is_no_text() {
    let whisper = voxline_engines::Whisper::load(&models_dir().join("whisper-base"));
    let whisper = Arc::new(whisper.unwrap_or_else(|error| panic!("{error} (or set VOXLINE_MODELS)")));
    let setup = Setup { voices: voxline_engines::voices::discover(&models_dir()), ..Setup::default() };
    let server = Server::with(whisper, setup).await;
    let token = token(&server);
    let said = "The train leaves at {7}{seven} in the ^morning^.";
    for (client, encoder) in CLIENTS.into_iter().zip(["mp3", "opus"]) {
        // An English text is spoken in English, even if the service's Russian voice is requested.
        let request = post(format!("/tts?model_name=maria&encoder={encoder}"), said).under(&token);
        let speech = ask(client, &server, &request);
        assert_eq!(speech.status, 200);
        let request = post("/asr?language=en", speech.body).under(&token);
        let answer = ask(client, &server, &request);
        let text = hypothesis(&answer);
        let heard = text["punctuated_text"].as_str().unwrap();
        let errors = WordErrors::between("the train leaves at seven in the morning", heard);
        assert!(errors.errors <= 1, "{heard}");
        assert!(text["confidence"].as_f64().unwrap() < 1.0, "{text}");
        let plain = text["text"].as_str().unwrap();
        assert!(!plain.contains(|c: char| c.is_uppercase() || c == '.'), "{plain}");
        let readings = as_clients_read(&answer.ok());
        assert!(readings.iter().all(|reading| reading == heard), "{readings:?}");

        let silence = ask(client, &server, &post("/asr", silence()).under(&token)).ok();
        assert_eq!(silence["result"]["texts"], serde_json::json!([]));
        assert_eq!(as_clients_read(&silence), [const { String::new() }; 3]);
    }
    server.stop().await;
}

/// Returns a WAV file with one second of silence.
fn silence() -> Vec<u8> {
    let mut file = wav(1, 16_000, 16_000);
    file[44..].fill(0);
    file
}
