//! Writing of a transcript while it is recognised.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde::Serialize;

use super::subtitles::{self, Cue, Subtitles};
use super::{FinalSegment, Word};
use crate::audio::{FramePos, FrameRange};

/// The reason why a transcript cannot be written. What was written before the error stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriterError {
    /// No format has this name.
    #[error("unknown transcript format `{given}`, expected text, jsonl, srt or vtt")]
    UnknownFormat {
        /// Name that was given.
        given: String,
    },
    /// The output accepts no more data.
    #[error("the {format} transcript cannot be written")]
    Output {
        /// Format of the transcript.
        format: Format,
        /// Error of the operating system.
        #[source]
        error: io::Error,
    },
}

/// A format of transcripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Plain text: a line for each segment with words in it.
    Text,
    /// JSON Lines: an object on a line for each segment and each gap (<https://jsonlines.org>).
    JsonLines,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles (<https://www.w3.org/TR/webvtt1/>); gaps are comments.
    WebVtt,
}

impl Format {
    /// Returns the name used on the command line, which, except for text, is also the usual file
    /// extension.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::JsonLines => "jsonl",
            Format::Srt => "srt",
            Format::WebVtt => "vtt",
        }
    }
}

impl FromStr for Format {
    type Err = WriterError;

    fn from_str(name: &str) -> Result<Format, WriterError> {
        [Format::Text, Format::JsonLines, Format::Srt, Format::WebVtt]
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| WriterError::UnknownFormat { given: name.to_owned() })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A transcript writer, which takes segments as they become final. Each segment is flushed, so that the
/// text recognised so far is kept whatever happens next.
#[derive(Debug)]
pub struct Writer<W: Write> {
    format: Format,
    sample_rate: u32,
    out: W,
    /// True once the header is written.
    started: bool,
    /// Name of the recording, if entries of several go to one output.
    recording: Option<String>,
    subtitles: Subtitles,
    /// Number of cues written.
    cues: u64,
    /// End of each speaker's last cue, in milliseconds.
    shown: Vec<(Option<String>, u64)>,
    /// Buffer for an entry, which is written to the output in one piece.
    entry: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Creates a writer of `format` to `out`; `sample_rate` is the session's, in Hz.
    ///
    /// # Panics
    /// Panics if `sample_rate` is zero.
    #[must_use]
    pub fn new(format: Format, sample_rate: u32, out: W) -> Writer<W> {
        assert!(sample_rate > 0, "a session has a sample rate");
        Writer {
            format,
            sample_rate,
            out,
            started: false,
            recording: None,
            subtitles: Subtitles::default(),
            cues: 0,
            shown: Vec::new(),
            entry: Vec::new(),
        }
    }

    /// Sets the limits of subtitle cues.
    #[must_use]
    pub fn with_subtitles(self, subtitles: Subtitles) -> Writer<W> {
        Writer { subtitles, ..self }
    }

    /// Sets the name of the recording: text has it in a line before the transcript, JSON Lines in each
    /// object. Subtitles have no place for it.
    #[must_use]
    pub fn of_recording(self, name: impl Into<String>) -> Writer<W> {
        Writer { recording: Some(name.into()), ..self }
    }

    /// Writes one segment, with the name of the speaker if known: as one entry, or as subtitle cues, of
    /// which those of one speaker never overlap. All formats except JSON Lines leave out a segment
    /// without words.
    ///
    /// # Errors
    /// Returns [`WriterError::Output`] if the output doesn't accept the whole entry.
    pub fn segment(&mut self, segment: &FinalSegment, speaker: Option<&str>) -> Result<(), WriterError> {
        match self.format {
            Format::JsonLines => {
                let line = Line::Segment {
                    recording: self.recording.as_deref(),
                    speaker,
                    index: segment.index,
                    start: self.seconds(segment.range.start),
                    end: self.seconds(segment.range.end),
                    start_frame: segment.range.start.0,
                    end_frame: segment.range.end.0,
                    text: &segment.text,
                    language: segment.language.as_deref(),
                    confidence: segment.confidence,
                    words: segment.words.iter().map(|word| self.word(word)).collect(),
                };
                json(&mut self.entry, &line);
            }
            Format::Text => {
                let text = one_line(&segment.text);
                if !text.is_empty() {
                    self.entry.extend_from_slice(labelled(&text, speaker).as_bytes());
                    self.entry.push(b'\n');
                }
            }
            Format::Srt | Format::WebVtt => self.cues(segment, speaker),
        }
        self.write()
    }

    /// Writes that the audio of `range` was lost; `speaker` names the speaker if there are several. Plain
    /// text and SubRip have no place for gaps and stay as they are.
    ///
    /// # Errors
    /// Returns [`WriterError::Output`] if the output doesn't accept the whole entry.
    pub fn gap(&mut self, range: FrameRange, speaker: Option<&str>) -> Result<(), WriterError> {
        match self.format {
            Format::JsonLines => {
                let line = Line::Gap {
                    recording: self.recording.as_deref(),
                    speaker,
                    start: self.seconds(range.start),
                    end: self.seconds(range.end),
                    start_frame: range.start.0,
                    end_frame: range.end.0,
                };
                json(&mut self.entry, &line);
            }
            Format::WebVtt => {
                let whose = speaker
                    .map_or(String::new(), |speaker| format!(" of {}", vtt_escaped(&one_line(speaker))));
                let (start, end) = (clock(self.millis(range.start), '.'), clock(self.millis(range.end), '.'));
                let note = format!("NOTE audio{whose} lost from {start} to {end}\n\n");
                self.entry.extend_from_slice(note.as_bytes());
            }
            Format::Text | Format::Srt => {}
        }
        self.write()
    }

    /// Ends the transcript and returns the output. A WebVTT file without a cue still gets its header.
    ///
    /// # Errors
    /// Returns [`WriterError::Output`] if the output accepts no more data.
    pub fn finish(mut self) -> Result<W, WriterError> {
        self.write()?;
        Ok(self.out)
    }

    /// Returns the time of a position, rounded to the millisecond.
    fn millis(&self, position: FramePos) -> u64 {
        let nanos = position.time(self.sample_rate).as_nanos();
        u64::try_from((nanos + 500_000) / 1_000_000).unwrap_or(u64::MAX)
    }

    /// Returns the time of a position in seconds, as the nearest float: 1.132, not the sum of 1 and
    /// 0.132.
    fn seconds(&self, position: FramePos) -> f64 {
        position.0 as f64 / f64::from(self.sample_rate)
    }

    fn cues(&mut self, segment: &FinalSegment, speaker: Option<&str>) {
        let text = one_line(&segment.text);
        // SubRip has no escapes: the arrow that marks a line of times is broken up.
        let text = if self.format == Format::Srt { text.replace("-->", "-- >") } else { text.into_owned() };
        let label = speaker.filter(|_| self.format == Format::Srt).map(|name| format!("{}:", one_line(name)));
        let label = label.map(|label| label.replace("-->", "-- >"));
        let shown = self.shown.iter().find(|(known, _)| known.as_deref() == speaker);
        let earliest = shown.map_or(0, |(_, shown)| *shown);
        let millis = |position| self.millis(position);
        let cues = subtitles::cut(segment, &text, label.as_deref(), earliest, self.subtitles, millis);
        if let Some(last) = cues.last() {
            self.shown.retain(|(known, _)| known.as_deref() != speaker);
            self.shown.push((speaker.map(str::to_owned), last.end));
        }
        for cue in &cues {
            self.cue(cue, speaker);
        }
    }

    fn cue(&mut self, cue: &Cue, speaker: Option<&str>) {
        self.cues += 1;
        let Cue { start, end, lines } = cue;
        let text = lines.join("\n");
        let cue = if self.format == Format::Srt {
            format!("{}\n{} --> {}\n{text}\n\n", self.cues, clock(*start, ','), clock(*end, ','))
        } else {
            // A voice span (WebVTT, 3.3); its end tag may be left out where the cue ends.
            let voice = speaker.map_or(String::new(), |name| format!("<v {}>", vtt_escaped(&one_line(name))));
            let text = vtt_escaped(&text);
            format!("{}\n{} --> {}\n{voice}{text}\n\n", self.cues, clock(*start, '.'), clock(*end, '.'))
        };
        self.entry.extend_from_slice(cue.as_bytes());
    }

    fn word<'a>(&self, word: &'a Word) -> TimedWord<'a> {
        let Word { range, text, confidence } = word;
        let (start, end) = (self.seconds(range.start), self.seconds(range.end));
        TimedWord { start, end, text, confidence: *confidence }
    }

    /// Writes the entry to the output, after the header if the entry is the first.
    fn write(&mut self) -> Result<(), WriterError> {
        let header = match (self.format, &self.recording) {
            _ if self.started => String::new(),
            (Format::WebVtt, _) => "WEBVTT\n\n".to_owned(),
            // The name is marked as `head` and `tail` mark file names.
            (Format::Text, Some(name)) => format!("==> {} <==\n", one_line(name)),
            _ => String::new(),
        };
        let failed = |error| WriterError::Output { format: self.format, error };
        if !header.is_empty() {
            self.out.write_all(header.as_bytes()).map_err(failed)?;
        }
        self.started = true;
        let written = self.out.write_all(&self.entry).and_then(|()| self.out.flush());
        self.entry.clear();
        written.map_err(failed)
    }
}

/// A line of JSON Lines. Times are in seconds; frames count from the start of the session.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Segment {
        #[serde(skip_serializing_if = "Option::is_none")]
        recording: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        speaker: Option<&'a str>,
        index: u64,
        start: f64,
        end: f64,
        start_frame: u64,
        end_frame: u64,
        text: &'a str,
        language: Option<&'a str>,
        confidence: Option<f32>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        words: Vec<TimedWord<'a>>,
    },
    Gap {
        #[serde(skip_serializing_if = "Option::is_none")]
        recording: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        speaker: Option<&'a str>,
        start: f64,
        end: f64,
        start_frame: u64,
        end_frame: u64,
    },
}

#[derive(Serialize)]
struct TimedWord<'a> {
    start: f64,
    end: f64,
    text: &'a str,
    confidence: f32,
}

fn json(entry: &mut Vec<u8>, line: &Line<'_>) {
    serde_json::to_writer(&mut *entry, line).expect("strings and numbers are JSON, and memory takes them");
    entry.push(b'\n');
}

/// Returns the text on a single line: an empty line would end a cue, and a line break an entry.
fn one_line(text: &str) -> Cow<'_, str> {
    // All characters that some reader takes for the end of a line, and NUL, which WebVTT forbids.
    let breaks = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}', '\0'];
    let text = text.trim();
    if !text.contains(breaks) {
        return Cow::Borrowed(text);
    }
    let lines: Vec<&str> = text.split(breaks).map(str::trim).filter(|line| !line.is_empty()).collect();
    Cow::Owned(lines.join(" "))
}

/// Prefixes the text with the name of the speaker, if known.
fn labelled<'a>(text: &'a str, speaker: Option<&str>) -> Cow<'a, str> {
    match speaker {
        Some(speaker) => Cow::Owned(format!("{}: {text}", one_line(speaker))),
        None => Cow::Borrowed(text),
    }
}

/// Escapes WebVTT markup in the text by character references; escaping `>` also covers `-->`.
fn vtt_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Formats a time as `hours:minutes:seconds`, then `point` and milliseconds; the hours have two digits or
/// more.
fn clock(millis: u64, point: char) -> String {
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    format!("{:02}:{:02}:{:02}{point}{millis:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}
