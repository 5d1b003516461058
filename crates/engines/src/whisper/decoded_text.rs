//! A decoded text: its tokens, how likely they are, and the attention by which they were decoded.

use super::decoder::Attention;

/// A decoded text.
pub(super) struct DecodedText {
    pub(super) tokens: Vec<u32>,
    /// Log-probability of each token, and of the end if it was decoded, at a temperature of 1.
    pub(super) log_probabilities: Vec<f32>,
    /// Mean of the log-probabilities, with what the keywords cost given back: the measure by which the text
    /// is judged.
    pub(super) log_probability: f32,
    /// `true` if the text repeated itself, in which case the repetition is cut off, or had too many
    /// tokens.
    pub(super) runaway: bool,
    /// `true` if the tokens were sampled.
    pub(super) sampled: bool,
    /// Attention by which each token, and the end, were decoded.
    pub(super) attention: Attention,
}

impl DecodedText {
    /// Returns the mean of the log-probabilities.
    pub(super) fn unbiased_log_probability(&self) -> f32 {
        mean(&self.log_probabilities, 0.0)
    }
}

/// Returns the mean, with this much given back to the sum; 0 for none.
pub(super) fn mean(log_probabilities: &[f32], given_back: f32) -> f32 {
    let sum: f32 = log_probabilities.iter().sum();
    (sum + given_back) / log_probabilities.len().max(1) as f32
}
