//! Signs of life: pings, and how often a client may speak (S34, S35).

use serde_json::json;

use tokio::time::advance;

use super::client::PATIENCE;
use super::*;

#[tokio::test]
async fn s34_pings_are_answered() {
    let gateway = gateway().await;
    let (mut client, _) = gateway.start(json!({})).await;
    client.ping().await;
    assert!(matches!(client.next("a pong").await, Said::Pong));
    client.close(1000).await;
    gateway.server.stop().await;
}

/// A guard that makes the clock of this test's runtime move by hand only. If the guard is held for longer
/// than any wait takes, the clock moves by itself, and the awaited message is reported as missing.
struct HeldClock {
    _held: std::sync::mpsc::Sender<()>,
}

impl HeldClock {
    /// Pauses the clock. A blocked thread keeps tokio's clock from moving by itself.
    fn hold() -> HeldClock {
        tokio::time::pause();
        let (held, release) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || release.recv_timeout(PATIENCE));
        HeldClock { _held: held }
    }
}

#[tokio::test]
async fn s34_a_client_silent_for_20_s_is_asked_and_after_60_s_left_with_its_session_kept() {
    let gateway = gateway().await;
    let (mut silent, ready) = gateway.start(json!({})).await;
    let (mut answering, _) = gateway.start(json!({})).await;
    let clock = HeldClock::hold();
    // Timers go by whole milliseconds.
    advance(Duration::from_millis(20_010)).await;
    silent.pinged().await;
    answering.pinged().await;
    answering.pong().await;
    // After the pong, the gateway has received everything sent before the ping.
    answering.ping().await;
    assert!(matches!(answering.next("a pong").await, Said::Pong));
    advance(Duration::from_secs(40)).await;
    // Not 1000: the session is not over, and a client that only slept resumes.
    assert_eq!(silent.closed().await, (1001, Some(1001)));
    answering.ping().await;
    assert!(matches!(answering.next("a pong").await, Said::Pong));
    let mut again = Client::resume(gateway.server.address, &gateway.token, &ready, 0).await;
    again.hear("ready").await;
    again.close(1000).await;
    answering.close(1000).await;
    drop(clock);
    tokio::time::resume();
    gateway.server.stop().await;
}

/// One second, and the time for which a busy machine may be asked again and again meanwhile.
const RESUMED: Duration = Duration::from_secs(20);

#[tokio::test]
async fn s35_a_session_goes_on_after_too_many_messages() {
    let gateway = gateway().await;
    let (mut client, ready) = gateway.start(json!({})).await;
    for _ in 0..1_500 {
        client.say_anything(r#"{"type":"flush"}"#).await;
    }
    assert_eq!(client.closed().await, (4429, Some(4429)));
    // The session is not lost: it may be resumed once there is an allowance again.
    let resuming = async {
        loop {
            let mut client = Client::resume(gateway.server.address, &gateway.token, &ready, 0).await;
            match client.next("ready").await {
                Said::Message(message) if message["type"] == "ready" => return client,
                _ => assert_eq!(client.closed().await.0, 4429),
            }
        }
    };
    let mut client = timeout(RESUMED, resuming).await.expect("the session may be resumed after a second");
    client.close(1000).await;
    gateway.server.stop().await;
}
