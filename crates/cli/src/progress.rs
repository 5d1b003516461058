//! Progress display during transcription: the current partial result, and the position in the recording.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use voxline::audio::FramePos;

/// Number of characters of a partial result shown: one line of a common terminal.
const LINE: usize = 80;

/// A display of two lines on standard error; hidden if standard error is not a terminal.
pub(crate) struct Progress {
    lines: MultiProgress,
    guess: ProgressBar,
    time: ProgressBar,
    sample_rate: u32,
}

impl Progress {
    /// Creates the display for the recording `name`; `duration` is its length if known.
    pub(crate) fn new(name: &str, sample_rate: u32, duration: Option<Duration>) -> Progress {
        let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = |template: &str| ProgressStyle::with_template(template).expect("a template of ours");
        let guess = lines.add(ProgressBar::new_spinner().with_style(style("{wide_msg}")));
        // The bar's unit is a millisecond of audio.
        let (time, template) = match duration {
            Some(duration) => (
                ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
                "{prefix} [{bar:30}] {msg}",
            ),
            None => (ProgressBar::no_length(), "{prefix} {msg}"),
        };
        let time = lines.add(time.with_style(style(template)).with_prefix(name.to_owned()));
        let progress = Progress { lines, guess, time, sample_rate };
        progress.reach(FramePos::ZERO);
        progress
    }

    /// Shows that everything up to `position` has been processed.
    pub(crate) fn reach(&self, position: FramePos) {
        let done = position.time(self.sample_rate);
        self.time.set_position(u64::try_from(done.as_millis()).unwrap_or(u64::MAX));
        let speed = done.as_secs_f64() / self.time.elapsed().as_secs_f64().max(1e-3);
        let total = match self.time.length() {
            Some(total) => format!(" / {}", minutes(Duration::from_millis(total))),
            None => String::new(),
        };
        self.time.set_message(format!("{}{total}  {speed:.1}x", minutes(done)));
    }

    /// Replaces the partial result shown. Of a text longer than the line, the end is shown.
    pub(crate) fn guess(&self, text: &str, position: FramePos) {
        let hidden = (text.chars().count() + 1).saturating_sub(LINE);
        self.guess.set_message(text.chars().skip(hidden).collect::<String>());
        self.reach(position);
    }

    /// Shows that the user has interrupted the work.
    pub(crate) fn interrupted(&self) {
        self.time.set_prefix("interrupted: finishing what was heard, again to stop at once");
    }

    /// Runs `write`, which may print to the same terminal, with the display hidden.
    pub(crate) fn around<T>(&self, write: impl FnOnce() -> T) -> T {
        self.guess.set_message("");
        self.lines.suspend(write)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.guess.finish_and_clear();
        self.time.finish_and_clear();
    }
}

fn minutes(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
