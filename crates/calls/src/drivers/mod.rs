//! Connections of peers, which carry the messages of a codec.

mod audiosocket;
mod websocket;

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub(crate) use self::audiosocket::AudioSocketConnection;
pub(crate) use self::websocket::WebSocketConnection;
use super::call::Call;
use super::event::EndReason;
use super::peers::{Codec, Command, Message};
use voxline::error::chain;

/// Longest wait for the start of a call: telephone systems send it with the connection.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without a message. Telephone systems send audio all the time, or pings; one that leaves out
/// silence leaves out no minutes of it.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest wait of a timer that has nothing to do.
const IDLE: Duration = Duration::from_secs(60);

/// A connection of a peer.
pub(crate) trait Connection: Send {
    /// Returns what the peer sends next. Cancel safe.
    ///
    /// # Errors
    /// Returns the description of an error after which the connection is of no use.
    fn next(&mut self) -> impl Future<Output = Result<Received, String>> + Send;

    /// Queues a message.
    fn send(&mut self, message: Message);

    /// Takes the message of 20 ms of silence, for a connection that sends all the time.
    fn idle(&mut self, _silence: Message) {}

    /// Closes the connection, in bounded time.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Something that came by a connection.
pub(crate) enum Received {
    /// A message.
    Message(Message),
    /// A sign of life.
    Ping,
    /// The end: the peer has closed the connection.
    Closed,
}

/// Carries a call from its connection to its end. Once it is `abandoned`, its last results are not waited
/// for.
pub(crate) async fn drive(
    mut connection: impl Connection,
    mut codec: Box<dyn Codec>,
    mut call: Call,
    stop: CancellationToken,
    abandoned: CancellationToken,
) {
    let began = now();
    let (reason, error) = match carry(&mut connection, &mut *codec, &mut call, began, &stop).await {
        Ok(reason) => (reason, None),
        Err(fault) => (EndReason::PeerFault, Some(fault)),
    };
    let length = began.elapsed();
    if reason == EndReason::Stopped {
        let mut messages = Vec::new();
        // A peer without a message for it hangs up when its connection closes.
        let _ = codec.write(Command::Hangup, &mut messages);
        messages.into_iter().for_each(|message| connection.send(message));
    }
    tracing::info!(call = %call.name(), ?reason, error, seconds = length.as_secs(), "call ended");
    let ending = async { tokio::join!(connection.close(), call.end(reason, error, length)) };
    tokio::select! {
        _ = ending => {}
        () = abandoned.cancelled() => {}
    }
}

/// Carries what the peer sends to the call, until either ends. Returns the reason for the end.
///
/// # Errors
/// Returns the description of a fault of the peer.
async fn carry(
    connection: &mut impl Connection,
    codec: &mut dyn Codec,
    call: &mut Call,
    began: Instant,
    stop: &CancellationToken,
) -> Result<EndReason, String> {
    let mut events = Vec::new();
    let mut last_message = began;
    let mut timer = pin!(sleep_until(began + START_TIMEOUT));
    let mut room = pin!(call.room());
    loop {
        tokio::select! {
            received = connection.next() => {
                last_message = now();
                let message = match received? {
                    Received::Message(message) => message,
                    Received::Ping => continue,
                    Received::Closed => return Ok(EndReason::ConnectionLost),
                };
                let read = codec.read(message, &mut events);
                for event in events.drain(..) {
                    call.take(event, began.elapsed()).map_err(|error| chain(&error).to_string())?;
                }
                if let Some(silence) = call.new_silence() {
                    let mut messages = Vec::new();
                    let _ = codec.write(Command::Audio(silence), &mut messages);
                    messages.into_iter().for_each(|message| connection.idle(message));
                }
                read.map_err(|error| chain(&error).to_string())?;
                if call.has_ended {
                    return Ok(EndReason::HungUp);
                }
            }
            () = timer.as_mut() => {
                call.poll(began.elapsed());
                let (since, patience) =
                    if call.has_started() { (last_message, SILENCE_TIMEOUT) } else { (began, START_TIMEOUT) };
                if since.elapsed() >= patience {
                    return Err(format!("nothing came for {} s", patience.as_secs()));
                }
                timer.as_mut().reset(now() + IDLE.min(patience));
            }
            permit = room.as_mut(), if call.has_events() => {
                call.send_next(permit);
                room.set(call.room());
            }
            () = stop.cancelled() => return Ok(EndReason::Stopped),
        }
        // Most messages leave the timer alone.
        if let Some(due) = call.deadline().map(|due| began + due)
            && due < timer.deadline()
        {
            timer.as_mut().reset(due);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
fn now() -> Instant {
    Instant::now()
}
