//! Progress display during transcription: the current partial result, and the position in the recording.

use std::time::Duration;

use console::{Term, measure_text_width, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal::one_line;
use voxline::audio::FramePos;

/// Widest and narrowest bar, in columns. A terminal without room for the latter shows no bar.
const BAR_MAX: usize = 30;
const BAR_MIN: usize = 5;

/// Least time after which the speed is steady enough to estimate the time that is left.
const STEADY_AFTER: Duration = Duration::from_secs(2);

/// The displays on standard error; hidden if standard error is not a terminal.
pub(crate) struct Displays(MultiProgress);

impl Displays {
    pub(crate) fn new() -> Displays {
        Displays(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
    }

    /// Runs `write`, which may print to the same terminal, with the displays hidden.
    pub(crate) fn around<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }
}

/// A display of two lines.
pub(crate) struct Progress {
    lines: MultiProgress,
    partial: ProgressBar,
    /// The prefix is the name of the recording; the length and position are milliseconds of audio.
    time: ProgressBar,
    sample_rate: u32,
}

impl Progress {
    /// Creates the display for the recording `name` among others; `duration` is its length if known.
    pub(crate) fn new(
        displays: &Displays,
        name: &str,
        sample_rate: u32,
        duration: Option<Duration>,
    ) -> Progress {
        let lines = displays.0.clone();
        let partial = lines.add(ProgressBar::new_spinner().with_style(line_style()));
        let time = match duration {
            Some(duration) => ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
            None => ProgressBar::no_length(),
        };
        let time = lines.add(time.with_style(line_style()).with_prefix(name.to_owned()));
        let progress = Progress { lines, partial, time, sample_rate };
        progress.reach(FramePos::ZERO);
        progress
    }

    /// Shows that everything up to `position` has been processed.
    pub(crate) fn reach(&self, position: FramePos) {
        let done = position.time(self.sample_rate);
        self.time.set_position(u64::try_from(done.as_millis()).unwrap_or(u64::MAX));
        let total = self.time.length().map(Duration::from_millis);
        let figures = figures(done, total, self.time.elapsed());
        let share = total.map(|total| done.as_secs_f64() / total.as_secs_f64().max(1e-3));
        self.time.set_message(status(&self.time.prefix(), share, &figures, columns()));
    }

    /// Replaces the partial result shown. Of a text longer than the line, the end is shown.
    pub(crate) fn partial(&self, text: &str, position: FramePos) {
        self.partial.set_message(tail(text, columns()).to_owned());
        self.reach(position);
    }

    /// Shows that the user has interrupted the work.
    pub(crate) fn interrupted(&self) {
        self.time.set_prefix("interrupted: finishing the text; press ctrl-c again to stop now");
    }

    /// Runs `write`, which may print to the same terminal, with the display hidden.
    pub(crate) fn around<T>(&self, write: impl FnOnce() -> T) -> T {
        self.partial.set_message("");
        self.lines.suspend(write)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.partial.finish_and_clear();
        self.time.finish_and_clear();
    }
}

/// Returns the style of a line of text, which is cut off at the width of the terminal.
pub(crate) fn line_style() -> ProgressStyle {
    ProgressStyle::with_template("{wide_msg}").expect("a template of ours")
}

/// Returns the width of the terminal, without the last column: some terminals wrap a line that fills it.
pub(crate) fn columns() -> usize {
    usize::from(Term::stderr().size().1).saturating_sub(1)
}

/// Returns a line of at most `width` columns: the name, a bar of the `share` that is done, and the figures.
/// If there is too little room, the bar is left out, then the name is shortened.
pub(crate) fn status(name: &str, share: Option<f64>, figures: &str, width: usize) -> String {
    let name = one_line(name);
    let room = width.saturating_sub(measure_text_width(&name) + measure_text_width(figures));
    // The bar stands in brackets, with a space on either side.
    let bar = share.zip(room.checked_sub(4).filter(|room| *room >= BAR_MIN));
    if let Some((share, room)) = bar {
        let bar = room.min(BAR_MAX);
        let filled = ((share * bar as f64) as usize).min(bar);
        return format!("{name} [{}{}] {figures}", "█".repeat(filled), "░".repeat(bar - filled));
    }
    let room = width.saturating_sub(measure_text_width(figures) + 1);
    let line = match room {
        0 => figures.to_owned(),
        room => format!("{} {figures}", truncate_str(&name, room, "…")),
    };
    truncate_str(&line, width, "").into_owned()
}

/// Returns the position in a recording, its length, the speed as a multiple of real time, and the estimated
/// time that is left.
fn figures(done: Duration, total: Option<Duration>, elapsed: Duration) -> String {
    let speed = done.as_secs_f64() / elapsed.as_secs_f64().max(1e-3);
    let Some(total) = total else { return format!("{}  {speed:.1}x", minutes(done)) };
    let mut text = format!("{} / {}  {speed:.1}x", minutes(done), minutes(total));
    let left = total.saturating_sub(done);
    if elapsed >= STEADY_AFTER && !done.is_zero() && !left.is_zero() {
        let left = left.as_secs_f64() / speed;
        text += &format!("  {} left", minutes(Duration::from_secs_f64(left.min(1e9).ceil())));
    }
    text
}

/// Returns the end of a text that fits into `width` columns.
fn tail(text: &str, width: usize) -> &str {
    let mut start = text.len();
    let mut columns = 0;
    for (index, c) in text.char_indices().rev() {
        columns += measure_text_width(&text[index..index + c.len_utf8()]);
        if columns > width {
            break;
        }
        start = index;
    }
    &text[start..]
}

fn minutes(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_result_is_cut_at_its_start_to_the_columns_of_the_terminal() {
        assert_eq!(tail("the end of it", 80), "the end of it");
        assert_eq!(tail("the end of it", 5), "of it");
        assert_eq!(tail("поезд отправляется", 12), "отправляется");
        // A Chinese character takes two columns (Unicode, UAX #11).
        assert_eq!(tail("我们走吧", 5), "走吧");
        assert_eq!(tail("the end", 0), "");
    }

    #[test]
    fn the_progress_line_fits_every_width() {
        for name in ["a.wav", "a recording with a long name.wav", "запись.wav", "我们走吧.wav", "odd\nname"]
        {
            for share in [None, Some(0.0), Some(0.5), Some(7.0)] {
                for width in 0..120 {
                    let line = status(name, share, "1:02 / 10:00  12.3x  0:45 left", width);
                    assert!(measure_text_width(&line) <= width, "{line:?} in {width} columns");
                    assert!(!line.contains('\n'), "{line:?}");
                }
            }
        }
        let wide = status("a.wav", Some(0.5), "1:02", 80);
        assert_eq!(wide, format!("a.wav [{}{}] 1:02", "█".repeat(15), "░".repeat(15)));
        assert_eq!(status("a.wav", Some(0.5), "1:02", 18), "a.wav [██░░░] 1:02");
        assert_eq!(status("a.wav", Some(0.5), "1:02", 17), "a.wav 1:02");
        assert_eq!(status("a.wav", Some(0.5), "1:02", 9), "a.w… 1:02");
    }

    #[test]
    fn the_time_that_is_left_is_estimated_by_the_speed_so_far() {
        let minute = |minutes: u64| Duration::from_secs(60 * minutes);
        let shown = |done, total, seconds| figures(done, total, Duration::from_secs(seconds));
        assert_eq!(shown(minute(2), Some(minute(10)), 12), "2:00 / 10:00  10.0x  0:48 left");
        assert_eq!(shown(minute(2), None, 12), "2:00  10.0x");
        // Too early, nothing done, and nothing left.
        assert_eq!(shown(minute(2), Some(minute(10)), 1), "2:00 / 10:00  120.0x");
        assert_eq!(shown(minute(0), Some(minute(10)), 12), "0:00 / 10:00  0.0x");
        assert_eq!(shown(minute(10), Some(minute(10)), 60), "10:00 / 10:00  10.0x");
    }
}
