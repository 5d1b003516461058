//! Flags for the limits of subtitle cues.

use std::time::Duration;

use clap::Args;

use crate::typed::whole;
use voxline::transcript::Subtitles;

/// Limits of subtitle cues, for `srt` and `vtt`.
#[derive(Args, Clone, Copy)]
pub(super) struct Cues {
    /// Maximum number of lines in a subtitle cue, 1 to 10
    #[arg(long, value_name = "COUNT", default_value_t = Subtitles::default().lines,
          value_parser = whole(Subtitles::LINES))]
    cue_lines: u16,
    /// Maximum number of characters in a line of a cue, 10 to 200
    #[arg(long, value_name = "COUNT", default_value_t = Subtitles::default().width,
          value_parser = whole(Subtitles::WIDTH))]
    cue_width: u16,
    /// Longest time in seconds that a cue is shown, 1 to 60
    #[arg(long, value_name = "SECONDS", default_value_t = 7, value_parser = whole(Subtitles::SECONDS))]
    cue_seconds: u16,
    /// Reading speed in characters per second, 1 to 100: a cue stays long enough to be read, if the next cue
    /// allows
    #[arg(long, value_name = "COUNT", default_value_t = Subtitles::default().speed,
          value_parser = whole(Subtitles::SPEED))]
    cue_speed: u16,
    /// Length in seconds of a silence that always ends a cue, 0.1 to 60
    #[arg(long, value_name = "SECONDS", default_value = "1.5", value_parser = pause)]
    cue_pause: Duration,
}

impl Cues {
    pub(super) fn settle(self) -> Subtitles {
        Subtitles {
            lines: self.cue_lines,
            width: self.cue_width,
            duration: Duration::from_secs(self.cue_seconds.into()),
            speed: self.cue_speed,
            pause: self.cue_pause,
        }
    }
}

fn pause(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected a number of seconds from 0.1 to 60".to_owned())
}
