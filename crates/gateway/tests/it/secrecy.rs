//! No secret appears in the log of tests that handle secrets, at its loudest.

use voxline_fixtures::gateway::log::{ALL, ALL_BUT_FRAMES, FRAMES};
use voxline_fixtures::gateway::secrets::{CANARY, overhear, secrets};

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what the test is for")]
fn the_loudest_log_has_no_secret() {
    // All tests that handle secrets, except those of the recognisers.
    let tests = ["session::", "tokens::", "gateway::", "stream::", "console::handshake", "attempts::"];
    // Tests of a recogniser are left out, and tests that depend on timing, because logging takes time.
    let without = [
        "of_a_real_recording",
        "a_language_nobody_knows",
        "tokens_are_replaced",
        "ten_thousand",
        "take_the_same_time",
        "secrecy::",
    ];
    let without = without.iter().flat_map(|test| ["--skip", test]);
    let arguments: Vec<&str> = tests.into_iter().chain(without).collect();
    let topics = ["tokio_tungstenite", "hyper_util::", "voxline_gateway", "voxline::session"];
    let overheard = overhear(ALL_BUT_FRAMES, &arguments, &topics);
    println!("{} lines, {} leaks", overheard.lines, overheard.leaks.len());
    assert_eq!(overheard.heard, [true; 4], "{topics:?}: the log is not what it should be");
    assert_eq!(overheard.leaks, [""; 0]);
}

/// The reason for the warning in the documentation of `voxline::transport`. This test fails once
/// tungstenite no longer logs the contents of frames; the warning can then be removed.
#[test]
fn what_tungstenite_logs_of_frames_has_secrets() {
    let overheard = overhear(ALL, &["session::an_empty_session_ends_well"], &[FRAMES]);
    assert_eq!(overheard.heard, [true]);
    assert!(overheard.leaks.iter().any(|line| line.contains("vxk_")), "{} lines", overheard.lines);
}

#[test]
fn a_secret_is_found_in_any_guise() {
    let minted = format!("vxa_{}", "abc234".repeat(9));
    for secret in [CANARY, &minted] {
        assert!(!secrets(format!("x{secret}x").as_bytes()).is_empty());
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!secrets(format!("payload: 0x{hex}").as_bytes()).is_empty(), "{hex}");
        assert!(!secrets(format!("{:?}", secret.as_bytes()).as_bytes()).is_empty());
    }
    assert!(!secrets(br#"Request: "Authorization: Bearer token-1\r\n""#).is_empty());
    assert!(secrets(b"www-authenticate: Bearer\r\n").is_empty());
    assert!(secrets(format!("vxa_ vxa_{} {}", &minted[8..20], &CANARY[1..]).as_bytes()).is_empty());
}
