//! Usage of tokens, and the end of service where their budgets are used up.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use voxline::clock::Clock;
use voxline_gateway::authority::{Amount, Authority, Budget, Exhausted, NewToken, Terms};
use voxline_testing::{FailingDisk, ManualClock};

use crate::stream::index;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::authority::{HOUR, NOW, TO_MIDNIGHT, clock, server, service_token, serving};
use voxline_fixtures::gateway::http::{http_client, refusal, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tokens::bearer;

/// Number of samples in one second of audio.
const SECOND: u64 = 16_000;
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn audio(per_day: Option<u64>, total: Option<u64>) -> Terms {
    Terms { audio: Budget { per_day, total }, ..Terms::default() }
}

fn characters(per_day: Option<u64>, total: Option<u64>) -> Terms {
    Terms { characters: Budget { per_day, total }, ..Terms::default() }
}

async fn say(server: &Server, http: &Client, token: &SecretString, text: &str) -> Response {
    let request = http.post(url(server, "/tts")).bearer_auth(token.expose_secret()).body(text.to_owned());
    request.send().await.unwrap()
}

async fn hear(server: &Server, http: &Client, token: &SecretString, frames: u32) -> Response {
    let request = http.post(url(server, "/asr")).bearer_auth(token.expose_secret());
    request.body(wav(1, 16_000, frames)).send().await.unwrap()
}

/// Returns today's usage and the total.
fn used(authority: &Authority, id: &str) -> (Amount, Amount) {
    let usage = authority.usage(Some("test")).unwrap();
    let entry = usage.into_iter().find(|entry| entry.id == id).expect("it was used");
    (entry.today, entry.total)
}

fn assert_waits(answer: &Response, wait: Duration) {
    assert_eq!(answer.headers()["retry-after"], wait.as_secs().to_string().as_str());
}

#[tokio::test]
async fn text_is_charged_before_it_is_spoken() {
    let clock = clock();
    let (server, http) = (server(&clock).await, http_client().unwrap());
    let NewToken { id, token } = service_token(&server, characters(Some(10), Some(15)));
    let say = |text| say(&server, &http, &token, text);
    // The budget counts characters, not bytes.
    assert_eq!(say("Héllo é").await.status(), StatusCode::OK);
    let refused = say("four").await;
    assert_waits(&refused, TO_MIDNIGHT);
    assert_eq!(refusal(refused).await, (StatusCode::TOO_MANY_REQUESTS, 429));
    // Text that exceeds the budget costs nothing, and neither does text that can't be spoken.
    assert_eq!(say("").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(say("abc").await.status(), StatusCode::OK);
    let authority = server.gateway.authority();
    assert_eq!(used(authority, &id), (Amount::text(10), Amount::text(10)));

    clock.advance(TO_MIDNIGHT - Duration::from_millis(1));
    assert_eq!(say("a").await.status(), StatusCode::TOO_MANY_REQUESTS);
    clock.advance(Duration::from_millis(1));
    assert_eq!(say("abcde").await.status(), StatusCode::OK);
    assert_eq!(refusal(say("a").await).await, (StatusCode::FORBIDDEN, 403));
    assert_eq!(used(authority, &id), (Amount::text(5), Amount::text(15)));
    server.stop().await;
}

#[tokio::test]
async fn a_recording_is_charged_as_it_is_decoded() {
    let clock = clock();
    let (server, http) = (server(&clock).await, http_client().unwrap());
    let NewToken { id, token } = service_token(&server, audio(Some(10), Some(15)));
    let authority = server.gateway.authority();
    assert_eq!(hear(&server, &http, &token, 20_000).await.status(), StatusCode::OK);
    assert_eq!(used(authority, &id).0, Amount::audio(1_250));
    // No more audio is decoded than the budget allows.
    let refused = hear(&server, &http, &token, 3_200_000).await;
    assert_waits(&refused, TO_MIDNIGHT);
    assert_eq!(refusal(refused).await, (StatusCode::TOO_MANY_REQUESTS, 429));
    let (today, _) = used(authority, &id);
    assert!((5_000..=10_000).contains(&today.audio_ms), "{today:?}");
    clock.advance(TO_MIDNIGHT);
    let refused = hear(&server, &http, &token, 3_200_000).await;
    let (_, total) = used(authority, &id);
    assert!((10_001..=15_000).contains(&total.audio_ms), "{total:?}");
    assert_eq!(refusal(refused).await, (StatusCode::FORBIDDEN, 403));
    // Speech has a budget of its own.
    assert_eq!(say(&server, &http, &token, "Hello.").await.status(), StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_budget_and_goes_on_under_another_token() {
    let clock = clock();
    let server = server(&clock).await;
    let authority = server.gateway.authority();
    let daily = service_token(&server, audio(Some(1), None));
    let total = service_token(&server, audio(None, Some(1)));
    let endless = service_token(&server, Terms::default());
    let pcm = vec![1; 4 * SECOND as usize];

    let (mut socket, ready) = Socket::start(&server, &bearer(&daily.token)).await;
    socket.audio(&pcm, 0, SECOND);
    // Audio that was received before costs nothing.
    socket.audio(&pcm, 0, SECOND);
    socket.acknowledged(SECOND).await;
    socket.frame(SECOND, &pcm[..160]);
    let (code, reason, error) = socket.closed().await;
    assert_eq!((code, reason.as_str()), (4429, "the token's budget of audio for today is used up"));
    assert_eq!(error.unwrap()["code"], 4429);
    assert_eq!(used(authority, &daily.id).0, Amount::audio(1_000));

    let (mut socket, resumed) = Socket::resume(&server, &bearer(&total.token), &ready, 0).await;
    assert_eq!(resumed["received"], SECOND);
    socket.audio(&pcm, SECOND, 2 * SECOND);
    socket.acknowledged(2 * SECOND).await;
    socket.frame(2 * SECOND, &pcm[..160]);
    let (code, reason, error) = socket.closed().await;
    assert_eq!((code, reason.as_str()), (4403, "the token's budget of audio is used up"));
    assert_eq!(error.unwrap()["code"], 403);

    let (mut socket, _) = Socket::resume(&server, &bearer(&endless.token), &ready, 0).await;
    // Frames of one sample cost exactly their duration.
    for frame in 2 * SECOND..3 * SECOND {
        socket.frame(frame, &pcm[..1]);
    }
    // Of a frame that was received in part, only the rest counts.
    socket.frame(2 * SECOND, &pcm[..index(SECOND)]);
    socket.frame(3 * SECOND - 160, &pcm[..176]);
    socket.acknowledged(3 * SECOND + 16).await;
    socket.end(3 * SECOND + 16).await;
    assert_eq!(used(authority, &endless.id).1, Amount::audio(1_001));

    // A token without any budget left is refused before the WebSocket opens.
    let http = http_client().unwrap();
    let dial = |token: &NewToken| {
        http.get(url(&server, "/asr_stream/ws")).bearer_auth(token.token.expose_secret()).send()
    };
    let refused = dial(&daily).await.unwrap();
    assert_waits(&refused, TO_MIDNIGHT);
    assert_eq!(refusal(refused).await, (StatusCode::TOO_MANY_REQUESTS, 429));
    assert_eq!(refusal(dial(&total).await.unwrap()).await, (StatusCode::FORBIDDEN, 403));
    clock.advance(TO_MIDNIGHT);
    let (socket, _) = Socket::start(&server, &bearer(&daily.token)).await;
    socket.end(0).await;
    server.stop().await;
}

#[tokio::test]
async fn clients_are_counted_too_and_a_restart_forgets_nothing() {
    let (clock, directory) = (clock(), tempfile::tempdir().unwrap());
    let state = directory.path().join("state");
    let setup = || Setup { clock: Arc::new(clock.clone()), state: Some(state.clone()), ..Setup::default() };
    let server = serving(setup()).await;
    let http = http_client().unwrap();
    let credentials = server.credentials.clone();
    let authority = server.gateway.authority();
    let granted = authority.client_credentials(&credentials.client_id, &credentials.client_secret).unwrap();
    let service = service_token(&server, audio(Some(2), None));
    for token in [&granted.access_token, &service.token] {
        assert_eq!(hear(&server, &http, token, 20_000).await.status(), StatusCode::OK);
        assert_eq!(say(&server, &http, token, "Hello.").await.status(), StatusCode::OK);
    }
    let before = authority.usage(None).unwrap();
    let both = Amount { audio_ms: 1_250, characters: 6 };
    assert!(before.iter().all(|entry| entry.today == both && entry.total == both), "{before:?}");
    assert_eq!(before.len(), 2);
    server.stop().await;

    let server = serving(setup()).await;
    assert_eq!(server.gateway.authority().usage(None).unwrap(), before);
    assert_eq!(hear(&server, &http, &service.token, 16_000).await.status(), StatusCode::TOO_MANY_REQUESTS);
    // The usage of a revoked token stays known.
    server.gateway.authority().revoke_token(&service.id).unwrap();
    assert_eq!(used(server.gateway.authority(), &service.id).1.characters, 6);
    server.stop().await;
}

#[test]
fn usage_is_kept_when_it_is_told_to_be_and_not_before() {
    let (clock, directory) = (clock(), tempfile::tempdir().unwrap());
    let open = || Authority::open(directory.path(), HOUR, Arc::new(clock.clone())).unwrap();
    let authority = open();
    authority.create_project("test").unwrap();
    let NewToken { id, token } = authority.create_service_token("test", Terms::default()).unwrap();
    let identity = authority.check(token.expose_secret()).unwrap();
    authority.charge(&identity, "tts", Amount::text(1)).unwrap();
    authority.keep_usage().unwrap();
    authority.charge(&identity, "tts", Amount::text(2)).unwrap();
    assert_eq!(used(&authority, &id).1, Amount::text(3));
    drop(authority);
    assert_eq!(used(&open(), &id).1, Amount::text(1));
}

/// A token of ten characters a day, on a machine whose clock can be set and that can be restarted.
struct Machine {
    clock: ManualClock,
    disk: FailingDisk,
    authority: Authority,
    token: SecretString,
}

impl Machine {
    fn new() -> Machine {
        let (clock, disk) = (clock(), FailingDisk::new());
        let authority = Authority::on_disk(disk.clone(), HOUR, Arc::new(clock.clone())).unwrap();
        authority.create_project("test").unwrap();
        let token = authority.create_service_token("test", characters(Some(10), None)).unwrap().token;
        Machine { clock, disk, authority, token }
    }

    fn restart(&mut self) {
        self.authority.keep_usage().unwrap();
        self.disk = self.disk.after_a_crash(|_| false);
        self.authority = Authority::on_disk(self.disk.clone(), HOUR, Arc::new(self.clock.clone())).unwrap();
    }

    /// Uses one character. Returns the wait until the budget allows it, if the budget is used up.
    fn use_one(&self) -> Result<(), Duration> {
        let identity = self.authority.check(self.token.expose_secret()).unwrap();
        self.authority.charge(&identity, "tts", Amount::text(1)).map_err(|exhausted| match exhausted {
            Exhausted::Daily { wait, .. } => wait,
            exhausted => panic!("{exhausted}"),
        })
    }

    /// Uses the `left` characters of the day. Then the next character must be refused until midnight by the
    /// clock.
    fn use_up(&self, left: usize) {
        for character in 0..left {
            assert_eq!(self.use_one(), Ok(()), "character {character} of {left}");
        }
        let midnight = DAY - Duration::from_secs(self.clock.unix().as_secs() % DAY.as_secs());
        assert_eq!(self.use_one(), Err(midnight));
    }
}

#[test]
fn a_clock_that_ran_ahead_freezes_no_budget() {
    for restarting in [false, true] {
        let mut machine = Machine::new();
        let pass = |machine: &mut Machine| {
            if restarting {
                machine.restart();
            }
        };
        for day in 0..3 {
            let now = NOW + day * DAY;
            machine.clock.set(now);
            machine.use_one().unwrap();
            pass(&mut machine);
            // For one request the clock is ten years ahead.
            machine.clock.set(now + 3_650 * DAY);
            machine.use_one().unwrap();
            pass(&mut machine);
            machine.clock.set(now);
            machine.use_up(9);
            pass(&mut machine);
            // The refusal ends with the day, as the wait said.
            machine.clock.advance(machine.use_one().unwrap_err() - Duration::from_millis(1));
            assert_eq!(machine.use_one(), Err(Duration::from_millis(1)));
            pass(&mut machine);
        }
        // The days that the clock once showed have lost the characters used on them.
        for day in 0..3 {
            machine.clock.set(NOW + (3_650 + day) * DAY);
            machine.use_up(9);
            pass(&mut machine);
        }
    }
}

#[test]
fn a_clock_set_back_and_forth_renews_no_budget() {
    for restarting in [false, true] {
        let mut machine = Machine::new();
        // Yesterday, today, tomorrow and a day next year, in several rounds.
        for round in 0..4 {
            for day in [0, 1, 2, 400, 1, 0, 2] {
                machine.clock.set(NOW + day * DAY);
                if round > 0 || machine.use_one().is_err() {
                    machine.use_up(0);
                } else {
                    machine.use_up(9);
                }
                if restarting {
                    machine.restart();
                }
            }
        }
        machine.clock.set(NOW + 3 * DAY);
        machine.use_up(10);
    }
}
