//! Formats of live audio: what the recogniser hears is what the bytes mean.

use std::fs;

use serde_json::json;
use voxline::decode::{self, Block, Channels, Decoder};
use voxline::resample::Resampler;
use voxline::source::Source;
use voxline_gateway::Options;

use super::peer::{Peer, Said};
use super::{digesting, key};
use voxline_fixtures::noise;
use voxline_fixtures::samples::sample;

/// Returns the samples of a recording at 16 kHz, by channel or mixed, as the library decodes the whole of it.
fn decoded(name: &str, channels: Channels) -> Vec<Vec<i16>> {
    let wanted = decode::Options { channels, sample_rate: Some(16_000), ..decode::Options::default() };
    let mut decoder = Decoder::open(Source::bytes(name, fs::read(sample(name)).unwrap()), wanted).unwrap();
    let rate = decoder.sample_rate();
    let mut planes: Vec<(Resampler, Vec<f32>)> =
        (0..decoder.planes()).map(|_| (Resampler::new(rate, 16_000).unwrap(), Vec::new())).collect();
    let mut block = Block::new();
    while decoder.next_block(&mut block).unwrap() {
        for ((resampler, out), plane) in planes.iter_mut().zip(block.planes()) {
            resampler.push(plane, out);
        }
    }
    let finished = planes.into_iter().map(|(mut resampler, mut out)| {
        resampler.finish(&mut out);
        voxline::audio::sample::quantise(&out)
    });
    finished.collect()
}

#[tokio::test]
async fn containers_are_decoded_while_they_arrive() {
    let (server, recognizer) = digesting(Options::default()).await;
    for (name, encoding) in [
        ("speech-16k-mono-s16.wav", ""),
        ("speech-8k-mono-mulaw.wav", ""),
        ("speech-44k1-stereo.flac", "encoding=flac"),
        ("speech-44k1-stereo.mp3", ""),
        ("speech-44k1-stereo-vorbis.ogg", ""),
        ("speech-48k-stereo-opus.ogg", "encoding=ogg-opus"),
        ("speech-16k-mono-voip.opus", "encoding=opus&sample_rate=16000"),
        ("speech-48k-stereo-opus.webm", ""),
        ("speech-16k-mono-s16.aiff", ""),
        ("speech-8k-mono-alaw.caf", ""),
    ] {
        for channels in [Channels::Mix, Channels::Split] {
            recognizer.forget();
            let multichannel = channels == Channels::Split;
            let path = format!("/v1/listen?{encoding}&multichannel={multichannel}");
            let mut peer = Peer::open(&server, &path, &key(&server)).await;
            peer.audio_in(&fs::read(sample(name)).unwrap(), 1_777).await;
            peer.say(&json!({ "type": "CloseStream" })).await;
            let (messages, close) = peer.rest().await;
            assert_eq!(close, Said::Close(1000, String::new()), "{name}: {messages:?}");
            let mut expected = decoded(name, channels);
            let mut heard = recognizer.recordings();
            expected.sort();
            heard.sort();
            let lengths = |planes: &[Vec<i16>]| planes.iter().map(Vec::len).collect::<Vec<_>>();
            assert_eq!(lengths(&heard), lengths(&expected), "{name}");
            assert!(heard == expected, "{name}: other samples were heard");
            assert_eq!(messages.last().unwrap()["channels"], expected.len(), "{name}");
        }
    }
    server.stop().await;
}

/// Decodes G.711 by the recommendation's tables, with the arithmetic of its segments.
fn telephone(code: u8, is_mu_law: bool) -> i16 {
    if is_mu_law {
        let code = !code;
        let (segment, step) = (i32::from(code >> 4 & 7), i32::from(code & 15));
        let magnitude = ((2 * step + 33) * (1 << segment) - 33) * 4;
        (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
    } else {
        let code = code ^ 0x55;
        let (segment, step) = (i32::from(code >> 4 & 7), i32::from(code & 15));
        let magnitude = if segment == 0 { 2 * step + 1 } else { (2 * step + 33) * (1 << (segment - 1)) } * 8;
        (if code & 0x80 != 0 { magnitude } else { -magnitude }) as i16
    }
}

#[tokio::test]
async fn headerless_audio_is_heard_as_it_is() {
    let (server, recognizer) = digesting(Options::default()).await;
    let codes: Vec<u8> = (0..20_000_u32).map(|number| (number * 7) as u8).collect();
    let pcm = noise(20_000);
    let floats: Vec<u8> =
        pcm.iter().flat_map(|&sample| (f32::from(sample) / 32_768.0).to_le_bytes()).collect();
    let g711 = |is_mu_law| codes.iter().map(|&code| telephone(code, is_mu_law)).collect::<Vec<_>>();
    for (encoding, bytes, expected) in [
        ("mulaw", codes.clone(), g711(true)),
        ("alaw", codes.clone(), g711(false)),
        ("linear32", floats, pcm),
    ] {
        recognizer.forget();
        let path = format!("/v1/listen?encoding={encoding}&sample_rate=16000");
        let mut peer = Peer::open(&server, &path, &key(&server)).await;
        peer.audio_in(&bytes, 999).await;
        peer.say(&json!({ "type": "CloseStream" })).await;
        peer.rest().await;
        assert!(recognizer.recordings() == [expected], "{encoding}: other samples were heard");
    }
    server.stop().await;
}

#[tokio::test]
async fn opus_packets_are_heard_one_by_one() {
    let (server, recognizer) = digesting(Options::default()).await;
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    let mut decoder = opus::Decoder::new(16_000, opus::Channels::Mono).unwrap();
    let (mut packets, mut expected) = (Vec::new(), Vec::new());
    for block in noise(100 * 960).chunks(960) {
        let packet = encoder.encode_vec(block, 4_000).unwrap();
        let mut pcm = [0; 320];
        decoder.decode(&packet, &mut pcm, false).unwrap();
        expected.extend(pcm);
        packets.push(packet);
    }
    let mut peer = Peer::open(&server, "/v1/listen?encoding=opus&sample_rate=48000", &key(&server)).await;
    for packet in &packets {
        peer.audio(packet).await;
    }
    peer.say(&json!({ "type": "CloseStream" })).await;
    let (messages, _) = peer.rest().await;
    assert!(recognizer.recordings() == [expected], "other samples were heard");
    assert_eq!(messages.last().unwrap()["duration"], 2.0);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_audio_is_told() {
    let (server, _) = digesting(Options::default()).await;
    for (query, bytes) in [
        ("", b"Hello, this is text.".repeat(100)),
        ("", [&b"RIFF\xff\xff\xff\xffWAVEfmt "[..], &[0xFF; 300]].concat()),
        ("encoding=flac", [&b"fLaC"[..], &[0; 5_000]].concat()),
    ] {
        let mut peer = Peer::open(&server, &format!("/v1/listen?{query}"), &key(&server)).await;
        peer.audio_in(&bytes, 700).await;
        peer.say(&json!({ "type": "CloseStream" })).await;
        let (messages, close) = peer.rest().await;
        let Said::Close(code, reason) = close else { panic!("{query}: {close:?}") };
        assert_eq!(code, 1008, "{query}: {reason}");
        assert!(reason.starts_with("DATA-0000"), "{reason}");
        let error = messages.last().expect("an error comes before the close");
        assert_eq!(error["type"], "Error", "{error}");
    }
    // Packets that are none: each keeps its time, until there are too many.
    let mut peer = Peer::open(&server, "/v1/listen?encoding=opus", &key(&server)).await;
    for _ in 0..60 {
        peer.audio(&[0xFF, 0xFF, 0xFF]).await;
    }
    let Said::Close(code, _) = peer.rest().await.1 else { panic!("broken packets are accepted without end") };
    assert_eq!(code, 1008);
    server.stop().await;
}
