//! Messages of a Vosk server's WebSocket, and their translation from and to the messages of a session.
//!
//! The protocol (alphacep/vosk-server): an optional configuration as text, which is not answered; then
//! binary messages of mono 16-bit little-endian PCM, each answered by exactly one JSON object, either a
//! partial result or a result; at last the text [`EOF`], whose reply is the last result. The server closes
//! after it. There is no acknowledgement, no position and no resume, and a recogniser lasts as long as its
//! connection. All of that can be derived, because the protocol is lock-step:
//!
//! - *Received.* Reply number `k` proves that the server has processed message `k`.
//! - *Final.* The result that answers message `k` covers all audio up to the end of message `k`. Kaldi looks
//!   for an end of utterance once per message, after it has taken all of it, and starts the next utterance
//!   with the audio after that. The times of words can't tell where a result ends: silence has no words, and
//!   a session whose finals left out the silence would keep it in its replay buffer for ever. Since an end
//!   of utterance is found in silence, `final` lies in silence too. A decoder works in blocks, so at most the
//!   last block of message `k` (some tenths of a second, behind that silence) may belong to the next
//!   utterance. On the same connection it does; after a connection lost just there it is not recognised
//!   again.
//! - *Time.* Words are timed in seconds from the first frame on the connection, whose position is the
//!   `origin` in `start`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ClientMessage, Final, Ready, ServerMessage, Violation};
use crate::audio::{AudioChunk, FramePos, FrameRange};
use crate::transcript;

/// The text that ends the audio. Servers compare it literally, spaces included.
pub const EOF: &str = r#"{"eof" : 1}"#;

/// Path of the WebSocket.
pub const PATH: &str = "/";

/// The configuration of a recogniser, the first message on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Frames per second.
    pub sample_rate: u32,
    /// True if results carry words with times.
    pub words: bool,
    /// Phrases that the recogniser is limited to; empty for no limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phrase_list: Vec<String>,
}

impl Config {
    /// Returns the text of the message.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::json!({ "config": self }).to_string()
    }
}

/// A reply of the server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// A partial result: the utterance is not over.
    Partial {
        /// Text of the utterance so far; may be empty.
        partial: String,
    },
    /// A result: the utterance is over.
    Result(Utterance),
    /// A result with alternatives, the best one first, from a server that was started so.
    Alternatives {
        /// The alternatives.
        alternatives: Vec<Utterance>,
    },
}

/// A recognised utterance.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Utterance {
    /// Text; may be empty.
    pub text: String,
    /// Words, if the server reports them.
    #[serde(default)]
    pub result: Vec<Word>,
}

/// A word of a result.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Word {
    /// Confidence, 0 to 1.
    #[serde(default = "certain")]
    pub conf: f32,
    /// Start, in seconds from the first frame on the connection.
    pub start: f64,
    /// End, in seconds from the first frame on the connection.
    pub end: f64,
    /// The word.
    pub word: String,
}

/// Returns the confidence of a word without one, as in an alternative.
fn certain() -> f32 {
    1.0
}

/// A message to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Text(String),
    /// PCM.
    Binary(Bytes),
}

/// Options of a translation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// False for a server that takes no configuration: the C++ server would take it for audio, and answer
    /// it. Its sample rate is set where it is started, and must be that of the session.
    pub config: bool,
    /// Phrases that the recogniser is limited to; empty for no limit.
    pub phrases: Vec<String>,
    /// Duration of the audio that may wait for its reply. The protocol allows several messages under way;
    /// few of them keep the server busy, and only these are recognised again after a lost connection.
    pub window: Duration,
    /// Longest message. A result covers whole messages, so this is also the precision of `final`.
    pub longest_message: Duration,
}

impl Default for Options {
    /// Returns the options for the Python server: two seconds under way, in messages of 0.2 s at most, as
    /// the clients of its authors send them.
    fn default() -> Options {
        Options {
            config: true,
            phrases: Vec::new(),
            window: Duration::from_secs(2),
            longest_message: Duration::from_millis(200),
        }
    }
}

/// A message whose reply has not arrived, by the end of its audio.
#[derive(Clone, Copy, Debug)]
enum PendingReply {
    Audio(FramePos),
    End(FramePos),
}

/// A translator between a session and a Vosk server, for one connection. Has no socket and no clock.
#[derive(Debug)]
pub struct Translator {
    options: Options,
    sample_rate: u32,
    /// Position of the first frame on the connection.
    origin: FramePos,
    sent: FramePos,
    /// Messages without a reply, in order.
    pending: VecDeque<PendingReply>,
    final_: FramePos,
    finals: u64,
    /// Number of partial results since the last final.
    revision: u64,
}

impl Translator {
    /// Creates the translator of a new connection.
    #[must_use]
    pub fn new(options: Options) -> Translator {
        Translator {
            options,
            sample_rate: 0,
            origin: FramePos::ZERO,
            sent: FramePos::ZERO,
            pending: VecDeque::new(),
            final_: FramePos::ZERO,
            finals: 0,
            revision: 0,
        }
    }

    /// Translates a message of the session. Returns what to send, and the answer that the server would give
    /// if its protocol had one: a Vosk server is ready as soon as it is connected. Messages that Vosk has no
    /// word for are dropped; the session sends none of them to a peer without the capability.
    pub fn message(&mut self, message: &ClientMessage) -> (Option<Frame>, Option<ServerMessage>) {
        match message {
            ClientMessage::Start(start) => {
                self.sample_rate = start.sample_rate;
                (self.origin, self.sent, self.final_) = (start.origin, start.origin, start.origin);
                let config = Config {
                    sample_rate: start.sample_rate,
                    words: true,
                    phrase_list: self.options.phrases.clone(),
                };
                let config = self.options.config.then(|| Frame::Text(config.to_text()));
                (config, Some(ServerMessage::Ready(self.ready())))
            }
            ClientMessage::Finish { .. } => {
                self.pending.push_back(PendingReply::End(self.sent));
                (Some(Frame::Text(EOF.to_owned())), None)
            }
            ClientMessage::Resume { .. }
            | ClientMessage::Gap { .. }
            | ClientMessage::Auth { .. }
            | ClientMessage::Flush { .. }
            | ClientMessage::Unknown => (None, None),
        }
    }

    fn ready(&self) -> Ready {
        let message_frames = self.frames(self.options.longest_message) as usize;
        Ready::new(self.origin, message_frames, self.frames(self.options.window))
    }

    /// Returns the number of frames in `time`, at least one.
    fn frames(&self, time: Duration) -> u64 {
        ((time.as_secs_f64() * f64::from(self.sample_rate)).round() as u64).max(1)
    }

    /// Translates audio, which starts where the audio before it ended.
    pub fn audio(&mut self, chunk: &AudioChunk) -> Frame {
        debug_assert_eq!(chunk.range().start, self.sent, "the timeline of a connection has no gap");
        self.sent = chunk.range().end;
        self.pending.push_back(PendingReply::Audio(self.sent));
        Frame::Binary(chunk.payload().clone())
    }

    /// Translates a reply of the server.
    ///
    /// # Errors
    /// Returns a [`Violation`] if the text is no reply, or answers no message.
    pub fn reply(&mut self, text: &str) -> Result<Vec<ServerMessage>, Violation> {
        let reply: Reply = serde_json::from_str(text)
            .map_err(|error: serde_json::Error| Violation::Unreadable { source: error.into() })?;
        let pending = self.pending.pop_front().ok_or(Violation::UnexpectedReply)?;
        let (end, is_last) = match pending {
            PendingReply::Audio(end) => (end, false),
            PendingReply::End(end) => (end, true),
        };
        let mut messages = Vec::new();
        match reply {
            Reply::Partial { .. } if is_last => {
                return Err(Violation::LastPartial);
            }
            Reply::Partial { partial } => {
                messages.push(self.ack(end));
                if !partial.is_empty() {
                    messages.push(self.partial(end, partial));
                }
            }
            Reply::Result(utterance) => self.result(end, utterance, is_last, &mut messages),
            Reply::Alternatives { alternatives } => {
                let best = alternatives.into_iter().next().unwrap_or_default();
                self.result(end, best, is_last, &mut messages);
            }
        }
        if is_last {
            messages.push(ServerMessage::Done { frames: end, finals: self.finals });
        }
        Ok(messages)
    }

    fn ack(&self, received: FramePos) -> ServerMessage {
        ServerMessage::Ack { received, final_: self.final_ }
    }

    fn partial(&mut self, end: FramePos, text: String) -> ServerMessage {
        let revision = self.revision;
        self.revision += 1;
        ServerMessage::Partial { segment: self.finals, revision, start: self.final_, end, text }
    }

    fn result(
        &mut self,
        end: FramePos,
        utterance: Utterance,
        is_last: bool,
        messages: &mut Vec<ServerMessage>,
    ) {
        if !is_last {
            messages.push(self.ack(end));
        } else if end == self.final_ && utterance.text.is_empty() {
            // Nothing was left to be said.
            return;
        }
        let segment = self.final_.to(end);
        let mut result = Final::new(self.finals, segment, utterance.text);
        result.words = utterance.result.into_iter().filter_map(|word| self.word(word, segment)).collect();
        messages.push(ServerMessage::Final(result));
        self.final_ = end;
        self.finals += 1;
        self.revision = 0;
    }

    /// Returns the word at its positions, within its segment; `None` if its times are no times.
    fn word(&self, word: Word, segment: FrameRange) -> Option<transcript::Word> {
        let position = |seconds: f64| {
            let frames = seconds * f64::from(self.sample_rate);
            // A cast of anything too large yields the largest number.
            let frames = (frames >= 0.0).then(|| frames.round() as u64)?;
            Some(FramePos(self.origin.0.saturating_add(frames)).clamp(segment.start, segment.end))
        };
        let (start, end) = (position(word.start)?, position(word.end)?);
        let range = FrameRange::new(start, end.max(start));
        Some(transcript::Word { range, text: word.word, confidence: word.conf })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Start;

    fn start(origin: u64) -> ClientMessage {
        let text = format!(r#"{{"type":"start","sample_rate":8000,"origin":{origin}}}"#);
        let ClientMessage::Start(start) = serde_json::from_str(&text).unwrap() else { panic!("no start") };
        ClientMessage::Start(Start { language: Some("en".to_owned()), ..start })
    }

    /// Returns a translator that has sent messages with these ends, from `origin` on.
    fn sent(origin: u64, ends: &[u64]) -> Translator {
        let mut translator = Translator::new(Options::default());
        translator.message(&start(origin));
        let mut from = origin;
        for end in ends {
            let payload = Bytes::from(vec![0; 2 * (end - from) as usize]);
            translator.audio(&AudioChunk::new(FramePos(from).to(FramePos(*end)), payload));
            from = *end;
        }
        translator
    }

    /// Returns the position that was acknowledged last, and the finals.
    fn received(messages: &[ServerMessage]) -> (Option<u64>, Vec<Final>) {
        let mut acks = messages.iter().filter_map(|message| match message {
            ServerMessage::Ack { received, .. } => Some(received.0),
            _ => None,
        });
        let finals = messages.iter().filter_map(|message| match message {
            ServerMessage::Final(segment) => Some(segment.clone()),
            _ => None,
        });
        (acks.next_back(), finals.collect())
    }

    #[test]
    fn a_connection_begins_with_its_configuration() {
        let mut translator =
            Translator::new(Options { phrases: vec!["yes".to_owned()], ..Options::default() });
        let (frame, answer) = translator.message(&start(500));
        let Some(Frame::Text(text)) = frame else { panic!("{frame:?}") };
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({ "sample_rate": 8000, "words": true, "phrase_list": ["yes"] });
        assert_eq!(config["config"], expected);
        let Some(ServerMessage::Ready(ready)) = answer else { panic!("{answer:?}") };
        assert_eq!((ready.received.0, ready.window_frames, ready.max_audio_bytes), (500, 16_000, 3_208));
        let bare = Options { config: false, ..Options::default() };
        assert_eq!(Translator::new(bare).message(&start(0)).0, None);
    }

    #[test]
    fn each_reply_acknowledges_one_message_and_a_result_covers_it() {
        let mut translator = sent(1_000, &[1_800, 2_600, 3_400]);
        let messages = translator.reply(r#"{"partial" : ""}"#).unwrap();
        assert_eq!(received(&messages), (Some(1_800), vec![]));
        let messages = translator
            .reply(
                r#"{"text":"one two","result":[{"conf":0.5,"start":0.05,"end":0.1,"word":"one"},
                {"conf":1,"start":0.15,"end":99.0,"word":"two"}]}"#,
            )
            .unwrap();
        let (acknowledged, finals) = received(&messages);
        assert_eq!(acknowledged, Some(2_600));
        assert_eq!((finals[0].index, finals[0].start.0, finals[0].end.0), (0, 1_000, 2_600));
        // The first word is 400 to 800 frames after the origin; the second can't leave its segment.
        let words: Vec<(u64, u64)> =
            finals[0].words.iter().map(|word| (word.range.start.0, word.range.end.0)).collect();
        assert_eq!(words, [(1_400, 1_800), (2_200, 2_600)]);
        let messages = translator.reply(r#"{"partial":"three"}"#).unwrap();
        assert!(
            matches!(&messages[1], ServerMessage::Partial { segment: 1, revision: 0, start, end, .. }
                if (start.0, end.0) == (2_600, 3_400)),
            "{messages:?}"
        );
        assert_eq!(translator.reply(r#"{"partial":""}"#).unwrap_err(), Violation::UnexpectedReply);
    }

    #[test]
    fn the_last_reply_is_final_and_the_end() {
        for (text, finals) in [("rest", 1), ("", 1)] {
            let mut translator = sent(0, &[800]);
            let (frame, _) = translator.message(&ClientMessage::Finish { through: FramePos(800) });
            assert_eq!(frame, Some(Frame::Text(r#"{"eof" : 1}"#.to_owned())));
            translator.reply(r#"{"partial":"re"}"#).unwrap();
            let messages = translator.reply(&format!(r#"{{"text":"{text}"}}"#)).unwrap();
            assert_eq!(received(&messages).1[0].end, FramePos(800));
            let done = messages.last().unwrap();
            assert!(
                matches!(done, ServerMessage::Done { frames: FramePos(800), finals: count } if *count == finals),
                "{done:?}"
            );
        }
        // All audio was final before.
        let mut translator = sent(0, &[800]);
        translator.message(&ClientMessage::Finish { through: FramePos(800) });
        translator.reply(r#"{"text":"all"}"#).unwrap();
        let messages = translator.reply(r#"{"text":""}"#).unwrap();
        assert!(matches!(messages[..], [ServerMessage::Done { finals: 1, .. }]), "{messages:?}");
    }

    #[test]
    fn the_best_alternative_is_taken() {
        let mut translator = sent(0, &[800]);
        let reply = r#"{"alternatives":[{"confidence":120.5,"text":"one","result":[{"start":0,"end":0.1,"word":"one"}]},{"text":"won"}]}"#;
        let (_, finals) = received(&translator.reply(reply).unwrap());
        assert_eq!((finals[0].text.as_str(), finals[0].words[0].confidence), ("one", 1.0));
    }

    #[test]
    fn hostile_replies_are_violations_or_harmless() {
        for text in ["", "[]", "{}", r#"{"partial":1}"#, r#"{"text":"x","result":[{"word":"x"}]}"#] {
            let refused = sent(0, &[800]).reply(text);
            assert!(matches!(refused, Err(Violation::Unreadable { .. })), "{text}: {refused:?}");
        }
        let mut translator = sent(0, &[800]);
        translator.message(&ClientMessage::Finish { through: FramePos(800) });
        translator.reply(r#"{"partial":""}"#).unwrap();
        assert!(matches!(translator.reply(r#"{"partial":""}"#), Err(Violation::LastPartial)));
        // Times that are none cost the word, or move it into its segment.
        let times = [("-1", "0.05"), ("1e300", "2e300"), ("0.09", "0.01")];
        for (start, end) in times {
            let reply = format!(r#"{{"text":"x","result":[{{"start":{start},"end":{end},"word":"x"}}]}}"#);
            let (_, finals) = received(&sent(0, &[800]).reply(&reply).unwrap());
            assert!(finals[0].words.iter().all(|word| word.range.end <= FramePos(800)), "{reply}");
        }
    }
}
