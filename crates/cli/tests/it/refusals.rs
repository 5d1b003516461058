//! Refusals of the gateway, as the program reports them.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use voxline_gateway::authority::{Budget, Scope, Terms};
use voxline_testing::{DigestRecognizer, ManualClock};

use crate::cli::{Place, assert_fails, text};
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::Tone;

/// The error messages of the program contain the service's own reason. Its exit codes tell authentication
/// (4) from limits (6).
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_told_the_reason_of_the_service() {
    const USED_UP: Budget = Budget { per_day: None, total: Some(0) };
    const USED_UP_TODAY: Budget = Budget { per_day: Some(0), total: None };
    // Less than the length of the recording.
    const A_SECOND: Budget = Budget { per_day: None, total: Some(1) };
    const A_SECOND_TODAY: Budget = Budget { per_day: Some(1), total: None };
    // 2023-11-14, 22:13:20 UTC: midnight is far.
    let clock = ManualClock::new(Duration::from_secs(1_700_000_000));
    let setup = Setup { clock: Arc::new(clock), voices: Tone::voices(), ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await;
    let scopes = |scope: Scope| [scope].into_iter().collect();
    let networks = vec!["10.0.0.0/8".parse().unwrap()];
    // The terms of a token, and the outcomes of `transcribe` and of `speak` with it.
    let cases = [
        (
            Terms { networks, ..Terms::default() },
            (4, "(status 403): token is not for this address"),
            (4, "(status 403): token is not for this address"),
        ),
        (
            Terms { audio: USED_UP, characters: USED_UP, ..Terms::default() },
            (6, "(status 403): the token's budget of audio is used up"),
            (6, "(status 403): the token's budget of characters is used up"),
        ),
        (
            Terms { audio: A_SECOND, scopes: scopes(Scope::AsrStream), ..Terms::default() },
            (6, "closed the connection with code 4403: the token's budget of audio is used up"),
            (4, "(status 403): token has no scope tts"),
        ),
        (
            // The session is closed with 4429. Its resumption is refused until midnight.
            Terms { audio: A_SECOND_TODAY, scopes: scopes(Scope::AsrStream), ..Terms::default() },
            (6, "(status 429): the token's budget of audio for today is used up"),
            (4, "(status 403): token has no scope tts"),
        ),
        (
            Terms { audio: USED_UP_TODAY, scopes: scopes(Scope::AsrStream), ..Terms::default() },
            (6, "(status 429): the token's budget of audio for today is used up"),
            (4, "(status 403): token has no scope tts"),
        ),
        (
            Terms { scopes: scopes(Scope::Tts), ..Terms::default() },
            (4, "(status 403): token has no scope asr_stream"),
            (0, ""),
        ),
    ];
    let authority = server.gateway.authority();
    let mint =
        |terms| authority.create_service_token("test", terms).unwrap().token.expose_secret().to_owned();
    let mut tried: Vec<_> = cases.map(|(terms, heard, spoken)| (mint(terms), heard, spoken)).into();
    authority.create_project("disabled").unwrap();
    let disabled = authority.create_service_token("disabled", Terms::default()).unwrap();
    authority.set_active("disabled", false).unwrap();
    let inactive = (4, "(status 400): project is inactive");
    tried.push((disabled.token.expose_secret().to_owned(), inactive, inactive));
    let unknown =
        (4, "(status 401): token is missing, unknown or expired; a service token can't be refreshed");
    tried.push(("vxs_unknown".to_owned(), unknown, unknown));

    let endpoint = server.endpoint().to_string();
    let client_id = server.credentials.client_id.clone();
    let trying = tokio::task::spawn_blocking(move || {
        let place = Place::new();
        place.file("a.wav", wav(1, 16_000, 48_000));
        for (token, heard, spoken) in tried {
            place.secret("token", token);
            let service = ["--endpoint", &endpoint, "--token-file", "token"];
            for (command, (code, reason)) in [
                (&["transcribe", "a.wav", "--patience", "5"][..], heard),
                (&["speak", "Hi.", "-o", "hi.wav"], spoken),
            ] {
                let done = place.run(&[command, &service].concat());
                if code == 0 {
                    assert_eq!(done.status.code(), Some(0), "{command:?}: {done:?}");
                } else {
                    assert_fails(&done, code, &[reason]);
                    // A close in the middle of a stream is reported without the endpoint's name.
                    let names_service = text(&done.stderr).contains(&endpoint);
                    assert!(names_service || reason.starts_with("closed"), "{done:?}");
                }
            }
        }
        place.secret("secret", "wrong");
        let service = ["--endpoint", &endpoint, "--client-id", &client_id, "--client-secret-file", "secret"];
        let refused = place.run(&[&["transcribe", "a.wav"][..], &service].concat());
        assert_fails(&refused, 4, &[&endpoint, "(status 401): client id or secret is wrong"]);
    });
    trying.await.unwrap();
    server.stop().await;
}
