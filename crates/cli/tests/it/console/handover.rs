//! Handover of the page to another gateway when its own is told to stop, without a request to any other
//! origin.

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::interval;
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline::net::Endpoint;
use voxline_gateway::Options;
use voxline_testing::{DigestRecognizer, digest};

use super::page::{COMPLETE, WORDS, assert_asked_only, signed_in};
use crate::cli::{Place, text};
use crate::support::browser;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::server::{Server, Setup};

/// Longest wait on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// One origin in front of two gateways. The first is served at `/`. The second, once it is set, is served
/// at `/b/`, and at `/` too once `switched` is true.
struct Origin {
    address: SocketAddr,
    second: Arc<OnceLock<SocketAddr>>,
    switched: Arc<AtomicBool>,
}

impl Origin {
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    fn serve(listener: TcpListener, first: SocketAddr) -> Origin {
        let address = listener.local_addr().unwrap();
        let (second, switched) = (Arc::new(OnceLock::new()), Arc::new(AtomicBool::new(false)));
        let origin = Origin { address, second: second.clone(), switched: switched.clone() };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let second = second.get().copied();
                let usual = second.filter(|_| switched.load(Ordering::Relaxed)).unwrap_or(first);
                tokio::spawn(route(client, usual, second));
            }
        });
        origin
    }
}

/// Forwards a connection to a gateway that is chosen by the path of its first request.
async fn route(mut client: TcpStream, usual: SocketAddr, second: Option<SocketAddr>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.contains(&b'\n') {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let path = b"GET /b/";
    let to = match second.filter(|_| head.starts_with(path)) {
        Some(second) => {
            head.splice(..path.len(), *b"GET /");
            second
        }
        None => usual,
    };
    let mut gateway = TcpStream::connect(to).await?;
    gateway.write_all(&head).await?;
    copy_bidirectional(&mut client, &mut gateway).await?;
    Ok(())
}

/// Length of the recogniser's segments: half a second.
const SEGMENT: usize = 8_000;

/// The samples of each session of a recogniser.
type Heard = Arc<Mutex<Vec<Vec<i16>>>>;

/// A recogniser that writes digests and keeps all samples of each session.
#[derive(Default)]
struct Keeping(Heard);

struct Kept {
    sessions: Heard,
    number: usize,
    digests: Box<dyn RecognizerStream>,
}

impl Recognizer for Keeping {
    fn name(&self) -> &str {
        "keeping"
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        let mut sessions = self.0.lock().unwrap();
        sessions.push(Vec::new());
        let digests = DigestRecognizer::new(SEGMENT).start(request)?;
        Ok(Box::new(Kept { sessions: self.0.clone(), number: sessions.len() - 1, digests }))
    }
}

impl RecognizerStream for Kept {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.sessions.lock().unwrap()[self.number].extend(pcm);
        self.digests.push(pcm)
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        self.digests.partial()
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        self.digests.flush()
    }
}

/// Starts a gateway with its state in a directory of `place`. Returns it with the samples that it receives.
async fn gateway(place: &Place, state: &str, successors: Vec<Endpoint>) -> (Server, Heard) {
    let recognizer = Keeping::default();
    let heard = recognizer.0.clone();
    let options = Options { successors, ..Options::default() };
    let setup = Setup { options, state: Some(place.path(state)), ..Setup::default() };
    (Server::with(Arc::new(recognizer), setup).await, heard)
}

/// Starts a gateway with the tokens of the first one.
async fn restored(place: &Place) -> (Server, Heard) {
    DirBuilder::new().mode(0o700).create(place.path("second")).unwrap();
    let backup = place.run(&["gateway", "backup", "second/authority.redb", "--state", "first"]);
    assert_eq!(backup.status.code(), Some(0), "{}", text(&backup.stderr));
    gateway(place, "second", Vec::new()).await
}

/// Waits until a gateway has received audio.
async fn until_heard(heard: &Heard) {
    let mut ticks = interval(Duration::from_millis(20));
    while heard.lock().unwrap().iter().all(Vec::is_empty) {
        ticks.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_goes_on_at_another_gateway_of_its_origin() {
    if browser::is_left_out() {
        return;
    }
    for at_a_path in [true, false] {
        let place = Place::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // A successor on another origin, which must not receive a token.
        let mut successors = vec!["http://127.0.0.1:1".parse().unwrap()];
        if at_a_path {
            successors.push(format!("http://{}/b", listener.local_addr().unwrap()).parse().unwrap());
        }
        let (first, before) = gateway(&place, "first", successors).await;
        let origin = Origin::serve(listener, first.address);
        let mut browser = signed_in(&first, &format!("http://{}/", origin.address)).await;
        let (second, behind) = restored(&place).await;
        origin.second.set(second.address).unwrap();
        browser.click("live-start").await;
        browser.until("parseFloat(document.getElementById('live-final').textContent) > 1").await;
        origin.switched.store(!at_a_path, Ordering::Relaxed);
        first.begin_stop();
        within(PATIENCE, "the session at the second gateway", until_heard(&behind)).await;
        browser.click("live-stop").await;
        browser.until(COMPLETE).await;

        // The old session still ran during the handover.
        assert_eq!(browser.text("live-reconnects").await, "0");
        assert_eq!(browser.text("live-accepted").await, browser.text("live-final").await);
        let (before, behind) = (before.lock().unwrap()[0].clone(), behind.lock().unwrap().clone());
        assert_eq!(behind.len(), 1, "sessions at the second gateway");
        // The second session started at a final result of the first. Its samples are those that the first
        // gateway received from there on, if it received any.
        let words = browser.evaluate(WORDS).await;
        let words: Vec<&str> = words.as_str().unwrap().split(' ').collect();
        let finals = words.len() - behind[0].len().div_ceil(SEGMENT);
        let start = finals * SEGMENT;
        assert!(finals > 0 && start <= before.len(), "{finals} finals of {} samples", before.len());
        let both = before.len().min(start + behind[0].len());
        assert_eq!(before[start..both], behind[0][..both - start]);
        let whole = [&before[..start], &behind[0]].concat();
        assert_eq!(words, whole.chunks(SEGMENT).map(digest).collect::<Vec<_>>());
        assert_asked_only(&browser, &origin.address.to_string());
        drop(browser);
        first.stop().await;
        second.stop().await;
    }
}
