//! The page in a headless Chromium, with a real recogniser and a real voice behind it: the actions of a
//! user, and their visible results.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::interval;
use voxline::engine::{EngineError, Voice, VoiceInfo, Voices};
use voxline_engines::Whisper;
use voxline_gateway::Options;
use voxline_gateway::authority::Terms;
use voxline_testing::{Cut, DigestRecognizer, Fault, FaultProxy};

use crate::support::browser::{self, Browser};
use voxline_engines::wer::normal;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::voice_info;
use voxline_fixtures::samples::models_dir;
use voxline_fixtures::samples::sample;

pub(super) const SAID: &str = include_str!("../../../../../samples/speech.txt");
/// JavaScript condition: all results are final.
pub(super) const COMPLETE: &str = "document.getElementById('live-state').textContent === 'complete'";
/// JavaScript expression for the words of the final results.
pub(super) const WORDS: &str =
    "[...document.querySelectorAll('#live-finals .words')].map((words) => words.textContent).join(' ')";
/// JavaScript expression for all data that a page could leave behind.
const LEFT_BEHIND: &str = "(async () => [localStorage.length, sessionStorage.length, document.cookie,
    (await indexedDB.databases()).length, (await caches.keys()).length, location.search + location.hash])()";

/// Writes the sample recording after one second of silence, as of a user who presses the button before
/// speaking.
fn recording(directory: &Path) -> PathBuf {
    let mut source = hound::WavReader::open(sample("source.wav")).unwrap();
    let path = directory.join("microphone.wav");
    let mut microphone = hound::WavWriter::create(&path, source.spec()).unwrap();
    let silence = (0..source.spec().sample_rate).map(|_| 0);
    for sample in silence.chain(source.samples::<i16>().map(Result::unwrap)) {
        microphone.write_sample(sample).unwrap();
    }
    microphone.finalize().unwrap();
    path
}

/// Starts a gateway that recognises and speaks.
pub(super) async fn server() -> Server {
    let whisper = Whisper::load(&models_dir().join("whisper-base")).expect("the model is there");
    let setup = Setup { voices: voxline_engines::voices::discover(&models_dir()), ..Setup::default() };
    Server::with(Arc::new(whisper), setup).await
}

/// Opens the page and signs in with the credentials of the server's project.
pub(super) async fn signed_in(server: &Server, address: &str) -> Browser {
    let mut browser = Browser::start(&recording(server.vault.path())).await;
    browser.open(address).await;
    browser.fill("client-id", &server.credentials.client_id).await;
    browser.fill("client-secret", server.credentials.client_secret.expose_secret()).await;
    press_sign_in(&mut browser).await;
    browser.until("!document.getElementById('console').hidden").await;
    browser
}

async fn press_sign_in(browser: &mut Browser) {
    // The key events of a keyboard.
    for kind in ["keyDown", "keyUp"] {
        let enter = json!({ "type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13 });
        browser.call("Input.dispatchKeyEvent", enter).await;
    }
}

pub(super) fn address(server: &Server) -> String {
    format!("http://{}/", server.address)
}

async fn english(browser: &mut Browser) {
    browser.evaluate("document.getElementById('live-language').value = 'en'").await;
}

/// Checks that the page has sent requests to the gateway only.
pub(super) fn assert_asked_only(browser: &Browser, authority: &str) {
    let asked = browser.asked();
    let is_ours = |url: &&String| {
        ["http", "ws"].iter().any(|scheme| url.starts_with(&format!("{scheme}://{authority}/")))
    };
    let others: Vec<&String> = asked.iter().filter(|url| !is_ours(url)).collect();
    assert!(!asked.is_empty() && others.is_empty(), "{others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_into_the_microphone_appears() {
    if browser::is_left_out() {
        return;
    }
    let server = server().await;
    let mut browser = signed_in(&server, &address(&server)).await;
    english(&mut browser).await;
    browser.click("live-start").await;
    browser.until("Number(document.getElementById('live-level').getAttribute('aria-valuenow')) > 50").await;
    browser.until("document.getElementById('live-partial').textContent").await;
    browser.until("document.querySelector('#project-sessions .number')").await;
    browser.until(&format!("{WORDS}.includes('floor')")).await;
    browser.click("live-stop").await;
    browser.until(COMPLETE).await;
    let words = browser.evaluate(WORDS).await;
    assert_eq!(normal(words.as_str().unwrap()), normal(SAID));
    let (recorded, last) = (browser.text("live-accepted").await, browser.text("live-final").await);
    assert_eq!(recorded, last);
    assert_eq!(browser.text("live-reconnects").await, "0");
    // Again on the same page, and ten times, since the end falls at a random point of a block of samples.
    for _ in 0..10 {
        browser.click("live-start").await;
        browser.until("document.getElementById('live-state').textContent === 'listening'").await;
        browser.until("parseFloat(document.getElementById('live-received').textContent) > 0").await;
        browser.click("live-stop").await;
        browser.until(COMPLETE).await;
    }

    assert_eq!(browser.evaluate(LEFT_BEHIND).await, json!([0, 0, "", 0, 0, ""]));
    let page = browser.evaluate(
        "document.documentElement.outerHTML + [...document.querySelectorAll('input')].map((input) => input.value)",
    );
    let page = page.await;
    let secret = server.credentials.client_secret.expose_secret();
    assert!(!page.as_str().unwrap().contains(secret), "the page keeps the secret");
    assert_asked_only(&browser, &server.address.to_string());
    assert_eq!(browser.complaints(), [""; 0]);
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_word_is_lost_when_sockets_are_cut() {
    if browser::is_left_out() {
        return;
    }
    let server = server().await;
    // The first connections are cut after some two seconds of audio, alternately by reset and by close. The
    // page's own requests take six of these connections, and send less than that.
    let cut = |cut| Fault::CutClient { after: 60_000, cut };
    let faults = std::iter::repeat([cut(Cut::Reset), cut(Cut::Close)]).flatten().take(12);
    let proxy = FaultProxy::with_faults(server.address, faults).await.unwrap();
    let mut browser = signed_in(&server, &format!("http://{}/", proxy.address())).await;
    english(&mut browser).await;
    browser.click("live-start").await;
    browser.until("Number(document.getElementById('live-reconnects').textContent) >= 2").await;
    browser.until(&format!("{WORDS}.includes('floor')")).await;
    browser.click("live-stop").await;
    browser.until(COMPLETE).await;
    assert!(proxy.cuts() >= 2, "{} cuts", proxy.cuts());
    let words = browser.evaluate(WORDS).await;
    assert_eq!(normal(words.as_str().unwrap()), normal(SAID));
    assert_eq!(browser.text("live-accepted").await, browser.text("live-final").await);
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_gives_its_text_and_a_text_its_sound() {
    if browser::is_left_out() {
        return;
    }
    let server = server().await;
    let mut browser = signed_in(&server, &address(&server)).await;
    let results =
        |count: usize| format!("document.querySelectorAll('#recording-results > li').length === {count}");
    let newest = "document.querySelector('#recording-results > li > :last-child').textContent";
    browser.evaluate("document.getElementById('recording-language').value = 'en'").await;
    browser.choose_file("recording-file", &sample("speech-16k-mono-s16.wav")).await;
    browser.until(&results(1)).await;
    assert_eq!(normal(browser.evaluate(newest).await.as_str().unwrap()), normal(SAID));
    let told = browser.text("recording-results").await;
    assert!(told.contains("confidence ") && told.contains("speech-16k-mono-s16.wav"), "{told}");
    browser.drop_file(&sample("speech-16k-mono-voip.opus")).await;
    browser.until(&results(2)).await;
    assert_eq!(normal(browser.evaluate(newest).await.as_str().unwrap()), normal(SAID));
    assert_eq!(browser.complaints(), [""; 0]);

    // A file without audio is refused in the API's words.
    browser.choose_file("recording-file", &sample("speech.txt")).await;
    browser.until(&results(3)).await;
    let refused = browser.evaluate(newest).await;
    assert!(refused.as_str().unwrap().ends_with("(code 4033)"), "{refused}");
    let complaints = browser.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("/asr"), "{complaints:?}");

    browser.until("document.querySelector('#speech-voice option[value=joe]')").await;
    browser.evaluate("document.getElementById('speech-voice').value = 'joe'").await;
    browser.fill("speech-text", "The train leaves at seven.").await;
    // The level is that high for a second or two.
    let loud = "Number(document.getElementById('speech-level').getAttribute('aria-valuenow')) > 50";
    browser.watch(loud).await;
    browser.click("speech-start").await;
    browser.until_watched(loud).await;
    browser.until("document.getElementById('speech-state').textContent === 'complete'").await;
    let (received, played) = (browser.text("speech-received").await, browser.text("speech-played").await);
    let length: f64 = received.trim_end_matches(" s").parse().unwrap();
    assert!((0.8..10.0).contains(&length), "{received}");
    assert_eq!(received, played);
    // After a stop, playback is silent at once.
    browser.fill("speech-text", &"The train leaves at seven. ".repeat(40)).await;
    browser.click("speech-start").await;
    browser.until("document.getElementById('speech-state').textContent === 'speaking'").await;
    browser.click("speech-stop").await;
    browser.until("document.getElementById('speech-state').textContent === 'stopped'").await;
    assert_eq!(browser.complaints().len(), 1);
    drop(browser);
    server.stop().await;
}

/// A voice that makes half a second of sound for each message on its channel.
struct Halting {
    info: VoiceInfo,
    pieces: Mutex<mpsc::Receiver<()>>,
}

impl Voice for Halting {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak_in_pieces(
        &self,
        _: &str,
        _: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        for () in self.pieces.lock().unwrap().iter() {
            if take(&[0x1234; 12_000]).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A gateway that synthesises more slowly than the sound is played leaves silence between its pieces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_silence_before_a_late_piece_does_not_count_as_played() {
    if browser::is_left_out() {
        return;
    }
    let (piece, pieces) = mpsc::channel();
    let voice = Halting { info: voice_info("halting", "en"), pieces: Mutex::new(pieces) };
    let setup = Setup { voices: Voices::new(vec![Arc::new(voice)]), ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await;
    let mut browser = signed_in(&server, &address(&server)).await;
    browser.fill("speech-text", "Hello.").await;
    browser.click("speech-start").await;
    let figure = |name| format!("document.getElementById('speech-{name}').textContent");
    for expected in ["0.5 s", "1.0 s", "1.5 s"] {
        piece.send(()).unwrap();
        browser.until(&format!("{} === '{expected}'", figure("played"))).await;
        // The silence lasts longer than the window of samples whose level is shown.
        browser.until("document.getElementById('speech-level').getAttribute('aria-valuenow') === '0'").await;
        assert_eq!(browser.text("speech-played").await, expected);
        assert_eq!(browser.text("speech-received").await, expected);
    }
    drop(piece);
    browser.until(&format!("{} === 'complete'", figure("state"))).await;
    assert_eq!(
        (browser.text("speech-received").await, browser.text("speech-played").await),
        ("1.5 s".to_owned(), "1.5 s".to_owned())
    );
    assert_eq!(browser.complaints(), [""; 0]);
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_its_tokens() {
    if browser::is_left_out() {
        return;
    }
    for in_band_auth in [true, false] {
        let options = Options { in_band_auth, ..Options::default() };
        let setup = Setup { options, token_lifetime: Duration::from_secs(5), ..Setup::default() };
        let server = Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await;
        let mut browser = signed_in(&server, &address(&server)).await;
        browser.click("live-start").await;
        // Three lifetimes of a token.
        browser.until("parseFloat(document.getElementById('live-final').textContent) > 15").await;
        assert_eq!(browser.text("live-reconnects").await, "0", "in band: {in_band_auth}");
        browser.click("live-stop").await;
        browser.until(COMPLETE).await;
        assert_eq!(browser.text("live-accepted").await, browser.text("live-final").await);
        assert_eq!(browser.complaints(), [""; 0], "in band: {in_band_auth}");
        drop(browser);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_gateway_is_told_at_once() {
    if browser::is_left_out() {
        return;
    }
    let options = Options { max_sessions: 0, ..Options::default() };
    let setup = Setup { options, ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await;
    let mut browser = signed_in(&server, &address(&server)).await;
    browser.until("document.getElementById('state').textContent.startsWith('full')").await;
    browser.click("live-start").await;
    browser
        .until("document.getElementById('live-error').textContent.endsWith('it is full (code 429)')")
        .await;
    browser.until("!document.getElementById('live-start').hidden").await;
    drop(browser);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_forgets_and_gives_the_tokens_back() {
    if browser::is_left_out() {
        return;
    }
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let authority = server.gateway.authority();
    let mut browser = signed_in(&server, &address(&server)).await;
    assert_eq!(authority.tokens(None).unwrap().len(), 2);
    browser.click("sign-out").await;
    browser.until("!document.getElementById('sign-in').hidden").await;
    until_none(|| authority.tokens(None).unwrap().len()).await;

    // Leaving the page does the same.
    browser.fill("client-secret", server.credentials.client_secret.expose_secret()).await;
    press_sign_in(&mut browser).await;
    browser.until("!document.getElementById('console').hidden").await;
    assert_eq!(authority.tokens(None).unwrap().len(), 2);
    browser.open("about:blank").await;
    until_none(|| authority.tokens(None).unwrap().len()).await;

    // A service token belongs to its holder, and stays valid.
    let token = authority.create_service_token("test", Terms::default()).unwrap().token;
    browser.open(&address(&server)).await;
    browser.evaluate("document.querySelector('[name=with][value=service]').click()").await;
    browser.fill("service-token", token.expose_secret()).await;
    press_sign_in(&mut browser).await;
    browser.until("document.getElementById('who').textContent === 'test'").await;
    browser.click("sign-out").await;
    browser.until("!document.getElementById('sign-in').hidden").await;
    assert_eq!(authority.service_tokens(None).unwrap().len(), 1);
    assert_eq!(browser.complaints(), [""; 0]);

    // A wrong token gives an error, and does not sign in.
    browser.fill("service-token", "vxs_wrong").await;
    press_sign_in(&mut browser).await;
    browser.until("document.getElementById('sign-in-error').textContent.includes('4048')").await;
    assert_eq!(browser.evaluate("document.getElementById('console').hidden").await, true);
    drop(browser);
    server.stop().await;
}

/// A project may have 25 refresh tokens at once, and each visit takes one while it lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visits_take_no_place_of_a_token() {
    if browser::is_left_out() {
        return;
    }
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let authority = server.gateway.authority();
    let mut browser = signed_in(&server, &address(&server)).await;
    for _ in 1..26 {
        browser.open("about:blank").await;
        browser.open(&address(&server)).await;
        browser.fill("client-id", &server.credentials.client_id).await;
        browser.fill("client-secret", server.credentials.client_secret.expose_secret()).await;
        press_sign_in(&mut browser).await;
        browser.until("!document.getElementById('console').hidden").await;
    }
    browser.click("sign-out").await;
    until_none(|| authority.tokens(None).unwrap().len()).await;
    assert_eq!(browser.complaints(), [""; 0]);
    drop(browser);
    server.stop().await;
}

/// Waits until the count is zero. The page is gone, so that no event tells when its last request has been
/// served.
async fn until_none(count: impl Fn() -> usize) {
    let mut ticks = interval(Duration::from_millis(20));
    for _ in 0..1_500 {
        ticks.tick().await;
        if count() == 0 {
            return;
        }
    }
    panic!("there are {} still", count());
}

/// Names other than `localhost` are not secure without TLS: browsers give such pages no microphone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_may_not_listen_says_why_and_fits_a_phone() {
    if browser::is_left_out() {
        return;
    }
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let insecure = format!("http://console.test:{}/", server.address.port());
    let mut browser = signed_in(&server, &insecure).await;
    assert_eq!(browser.evaluate("document.getElementById('live-start').disabled").await, true);
    assert!(browser.text("live-insecure").await.contains("localhost"));
    browser.until("document.querySelector('#project-tokens .id')").await;
    for width in [360, 390, 768, 1_280] {
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500 });
        browser.call("Emulation.setDeviceMetricsOverride", size).await;
        let needed = browser.evaluate("document.documentElement.scrollWidth").await;
        assert!(needed.as_u64().unwrap() <= width, "{needed} pixels in {width}");
    }
    // Every control has a label.
    let unnamed = browser.evaluate(
        "[...document.querySelectorAll('input, select, textarea')].filter((field) => !field.labels.length)
            .map((field) => field.id)",
    );
    assert_eq!(unnamed.await, json!([]));
    assert_eq!(browser.complaints(), [""; 0]);
    drop(browser);
    server.stop().await;
}
