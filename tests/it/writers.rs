//! Transcript files, byte for byte.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use voxline::audio::{FramePos, FrameRange};
use voxline::error::chain;
use voxline::transcript::{FinalSegment, Format, Subtitles, Word, Writer, WriterError};

use voxline_fixtures::random::Random;

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

/// Returns a transcript of two segments with words, one segment without, and a gap.
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
        (Format::Srt, "1\n999:59:59,999 --> 1000:00:00,500\nlong\n\n"),
        (Format::WebVtt, "WEBVTT\n\n1\n999:59:59.999 --> 1000:00:00.500\nlong\n\n"),
    ] {
        let mut writer = Writer::new(format, 16_000, Vec::new());
        writer.segment(&segment(0, 1_000 * hour - 16, 1_000 * hour + 8_000, "long"), None).unwrap();
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
        assert!(!cue.trim_end().contains("\n\n"), "one cue: {out}");
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

/// An output that keeps only flushed data, as a file does if its program is killed.
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
    assert!(chain(&error).to_string().starts_with("the srt transcript cannot be written: "), "{error}");
}

#[test]
fn formats_have_names() {
    for format in [Format::Text, Format::JsonLines, Format::Srt, Format::WebVtt] {
        assert_eq!(format.name().parse::<Format>().unwrap(), format);
    }
    let error = "docx".parse::<Format>().unwrap_err();
    assert_eq!(error.to_string(), "unknown transcript format `docx`, expected text, jsonl, srt or vtt");
}

/// A cue as a reader of the file finds it, with times in milliseconds.
#[derive(Debug, PartialEq)]
struct Cue {
    start: u64,
    end: u64,
    lines: Vec<String>,
}

/// Parses the cues of a file by the description of its format alone.
fn parsed(format: Format, file: &str) -> Vec<Cue> {
    let body = if format == Format::WebVtt { file.strip_prefix("WEBVTT\n\n").unwrap() } else { file };
    let millis = |time: &str| {
        let (clock, millis) = time.split_once(if format == Format::Srt { ',' } else { '.' }).unwrap();
        let seconds = clock.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
        assert_eq!(millis.len(), 3, "{time}");
        seconds * 1_000 + millis.parse::<u64>().unwrap()
    };
    let blocks = body.split_terminator("\n\n").enumerate();
    let cues = blocks.map(|(index, block)| {
        let mut lines = block.lines();
        assert_eq!(lines.next().unwrap(), (index + 1).to_string());
        let (start, end) = lines.next().unwrap().split_once(" --> ").unwrap();
        let plain = |line: &str| line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let lines = lines.map(|line| if format == Format::WebVtt { plain(line) } else { line.to_owned() });
        Cue { start: millis(start), end: millis(end), lines: lines.collect() }
    });
    cues.collect()
}

/// Returns a random session that starts at `origin`, with words of all lengths. A segment has all its
/// words with times, only the first half of them, or none.
fn spoken(random: &mut Random, origin: u64) -> Vec<FinalSegment> {
    const LETTERS: [&str; 8] = ["a", "n", "ы", "е", "字", "-", "<", "&"];
    const MARKS: [&str; 8] = ["", "", "", ",", ".", "?", "...", ":"];
    let mut at = origin;
    let mut segments = Vec::new();
    for index in 0..1 + random.below(6) as u64 {
        let count = [0, 1, 5, 30, 120][random.below(5)];
        let longest = [4, 12, 120][random.below(3)];
        let mut words = Vec::new();
        let start = at;
        for _ in 0..count {
            let letters = 1 + random.below(longest);
            let mut text: String = (0..letters).map(|_| LETTERS[random.below(LETTERS.len())]).collect();
            text.push_str(MARKS[random.below(MARKS.len())]);
            at += [0, 0, 0, 1_600, 6_400, 40_000][random.below(6)];
            let length = [0, 1, 800, 4_000, 8_000][random.below(5)] + random.below(4_000) as u64;
            words.push(Word { range: range(at, at + length), text, confidence: 0.5 });
            // The next word may begin before this one ends.
            at += if random.below(10) == 0 { length / 2 } else { length };
        }
        let end = words.iter().map(|word| word.range.end.0).max().unwrap_or(at) + random.below(32_000) as u64;
        let texts: Vec<&str> = words.iter().map(|word| &*word.text).collect();
        let mut segment = segment(index, start, end, &texts.join(" "));
        match random.below(4) {
            0 => {}
            1 => segment.words = words[..words.len() / 2].to_vec(),
            _ => segment.words = words,
        }
        at = end;
        segments.push(segment);
    }
    segments
}

fn written(format: Format, segments: &[FinalSegment], subtitles: Subtitles) -> String {
    let mut writer = Writer::new(format, 16_000, Vec::new()).with_subtitles(subtitles);
    for segment in segments {
        writer.segment(segment, None).unwrap();
    }
    String::from_utf8(writer.finish().unwrap()).unwrap()
}

fn letters<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().flat_map(|text| text.chars().filter(|c| !c.is_whitespace())).collect()
}

#[test]
fn cues_hold_every_word_once_in_order_within_their_bounds_and_never_overlap() {
    let mut random =
        Random::for_test("writers::cues_hold_every_word_once_in_order_within_their_bounds_and_never_overlap");
    for case in 0..500 {
        let subtitles = match random.below(2) {
            0 => Subtitles::default(),
            _ => Subtitles {
                lines: 1 + random.below(4) as u16,
                width: 10 + random.below(60) as u16,
                duration: Duration::from_secs(1 + random.below(9) as u64),
                speed: 1 + random.below(40) as u16,
                pause: Duration::from_millis(100 + random.below(3_000) as u64),
            },
        };
        let origin = random.below(100_000) as u64;
        let segments = spoken(&mut random, origin);
        for format in [Format::Srt, Format::WebVtt] {
            let file = written(format, &segments, subtitles);
            let cues = parsed(format, &file);
            let read = letters(cues.iter().flat_map(|cue| cue.lines.iter().map(String::as_str)));
            assert_eq!(read, letters(segments.iter().map(|segment| &*segment.text)), "case {case}: {file}");
            for cue in &cues {
                let lines = (1..=usize::from(subtitles.lines)).contains(&cue.lines.len());
                let width = cue.lines.iter().all(|line| line.chars().count() <= usize::from(subtitles.width));
                let time =
                    cue.start < cue.end && cue.end - cue.start <= subtitles.duration.as_millis() as u64;
                assert!(lines && width && time, "case {case}, {subtitles:?}: {cue:?}");
            }
            for pair in cues.windows(2) {
                assert!(pair[0].end <= pair[1].start, "case {case}: {pair:?}");
            }
        }
    }
}

#[test]
fn speakers_have_their_names_in_every_cue() {
    let said = segment(0, 0, 160_000, &"word ".repeat(40));
    let mut writer = Writer::new(Format::Srt, 16_000, Vec::new());
    writer.segment(&said, Some("Ann")).unwrap();
    writer.segment(&said, Some("B\n-->")).unwrap();
    let file = String::from_utf8(writer.finish().unwrap()).unwrap();
    let cues = parsed(Format::Srt, &file);
    let (ann, b) = cues.split_at(cues.len() / 2);
    assert!(ann.len() > 1 && ann.iter().all(|cue| cue.lines[0].starts_with("Ann: word")), "{file}");
    assert!(b.iter().all(|cue| cue.lines[0].starts_with("B -- >: word")), "{file}");
    assert!(cues.iter().flat_map(|cue| &cue.lines).all(|line| line.chars().count() <= 42), "{file}");
    let mut writer = Writer::new(Format::WebVtt, 16_000, Vec::new());
    writer.segment(&said, Some("Ann")).unwrap();
    let file = String::from_utf8(writer.finish().unwrap()).unwrap();
    assert_eq!(file.matches("<v Ann>word").count(), file.matches(" --> ").count(), "{file}");
}

/// Python program that reads each file with the library for its format and prints its cues: start, end,
/// text.
const FOREIGN: &str = r#"
import json, pathlib, sys
import pysubs2, webvtt

def millis(clock):
    hours, minutes, seconds = clock.split(":")
    return round((int(hours) * 60 + int(minutes)) * 60_000 + float(seconds) * 1_000)

for path in map(pathlib.Path, sys.argv[1:]):
    if path.suffix == ".vtt":
        cues = [[millis(cue.start), millis(cue.end), cue.text] for cue in webvtt.read(path)]
    else:
        file = pysubs2.load(str(path), encoding="utf-8", keep_html_tags=True, keep_unknown_html_tags=True)
        cues = [[cue.start, cue.end, cue.plaintext] for cue in file]
    print(json.dumps(cues))
"#;

#[test]
fn other_programs_read_the_same_cues() {
    // `./dev test` downloads the libraries, pinned by hash.
    let libraries = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("subtitle-parsers");
    assert!(libraries.is_dir(), "{} is missing: ./dev test fetches it", libraries.display());
    let place = tempfile::tempdir().unwrap();
    let mut random = Random::for_test("writers::other_programs_read_the_same_cues");
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", &libraries).args(["-c", FOREIGN]);
    let mut expected = Vec::new();
    for case in 0..40 {
        let segments: Vec<FinalSegment> = spoken(&mut random, 0)
            .into_iter()
            .map(|mut segment| {
                // Markup is specific to a format, and no two readers agree on it.
                segment.text = segment.text.replace(['<', '&'], "x");
                segment.words.iter_mut().for_each(|word| word.text = word.text.replace(['<', '&'], "x"));
                segment
            })
            .collect();
        for format in [Format::Srt, Format::WebVtt] {
            let file = written(format, &segments, Subtitles::default());
            let path = place.path().join(format!("{case}.{format}"));
            fs::write(&path, &file).unwrap();
            let cues = parsed(format, &file);
            let cues = cues.iter().map(|cue| (cue.start, cue.end, cue.lines.join("\n")));
            let cues: Vec<(u64, u64, String)> = cues.collect();
            if !cues.is_empty() {
                python.arg(path);
                expected.push(cues);
            }
        }
    }
    let read = python.output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read: Vec<Vec<(u64, u64, String)>> = String::from_utf8(read.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read.len(), expected.len());
    for (read, expected) in read.iter().zip(&expected) {
        assert_eq!(read, expected);
    }
}
