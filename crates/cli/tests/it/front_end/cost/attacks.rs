//! Files that cost a demuxer as much as they can. Each is the worst that was found by reading symphonia
//! 0.6.1, written by hand from its format's specification.

use super::super::specimens::{crc, mend_page};

/// A generator of a file of about this many bytes.
pub(super) type Attack = fn(usize) -> Vec<u8>;

/// Container, description of the attack, and generator of the file.
pub(super) const ATTACKS: [(&str, &str, Attack); 24] = [
    ("isomp4", "stts: 65,536 silent packets behind entries of none", times),
    ("isomp4", "stts: an entry a packet", jitter),
    ("isomp4", "stsc and stco: a chunk a byte", chunks),
    ("isomp4", "ctts: offsets without packets", offsets),
    ("isomp4", "trak: as many tracks as fit", tracks),
    ("isomp4", "trak and ilst: each track without an edit", untold),
    ("isomp4", "elst: an edit every 12 bytes", edits),
    ("isomp4", "trun: a fragment of all packets", fragment),
    ("isomp4", "moof: fragments of another track", fragments),
    ("ogg", "laces: 255 packets of one byte a page", laces),
    ("ogg", "pages within pages, all sums wrong", nested_pages),
    ("ogg", "chained streams of one packet", chain),
    ("ogg", "Vorbis setup: codebooks of 4 million values", codebooks),
    ("ogg", "Vorbis setup again and again", setups),
    ("matroska", "Cues found by every Seek", seeks),
    ("matroska", "Cues: a point every 10 bytes", cues),
    ("matroska", "laces: 256 empty frames a block", empty_frames),
    ("matroska", "Tracks: as many as fit", entries),
    ("mp3", "ID3v2: frames of no text", id3),
    ("mp3", "ID3v2: a tag every 10 bytes", id3_tags),
    ("mp3", "headers without frames", mp3_headers),
    ("flac", "frame headers without frames", flac_headers),
    ("caf", "pakt: packets of no bytes", packets),
    ("wave", "chunks of no bytes before ADPCM", wave_chunks),
];

fn be32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Returns copies of `part` that fill about this many bytes.
fn filled(bytes: usize, part: &[u8]) -> Vec<u8> {
    part.repeat(bytes / part.len())
}

// ISO/IEC 14496-12

fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&be32(&[content.len() as u32 + 8]), &kind[..], content].concat()
}

/// Returns the description of 16-bit little-endian PCM at 8 kHz, in QuickTime's form.
fn description() -> Vec<u8> {
    let entry = [&[0; 6][..], &[0, 1], &[0; 8], &[0, 1, 0, 16], &[0; 4], &be32(&[8_000 << 16])].concat();
    boxed(b"stsd", &[be32(&[0, 1]), boxed(b"sowt", &entry)].concat())
}

struct Tables<'a> {
    /// Entries of the durations.
    times: &'a [u8],
    /// Entries of the chunks, and positions of the chunks.
    chunks: &'a [u8],
    places: &'a [u8],
    /// Size of every packet, and number of packets.
    sizes: [u32; 2],
    more: &'a [u8],
    edits: &'a [u8],
}

fn track(id: u32, tables: &Tables) -> Vec<u8> {
    let count = |table: &[u8], entry: usize| be32(&[0, (table.len() / entry) as u32]);
    let table = [
        description(),
        boxed(b"stts", &[&count(tables.times, 8), tables.times].concat()),
        boxed(b"stsc", &[&count(tables.chunks, 12), tables.chunks].concat()),
        boxed(b"stsz", &be32(&[0, tables.sizes[0], tables.sizes[1]])),
        boxed(b"stco", &[&count(tables.places, 4), tables.places].concat()),
        tables.more.to_vec(),
    ];
    let handler = [&be32(&[0, 0]), &b"soun"[..], &[0; 13]].concat();
    let media = [
        boxed(b"mdhd", &be32(&[0, 0, 0, 8_000, 65_536, 0])),
        boxed(b"hdlr", &handler),
        boxed(b"minf", &boxed(b"stbl", &table.concat())),
    ];
    let header = [be32(&[0, 0, 0, id]), vec![0; 68]].concat();
    let edits = if tables.edits.is_empty() { Vec::new() } else { boxed(b"edts", tables.edits) };
    boxed(b"trak", &[boxed(b"tkhd", &header), edits, boxed(b"mdia", &media.concat())].concat())
}

fn movie(tracks: &[u8], audio: &[u8]) -> Vec<u8> {
    let header = boxed(b"mvhd", &[be32(&[0, 0, 0, 8_000, 0]), vec![0; 80]].concat());
    let start = [boxed(b"ftyp", b"M4A \0\0\0\0"), boxed(b"moov", &[&header, tracks].concat())].concat();
    [start, boxed(b"mdat", audio)].concat()
}

fn plain(times: &[u8]) -> Tables<'_> {
    Tables { times, chunks: &ONE_CHUNK, places: &[0, 0, 1, 0], sizes: [1, 65_536], more: &[], edits: &[] }
}

/// All packets in the first chunk.
const ONE_CHUNK: [u8; 12] = [0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 1];

fn times(bytes: usize) -> Vec<u8> {
    // Entries of no packets. The search for each packet's time passes them all.
    let times = [filled(bytes - 140_000, &[0; 8]), be32(&[65_536, 1])].concat();
    movie(&track(1, &plain(&times)), &[0; 131_072])
}

fn jitter(bytes: usize) -> Vec<u8> {
    // Eight bytes of table and two of audio for each packet.
    let count = bytes / 10;
    let times: Vec<u8> = (0..count as u32).flat_map(|at| be32(&[1, 1 + at % 2])).collect();
    let chunk = be32(&[1, count as u32, 1]);
    let tables = Tables { sizes: [2, count as u32], chunks: &chunk, ..plain(&times) };
    movie(&track(1, &tables), &vec![0; 2 * count])
}

fn chunks(bytes: usize) -> Vec<u8> {
    let count = (bytes - 70_000) / 16;
    let chunks: Vec<u8> = (0..count as u32).flat_map(|at| be32(&[at + 1, 1, 1])).collect();
    let places = be32(&vec![0; count]);
    let times = be32(&[65_536, 1]);
    movie(&track(1, &Tables { chunks: &chunks, places: &places, ..plain(&times) }), &[0; 65_536])
}

fn offsets(bytes: usize) -> Vec<u8> {
    let offsets = filled(bytes - 70_000, &[0, 0, 0, 1, 0, 0, 0, 0]);
    let offsets = boxed(b"ctts", &[&be32(&[0, (offsets.len() / 8) as u32]), &offsets[..]].concat());
    let times = be32(&[65_536, 1]);
    movie(&track(1, &Tables { more: &offsets, ..plain(&times) }), &[0; 65_536])
}

fn tracks(bytes: usize) -> Vec<u8> {
    let times = be32(&[65_536, 1]);
    let one = track(1, &plain(&times));
    movie(&filled(bytes - 70_000, &one), &[0; 65_536])
}

fn untold(bytes: usize) -> Vec<u8> {
    // Half of the file is comments without the one that is searched for, and half is tracks without an edit
    // of their own.
    let comment = boxed(b"----", &boxed(b"name", b"\0\0\0\0none"));
    let items = boxed(b"ilst", &filled(bytes / 2, &comment));
    let user = boxed(b"udta", &boxed(b"meta", &[be32(&[0]), items].concat()));
    let media = boxed(b"mdia", &boxed(b"mdhd", &be32(&[0, 0, 0, 8_000, 0, 0])));
    let one = boxed(b"trak", &[boxed(b"tkhd", &be32(&[0, 0, 0, 1])), media].concat());
    movie(&[user, filled(bytes / 2 - 70_000, &one)].concat(), &[0; 65_536])
}

fn edits(bytes: usize) -> Vec<u8> {
    let list = filled(bytes - 70_000, &[0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0, 1, 0, 0]);
    let list = boxed(b"elst", &[&be32(&[0, (list.len() / 12) as u32]), &list[..]].concat());
    let times = be32(&[65_536, 1]);
    movie(&track(1, &Tables { edits: &list, ..plain(&times) }), &[0; 65_536])
}

/// Returns a fragmented file whose index has no packets.
fn in_fragments(fragments: &[u8]) -> Vec<u8> {
    let no_packets = Tables { sizes: [1, 0], chunks: &[], places: &[], ..plain(&[]) };
    let defaults = boxed(b"mvex", &boxed(b"trex", &be32(&[0, 1, 1, 1, 2, 0])));
    let header = boxed(b"mvhd", &[be32(&[0, 0, 0, 8_000, 0]), vec![0; 80]].concat());
    let index = boxed(b"moov", &[header, track(1, &no_packets), defaults].concat());
    [&boxed(b"ftyp", b"isom\0\0\0\0"), &index[..], fragments].concat()
}

fn moof(number: u32, track: u32, run: &[u8]) -> Vec<u8> {
    let fragment = [boxed(b"tfhd", &be32(&[0x2_0000, track])), boxed(b"trun", run)].concat();
    boxed(b"moof", &[boxed(b"mfhd", &be32(&[0, number])), boxed(b"traf", &fragment)].concat())
}

fn fragment(bytes: usize) -> Vec<u8> {
    // A duration of four bytes and audio of two for each packet.
    let count = bytes / 6;
    let run = [be32(&[0x100, count as u32]), be32(&vec![1; count])].concat();
    in_fragments(&[moof(1, 1, &run), boxed(b"mdat", &vec![0; 2 * count])].concat())
}

fn fragments(bytes: usize) -> Vec<u8> {
    in_fragments(&filled(bytes, &moof(1, 2, &be32(&[0, 1]))))
}

// RFC 3533, RFC 7845, Vorbis I

fn page(flags: u8, serial: u32, number: u32, position: u64, packets: &[&[u8]]) -> Vec<u8> {
    let mut laces = Vec::new();
    for packet in packets {
        laces.extend(vec![255; packet.len() / 255]);
        laces.push((packet.len() % 255) as u8);
    }
    let mut page = [&b"OggS\0"[..], &[flags], &position.to_le_bytes(), &serial.to_le_bytes()].concat();
    page.extend(number.to_le_bytes());
    page.extend([0, 0, 0, 0, u8::try_from(laces.len()).unwrap()]);
    page.extend(laces);
    page.extend(packets.concat());
    mend_page(&mut page);
    page
}

/// Returns the headers of a mono Opus stream.
fn opus_headers(serial: u32) -> Vec<u8> {
    let head = [&b"OpusHead\x01\x01"[..], &[0, 0], &48_000_u32.to_le_bytes(), &[0, 0, 0]].concat();
    let tags = [&b"OpusTags"[..], &[0; 8]].concat();
    [page(2, serial, 0, 0, &[&head]), page(0, serial, 1, 0, &[&tags])].concat()
}

fn laces(bytes: usize) -> Vec<u8> {
    // Each packet is 2.5 ms of CELT in one byte.
    let body: Vec<&[u8]> = vec![&[0xE0]; 255];
    let mut file = opus_headers(1);
    for number in 0..(bytes / 537) as u32 {
        file.extend(page(0, 1, 2 + number, u64::from(number + 1) * 255 * 120, &body));
    }
    file
}

pub(crate) fn nested_pages(bytes: usize) -> Vec<u8> {
    // The laces of each page are the headers of the pages that follow it, and sum up to a page of some 58
    // KB.
    let header = [&b"OggS\0\0"[..], &[0xFF; 20], &[255]].concat();
    let first: &[u8] = &[0xE0];
    [opus_headers(1), page(0, 1, 2, 120, &[first]), filled(bytes, &header)].concat()
}

fn chain(bytes: usize) -> Vec<u8> {
    let one = |serial: u32| {
        let packet: &[u8] = &[0xE0];
        [opus_headers(serial), page(4, serial, 2, 120, &[packet])].concat()
    };
    let size = one(1).len();
    (0..(bytes / size) as u32).flat_map(|serial| one(serial + 1)).collect()
}

/// Packs the lowest bits of numbers one after another, the lowest first.
fn packed(fields: &[(u32, u32)]) -> Vec<u8> {
    let mut bytes = vec![0_u8; fields.iter().map(|field| field.1 as usize).sum::<usize>().div_ceil(8)];
    let mut at = 0;
    for &(value, width) in fields {
        for bit in 0..width {
            bytes[at / 8] |= ((value >> bit & 1) as u8) << (at % 8);
            at += 1;
        }
    }
    bytes
}

fn vorbis_identification() -> Vec<u8> {
    let rates = [44_100_u32.to_le_bytes(), [0; 4], [0; 4], [0; 4]].concat();
    [&b"\x01vorbis\0\0\0\0\x01"[..], &rates, &[0x66, 1]].concat()
}

/// Returns a setup of 256 codebooks, each of 131,072 entries of 31 values in 23 bytes.
fn vorbis_setup() -> Vec<u8> {
    let book = [
        (0x564342, 24),
        // With one more, symphonia's demuxer panics.
        (31, 16),
        (131_072, 24),
        (1, 1),
        (16, 5),
        (131_072, 18),
        (1, 4),
        (0, 32),
        (0, 32),
        (0, 4),
        (0, 1),
        (0, 1),
    ];
    let fields: Vec<(u32, u32)> = [(255, 8)].into_iter().chain(book.repeat(256)).collect();
    [&b"\x05vorbis"[..], &packed(&fields)].concat()
}

fn codebooks(bytes: usize) -> Vec<u8> {
    let comment = [&b"\x03vorbis"[..], &[0; 8], &[1]].concat();
    let (identification, setup) = (vorbis_identification(), vorbis_setup());
    let audio: &[u8] = &[0];
    let one = |serial: u32| {
        let first = page(2, serial, 0, 0, &[&identification]);
        [first, page(0, serial, 1, 0, &[&comment, &setup]), page(4, serial, 2, 64, &[audio, audio])].concat()
    };
    let size = one(1).len();
    (0..(bytes / size).max(1) as u32).flat_map(|serial| one(serial + 1)).collect()
}

fn setups(bytes: usize) -> Vec<u8> {
    let body: Vec<&[u8]> = vec![b"\x05vorbis"; 255];
    let mut file = page(2, 1, 0, 0, &[&vorbis_identification()]);
    for number in 0..(bytes / 2_067) as u32 {
        file.extend(page(0, 1, 1 + number, 0, &body));
    }
    file
}

// RFC 8794, RFC 9559

/// Returns an element with its size in eight bytes.
fn element(id: &[u8], content: &[u8]) -> Vec<u8> {
    [id, &(content.len() as u64 | 1 << 56).to_be_bytes(), content].concat()
}

/// Returns an element of less than 127 bytes.
fn short(id: &[u8], content: &[u8]) -> Vec<u8> {
    [id, &[0x80 | u8::try_from(content.len()).unwrap()], content].concat()
}

const SEEK_HEAD: [u8; 4] = [0x11, 0x4D, 0x9B, 0x74];
const INFO: [u8; 4] = [0x15, 0x49, 0xA9, 0x66];
const TRACKS: [u8; 4] = [0x16, 0x54, 0xAE, 0x6B];
const CUES: [u8; 4] = [0x1C, 0x53, 0xBB, 0x6B];
const CLUSTER: [u8; 4] = [0x1F, 0x43, 0xB6, 0x75];

fn matroska(segment: &[u8]) -> Vec<u8> {
    let header = element(&[0x1A, 0x45, 0xDF, 0xA3], &short(&[0x42, 0x82], b"webm"));
    [header, element(&[0x18, 0x53, 0x80, 0x67], segment)].concat()
}

/// Returns a track of PCM.
fn entry(number: u8) -> Vec<u8> {
    let audio = [short(&[0xB5], &8_000_f32.to_be_bytes()), short(&[0x9F], &[1]), short(&[0x62, 0x64], &[16])];
    let content = [
        short(&[0xD7], &[number]),
        short(&[0x73, 0xC5], &[number]),
        short(&[0x83], &[2]),
        short(&[0x86], b"A_PCM/INT/LIT"),
        short(&[0xE1], &audio.concat()),
    ];
    short(&[0xAE], &content.concat())
}

/// Returns the information element: a clock of milliseconds, and the program that wrote the file.
fn info() -> Vec<u8> {
    let scale = short(&[0x2A, 0xD7, 0xB1], &[0x0F, 0x42, 0x40]);
    element(&INFO, &[scale, short(&[0x4D, 0x80], b"a"), short(&[0x57, 0x41], b"a")].concat())
}

/// Returns the elements before the audio.
fn start() -> Vec<u8> {
    [info(), element(&TRACKS, &entry(1))].concat()
}

fn cluster(blocks: &[u8]) -> Vec<u8> {
    element(&CLUSTER, &[&short(&[0xE7], &[0]), blocks].concat())
}

fn points(bytes: usize) -> Vec<u8> {
    let positions = short(&[0xB7], &[short(&[0xF7], &[1]), short(&[0xF1], &[1])].concat());
    filled(bytes, &short(&[0xBB], &[short(&[0xB3], &[1]), positions].concat()))
}

fn cues(bytes: usize) -> Vec<u8> {
    let block = short(&[0xA3], &[0x81, 0, 0, 0x80, 0, 0]);
    matroska(&[start(), element(&CUES, &points(bytes)), cluster(&block)].concat())
}

fn seeks(bytes: usize) -> Vec<u8> {
    // Half of the file is seeks, and half is the cues to which each seek leads. Symphonia does not look at
    // anything before the end of the first cluster's header.
    let block = short(&[0xA3], &[&[0x81, 0, 0, 0x80][..], &[0; 100]].concat());
    let seek = |place: u32| {
        let to = [short(&[0x53, 0xAB], &CUES), short(&[0x53, 0xAC], &place.to_be_bytes())].concat();
        short(&[0x4D, 0xBB], &to)
    };
    let cluster = cluster(&block);
    let head = bytes / 2 / seek(0).len() * seek(0).len() + 12;
    let place = (head + start().len() + cluster.len()) as u32;
    let head = element(&SEEK_HEAD, &filled(bytes / 2, &seek(place)));
    matroska(&[head, start(), cluster, element(&CUES, &points(bytes / 2))].concat())
}

fn empty_frames(bytes: usize) -> Vec<u8> {
    // Fixed-size lacing of 256 frames without any bytes.
    matroska(&[start(), cluster(&filled(bytes, &short(&[0xA3], &[0x81, 0, 0, 0x84, 255])))].concat())
}

fn entries(bytes: usize) -> Vec<u8> {
    let block = short(&[0xA3], &[0x81, 0, 0, 0x80, 0, 0]);
    matroska(&[info(), element(&TRACKS, &filled(bytes, &entry(1))), cluster(&block)].concat())
}

// ID3v2.4, ISO/IEC 11172-3

fn synchsafe(size: usize) -> [u8; 4] {
    [21, 14, 7, 0].map(|shift| (size >> shift) as u8 & 0x7F)
}

fn id3_tag(frames: &[u8]) -> Vec<u8> {
    [&b"ID3\x04\0\0"[..], &synchsafe(frames.len()), frames].concat()
}

fn id3(bytes: usize) -> Vec<u8> {
    let frame = [&b"TIT2"[..], &synchsafe(2), &[0, 0, 3, 0x20]].concat();
    id3_tag(&filled(bytes, &frame))
}

fn id3_tags(bytes: usize) -> Vec<u8> {
    filled(bytes, &id3_tag(&[]))
}

fn mp3_headers(bytes: usize) -> Vec<u8> {
    filled(bytes, &[0xFF, 0xFB, 0x90, 0x64])
}

// RFC 9639

fn flac_headers(bytes: usize) -> Vec<u8> {
    // Blocks of 192 to 4,096 frames, of unknown length, mono, 16 bits, 44.1 kHz.
    let info =
        [&[0, 192, 16, 0, 0, 0, 0, 0, 0, 0, 0x0A, 0xC4, 0x40, 0xF0, 0, 0, 0, 0][..], &[0; 16]].concat();
    let mut file = [&b"fLaC\x80\0\0\x22"[..], &info].concat();
    let mut number = 0_u32;
    while file.len() < bytes {
        // Variable block size, with the number of the first sample in three bytes of UTF-8.
        number = number % 60_000 + 1;
        let digits =
            [0xE0 | (number >> 12) as u8, 0x80 | (number >> 6 & 0x3F) as u8, 0x80 | (number & 0x3F) as u8];
        let header = [&[0xFF, 0xF9, 0xC9, 0x08][..], &digits].concat();
        file.extend(&header);
        file.extend([crc(&header, 8, 0x07) as u8, 0, 0]);
    }
    file
}

// Apple Core Audio Format 1.0

fn packets(bytes: usize) -> Vec<u8> {
    let chunk = |kind: &[u8], content: &[u8]| [kind, &(content.len() as u64).to_be_bytes(), content].concat();
    let description = [&16_000_f64.to_be_bytes()[..], b"alac", &be32(&[0, 0, 4_096, 1, 16])].concat();
    // Frames, channels and rate of ALAC.
    let cookie = [&be32(&[4_096])[..], &[0, 16, 40, 10, 14, 1, 0, 255], &be32(&[0, 0, 16_000])];
    let table = [&(bytes as u64).to_be_bytes()[..], &[0; 16], &vec![0; bytes]].concat();
    [
        b"caff\0\x01\0\0".to_vec(),
        chunk(b"desc", &description),
        chunk(b"kuki", &cookie.concat()),
        chunk(b"pakt", &table),
        chunk(b"data", &[0; 5]),
    ]
    .concat()
}

// RIFF

fn wave_chunks(bytes: usize) -> Vec<u8> {
    let format =
        [&[0x11, 0, 1, 0][..], &8_000_u32.to_le_bytes(), &4_055_u32.to_le_bytes(), &[0, 1, 4, 0, 2, 0]];
    let format = [&format.concat()[..], &505_u16.to_le_bytes()].concat();
    let content = [
        &b"WAVEfmt "[..],
        &(format.len() as u32).to_le_bytes(),
        &format,
        &filled(bytes, b"LIST\x04\0\0\0INFO"),
        b"data",
        &256_u32.to_le_bytes(),
        &[0; 256],
    ]
    .concat();
    [&b"RIFF"[..], &(content.len() as u32).to_le_bytes(), &content].concat()
}
