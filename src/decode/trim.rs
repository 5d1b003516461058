//! Removing what an MP3 encoder put around the audio.

/// Drops the frames an encoder added before and after the audio, where the file's header says how many.
///
/// The header is only believed as far as it costs nothing: frames after the stated end are held back until it is
/// clear whether they are padding. If more follow than the stated padding (two files joined into one keep the first
/// one's header), they are audio, and nothing more is dropped.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// Leading frames still to be dropped.
    lead: u64,
    /// Frames until the stated end of the audio; `None` where no end is stated, or it turned out wrong.
    body: Option<u64>,
    /// How many frames after the end are padding.
    padding: usize,
    /// The frames after the stated end, so far.
    tail: Vec<f32>,
}

impl Trim {
    /// Drops `delay` frames before the first of `frames`, and up to `padding` after them.
    pub(super) fn new(delay: u32, padding: u32, frames: Option<u64>) -> Trim {
        Trim { lead: u64::from(delay), body: frames, padding: padding as usize, tail: Vec::new() }
    }

    /// Takes what is not audio out of the next block.
    pub(super) fn apply(&mut self, block: &mut Vec<f32>) {
        if self.lead > 0 {
            let dropped = self.lead.min(block.len() as u64);
            self.lead -= dropped;
            block.drain(..dropped as usize);
        }
        let Some(body) = self.body else { return };
        let audio = body.min(block.len() as u64);
        self.body = Some(body - audio);
        self.tail.extend(block.drain(audio as usize..));
        if self.tail.len() > self.padding {
            block.append(&mut self.tail);
            self.body = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(trim: &mut Trim, block: &[f32]) -> Vec<f32> {
        let mut block = block.to_vec();
        trim.apply(&mut block);
        block
    }

    #[test]
    fn delay_and_padding_are_dropped_across_blocks() {
        let mut trim = Trim::new(3, 2, Some(4));
        assert!(trimmed(&mut trim, &[0.0, 0.0]).is_empty());
        assert_eq!(trimmed(&mut trim, &[0.0, 1.0, 2.0]), [1.0, 2.0]);
        assert_eq!(trimmed(&mut trim, &[3.0, 4.0, 0.0]), [3.0, 4.0]);
        assert!(trimmed(&mut trim, &[0.0]).is_empty());
    }

    #[test]
    fn audio_after_the_stated_end_is_not_lost() {
        let mut trim = Trim::new(0, 2, Some(1));
        assert_eq!(trimmed(&mut trim, &[1.0, 2.0, 3.0]), [1.0]);
        assert_eq!(trimmed(&mut trim, &[4.0]), [2.0, 3.0, 4.0]);
        assert_eq!(trimmed(&mut trim, &[5.0]), [5.0]);
    }
}
