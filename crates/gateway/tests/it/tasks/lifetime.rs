//! The end of a task: by its last chunk or a gap, by the options, or with the gateway.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::timeout;
use voxline_gateway::{ChunkedOptions, Options};

use super::{Bench, CHUNK, NO_TASK, OVER, PATIENCE, file, options, text};
use crate::stream::audio;
use voxline_fixtures::gateway::http::{refusal, url};
use voxline_fixtures::gateway::tokens::minted;

#[tokio::test]
async fn a_client_that_never_says_last_is_done_after_the_gap() {
    let options = Options {
        chunked: ChunkedOptions { gap: Duration::from_millis(200), ..ChunkedOptions::default() },
        ..options()
    };
    let bench = Bench::new(options).await;
    let (task, pcm) = (bench.task().await, audio(1_000));
    task.added("1", file(16_000, &pcm)).await;
    task.comes_to(&text(&pcm), "done").await;
    assert_eq!(task.refused("2", file(16_000, &pcm)).await, OVER);
    // The last chunk may be repeated, because its answer may have been lost.
    task.added("1", file(16_000, &pcm)).await;
    assert_eq!(bench.recognizer.recordings(), [pcm]);
    bench.server.stop().await;
}

#[tokio::test]
async fn a_task_without_a_chunk_is_done_in_the_end() {
    let bench = Bench::new(Options {
        chunked: ChunkedOptions { opening: Duration::ZERO, ..ChunkedOptions::default() },
        ..options()
    })
    .await;
    let task = bench.task().await;
    task.comes_to("", "done").await;
    assert_eq!(task.refused("0", file(16_000, &audio(CHUNK as u64))).await, OVER);
    bench.server.stop().await;
}

#[tokio::test]
async fn a_result_is_kept_as_long_as_the_options_say() {
    let bench = Bench::new(Options {
        chunked: ChunkedOptions { kept: Duration::ZERO, ..ChunkedOptions::default() },
        ..options()
    })
    .await;
    let (task, pcm) = (bench.task().await, audio(100));
    // The answer itself still comes.
    assert_eq!(task.added("0&last=1", file(16_000, &pcm)).await, text(&pcm));
    let forgotten =
        async { while task.ask_result(&task.token, &task.id).await.status() != StatusCode::NOT_FOUND {} };
    timeout(PATIENCE, forgotten).await.unwrap();
    assert_eq!(refusal(task.ask_result(&task.token, &task.id).await).await, NO_TASK);
    assert_eq!(task.refused("1", file(16_000, &pcm)).await, NO_TASK);
    bench.server.stop().await;
}

#[tokio::test]
async fn a_task_without_a_chunk_holds_no_place() {
    const PLACES: usize = 2;
    let bench = Bench::new(Options { max_sessions: PLACES, ..options() }).await;
    let token = minted(&bench.server);
    let mut crashed = Vec::new();
    for _ in 0..4 * PLACES {
        crashed.push(bench.task_of(&token).await);
    }
    assert_eq!(bench.live().await, 0);
    let pcm = audio(CHUNK as u64);
    for _ in 0..2 * PLACES {
        let task = bench.task().await;
        assert_eq!(task.added("0&last=1", file(16_000, &pcm)).await, text(&pcm));
    }
    // These tasks were not abandoned after all.
    for task in crashed {
        assert_eq!(task.result().await, (String::new(), "in_progress".to_owned()));
        let chunk =
            async { while task.add("0&last=1", file(16_000, &pcm)).await.status() != StatusCode::OK {} };
        timeout(PATIENCE, chunk).await.expect("a place is free once those before are done");
        assert_eq!(task.result().await, (text(&pcm), "done".to_owned()));
    }
    bench.server.stop().await;
}

#[tokio::test]
async fn a_task_of_a_gateway_that_stops_begins_no_more() {
    let bench = Bench::new(Options { drain: PATIENCE, ..options() }).await;
    let (task, pcm) = (bench.task().await, audio(CHUNK as u64));
    let begun = bench.task().await;
    begun.added("0", file(16_000, &pcm)).await;
    bench.server.begin_stop();
    let readiness = || bench.http.get(url(&bench.server, "/readyz")).send();
    let draining = async { while readiness().await.unwrap().status() == StatusCode::OK {} };
    timeout(PATIENCE, draining).await.expect("it drains");
    assert_eq!(task.refused("0", file(16_000, &pcm)).await, (StatusCode::SERVICE_UNAVAILABLE, 503));
    begun.added("1&last=1", file(16_000, &pcm)).await;
    timeout(PATIENCE / 2, bench.server.stop()).await.expect("a task without a chunk holds nothing up");
}

#[tokio::test]
async fn a_stopping_gateway_lets_tasks_finish_and_takes_no_more() {
    let bench = Bench::new(Options { drain: PATIENCE, ..options() }).await;
    let (token, pcm) = (minted(&bench.server), audio(2_000));
    let task = bench.task_of(&token).await;
    // A task that was done before does not delay the stop.
    bench.task_of(&token).await.added("0&last=1", file(16_000, &pcm)).await;
    task.added("0", file(16_000, &pcm[..CHUNK])).await;
    bench.server.begin_stop();
    let draining = async {
        let readiness = || bench.http.get(url(&bench.server, "/readyz")).send();
        while readiness().await.unwrap().status() == StatusCode::OK {}
    };
    timeout(PATIENCE, draining).await.unwrap();
    let refused = bench.ask_task(&token).await;
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refusal(refused).await, (StatusCode::SERVICE_UNAVAILABLE, 503));
    assert_eq!(task.added("1&last=1", file(16_000, &pcm[CHUNK..])).await, text(&pcm));
    // The stop waits for this task no longer than the task takes.
    timeout(PATIENCE / 2, bench.server.stop()).await.unwrap();
}
