//! Conformance of recognisers: what every [`Recognizer`] promises, checked on a recording.

mod run;

use run::Run;
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{
    Accuracy, EngineError, Latency, RecognitionRequest, Recognizer, Segment, Task, UnsupportedRequest,
};
use voxline::protocol::MAX_CONTEXT_BYTES;

/// Breach of the contract of [`Recognizer`] or [`RecognizerStream`], which is a defect of the engine.
///
/// [`RecognizerStream`]: voxline::engine::RecognizerStream
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Nonconformance {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Segments have a gap, overlap, or are empty.
    #[error("segment {actual} after {expected}: segments are contiguous and cover a frame or more")]
    NotContiguous {
        /// Position at which the segment should start.
        expected: FramePos,
        /// Range of the segment.
        actual: FrameRange,
    },
    /// A segment ends after the audio.
    #[error("segment {segment} ends after the {pushed} frames of audio")]
    BeyondAudio {
        /// Range of the segment.
        segment: FrameRange,
        /// Number of frames pushed so far.
        pushed: FramePos,
    },
    /// A flush left audio without a segment.
    #[error("flush covers audio up to {covered} of {pushed}")]
    Uncovered {
        /// End of the last segment.
        covered: FramePos,
        /// Number of frames pushed so far.
        pushed: FramePos,
    },
    /// More audio waited for a segment than [`Recognizer::longest_pending`] says.
    #[error("{pending} frames wait for a segment, at most {longest} were announced")]
    Pending {
        /// Number of frames without a segment.
        pending: u64,
        /// Announced number of frames.
        longest: u64,
    },
    /// A word lies outside of its segment, or before the word that precedes it.
    #[error("word {word} is not in order within segment {segment}")]
    Word {
        /// Range of the word.
        word: FrameRange,
        /// Range of the segment.
        segment: FrameRange,
    },
    /// A figure of a segment is outside of its range.
    #[error("{field} is {value}")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// Value of the field.
        value: f32,
    },
    /// A segment has a field that the capabilities lack, or that a partial result may not have.
    #[error("segment {segment} has {field}, which the capabilities lack or a partial result may not have")]
    Unexpected {
        /// Name of the field.
        field: &'static str,
        /// Range of the segment.
        segment: FrameRange,
    },
    /// A context is too long to be handed to a client.
    #[error("context of {size} bytes, the limit is {MAX_CONTEXT_BYTES}")]
    Context {
        /// Length of the context in bytes of UTF-8.
        size: usize,
    },
    /// The segments depend on how the audio was split, or on partial results.
    #[error("in pieces of {piece} frames, {}, segment {index} differs", if *.partials { "with partial results" } else { "without partial results" })]
    Split {
        /// Number of frames pushed at once.
        piece: usize,
        /// `true` if partial results were asked for.
        partials: bool,
        /// Index of the first segment that differs.
        index: usize,
    },
    /// A request beyond the capabilities was not refused, or refused for another reason.
    #[error("request beyond the capabilities by its {field} was not refused for it")]
    NotRefused {
        /// Name of the field.
        field: &'static str,
    },
    /// A request within the capabilities was refused.
    #[error("request within the capabilities was refused: {0}")]
    Refused(UnsupportedRequest),
}

/// Code that ISO 639 reserves for private use, so no recogniser has it.
const UNKNOWN_LANGUAGE: &str = "qtx";

/// Checks a recogniser on a recording: mono, 16 bit, [`RECOGNIZER_RATE`](voxline::engine::RECOGNIZER_RATE).
/// Returns the segments of the recording as recognised with a request for the transcription of any
/// language.
///
/// The check recognises the recording six times, twice of these with a relaxed latency, in other pieces each
/// time, and flushes in the middle of one. It covers these promises:
///
/// - Segments are contiguous, start at zero, lie within the audio, and cover all of it after a flush.
///   Nothing remains for a second flush, and audio may follow.
/// - No more audio is pending than announced.
/// - Words are in order within their segment; probabilities are within 0 to 1.
/// - Segments do not depend on how audio was split, nor on partial results, nor on whether the work was done
///   step by step.
/// - A request beyond the [`Capabilities`] is refused for the field that is not supported, and one within
///   them is accepted. An unreadable context is accepted.
///
/// # Errors
/// Returns the first [`Nonconformance`].
///
/// [`Capabilities`]: voxline::engine::Capabilities
pub fn check_recognizer(recognizer: &dyn Recognizer, pcm: &[i16]) -> Result<Vec<Segment>, Nonconformance> {
    check_requests(recognizer)?;
    let request = RecognitionRequest::new;
    // A packet of 20 ms, and a prime number of samples, which is a multiple of no block.
    let whole = check_splits(recognizer, &request(), pcm, &[(320, true), (16_411, false)])?;
    check_splits(recognizer, &request().latency(Latency::Relaxed), pcm, &[(16_411, true)])?;
    // Flushes may cut an utterance anywhere, so only the ranges are compared.
    let mut unreadable = request();
    unreadable.context = Some("context of another engine".to_owned());
    let mut flushed = Run::new(recognizer, &unreadable)?;
    let (first, second) = pcm.split_at(pcm.len() / 2);
    flushed.push(first)?;
    flushed.flush()?;
    flushed.push(second)?;
    flushed.flush()?;
    Ok(whole)
}

/// Checks that a recording gives the same segments in pieces of each of these numbers of frames, with or
/// without partial results, as at once. Returns the segments.
fn check_splits(
    recognizer: &dyn Recognizer,
    request: &RecognitionRequest,
    pcm: &[i16],
    splits: &[(usize, bool)],
) -> Result<Vec<Segment>, Nonconformance> {
    let whole = Run::new(recognizer, request)?.through(pcm, pcm.len(), false)?;
    for (piece, partials) in splits.iter().copied() {
        let other = Run::new(recognizer, request)?.through(pcm, piece, partials)?;
        if let Some(index) = first_difference(&whole, &other) {
            return Err(Nonconformance::Split { piece, partials, index });
        }
    }
    Ok(whole)
}

fn first_difference(one: &[Segment], other: &[Segment]) -> Option<usize> {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    (same < one.len().max(other.len())).then_some(same)
}

/// Checks that requests are refused and accepted as the capabilities say.
fn check_requests(recognizer: &dyn Recognizer) -> Result<(), Nonconformance> {
    let capabilities = recognizer.capabilities();
    let request = RecognitionRequest::new;
    let mut requests = vec![
        request(),
        request().prompt("Dear Sir or Madam,"),
        request().keywords(["voxline"]),
        request().temperature(-1.0),
    ];
    requests.extend([Task::Transcribe, Task::Translate].map(|task| request().task(task)));
    requests.extend([0.0, 0.5, 1.0].map(|temperature| request().temperature(temperature)));
    let levels = [Accuracy::Fast, Accuracy::Balanced, Accuracy::Best];
    requests.extend(levels.map(|accuracy| request().accuracy(accuracy)));
    requests.extend(capabilities.languages.iter().map(|language| request().language(language)));
    for request in requests {
        let supported = capabilities.check(&request);
        expect(recognizer, &request, supported)?;
    }
    if !capabilities.languages.is_empty() {
        let unknown = UnsupportedRequest::Language(UNKNOWN_LANGUAGE.to_owned());
        expect(recognizer, &request().language(UNKNOWN_LANGUAGE), Err(unknown))?;
    }
    Ok(())
}

/// Checks that a request is accepted or refused as `expected`.
fn expect(
    recognizer: &dyn Recognizer,
    request: &RecognitionRequest,
    expected: Result<(), UnsupportedRequest>,
) -> Result<(), Nonconformance> {
    match (recognizer.start(request), expected) {
        (Ok(_), Ok(())) => Ok(()),
        (Err(EngineError::Unsupported(error)), Err(expected)) if error.field() == expected.field() => Ok(()),
        (Err(EngineError::Unsupported(error)), Ok(())) => Err(Nonconformance::Refused(error)),
        (Ok(_) | Err(EngineError::Unsupported(_)), Err(expected)) => {
            Err(Nonconformance::NotRefused { field: expected.field() })
        }
        (Err(error), _) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use voxline::transcript::Word;

    use super::*;
    use crate::{DigestRecognizer, NullRecognizer};
    use voxline::engine::{Capabilities, PartialResult, RecognizerStream};

    /// Defect of a recogniser that otherwise works like [`DigestRecognizer`].
    #[derive(Clone, Copy, Debug)]
    enum Defect {
        /// Skips the first frame of each segment.
        Gap,
        /// Puts the end of each segment a frame too far.
        BeyondAudio,
        /// Returns nothing for a flush.
        NoFlush,
        /// Announces too little pending audio.
        Pending,
        /// Puts a word before its segment.
        Word,
        /// Has a confidence above 1.
        Confidence,
        /// Names a speaker without declaring it.
        Speaker,
        /// Adds the number of the push to each text.
        Split,
        /// Accepts every request.
        Accepting,
        /// Refuses every request.
        Refusing,
    }

    struct Defective {
        defect: Defect,
        digests: DigestRecognizer,
    }

    struct DefectiveStream {
        defect: Defect,
        stream: Box<dyn RecognizerStream>,
        pushes: usize,
    }

    impl Recognizer for Defective {
        fn name(&self) -> &str {
            "defective"
        }

        fn capabilities(&self) -> Capabilities {
            let mut capabilities = Capabilities::default();
            capabilities.words = true;
            capabilities
        }

        fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
            match self.defect {
                Defect::Accepting => {}
                Defect::Refusing => return Err(UnsupportedRequest::Prompt.into()),
                _ => self.capabilities().check(request)?,
            }
            let stream = self.digests.start(&RecognitionRequest::new())?;
            Ok(Box::new(DefectiveStream { defect: self.defect, stream, pushes: 0 }))
        }

        fn longest_pending(&self, request: &RecognitionRequest) -> Option<u64> {
            let longest = self.digests.longest_pending(request);
            if matches!(self.defect, Defect::Pending) { longest.map(|frames| frames / 2) } else { longest }
        }
    }

    impl DefectiveStream {
        fn spoil(&self, mut segments: Vec<Segment>) -> Vec<Segment> {
            for segment in &mut segments {
                let FrameRange { start, end } = segment.range;
                match self.defect {
                    Defect::Gap => segment.range = FrameRange::new(start + 1, end),
                    Defect::BeyondAudio => segment.range = FrameRange::new(start, end + 1),
                    Defect::Word => segment.words.push(Word {
                        range: FrameRange::new(start, end + 1),
                        text: "word".to_owned(),
                        confidence: 1.0,
                    }),
                    Defect::Confidence => segment.confidence = Some(1.5),
                    Defect::Speaker => segment.speaker = Some("A".to_owned()),
                    Defect::Split => segment.text.push_str(&self.pushes.to_string()),
                    Defect::NoFlush | Defect::Pending | Defect::Accepting | Defect::Refusing => {}
                }
            }
            segments
        }
    }

    impl RecognizerStream for DefectiveStream {
        fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
            self.pushes += 1;
            let segments = self.stream.push(pcm)?;
            Ok(self.spoil(segments))
        }

        fn partial(&mut self) -> Result<PartialResult, EngineError> {
            self.stream.partial()
        }

        fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
            let segments = self.stream.flush()?;
            if matches!(self.defect, Defect::NoFlush) { Ok(Vec::new()) } else { Ok(self.spoil(segments)) }
        }
    }

    /// Returns five seconds of samples, all different from their neighbours.
    fn pcm() -> Vec<i16> {
        (0..80_000i32).map(|at| (at * 7_919 % 20_011 - 10_000) as i16).collect()
    }

    #[test]
    fn the_recognisers_of_this_kit_conform() {
        let segments = check_recognizer(&DigestRecognizer::new(7_000), &pcm()).unwrap();
        assert_eq!(segments.len(), 80_000usize.div_ceil(7_000));
        check_recognizer(&NullRecognizer::new(7_000), &pcm()).unwrap();
    }

    #[test]
    fn each_defect_is_found() {
        let found = |defect: Defect| {
            let recognizer = Defective { defect, digests: DigestRecognizer::new(7_000) };
            check_recognizer(&recognizer, &pcm()).expect_err("the recogniser is defective")
        };
        use Nonconformance as N;
        assert!(matches!(found(Defect::Gap), N::NotContiguous { .. }));
        assert!(matches!(found(Defect::BeyondAudio), N::BeyondAudio { .. } | N::NotContiguous { .. }));
        assert!(matches!(found(Defect::NoFlush), N::Uncovered { .. }));
        assert!(matches!(found(Defect::Pending), N::Pending { longest: 3_500, .. }));
        assert!(matches!(found(Defect::Word), N::Word { .. }));
        assert!(matches!(found(Defect::Confidence), N::OutOfRange { field: "confidence", .. }));
        assert!(matches!(found(Defect::Speaker), N::Unexpected { field: "speaker", .. }));
        assert!(matches!(found(Defect::Split), N::Split { piece: 320, .. }));
        assert!(matches!(found(Defect::Accepting), N::NotRefused { field: "prompt" }));
        assert!(matches!(found(Defect::Refusing), N::Refused(UnsupportedRequest::Prompt)));
    }
}
