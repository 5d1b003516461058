//! An Asterisk that sends a call by AudioSocket (Asterisk's documentation, "AudioSocket").

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::telephone::{Recording, from_mu_law, now, until};

/// Plays the customer's leg as a call of this UUID, then hangs up, and waits for the end of the connection.
pub(super) async fn call(door: SocketAddr, uuid: [u8; 16], recording: &Recording) {
    let mut stream = play(door, uuid, recording).await;
    stream.write_all(&[0x00, 0, 0]).await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
}

/// Plays the customer's leg as a call of this UUID. Returns the connection of the call, which goes on.
pub(super) async fn play(door: SocketAddr, uuid: [u8; 16], recording: &Recording) -> TcpStream {
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = stream.split();
    let packets = recording.packets(0).count();
    let playing = async {
        writer.write_all(&[&[0x01, 0, 16][..], &uuid].concat()).await.unwrap();
        let began = now();
        for (number, packet) in recording.packets(0).enumerate() {
            until(began, number as u64).await;
            let pcm: Vec<u8> = packet.iter().flat_map(|&code| from_mu_law(code).to_le_bytes()).collect();
            let length = u16::try_from(pcm.len()).unwrap().to_be_bytes();
            writer.write_all(&[&[0x10][..], &length, &pcm].concat()).await.unwrap();
        }
    };
    // It is sent silence at the pace of its own audio, from the first moment.
    let listening = async {
        for _ in 0..packets - 10 {
            let mut frame = [1; 323];
            reader.read_exact(&mut frame).await.unwrap();
            assert_eq!(frame[..3], [0x10, 1, 64], "Asterisk takes frames of 20 ms at 8 kHz");
            assert!(frame[3..].iter().all(|&byte| byte == 0), "nothing is played");
        }
    };
    tokio::join!(playing, listening);
    stream
}
