//! A transcription with its options, of a recording or of live audio.

use std::sync::Arc;
use std::time::Duration;

use super::Service;
use crate::protocol::{Accuracy, Task};
use crate::session::Settings;

/// Audio to be transcribed, with its options: a recording (`Transcription<Recorded>`), created by
/// `Client::transcribe`, or [live](super::Live) audio, created by [`Client::live`](super::Client::live). Each
/// has options of its own besides those of all audio.
#[derive(Debug)]
#[must_use = "nothing is transcribed before it is started"]
pub struct Transcription<A> {
    pub(super) service: Arc<Service>,
    pub(super) settings: Settings,
    /// The audio, and the options that only audio of this kind has.
    pub(super) audio: A,
}

/// Options of all audio.
impl<A> Transcription<A> {
    /// Sets the language spoken, as a BCP 47 tag (`en`, `ru-RU`). By default the service detects it.
    pub fn language(mut self, language: impl Into<String>) -> Transcription<A> {
        self.settings.request.language = Some(language.into());
        self
    }

    /// Sets the kind of the text: a transcript, by default. With a service that does not perform the task the
    /// session fails.
    pub fn task(mut self, task: Task) -> Transcription<A> {
        self.settings.request.task = task;
        self
    }

    /// Sets the text that is taken to precede the audio, in the language of the text that is asked for: it
    /// sets the style and the spelling of names. Whisper uses the end of a long prompt.
    pub fn prompt(mut self, prompt: impl Into<String>) -> Transcription<A> {
        self.settings.request.prompt = Some(prompt.into());
        self
    }

    /// Sets words and phrases that are likely to be spoken, such as names, which are then recognised rather
    /// than similar ones.
    pub fn keywords(mut self, keywords: impl IntoIterator<Item: Into<String>>) -> Transcription<A> {
        self.settings.request.keywords = keywords.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the balance between accuracy and cost: [`Accuracy::Balanced`], by default.
    pub fn accuracy(mut self, accuracy: Accuracy) -> Transcription<A> {
        self.settings.request.accuracy = accuracy;
        self
    }

    /// Sets whether partial results are wanted: yes, by default.
    pub fn partials(mut self, wanted: bool) -> Transcription<A> {
        self.settings.request.partials = wanted;
        self
    }

    /// Sets how long the session keeps trying while the service is unavailable, as `--patience` of the
    /// program does: 120 s, by default. It is [`Timeouts::give_up`](crate::session::Timeouts::give_up). The
    /// very first connection is tried for 5 s, or for the patience if that is shorter: a wrong address should
    /// be reported soon.
    pub fn patience(mut self, patience: Duration) -> Transcription<A> {
        let timeouts = &mut self.settings.timeouts;
        timeouts.give_up = patience;
        timeouts.first_contact = timeouts.first_contact.min(patience);
        self
    }

    /// Changes any other setting of the session, such as the size of its replay buffer.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Transcription<A> {
        change(&mut self.settings);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    #[test]
    fn patience_is_for_a_service_that_was_there() {
        let client = Client::builder("http://127.0.0.1:1").service_token("token".to_owned()).build().unwrap();
        for (patience, first_contact) in [(1, 1), (5, 5), (86_400, 5)] {
            let timeouts = client.live(16_000).patience(Duration::from_secs(patience)).settings.timeouts;
            assert_eq!(
                (timeouts.give_up.as_secs(), timeouts.first_contact.as_secs()),
                (patience, first_contact)
            );
        }
    }
}
