//! `/tts`: requests, forms, limits and marks.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use voxline::engine::{EngineError, Voice, VoiceInfo, Voices};
use voxline_gateway::Options;
use voxline_gateway::authority::Amount;
use voxline_testing::DigestRecognizer;

use super::{Answer, CLIENTS, Request, ask, get, head, post, server, token};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::voice_info;

const PCM_TYPE: &str = "audio/l16;rate=24000;channels=1;endianness=big-endian";
const REFUSED: (u16, u64) = (400, 4051);
/// Number of bytes of PCM for each character that the tone speaks.
const A_LETTER: usize = 2 * 100;

/// Returns the samples of a PCM answer.
fn samples(answer: &Answer) -> Vec<i16> {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), Some(PCM_TYPE));
    let (samples, rest) = answer.body.as_chunks();
    assert!(rest.is_empty());
    samples.iter().map(|&sample| i16::from_be_bytes(sample)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_taken_from_the_address_or_the_body_whatever_its_type() {
    let server = server(Options::default()).await;
    let token = token(&server);
    for client in CLIENTS {
        let got = ask(client, &server, &get("/tts?text=Hello%2C+world.").under(&token));
        assert_eq!(samples(&got), vec![0x1234; 100 * "Hello, world.".len()]);
        let types =
            ["text/plain", "text/plain; charset=utf-8", "application/text", "audio/ogg; codecs=opus", ""];
        for content_type in types {
            let posted = post("/tts", "Hello, world.").under(&token).typed(content_type);
            assert_eq!(samples(&ask(client, &server, &posted)), samples(&got), "{client:?}, {content_type}");
        }
        // Fields as HTML forms and HTTP libraries send them: percent-encoded, with plus signs, and with a
        // charset that changes nothing.
        for (form, content_type) in [
            ("text=Hello%2C+world.", "application/x-www-form-urlencoded"),
            ("encoder=pcm&text=Hello%2c%20world%2E", "application/x-www-form-urlencoded; charset=UTF-8"),
            ("text=Hello, world.", "APPLICATION/X-WWW-FORM-URLENCODED;charset=utf-8"),
        ] {
            let posted = post("/tts", form).under(&token).typed(content_type);
            assert_eq!(samples(&ask(client, &server, &posted)), samples(&got), "{client:?}, {form}");
            // With any other content type the body is the text itself.
            let spelt = ask(client, &server, &post("/tts", form).under(&token).typed("audio/ogg"));
            assert_eq!(samples(&spelt).len(), 100 * form.len());
        }
        // The form's fields mean the same as those in the address, which take precedence.
        let form = |address: &str, body: &str| {
            let typed = post(address, body).under(&token).typed("application/x-www-form-urlencoded");
            ask(client, &server, &typed)
        };
        assert_eq!(form("/tts", "text=a&tempo=9").refusal(), REFUSED);
        assert_eq!(samples(&form("/tts?tempo=1", "text=a&tempo=9")).len(), 100);
        assert_eq!(form("/tts", "text=%FF").refusal(), REFUSED);
        assert_eq!(form("/tts", "text=a&text=b").refusal(), REFUSED);
        assert_eq!(form("/tts", "text=").refusal(), REFUSED);
        // The text in a form may be as long as in any other body.
        let longest = format!("text={}", "%F0%9F%98%80".repeat(20_000));
        assert_eq!(form("/tts", &longest).body.len(), 20_000 * 4 * A_LETTER);
        assert_eq!(form("/tts", &format!("{longest}a")).refusal(), REFUSED);
        assert_eq!(form("/tts", &"text=%".repeat(60_000)).refusal(), REFUSED);
        // curl declares a form if it is given no content type.
        let untyped = post("/tts", "Hello, world.").under(&token);
        assert_eq!(samples(&ask(client, &server, &untyped)), samples(&got));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_has_its_documented_values_and_no_others() {
    let server = server(Options::default()).await;
    let token = token(&server);
    for client in CLIENTS {
        let tell = |query: &str| ask(client, &server, &get(format!("/tts?text=Hello.{query}")).under(&token));
        for query in [
            "",
            "&model_name=&encoder=&tempo=",
            "&encoder=pcm&tempo=1",
            "&tempo=1.0",
            "&tempo=0.75",
            "&tempo=1.75",
            "&model_name=katherine",
            "&model_name=katherine-hifigan",
            "&model_name=maria",
            "&model_name=maria-serious",
            "&model_name=pavel",
            "&model_name=pavel-hifigan",
            "&model_name=tone",
            "&unheard=of",
        ] {
            assert_eq!(samples(&tell(query)).len(), 100 * "Hello.".len(), "{client:?}, {query}");
        }
        for query in [
            "&encoder=wav",
            "&encoder=PCM",
            "&tempo=0.74",
            "&tempo=1.76",
            "&tempo=NaN",
            "&tempo=inf",
            "&tempo=-1",
            "&tempo=1,0",
            "&model_name=Katherine",
            "&model_name=nobody",
            "&model_name=%0A",
        ] {
            assert_eq!(tell(query).refusal(), REFUSED, "{client:?}, {query}");
        }
        // A repeated parameter is the one mistake without a documented code.
        assert_eq!(tell("&tempo=1&tempo=1").refusal(), (400, 400));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_has_up_to_20000_characters_of_any_kind() {
    let server = server(Options::default()).await;
    let token = token(&server);
    for client in CLIENTS {
        let answer = |text: &str| ask(client, &server, &post("/tts", text).under(&token));
        for letter in ["a", "é", "😀"] {
            let longest = answer(&letter.repeat(20_000));
            assert_eq!(longest.body.len(), 20_000 * letter.len() * A_LETTER, "{letter}");
            assert_eq!(answer(&letter.repeat(20_001)).refusal(), REFUSED, "{letter}");
        }
        for bad in ["", " \n\t", "`", "^^", "{}", "{}{}"] {
            assert_eq!(answer(bad).refusal(), REFUSED, "{bad:?}");
        }
        let no_text = ask(client, &server, &post("/tts", b"\xff\xfe".to_vec()).under(&token));
        assert_eq!(no_text.refusal(), REFUSED);
        // The smaller of the two documented limits fits into an address in any alphabet.
        let address = format!("/tts?text={}", "%F0%9F%98%80".repeat(2_000));
        assert_eq!(ask(client, &server, &get(address).under(&token)).body.len(), 2_000 * 4 * A_LETTER);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_announced_too_long_is_refused_before_it_is_sent() {
    let server = server(Options::default()).await;
    let request = post("/tts", vec![b'a'; 80_001]).under(&token(&server));
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.write_all(&head(&request)).unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    drop(socket);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_text_tells_a_good_token_from_a_bad_one() {
    let server = server(Options::default()).await;
    let token = token(&server);
    for client in CLIENTS {
        assert_eq!(ask(client, &server, &get("/tts").under(&token)).refusal(), REFUSED);
        for bad in [get("/tts"), get("/tts").under("bad"), get("/tts").with("Authorization", token.clone())] {
            let answer = ask(client, &server, &bad);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.refusal(), (401, 4048));
        }
    }
    server.stop().await;

    let strict = super::server(Options { documented_status: true, ..Options::default() }).await;
    for client in CLIENTS {
        assert_eq!(ask(client, &strict, &get("/tts").under("bad")).refusal(), (400, 4048));
    }
    strict.stop().await;
}

/// A voice that records its sentences, and speaks about one second of tones for each.
struct Tones {
    info: VoiceInfo,
    told: Mutex<Vec<String>>,
    /// One permit for each sentence; `None` if sentences need none.
    permits: Option<Mutex<Receiver<()>>>,
}

impl Tones {
    fn new(permits: Option<Receiver<()>>) -> Arc<Tones> {
        let info = voice_info("tones", "ru");
        Arc::new(Tones { info, told: Mutex::default(), permits: permits.map(Mutex::new) })
    }

    async fn served(self: &Arc<Tones>) -> Server {
        let setup = Setup { voices: Voices::new(vec![self.clone()]), ..Setup::default() };
        Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await
    }
}

impl Voice for Tones {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak_in_pieces(
        &self,
        sentence: &str,
        _: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        if let Some(permits) = &self.permits {
            permits.lock().unwrap().recv().unwrap();
        }
        self.told.lock().unwrap().push(sentence.to_owned());
        // The length is not a whole number of packets. The signal changes at every moment, so that it
        // matches at one offset only.
        let sample = |n: usize| {
            let time = n as f32 / 24_000.0;
            let (sweep, tone) = (300.0 * time + 900.0 * time * time, 440.0 * time);
            ((sweep * std::f32::consts::TAU).sin() * 8_000.0 + (tone * std::f32::consts::TAU).sin() * 4_000.0)
                as i16
        };
        let _ = take(&(0..24_017).map(sample).collect::<Vec<i16>>());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_answered_without_speaking_or_charging() {
    let voice = Tones::new(None);
    let server = voice.served().await;
    let token = token(&server);
    for (query, status, content_type) in [
        ("text=%D0%A0%D0%B0%D0%B7.&encoder=mp3", 200, "audio/mpeg"),
        ("text=%D0%A0%D0%B0%D0%B7.", 200, PCM_TYPE),
        ("text=%D0%A0%D0%B0%D0%B7.&model_name=nobody", 400, "application/json"),
        ("", 400, "application/json"),
    ] {
        let get = get(format!("/tts?{query}")).under(&token);
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.write_all(&head(&Request { method: "HEAD", ..get })).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (told, body) = answer.split_once("\r\n\r\n").unwrap();
        let told = Answer::parse(told, Vec::new());
        assert_eq!((told.status, body), (status, ""), "{query}");
        assert!(voice.told.lock().unwrap().is_empty());
        let used = server.gateway.authority().usage(None).unwrap();
        assert!(used.iter().all(|usage| usage.total == Amount::default()), "{used:?}");
        assert_eq!(told.header("content-type"), Some(content_type), "{query}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_are_heeded_or_left_out_and_never_read_aloud() {
    let voice = Tones::new(None);
    let server = voice.served().await;
    let token = token(&server);
    for client in CLIENTS {
        let text = "Граф Толст`ой вёл {BMW}{Бээмв`э}. Это ^очень^ важно\nКонец {{пути}";
        let answer = ask(client, &server, &post("/tts", text).under(&token));
        assert_eq!(samples(&answer).len(), 3 * 24_017);
        let told = std::mem::take(&mut *voice.told.lock().unwrap());
        assert_eq!(told, ["Граф Толстой вёл Бээмвэ.", "Это очень важно", "Конец  пути"]);
    }
    server.stop().await;
}

/// Returns the delay of `decoded` in samples, and its signal-to-noise ratio in dB.
fn likeness(said: &[i16], decoded: &[i16], latest: usize) -> (usize, f64) {
    let power = |lag: usize| -> (f64, f64) {
        let pairs = said.iter().zip(&decoded[lag..]).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        pairs.fold((0.0, 0.0), |(signal, noise), (a, b)| (signal + a * a, noise + (a - b) * (a - b)))
    };
    let ratio = |lag| {
        let (signal, noise) = power(lag);
        10.0 * (signal / noise).log10()
    };
    (0..=latest).map(|lag| (lag, ratio(lag))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
}

/// Runs a decoder on a file. Returns its output.
fn decoded(program: &str, arguments: &[&str], file: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("speech");
    fs::write(&path, file).unwrap();
    let ran = Command::new(program).args(arguments).arg(&path).stderr(Stdio::piped()).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program}: {error}; ./dev installs it"));
    let said = [ran.stderr.as_slice(), &ran.stdout].map(String::from_utf8_lossy).concat();
    assert!(ran.status.success() && !said.to_lowercase().contains("warning"), "{program}: {said}");
    ran.stdout
}

fn little_endian(pcm: &[u8]) -> Vec<i16> {
    pcm.as_chunks().0.iter().map(|&sample| i16::from_le_bytes(sample)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn opus_and_mp3_sound_as_the_pcm_does() {
    let server = Tones::new(None).served().await;
    let token = token(&server);
    for client in CLIENTS {
        let tell = |encoder: &str| {
            let request = post(format!("/tts?encoder={encoder}"), "Раз. Два. Три.").under(&token);
            ask(client, &server, &request)
        };
        let said = samples(&tell("pcm"));
        assert_eq!(said.len(), 3 * 24_017);

        let opus = tell("opus");
        assert_eq!((opus.status, opus.header("content-type")), (200, Some("audio/ogg; codecs=opus")));
        // opusdec starts and ends where the stream says. opusinfo warns of errors in its pages.
        decoded("opusinfo", &[], &opus.body);
        let wav = opus_as_wav(&opus.body);
        assert_eq!(wav.len(), said.len());
        // The stream states the encoder's delay, correct to one sample. The comparison starts at sample 50,
        // so that the decoded audio may also be early.
        let (lag, ratio) = likeness(&said[50..], &wav, 100);
        assert!((49..=51).contains(&lag) && ratio > 15.0, "opus: {lag} instead of 50, {ratio} dB");

        let mp3 = tell("mp3");
        assert_eq!((mp3.status, mp3.header("content-type")), (200, Some("audio/mpeg")));
        let heard = little_endian(&decoded("mpg123", &["-q", "-s", "--no-gapless"], &mp3.body));
        let (lag, ratio) = likeness(&said, &heard, 2_000);
        // Delay of the encoder plus that of the decoder.
        assert!(lag == 1_057 && ratio > 25.0, "mp3: {lag} samples late, {ratio} dB");
        assert!((said.len() + lag..said.len() + lag + 2 * 576).contains(&heard.len()), "{}", heard.len());
    }
    server.stop().await;
}

/// Returns the samples as opusdec writes them.
fn opus_as_wav(file: &[u8]) -> Vec<i16> {
    let directory = tempfile::tempdir().unwrap();
    let [from, to] = ["speech.opus", "speech.wav"].map(|name| directory.path().join(name));
    fs::write(&from, file).unwrap();
    let mut opusdec = Command::new("opusdec");
    opusdec.args(["--quiet", "--rate", "24000", "--no-dither"]).args([&from, &to]);
    assert!(opusdec.status().expect("./dev installs opusdec").success());
    let mut wav = hound::WavReader::open(&to).unwrap();
    assert_eq!((wav.spec().channels, wav.spec().sample_rate), (1, 24_000));
    wav.samples().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_sentence_is_heard_before_the_second_is_spoken() {
    for (encoder, at_least) in [("pcm", 48_000), ("mp3", 6_000), ("opus", 1_500)] {
        let (permit, permits): (Sender<()>, _) = channel();
        let voice = Tones::new(Some(permits));
        let server = voice.served().await;
        let request = post(format!("/tts?encoder={encoder}"), "Раз. Два.").under(&token(&server));
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.write_all(&head(&request)).unwrap();
        socket.write_all(request.body.as_deref().unwrap()).unwrap();
        permit.send(()).unwrap();
        let mut first = vec![0; at_least];
        socket.read_exact(&mut first).unwrap();
        assert_eq!(voice.told.lock().unwrap().len(), 1, "{encoder}");
        permit.send(()).unwrap();
        socket.read_to_end(&mut first).unwrap();
        assert!(first.ends_with(b"\r\n0\r\n\r\n"));
        server.stop().await;
    }
}
