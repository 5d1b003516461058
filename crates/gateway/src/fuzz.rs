//! Parsers of what clients send, for the fuzz targets. Each panics if a promise is broken.

use bytes::Bytes;

use crate::dialects::audio::{PcmEncoding, PcmInput};
use crate::dialects::deepgram::messages;
use crate::dialects::deepgram::parameters::{MAX_CHANNELS, Parameters};
use crate::dialects::deepgram::{prerecorded, speak};
use crate::dialects::opus_packets::OpusPackets;
use crate::dialects::{jambonz, vosk};

/// Parses the query of a request to Deepgram's API, as that of each of its services.
pub fn deepgram_query(query: &str) {
    drop(prerecorded::Parameters::parse(query));
    drop(speak::Parameters::parse(query));
    let Ok(parameters) = Parameters::parse(query) else { return };
    assert!((1..=MAX_CHANNELS).contains(&parameters.channels));
    assert!(parameters.keywords.iter().map(String::len).sum::<usize>() <= 4_096);
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
