//! The recogniser of `examples/recognizer.rs`, held to the requirements of any recogniser: it recognises
//! what it is made for, and nothing else.

use voxline::audio::FramePos;
use voxline::engine::{RecognitionRequest, Recognizer, Segment};

use self::recognizer::{TouchTones, dial, transcribe};
use voxline_fixtures::clips;
use voxline_testing::check_recognizer;

#[path = "../../../../examples/recognizer.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod recognizer;

fn hear(pcm: &[i16], piece: usize) -> Vec<Segment> {
    let mut stream = TouchTones.start(&RecognitionRequest::new()).unwrap();
    let mut segments: Vec<Segment> =
        pcm.chunks(piece).flat_map(|piece| stream.push(piece).unwrap()).collect();
    segments.extend(stream.flush().unwrap());
    let mut at = FramePos::ZERO;
    for segment in &segments {
        assert_eq!(segment.range.start, at, "{segments:?}");
        at = segment.range.end;
    }
    assert_eq!(at, FramePos(pcm.len() as u64), "{segments:?}");
    segments
}

fn text(segments: &[Segment]) -> String {
    segments.iter().map(|segment| segment.text.as_str()).collect()
}

#[tokio::test]
async fn a_gateway_serves_it() {
    let mut pcm = dial("0123456789*#");
    pcm.extend([0; 20_000]);
    pcm.extend(dial("ABCD"));
    assert_eq!(transcribe(&pcm).await.unwrap(), ["0123456789*#", "ABCD"]);
}

/// Tones of 45 ms with pauses of the same length, 1.5 % off frequency, one 6 dB above the other, in
/// noise: the worst that a telephone may send (Q.24).
#[test]
fn it_hears_tones_at_their_worst() {
    let rate = 16_000.0;
    let mut seed = 7u32;
    let mut pcm = vec![0i16; 1_234];
    let buttons =
        [("1", 697.0, 1_209.0), ("1", 697.0, 1_209.0), ("D", 941.0, 1_633.0), ("5", 770.0, 1_336.0)];
    for (_, low, high) in buttons {
        for at in 0..1_440 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(seed >> 8) / f64::from(1 << 23) - 1.0;
            let wave = |hz: f64| (std::f64::consts::TAU * hz * f64::from(at) / rate).sin();
            let tones =
                if at < 720 { 4_000.0 * wave(low * 1.015) + 2_000.0 * wave(high * 0.985) } else { 0.0 };
            pcm.push((tones + 300.0 * noise) as i16);
        }
    }
    let expected: String = buttons.map(|(button, ..)| button).concat();
    let whole = hear(&pcm, pcm.len());
    assert_eq!(text(&whole), expected);
    for piece in [1, 207, 209, 1_600] {
        assert_eq!(hear(&pcm, piece), whole, "in pieces of {piece}");
    }
    assert_eq!(check_recognizer(&TouchTones, &pcm).unwrap(), whole);
}

#[test]
fn it_takes_no_speech_for_buttons() {
    for clip in ["en-16k", "en-telephone", "ru-telephone"].into_iter().flat_map(clips::set) {
        assert_eq!(text(&hear(&clip.pcm, 320)), "", "{}", clip.name);
    }
}
