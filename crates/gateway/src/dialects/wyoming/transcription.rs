//! A transcription in the course of a connection.

use bytes::Bytes;

use super::messages::{
    AudioFormat, Reply, Transcribe, transcript, transcript_chunk, transcript_start, transcript_stop,
};
use crate::dialects::audio::{PcmEncoding, PcmInput};
use crate::sessions::live::{LiveEnd, LiveSession};
use voxline::protocol::Final;

/// A transcription: a session, and the text so far.
pub(super) struct Transcription {
    pub(super) session: LiveSession,
    pub(super) format: AudioFormat,
    input: PcmInput,
    transcript: Transcript,
    /// True once the audio has ended.
    pub(super) is_finishing: bool,
}

impl Transcription {
    pub(super) fn new(session: LiveSession, format: AudioFormat, asked: &Transcribe) -> Transcription {
        Transcription {
            session,
            format,
            input: PcmInput::new(PcmEncoding::S16Le, format.channels, true),
            transcript: Transcript { language: asked.language().map(str::to_owned), ..Transcript::default() },
            is_finishing: false,
        }
    }

    /// Takes the next bytes of audio.
    pub(super) fn push(&mut self, audio: Bytes) -> Result<(), LiveEnd> {
        self.session.push(self.input.push(audio).remove(0))
    }

    /// Ends the audio. The end of the recognition follows.
    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
        self.session.finish();
    }

    /// Returns what a final adds to the transcript.
    pub(super) fn heard(&mut self, segment: &Final) -> Vec<Reply> {
        self.transcript.add(segment)
    }

    /// Returns the end of the transcript.
    pub(super) fn ended(&self) -> Vec<Reply> {
        self.transcript.end()
    }
}

/// A transcript that is told in pieces.
#[derive(Default)]
pub(super) struct Transcript {
    text: String,
    /// Language that was asked for, or else the first one recognised.
    language: Option<String>,
}

impl Transcript {
    fn add(&mut self, segment: &Final) -> Vec<Reply> {
        let text = segment.text.trim();
        if text.is_empty() {
            return Vec::new();
        }
        self.language = self.language.take().or_else(|| segment.language.clone());
        let is_first = self.text.is_empty();
        let piece = if is_first { text.to_owned() } else { format!(" {text}") };
        self.text += &piece;
        let start = is_first.then(|| transcript_start(self.language.as_deref()));
        start.into_iter().chain([transcript_chunk(&piece)]).collect()
    }

    /// Returns the end. Clients that know of no pieces read the whole text alone, so it comes in any case.
    pub(super) fn end(&self) -> Vec<Reply> {
        let whole = transcript(&self.text, self.language.as_deref());
        if self.text.is_empty() { vec![whole] } else { vec![whole, transcript_stop()] }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use voxline::audio::FramePos;

    #[test]
    fn pieces_add_up_to_the_transcript() {
        let mut transcript = Transcript::default();
        let mut segment = |text: &str, language: Option<&str>| {
            let mut segment = Final::new(0, FramePos(0).to(FramePos(1)), text);
            segment.language = language.map(str::to_owned);
            transcript.add(&segment)
        };
        assert_eq!(segment("", Some("ru")), []);
        let first = [
            ("transcript-start", json!({ "language": "en" })),
            ("transcript-chunk", json!({ "text": "Hello." })),
        ];
        assert_eq!(segment(" Hello. ", Some("en")), first);
        assert_eq!(segment("Bye.", Some("de")), [("transcript-chunk", json!({ "text": " Bye." }))]);
        let end = [
            ("transcript", json!({ "text": "Hello. Bye.", "language": "en" })),
            ("transcript-stop", json!({})),
        ];
        assert_eq!(transcript.end(), end);
        assert_eq!(Transcript::default().end(), [("transcript", json!({ "text": "" }))]);
    }
}
