//! Audio that comes before its format is known.

use std::fmt;
use std::mem;

use bytes::Bytes;

use super::PeerError;

/// Largest amount of audio that is kept, in bytes: four seconds in G.711, and two thirds of a second in
/// linear samples at 48 kHz.
const MAX: usize = 64 * 1024;
/// Price of a piece beside its bytes, so that many small ones are bounded, too.
const OVERHEAD: usize = 64;

/// A bounded buffer of pieces of audio.
#[derive(Default)]
pub(super) struct Early {
    pieces: Vec<Bytes>,
    cost: usize,
}

impl Early {
    /// Keeps a piece by a copy, because its buffer may be larger.
    ///
    /// # Errors
    /// Returns [`PeerError::Message`] with the name of the message that is waited for, if there is too much.
    pub(super) fn push(&mut self, piece: &[u8], awaited: &'static str) -> Result<(), PeerError> {
        self.cost += piece.len() + OVERHEAD;
        if self.cost > MAX {
            let reason = format!("expected it within {MAX} bytes of audio");
            return Err(PeerError::Message { message: awaited, reason });
        }
        self.pieces.push(Bytes::copy_from_slice(piece));
        Ok(())
    }

    /// Returns the pieces in order, and forgets them.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.cost = 0;
        mem::take(&mut self.pieces)
    }
}

impl fmt::Debug for Early {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Early").field("pieces", &self.pieces.len()).field("cost", &self.cost).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_kept_in_order_within_the_bound() {
        let mut early = Early::default();
        early.push(&[1, 2], "start").expect("room");
        early.push(&[3], "start").expect("room");
        assert_eq!(early.take(), [Bytes::from_static(&[1, 2]), Bytes::from_static(&[3])]);
        assert!(early.take().is_empty());
        early.push(&[0; MAX - OVERHEAD], "start").expect("room up to the bound");
        let error = early.push(&[0], "start").expect_err("no room");
        assert_eq!(error.to_string(), "start of the peer: expected it within 65536 bytes of audio");
    }

    #[test]
    fn small_pieces_are_bounded_in_number() {
        let mut early = Early::default();
        let kept = (0..10_000).take_while(|_| early.push(&[0], "start").is_ok()).count();
        assert_eq!(kept, MAX / (OVERHEAD + 1));
    }
}
