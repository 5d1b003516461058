//! Transcripts, byte for byte.

use std::io;

use voxline::audio::{FramePos, FrameRange};
use voxline::transcript::{FinalSegment, Format, Writer, WriterError};

fn range(start: u64, end: u64) -> FrameRange {
    FrameRange::new(FramePos(start), FramePos(end))
}

fn segment(index: u64, start: u64, end: u64, text: &str) -> FinalSegment {
    FinalSegment {
        index,
        range: range(start, end),
        text: text.to_owned(),
        language: None,
        confidence: None,
        words: Vec::new(),
        context: None,
    }
}

/// Two segments with words, one without, and a gap.
fn transcript(format: Format) -> String {
    let mut writer = Writer::new(format, 16_000, Vec::new());
    let mut first = segment(0, 0, 24_000, "hello <b>world</b> & all");
    first.language = Some("en".to_owned());
    first.confidence = Some(0.93);
    writer.segment(&first, None).unwrap();
    writer.segment(&segment(1, 24_000, 40_000, "  "), None).unwrap();
    writer.gap(range(40_000, 56_000), None).unwrap();
    writer.segment(&segment(2, 56_000, 72_008, " one\n\ntwo\r\n--> three "), None).unwrap();
    String::from_utf8(writer.finish().unwrap()).unwrap()
}

#[test]
fn text() {
    assert_eq!(transcript(Format::Text), "hello <b>world</b> & all\none two --> three\n");
}

#[test]
fn json_lines() {
    let expected = concat!(
        r#"{"type":"segment","index":0,"start":0.0,"end":1.5,"start_frame":0,"end_frame":24000,"#,
        r#""text":"hello <b>world</b> & all","language":"en","confidence":0.93}"#,
        "\n",
        r#"{"type":"segment","index":1,"start":1.5,"end":2.5,"start_frame":24000,"end_frame":40000,"#,
        r#""text":"  ","language":null,"confidence":null}"#,
        "\n",
        r#"{"type":"gap","start":2.5,"end":3.5,"start_frame":40000,"end_frame":56000}"#,
        "\n",
        r#"{"type":"segment","index":2,"start":3.5,"end":4.5005,"start_frame":56000,"end_frame":72008,"#,
        r#""text":" one\n\ntwo\r\n--> three ","language":null,"confidence":null}"#,
        "\n",
    );
    assert_eq!(transcript(Format::JsonLines), expected);
}

#[test]
fn subrip() {
    let expected = "1\n00:00:00,000 --> 00:00:01,500\nhello <b>world</b> & all\n\n\
                    2\n00:00:03,500 --> 00:00:04,501\none two -- > three\n\n";
    assert_eq!(transcript(Format::Srt), expected);
}

#[test]
fn webvtt() {
    let expected = "WEBVTT\n\n\
                    1\n00:00:00.000 --> 00:00:01.500\nhello &lt;b&gt;world&lt;/b&gt; &amp; all\n\n\
                    NOTE audio lost from 00:00:02.500 to 00:00:03.500\n\n\
                    2\n00:00:03.500 --> 00:00:04.501\none two --&gt; three\n\n";
    assert_eq!(transcript(Format::WebVtt), expected);
}

#[test]
fn times_go_beyond_a_day_and_a_hundred_hours() {
    let hour = 3_600 * 16_000;
    for (format, expected) in [
        (Format::Srt, "1\n123:59:59,999 --> 1000:00:00,000\nlong\n\n"),
        (Format::WebVtt, "WEBVTT\n\n1\n123:59:59.999 --> 1000:00:00.000\nlong\n\n"),
    ] {
        let mut writer = Writer::new(format, 16_000, Vec::new());
        writer.segment(&segment(0, 124 * hour - 16, 1_000 * hour, "long"), None).unwrap();
        assert_eq!(String::from_utf8(writer.finish().unwrap()).unwrap(), expected);
    }
}

#[test]
fn a_cue_shorter_than_a_millisecond_still_lasts_one() {
    let mut writer = Writer::new(Format::WebVtt, 16_000, Vec::new());
    writer.segment(&segment(0, 16_000, 16_001, "hm"), None).unwrap();
    let vtt = String::from_utf8(writer.finish().unwrap()).unwrap();
    assert!(vtt.contains("00:00:01.000 --> 00:00:01.001\n"), "{vtt}");
}

#[test]
fn nothing_in_a_text_can_break_out_of_its_cue() {
    let nasty = "a\r\rb\u{2028}c\u{85}d\0e --> -->--->\n\n2\n00:00:00.000 --> 00:00:09.000\nfake\n\nNOTE x";
    for format in [Format::Srt, Format::WebVtt] {
        let mut writer = Writer::new(format, 16_000, Vec::new());
        writer.segment(&segment(0, 0, 16_000, nasty), None).unwrap();
        let out = String::from_utf8(writer.finish().unwrap()).unwrap();
        assert_eq!(out.matches("-->").count(), 1, "{out}");
        let cue = out.trim_start_matches("WEBVTT\n\n");
        assert_eq!(cue.lines().count(), 4, "number, times, text, empty line: {out}");
        assert!(!out.contains(['\r', '\0', '\u{2028}', '\u{85}']), "{out:?}");
    }
}

#[test]
fn an_empty_transcript_is_a_valid_file() {
    let empty =
        |format| String::from_utf8(Writer::new(format, 16_000, Vec::new()).finish().unwrap()).unwrap();
    assert_eq!(empty(Format::WebVtt), "WEBVTT\n\n");
    assert_eq!([empty(Format::Text), empty(Format::JsonLines), empty(Format::Srt)], ["", "", ""]);
}

/// Keeps what was flushed only, as a file does for whoever is killed.
#[derive(Default)]
struct Buffered {
    pending: Vec<u8>,
    kept: Vec<u8>,
}

impl io::Write for &mut Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.kept.append(&mut self.pending);
        Ok(())
    }
}

#[test]
fn each_segment_is_kept_whatever_happens_next() {
    for format in [Format::Text, Format::JsonLines, Format::Srt, Format::WebVtt] {
        let mut out = Buffered::default();
        let mut writer = Writer::new(format, 16_000, &mut out);
        writer.segment(&segment(0, 0, 16_000, "kept"), None).unwrap();
        drop(writer);
        assert!(String::from_utf8(out.kept).unwrap().contains("kept"), "{format}");
    }
}

#[test]
fn an_output_that_fails_is_reported() {
    let mut small = [0_u8; 8];
    let mut writer = Writer::new(Format::Srt, 16_000, small.as_mut_slice());
    let error = writer.segment(&segment(0, 0, 16_000, "too long for it"), None).unwrap_err();
    assert!(matches!(error, WriterError::Output { format: Format::Srt, .. }));
    assert!(error.to_string().starts_with("the srt transcript cannot be written: "), "{error}");
}

#[test]
fn formats_have_names() {
    for format in [Format::Text, Format::JsonLines, Format::Srt, Format::WebVtt] {
        assert_eq!(format.name().parse::<Format>().unwrap(), format);
    }
    let error = "docx".parse::<Format>().unwrap_err();
    assert_eq!(error.to_string(), "unknown transcript format `docx`, expected text, jsonl, srt or vtt");
}
