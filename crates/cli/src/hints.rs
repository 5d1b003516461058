//! The flags that say what text is wanted of speech, and what may be said in it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::exit_code::{CliError, Exit};
use voxline::engine::{Accuracy, RecognitionRequest, Task};
use voxline::protocol::check_hints;
use voxline::session::RequestSettings;

#[derive(Args, Clone)]
pub(crate) struct HintOptions {
    /// Kind of text: transcribe, or translate (into English)
    #[arg(long, value_name = "TASK", default_value_t)]
    task: Task,
    /// Text that is taken to precede the recording, in the language of the transcript: sets its style and the
    /// spelling of names; of a long one the end counts
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Names and terms that may be spoken, separated by commas, up to 100; @FILE reads them from a file, one
    /// per line
    #[arg(long, value_name = "WORD,WORD|@FILE")]
    keywords: Option<Keywords>,
    /// Balance between accuracy and cost: fast, balanced or best
    #[arg(long, value_name = "LEVEL", default_value_t)]
    accuracy: Accuracy,
}

/// Keywords, as typed.
#[derive(Clone)]
enum Keywords {
    List(Vec<String>),
    File(PathBuf),
}

impl FromStr for Keywords {
    type Err = Infallible;

    fn from_str(typed: &str) -> Result<Keywords, Infallible> {
        Ok(match typed.strip_prefix('@') {
            Some(path) => Keywords::File(path.into()),
            None => Keywords::List(listed(typed.split(','))),
        })
    }
}

fn listed<'a>(keywords: impl Iterator<Item = &'a str>) -> Vec<String> {
    keywords.map(str::trim).filter(|keyword| !keyword.is_empty()).map(str::to_owned).collect()
}

/// The text that is wanted, with the keywords at hand.
#[derive(Clone)]
pub(crate) struct Hints {
    task: Task,
    prompt: Option<String>,
    keywords: Vec<String>,
    accuracy: Accuracy,
}

impl HintOptions {
    /// Reads the file of keywords, if there is one, and checks the lengths.
    pub(crate) fn settle(self) -> Result<Hints, CliError> {
        let HintOptions { task, prompt, keywords, accuracy } = self;
        let keywords = match keywords {
            None => Vec::new(),
            Some(Keywords::List(keywords)) => keywords,
            Some(Keywords::File(path)) => {
                let failed =
                    |error| CliError::new(Exit::Setup, format!("--keywords {}: {error}", path.display()));
                listed(std::fs::read_to_string(&path).map_err(failed)?.lines())
            }
        };
        check_hints(prompt.as_deref(), &keywords)
            .map_err(|error| CliError::new(Exit::Setup, error.to_string()))?;
        Ok(Hints { task, prompt, keywords, accuracy })
    }
}

impl Hints {
    pub(crate) fn task(&self) -> Task {
        self.task
    }

    /// Sets these hints in the settings of a session.
    pub(crate) fn set(&self, request: &mut RequestSettings) {
        request.task = self.task;
        request.prompt.clone_from(&self.prompt);
        request.keywords.clone_from(&self.keywords);
        request.accuracy = self.accuracy;
    }

    /// Sets these hints in a request to a recogniser.
    pub(crate) fn request(&self, mut request: RecognitionRequest) -> RecognitionRequest {
        request.prompt.clone_from(&self.prompt);
        request.keywords(&self.keywords).task(self.task).accuracy(self.accuracy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        hints: HintOptions,
    }

    fn settled(arguments: &[&str]) -> Result<Hints, String> {
        let typed = Typed::try_parse_from([&["voxline"], arguments].concat());
        typed.map_err(|error| error.to_string())?.hints.settle().map_err(|error| error.to_string())
    }

    #[test]
    fn keywords_are_a_list_or_the_lines_of_a_file() {
        let hints = settled(&["--keywords", "Voxline, Anna Kowalska,,"]).unwrap();
        assert_eq!(hints.keywords, ["Voxline", "Anna Kowalska"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Voxline\n\n  Kowalska, Anna \r\n").unwrap();
        let hints = settled(&["--keywords", &format!("@{}", file.path().display())]).unwrap();
        assert_eq!(hints.keywords, ["Voxline", "Kowalska, Anna"]);
        let missing = settled(&["--keywords", "@/nowhere/names"]).err().unwrap();
        assert!(missing.starts_with("--keywords /nowhere/names: "), "{missing}");
    }

    #[test]
    fn what_is_too_long_is_refused_before_anything_is_sent() {
        let keyword = "k".repeat(101);
        let error = settled(&["--keywords", &keyword]).err().unwrap();
        assert_eq!(error, "keyword of 101 bytes, the limit is 100");
    }

    #[test]
    fn tasks_and_levels_are_listed() {
        let hints = settled(&["--task", "translate", "--accuracy", "fast"]).unwrap();
        assert_eq!((hints.task, hints.accuracy), (Task::Translate, Accuracy::Fast));
        let error = settled(&["--accuracy", "finest"]).err().unwrap();
        assert!(error.contains("'finest' is not one of fast, balanced, best"), "{error}");
    }
}
