//! Services that stream calls in messages like Twilio's: Telnyx, SignalWire, Plivo and Exotel (the pages on
//! media streaming of their documentation).

use std::net::SocketAddr;

use futures::SinkExt;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use super::telephone::{Recording, Weather, base64, from_mu_law, now, until};

/// A relative: its name in addresses, and its messages.
struct Relative {
    name: &'static str,
    /// The messages before the audio.
    opening: &'static [&'static str],
    /// A message of audio: `SEQUENCE`, `TRACK`, `CHUNK`, `TIME` in milliseconds, and `PAYLOAD`.
    media: &'static str,
    /// Number of the first chunk, and time of the first packet.
    first: (u64, u64),
    /// Packets in a message.
    packets: usize,
    /// True if the audio is linear.
    is_linear: bool,
    /// The message after the audio.
    closing: &'static str,
}

const TELNYX: Relative = Relative {
    name: "telnyx",
    opening: &[
        r#"{"event":"connected","version":"1.0.0"}"#,
        r#"{"event":"start","sequence_number":"1","start":{"user_id":"U1","call_control_id":"v3:telnyx",
        "client_state":"","media_format":{"encoding":"PCMU","sample_rate":8000,"channels":1}},"stream_id":"S1"}"#,
    ],
    media: r#"{"event":"media","sequence_number":"SEQUENCE","media":{"track":"TRACK","chunk":"CHUNK",
    "timestamp":"TIME","payload":"PAYLOAD"},"stream_id":"S1"}"#,
    first: (1, 0),
    packets: 1,
    is_linear: false,
    closing: r#"{"event":"stop","sequence_number":"9","stop":{"user_id":"U1","call_control_id":"v3:telnyx"},
    "stream_id":"S1"}"#,
};

const SIGNALWIRE: Relative = Relative {
    name: "signalwire",
    opening: &[
        r#"{"event":"connected","protocol":"Call","version":"0.2.0"}"#,
        r#"{"event":"start","sequenceNumber":"1","start":{"streamSid":"S2","accountSid":"A2","callSid":"signalwire",
        "tracks":["inbound","outbound"],"customParameters":{},
        "mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}},"streamSid":"S2"}"#,
    ],
    media: r#"{"event":"media","sequenceNumber":"SEQUENCE","media":{"track":"TRACK","chunk":"CHUNK",
    "timestamp":"TIME","payload":"PAYLOAD"},"streamSid":"S2"}"#,
    first: (1, 0),
    packets: 1,
    is_linear: false,
    closing: r#"{"event":"stop","sequenceNumber":"9","stop":{"accountSid":"A2","callSid":"signalwire"},"streamSid":"S2"}"#,
};

const PLIVO: Relative = Relative {
    name: "plivo",
    opening: &[
        r#"{"sequenceNumber":0,"event":"start","start":{"callId":"plivo","streamId":"S3","accountId":"A3",
        "tracks":["inbound","outbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000}},
        "extra_headers":"{}"}"#,
    ],
    media: r#"{"sequenceNumber":SEQUENCE,"streamId":"S3","event":"media","media":{"track":"TRACK",
    "timestamp":"TIME","chunk":CHUNK,"payload":"PAYLOAD"},"extra_headers":"{}"}"#,
    // Plivo's times are of the wall clock.
    first: (1, 1_790_000_000_000),
    packets: 1,
    is_linear: false,
    closing: r#"{"sequenceNumber":9,"event":"stop","streamId":"S3","extra_headers":"{}"}"#,
};

const EXOTEL: Relative = Relative {
    name: "exotel",
    opening: &[
        r#"{"event":"connected"}"#,
        r#"{"event":"start","sequence_number":"1","stream_sid":"S4","start":{"stream_sid":"S4","call_sid":"exotel",
        "account_sid":"A4","from":"1","to":"2","custom_parameters":{},
        "media_format":{"encoding":"base64","sample_rate":"8000","bit_rate":"128kbps"}}}"#,
    ],
    media: r#"{"event":"media","sequence_number":"SEQUENCE","stream_sid":"S4",
    "media":{"chunk":"CHUNK","timestamp":"TIME","payload":"PAYLOAD"}}"#,
    first: (1, 0),
    packets: 5,
    is_linear: true,
    closing: r#"{"event":"stop","sequence_number":"9","stream_sid":"S4","stop":{"call_sid":"exotel",
    "account_sid":"A4","reason":"callended"}}"#,
};

/// Plays the recording by every relative at once. Exotel streams the customer alone.
pub(super) async fn call(door: SocketAddr, recording: &Recording) {
    tokio::join!(
        play(door, &TELNYX, recording, Weather::jittery(2)),
        play(door, &SIGNALWIRE, recording, Weather::calm()),
        play(door, &PLIVO, recording, Weather::calm()),
        play(door, &EXOTEL, recording, Weather::calm()),
    );
}

async fn play(door: SocketAddr, relative: &Relative, recording: &Recording, mut weather: Weather) {
    let address = format!("ws://{door}/calls/{}", relative.name);
    let (mut socket, _) = client_async(address, TcpStream::connect(door).await.unwrap()).await.unwrap();
    for message in relative.opening {
        socket.send(Message::text(*message)).await.unwrap();
    }
    let tracks = if relative.is_linear { &["inbound"][..] } else { &["inbound", "outbound"] };
    let mut sent = Vec::new();
    for (leg, track) in tracks.iter().enumerate() {
        let packets: Vec<&[u8]> = recording.packets(leg).collect();
        let messages: Vec<Vec<u8>> = packets.chunks(relative.packets).map(<[&[u8]]>::concat).collect();
        for (at, number) in weather.arrivals(messages.len()) {
            sent.push((at, number, *track, messages[number].clone()));
        }
    }
    sent.sort_by_key(|&(at, ..)| at);
    let began = now();
    let (chunk, time) = relative.first;
    for (sequence, (at, number, track, codes)) in sent.into_iter().enumerate() {
        until(began, at * relative.packets as u64).await;
        let payload = if relative.is_linear {
            base64(&codes.iter().flat_map(|&code| from_mu_law(code).to_le_bytes()).collect::<Vec<u8>>())
        } else {
            base64(&codes)
        };
        let message = relative
            .media
            .replace("SEQUENCE", &(sequence + 2).to_string())
            .replace("TRACK", track)
            .replace("CHUNK", &(number as u64 + chunk).to_string())
            .replace("TIME", &(number as u64 * 20 * relative.packets as u64 + time).to_string())
            .replace("PAYLOAD", &payload);
        socket.send(Message::text(message)).await.unwrap();
    }
    socket.send(Message::text(relative.closing)).await.unwrap();
    socket.close(None).await.unwrap();
}
