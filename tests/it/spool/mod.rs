//! Spools: a session on disk is recovered as it was written, however the file was cut or damaged.
//!
//! `damage`: files cut and damaged. `file`: ownership of a spool and its continuation.

mod damage;
mod file;

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tempfile::TempDir;
use tokio::sync::mpsc;
use voxline::audio::{AudioChunk, Feed, FramePos};
use voxline::auth::TokenProvider;
use voxline::session::{Journal, ServerSession, Session, Settings};
use voxline::spool::{Fsync, Head, Opened, Reader, Spool, SpoolError};
use voxline::transcript::{FinalSegment, TranscriptEvent};
use voxline_testing::network;
use voxline_testing::peer::{Behaviour, RecordingPeer};

use voxline_fixtures::allocations::Meter;
use voxline_fixtures::deadline::within;
use voxline_fixtures::random::Random;

const KEY: &str = "canary-of-the-resume-key";

fn head() -> Head {
    Head { sample_rate: 16_000, identity: "call.wav, line 0".to_owned(), service: "one".to_owned() }
}

fn open(path: &Path, replay_frames: u64) -> Opened {
    Spool::open(path, &head(), replay_frames, Fsync::Never).unwrap()
}

fn refused(path: &Path, head: &Head) -> SpoolError {
    Spool::open(path, head, 0, Fsync::Never).unwrap_err()
}

fn chunk(start: u64, end: u64) -> AudioChunk {
    let payload: Bytes = (start..end).flat_map(|frame| (frame as u16).to_le_bytes()).collect();
    AudioChunk::new(FramePos(start).to(FramePos(end)), payload)
}

fn segment(index: u64, start: u64, end: u64) -> TranscriptEvent {
    let range = FramePos(start).to(FramePos(end));
    let text = format!("said from {start}");
    TranscriptEvent::Final(FinalSegment {
        index,
        range,
        text,
        language: None,
        confidence: Some(0.5),
        words: Vec::new(),
        context: None,
    })
}

/// Returns a final with a recogniser context.
fn segment_in_context(index: u64, start: u64, end: u64) -> TranscriptEvent {
    let TranscriptEvent::Final(segment) = segment(index, start, end) else { unreachable!("made above") };
    TranscriptEvent::Final(FinalSegment { context: Some(format!("context {index}")), ..segment })
}

fn end(frames: u64, finals: u64) -> TranscriptEvent {
    TranscriptEvent::End { frames, finals }
}

/// Returns everything that the reader has now. After its writer is dropped, that is everything in the
/// spool.
fn read(reader: &mut Reader) -> Vec<Feed> {
    let ready = || reader.next().now_or_never()?.unwrap();
    std::iter::from_fn(ready).collect()
}

/// An operation on a spool.
#[derive(Clone, Debug)]
enum Op {
    Feed(Feed),
    Opened(ServerSession),
    Told(TranscriptEvent),
}

/// The expected content of a recovered spool.
#[derive(Debug, Default, PartialEq)]
struct Story {
    told: Vec<TranscriptEvent>,
    /// Audio after the last final, and everything else that the session should be fed.
    feeds: Vec<Feed>,
    accepted: FramePos,
    final_: FramePos,
    next_index: u64,
    gaps: u64,
    context: Option<String>,
    server: Option<(String, String, u64)>,
    ended: bool,
    done: bool,
}

impl Story {
    /// Computes the content after `ops` without a file.
    fn of(ops: &[Op]) -> Story {
        let mut story = Story::default();
        let mut feeds = Vec::new();
        for op in ops {
            match op {
                Op::Feed(feed) => {
                    match feed {
                        Feed::Audio(chunk) => story.accepted = chunk.range().end,
                        Feed::Gap(range) => story.accepted = range.end,
                        Feed::Flush => {}
                        Feed::End => story.ended = true,
                    }
                    feeds.push((story.accepted, feed.clone()));
                }
                Op::Opened(server) => story.server = Some(told_of(server)),
                Op::Told(TranscriptEvent::End { .. }) => story.done = true,
                Op::Told(event) => {
                    let mut event = event.clone();
                    story.final_ = match &mut event {
                        TranscriptEvent::Final(segment) => {
                            story.next_index += 1;
                            story.context = segment.context.take().or(story.context);
                            segment.range.end
                        }
                        TranscriptEvent::Gap { range } => {
                            story.gaps += range.len();
                            range.end
                        }
                        other => panic!("{other:?} is not for the log"),
                    };
                    story.told.push(event);
                }
            }
        }
        let wanted = feeds.into_iter().filter_map(|(end, feed)| match feed {
            Feed::Audio(chunk) => Some(Feed::Audio(chunk.from(story.final_)?)),
            Feed::Gap(range) => Some(Feed::Gap(range)),
            Feed::Flush => (end > story.final_).then_some(Feed::Flush),
            Feed::End => Some(Feed::End),
        });
        story.feeds = wanted.collect();
        story
    }

    /// Returns the content of a spool that was opened with a replay of `replay_frames`.
    fn found(opened: Opened, replay_frames: u64) -> Story {
        let Opened { writer, mut reader, recovered, spool: _spool, log: _log } = opened;
        drop(writer);
        let checkpoint = recovered.checkpoint;
        let rest = read(&mut reader);
        let lengths: Vec<u64> = checkpoint.replay.iter().map(|chunk| chunk.range().len()).collect();
        let held: u64 = lengths.iter().sum();
        let before_last = held - lengths.last().unwrap_or(&0);
        assert!(lengths.is_empty() || before_last < replay_frames, "{lengths:?} of {replay_frames}");
        let more = matches!(rest.first(), Some(Feed::Audio(_)));
        assert!(held >= replay_frames || !more, "{lengths:?} of {replay_frames}, but audio follows");
        Story {
            told: recovered.events,
            feeds: checkpoint.replay.into_iter().map(Feed::Audio).chain(rest).collect(),
            accepted: recovered.accepted,
            final_: checkpoint.final_,
            next_index: checkpoint.next_index,
            gaps: checkpoint.gaps,
            context: checkpoint.context,
            server: checkpoint.server.as_ref().map(told_of),
            ended: recovered.ended,
            done: recovered.done,
        }
    }
}

fn told_of(server: &ServerSession) -> (String, String, u64) {
    (server.name.clone(), server.resume_key.expose().to_owned(), server.first_index)
}

/// Returns a session of some records, from its first chunk to its end.
fn random_session(random: &mut Random) -> Vec<Op> {
    let mut ops = Vec::new();
    let (mut accepted, mut final_, mut index, mut flushed) = (0, 0, 0, 0);
    for _ in 0..10 + random.below(20) {
        let open = accepted - final_;
        ops.push(match random.below(10) {
            0 => {
                let resume_key = format!("{KEY}-{}", random.below(100)).into();
                Op::Opened(ServerSession {
                    name: format!("s{accepted}"),
                    resume_key,
                    first_index: index,
                    endpoints: Vec::new(),
                })
            }
            1 if flushed < accepted => {
                flushed = accepted;
                Op::Feed(Feed::Flush)
            }
            2..=4 if open > 0 => {
                let end = final_ + 1 + random.below(open as usize) as u64;
                let range = FramePos(final_).to(FramePos(end));
                let gap = random.below(3) == 0;
                let event = match random.below(3) {
                    _ if gap => TranscriptEvent::Gap { range },
                    0 => segment_in_context(index, final_, end),
                    _ => segment(index, final_, end),
                };
                index += u64::from(!gap);
                final_ = end;
                Op::Told(event)
            }
            _ => {
                let start = accepted;
                accepted += 1 + random.below(30) as u64;
                let chunk = chunk(start, accepted);
                Op::Feed(Feed::Audio(match random.below(3) {
                    0 => chunk,
                    mark => chunk.marked(mark == 1),
                }))
            }
        });
    }
    ops.push(Op::Feed(Feed::End));
    if final_ < accepted {
        ops.push(Op::Told(segment(index, final_, accepted)));
        index += 1;
    }
    ops.push(Op::Told(end(accepted, index)));
    ops
}

/// Applies the operations of a process that continues after `done` of `ops`. Its source starts again from
/// the beginning.
fn play(opened: &mut Opened, ops: &[Op], done: usize) {
    for (number, op) in ops.iter().enumerate() {
        match op {
            Op::Feed(feed) => opened.writer.push(feed).unwrap(),
            _ if number < done => {}
            Op::Opened(server) => opened.log.record_server(server).unwrap(),
            Op::Told(event) => opened.log.record_event(event).unwrap(),
        }
    }
}

/// Records a session. Returns the bytes of its spool, and the length of the file before `ops` and after
/// each of them.
fn recorded(path: &Path, ops: &[Op]) -> (Vec<u8>, Vec<usize>) {
    let mut opened = open(path, 0);
    let length = || fs::metadata(path).unwrap().len() as usize;
    let mut lengths = vec![length()];
    for op in ops {
        play(&mut opened, std::slice::from_ref(op), 0);
        lengths.push(length());
    }
    let bytes = fs::read(path).unwrap();
    opened.spool.remove().unwrap();
    (bytes, lengths)
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(bytes).unwrap();
}
