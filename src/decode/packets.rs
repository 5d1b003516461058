//! Containers: packets from symphonia's demuxers, frames from the codec's decoder.

use std::io;

use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP3, CODEC_ID_OPUS, CODEC_ID_VORBIS};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::well_known as container;
use symphonia::core::formats::{FormatReader, Track, TrackType};
use symphonia::core::packet::Packet;
use symphonia::default::get_codecs;

use super::channels::{Block, Channels, Spec};
use super::isomp4::Layout;
use super::opening::Progress;
#[cfg(feature = "opus")]
use super::opus::{OPUS_RATE, OpusHead};
#[cfg(feature = "opus")]
use super::opus_track::OpusTrack;
use super::trim::Trim;
use super::{DecodeFault, Options, mix, vorbis};
use crate::audio::PcmFormat;
#[cfg(feature = "opus")]
use crate::resample::frames_at;

/// Largest number of frames that one packet may announce. The longest real packets (FLAC) have 65,535; a
/// crafted header could otherwise make a decoder reserve gigabytes.
const PACKET_FRAMES_MAX: u64 = 1 << 20;

/// Largest number of consecutive broken packets: some 6 s of MP3. A worse file is not worth decoding.
const BROKEN_RUN_MAX: u32 = 256;

/// Largest number of consecutive packets without audio of the track, such as those of a video beside it:
/// 18 min at 60 pictures a second. Without this limit, a reader that never ends would go unnoticed.
const SILENT_RUN_MAX: u32 = 1 << 16;

/// Reason why a track cannot be decoded.
pub(super) struct Refused(pub(super) String);

/// Reason why there are no more frames.
pub(super) enum Stop {
    /// The container states that this was the end, or the source ends where it may.
    End,
    /// Audio is missing.
    CutShort,
    /// The rest is broken.
    Broken(DecodeFault),
    /// The rate or the channel count changed to these values.
    Changed(Spec),
    /// The requested channel does not exist; the number of channels is given.
    NoChannel(usize),
    /// The source cannot be read.
    Unreadable(io::Error),
}

/// A demuxer, and the decoder of its audio track.
pub(super) struct Packets {
    format: Box<dyn FormatReader>,
    progress: Progress,
    layout: Layout,
    /// `true` if the end of the source is known to be missing.
    is_cut_short: bool,
    options: Options,
    track: AudioTrack,
    /// Properties of the first good packet, which all other packets must share.
    spec: Option<Spec>,
    /// Number of frames of broken packets. These frames become silence before the next good packet, so
    /// that the audio after them keeps its place in time.
    missing: u64,
    /// Number of packets since the last one that yielded audio, and since the last one that was not
    /// broken.
    silent_run: u32,
    broken_run: u32,
    /// Number of broken packets.
    pub(super) skipped: u64,
}

struct AudioTrack {
    id: u32,
    codec: Codec,
    trim: Trim,
    /// Number of frames in one unit of the track's clock, as a fraction.
    tick: (u64, u64),
    /// Number of frames that the container states.
    frames: Option<u64>,
    /// `true` if fewer frames than `frames` mean that the source is cut short.
    frames_are_exact: bool,
}

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    #[cfg(feature = "opus")]
    Opus(OpusTrack),
}

impl Packets {
    pub(super) fn new(
        format: Box<dyn FormatReader>,
        progress: Progress,
        layout: Layout,
        is_cut_short: bool,
        options: &Options,
    ) -> Result<Packets, Refused> {
        let track = audio_track(format.as_ref(), &layout, options)?;
        Ok(Packets {
            format,
            progress,
            layout,
            is_cut_short,
            options: *options,
            track,
            spec: None,
            missing: 0,
            silent_run: 0,
            broken_run: 0,
            skipped: 0,
        })
    }

    pub(super) fn container(&self) -> &'static str {
        self.format.format_info().short_name
    }

    pub(super) fn codec(&self) -> &'static str {
        match &self.track.codec {
            Codec::Symphonia(decoder) => decoder.codec_info().short_name,
            #[cfg(feature = "opus")]
            Codec::Opus(_) => "opus",
        }
    }

    /// Returns the properties of the stream, known from its first good packet on. Opus is decoded at the
    /// requested rate, but its clock always counts at 48 kHz.
    pub(super) fn spec(&self) -> Option<Spec> {
        self.spec
    }

    /// Returns the rate of the decoded frames.
    pub(super) fn sample_rate(&self) -> Option<u32> {
        match &self.track.codec {
            Codec::Symphonia(_) => self.spec.map(|spec| spec.sample_rate),
            #[cfg(feature = "opus")]
            Codec::Opus(opus) => Some(opus.sample_rate()),
        }
    }

    /// Returns the number of frames that the container states.
    pub(super) fn frames(&self) -> Option<u64> {
        self.track.frames
    }

    /// Returns whether the container states that it holds no frames.
    pub(super) fn is_empty(&self) -> bool {
        self.track.frames_are_exact && self.track.frames == Some(0)
    }

    /// Decodes the next packet into `block`, which is empty and may stay empty. `position` is the number
    /// of frames delivered before.
    pub(super) fn read(&mut self, position: u64, block: &mut Block) -> Result<(), Stop> {
        if self.track.trim.is_at_end() {
            return Err(Stop::End);
        }
        if self.silent_run > SILENT_RUN_MAX {
            return Err(Stop::Broken(DecodeFault::Silent { packets: SILENT_RUN_MAX }));
        }
        self.silent_run += 1;
        let packet = match self.format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(self.ended(position)),
            // Another stream follows in the same file, as Ogg allows.
            Err(Error::ResetRequired) => {
                self.track = audio_track(self.format.as_ref(), &self.layout, &self.options)
                    .map_err(|Refused(what)| Stop::Broken(DecodeFault::Malformed(what)))?;
                return Ok(());
            }
            Err(error) if is_end_of_file(&error) => return Err(self.out_of_bytes(position)),
            Err(Error::IoError(error)) => return Err(Stop::Unreadable(error)),
            Err(error) => return Err(Stop::Broken(DecodeFault::Malformed(describe(&error)))),
        };
        self.progress.made();
        if packet.track_id != self.track.id {
            return Ok(());
        }
        self.decode(&packet, block)?;
        self.track.trim.apply(block.planes_mut());
        if block.frames() > 0 {
            self.silent_run = 0;
        }
        Ok(())
    }

    fn decode(&mut self, packet: &Packet, block: &mut Block) -> Result<(), Stop> {
        let channels = self.options.channels;
        let why = match &mut self.track.codec {
            #[cfg(feature = "opus")]
            Codec::Opus(opus) => {
                admit(&mut self.spec, opus.spec(), channels, block)?;
                opus.decode(packet, channels, block.planes_mut()).err()
            }
            Codec::Symphonia(decoder) => match decoder.decode(packet) {
                Ok(decoded) if decoded.frames() == 0 => return Ok(()),
                Ok(decoded) => {
                    let (sample_rate, count) = (decoded.spec().rate(), decoded.spec().channels().count());
                    admit(&mut self.spec, Spec { sample_rate, channels: count }, channels, block)?;
                    silence(std::mem::take(&mut self.missing), block);
                    mix::append(&decoded, channels, block.planes_mut());
                    None
                }
                // The packet is in memory already, so a lack of bytes means that the packet is broken,
                // not the source.
                Err(error @ (Error::DecodeError(_) | Error::IoError(_))) => {
                    self.missing += self.track.frames_of(packet);
                    // The silence is bounded by the largest packet, since all of it becomes one block.
                    if self.missing > PACKET_FRAMES_MAX {
                        return Err(Stop::Broken(DecodeFault::BrokenFrames { frames: self.missing }));
                    }
                    Some(describe(&error))
                }
                Err(error) => return Err(Stop::Broken(DecodeFault::Malformed(describe(&error)))),
            },
        };
        let Some(why) = why else {
            self.broken_run = 0;
            return Ok(());
        };
        self.skipped += 1;
        self.broken_run += 1;
        if self.broken_run < BROKEN_RUN_MAX {
            Ok(())
        } else {
            let last = Box::new(DecodeFault::Malformed(why));
            Err(Stop::Broken(DecodeFault::BrokenPackets { packets: BROKEN_RUN_MAX, last }))
        }
    }

    /// Returns the expected number of frames, at the rate of decoding.
    fn wanted(&self) -> Option<u64> {
        let frames = self.track.frames?;
        Some(match &self.track.codec {
            Codec::Symphonia(_) => frames,
            #[cfg(feature = "opus")]
            Codec::Opus(opus) => frames_at(frames, OPUS_RATE, opus.sample_rate()),
        })
    }

    /// Returns the reason for the end, if the demuxer has no more packets.
    fn ended(&self, position: u64) -> Stop {
        let wanted = self.wanted().filter(|_| self.track.frames_are_exact);
        if self.is_cut_short || wanted.is_some_and(|wanted| position < wanted) {
            Stop::CutShort
        } else {
            Stop::End
        }
    }

    /// Returns the reason for the end, if the source has no more bytes although the demuxer needs some.
    fn out_of_bytes(&self, position: u64) -> Stop {
        let has_all = match self.wanted() {
            Some(wanted) => position >= wanted,
            None => may_end_anywhere(self.format.as_ref()),
        };
        if has_all { self.ended(position) } else { Stop::CutShort }
    }
}

impl AudioTrack {
    /// Returns the number of frames that a packet claims to have.
    fn frames_of(&self, packet: &Packet) -> u64 {
        let (frames, ticks) = self.tick;
        (packet.dur.get().saturating_mul(frames) / ticks).min(PACKET_FRAMES_MAX)
    }
}

/// Records the properties of a packet, which must be those of all packets, and prepares the planes of
/// `block`.
fn admit(known: &mut Option<Spec>, spec: Spec, channels: Channels, block: &mut Block) -> Result<(), Stop> {
    if spec.sample_rate == 0 || spec.channels == 0 {
        let Spec { sample_rate, channels } = spec;
        return Err(Stop::Broken(DecodeFault::Format { sample_rate, channels }));
    }
    if *known.get_or_insert(spec) != spec {
        return Err(Stop::Changed(spec));
    }
    block.clear(channels.planes(spec.channels).ok_or(Stop::NoChannel(spec.channels))?);
    Ok(())
}

/// Appends silence.
fn silence(frames: u64, block: &mut Block) {
    for plane in block.planes_mut() {
        plane.resize(plane.len() + frames as usize, 0.0);
    }
}

/// Returns the container's audio track, with a new decoder.
fn audio_track(format: &dyn FormatReader, layout: &Layout, options: &Options) -> Result<AudioTrack, Refused> {
    let track = format.default_track(TrackType::Audio).or_else(|| format.first_track(TrackType::Audio));
    let Some(track) = track else {
        let container = format.format_info().short_name;
        return Err(Refused(format!("no audio track that can be decoded in this {container} file")));
    };
    let params = track
        .codec_params
        .as_ref()
        .and_then(|params| params.audio())
        .expect("a track found by type has parameters of this type");
    if params.max_frames_per_packet.is_some_and(|frames| frames > PACKET_FRAMES_MAX) {
        return Err(Refused("packets of more than a million frames".to_owned()));
    }
    let channels = params.channels.as_ref().map_or(0, symphonia::core::audio::Channels::count);
    if channels > PcmFormat::CHANNELS_MAX {
        return Err(Refused(format!("{channels} channels")));
    }
    if params.codec == CODEC_ID_OPUS {
        return opus_track(track, params.extra_data.as_deref(), layout, options);
    }
    if params.codec == CODEC_ID_VORBIS {
        let checked = vorbis::check(params.extra_data.as_deref().unwrap_or_default());
        checked.map_err(|why| Refused(format!("Vorbis: {why}")))?;
    }
    // An MP3 reader estimates the length if no header states it, and its decoder then cuts off what
    // exceeds the estimate: speech, in files of varying bit rate. So MP3 is trimmed here, and only by
    // what a header states.
    let is_mp3 = params.codec == CODEC_ID_MP3;
    let decoder = AudioDecoderOptions::default().gapless(!is_mp3);
    let decoder =
        get_codecs().make_audio_decoder(params, &decoder).map_err(|error| Refused(describe(&error)))?;
    let sample_rate = params.sample_rate.unwrap_or(0);
    let (trim, frames) = layout.trim(track.id, sample_rate).unwrap_or_else(|| stated_trim(track, is_mp3));
    Ok(AudioTrack {
        id: track.id,
        codec: Codec::Symphonia(decoder),
        trim,
        tick: tick(track, sample_rate),
        frames,
        frames_are_exact: is_mp3 || states_frames_exactly(format),
    })
}

/// Returns the trimmer for the frames of a track without an edit, and the number of frames that it leaves.
fn stated_trim(track: &Track, is_mp3: bool) -> (Trim, Option<u64>) {
    match track.delay {
        Some(delay) if is_mp3 => {
            (Trim::stated(delay, track.padding.unwrap_or(0), track.num_frames), track.num_frames)
        }
        None if is_mp3 => (Trim::default(), None),
        _ => (Trim::default(), track.num_frames),
    }
}

#[cfg(not(feature = "opus"))]
fn opus_track(_: &Track, _: Option<&[u8]>, _: &Layout, _: &Options) -> Result<AudioTrack, Refused> {
    Err(Refused("Opus: this build is without the feature `opus` of voxline".to_owned()))
}

#[cfg(feature = "opus")]
fn opus_track(
    track: &Track,
    head: Option<&[u8]>,
    layout: &Layout,
    options: &Options,
) -> Result<AudioTrack, Refused> {
    let head = OpusHead::parse(head.unwrap_or_default()).map_err(|why| Refused(format!("Opus: {why}")))?;
    let delay = u64::from(head.pre_skip);
    let codec = OpusTrack::new(head, options).map_err(|why| Refused(format!("Opus: {why}")))?;
    let edited = layout.trim(track.id, OPUS_RATE).and_then(|(_, frames)| frames);
    let at_rate = |frames| frames_at(frames, OPUS_RATE, codec.sample_rate());
    Ok(AudioTrack {
        id: track.id,
        trim: Trim::edited(at_rate(delay), edited.map(at_rate)),
        tick: tick(track, codec.sample_rate()),
        codec: Codec::Opus(codec),
        // Ogg counts from before the pre-skip.
        frames: edited.or(track.num_frames.map(|frames| frames.saturating_sub(delay))),
        frames_are_exact: false,
    })
}

/// Returns the number of frames in a unit of the track's clock, as a fraction.
fn tick(track: &Track, sample_rate: u32) -> (u64, u64) {
    match track.time_base {
        Some(base) if sample_rate > 0 => {
            (u64::from(base.numer.get()) * u64::from(sample_rate), base.denom.get().into())
        }
        _ => (1, 1),
    }
}

/// Returns whether the container states how many frames a decoder must yield. The durations of M4A are
/// rounded and include what the encoder added; Ogg states none, and its reader looks for the last page
/// that it can find.
fn states_frames_exactly(format: &dyn FormatReader) -> bool {
    let id = format.format_info().format;
    [
        container::FORMAT_ID_FLAC,
        container::FORMAT_ID_WAVE,
        container::FORMAT_ID_AIFF,
        container::FORMAT_ID_CAF,
    ]
    .contains(&id)
}

/// Returns whether audio continues to the end of the source if the container states no length.
fn may_end_anywhere(format: &dyn FormatReader) -> bool {
    let id = format.format_info().format;
    id != container::FORMAT_ID_FLAC && states_frames_exactly(format) || id == container::FORMAT_ID_MKV
}

/// Returns whether the source has no more bytes although the format needs some.
fn is_end_of_file(error: &Error) -> bool {
    matches!(error, Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof)
}

/// Returns the description of an error, for a message.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::DecodeError(what) | Error::Unsupported(what) | Error::LimitError(what) => (*what).to_owned(),
        error => error.to_string(),
    }
}
