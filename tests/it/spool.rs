//! A session on disk: what comes back is what was written, however the file was cut or damaged.

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
use voxline::session::{self, Journal, ServerSession, Settings};
use voxline::spool::{Fsync, Head, Opened, Reader, Spool, SpoolError};
use voxline::testing::network;
use voxline::testing::peer::{Behaviour, RecordingPeer};
use voxline::transcript::{FinalSegment, TranscriptEvent};

use crate::random::Random;
use crate::support::allocations::Meter;

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

/// With the recogniser's context.
fn segment_in_context(index: u64, start: u64, end: u64) -> TranscriptEvent {
    let TranscriptEvent::Final(segment) = segment(index, start, end) else { unreachable!("made above") };
    TranscriptEvent::Final(FinalSegment { context: Some(format!("context {index}")), ..segment })
}

fn end(frames: u64, finals: u64) -> TranscriptEvent {
    TranscriptEvent::End { frames, finals }
}

/// All that the reader has now. Without its writer it has all there is.
fn read(reader: &mut Reader) -> Vec<Feed> {
    let ready = || reader.next().now_or_never()?.unwrap();
    std::iter::from_fn(ready).collect()
}

/// What happens to a spool.
#[derive(Clone, Debug)]
enum Op {
    Feed(Feed),
    Opened(ServerSession),
    Told(TranscriptEvent),
}

/// What a spool should come back as.
#[derive(Debug, Default, PartialEq)]
struct Story {
    told: Vec<TranscriptEvent>,
    /// Audio above the last final, and what else the session should be fed.
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
    /// What `ops` come to, told without a file.
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

    /// What was found in a spool that was opened with a replay of `replay_frames`.
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
            told: recovered.told,
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

/// A session of some records, from its first chunk to its end.
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

/// Does what the process does that goes on after `done` of `ops`: its source comes again from its start.
fn play(opened: &mut Opened, ops: &[Op], done: usize) {
    for (number, op) in ops.iter().enumerate() {
        match op {
            Op::Feed(feed) => opened.writer.push(feed).unwrap(),
            _ if number < done => {}
            Op::Opened(server) => opened.log.opened(server).unwrap(),
            Op::Told(event) => opened.log.told(event).unwrap(),
        }
    }
}

/// A session's spool as bytes, and how long it was after each of `ops`; before them, first.
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

#[test]
fn a_spool_cut_anywhere_is_the_beginning_of_what_was_written_and_goes_on() {
    const TEST: &str = "spool::a_spool_cut_anywhere_is_the_beginning_of_what_was_written_and_goes_on";
    let mut random = Random::for_test(TEST);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    for _ in 0..3 {
        let ops = random_session(&mut random);
        let (bytes, lengths) = recorded(&directory.path().join("whole"), &ops);
        let whole = Story::of(&ops);
        for cut in 0..=bytes.len() {
            write(&path, &bytes[..cut]);
            let replay_frames = random.below(100) as u64;
            let opened = open(&path, replay_frames);
            let there = lengths.iter().filter(|length| **length <= cut).count();
            // Not even the head: then nothing.
            let (done, whole_records) = there.checked_sub(1).map_or((0, 0), |done| (done, lengths[done]));
            assert_eq!(opened.recovered.dropped_bytes as usize, cut - whole_records, "cut at {cut}");
            assert_eq!(Story::found(opened, replay_frames), Story::of(&ops[..done]), "cut at {cut}");
            let mut opened = open(&path, 0);
            assert_eq!(opened.recovered.dropped_bytes, 0, "cut at {cut}, opened twice");
            play(&mut opened, &ops, done);
            drop(opened);
            assert!(fs::read(&path).unwrap() == bytes, "cut at {cut}, continued to another file");
            assert_eq!(Story::found(open(&path, replay_frames), replay_frames), whole, "cut at {cut}");
        }
    }
}

/// Damages the `touched` bytes of a spool, opens it and checks that only the records there are missing: their
/// audio is a gap, unless its text is there; all else of the source comes back, and what was told, up to the
/// first record of it that is missing; the ledger adds up; the damaged file is kept.
fn check_damage(path: &Path, ops: &[Op], lengths: &[usize], damaged: &[u8], touched: Range<usize>) {
    let aside = path.with_extension("damaged");
    let _ = fs::remove_file(&aside);
    write(path, damaged);
    let opened = open(path, 50);
    let recovered = &opened.recovered;
    let (whole, last) = (damaged.len(), lengths[lengths.len() - 2]);
    if recovered.dropped_bytes > 0 {
        // A last record that seems longer than what there is of it is one that was not written to its end.
        assert!(touched.end > last && recovered.damaged.is_none(), "{touched:?} of {whole}: cut");
    } else {
        assert_eq!(recovered.damaged.as_ref(), Some(&aside), "{touched:?} of {whole}");
        assert!(fs::read(&aside).unwrap() == damaged, "{touched:?}: what is set aside is another file");
    }
    let is_touched = |number: usize| lengths[number] < touched.end && touched.start < lengths[number + 1];
    let all = Story::of(ops);
    let found = Story::found(opened, 50);
    assert_eq!(found.accepted, all.accepted, "{touched:?}");
    let told = ops
        .iter()
        .enumerate()
        .filter(|(_, op)| matches!(op, Op::Told(event) if !matches!(event, TranscriptEvent::End { .. })));
    let untouched = told.take_while(|(number, _)| !is_touched(*number)).count();
    assert_eq!(found.told, all.told[..untouched], "{touched:?}");
    let mut at = found.final_;
    for feed in &found.feeds {
        match feed {
            Feed::Audio(kept) => {
                assert_eq!(kept.payload(), chunk(kept.range().start.0, kept.range().end.0).payload());
                assert_eq!(kept.range().start, at, "{touched:?}");
                at = kept.range().end;
            }
            Feed::Gap(range) => {
                assert_eq!(range.start, at, "{touched:?}");
                at = range.end;
                let missing: u64 = ops
                    .iter()
                    .enumerate()
                    .map(|(number, op)| match op {
                        Op::Feed(Feed::Audio(chunk)) if is_touched(number) => {
                            let (start, end) =
                                (chunk.range().start.max(range.start), chunk.range().end.min(range.end));
                            end.0.saturating_sub(start.0)
                        }
                        _ => 0,
                    })
                    .sum();
                assert_eq!(missing, range.len(), "{touched:?}: {range} is a gap");
            }
            Feed::Flush | Feed::End => {}
        }
    }
    // Every frame is final, kept or in a gap.
    assert_eq!(at, all.accepted, "{touched:?}");
    // What goes on is whole.
    let again = open(path, 50);
    assert_eq!(
        (again.recovered.dropped_bytes, &again.recovered.damaged),
        (0, &None),
        "{touched:?}, opened twice"
    );
    assert_eq!(Story::found(again, 50), found, "{touched:?}, opened twice");
}

/// Returns how many bits are flipped in each byte: one, or as many as `VOXLINE_FLIPS` says.
#[allow(clippy::disallowed_methods, reason = "a knob of the tests")]
fn flips() -> u32 {
    let asked = std::env::var("VOXLINE_FLIPS").ok();
    asked.map_or(1, |count| count.parse().expect("VOXLINE_FLIPS is a number from 1 to 8"))
}

#[test]
fn a_flipped_bit_costs_its_own_record_and_no_other_audio() {
    const TEST: &str = "spool::a_flipped_bit_costs_its_own_record_and_no_other_audio";
    let mut random = Random::for_test(TEST);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    for _ in 0..2 {
        let ops = random_session(&mut random);
        let (bytes, lengths) = recorded(&directory.path().join("whole"), &ops);
        for at in 0..bytes.len() {
            let first = random.below(8) as u32;
            for bit in (first..first + flips()).map(|bit| bit % 8) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if at < lengths[0] {
                    write(&path, &damaged);
                    let refused = refused(&path, &head());
                    assert!(matches!(refused, SpoolError::NotASpool { .. }), "byte {at}: {refused}");
                    assert_eq!(fs::read(&path).unwrap(), damaged, "a refused file is left alone");
                } else {
                    check_damage(&path, &ops, &lengths, &damaged, at..at + 1);
                }
            }
        }
    }
}

#[test]
fn a_smashed_stretch_costs_the_records_it_touches_and_no_other_audio() {
    const TEST: &str = "spool::a_smashed_stretch_costs_the_records_it_touches_and_no_other_audio";
    let mut random = Random::for_test(TEST);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    for _ in 0..20 {
        let ops = random_session(&mut random);
        let (bytes, lengths) = recorded(&directory.path().join("whole"), &ops);
        // The end says how much audio there was.
        let end = ops.iter().position(|op| matches!(op, Op::Feed(Feed::End))).unwrap();
        for _ in 0..20 {
            let start = lengths[0] + random.below(lengths[end] - lengths[0]);
            let touched = start..(start + 1 + random.below(300)).min(lengths[end]);
            let mut damaged = bytes.clone();
            let zeros = random.below(2) == 0;
            // No byte stays as it was, so that each record there is damaged.
            touched.clone().for_each(|at| {
                let byte = if zeros { 0 } else { random.below(256) as u8 };
                damaged[at] = if byte == damaged[at] { !byte } else { byte };
            });
            check_damage(&path, &ops, &lengths, &damaged, touched);
        }
    }
}

/// A session that goes on from a damaged spool tells the frames that are missing as a gap, to the service and
/// the user.
#[tokio::test(start_paused = true)]
async fn a_session_tells_what_damage_has_cost_as_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let ops: Vec<Op> = (0..10)
        .map(|n| Op::Feed(Feed::Audio(chunk(n * 1_600, (n + 1) * 1_600))))
        .chain([Op::Feed(Feed::End)])
        .collect();
    let (mut bytes, lengths) = recorded(&path, &ops);
    bytes[lengths[4] + 100] ^= 1;
    write(&path, &bytes);
    let Opened { writer, mut reader, mut log, recovered, spool: _spool } = open(&path, 16_000);
    drop(writer);
    let (connector, acceptor) = network::simulated(1, []);
    let peer = RecordingPeer::new(Behaviour::default());
    let tokens = TokenProvider::service(&"token".to_owned().into()).unwrap();
    let (sender, audio) = mpsc::channel(4);
    let feeding = async {
        while let Some(feed) = reader.next().await.unwrap() {
            let _ = sender.send(feed).await;
        }
    };
    let (events, mut heard) = mpsc::channel(64);
    let mut settings = Settings::new(16_000);
    settings.give_up = Duration::from_secs(30);
    let run =
        session::run_journalled(&connector, &tokens, settings, recovered.checkpoint, &mut log, audio, events);
    let ended = tokio::select! {
        (ended, ()) = async { tokio::join!(run, feeding) } => ended,
        () = peer.serve_all(acceptor) => unreachable!("the connector lives"),
    };
    let ledger = ended.whole().unwrap();
    assert_eq!((ledger.accepted, ledger.recognised, ledger.gaps), (16_000, 14_400, 1_600));
    let lost = FramePos(6_400).to(FramePos(8_000));
    assert_eq!(peer.recording().gaps(), [lost]);
    let mut gaps = Vec::new();
    while let Some(event) = heard.recv().await {
        if let TranscriptEvent::Gap { range } = event {
            gaps.push(range);
        }
    }
    assert_eq!(gaps, [lost]);
}

/// A service that its own user runs trusts no directory that another can change.
#[test]
fn a_directory_that_others_can_change_is_refused() {
    let directory = TempDir::new().unwrap();
    let open_to_all = directory.path().join("open");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
    let theirs = directory.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    // Where tests don't run as root, the root directory is another user's.
    let theirs = match chown(&theirs, Some(1), None) {
        Ok(()) => theirs,
        Err(_) => PathBuf::from("/"),
    };
    for place in [open_to_all, theirs] {
        let refused = refused(&place.join("spool"), &head());
        assert!(matches!(refused, SpoolError::ExposedDirectory { .. }), "{refused}");
        let fix = "run chmod 700 on it as its owner, or name another";
        assert!(refused.to_string().ends_with(fix), "{refused}");
        assert!(!place.join("spool").exists());
    }
}

#[test]
fn what_a_first_process_left_a_second_continues() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private/spools/call");
    let Opened { mut writer, mut reader, mut log, recovered, spool } = open(&path, 100);
    assert_eq!((recovered.accepted, recovered.ended, recovered.done), (FramePos::ZERO, false, false));
    assert!(recovered.checkpoint.server.is_none() && recovered.told.is_empty());
    writer.append(&chunk(0, 40)).unwrap();
    writer.append(&chunk(40, 80).marked(true)).unwrap();
    writer.flush().unwrap();
    writer.flush().unwrap();
    let server = ServerSession {
        name: "s1".to_owned(),
        resume_key: KEY.to_owned().into(),
        first_index: 0,
        endpoints: Vec::new(),
    };
    log.opened(&server).unwrap();
    log.told(&segment(0, 0, 30)).unwrap();
    let written = [Feed::Audio(chunk(0, 40)), Feed::Audio(chunk(40, 80).marked(true)), Feed::Flush];
    assert_eq!(read(&mut reader), written);
    drop((spool, writer, reader, log));

    // A straddling chunk is cut, and a flush that is there already is not repeated.
    let Opened { mut writer, mut reader, mut log, recovered, spool } = open(&path, 100);
    assert_eq!(recovered.checkpoint.replay, [chunk(30, 40), chunk(40, 80).marked(true)]);
    assert_eq!(told_of(&recovered.checkpoint.server.unwrap()), told_of(&server));
    writer.append(&chunk(0, 80)).unwrap();
    writer.flush().unwrap();
    writer.append(&chunk(70, 100)).unwrap();
    let hole = writer.append(&chunk(101, 102)).unwrap_err().to_string();
    assert!(hole.ends_with("audio at frame 101, expected frame 100"), "{hole}");
    assert_eq!(read(&mut reader), [Feed::Flush, Feed::Audio(chunk(80, 100))]);
    // The session ended because its source broke off: that is not the end.
    log.told(&segment(1, 30, 100)).unwrap();
    log.told(&end(100, 2)).unwrap();
    drop((spool, writer, reader, log));

    let Opened { mut writer, mut reader, mut log, recovered, spool } = open(&path, 100);
    assert_eq!((recovered.ended, recovered.done), (false, false));
    writer.end().unwrap();
    writer.end().unwrap();
    let late = writer.append(&chunk(100, 101)).unwrap_err().to_string();
    assert!(late.ends_with("audio at frame 100, but audio ended at frame 100"), "{late}");
    assert_eq!(read(&mut reader), [Feed::End]);
    log.told(&end(100, 2)).unwrap();
    drop((spool, writer, reader, log));

    let Opened { recovered, spool, .. } = open(&path, 100);
    assert_eq!((recovered.ended, recovered.done), (true, true));
    assert_eq!(recovered.told, [segment(0, 0, 30), segment(1, 30, 100)]);
    spool.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_live_source_goes_on_where_the_spool_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let mut opened = open(&path, 0);
    opened.writer.append(&chunk(0, 40)).unwrap();
    drop(opened);
    let Opened { writer, mut reader, spool: _spool, .. } = open(&path, 0);
    let mut writer = writer.live();
    writer.flush().unwrap();
    writer.append(&chunk(0, 10)).unwrap();
    assert_eq!(writer.accepted(), FramePos(50));
    let moved = AudioChunk::new(FramePos(40).to(FramePos(50)), chunk(0, 10).payload().clone());
    assert_eq!(read(&mut reader), [Feed::Audio(chunk(0, 40)), Feed::Flush, Feed::Audio(moved)]);
}

#[tokio::test]
async fn the_reader_waits_for_the_writer_and_sees_all_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { mut writer, mut reader, mut log, .. } = open(&directory.path().join("spool"), 0);
    let fed: Vec<Feed> = (0..100).map(|n| Feed::Audio(chunk(n * 16, (n + 1) * 16))).collect();
    let (go, mut gone_on) = tokio::sync::mpsc::channel(1);
    let writing = async {
        for (index, feed) in fed.iter().enumerate() {
            // Once the reader has asked in vain.
            gone_on.recv().await.unwrap();
            let (index, start) = (index as u64, index as u64 * 16);
            // A wait that the log could end too soon.
            if index > 0 {
                log.told(&segment(index - 1, start - 16, start)).unwrap();
            }
            tokio::task::yield_now().await;
            writer.push(feed).unwrap();
        }
        drop(writer);
    };
    let reading = async {
        let mut read = Vec::new();
        loop {
            // A wait given up loses nothing.
            let given_up = reader.next().now_or_never();
            assert!(given_up.is_none() || read.len() == fed.len(), "{given_up:?}");
            let _ = go.send(()).await;
            match reader.next().await.unwrap() {
                Some(feed) => read.push(feed),
                None => return read,
            }
        }
    };
    let ((), read) = tokio::join!(writing, reading);
    assert_eq!(read, fed);
}

#[test]
fn the_log_takes_only_what_follows() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open(&directory.path().join("spool"), 0);
    opened.writer.append(&chunk(0, 10)).unwrap();
    let mut refused = |event| opened.log.told(&event).unwrap_err().to_string();
    assert!(refused(segment(1, 0, 5)).ends_with("final 1, expected 0"));
    assert!(refused(segment(0, 1, 5)).ends_with("a final of frames 1..5, expected from 0 and up to 10"));
    assert!(refused(segment(0, 0, 11)).ends_with("a final of frames 0..11, expected from 0 and up to 10"));
    opened.log.told(&segment(0, 0, 10)).unwrap();
}

#[test]
fn one_process_has_it_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let Opened { spool, writer, reader, log, .. } = open(&path, 0);
    drop((spool, writer, reader));
    // The session alone has it still.
    let message = refused(&path, &head()).to_string();
    assert_eq!(message, format!("spool {} is in use: the session in it is still running", path.display()));
    drop(log);
    open(&path, 0);
}

#[test]
fn a_spool_of_another_session_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    drop(open(&path, 0));
    let there = fs::read(&path).unwrap();
    let other = Head { identity: "other.wav".to_owned(), ..head() };
    let message = refused(&path, &other).to_string();
    assert!(message.contains("has the identity `call.wav, line 0`, expected `other.wav`"), "{message}");
    let message = refused(&path, &Head { sample_rate: 8_000, ..head() }).to_string();
    assert!(message.contains("has the sample rate 16000, expected 8000"), "{message}");
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert_eq!(fs::read(&path).unwrap(), there);
}

#[test]
fn a_file_that_is_no_spool_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes");
    for text in [
        "",
        "short",
        "a text longer than the head of a spool, which somebody may want to keep; ".repeat(9).as_str(),
    ] {
        write(&path, text.as_bytes());
        match Spool::open(&path, &head(), 0, Fsync::Never) {
            Ok(_) => assert!(text.is_empty()),
            Err(refused) => {
                assert!(matches!(refused, SpoolError::NotASpool { .. }), "{refused}");
                assert_eq!(fs::read(&path).unwrap(), text.as_bytes());
            }
        }
    }
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(refused(&link, &head()), SpoolError::NotAFile { .. }));
    assert!(matches!(refused(directory.path(), &head()), SpoolError::NotAFile { .. }));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A process that is being started has what this one had open, locks too, until it runs its own program.
#[test]
fn it_is_free_once_it_is_dropped_whatever_is_being_started() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("spool");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let starting = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(Command::new("true").status().unwrap().success());
            }
        });
        let opened = (0..500).map(|_| Spool::open(&path, &head(), 0, Fsync::Never).map(drop));
        let opened: Result<(), SpoolError> = opened.collect();
        over.store(true, Ordering::Relaxed);
        starting.join().unwrap();
        opened.unwrap();
    });
}

#[test]
fn it_is_its_owners_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("spools/call");
    drop(open(&path, 0));
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(refused(&path, &head()), SpoolError::Exposed { .. }));
}

#[test]
fn the_resume_key_is_in_the_file_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let mut opened = open(&path, 0);
    let server = ServerSession {
        name: "s1".to_owned(),
        resume_key: KEY.to_owned().into(),
        first_index: 0,
        endpoints: Vec::new(),
    };
    opened.log.opened(&server).unwrap();
    let error = opened.log.told(&segment(7, 0, 0)).unwrap_err();
    assert!(!format!("{opened:?} {error:?} {error}").contains(KEY));
    opened.log.told(&segment_in_context(0, 0, 0)).unwrap();
    drop(opened);
    assert!(String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(KEY));
    let opened = open(&path, 0);
    assert_eq!(opened.recovered.checkpoint.server.as_ref().unwrap().resume_key.expose(), KEY);
    assert_eq!(opened.recovered.checkpoint.context.as_deref(), Some("context 0"));
    assert!(!format!("{opened:?}").contains(KEY));
    drop(opened);
    // Another service doesn't see it, nor the context of a recogniser that is not its own.
    let elsewhere = Head { service: "another".to_owned(), ..head() };
    let opened = Spool::open(&path, &elsewhere, 0, Fsync::Never).unwrap();
    assert!(opened.recovered.checkpoint.server.is_none());
    assert!(opened.recovered.checkpoint.context.is_none());
}

#[test]
fn every_policy_of_syncing_writes_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let ops = random_session(&mut Random::seeded(1));
    let files = [Fsync::Never, Fsync::Finals, Fsync::Always].map(|fsync| {
        let path = directory.path().join(format!("{fsync:?}"));
        play(&mut Spool::open(&path, &head(), 0, fsync).unwrap(), &ops, 0);
        fs::read(&path).unwrap()
    });
    assert!(files[0] == files[1] && files[1] == files[2]);
}

#[test]
fn an_hour_of_audio_is_recovered_in_little_memory() {
    static METER: Meter = Meter::new();
    const FRAMES: u64 = 1_600;
    const CHUNKS: u64 = 36_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let mut opened = open(&path, 0);
    let payload = Bytes::from(vec![7; 2 * FRAMES as usize]);
    for n in 0..CHUNKS {
        let range = FramePos(n * FRAMES).to(FramePos((n + 1) * FRAMES));
        opened.writer.append(&AudioChunk::new(range, payload.clone())).unwrap();
    }
    drop(opened);
    assert!(fs::metadata(&path).unwrap().len() > 115_000_000);

    let _joined = METER.join();
    // Nothing of it is final yet: the worst case.
    let Opened { mut reader, mut log, recovered, spool, writer } = open(&path, 10 * FRAMES);
    let Some(Ok(Some(Feed::Audio(first)))) = reader.next().now_or_never() else { panic!("audio is there") };
    assert_eq!((recovered.checkpoint.replay.len(), first.range().start), (10, FramePos(10 * FRAMES)));
    assert!(METER.peak() < 3_000_000, "{} bytes", METER.peak());
    // All is final but the last second.
    log.told(&segment(0, 0, (CHUNKS - 10) * FRAMES)).unwrap();
    drop((spool, writer, reader, log, recovered, first));
    let opened = open(&path, u64::MAX);
    assert_eq!(opened.recovered.checkpoint.replay.len(), 10);
    assert!(METER.peak() < 3_000_000, "{} bytes", METER.peak());
}
