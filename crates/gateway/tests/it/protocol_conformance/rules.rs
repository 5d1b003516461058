//! Rules of the document. Each has a test of its number, or is named here.

use std::collections::BTreeSet;

pub(super) const DOCUMENT: &str = include_str!("../../../../../docs/protocol.md");

/// Files in which a test's name begins with the numbers of its rules.
const TESTS: [&str; 7] = [
    include_str!("handshake.rs"),
    include_str!("messages.rs"),
    include_str!("opening.rs"),
    include_str!("audio.rs"),
    include_str!("results.rs"),
    include_str!("tokens.rs"),
    include_str!("signs_of_life.rs"),
];

/// Rules that ask nothing of a server, with the tests that check our client against them.
const OF_CLIENTS: [(&str, &str); 15] = [
    ("C1", "secrecy, network: what the client asks the upgrade for"),
    ("C2", "protocol: fields and messages that it doesn't know"),
    ("C3", "testing::peer, in network: nothing comes before start or resume"),
    ("C4", "testing::peer, in network: nothing comes before ready"),
    ("C5", "schedule, network: the replay from received is the same bytes"),
    ("C6", "hostile_peer: a buffer that is too small ends the session"),
    ("C7", "traffic, network: frames have a position and whole samples"),
    ("C8", "schedule: the window at every step"),
    ("C9", "schedule: ack and ready free no audio"),
    ("C10", "schedule: gaps, one at a time"),
    ("C11", "context: a session begun anew has the context"),
    ("C12", "schedule, network: done is followed by 1000"),
    ("C13", "session, drain: a move before the deadline"),
    ("C15", "transport::websocket, successor: hosts that may see a token"),
    ("C16", "hostile_peer: a service that only transcribes ends a session that translates"),
];

/// Returns the numbers of the document's rules.
fn rules() -> BTreeSet<String> {
    let bold = DOCUMENT.split("**").skip(1).step_by(2);
    let numbers = bold
        .flat_map(|bold| bold.split(", "))
        .filter(|word| word.strip_prefix(['S', 'C']).is_some_and(|number| number.parse::<u32>().is_ok()));
    numbers.map(str::to_owned).collect()
}

/// Returns the numbers of the rules that tests are named after.
fn tested() -> BTreeSet<String> {
    let names = TESTS.iter().flat_map(|file| file.split("#[tokio::test]\nasync fn ").skip(1));
    let numbers = names.flat_map(|name| {
        name.split('_').take_while(|word| {
            word.strip_prefix(['s', 'c']).is_some_and(|number| number.parse::<u32>().is_ok())
        })
    });
    numbers.map(str::to_uppercase).collect()
}

#[test]
fn each_rule_has_a_test_or_is_named() {
    let (rules, tested) = (rules(), tested());
    let named: BTreeSet<String> = OF_CLIENTS.iter().map(|(rule, _)| (*rule).to_owned()).collect();
    let servers = rules.iter().filter(|rule| rule.starts_with('S')).count();
    assert!(servers >= 35 && rules.len() >= 50, "{rules:?}");
    assert!(tested.is_disjoint(&named), "{tested:?} and {named:?}");
    assert_eq!(tested.union(&named).cloned().collect::<BTreeSet<_>>(), rules);
}
