//! Recognition of the format of a source, and the choice of its reader.

use std::io;
use std::sync::LazyLock;

use symphonia::core::errors::Error;
use symphonia::core::formats::probe::{Hint, Probe};
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{formats, meta};

use super::guard::guarded;
use super::isomp4::{Layout, LayoutError};
use super::meter::{Meter, MeteredSource};
use super::opening::{Opening, Progress};
use super::packets::{Packets, Refused};
use super::pcm::{PcmHeader, PcmReader};
use super::{At, DecodeError, DecodeFault, Options, Reader, aiff, caf, matroska, ogg, wave};
use crate::audio::PcmFormat;
use crate::source::{Input, Source};

/// Size of the read buffer: a power of two above symphonia's largest read of 32 KiB.
const BUFFER_BYTES: usize = 64 * 1024;

/// Readers of the documented formats, and no others: each reader adds attack surface for hostile input.
static PROBE: LazyLock<Probe> = LazyLock::new(|| {
    let mut probe = Probe::new();
    probe.register_format::<formats::WavReader<'_>>();
    probe.register_format::<formats::FlacReader<'_>>();
    probe.register_format::<formats::MpaReader<'_>>();
    probe.register_format::<formats::OggReader<'_>>();
    probe.register_format::<formats::IsoMp4Reader<'_>>();
    probe.register_format::<formats::MkvReader<'_>>();
    probe.register_format::<formats::AiffReader<'_>>();
    probe.register_format::<formats::CafReader<'_>>();
    // ID3v2 tags stand before the audio of most MP3 files, pictures included.
    probe.register_metadata::<meta::Id3v2Reader<'_>>();
    probe
});

/// Recognises the container and prepares its reader. Also returns the length of the source in bytes, if
/// it is known.
pub(super) fn open(
    source: Source,
    options: &Options,
    meter: &Meter,
) -> Result<(Reader, Option<u64>), DecodeError> {
    let (name, extension, format, input) = source.into_parts();
    let reader = guarded(|| match format {
        Some(format) => headerless(&name, format, input, meter),
        None => contained(&name, extension.as_deref(), input, options, meter),
    });
    match reader {
        Ok(reader) => reader,
        Err(fault) => Err(DecodeError::Header { name, fault }),
    }
}

fn headerless(
    name: &str,
    format: PcmFormat,
    input: Input,
    meter: &Meter,
) -> Result<(Reader, Option<u64>), DecodeError> {
    let opening = Opening::new(input, meter.clone());
    let length = opening.length().map_err(|error| unreadable(name, error))?;
    meter.add_bytes(length.unwrap_or(0));
    // A partial frame at the end is dropped: nothing states that more should follow.
    let frame = format.frame_bytes() as u64;
    let bytes = length.map(|length| length - length % frame);
    Ok((Reader::Pcm { reader: PcmReader::new(opening.rest(), format, bytes), container: "raw" }, length))
}

fn contained(
    name: &str,
    extension: Option<&str>,
    input: Input,
    options: &Options,
    meter: &Meter,
) -> Result<(Reader, Option<u64>), DecodeError> {
    let unreadable = |error| unreadable(name, error);
    let mut opening = Opening::new(input, meter.clone());
    let length = opening.length().map_err(unreadable)?;
    meter.add_bytes(length.unwrap_or(0));
    let mut head = [0; 12];
    let read = opening.fill(&mut head).map_err(unreadable)?;
    if read == 0 {
        return Err(DecodeError::NoAudio { name: name.to_owned() });
    }
    let head = &head[..read];
    if !is_known(head) && extension != Some("mp3") {
        return Err(DecodeError::UnknownFormat { name: name.to_owned() });
    }
    opening.rewind().map_err(unreadable)?;

    if let Some(header) = pcm_header(&mut opening).map_err(unreadable)? {
        let reader = PcmReader::new(opening.rest(), header.format, header.bytes);
        return Ok((Reader::Pcm { reader, container: header.container }, length));
    }
    let (layout, is_cut_short) = layout(name, head, &mut opening)?;
    opening.rewind().map_err(unreadable)?;
    let progress = Progress::default();
    // A reader that goes front to back can decode the part of a file that is present.
    let media = opening.media(is_cut_short, progress.clone());
    let format = format_reader(name, MeteredSource::new(media, meter.clone(), length.is_none()))?;
    let packets = Packets::new(format, progress, layout, is_cut_short, options)
        .map_err(|Refused(what)| unsupported(name, what))?;
    Ok((Reader::Packets(Box::new(packets)), length))
}

/// Returns the header of a file of PCM, which we read ourselves, and leaves `opening` behind it. Returns
/// `None` for other files, with `opening` at their start.
fn pcm_header(opening: &mut Opening) -> io::Result<Option<PcmHeader>> {
    for read_header in [wave::read, aiff::read, caf::read] {
        match read_header(opening) {
            Ok(None) => {}
            // The next reader reports that the header is incomplete.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            found => return found,
        }
        opening.rewind()?;
    }
    Ok(None)
}

/// Checks the tables of a container before symphonia sees them. Returns the layout of an M4A file, and
/// whether the audio goes beyond the end of the source.
fn layout(name: &str, head: &[u8], opening: &mut Opening) -> Result<(Layout, bool), DecodeError> {
    let unreadable = |error| unreadable(name, error);
    let is_cut_short = match head {
        [b'O', b'g', b'g', b'S', ..] => ogg::is_cut_short(opening).map_err(unreadable)?,
        [0x1A, 0x45, 0xDF, 0xA3, ..] => matroska::is_cut_short(opening).map_err(unreadable)?,
        head if is_isomp4(head) => {
            let layout = Layout::read(opening).map_err(|error| layout_error(name, error))?;
            let is_cut_short = layout.is_cut_short;
            return Ok((layout, is_cut_short));
        }
        [b'c', b'a', b'f', b'f', ..] => {
            let checked = caf::check(opening).map_err(unreadable)?;
            checked.map_err(|what| unsupported(name, what))?;
            false
        }
        _ => false,
    };
    Ok((Layout::default(), is_cut_short))
}

/// Returns symphonia's reader of the container.
fn format_reader(name: &str, media: MeteredSource) -> Result<Box<dyn FormatReader>, DecodeError> {
    let options = MediaSourceStreamOptions { buffer_len: BUFFER_BYTES };
    let stream = MediaSourceStream::new(Box::new(media), options);
    PROBE
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|error| header_error(name, error))
}

/// Returns whether a file of a supported format may start with `head`.
///
/// The probe would also search further on, for a megabyte, and sooner or later takes noise for MP3.
fn is_known(head: &[u8]) -> bool {
    match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => true,
        [b'R' | b'B', b'F' | b'W', b'6', b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..] => true,
        [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => true,
        [b'f', b'L', b'a', b'C', ..] | [b'O', b'g', b'g', b'S', ..] | [b'c', b'a', b'f', b'f', ..] => true,
        // EBML (RFC 8794, 11.2): Matroska and WebM.
        [0x1A, 0x45, 0xDF, 0xA3, ..] => true,
        [b'I', b'D', b'3', ..] => true,
        // MPEG audio (ISO/IEC 11172-3, 2.4.2.3): eleven set bits, then version and layer; only layer III
        // is decoded.
        [0xFF, second, ..] if second & 0xE6 == 0xE2 => true,
        head => is_isomp4(head),
    }
}

/// Returns whether `head` is that of an MP4 or QuickTime file. ISO/IEC 14496-12, 4.2: the type of a box
/// follows its length. Old QuickTime files start with other boxes.
fn is_isomp4(head: &[u8]) -> bool {
    matches!(head.get(4..8), Some(b"ftyp" | b"moov" | b"mdat" | b"free" | b"skip" | b"wide"))
}

fn unreadable(name: &str, error: io::Error) -> DecodeError {
    DecodeError::Read { name: name.to_owned(), at: At::START, error }
}

fn unsupported(name: &str, what: String) -> DecodeError {
    DecodeError::Unsupported { name: name.to_owned(), what }
}

fn layout_error(name: &str, error: LayoutError) -> DecodeError {
    match error {
        LayoutError::Io(error) => unreadable(name, error),
        LayoutError::Refused(what) => unsupported(name, what),
        LayoutError::Broken(fault) => DecodeError::Header { name: name.to_owned(), fault },
    }
}

fn header_error(name: &str, error: Error) -> DecodeError {
    let named = name.to_owned();
    let broken = |fault| DecodeError::Header { name: name.to_owned(), fault };
    match error {
        Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            broken(DecodeFault::CutShort)
        }
        Error::IoError(error) => unreadable(name, error),
        // The probe's message if it has found no reader.
        Error::Unsupported(what) if what.starts_with("core (probe)") => {
            DecodeError::UnknownFormat { name: named }
        }
        // The M4A reader's message after it has read everything that it can reach.
        Error::Unsupported(what) if what.contains("missing moov") => broken(DecodeFault::NoIndex),
        Error::Unsupported(what) => DecodeError::Unsupported { name: named, what: what.to_owned() },
        error => broken(DecodeFault::Malformed(super::packets::describe(&error))),
    }
}
