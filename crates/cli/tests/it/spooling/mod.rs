//! `voxline transcribe --spool`: the program is killed or the service goes away, and the same command
//! resumes.

mod desk;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use voxline_gateway::Options;
use voxline_testing::DigestRecognizer;

use self::desk::{Desk, Running, SEGMENT, digests, expected, finishes, json, lines, whole_ledger, write_wav};
use crate::cli::{assert_fails, signal, text};
use crate::support::model_hub::{Fault, ModelHub};
use voxline_fixtures::gateway::process::{GatewayProcess, kills};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::noise;
use voxline_fixtures::random::Random;

async fn server() -> Server {
    Server::start(Arc::new(DigestRecognizer::new(SEGMENT))).await
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
async fn a_killed_program_loses_nothing_and_tells_all_when_it_is_run_again() {
    let mut random =
        Random::for_test("spooling::a_killed_program_loses_nothing_and_tells_all_when_it_is_run_again");
    let (began, kills) = (Instant::now(), kills());
    let server = server().await;
    let desk = Desk::new(server.address, &server.credentials);
    // At the pace of the runs below, a kill takes about three seconds of the audio, so most of it is left
    // at the last kill.
    let pcm = noise((60 + 5 * kills) * 16_000);
    write_wav(&desk.place.path("call.wav"), &[&pcm]);

    let undisturbed = desk.run(&["call.wav"]);
    assert_eq!(undisturbed.status.code(), Some(0), "{}", text(&undisturbed.stderr));
    whole_ledger(text(&undisturbed.stderr), pcm.len());
    let undisturbed = lines(&undisturbed.stdout);
    assert_eq!(digests(&undisturbed), expected(&pcm));

    let spooled = ["call.wav", "--spool", "spool"];
    let (mut known, mut early) = (0, 0);
    for _ in 0..kills {
        let mut running = Running::start(desk.command(&spooled).args(["--pace", "20"]));
        // Most kills hit a program that streams, after a final that no earlier run reported. The others
        // hit it anywhere.
        match random.below(4) {
            0 => early += 1,
            _ => running.wait_for(known + 1),
        }
        // The kill is the fault, and any time for it will do.
        tokio::time::sleep(Duration::from_millis(random.below(120) as u64)).await;
        let told = running.kill();
        assert_eq!(told, undisturbed[..told.len()]);
        known = known.max(told.len());
    }
    assert!(known < undisturbed.len(), "the last kills came too late to hit anything");
    let told = known;

    let finished = desk.run(&spooled);
    assert_eq!(finished.status.code(), Some(0), "{}", text(&finished.stderr));
    let ledger = whole_ledger(text(&finished.stderr), pcm.len());
    assert_eq!(lines(&finished.stdout), undisturbed);
    assert_eq!(desk.spools(), [] as [&Path; 0]);
    println!(
        "{kills} kills ({early} of them early) in {:.0} s, by final {told} of {}; {ledger}",
        began.elapsed().as_secs_f64(),
        undisturbed.len()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the figures that it prints")]
async fn a_program_killed_while_it_opens_or_finishes_a_session_loses_nothing() {
    let mut random =
        Random::for_test("spooling::a_program_killed_while_it_opens_or_finishes_a_session_loses_nothing");
    // If the program is killed before it records the session's name, the session stays with the gateway
    // for a minute.
    let options = Options { max_sessions: 10_000, ..Options::default() };
    let setup = Setup { options, ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(SEGMENT)), setup).await;
    let desk = Desk::new(server.address, &server.credentials);
    let pcm = &noise(4 * 16_000)[..50_001];
    write_wav(&desk.place.path("call.wav"), &[pcm]);
    let undisturbed = desk.run(&["call.wav"]);
    assert_eq!(digests(&lines(&undisturbed.stdout)), expected(pcm));

    let spooled = ["call.wav", "--spool", "spool"];
    let (kills, mut whole) = (5 * kills(), 0);
    for _ in 0..kills {
        let mut running = Running::start(&mut desk.command(&spooled));
        // The kills range from before the program has read its arguments to after its end.
        tokio::time::sleep(Duration::from_micros(random.below(25_000) as u64)).await;
        running.child.kill().unwrap();
        let (told, complaint, code) = running.end();
        whole += usize::from(code.is_some());
        assert!(matches!(code, None | Some(0)), "{complaint}");
        assert_eq!(told.concat(), text(&undisturbed.stdout)[..told.concat().len()]);
    }
    let finished = desk.run(&spooled);
    assert_eq!(finished.status.code(), Some(0), "{}", text(&finished.stderr));
    whole_ledger(text(&finished.stderr), pcm.len());
    assert_eq!(text(&finished.stdout), text(&undisturbed.stdout));
    assert_eq!(desk.spools(), [] as [&Path; 0]);
    println!("{kills} kills, {whole} of them too late");
    assert!(whole < kills, "no kill hit");
    server.stop().await;
}

/// Writes samples to the program's standard input, and keeps it open.
fn feed(child: &mut Child, pcm: &[i16]) {
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    child.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_source_goes_on_where_the_killed_program_had_put_it_down() {
    /// Number of frames that the front end may hold before they form a chunk: the decoder's block and the
    /// chunk itself.
    const IN_HAND: usize = 48_000;
    const KILLS: usize = 5;
    let server = server().await;
    let desk = Desk::new(server.address, &server.credentials);
    let spooled = ["-", "--raw", "s16le:16000", "--spool", "spool"];
    let pcm = noise(70 * 16_000);
    let part = pcm.len() / (KILLS + 1);

    let (mut kept, mut printed): (Vec<i16>, Vec<String>) = (Vec::new(), Vec::new());
    for fed in pcm.chunks(part).take(KILLS) {
        let mut running = Running::start(desk.command(&spooled).stdin(Stdio::piped()));
        feed(&mut running.child, fed);
        // Wait until all audio has arrived, except for the frames in hand. The rest is in memory only,
        // and is lost.
        running.wait_for((kept.len() + fed.len() - IN_HAND) / SEGMENT);
        let told = running.kill();
        assert_eq!(told[..printed.len()], printed, "what was told is told again");
        // Only the length of the file states how much audio was recorded, so it is read here.
        let audio_bytes = spooled_frames(&desk.spools()[0]);
        let taken = audio_bytes - kept.len();
        assert!((fed.len() - IN_HAND..=fed.len()).contains(&taken), "{taken} of {}", fed.len());
        kept.extend(&fed[..taken]);
        printed = told;
    }
    let rest = &pcm[KILLS * part..];
    let mut running = Running::start(desk.command(&spooled).stdin(Stdio::piped()));
    feed(&mut running.child, rest);
    drop(running.child.stdin.take());
    let (told, complaint, code) = running.end();
    assert_eq!(code, Some(0), "{complaint}");
    kept.extend(rest);
    whole_ledger(&complaint, kept.len());
    assert_eq!(digests(&told), expected(&kept));
    assert_eq!(desk.spools(), [] as [&Path; 0]);
    server.stop().await;
}

/// Returns the number of frames of audio in a spool. Only the form of the records is known here: the
/// length of the body, its kind (2 for audio) and a checksum. The body of an audio record has 9 bytes
/// before its PCM.
fn spooled_frames(path: &Path) -> usize {
    let (bytes, mut at, mut frames) = (fs::read(path).unwrap(), 0, 0);
    while let Some(header) = bytes.get(at..at + 9) {
        let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
        at += 9 + length;
        // The last record may be torn.
        if header[4] == 2 && at <= bytes.len() {
            frames += (length - 9) / 2;
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_live_source_left_is_finished_without_it() {
    let server = server().await;
    let desk = Desk::new(server.address, &server.credentials);
    let spooled = ["-", "--raw", "s16le:16000", "--spool", "spool"];
    let mut running = Running::start(desk.command(&spooled).stdin(Stdio::piped()));
    let pcm = noise(20 * 16_000);
    feed(&mut running.child, &pcm);
    running.wait_for(10);
    let told = running.kill();
    let kept = spooled_frames(&desk.spools()[0]);
    // Standard input is empty, so no audio follows.
    finishes(&desk, &spooled, &told, &pcm[..kept]);

    write_wav(&desk.place.path("call.wav"), &[&pcm]);
    let mut redirected = desk.command(&["-", "--spool", "spool"]);
    redirected.stdin(fs::File::open(desk.place.path("call.wav")).unwrap());
    assert_fails(&redirected.output().unwrap(), 2, &["standard input is a file", "--spool"]);
    server.stop().await;
}

#[test]
fn a_service_that_goes_away_for_good_leaves_a_spool_that_is_finished_when_it_is_back() {
    let mut gateway = GatewayProcess::start();
    let desk = Desk::new(gateway.address, &gateway.credentials);
    let pcm = noise(60 * 16_000);
    write_wav(&desk.place.path("call.wav"), &[&pcm]);
    let spooled = ["call.wav", "--spool", "spool", "--patience", "1"];
    let mut running = Running::start(desk.command(&spooled).args(["--pace", "20"]));
    running.wait_for(3);
    gateway.kill();
    let (told, complaint, code) = running.end();
    assert_eq!(code, Some(5), "{complaint}");
    let [spool] = &desk.spools()[..] else { panic!("{:?}", desk.spools()) };
    // A failed session has a ledger, too.
    let [ledger, refusal] = complaint.lines().collect::<Vec<_>>()[..] else { panic!("{complaint}") };
    let ledger = json(ledger);
    let sum = |parts: [&str; 3]| parts.iter().map(|part| ledger[part].as_u64().unwrap()).sum::<u64>();
    assert_eq!(ledger["accepted"].as_u64().unwrap(), sum(["recognised", "gaps", "unfinished"]), "{ledger}");
    assert_eq!(ledger["finals"], told.len(), "{ledger}");
    assert!(ledger["unfinished"].as_u64() > Some(0), "{ledger}");
    let kept =
        format!("the rest is in spool/{}: run the same command again", spool.file_name().unwrap().display());
    assert!(refusal.contains(&desk.address) && refusal.contains(&kept), "{refusal}");
    // The service is still away. Another attempt loses nothing.
    assert_eq!(desk.run(&spooled).status.code(), Some(5));

    gateway.restart();
    finishes(&desk, &spooled, &told, &pcm);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_is_one_recordings_and_one_processs() {
    let server = server().await;
    let desk = Desk::new(server.address, &server.credentials);
    write_wav(&desk.place.path("call.wav"), &[&noise(30 * 16_000)]);
    let spooled = ["call.wav", "--spool", "spool"];
    let mut running = Running::start(desk.command(&spooled).args(["--pace", "20"]));
    running.wait_for(2);
    assert_fails(&desk.run(&spooled), 2, &["spool/call-", "in use"]);
    running.kill();
    let [spool] = &desk.spools()[..] else { panic!("{:?}", desk.spools()) };
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&desk.place.path("spool")), mode(spool)), (0o700, 0o600));
    let before = fs::read(spool).unwrap();

    assert_fails(&desk.run(&[&spooled[..], &["--language", "ru"]].concat()), 2, &["language ru", "detected"]);
    assert_fails(
        &desk.run(&[&spooled[..], &["--channels", "1"]].concat()),
        2,
        &["channels 1", "channels mix"],
    );
    // The name is the same, but the contents have changed.
    write_wav(&desk.place.path("call.wav"), &[&noise(31 * 16_000)]);
    assert_fails(&desk.run(&spooled), 2, &["spool/call-", "960044 bytes", "992044 bytes", "delete it"]);
    assert_eq!(fs::read(spool).unwrap(), before);
    let refused = desk.run(&[&spooled[..], &["--on-full", "drop-oldest"]].concat());
    assert_fails(&refused, 2, &["--on-full", "--spool"]);
    for (flags, part) in [
        (["--buffer", "29"], "from 30 to 3600"),
        (["--spool-sync", "sometimes"], "--spool-sync"),
        (["--patience", "0"], "from 1 to 86400"),
    ] {
        let misused = desk.run(&[&spooled[..], &flags].concat());
        assert_eq!(misused.status.code(), Some(2));
        assert!(text(&misused.stderr).contains(part), "{}", text(&misused.stderr));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_has_a_spool_and_each_recording_its_own() {
    let server = server().await;
    let desk = Desk::new(server.address, &server.credentials);
    let (left, right) = (noise(40 * 16_000), noise(40 * 16_000).into_iter().rev().collect::<Vec<_>>());
    write_wav(&desk.place.path("call.wav"), &[&left, &right]);
    write_wav(&desk.place.path("other.wav"), &[&right, &left]);
    let both = ["call.wav", "other.wav", "--channels", "split"];
    let undisturbed = desk.run(&both);
    assert_eq!(undisturbed.status.code(), Some(0), "{}", text(&undisturbed.stderr));

    let spooled = [&both[..], &["--spool", "spool", "--spool-sync", "always"]].concat();
    let mut running = Running::start(desk.command(&spooled).args(["--pace", "40"]));
    // In the middle of the second recording.
    running.wait_for(200);
    assert_eq!(desk.spools().len(), 2, "{:?}", desk.spools());
    running.kill();
    let finished = desk.run(&spooled);
    assert_eq!(finished.status.code(), Some(0), "{}", text(&finished.stderr));
    assert_eq!(text(&finished.stdout), text(&undisturbed.stdout));
    assert_eq!(desk.spools(), [] as [&Path; 0]);
    let ledgers: Vec<Value> = text(&finished.stderr).lines().map(json).collect();
    let names = ledgers.iter().map(|ledger| (&ledger["recording"], &ledger["speaker"]));
    let expected =
        [("call.wav", "agent"), ("call.wav", "customer"), ("other.wav", "agent"), ("other.wav", "customer")];
    let expected = expected.map(|(recording, speaker)| (Value::from(recording), Value::from(speaker)));
    assert!(names.eq(expected.iter().map(|(recording, speaker)| (recording, speaker))), "{ledgers:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_interruption_ends_the_recording_and_a_termination_leaves_it_to_be_gone_on_with() {
    let server = server().await;
    let desk = Desk::new(server.address, &server.credentials);
    let pcm = noise(60 * 16_000);
    write_wav(&desk.place.path("call.wav"), &[&pcm]);
    let spooled = ["call.wav", "--spool", "spool"];
    let mut running = Running::start(desk.command(&spooled).args(["--pace", "20"]));
    running.wait_for(3);
    signal(&running.child, "INT");
    let (told, complaint, code) = running.end();
    assert_eq!(code, Some(130), "{complaint}");
    let ledger = json(complaint.lines().next().unwrap());
    let heard = ledger["accepted"].as_u64().unwrap() as usize;
    whole_ledger(&complaint, heard);
    assert!(heard < pcm.len(), "{ledger}");
    assert_eq!(digests(&told), expected(&pcm[..heard]));
    assert_eq!(desk.spools(), [] as [&Path; 0]);

    let mut running = Running::start(desk.command(&spooled).args(["--pace", "20"]));
    running.wait_for(3);
    signal(&running.child, "TERM");
    let (told, complaint, code) = running.end();
    assert_eq!(code, Some(143), "{complaint}");
    assert!(complaint.contains("run the same command again to continue"), "{complaint}");
    assert_eq!(desk.spools().len(), 1);
    finishes(&desk, &spooled, &told, &pcm);
    server.stop().await;
}

/// Returns whether the process has the file open.
fn has_open(child: &Child, file: &Path) -> bool {
    let file = fs::canonicalize(file).unwrap();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    // A descriptor may be closed while the directory is read.
    descriptors.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|open| open == file))
}

#[test]
fn what_a_second_interruption_leaves_is_finished_by_the_same_command() {
    let mut gateway = GatewayProcess::start();
    let desk = Desk::new(gateway.address, &gateway.credentials);
    // Longer than the buffer and the spool take while the service is away.
    let pcm = noise(120 * 16_000);
    write_wav(&desk.place.path("call.wav"), &[&pcm]);
    let spooled = ["call.wav", "--spool", "spool"];
    let mut running = Running::start(desk.command(&spooled).args(["--pace", "20"]));
    running.wait_for(3);
    // Without the service, the text can't be finished after the first interruption.
    gateway.kill();
    let recording = desk.place.path("call.wav");
    assert!(has_open(&running.child, &recording));
    signal(&running.child, "INT");
    while has_open(&running.child, &recording) {
        assert!(running.child.try_wait().unwrap().is_none(), "it ended at the first interruption");
        thread::yield_now();
    }
    signal(&running.child, "INT");
    let (told, complaint, code) = running.end();
    assert_eq!(code, Some(130), "{complaint}");
    assert!(complaint.contains("run the same command again to continue"), "{complaint}");

    gateway.restart();
    finishes(&desk, &spooled, &told, &pcm);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_in_a_line_and_loses_nothing() {
    let server = server().await;
    let desk = Desk::new(server.address, &server.credentials);
    let pcm = noise(60 * 16_000);
    write_wav(&desk.place.path("call.wav"), &[&pcm]);
    let spooled = ["call.wav", "--spool", "spool"];
    let command = desk.command(&spooled);
    // No file may grow beyond 512,000 bytes, and the program gets an error instead of a signal. For the
    // program, this is a full disk.
    let limited = desk.place.command(&[]);
    let mut limited_shell = Command::new("sh");
    limited_shell.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$@\"", "sh"]);
    limited_shell.arg(limited.get_program()).args(command.get_args());
    limited.get_envs().for_each(|(name, value)| {
        match value {
            Some(value) => limited_shell.env(name, value),
            None => limited_shell.env_remove(name),
        };
    });
    let _ = limited.get_current_dir().map(|directory| limited_shell.current_dir(directory));
    let stopped = limited_shell.stdin(Stdio::null()).output().unwrap();
    let complaint = text(&stopped.stderr);
    assert_eq!(stopped.status.code(), Some(7), "{complaint}");
    let [ledger, complaint] = complaint.lines().collect::<Vec<_>>()[..] else { panic!("{complaint}") };
    assert!(json(ledger)["accepted"].as_u64() < Some(pcm.len() as u64), "{ledger}");
    assert!(complaint.contains("spool/call-") && complaint.contains("File too large"), "{complaint}");

    finishes(&desk, &spooled, &lines(&stopped.stdout), &pcm);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_broke_goes_on_and_a_damaged_file_is_done_with() {
    let server = server().await;
    let desk = Desk::new(server.address, &server.credentials);
    let pcm = noise(20 * 16_000);
    write_wav(&desk.place.path("call.wav"), &[&pcm]);
    let bytes = fs::read(desk.place.path("call.wav")).unwrap();
    let hub = ModelHub::start(&[("/call.wav", &bytes)]);
    hub.fault(Fault::CutAfter(300_000));
    let url = format!("{}/call.wav", hub.address);
    let spooled = [url.as_str(), "--spool", "spool"];
    let cut = desk.run(&spooled);
    let complaint = text(&cut.stderr);
    assert_eq!(cut.status.code(), Some(3), "{complaint}");
    assert!(complaint.contains("run the same command again to try the rest"), "{complaint}");
    let came = json(complaint.lines().next().unwrap())["accepted"].as_u64().unwrap() as usize;
    whole_ledger(complaint, came);
    assert_eq!(desk.spools().len(), 1);
    let finished = desk.run(&spooled);
    assert_eq!(finished.status.code(), Some(0), "{}", text(&finished.stderr));
    whole_ledger(text(&finished.stderr), pcm.len());
    // The audio that had arrived was recognised as if it were complete.
    let heard = [expected(&pcm[..came]), expected(&pcm[came..])].concat();
    assert_eq!(digests(&lines(&finished.stdout)), heard);
    assert_eq!(desk.spools(), [] as [&Path; 0]);

    // A file would be cut short in the next run, too.
    desk.place.file("cut.wav", &bytes[..300_000]);
    let cut = desk.run(&["cut.wav", "--spool", "spool"]);
    assert_eq!(cut.status.code(), Some(3), "{}", text(&cut.stderr));
    assert_eq!(digests(&lines(&cut.stdout)), expected(&pcm[..(300_000 - 44) / 2]));
    assert_eq!(desk.spools(), [] as [&Path; 0]);
    server.stop().await;
}

#[test]
fn a_live_source_that_must_not_wait_has_gaps_where_the_service_was_away() {
    let mut gateway = GatewayProcess::start();
    let desk = Desk::new(gateway.address, &gateway.credentials);
    let live = ["-", "--raw", "s16le:16000", "--on-full", "drop-oldest", "--buffer", "30"];
    let mut running = Running::start(desk.command(&live).stdin(Stdio::piped()));
    let pcm = noise(120 * 16_000);
    let (before, meanwhile) = pcm.split_at(20 * 16_000);
    feed(&mut running.child, before);
    running.wait_for(20);
    gateway.kill();
    // A source that blocks would stop after 40 s of these 100 s: when the buffer, the pipe and the front
    // end are full.
    feed(&mut running.child, meanwhile);
    gateway.restart();
    drop(running.child.stdin.take());
    let (told, complaint, code) = running.end();
    assert_eq!(code, Some(0), "{complaint}");
    let ledger = json(complaint.lines().next().unwrap());
    let count = |name: &str| ledger[name].as_u64().unwrap();
    assert_eq!(count("accepted"), count("recognised") + count("gaps"), "{ledger}");
    assert_eq!((count("accepted"), count("unfinished")), (pcm.len() as u64, 0), "{ledger}");
    // The gaps are at least the audio that neither the buffer nor the finals cover, and at most the audio
    // that was dropped to keep to the buffer's size.
    assert!((50 * 16_000..90 * 16_000).contains(&count("gaps")), "{ledger}");
    let gaps: Vec<Value> =
        told.iter().map(|line| json(line)).filter(|line| line.get("text").is_none()).collect();
    let lost: u64 = gaps
        .iter()
        .map(|gap| gap["end_frame"].as_u64().unwrap() - gap["start_frame"].as_u64().unwrap())
        .sum();
    assert_eq!(lost, count("gaps"), "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_a_sentence_unless_machines_ask() {
    let server = server().await;
    let desk = Desk::new(server.address, &server.credentials);
    write_wav(&desk.place.path("call.wav"), &[&noise(2 * 16_000)]);
    let at = ["--endpoint", &desk.address, "--client-id", &desk.client_id, "--client-secret-file", "secret"];
    let done = desk
        .place
        .run(&[&["transcribe", "call.wav", "--ledger", "--on-full", "drop-oldest"], &at[..]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let ledger = text(&done.stderr);
    assert_eq!(ledger.lines().count(), 1, "{ledger}");
    let sum = "call.wav: 32000 frames accepted = 32000 final + 0 in gaps + 0 unfinished; 4 finals";
    assert!(ledger.starts_with(sum), "{ledger}");
    server.stop().await;
}
