//! Parsers of what clients send, for the fuzz targets. Each panics if a promise is broken.

use bytes::Bytes;

use crate::dialects::audio::{PcmEncoding, PcmInput};
use crate::dialects::deepgram::messages;
use crate::dialects::deepgram::parameters::{MAX_CHANNELS, Parameters};
use crate::dialects::deepgram::{prerecorded, speak};
use crate::dialects::openai::realtime;
use crate::dialects::opus_packets::OpusPackets;
use crate::dialects::wyoming::frames::{FrameDecoder, Piece};
use crate::dialects::wyoming::messages as wyoming;
use crate::dialects::{jambonz, openai, vosk};
use crate::http::multipart::{Event, Multipart};
use voxline::protocol::check_hints;

/// Parses the query of a request to Deepgram's API, as that of each of its services.
pub fn deepgram_query(query: &str) {
    drop(prerecorded::Parameters::parse(query));
    drop(speak::Parameters::parse(query));
    let Ok(parameters) = Parameters::parse(query) else { return };
    assert!((1..=MAX_CHANNELS).contains(&parameters.channels));
    assert_eq!(check_hints(None, &parameters.keywords), Ok(()));
}

/// Parses a message of Deepgram's live protocol.
pub fn deepgram_message(text: &str) {
    if let Err(error) = messages::parse(text) {
        assert!(error.to_string().len() < 4_096, "an error repeats a message at length");
    }
}

/// Parses a message of the Vosk protocol.
pub fn vosk_message(text: &str) {
    vosk::messages::parse(text);
}

/// Parses a message of jambonz' custom speech recognition.
pub fn jambonz_message(text: &str) {
    drop(jambonz::messages::parse(text));
}

/// Parses events of OpenAI's Realtime API, one in each line, and applies the settings that they carry.
/// Settings that are accepted are told, and told settings are accepted.
pub fn openai_realtime(text: &str) {
    realtime::apply(text.lines());
}

/// Decodes a stream of Wyoming events, whose first byte tells how it is cut, and reads their data. A stream
/// has the same events however it is cut.
pub fn wyoming_stream(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else { return };
    let pieces = wyoming_pieces(stream, usize::from(cut).max(1));
    assert_eq!(pieces, wyoming_pieces(stream, stream.len().max(1)), "a split changes the events");
    for piece in pieces {
        if let Piece::Event(event) = piece {
            drop(wyoming::parse(event));
        }
    }
}

/// Returns the pieces of a stream as far as it can be read. Payloads are joined.
fn wyoming_pieces(stream: &[u8], cut: usize) -> Vec<Piece> {
    let mut decoder = FrameDecoder::new();
    let mut pieces = Vec::new();
    for part in stream.chunks(cut) {
        decoder.feed(part);
        loop {
            match (decoder.next_piece(), pieces.last_mut()) {
                (Ok(Some(Piece::Payload(more))), Some(Piece::Payload(payload))) => {
                    *payload = [&payload[..], &more].concat().into();
                }
                (Ok(Some(piece)), _) => pieces.push(piece),
                (Ok(None), _) => break,
                (Err(_), _) => return pieces,
            }
        }
    }
    pieces
}

/// Reads the fields of a form of OpenAI's API: a name and a value in each line.
pub fn openai_fields(text: &str) {
    openai::read_fields(text.lines().filter_map(|line| line.split_once('=')));
}

/// Parses a form, whose first byte tells how it is cut. A form has the same parts however it is cut.
pub fn form(input: &[u8]) {
    let Some((&cut, body)) = input.split_first() else { return };
    assert_eq!(
        parts(body, usize::from(cut).max(1)),
        parts(body, body.len().max(1)),
        "a split changes the form"
    );
}

/// Returns the names and the data of a form's parts, and whether it is complete, as far as it can be read.
fn parts(body: &[u8], cut: usize) -> (Vec<(String, Vec<u8>)>, bool) {
    let mut form = Multipart::new("multipart/form-data; boundary=x").expect("the boundary is one");
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    for piece in body.chunks(cut) {
        form.feed(piece);
        loop {
            match form.next_event() {
                Ok(Some(Event::Part(name))) => parts.push((name, Vec::new())),
                Ok(Some(Event::Data(data))) => {
                    parts.last_mut().expect("data is in a part").1.extend_from_slice(&data);
                }
                Ok(Some(Event::End)) => {}
                Ok(None) => break,
                Err(_) => return (parts, false),
            }
        }
    }
    (parts, form.finish().is_ok())
}

/// Converts headerless audio, whose first bytes choose its format and how it is cut.
pub fn headerless_audio(input: &[u8]) {
    let Some((&[encoding, channels, is_mixed, cut], audio)) = input.split_first_chunk() else { return };
    let encodings = [PcmEncoding::S16Le, PcmEncoding::F32Le, PcmEncoding::MuLaw, PcmEncoding::ALaw];
    let encoding = encodings[usize::from(encoding) % encodings.len()];
    let new = || PcmInput::new(encoding, usize::from(channels) % MAX_CHANNELS + 1, is_mixed % 2 == 1);
    let (mut whole, mut cut_up) = (new(), new());
    let expected = whole.push(Bytes::copy_from_slice(audio));
    let mut planes = vec![Vec::new(); cut_up.planes()];
    for piece in audio.chunks(usize::from(cut).max(1)) {
        for (plane, pcm) in planes.iter_mut().zip(cut_up.push(Bytes::copy_from_slice(piece))) {
            plane.extend_from_slice(&pcm);
        }
    }
    assert_eq!(planes, expected, "a split changes the audio");
}

/// Decodes Opus packets, each behind its length, after the number of channels and whether they are mixed.
pub fn opus_packets(input: &[u8]) {
    let Some((&[channels, is_mixed], mut rest)) = input.split_first_chunk() else { return };
    let Ok(mut packets) = OpusPackets::new(usize::from(channels) % 2 + 1, is_mixed % 2 == 1) else { return };
    while let Some((&length, more)) = rest.split_first() {
        let (packet, after) = more.split_at(usize::from(length).min(more.len()));
        rest = after;
        let Some(planes) = packets.push(packet) else { return };
        assert_eq!(planes.len(), packets.planes());
        assert!(planes.iter().all(|plane| plane.len() == planes[0].len() && plane.len() % 2 == 0));
    }
}
