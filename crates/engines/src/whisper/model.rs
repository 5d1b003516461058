//! A loaded model.

use super::decoder::Decoder;
use super::encoder::Encoder;
use super::mel::Mel;
use super::tokens::Tokens;

/// A loaded model. The model is immutable, so all sessions share it.
pub(super) struct Model {
    pub(super) mel: Mel,
    pub(super) encoder: Encoder,
    pub(super) decoder: Decoder,
    pub(super) tokens: Tokens,
}
