//! Tests of the endpointer on synthetic sounds.

use super::*;

fn ends(spans: &[Span]) -> Vec<FrameRange> {
    spans
        .iter()
        .map(|span| match span {
            Span::Silence { range } | Span::Speech { range, .. } => *range,
        })
        .collect()
}

/// Returns syllables: a buzz at 120 Hz shaped by a formant, 150 ms on and 50 ms off, which the
/// detector takes for speech.
fn babble(frames: usize) -> Vec<i16> {
    (0..frames)
        .map(|i| {
            let t = i as f32 / 16_000.0;
            let envelope = if (t / 0.2).fract() < 0.75 { 1.0 } else { 0.02 };
            let pitch = 120.0 + 20.0 * (t * 3.0).sin();
            let buzz: f32 = (1..20)
                .map(|k| {
                    let hz = pitch * k as f32;
                    let gain = 1.0 / (1.0 + ((hz - 600.0) / 300.0).powi(2))
                        + 0.4 / (1.0 + ((hz - 1_800.0) / 300.0).powi(2));
                    gain * (std::f32::consts::TAU * hz * t).sin()
                })
                .sum();
            (buzz * envelope * 4_000.0) as i16
        })
        .collect()
}

#[test]
fn silence_advances_and_flush_covers_all() {
    let mut endpointer = Endpointer::new();
    let mut spans = endpointer.push(&vec![0; 16_000 * 25]);
    assert_eq!(spans.len(), 2);
    spans.extend(endpointer.push(&[0; 100]));
    spans.extend(endpointer.flush());
    let ranges = ends(&spans);
    assert_eq!(ranges[0].start, FramePos::ZERO);
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!(ranges.last().unwrap().end, FramePos(16_000 * 25 + 100));
    assert!(endpointer.flush().is_empty());
    assert!(endpointer.kept.len() < 16_000);
}

#[test]
fn an_utterance_is_bounded_by_silence() {
    let mut audio = vec![0; 16_000];
    audio.extend(babble(32_000));
    audio.extend(vec![0; 16_000]);
    let mut endpointer = Endpointer::new();
    let spans = endpointer.push(&audio);
    let [Span::Silence { range: before }, Span::Speech { range, pcm, .. }] = &spans[..] else {
        panic!("{:?}", ends(&spans))
    };
    // The pre-roll before the first voiced hop belongs to the utterance; all before it is silence.
    assert_eq!((before.start, before.end), (FramePos::ZERO, range.start));
    assert!((16_000 - 2 * PRE_ROLL..16_000).contains(&range.start.0), "{range}");
    assert!((48_000..56_000).contains(&range.end.0), "{range}");
    assert_eq!(pcm[..], audio[range.start.0 as usize..range.end.0 as usize]);
}

#[test]
fn tones_are_silence() {
    let tone = |hz: f32, i: usize| (std::f32::consts::TAU * hz * i as f32 / 16_000.0).sin() * 8_000.0;
    let dial: Vec<i16> = (0..80_000).map(|i| (tone(350.0, i) + tone(440.0, i)) as i16).collect();
    let busy: Vec<i16> =
        (0..80_000).map(|i| if i / 8_000 % 2 == 0 { tone(425.0, i) as i16 } else { 0 }).collect();
    for sound in [dial, busy] {
        let mut endpointer = Endpointer::new();
        let mut spans = endpointer.push(&sound);
        assert!(endpointer.open().is_none());
        spans.extend(endpointer.flush());
        assert!(spans.iter().all(|span| matches!(span, Span::Silence { .. })), "{:?}", ends(&spans));
    }
}

/// Covers a line that hisses at -50 dB of full scale.
#[test]
fn ringing_over_hiss_is_silence_and_a_word_over_hiss_is_not() {
    let mut seed = 1u32;
    let mut hiss = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((seed >> 8) as f32 / (1 << 23) as f32 - 1.0) * 180.0
    };
    let tone = |hz: f32, i: usize| (std::f32::consts::TAU * hz * i as f32 / 16_000.0).sin() * 8_000.0;
    let ringing = |hz: [f32; 2], on: usize, period: usize| {
        move |i: usize| if i % period < on { tone(hz[0], i) + tone(hz[1], i) } else { 0.0 }
    };
    let mut spans = |sound: &dyn Fn(usize) -> f32| {
        let pcm: Vec<i16> = (0..320_000).map(|i| (sound(i) + hiss()) as i16).collect();
        let mut endpointer = Endpointer::new();
        let mut spans = endpointer.push(&pcm);
        spans.extend(endpointer.flush());
        spans
    };
    let europe = ringing([425.0, 425.0], 16_000, 80_000);
    let america = ringing([440.0, 480.0], 32_000, 96_000);
    let britain = ringing([400.0, 450.0], 6_400, 48_000);
    for (country, sound) in [("Europe", &europe as &dyn Fn(usize) -> f32), ("US", &america), ("UK", &britain)]
    {
        let spans = spans(sound);
        let is_silence = |span: &Span| matches!(span, Span::Silence { .. });
        assert!(spans.iter().all(is_silence), "{country}: {:?}", ends(&spans));
    }
    let word = babble(8_000);
    let spans = spans(&|i| word.get(i % 80_000).copied().map_or(0.0, f32::from));
    let words = spans.iter().filter(|span| matches!(span, Span::Speech { .. })).count();
    assert_eq!(words, 4, "{:?}", ends(&spans));
}

#[test]
fn a_long_utterance_is_cut_in_a_pause() {
    let mut audio = babble(16_000 * 22);
    audio.extend(vec![0; 16_000 * 2 / 5]);
    audio.extend(babble(16_000 * 20));
    let mut endpointer = Endpointer::new();
    let mut spans = endpointer.push(&audio);
    spans.extend(endpointer.flush());
    let ranges = ends(&spans);
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!((16_000 * 22..16_000 * 45 / 2).contains(&ranges[0].end.0), "{ranges:?}");
    for span in &spans {
        let Span::Speech { pcm, .. } = span else { panic!("{span:?}") };
        assert!(pcm.len() as u64 <= LONGEST);
    }
}

#[test]
fn splits_do_not_matter() {
    let mut audio = vec![0; 5_000];
    audio.extend(babble(40_000));
    audio.extend(vec![0; 12_345]);
    audio.extend(babble(16_000 * 30));
    let run = |sizes: &[usize]| {
        let mut endpointer = Endpointer::new();
        let mut spans = Vec::new();
        let mut rest = &audio[..];
        for size in sizes.iter().cycle() {
            let (piece, tail) = rest.split_at(rest.len().min(*size));
            spans.extend(endpointer.push(piece));
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        spans.extend(endpointer.flush());
        spans
    };
    let whole = run(&[audio.len()]);
    assert!(whole.len() > 2);
    assert!(whole == run(&[160]) && whole == run(&[1, 999, 7]), "another split gave other spans");
}

/// A session that begins anew at a final has no audio before it.
#[test]
fn an_endpointer_begun_at_the_end_of_a_span_finds_the_spans_that_follow() {
    let mut audio = vec![0; 16_000 * 11 + 77];
    audio.extend(babble(40_000));
    audio.extend(vec![3; 12_345]);
    audio.extend(babble(16_000 * 60));
    audio.extend(vec![0; 16_000]);
    audio.extend((0..30_000).map(|i| ((i as f32 * 0.17).sin() * 8_000.0) as i16));
    let run = |origin: usize| {
        let mut endpointer = Endpointer::starting_at(FramePos(origin as u64)).beginning_anew();
        let mut spans = endpointer.push(&audio[origin..]);
        spans.extend(endpointer.flush());
        spans
    };
    let whole = run(0);
    let speech = whole.iter().filter(|span| matches!(span, Span::Speech { .. })).count();
    assert!(speech >= 4 && whole.len() > speech + 2, "{:?}", ends(&whole));
    for (at, range) in ends(&whole).into_iter().enumerate() {
        let rest = run(range.end.0 as usize);
        assert!(rest == whole[at + 1..], "{at}: {:?}, not {:?}", ends(&rest), ends(&whole[at + 1..]));
    }
}
