//! Removal of the frames that an encoder put around the audio.

use std::mem;

/// A trimmer of the frames that an encoder added before and after the audio, if the container states
/// their number.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// Number of leading frames still to be dropped.
    lead: u64,
    /// Number of frames until the stated end of the audio; `None` if no end is stated, or the stated end
    /// was wrong.
    body: Option<u64>,
    tail: Tail,
}

/// Treatment of the frames after the stated end.
#[derive(Debug, Default)]
enum Tail {
    #[default]
    Dropped,
    /// The frames are held back until it is clear whether they are padding. If more than `padding` frames
    /// follow, they are audio, and nothing more is dropped: two MP3 files joined into one keep the header
    /// of the first.
    Held { padding: usize, planes: Vec<Vec<f32>> },
}

impl Trim {
    /// Creates a trimmer that drops `delay` frames before the first of `frames`, and up to `padding`
    /// frames after the last.
    pub(super) fn stated(delay: u32, padding: u32, frames: Option<u64>) -> Trim {
        let tail = Tail::Held { padding: padding as usize, planes: Vec::new() };
        Trim { lead: delay.into(), body: frames, tail }
    }

    /// Creates a trimmer that keeps only `frames` frames after the first `delay`, as an edit list states.
    pub(super) fn edited(delay: u64, frames: Option<u64>) -> Trim {
        Trim { lead: delay, body: frames, tail: Tail::Dropped }
    }

    /// Returns whether all further frames are dropped.
    pub(super) fn is_at_end(&self) -> bool {
        self.body == Some(0) && matches!(self.tail, Tail::Dropped)
    }

    /// Removes the frames that are not audio from the next planes.
    pub(super) fn apply(&mut self, planes: &mut [Vec<f32>]) {
        let frames = planes.first().map_or(0, Vec::len);
        let lead = self.lead.min(frames as u64);
        self.lead -= lead;
        if lead > 0 {
            planes.iter_mut().for_each(|plane| drop(plane.drain(..lead as usize)));
        }
        let Some(body) = self.body else { return };
        let frames = frames as u64 - lead;
        let audio = body.min(frames);
        self.body = Some(body - audio);
        if audio == frames {
            return;
        }
        let audio = audio as usize;
        match &mut self.tail {
            Tail::Dropped => planes.iter_mut().for_each(|plane| plane.truncate(audio)),
            Tail::Held { padding, planes: held } => {
                held.resize_with(planes.len(), Vec::new);
                for (plane, held) in planes.iter_mut().zip(&mut *held) {
                    held.extend(plane.drain(audio..));
                }
                if held[0].len() > *padding {
                    for (plane, held) in planes.iter_mut().zip(held) {
                        plane.append(&mut mem::take(held));
                    }
                    self.body = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(trim: &mut Trim, samples: &[f32]) -> Vec<f32> {
        // The second plane is the negative of the first; both must be cut alike.
        let mut planes = [samples.to_vec(), samples.iter().map(|sample| -sample).collect()];
        trim.apply(&mut planes);
        let [plane, negative] = planes;
        assert!(plane.iter().eq(negative.iter().map(|sample| -sample).collect::<Vec<_>>().iter()));
        plane
    }

    #[test]
    fn delay_and_padding_are_dropped_across_blocks() {
        for mut trim in [Trim::stated(3, 2, Some(4)), Trim::edited(3, Some(4))] {
            assert!(trimmed(&mut trim, &[0.0, 0.0]).is_empty());
            assert_eq!(trimmed(&mut trim, &[0.0, 1.0, 2.0]), [1.0, 2.0]);
            assert_eq!(trimmed(&mut trim, &[3.0, 4.0, 0.0]), [3.0, 4.0]);
            assert!(trimmed(&mut trim, &[0.0]).is_empty());
        }
    }

    #[test]
    fn audio_after_the_stated_end_is_not_lost() {
        let mut trim = Trim::stated(0, 2, Some(1));
        assert_eq!(trimmed(&mut trim, &[1.0, 2.0, 3.0]), [1.0]);
        assert_eq!(trimmed(&mut trim, &[4.0]), [2.0, 3.0, 4.0]);
        assert_eq!(trimmed(&mut trim, &[5.0]), [5.0]);
    }

    #[test]
    fn audio_after_an_edit_is_not_heard() {
        let mut trim = Trim::edited(1, Some(2));
        assert!(!trim.is_at_end());
        assert_eq!(trimmed(&mut trim, &[1.0, 2.0, 3.0, 4.0]), [2.0, 3.0]);
        assert!(trim.is_at_end());
        assert!(trimmed(&mut trim, &[5.0; 9]).is_empty());
        assert_eq!(trimmed(&mut Trim::edited(1, None), &[1.0, 2.0]), [2.0]);
    }
}
