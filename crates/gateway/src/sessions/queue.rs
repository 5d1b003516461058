//! Queue of input for a session's recogniser.

use std::collections::VecDeque;

use voxline::audio::FramePos;

/// Size of the blocks in which waiting audio is gathered, in bytes: about a second at 16 kHz. A block is
/// small enough that finals come while a backlog is worked off, and large enough that its own cost is
/// negligible.
const BLOCK_BYTES: usize = 32 * 1024;

/// Input of the recogniser.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecognizerInput {
    /// 16-bit little-endian PCM that follows the audio before it.
    Audio(Vec<u8>),
    Flush,
    /// A gap up to this position, whose audio never arrives.
    Gap(FramePos),
    Finish,
}

/// A queue of work. Audio costs its bytes here, not its frames, however finely a client cuts it.
#[derive(Debug, Default)]
pub(crate) struct InputQueue {
    waiting: VecDeque<RecognizerInput>,
}

impl InputQueue {
    pub(crate) fn push_audio(&mut self, pcm: &[u8]) {
        match self.waiting.back_mut() {
            Some(RecognizerInput::Audio(block)) if block.len() < BLOCK_BYTES => block.extend_from_slice(pcm),
            _ => self.waiting.push_back(RecognizerInput::Audio(pcm.to_vec())),
        }
    }

    pub(crate) fn push_flush(&mut self) {
        self.waiting.push_back(RecognizerInput::Flush);
    }

    /// Adds a gap. A gap that follows a gap is merged with it.
    pub(crate) fn push_gap(&mut self, to: FramePos) {
        match self.waiting.back_mut() {
            Some(RecognizerInput::Gap(end)) => *end = to,
            _ => self.waiting.push_back(RecognizerInput::Gap(to)),
        }
    }

    pub(crate) fn ends_with_gap(&self) -> bool {
        matches!(self.waiting.back(), Some(RecognizerInput::Gap(_)))
    }

    pub(crate) fn push_finish(&mut self) {
        self.waiting.push_back(RecognizerInput::Finish);
    }

    pub(crate) fn pop(&mut self) -> Option<RecognizerInput> {
        self.waiting.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
impl InputQueue {
    /// Returns the number of waiting pieces of work.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the memory that the waiting audio takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let blocks = self.waiting.iter().map(|work| match work {
            RecognizerInput::Audio(block) => block.capacity(),
            RecognizerInput::Flush | RecognizerInput::Gap(_) | RecognizerInput::Finish => 0,
        });
        blocks.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_is_gathered_and_stays_in_order() {
        let mut queue = InputQueue::default();
        let pcm: Vec<u8> = (0..100_000_u32).map(|byte| byte as u8).collect();
        for sample in pcm.chunks(2) {
            queue.push_audio(sample);
        }
        assert_eq!(queue.len(), pcm.len().div_ceil(BLOCK_BYTES));
        assert!(queue.bytes() <= 2 * pcm.len(), "{} bytes", queue.bytes());
        queue.push_flush();
        queue.push_audio(&[1, 2]);

        let mut taken = Vec::new();
        while let Some(RecognizerInput::Audio(block)) = queue.pop() {
            taken.extend(block);
        }
        assert_eq!(taken, pcm);
        assert_eq!(queue.pop(), Some(RecognizerInput::Audio(vec![1, 2])));
        assert!(queue.is_empty());
    }

    #[test]
    fn adjacent_gaps_are_merged() {
        let mut queue = InputQueue::default();
        queue.push_gap(FramePos(5));
        queue.push_gap(FramePos(9));
        assert!(queue.ends_with_gap());
        queue.push_audio(&[1, 2]);
        assert!(!queue.ends_with_gap());
        queue.push_gap(FramePos(12));
        assert_eq!(queue.pop(), Some(RecognizerInput::Gap(FramePos(9))));
        assert_eq!(queue.len(), 2);
    }
}
