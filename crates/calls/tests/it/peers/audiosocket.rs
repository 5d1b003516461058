//! Asterisk's AudioSocket.

use bytes::Bytes;
use voxline::audio::Encoding;
use voxline_calls::peers::audiosocket::AudioSocket;
use voxline_calls::peers::{Codec as _, Command, CommandError, Message, PeerEvent, Track};

use super::{audio, binary, heard, pcm, read, refused, started, text, unwritable, write};

const UUID: [u8; 19] = [
    0x01, 0x00, 0x10, 0x40, 0x32, 0x5E, 0xC2, 0x5E, 0xFD, 0x4B, 0xD3, 0x80, 0x5F, 0x53, 0x57, 0x6D, 0x04,
    0x58, 0x1E,
];

fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, (payload.len() >> 8) as u8, payload.len() as u8][..], payload].concat()
}

fn call() -> AudioSocket {
    let mut codec = AudioSocket::new();
    read(&mut codec, [binary(UUID)]);
    codec
}

#[test]
fn a_call_begins_with_its_uuid_at_8_khz() {
    let start = started(&read(&mut AudioSocket::new(), [binary(UUID)]));
    assert_eq!(start.call.as_deref(), Some("40325ec2-5efd-4bd3-805f-53576d04581e"));
    assert_eq!(start.tracks, [Track::Inbound]);
    assert_eq!(start.receives, pcm(Encoding::S16Le, 8_000));
    assert_eq!(start.sends, Some(start.receives));
}

#[test]
fn a_stream_in_pieces_of_any_length_gives_the_same_events() {
    let voice = audio(320);
    let stream = [
        &UUID[..],
        &framed(0x10, &voice),
        &framed(0x03, b"7"),
        &framed(0x10, &[]),
        &framed(0x10, &voice[..2]),
        &framed(0x03, b"#"),
        &framed(0x00, &[]),
        b"what comes after a hangup",
    ]
    .concat();
    let whole = read(&mut AudioSocket::new(), [binary(&stream)]);
    assert_eq!(heard(&whole, Track::Inbound), [&voice[..], &voice[..2]].concat());
    let key = |digit| PeerEvent::Dtmf { track: Track::Inbound, digit };
    assert_eq!([&whole[2], &whole[4], &whole[5]], [&key('7'), &key('#'), &PeerEvent::Ended]);
    for length in 1..stream.len() {
        let events = read(&mut AudioSocket::new(), stream.chunks(length).map(binary));
        assert!(events == whole, "pieces of {length}: {events:?}");
    }
    for cut in 0..stream.len() {
        let (one, other) = stream.split_at(cut);
        assert!(read(&mut AudioSocket::new(), [one, other].map(binary)) == whole, "cut at {cut}");
    }
}

#[test]
fn the_first_audio_says_another_rate() {
    let rates = [
        (0x11, 12_000),
        (0x12, 16_000),
        (0x13, 24_000),
        (0x14, 32_000),
        (0x15, 44_100),
        (0x16, 48_000),
        (0x17, 96_000),
        (0x18, 192_000),
    ];
    for (kind, rate) in rates {
        let mut codec = call();
        let events = read(&mut codec, [binary(framed(kind, &[1, 2])), binary(framed(kind, &[3, 4]))]);
        assert_eq!(events[0], PeerEvent::Format(pcm(Encoding::S16Le, rate)));
        assert_eq!((events.len(), heard(&events, Track::Inbound)), (3, vec![1, 2, 3, 4]));
        let frames = write(&mut codec, Command::Audio(Bytes::from(audio(2))));
        assert_eq!(frames, [binary([kind, 0, 2, 0, 131])]);
    }
    assert_eq!(read(&mut call(), [binary(framed(0x10, &[1, 2]))]).len(), 1);
}

#[test]
fn audio_is_written_in_frames_of_20_ms_that_are_one_message_each() {
    let mut codec = call();
    let voice = audio(1_000);
    let messages = write(&mut codec, Command::Audio(Bytes::from(voice.clone())));
    let expected: Vec<Message> = voice.chunks(320).map(|piece| binary(framed(0x10, piece))).collect();
    assert_eq!(messages, expected);
    assert_eq!(write(&mut codec, Command::Hangup), [binary([0, 0, 0])]);
}

#[test]
fn what_is_written_reads_as_the_same_audio() {
    for length in (0..2_000).step_by(2) {
        let mut codec = call();
        let voice = audio(length);
        let messages = write(&mut codec, Command::Audio(Bytes::from(voice.clone())));
        assert!(heard(&read(&mut call(), messages), Track::Inbound) == voice);
    }
}

#[test]
fn commands_that_the_protocol_has_not_are_refused() {
    let audio = Command::Audio(Bytes::from_static(&[0, 0]));
    assert_eq!(unwritable(&mut AudioSocket::new(), audio), CommandError::NotStarted);
    for command in [Command::Clear, Command::Mark("a".to_owned()), Command::Answer] {
        assert_eq!(unwritable(&mut call(), command), CommandError::Unsupported);
    }
}

#[test]
fn broken_frames_are_named_before_their_payload_comes() {
    let opening: [(&[u8], &str); 5] = [
        (&[0x01, 0, 15], "UUID frame of the peer: expected 16 bytes, got 15"),
        (&[0x01, 0xFF, 0xFF], "UUID frame of the peer: expected 16 bytes, got 65535"),
        (&[0x10, 0, 2], "audio frame of the peer: expected the UUID first"),
        (b"GET", "frame of the peer: expected a known kind, got 0x47"),
        (&[0x02, 0, 0], "frame of the peer: expected a known kind, got 0x02"),
    ];
    for (header, error) in opening {
        assert_eq!(refused(&mut AudioSocket::new(), binary(header)), error);
    }
    let in_call: [(&[u8], &str); 6] = [
        (&[0x10, 0, 3], "audio frame of the peer: expected an even length, got 3 bytes"),
        (&[0x03, 0, 2], "DTMF frame of the peer: expected 1 bytes, got 2"),
        (&[0x00, 0, 1], "hangup frame of the peer: expected 0 bytes, got 1"),
        (&UUID, "UUID frame of the peer: expected one in a call"),
        (&[0xFF, 0, 1, 4], "error frame of the peer: Asterisk is out of memory"),
        (&[0xFF, 0, 0], "error frame of the peer: Asterisk reports the error 0x00"),
    ];
    for (frame, error) in in_call {
        assert_eq!(refused(&mut call(), binary(frame)), error);
    }
    assert_eq!(refused(&mut call(), text("")), "text message of the peer: expected bytes of a stream");
}

#[test]
fn the_rate_can_not_change() {
    let mut codec = call();
    read(&mut codec, [binary(framed(0x12, &[0, 0]))]);
    let error = refused(&mut codec, binary(framed(0x10, &[0, 0])));
    assert_eq!(error, "audio frame of the peer: expected kind 0x12, got 0x10");
}

#[test]
fn a_hangup_ends_the_call_once() {
    let mut codec = call();
    let hangup = binary(framed(0xFF, &[1]));
    assert_eq!(read(&mut codec, [hangup.clone()]), [PeerEvent::Ended]);
    assert_eq!(read(&mut codec, [hangup, binary([9; 100])]), []);
    let mut events = Vec::new();
    AudioSocket::new().read(binary([0, 0, 0]), &mut events).unwrap();
    assert!(events.is_empty(), "a call that never began can't end");
}

#[test]
fn keys_that_no_telephone_has_are_left_out() {
    assert_eq!(read(&mut call(), [binary(framed(0x03, b"F")), binary(framed(0x03, &[0xC3]))]), []);
}
