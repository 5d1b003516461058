//! The recording that the unit tests recognise.

/// A WAV file of 16 bits at 16 kHz: "Call me back before nine, because the meeting has moved to the second
/// floor."
const FILE: &[u8] = include_bytes!("../../../../samples/speech-16k-mono-s16.wav");

/// Length of the head of the file, before its samples.
const HEAD: usize = 44;

/// Returns the samples of the recording.
pub(super) fn pcm() -> Vec<i16> {
    FILE[HEAD..].as_chunks().0.iter().map(|&sample| i16::from_le_bytes(sample)).collect()
}
