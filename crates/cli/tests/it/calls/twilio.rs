//! A Twilio that streams both tracks of a call (Twilio's documentation, "Media Streams: WebSocket Messages").

use std::net::SocketAddr;

use futures::SinkExt;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use super::telephone::{Recording, Weather, base64, now, until};

/// Plays both legs as a call of this name through a network with this weather, then stops.
pub(super) async fn call(door: SocketAddr, name: &str, recording: &Recording, mut weather: Weather) {
    let stream = TcpStream::connect(door).await.unwrap();
    let (mut socket, _) = client_async(format!("ws://{door}/calls/twilio"), stream).await.unwrap();
    let send = |text: String| Message::text(text);
    socket
        .send(send(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#.to_owned()))
        .await
        .unwrap();
    let start = format!(
        r#"{{"event":"start","sequenceNumber":"1","streamSid":"MZ{name}","start":{{"streamSid":"MZ{name}",
        "accountSid":"AC0","callSid":"{name}","tracks":["inbound","outbound"],"customParameters":{{}},
        "mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}}}}"#
    );
    socket.send(send(start)).await.unwrap();
    let packets: Vec<[&[u8]; 2]> =
        recording.packets(0).zip(recording.packets(1)).map(|(one, other)| [one, other]).collect();
    let mut sent = Vec::new();
    for (leg, track) in ["inbound", "outbound"].into_iter().enumerate() {
        let arrivals = weather.arrivals(packets.len());
        sent.extend(arrivals.into_iter().map(|(at, number)| (at, number, leg, track)));
    }
    sent.sort_by_key(|&(at, ..)| at);
    let began = now();
    for (sequence, (at, number, leg, track)) in sent.into_iter().enumerate() {
        until(began, at).await;
        let media = format!(
            r#"{{"event":"media","sequenceNumber":"{}","streamSid":"MZ{name}","media":{{"track":"{track}",
            "chunk":"{}","timestamp":"{}","payload":"{}"}}}}"#,
            sequence + 2,
            number + 1,
            number * 20 + 5,
            base64(packets[number][leg]),
        );
        socket.send(send(media)).await.unwrap();
    }
    let stop = format!(r#"{{"event":"stop","streamSid":"MZ{name}","stop":{{"callSid":"{name}"}}}}"#);
    socket.send(send(stop)).await.unwrap();
    socket.close(None).await.unwrap();
}
