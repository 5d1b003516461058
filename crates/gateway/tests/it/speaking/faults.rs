//! Connections that are cut, stall or are refused, and tokens that expire: the same samples arrive all
//! the same.

use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use voxline::clock::{Clock, SystemClock};
use voxline::error::chain;
use voxline::net::HttpClient;
use voxline::recovery::Recovery;
use voxline::speech::{Codec, Interruption, SpeechClient, SpeechError, SpeechOptions};
use voxline_gateway::Options;
use voxline_testing::{Cut, Fault, FaultProxy, ManualClock};

use super::{SHORT, Stage, espeak, options, prose, whole};
use voxline_fixtures::gateway::server::{Setup, endpoint};

fn cut_after(after: u64, cut: Cut) -> Fault {
    Fault::CutServer { after, cut }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_anywhere_in_a_part_changes_no_sample() {
    let stage = Stage::new().await;
    let undisturbed = whole(stage.client().speak(SHORT, &options())).await.unwrap();
    let length = undisturbed.len() as u64;
    // The cuts are in the head of the response, at the end of the head, and on both sides of samples all
    // over the body.
    let head = [0, 1, 100, 200, 201, 202, 203, 204, 205, 206, 207, 208, 250, 300, 301];
    let body = (1..24).flat_map(|n| [n * length / 24, n * length / 24 + 1]);
    for (number, after) in head.into_iter().chain(body).enumerate() {
        let cut = if number % 2 == 0 { Cut::Close } else { Cut::Reset };
        let proxy = FaultProxy::with_faults(stage.server.address, [cut_after(after, cut)]).await.unwrap();
        let speech = stage.client_at(proxy.address()).speak(SHORT, &options());
        let handle = speech.handle();
        let pcm = whole(speech).await.unwrap_or_else(|error| panic!("{cut:?} after {after} bytes: {error}"));
        assert!(pcm == undisturbed, "{cut:?} after {after} bytes: {} of {length} bytes", pcm.len());
        assert_eq!((proxy.cuts(), handle.handed_out()), (1, length / 2), "{cut:?} after {after} bytes");
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_again_and_again_in_every_part_it_changes_no_sample() {
    let stage = Stage::new().await;
    let text = prose(3_000);
    let undisturbed = whole(stage.client().speak(&text, &options())).await.unwrap();
    // Each connection gets a little further than the previous one, and some are refused.
    let faults = (0..12_u64).map(|n| match n % 4 {
        3 => Fault::Refuse,
        _ => cut_after(120_000 * (n + 1), if n % 2 == 0 { Cut::Reset } else { Cut::Close }),
    });
    let proxy = FaultProxy::with_faults(stage.server.address, faults).await.unwrap();
    let speech = stage.client_at(proxy.address()).speak(&text, &SpeechOptions { attempts: 20, ..options() });
    assert!(whole(speech).await.unwrap() == undisturbed);
    assert!(proxy.cuts() >= 5, "{} cuts", proxy.cuts());

    // An encoded part arrives whole or not at all.
    let faults = [cut_after(5_000, Cut::Close), Fault::Refuse, cut_after(50_000, Cut::Reset)];
    let proxy = FaultProxy::with_faults(stage.server.address, faults).await.unwrap();
    let encode = |client: SpeechClient| {
        let text = futures::stream::iter([text.clone()]);
        whole(client.encode_stream(text, Codec::Mp3, &options()))
    };
    let undisturbed = encode(stage.client()).await.unwrap();
    assert!(encode(stage.client_at(proxy.address())).await.unwrap() == undisturbed);
    assert_eq!(proxy.cuts(), 2);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_come_in_odd_numbers_are_the_same_samples() {
    let stage = Stage::new().await;
    let undisturbed = whole(stage.client().speak(SHORT, &options())).await.unwrap();
    for bytes in [1_001, 3, 16_383] {
        let trickle = Fault::Trickle { bytes, every: Duration::from_nanos(1) };
        // A few bytes at a time take long, so a short text is enough.
        let text = if bytes < 100 { "Yes." } else { SHORT };
        let undisturbed = match bytes {
            3 => whole(stage.client().speak(text, &options())).await.unwrap(),
            _ => undisturbed.clone(),
        };
        let proxy = FaultProxy::with_faults(stage.server.address, iter::repeat(trickle)).await.unwrap();
        let pcm = whole(stage.client_at(proxy.address()).speak(text, &options())).await.unwrap();
        assert!(pcm == undisturbed, "{bytes}");
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_falls_silent_is_asked_again() {
    let stage = Stage::new().await;
    let undisturbed = whole(stage.client().speak(SHORT, &options())).await.unwrap();
    let patient = SpeechOptions { stall_timeout: Duration::from_secs(3), ..options() };
    for silent in [Fault::Stall { after: 0 }, Fault::Stall { after: 100 }, Fault::HalfOpen { after: 100 }] {
        let proxy = FaultProxy::with_faults(stage.server.address, [silent]).await.unwrap();
        let speech = stage.client_at(proxy.address()).speak(SHORT, &patient);
        assert!(whole(speech).await.unwrap() == undisturbed, "{silent:?}");
        assert!(proxy.connections() >= 2);
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_between_parts_or_within_one_is_replaced() {
    for documented_status in [false, true] {
        let clock = ManualClock::new(SystemClock::new().unix());
        let setup = Setup {
            voices: espeak(),
            clock: Arc::new(clock.clone()),
            token_lifetime: Duration::from_secs(3_600),
            options: Options { documented_status, max_failures: 0, ..Options::default() },
            ..Setup::default()
        };
        let stage = Stage::with(setup).await;
        let text = prose(3_000);
        let undisturbed = whole(stage.client().speak(&text, &options())).await.unwrap();
        let before = stage.tokens.token().await.unwrap().generation();

        // Between parts: the first part is being played, and the gateway's clock advances without the
        // client's.
        let mut speech = stage.client().speak(&text, &options());
        let mut pcm = speech.next().await.unwrap().unwrap().to_vec();
        clock.advance(Duration::from_secs(3_601));
        pcm.extend(whole(speech).await.unwrap());
        assert!(pcm == undisturbed);
        let between = stage.tokens.token().await.unwrap().generation();
        assert!(between > before);

        // Within a part: a connection is cut, and the token has expired by the next connection.
        let later = clock.clone();
        let faults = iter::once(cut_after(100_000, Cut::Reset)).chain(iter::from_fn(move || {
            later.advance(Duration::from_secs(3_601));
            None
        }));
        let proxy = FaultProxy::with_faults(stage.server.address, faults.fuse()).await.unwrap();
        let provider = stage.server.tokens();
        let client = SpeechClient::new(HttpClient::new().unwrap(), endpoint(proxy.address()), &provider);
        let before = provider.token().await.unwrap().generation();
        assert!(whole(client.speak(&text, &options())).await.unwrap() == undisturbed);
        assert_eq!(proxy.cuts(), 1);
        assert!(provider.token().await.unwrap().generation() > before);
        stage.server.stop().await;
    }
}

/// Accepts one connection for each of these responses, and sends the response once the request is
/// complete.
async fn answering(listener: &TcpListener, answers: &[&str]) -> io::Result<()> {
    for answer in answers {
        let (mut socket, _) = listener.accept().await?;
        let mut head = Vec::new();
        while !head.ends_with(SHORT.as_bytes()) && socket.read_buf(&mut head).await? > 0 {}
        let answer = format!("HTTP/1.1 {answer}");
        socket.write_all(answer.as_bytes()).await?;
        socket.shutdown().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "how long it waits is what is tested")]
async fn a_busy_service_is_asked_when_it_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tokens = voxline::auth::TokenProvider::service(&"token".to_owned().into()).unwrap();
    let address = listener.local_addr().unwrap();
    let client = SpeechClient::new(HttpClient::new().unwrap(), endpoint(address), &tokens);
    let audio = "200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd";
    let busy = |status: &str, wait: u32| {
        format!("{status} No\r\nRetry-After: {wait}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let began = Instant::now();
    let answers = [&busy("503", 1)[..], &busy("429", 1), audio];
    let (spoken, answered) =
        tokio::join!(whole(client.speak(SHORT, &options())), answering(&listener, &answers));
    answered.unwrap();
    assert_eq!(spoken.unwrap(), b"badc");
    assert!(began.elapsed() >= Duration::from_secs(2));

    // A service that requests a very long wait is believed, and the caller gets the error at once.
    let tomorrow = [&busy("429", 40_000)[..]];
    let (spoken, _) = tokio::join!(whole(client.speak(SHORT, &options())), answering(&listener, &tomorrow));
    let error = spoken.unwrap_err();
    assert_eq!(error.recovery(), Recovery::RetryAfter(Duration::from_secs(40_000)));
    assert!(matches!(error, SpeechError::Refused { status: 429, .. }), "{error}");
    // The service responds with a page instead of speech.
    let page = ["200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<hr>"];
    let (spoken, _) = tokio::join!(whole(client.speak(SHORT, &options())), answering(&listener, &page));
    let expected = format!("http://{address} answered with text instead of speech");
    assert_eq!(spoken.unwrap_err().to_string(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_help_is_not_tried_again_and_the_rest_not_for_ever() {
    let stage = Stage::new().await;
    let proxy = FaultProxy::with_faults(stage.server.address, []).await.unwrap();
    let nobody = SpeechOptions { voice: Some("nobody".to_owned()), ..options() };
    let error = whole(stage.client_at(proxy.address()).speak(SHORT, &nobody)).await.unwrap_err();
    assert!(matches!(error, SpeechError::Refused { status: 400, recovery: Recovery::Fatal, .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("voice \"nobody\" is unknown") && said.lines().count() == 1, "{said}");
    assert_eq!(proxy.connections(), 1);

    let proxy = FaultProxy::with_faults(stage.server.address, iter::repeat(Fault::Refuse)).await.unwrap();
    let thrice = SpeechOptions { attempts: 3, ..options() };
    let error = whole(stage.client_at(proxy.address()).speak(SHORT, &thrice)).await.unwrap_err();
    assert!(matches!(error, SpeechError::Unreachable { .. }), "{error}");
    // The HTTP client itself retries a connection that ends before anything was sent on it.
    assert!((3..=6).contains(&proxy.connections()), "{} connections", proxy.connections());

    // Each attempt is cut at the same place: the audio up to there is good, and then there is an error.
    let undisturbed = whole(stage.client().speak(SHORT, &options())).await.unwrap();
    let cuts = iter::repeat(cut_after(100_000, Cut::Close));
    let proxy = FaultProxy::with_faults(stage.server.address, cuts).await.unwrap();
    let mut speech = stage.client_at(proxy.address()).speak(SHORT, &thrice);
    let mut pcm = Vec::new();
    let error = loop {
        match speech.next().await.unwrap() {
            Ok(piece) => pcm.extend_from_slice(&piece),
            Err(error) => break error,
        }
    };
    assert!(undisturbed.starts_with(&pcm) && pcm.len() > 90_000, "{} bytes", pcm.len());
    assert!(
        matches!(&error, SpeechError::Unreachable { source: Interruption::BrokenOff(_), .. }),
        "{error:?}"
    );
    assert!(chain(&error).to_string().contains(": speech broke off"), "{error:?}");
    assert!(speech.next().await.is_none());
    assert_eq!(proxy.cuts(), 3);
    drop(speech);
    stage.server.stop().await;
}
