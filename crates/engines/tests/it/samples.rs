//! The repository's own recordings have the expected text in every format.

use voxline::audio::{Feed, FramePos};
use voxline::engine::{RECOGNIZER_RATE, RecognitionRequest, Recognizer};
use voxline::pipeline::{Options, Pipeline};
use voxline::source::Source;

use voxline_engines::wer::normal;
use voxline_fixtures::samples::{SAMPLES, sample};
use voxline_fixtures::whisper::whisper;

const SAID: &str = include_str!("../../../../samples/speech.txt");

/// Recordings that contain only the start of the sentence.
const CUT: [&str; 3] = ["speech-48k-mono-s24.wav", "speech-44k1-stereo-s16.wav", "speech-16k-mono-s16.aiff"];

/// Returns the text of a recording, from the pipeline and the recogniser without a gateway between them.
fn heard(name: &str) -> String {
    let whisper = whisper();
    let language = RecognitionRequest::new().language("en");
    let mut stream = whisper.start(&language).expect("Whisper knows English");
    let options = Options { sample_rate: RECOGNIZER_RATE, ..Options::default() };
    let (mut streams, worker) = Pipeline::open(Source::open(sample(name)).unwrap(), options).unwrap().start();
    let audio = &mut streams[0];
    let mut segments = Vec::new();
    loop {
        match audio.blocking_recv().expect("the end is announced before the channel closes") {
            Feed::Audio(chunk) => {
                let pcm: Vec<i16> =
                    chunk.payload().as_chunks().0.iter().map(|&sample| i16::from_le_bytes(sample)).collect();
                segments.extend(stream.push(&pcm).expect("recognition works"));
            }
            Feed::Flush | Feed::Gap(_) => panic!("the worker asks for no flush and loses nothing"),
            Feed::End => break,
        }
    }
    segments.extend(stream.flush().expect("recognition works"));
    let report = worker.join().unwrap();
    assert_eq!(segments.last().map(|last| last.range.end), Some(FramePos(report.frames_out)), "{name}");
    segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_format_keeps_every_word() {
    let whole = SAMPLES.iter().map(|&(name, ..)| name).filter(|name| !CUT.contains(name));
    for name in whole {
        assert_eq!(normal(&heard(name)), normal(SAID), "{name}");
    }
}

/// The list of samples, which the test above and the tests of the front end use, is complete.
#[test]
fn no_recording_is_forgotten() {
    let recordings = std::fs::read_dir(sample("")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut found: Vec<String> = recordings
        .map(|name| name.into_string().unwrap())
        .filter(|name| name == "source.wav" || name.starts_with("speech-"))
        .collect();
    found.sort();
    let mut known = SAMPLES.map(|(name, ..)| name);
    known.sort_unstable();
    assert_eq!(found, known);
}
