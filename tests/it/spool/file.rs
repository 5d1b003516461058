//! Ownership of a spool, its lock, and its continuation from one process to the next.

use super::*;
use voxline::error::chain;

/// A service that runs under its own user trusts no directory that another user can change.
#[test]
fn a_directory_that_others_can_change_is_refused() {
    let directory = TempDir::new().unwrap();
    let open_to_all = directory.path().join("open");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
    let theirs = directory.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    // If the tests do not run as root, use the root directory, which belongs to another user.
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
#[expect(clippy::print_stderr, reason = "a proof that is left out is not left out in silence")]
fn a_file_of_another_user_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("spool");
    drop(open(&path, 0));
    if let Err(error) = chown(&path, Some(1), None) {
        eprintln!("not tried: only root can give a file to another user: {error}");
        return;
    }
    let bytes = fs::read(&path).unwrap();
    let refused = refused(&path, &head());
    assert!(matches!(refused, SpoolError::NotOurs { .. }), "{refused}");
    assert!(refused.to_string().ends_with("remove it, or name another directory"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn what_a_first_process_left_a_second_continues() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private/spools/call");
    let Opened { mut writer, mut reader, mut log, recovered, spool } = open(&path, 100);
    assert_eq!((recovered.accepted, recovered.ended, recovered.done), (FramePos::ZERO, false, false));
    assert!(recovered.checkpoint.server.is_none() && recovered.events.is_empty());
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
    log.record_server(&server).unwrap();
    log.record_event(&segment(0, 0, 30)).unwrap();
    let written = [Feed::Audio(chunk(0, 40)), Feed::Audio(chunk(40, 80).marked(true)), Feed::Flush];
    assert_eq!(read(&mut reader), written);
    drop((spool, writer, reader, log));

    // A straddling chunk is cut, and a flush that is in the spool already is not repeated.
    let Opened { mut writer, mut reader, mut log, recovered, spool } = open(&path, 100);
    assert_eq!(recovered.checkpoint.replay, [chunk(30, 40), chunk(40, 80).marked(true)]);
    assert_eq!(told_of(&recovered.checkpoint.server.unwrap()), told_of(&server));
    writer.append(&chunk(0, 80)).unwrap();
    writer.flush().unwrap();
    writer.append(&chunk(70, 100)).unwrap();
    let hole = writer.append(&chunk(101, 102)).unwrap_err().to_string();
    assert!(hole.ends_with("audio at frame 101, expected frame 100"), "{hole}");
    assert_eq!(read(&mut reader), [Feed::Flush, Feed::Audio(chunk(80, 100))]);
    // The session ended because its source broke off, which is not the end of the audio.
    log.record_event(&segment(1, 30, 100)).unwrap();
    log.record_event(&end(100, 2)).unwrap();
    drop((spool, writer, reader, log));

    let Opened { mut writer, mut reader, mut log, recovered, spool } = open(&path, 100);
    assert_eq!((recovered.ended, recovered.done), (false, false));
    writer.end().unwrap();
    writer.end().unwrap();
    let late = writer.append(&chunk(100, 101)).unwrap_err().to_string();
    assert!(late.ends_with("audio at frame 100, but audio ended at frame 100"), "{late}");
    assert_eq!(read(&mut reader), [Feed::End]);
    log.record_event(&end(100, 2)).unwrap();
    drop((spool, writer, reader, log));

    let Opened { recovered, spool, .. } = open(&path, 100);
    assert_eq!((recovered.ended, recovered.done), (true, true));
    assert_eq!(recovered.events, [segment(0, 0, 30), segment(1, 30, 100)]);
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
            // Write only after the reader has found nothing.
            gone_on.recv().await.unwrap();
            let (index, start) = (index as u64, index as u64 * 16);
            // An entry in the log must not end the reader's wait.
            if index > 0 {
                log.record_event(&segment(index - 1, start - 16, start)).unwrap();
            }
            tokio::task::yield_now().await;
            writer.push(feed).unwrap();
        }
        drop(writer);
    };
    let reading = async {
        let mut read = Vec::new();
        loop {
            // A cancelled wait loses nothing.
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
    let mut refused = |event| opened.log.record_event(&event).unwrap_err().to_string();
    assert!(refused(segment(1, 0, 5)).ends_with("final 1, expected 0"));
    assert!(refused(segment(0, 1, 5)).ends_with("a final of frames 1..5, expected from 0 and up to 10"));
    assert!(refused(segment(0, 0, 11)).ends_with("a final of frames 0..11, expected from 0 and up to 10"));
    opened.log.record_event(&segment(0, 0, 10)).unwrap();
}

#[test]
fn one_process_has_it_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let Opened { spool, writer, reader, log, .. } = open(&path, 0);
    drop((spool, writer, reader));
    // Only the session's log still holds the spool.
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

/// A process that is being started holds this process's open files, including their locks, until it runs
/// its own program.
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
    opened.log.record_server(&server).unwrap();
    let error = opened.log.record_event(&segment(7, 0, 0)).unwrap_err();
    assert!(!format!("{opened:?} {error:?} {}", chain(&error)).contains(KEY));
    opened.log.record_event(&segment_in_context(0, 0, 0)).unwrap();
    drop(opened);
    assert!(String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(KEY));
    let opened = open(&path, 0);
    assert_eq!(opened.recovered.checkpoint.server.as_ref().unwrap().resume_key.expose(), KEY);
    assert_eq!(opened.recovered.checkpoint.context.as_deref(), Some("context 0"));
    assert!(!format!("{opened:?}").contains(KEY));
    drop(opened);
    // Another service sees neither the session nor the context of a recogniser that is not its own.
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
    // No audio is final yet: the worst case.
    let Opened { mut reader, mut log, recovered, spool, writer } = open(&path, 10 * FRAMES);
    let Some(Ok(Some(Feed::Audio(first)))) = reader.next().now_or_never() else { panic!("audio is there") };
    assert_eq!((recovered.checkpoint.replay.len(), first.range().start), (10, FramePos(10 * FRAMES)));
    assert!(METER.peak() < 3_000_000, "{} bytes", METER.peak());
    // All audio is final except the last second.
    log.record_event(&segment(0, 0, (CHUNKS - 10) * FRAMES)).unwrap();
    drop((spool, writer, reader, log, recovered, first));
    let opened = open(&path, u64::MAX);
    assert_eq!(opened.recovered.checkpoint.replay.len(), 10);
    assert!(METER.peak() < 3_000_000, "{} bytes", METER.peak());
}

/// A file that was opened while its last owner removed it is not a spool: nobody would find what is written
/// to it.
#[test]
fn those_who_take_turns_at_a_path_never_write_to_a_removed_file() {
    const TURNS: usize = 300;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("spool");
    let take_turns = |name: u64| {
        let (mut turns, mut refusals) = (0, 0);
        while turns < TURNS {
            let Opened { mut writer, spool, .. } = match Spool::open(&path, &head(), 0, Fsync::Never) {
                Ok(opened) => opened,
                Err(SpoolError::InUse { .. }) => {
                    refusals += 1;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            turns += 1;
            let mine = chunk(0, name * TURNS as u64 + turns as u64);
            writer.append(&mine).unwrap();
            let there = fs::read(&path).unwrap();
            assert!(there.ends_with(mine.payload()), "turn {turns} of {name} wrote to another file");
            spool.remove().unwrap();
        }
        refusals
    };
    let take_turns = &take_turns;
    let refusals: usize = thread::scope(|scope| {
        let takers: Vec<_> = (1..=3).map(|name| scope.spawn(move || take_turns(name))).collect();
        takers.into_iter().map(|taker| taker.join().expect("its assertions hold")).sum()
    });
    assert!(refusals > 0, "they met");
}

#[test]
fn a_recovered_ledger_accounts_for_earlier_processes() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("spool");
    let Opened { mut writer, mut log, spool, .. } = open(&path, 0);
    writer.append(&chunk(0, 100)).unwrap();
    log.record_event(&segment(0, 0, 30)).unwrap();
    log.record_event(&TranscriptEvent::Gap { range: FramePos(30).to(FramePos(42)) }).unwrap();
    log.record_event(&segment(1, 42, 60)).unwrap();
    drop((writer, log, spool));
    let ledger = open(&path, 0).recovered.ledger();
    assert_eq!((ledger.accepted, ledger.recognised, ledger.gaps, ledger.finals), (100, 48, 12, 2));
}
