//! Telephone systems that send audio in binary messages: Asterisk's chan_websocket, FreeSWITCH, jambonz and
//! Vonage (the pages on WebSockets of their documentation).

use std::net::SocketAddr;

use futures::SinkExt;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::telephone::{Recording, from_mu_law, now, until};

/// A telephone system: its address, the subprotocol that it asks for, its first message, and its audio.
struct Peer {
    path: &'static str,
    subprotocol: Option<&'static str>,
    opening: Option<&'static str>,
    audio: Audio,
}

/// Audio of a message: mu-law or linear of the customer, or linear of both legs, interleaved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audio {
    MuLaw,
    Linear,
    Stereo,
}

const PEERS: [Peer; 5] = [
    Peer {
        path: "chan-websocket",
        subprotocol: Some("media"),
        opening: Some(
            "MEDIA_START connection_id:media_connection1 channel:WebSocket/voxline/0x1 channel_id:1764.1 format:ulaw \
             optimal_frame_size:160 ptime:20",
        ),
        audio: Audio::MuLaw,
    },
    Peer {
        path: "fork",
        subprotocol: Some("audio.drachtio.org"),
        opening: Some(r#"{"sampleRate":8000,"mixType":"stereo","language":"en"}"#),
        audio: Audio::Stereo,
    },
    Peer {
        path: "audio-stream?rate=8000&channels=2",
        subprotocol: None,
        opening: None,
        audio: Audio::Stereo,
    },
    Peer {
        path: "jambonz",
        subprotocol: Some("audio.jambonz.org"),
        opening: Some(r#"{"callSid":"J1","direction":"inbound","sampleRate":8000,"mixType":"stereo"}"#),
        audio: Audio::Stereo,
    },
    Peer {
        path: "vonage",
        subprotocol: None,
        opening: Some(
            r#"{"event":"websocket:connected","content-type":"audio/l16;rate=8000","language":"en"}"#,
        ),
        audio: Audio::Linear,
    },
];

/// Plays the recording by every peer at once.
pub(super) async fn call(door: SocketAddr, recording: &Recording) {
    let [one, two, three, four, five] = &PEERS;
    tokio::join!(
        play(door, one, recording),
        play(door, two, recording),
        play(door, three, recording),
        play(door, four, recording),
        play(door, five, recording),
    );
}

async fn play(door: SocketAddr, peer: &Peer, recording: &Recording) {
    let mut request = format!("ws://{door}/calls/{}", peer.path).into_client_request().unwrap();
    if let Some(subprotocol) = peer.subprotocol {
        request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
    }
    let (mut socket, answer) = client_async(request, TcpStream::connect(door).await.unwrap()).await.unwrap();
    let spoken = answer.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap());
    assert_eq!(spoken, peer.subprotocol, "{}", peer.path);
    if let Some(opening) = peer.opening {
        socket.send(Message::text(opening)).await.unwrap();
    }
    let linear = |code: u8| from_mu_law(code).to_le_bytes();
    let began = now();
    for (number, (customer, agent)) in recording.packets(0).zip(recording.packets(1)).enumerate() {
        until(began, number as u64).await;
        let audio: Vec<u8> = match peer.audio {
            Audio::MuLaw => customer.to_vec(),
            Audio::Linear => customer.iter().flat_map(|&code| linear(code)).collect(),
            Audio::Stereo => customer
                .iter()
                .zip(agent)
                .flat_map(|(&customer, &agent)| [linear(customer), linear(agent)].concat())
                .collect(),
        };
        socket.send(Message::binary(audio)).await.unwrap();
    }
    socket.close(None).await.unwrap();
}
