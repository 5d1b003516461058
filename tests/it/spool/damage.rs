//! Recovery of a spool that was cut or damaged.

use super::*;
use voxline_fixtures::knob::knob;

#[test]
fn a_spool_cut_anywhere_is_the_beginning_of_what_was_written_and_goes_on() {
    const TEST: &str = "spool::damage::a_spool_cut_anywhere_is_the_beginning_of_what_was_written_and_goes_on";
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
            // Without a whole head nothing is recovered.
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

/// Number of bytes of a record's length field, at the record's beginning.
const LENGTH_BYTES: usize = 4;

/// Writes a spool with damage in its `touched` bytes, opens it and checks the recovery. Only the records
/// there are missing. Their audio is a gap, unless a recovered final covers it. All other audio of the
/// source comes back. The reported events come back up to the first missing record of them. The ledger adds
/// up, and the damaged file is kept.
fn check_damage(path: &Path, ops: &[Op], lengths: &[usize], damaged: &[u8], touched: Range<usize>) {
    let aside = path.with_extension("damaged");
    let _ = fs::remove_file(&aside);
    write(path, damaged);
    let opened = open(path, 50);
    let recovered = &opened.recovered;
    let whole = damaged.len();
    // No part of the file counts as a record that was not written to its end.
    assert_eq!(
        (recovered.dropped_bytes, recovered.damaged.as_ref()),
        (0, Some(&aside)),
        "{touched:?} of {whole}"
    );
    assert!(fs::read(&aside).unwrap() == damaged, "{touched:?}: what is set aside is another file");
    // A record with damage in its length field only ends where the next record begins, or where the file
    // ends.
    let is_length =
        lengths.iter().any(|start| *start <= touched.start && touched.end <= start + LENGTH_BYTES);
    let is_touched =
        |number: usize| !is_length && lengths[number] < touched.end && touched.start < lengths[number + 1];
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
    // The continued spool is whole.
    let again = open(path, 50);
    assert_eq!(
        (again.recovered.dropped_bytes, &again.recovered.damaged),
        (0, &None),
        "{touched:?}, opened twice"
    );
    assert_eq!(Story::found(again, 50), found, "{touched:?}, opened twice");
}

/// Returns the number of bits that are flipped in each byte: one, or as many as `VOXLINE_FLIPS` says.
fn flips() -> u32 {
    let flips = knob("VOXLINE_FLIPS").unwrap_or(1);
    assert!((1..=8).contains(&flips), "VOXLINE_FLIPS is {flips}");
    flips
}

#[test]
fn a_flipped_bit_costs_its_own_record_and_no_other_audio() {
    const TEST: &str = "spool::damage::a_flipped_bit_costs_its_own_record_and_no_other_audio";
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
    const TEST: &str = "spool::damage::a_smashed_stretch_costs_the_records_it_touches_and_no_other_audio";
    let mut random = Random::for_test(TEST);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    for _ in 0..20 {
        let ops = random_session(&mut random);
        let (bytes, lengths) = recorded(&directory.path().join("whole"), &ops);
        // The end record holds the amount of audio, so it stays undamaged.
        let end = ops.iter().position(|op| matches!(op, Op::Feed(Feed::End))).unwrap();
        for _ in 0..20 {
            let start = lengths[0] + random.below(lengths[end] - lengths[0]);
            let touched = start..(start + 1 + random.below(300)).min(lengths[end]);
            let mut damaged = bytes.clone();
            let zeros = random.below(2) == 0;
            // Every byte changes, so that each touched record is damaged.
            touched.clone().for_each(|at| {
                let byte = if zeros { 0 } else { random.below(256) as u8 };
                damaged[at] = if byte == damaged[at] { !byte } else { byte };
            });
            check_damage(&path, &ops, &lengths, &damaged, touched);
        }
    }
}

/// A session that continues from a damaged spool reports the missing frames as a gap, to the service and
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
    let feeding = async move {
        while let Some(feed) = reader.next().await.unwrap() {
            let _ = sender.send(feed).await;
        }
    };
    let (events, mut heard) = mpsc::channel(64);
    let mut settings = Settings::new(16_000).with_seed(0);
    settings.timeouts.give_up = Duration::from_secs(30);
    let run = Session::new(&connector, &tokens, settings)
        .resume(recovered.checkpoint)
        .journal(&mut log)
        .run(audio, events);
    let running =
        within(Duration::from_secs(3_600), "the end of the session", async { tokio::join!(run, feeding) });
    let ended = tokio::select! {
        (ended, ()) = running => ended,
        () = peer.serve_all(acceptor) => unreachable!("the connector lives"),
    };
    let ledger = ended.into_result().unwrap();
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
