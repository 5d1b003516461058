//! Temperature fallback: a rejected text is decoded again, of tokens sampled at rising temperatures, until
//! one is accepted. The method and the thresholds are those of OpenAI's Whisper.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::sampler::Sampler;
use voxline::engine::{Accuracy, Latency, RECOGNIZER_RATE, RecognitionRequest};
use voxline_support::random::mix;

/// Whisper's temperatures after 0.
const TEMPERATURES: &[f32] = &[0.2, 0.4, 0.6, 0.8, 1.0];
/// Temperatures of a live session, whose final results are waited for.
const LIVE_TEMPERATURES: &[f32] = &[0.2, 0.4];

/// Mean log-probability below which a text is doubtful.
pub(super) const LOG_PROBABILITY_THRESHOLD: f32 = -1.0;
/// Compression ratio above which a text repeats itself.
const COMPRESSION_RATIO_THRESHOLD: f32 = 2.4;

/// Letters and digits per second that nobody speaks: twice what a fast speaker says. Whisper was trained on
/// subtitles, and writes whole lines of them for clips of less than a second.
const FASTEST: usize = 40;

/// Temperatures at which an utterance may still be decoded.
#[derive(Clone, Debug)]
pub(super) struct Fallback(&'static [f32]);

impl Fallback {
    /// Returns the fallback for a request. A requested temperature is kept.
    pub(super) fn new(request: &RecognitionRequest) -> Fallback {
        let temperatures = match (request.temperature, request.accuracy, request.latency) {
            (Some(_), _, _) | (None, Accuracy::Fast, _) => &[],
            (None, _, Latency::Live) => LIVE_TEMPERATURES,
            (None, _, Latency::Relaxed) => TEMPERATURES,
        };
        Fallback(temperatures)
    }

    /// Returns whether there are no more temperatures.
    pub(super) fn is_exhausted(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the sampler of the next text of an utterance; `None` if there are no more. The seed derives
    /// from the samples, so the same audio gives the same text in each session that hears it.
    pub(super) fn next(&mut self, pcm: &[i16]) -> Option<Sampler> {
        let (temperature, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(Sampler::new(*temperature, seed(pcm) ^ u64::from(temperature.to_bits())))
    }
}

fn seed(pcm: &[i16]) -> u64 {
    pcm.iter().fold(pcm.len() as u64, |seed, sample| mix(seed ^ u64::from(sample.cast_unsigned())))
}

/// Reason to reject a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rejection {
    /// The decoding was cut off, in a loop or at its largest number of tokens.
    Runaway,
    /// The text repeats itself.
    Repetitive,
    /// The text is unlikely by the model's own probabilities.
    Unlikely,
    /// Nobody can have said the text in the time.
    TooFast,
    /// The text has fewer words than anybody says in the time.
    TooSlow,
}

/// Returns the reason to reject a text of `samples` samples, if there is one other than its slowness. A text
/// `is_spoken` if its repetitions, if any, were heard.
pub(super) fn rejection(
    text: &str,
    log_probability: f32,
    runaway: bool,
    samples: usize,
    is_spoken: impl FnOnce() -> bool,
) -> Option<Rejection> {
    if runaway {
        Some(Rejection::Runaway)
    } else if is_repetitive(text) && !is_spoken() {
        Some(Rejection::Repetitive)
    } else if log_probability < LOG_PROBABILITY_THRESHOLD {
        Some(Rejection::Unlikely)
    } else if is_too_fast(text, samples) {
        Some(Rejection::TooFast)
    } else {
        None
    }
}

/// Returns whether a text repeats itself, by its compression ratio.
pub(super) fn is_repetitive(text: &str) -> bool {
    compression_ratio(text) > COMPRESSION_RATIO_THRESHOLD
}

/// Returns the length of a text in bytes, divided by that of the text as compressed by zlib, as OpenAI's
/// Whisper computes it (`compression_ratio` in whisper/utils.py). It takes some microseconds.
pub(super) fn compression_ratio(text: &str) -> f32 {
    // Level 6, the default of Python's zlib.
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    text.len() as f32 / compressed.expect("a vector takes all bytes").len() as f32
}

/// Returns whether nobody can have said a text within `samples` samples.
pub(super) fn is_too_fast(text: &str, samples: usize) -> bool {
    let spoken = text.chars().filter(|c| c.is_alphanumeric()).count();
    spoken * RECOGNIZER_RATE as usize > FASTEST * samples
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected lengths are those of Python's `zlib.compress`.
    #[test]
    fn the_compression_ratio_is_that_of_whisper() {
        let texts = [("Go forward ten meters.".to_owned(), 30), (" Thank you.".repeat(20), 22)];
        for (text, compressed) in texts {
            assert_eq!(compression_ratio(&text), text.len() as f32 / compressed as f32, "{text}");
        }
    }

    #[test]
    fn nobody_says_a_line_of_subtitles_in_less_than_a_second() {
        let samples = |seconds: f32| (seconds * RECOGNIZER_RATE as f32) as usize;
        let credits = "Субтитры Редактор субтитров А.Семкин Корректор А.Егорова";
        assert!(is_too_fast(credits, samples(0.76)), "Debian's prompt confbridge-leave");
        for (spoken, seconds) in
            [("Конференция.", 0.6), ("Пользователь вышел.", 0.76), ("Yes, of course it is.", 0.6)]
        {
            assert!(!is_too_fast(spoken, samples(seconds)), "{spoken}");
        }
    }

    /// One second, in which nobody says more than 40 letters.
    const SAMPLES: usize = RECOGNIZER_RATE as usize;

    #[test]
    fn each_sign_of_a_bad_text_rejects_it() {
        let said = "Go forward ten meters.";
        let rejection = |text: &str, log_probability, runaway| {
            super::rejection(text, log_probability, runaway, SAMPLES, || false)
        };
        assert_eq!(rejection(said, -0.3, false), None);
        assert_eq!(rejection("", -0.3, false), None);
        assert_eq!(rejection(said, -0.3, true), Some(Rejection::Runaway));
        let repeated = "no ".repeat(24);
        assert_eq!(rejection(&repeated, -0.3, false), Some(Rejection::Repetitive));
        assert_eq!(super::rejection(&repeated, -0.3, false, 10 * SAMPLES, || true), None);
        assert_eq!(rejection(said, -1.01, false), Some(Rejection::Unlikely));
        assert_eq!(rejection(said, LOG_PROBABILITY_THRESHOLD, false), None);
        let line =
            "Subtitles were written by the authors of a film that is not about anything that was said here.";
        assert_eq!(rejection(line, -0.3, false), Some(Rejection::TooFast));
    }

    /// Returns the temperatures at which the fallback of a request samples.
    fn temperatures(request: RecognitionRequest) -> Vec<f32> {
        let mut fallback = Fallback::new(&request);
        std::iter::from_fn(|| fallback.next(&[1, 2, 3])).map(|sampler| sampler.temperature()).collect()
    }

    #[test]
    fn recordings_are_sampled_oftener_than_live_audio() {
        let request = RecognitionRequest::new;
        assert_eq!(temperatures(request().latency(Latency::Relaxed)), [0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(temperatures(request()), LIVE_TEMPERATURES);
        let none = [request().accuracy(Accuracy::Fast), request().temperature(0.0)];
        for request in none {
            assert!(temperatures(request.latency(Latency::Relaxed)).is_empty());
        }
    }

    #[test]
    fn the_seed_is_of_the_samples() {
        assert_eq!(seed(&[1, -2, 3]), seed(&[1, -2, 3]));
        let others: [&[i16]; 5] = [&[], &[0], &[0, 0], &[1, -2, 4], &[-2, 1, 3]];
        for other in others {
            assert_ne!(seed(&[1, -2, 3]), seed(other));
        }
        assert_ne!(seed(&[0]), seed(&[0, 0]));
    }
}
