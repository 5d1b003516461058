//! Finding out what the bytes are, and setting up the demuxer and the decoder for them.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use symphonia::core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::{Error, Result as SymphoniaResult};
use symphonia::core::formats::probe::{Hint, Probe};
use symphonia::core::formats::well_known as container;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{
    MediaSource, MediaSourceStream, MediaSourceStreamOptions, ReadBytes, ReadOnlySource, SeekBuffered,
};
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{formats, get_codecs, meta};

use super::trim::Trim;
use super::{At, DecodeError, isomp4};
use crate::source::{Input, Source};

/// The read buffer: a power of two above symphonia's largest read of 32 KiB.
const BUFFER_BYTES: usize = 64 * 1024;

/// The most frames that one packet may announce. The longest real ones (FLAC) have 65,535; a crafted header could
/// otherwise make a decoder reserve gigabytes.
const PACKET_FRAMES_MAX: u64 = 1 << 20;

/// The readers of the formats that are promised, and no others: each is more surface for hostile input.
static PROBE: LazyLock<Probe> = LazyLock::new(|| {
    let mut probe = Probe::new();
    probe.register_format::<formats::WavReader<'_>>();
    probe.register_format::<formats::FlacReader<'_>>();
    probe.register_format::<formats::MpaReader<'_>>();
    probe.register_format::<formats::OggReader<'_>>();
    probe.register_format::<formats::IsoMp4Reader<'_>>();
    probe.register_format::<formats::AiffReader<'_>>();
    probe.register_format::<formats::CafReader<'_>>();
    // Stands before the audio of most MP3 files, pictures included.
    probe.register_metadata::<meta::Id3v2Reader<'_>>();
    probe
});

/// What a call into symphonia can end with, besides success.
pub(super) enum Fault {
    Error(Error),
    /// It panicked, with this message. Its state is then unknown, so it must not be called again.
    Panic(String),
}

impl Fault {
    /// What went wrong, for a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Fault::Error(Error::DecodeError(what) | Error::Unsupported(what) | Error::LimitError(what)) => {
                (*what).to_owned()
            }
            Fault::Error(error) => error.to_string(),
            Fault::Panic(message) => format!("the decoder panicked: {message}"),
        }
    }

    /// Whether the source has no more bytes, though the format needs some.
    pub(super) fn is_end_of_file(&self) -> bool {
        matches!(self, Fault::Error(Error::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof)
    }
}

/// Calls into symphonia, whose panics on crafted input are errors to us.
pub(super) fn guarded<T>(call: impl FnOnce() -> SymphoniaResult<T>) -> Result<T, Fault> {
    // Unwind safe: after a panic nothing that the call touched is used again.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Fault::Error),
        Err(payload) => {
            let message = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned());
            Err(Fault::Panic(message.unwrap_or_else(|| "no message".to_owned())))
        }
    }
}

/// A demuxer, and the decoder for its audio track.
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) format: Box<dyn FormatReader>,
    pub(super) track: AudioTrack,
}

/// The audio track of a container.
pub(super) struct AudioTrack {
    pub(super) id: u32,
    pub(super) decoder: Box<dyn AudioDecoder>,
    pub(super) trim: Trim,
    /// How many frames the container says it has.
    pub(super) frames: Option<u64>,
    /// Whether fewer frames than that mean that the source is cut short.
    pub(super) frames_are_exact: bool,
}

/// Recognises the container and sets up the decoder of its audio track.
pub(super) fn open(source: Source) -> Result<Opened, DecodeError> {
    let (name, extension, input) = source.into_parts();
    let media = media_source(input).map_err(|error| DecodeError::Read {
        name: name.clone(),
        at: At { frame: 0, sample_rate: 0 },
        error,
    })?;
    let mut stream = MediaSourceStream::new(media, MediaSourceStreamOptions { buffer_len: BUFFER_BYTES });

    let mut head = [0; 12];
    let read = match guarded(|| Ok(stream.read_buf(&mut head)?)) {
        Err(fault) if fault.is_end_of_file() => return Err(DecodeError::NoAudio { name }),
        other => other.map_err(|fault| header_error(&name, fault))?,
    };
    stream.seek_buffered_rev(read);
    if !is_known(&head[..read]) && extension.as_deref() != Some("mp3") {
        return Err(DecodeError::UnknownFormat { name });
    }

    let probed =
        guarded(|| PROBE.probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default()));
    let format = match probed {
        Ok(format) => format,
        // What the probe says when it has found no reader.
        Err(Fault::Error(Error::Unsupported(what))) if what.starts_with("core (probe)") => {
            return Err(DecodeError::UnknownFormat { name });
        }
        Err(fault) => return Err(header_error(&name, fault)),
    };
    let track = audio_track(&name, format.as_ref())?;
    Ok(Opened { name, format, track })
}

fn media_source(input: Input) -> std::io::Result<Box<dyn MediaSource>> {
    Ok(match input {
        Input::File(mut file) => {
            if isomp4::is_cut_short(&mut file)? {
                Box::new(ReadOnlySource::new(file))
            } else {
                Box::new(file)
            }
        }
        Input::Memory(bytes) => {
            let mut bytes = Cursor::new(bytes);
            if isomp4::is_cut_short(&mut bytes)? {
                Box::new(ReadOnlySource::new(bytes))
            } else {
                Box::new(bytes)
            }
        }
        Input::Stream(reader) => Box::new(ReadOnlySource::new(reader)),
    })
}

/// Whether a file of a promised format may start with `head`.
///
/// The probe would also look further on, for a megabyte, and takes noise for MP3 sooner or later.
fn is_known(head: &[u8]) -> bool {
    match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => true,
        [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => true,
        [b'f', b'L', b'a', b'C', ..] | [b'O', b'g', b'g', b'S', ..] | [b'c', b'a', b'f', b'f', ..] => true,
        [b'I', b'D', b'3', ..] => true,
        // MPEG audio (ISO/IEC 11172-3, 2.4.2.3): eleven set bits, then version and layer; only layer III is decoded.
        [0xFF, second, ..] if second & 0xE6 == 0xE2 => true,
        // ISO/IEC 14496-12, 4.2: a box's type follows its length. Old QuickTime files start with other boxes.
        [_, _, _, _, kind @ ..] if kind.len() >= 4 => {
            matches!(&kind[..4], b"ftyp" | b"moov" | b"mdat" | b"free" | b"skip" | b"wide")
        }
        _ => false,
    }
}

/// The container's audio track, with a fresh decoder.
pub(super) fn audio_track(name: &str, format: &dyn FormatReader) -> Result<AudioTrack, DecodeError> {
    let unsupported = |what: &str| DecodeError::Unsupported { name: name.to_owned(), what: what.to_owned() };
    let Some(track) = format.default_track(TrackType::Audio).or_else(|| format.first_track(TrackType::Audio))
    else {
        let what =
            format!("no audio track that can be decoded in this {} file", format.format_info().short_name);
        return Err(unsupported(&what));
    };
    let params = track
        .codec_params
        .as_ref()
        .and_then(|params| params.audio())
        .expect("a track found by type has parameters of this type");
    if params.max_frames_per_packet.is_some_and(|frames| frames > PACKET_FRAMES_MAX) {
        return Err(unsupported("packets of more than a million frames"));
    }
    // An MP3 reader estimates the length where no header states it, and its decoder then cuts off what is longer:
    // speech, in files of varying bit rate. So MP3 is trimmed here, and only by what a header states.
    let is_mp3 = params.codec == CODEC_ID_MP3;
    let options = AudioDecoderOptions::default().gapless(!is_mp3);
    let decoder = guarded(|| get_codecs().make_audio_decoder(params, &options))
        .map_err(|fault| unsupported(&fault.describe()))?;
    let trim = match (is_mp3, track.delay) {
        (true, Some(delay)) => Trim::new(delay, track.padding.unwrap_or(0), track.num_frames),
        _ => Trim::default(),
    };
    let frames = if is_mp3 && track.delay.is_none() { None } else { track.num_frames };
    let frames_are_exact = is_mp3 || states_frames_exactly(format);
    Ok(AudioTrack { id: track.id, decoder, trim, frames, frames_are_exact })
}

/// Whether the container states how many frames a decoder must make. M4A's durations are rounded and include what
/// the encoder added; Ogg states none, the reader looks for the last page it can find.
fn states_frames_exactly(format: &dyn FormatReader) -> bool {
    let id = format.format_info().format;
    id == container::FORMAT_ID_WAVE
        || id == container::FORMAT_ID_AIFF
        || id == container::FORMAT_ID_CAF
        || id == container::FORMAT_ID_FLAC
}

/// Whether audio goes on to the end of the source where the container states no length.
pub(super) fn may_end_anywhere(format: &dyn FormatReader) -> bool {
    let id = format.format_info().format;
    id == container::FORMAT_ID_WAVE || id == container::FORMAT_ID_AIFF || id == container::FORMAT_ID_CAF
}

fn header_error(name: &str, fault: Fault) -> DecodeError {
    let name = name.to_owned();
    match fault {
        _ if fault.is_end_of_file() => {
            DecodeError::Header { name, what: "the file ends inside its header".to_owned() }
        }
        Fault::Error(Error::IoError(error)) => {
            DecodeError::Read { name, at: At { frame: 0, sample_rate: 0 }, error }
        }
        // What the M4A reader says when it has read everything it can reach.
        Fault::Error(Error::Unsupported(what)) if what.contains("missing moov") => DecodeError::Header {
            name,
            what: "no index (moov): it stands at the end, which a stream cannot go to, or is missing"
                .to_owned(),
        },
        Fault::Error(Error::Unsupported(what)) => DecodeError::Unsupported { name, what: what.to_owned() },
        fault => DecodeError::Header { name, what: fault.describe() },
    }
}
