//! Rights of a task's tokens: which requests, for how long, at whose expense.

use std::net::Ipv4Addr;
use std::time::Duration;

use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use voxline_gateway::Options;
use voxline_gateway::authority::{Budget, NewToken, Scope, Terms};

use super::{Bench, NO_TASK, NO_TOKEN, OVER, PATIENCE, file, options, text};
use crate::stream::audio;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{http_client_from, refusal, url};
use voxline_fixtures::gateway::tokens::minted;

#[tokio::test]
async fn a_task_token_opens_its_task_and_nothing_else() {
    let bench = Bench::new(options()).await;
    let creator = minted(&bench.server);
    let (task, other) = (bench.task_of(&creator).await, bench.task_of(&creator).await);
    let unknown = "05ad987e-ceee-4186-acdb-956148b91692";
    // A client without a task token can't tell an existing task from an unknown one.
    for token in ["wrong", creator.expose_secret()] {
        for id in [task.id.as_str(), unknown] {
            let answer = task.ask_result(token, id).await;
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert_eq!(refusal(answer).await, NO_TOKEN);
            let parameters = format!("task_id={id}&chunk_num=0");
            let chunk = task.add_as(token, &parameters, wav(1, 16_000, 100)).await;
            assert_eq!(refusal(chunk).await, NO_TOKEN);
        }
    }
    // Neither can the owner of another task.
    for id in [task.id.as_str(), unknown] {
        assert_eq!(refusal(task.ask_result(&other.token, id).await).await, NO_TASK);
        let parameters = format!("task_id={id}&chunk_num=0");
        let chunk = task.add_as(&other.token, &parameters, wav(1, 16_000, 100)).await;
        assert_eq!(refusal(chunk).await, NO_TASK);
    }
    let task_token = SecretString::from(task.token.clone());
    assert_eq!(refusal(bench.ask_task(&task_token).await).await, NO_TOKEN);
    assert!(bench.recognizer.recordings().iter().all(Vec::is_empty));
    bench.server.stop().await;
}

#[tokio::test]
async fn tasks_are_charged_and_counted_like_sessions() {
    let bench = Bench::new(Options { max_sessions: 2, ..options() }).await;
    let budget = Budget { per_day: None, total: Some(1) };
    let terms = Terms { audio: budget, max_sessions: Some(1), ..Terms::default() };
    let NewToken { id, token } = bench.service(terms);
    let task = bench.task_of(&token).await;
    task.added("0", wav(1, 16_000, 8_000)).await;
    let one_too_many = bench.task_of(&token).await;
    let full = one_too_many.add("0", wav(1, 16_000, 100)).await;
    assert_eq!(full.headers()["retry-after"], "5");
    assert_eq!(refusal(full).await, (StatusCode::TOO_MANY_REQUESTS, 429));
    let (second, third) = (bench.task().await, bench.task().await);
    second.added("0", wav(1, 16_000, 100)).await;
    let full = third.add("0", wav(1, 16_000, 100)).await;
    assert_eq!(full.headers()["retry-after"], "5");
    assert_eq!(refusal(full).await, (StatusCode::TOO_MANY_REQUESTS, 429));
    let full = bench.ask_task(&minted(&bench.server)).await;
    assert_eq!(full.headers()["retry-after"], "5");
    assert_eq!(refusal(full).await, (StatusCode::TOO_MANY_REQUESTS, 429));

    task.added("0", wav(1, 16_000, 8_000)).await;
    // A chunk that exceeds the budget costs nothing and is not recognised; a shorter one may fit.
    assert_eq!(task.refused("1", wav(1, 16_000, 16_000)).await, (StatusCode::FORBIDDEN, 403));
    task.added("1&last=1", wav(1, 16_000, 8_000)).await;
    let used = bench.server.gateway.authority().usage(Some("test")).unwrap();
    assert_eq!(used.iter().find(|entry| entry.id == id).unwrap().total.audio_ms, 1_000);
    assert_eq!(refusal(bench.ask_task(&token).await).await, (StatusCode::FORBIDDEN, 403));

    // A task that is done frees its place.
    second.added("1&last=1", wav(1, 16_000, 100)).await;
    let emptied = async { while bench.live().await > 0 {} };
    timeout(PATIENCE, emptied).await.expect("both leave their places");
    third.added("0&last=1", wav(1, 16_000, 100)).await;
    // A chunk that can't be paid for starts no recognition.
    assert_eq!(one_too_many.refused("0", wav(1, 16_000, 100)).await, (StatusCode::FORBIDDEN, 403));
    timeout(PATIENCE, async { while bench.live().await > 0 {} }).await.expect("nothing is begun");
    bench.server.stop().await;
}

#[tokio::test]
async fn scope_and_network_are_asked_for() {
    let bench = Bench::new(options()).await;
    let forbidden = (StatusCode::FORBIDDEN, 4048);
    let other = bench.service(Terms { scopes: [Scope::AsrShort].into_iter().collect(), ..Terms::default() });
    assert_eq!(refusal(bench.ask_task(&other.token).await).await, forbidden);

    let networks = vec![std::net::IpAddr::from(Ipv4Addr::LOCALHOST).into()];
    let task = bench.task_of(&bench.service(Terms { networks, ..Terms::default() }).token).await;
    assert_eq!(task.result().await.1, "in_progress");
    let elsewhere = http_client_from([127, 0, 0, 2]);
    let address = url(&bench.server, &format!("/asr_stream/get_result?task_id={}", task.id));
    let answer = elsewhere.get(address).bearer_auth(&task.token).send().await.unwrap();
    assert_eq!(refusal(answer).await, forbidden);
    // Both refusals are audited and counted, as those of any token.
    let metrics = bench.http.get(url(&bench.server, "/metrics")).send().await.unwrap().text().await.unwrap();
    for reason in ["scope", "address"] {
        let counted = format!("voxline_tokens_refused_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.contains(&counted), "{counted}{metrics}");
    }
    bench.server.stop().await;
}

#[tokio::test]
async fn a_task_ends_with_its_token() {
    let bench = Bench::new(options()).await;
    let NewToken { id, token } = bench.service(Terms::default());
    let (live, done) = (bench.task_of(&token).await, bench.task_of(&token).await);
    live.added("0", wav(1, 16_000, 100)).await;
    done.added("0&last=1", wav(1, 16_000, 100)).await;
    let bystander = bench.task().await;
    bench.server.gateway.authority().revoke_token(&id).unwrap();
    let ended = async { while bench.live().await > 1 {} };
    timeout(Duration::from_secs(1), ended).await.expect("it ends within a second");
    for task in [&live, &done] {
        assert_eq!(task.refused("1", wav(1, 16_000, 100)).await, NO_TOKEN);
        assert_eq!(refusal(task.ask_result(&task.token, &task.id).await).await, NO_TOKEN);
    }
    bystander.added("0&last=1", wav(1, 16_000, 100)).await;

    // A token that expires does not take the task's result along.
    let short = bench.service(Terms { expires_in: Some(1), ..Terms::default() });
    let (task, pcm) = (bench.task_of(&short.token).await, audio(100));
    task.added("0", file(16_000, &pcm)).await;
    task.comes_to(&text(&pcm), "done").await;
    bench.server.gateway.authority().revoke_token(&bench.service(Terms::default()).id).unwrap();
    assert_eq!(task.refused("1", file(16_000, &pcm)).await, OVER);
    assert_eq!(task.result().await.0, text(&pcm));
    bench.server.stop().await;
}
