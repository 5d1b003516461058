//! The gateway under the system call filter of the sample unit: it confines the programs that speak.
//! Under a filter that refuses the necessary calls, the gateway still speaks, and warns once.
//!
//! The filter is installed here as systemd does it (systemd.exec(5), `SystemCallFilter=`), on a thread
//! whose children inherit it. The sets of calls are systemd's own. The unit's other directives are not in
//! force.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::cli::{Place, text};
use crate::support::serving::Serving;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/voxline.service");
/// Warning in the log if a program runs less confined than it should.
const WARNING: &str = "programs that speak run less confined than they should";

/// Returns the numbers of system calls by name, from the headers of the C library.
fn numbers() -> HashMap<String, i64> {
    let mut cc = Command::new("cc")
        .args(["-E", "-dM", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a C compiler, which the build needs, too");
    cc.stdin.take().unwrap().write_all(b"#include <sys/syscall.h>\n").unwrap();
    let macros = cc.wait_with_output().unwrap();
    let number = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    text(&macros.stdout).lines().filter_map(number).collect()
}

/// Returns the calls that `word` of a `SystemCallFilter=` stands for: the word itself, or the calls of a
/// set.
fn calls(word: &str) -> Vec<String> {
    if !word.starts_with('@') {
        return vec![word.to_owned()];
    }
    let listed =
        Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", word]).output().unwrap();
    assert!(listed.status.success(), "{word}: {}", text(&listed.stderr));
    let words = text(&listed.stdout).lines().skip(1).map(str::trim);
    words.filter(|word| !word.is_empty() && !word.starts_with('#')).flat_map(calls).collect()
}

/// Builds the filter of these directives. The first directive lists the allowed calls.
fn filter(directives: &[&str]) -> BpfProgram {
    let mut allowed = BTreeMap::new();
    let numbers = numbers();
    for directive in directives {
        let (is_taken_out, words) = match directive.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, *directive),
        };
        for call in words.split_whitespace().flat_map(calls) {
            // Some calls exist only on other architectures.
            let Some(number) = numbers.get(&call) else { continue };
            if is_taken_out {
                allowed.remove(number);
            } else {
                allowed.insert(*number, Vec::new());
            }
        }
    }
    let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let machine = std::env::consts::ARCH.try_into().unwrap();
    SeccompFilter::new(allowed, eperm, SeccompAction::Allow, machine).unwrap().try_into().unwrap()
}

/// Runs a gateway under this filter, has it speak two texts, and returns the warnings in its log.
fn warnings(directives: &[&str]) -> Vec<String> {
    let place = Place::new();
    let state = ["--state", "state"];
    let done = place.run(&[&["gateway", "project", "create", "calls"], &state[..]].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let minted = place.run(&[&["gateway", "service-token", "create", "calls"], &state[..]].concat());
    place.secret("token", text(&minted.stdout).trim());

    // With `--max-sessions` the gateway measures nothing before it listens.
    let quick = ["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--max-sessions", "1"];
    let serve = place.command(&[&quick[..], &state].concat());
    let filter = filter(directives);
    let starting = thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        Serving::start(serve)
    });
    let serving = starting.join().unwrap();
    let client = ["--endpoint", &serving.endpoint, "--token-file", "token", "--voice", "espeak-en"];
    for name in ["one.wav", "two.wav"] {
        let spoken = place.run(&[&["speak", "Hello.", "-o", name], &client[..]].concat());
        assert!(spoken.status.success(), "{}", text(&spoken.stderr));
        assert!(fs::metadata(place.path(name)).unwrap().len() > 10_000, "{name} is silent");
    }
    let (status, log) = serving.stop();
    assert_eq!(status.code(), Some(0), "{log:?}");
    log
}

#[test]
#[expect(clippy::print_stderr, reason = "a proof that is left out is not left out in silence")]
fn the_sample_unit_allows_confinement_and_a_unit_that_refuses_it_is_warned_of_once() {
    if let Err(error) = Command::new("systemd-analyze").arg("--version").output() {
        eprintln!("not tried: systemd-analyze: {error}");
        return;
    }
    let unit = fs::read_to_string(UNIT).unwrap();
    assert!(unit.contains("\nSystemCallErrorNumber=EPERM\n"), "what is not allowed kills the gateway");
    let directives: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).collect();
    assert_eq!(warnings(&directives), [""; 0]);

    // The filter of a unit that was written for an earlier version.
    let earlier: Vec<&str> =
        directives.into_iter().filter(|directive| !directive.contains("landlock")).collect();
    let [warning] = &warnings(&earlier)[..] else { panic!("it is told once") };
    assert!(warning.contains(WARNING), "{warning}");
    for part in ["writes: ", "system calls: "] {
        assert!(warning.contains(part), "{warning}");
    }
    assert!(!warning.contains("limits: "), "prlimit is allowed: {warning}");
}
