//! The help, the completions and the manual pages, which are made from the definition of the command line.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::cli::{Place, assert_fails, text};

/// Returns each command with a parent other than the program, and its path: `gateway project list`.
fn commands(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
    let below = command.get_subcommands().flat_map(|command| {
        let path = format!("{path} {}", command.get_name()).trim_start().to_owned();
        let mut all = commands(command, &path);
        all.push((path, command.clone()));
        all
    });
    below.collect()
}

/// Returns the arguments of the program in an example, as a shell splits them.
fn arguments(example: &str) -> Vec<String> {
    let (_, from) = example.split_once("voxline ").unwrap_or_else(|| panic!("no command in {example}"));
    let until = from.find([')', '|', '>']).unwrap_or(from.len());
    let mut words = Vec::new();
    for (index, part) in from[..until].split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[test]
fn every_command_has_examples_that_work() {
    let program = voxline_cli::command();
    let all = commands(&program, "");
    assert!(all.len() > 30, "only {} commands were found", all.len());
    for (path, command) in all {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples = help.strip_prefix("Examples:\n").unwrap_or_else(|| panic!("{path} has no example"));
        for example in examples.lines() {
            let arguments = arguments(example);
            assert!(arguments.join(" ").starts_with(&path), "{example} is no example of {path}");
            let given = ["voxline".to_owned()].into_iter().chain(arguments);
            if let Err(error) = program.clone().try_get_matches_from(given) {
                panic!("{example}: {error}");
            }
        }
    }
}

#[test]
fn only_commands_that_connect_have_connection_options() {
    let place = Place::new();
    let has_options = |path: &str| {
        let arguments: Vec<&str> = path.split(' ').chain(["--help"]).collect();
        let help = place.run(&arguments);
        assert_eq!(help.status.code(), Some(0), "{path}");
        let help = text(&help.stdout).to_owned();
        let options = help.split_once("\nConnection options:\n").map(|(before, after)| {
            assert!(!before.contains("--endpoint"), "{path}: {help}");
            after.to_owned()
        });
        assert_eq!(
            options.as_ref().is_some_and(|options| options.contains("--endpoint")),
            help.contains("--endpoint")
        );
        options.is_some()
    };
    // The headings hold no options of others.
    let program = voxline_cli::command();
    let headings = commands(&program, "").into_iter().flat_map(|(path, command)| {
        let models = command.get_arguments().filter(|arg| arg.get_id() == "models");
        models.map(|arg| (path.clone(), arg.get_help_heading().map(str::to_owned))).collect::<Vec<_>>()
    });
    let headings: Vec<_> = headings.collect();
    assert!(headings.len() >= 7 && headings.iter().all(|(_, heading)| heading.is_none()), "{headings:?}");
    for path in ["transcribe", "speak", "token login", "bench asr", "config check", "config show"] {
        assert!(has_options(path), "{path}");
    }
    for path in
        ["probe", "decode", "serve", "gateway project list", "models pull", "voices", "completions", "man"]
    {
        assert!(!has_options(path), "{path}");
        let mut arguments: Vec<&str> = path.split(' ').collect();
        arguments.push("--endpoint=https://speech.example");
        assert_eq!(place.run(&arguments).status.code(), Some(2), "{path}");
    }
}

#[test]
fn completions_are_of_every_shell() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let printed = place.run(&["completions", shell]);
        assert_eq!(printed.status.code(), Some(0), "{}", text(&printed.stderr));
        let script = text(&printed.stdout);
        assert!(script.contains("transcribe") && script.contains("client-secret-file"), "{script}");
    }
    assert_eq!(place.run(&["completions", "sh"]).status.code(), Some(2));

    // The shell itself completes a command, by the function that the script defines.
    let script = place.file("completions", place.run(&["completions", "bash"]).stdout);
    let complete = "source completions && COMP_WORDS=(voxline tran) COMP_CWORD=1 && _voxline voxline tran voxline && \
                    printf '%s\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let bash =
        bash.args(["--norc", "-c", complete]).current_dir(script.parent().unwrap()).stdin(Stdio::null());
    let completed = bash.output().unwrap();
    assert_eq!(text(&completed.stdout).trim(), "transcribe", "{}", text(&completed.stderr));
}

#[test]
fn every_command_has_a_manual_page() {
    let place = Place::new();
    let made = place.run(&["man", "share/man1"]);
    assert_eq!((made.status.code(), text(&made.stderr)), (Some(0), ""));
    let names = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let pages = fs::read_dir(place.path("share/man1")).unwrap().map(|entry| names(entry.unwrap()));
    let pages: BTreeSet<String> = pages.collect();
    for (path, _) in commands(&voxline_cli::command(), "") {
        let page = format!("voxline-{}.1", path.replace(' ', "-"));
        assert!(pages.contains(&page), "no {page} in {pages:?}");
    }
    let page = fs::read_to_string(place.path("share/man1/voxline-transcribe.1")).unwrap();
    for part in [".TH voxline", "Connection options", "voxline transcribe call.mp3", "VOXLINE_ENDPOINT"] {
        assert!(page.to_lowercase().contains(&part.to_lowercase()), "no {part} in {page}");
    }
    place.file("taken", "");
    assert_fails(&place.run(&["man", "taken"]), 7, &["taken"]);
}
