//! Limits of failed authentication per client address, and the timing of the answers to wrong tokens and
//! secrets.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::{Digest, Sha256};
use voxline_gateway::Options;
use voxline_gateway::authority::{Authority, AuthorityError, NewClient, Terms};
use voxline_testing::{DigestRecognizer, ManualClock};

use voxline_fixtures::gateway::http::http_client_from;
use voxline_fixtures::gateway::server::{Server, Setup};

const FIRST: [u8; 4] = [127, 0, 0, 1];
const SECOND: [u8; 4] = [127, 0, 0, 2];
/// Time until one failure is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3);

/// Starts a gateway whose clock stands still, so that no failure is forgiven meanwhile.
async fn server(max_failures: u32) -> (Server, ManualClock) {
    let clock = ManualClock::new(Duration::from_secs(1_700_000_000));
    let options = Options { max_failures, ..Options::default() };
    let setup = Setup { options, clock: Arc::new(clock.clone()), ..Setup::default() };
    (Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await, clock)
}

/// Asks for speech. The gateway of these tests has no voice, and answers 400 if the token is accepted.
async fn speak(server: &Server, http: &Client, token: &str) -> Response {
    http.get(format!("http://{}/tts?text=Hello", server.address)).bearer_auth(token).send().await.unwrap()
}

fn retry_after(response: &Response) -> Duration {
    Duration::from_secs(response.headers()["retry-after"].to_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the figures are what the test is for")]
async fn of_ten_thousand_wrong_tokens_a_burst_is_looked_at() {
    const TRIES: usize = 10_000;
    const AT_ONCE: usize = 16;
    const BURST: usize = 20;
    let (server, clock) = server(BURST as u32).await;
    let token = server.gateway.authority().create_service_token("test", Terms::default()).unwrap().token;
    let (attacker, other) = (http_client_from(FIRST), http_client_from(SECOND));

    let tries = stream::iter(0..TRIES).map(|number| {
        let (server, attacker) = (&server, &attacker);
        async move { speak(server, attacker, &format!("wrong-{number}")).await.status() }
    });
    let answers: Vec<StatusCode> = tries.buffer_unordered(AT_ONCE).collect().await;
    let looked_at = answers.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count();
    let refused = answers.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count();
    println!("of {TRIES} wrong tokens {looked_at} were looked at");
    assert_eq!(looked_at + refused, TRIES);
    // Requests that were in flight when the last failure was counted are all checked.
    assert!((BURST..BURST + AT_ONCE).contains(&looked_at), "{looked_at}");

    // The right token is refused from that address too, and is accepted as before from another address.
    let right = token.expose_secret();
    let refused = speak(&server, &attacker, right).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(retry_after(&refused), FORGIVEN_AFTER);
    assert_eq!(speak(&server, &other, right).await.status(), StatusCode::BAD_REQUEST);
    clock.advance(retry_after(&refused));
    assert_eq!(speak(&server, &attacker, right).await.status(), StatusCode::BAD_REQUEST);
    // A valid token uses up none of the remaining failures.
    assert_eq!(speak(&server, &attacker, right).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(speak(&server, &attacker, "wrong").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(speak(&server, &attacker, right).await.status(), StatusCode::TOO_MANY_REQUESTS);
    server.stop().await;
}

#[tokio::test]
async fn every_way_to_be_wrong_counts() {
    let (server, clock) = server(1).await;
    let http = http_client_from(FIRST);
    let url = |path: &str| format!("http://{}{path}", server.address);
    let ask = |body: serde_json::Value| http.post(url("/auth/oauth/v1/token")).json(&body).send();
    let id = &server.credentials.client_id;
    let secret = server.credentials.client_secret.expose_secret();
    let right = json!({ "client_id": id, "client_secret": secret, "grant_type": "client_credentials" });
    let wrong = |path: &str| http.get(url(path)).bearer_auth("wrong").send();
    let failures = [
        ask(json!({ "client_id": id, "client_secret": "no", "grant_type": "client_credentials" })).await,
        ask(json!({ "client_id": "no", "client_secret": secret, "grant_type": "client_credentials" })).await,
    ];
    let statuses: Vec<_> = failures.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    assert_eq!(statuses, [401, 429]);

    clock.advance(FORGIVEN_AFTER);
    let dead = json!({ "client_id": id, "refresh_token": "no", "grant_type": "refresh_token" });
    assert_eq!(ask(dead).await.unwrap().status().as_u16(), 400);
    assert_eq!(ask(right.clone()).await.unwrap().status().as_u16(), 429);
    for path in ["/tts", "/asr_stream/ws"] {
        clock.advance(FORGIVEN_AFTER);
        assert_eq!(ask(right.clone()).await.unwrap().status().as_u16(), 200);
        assert_eq!(wrong(path).await.unwrap().status().as_u16(), 401);
        assert_eq!(ask(right.clone()).await.unwrap().status().as_u16(), 429, "{path}");
    }
    clock.advance(FORGIVEN_AFTER);
    let recording = http.post(url("/asr")).bearer_auth("wrong").body("RIFF");
    assert_eq!(recording.send().await.unwrap().status().as_u16(), 401);
    assert_eq!(wrong("/asr").await.unwrap().status().as_u16(), 429);
    // The health check needs no token.
    assert_eq!(http.get(url("/healthz")).send().await.unwrap().status().as_u16(), 200);
    // A malformed request is not a failed authentication.
    clock.advance(FORGIVEN_AFTER);
    assert_eq!(ask(json!([])).await.unwrap().status().as_u16(), 400);
    assert_eq!(ask(right).await.unwrap().status().as_u16(), 200);
    server.stop().await;
}

#[tokio::test]
async fn behind_a_proxy_the_limit_can_be_switched_off() {
    let (server, _clock) = server(0).await;
    let http = http_client_from(FIRST);
    for _ in 0..100 {
        assert_eq!(speak(&server, &http, "wrong").await.status(), StatusCode::UNAUTHORIZED);
    }
    server.stop().await;
}

/// Number of pairs that are timed.
const PAIRS: usize = 4_000;
/// Largest difference that counts as no difference. Even over the quietest network it takes thousands of
/// requests to measure such a difference, and an address has twenty.
const INDISTINGUISHABLE: Duration = Duration::from_nanos(750);

/// Returns by how many nanoseconds `first` takes longer than `second`: the median of many pairs, each timed
/// back to back, in alternating order. Other load on the machine affects both alike.
#[expect(clippy::disallowed_methods, reason = "the time it takes is what is asserted")]
fn difference(mut first: impl FnMut(usize), mut second: impl FnMut(usize)) -> i64 {
    fn timed(run: &mut dyn FnMut(usize), number: usize) -> i64 {
        let start = Instant::now();
        run(number);
        start.elapsed().as_nanos() as i64
    }
    let mut differences: Vec<i64> = (0..PAIRS)
        .map(|number| match number % 2 {
            0 => timed(&mut first, number) - timed(&mut second, number),
            _ => -(timed(&mut second, number) - timed(&mut first, number)),
        })
        .collect();
    differences.sort_unstable();
    differences[PAIRS / 2]
}

fn secret(number: usize) -> SecretString {
    SecretString::from(format!("vxc_{number:052}"))
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what the test is for")]
fn wrong_and_unknown_take_the_same_time() {
    let clock = ManualClock::new(Duration::from_secs(1_700_000_000));
    let lifetime = Duration::from_secs(60);
    let authority = Authority::in_memory(lifetime, Arc::new(clock.clone())).unwrap();
    let NewClient { client_id, client_secret } = authority.create_project("test").unwrap();
    let granted = authority.client_credentials(&client_id, &client_secret).unwrap();
    clock.advance(lifetime);
    let unknown_id = client_id.replace("voice", "vocie");

    let ask = |client_id: &str, number| {
        let refused = authority.client_credentials(client_id, &secret(number));
        assert!(matches!(refused, Err(AuthorityError::Client)));
    };
    let check = |token: &str| assert!(matches!(authority.check(token), Err(AuthorityError::Token)));
    let expired = granted.access_token.expose_secret();
    let unknown = "vxa_".to_owned() + &"a".repeat(expired.len() - 4);
    let malformed = "?".repeat(expired.len());
    let bound = INDISTINGUISHABLE.as_nanos() as i64;

    let client = difference(|number| ask(&unknown_id, number), |number| ask(&client_id, number));
    let shape = difference(|_| check(&unknown), |_| check(&malformed));
    println!("unknown client against wrong secret: {client} ns; unknown token against malformed: {shape} ns");
    for (name, difference) in [("client", client), ("malformed", shape)] {
        assert!(difference.abs() < bound, "{name}: {difference} ns");
    }

    // The measurement finds a planted difference: a check that hashes 16 kilobytes more.
    let more = vec![7; 16 * 1024];
    let planted = difference(
        |_| check(&unknown),
        |_| {
            black_box(Sha256::digest(black_box(&more)));
            check(&unknown);
        },
    );
    println!("planted: {planted} ns");
    assert!(planted < -bound, "{planted} ns");
}
