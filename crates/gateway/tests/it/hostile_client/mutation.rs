//! Mutations of bytes and numbers.

use voxline_fixtures::random::Random;

/// Numbers that programs get wrong, as text.
const EXTREMES: [&str; 16] = [
    "0",
    "-0",
    "-1",
    "1",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.5",
    "1e308",
    "1e999",
];

pub(super) fn extreme(dice: &mut Random) -> &'static str {
    EXTREMES[dice.below(EXTREMES.len())]
}

/// Returns an extreme position in the audio, or one close to `near`.
pub(super) fn extreme_position(near: u64, dice: &mut Random) -> u64 {
    match dice.below(6) {
        0 => near.wrapping_add(dice.below(5) as u64).wrapping_sub(2),
        1 => dice.next(),
        2 => 0,
        _ => (1_u64 << [7, 31, 32, 53, 62, 63][dice.below(6)])
            .wrapping_mul(2)
            .wrapping_sub(dice.below(3) as u64),
    }
}

/// Replaces one of the numbers in `text`.
pub(super) fn renumber(text: &mut Vec<u8>, dice: &mut Random) {
    let is_start =
        |at: &usize| text[*at].is_ascii_digit() && (*at == 0 || !text[*at - 1].is_ascii_alphanumeric());
    let starts: Vec<usize> = (0..text.len()).filter(is_start).collect();
    if starts.is_empty() {
        return damage(text, dice);
    }
    let start = starts[dice.below(starts.len())];
    let end = start + text[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.splice(start..end, extreme(dice).bytes()).for_each(drop);
}

/// Flips, removes, repeats, fills, cuts off or inserts some bytes.
pub(super) fn damage(bytes: &mut Vec<u8>, dice: &mut Random) {
    const PIECES: [&[u8]; 8] =
        [b"\0", b"\r\n", b"\xFF\xFE", b"%00", b"\"", b"{\"a\":[", b"\xF0\x9F\x98\x80", b"\\u0000"];
    if bytes.is_empty() {
        return bytes.extend_from_slice(PIECES[dice.below(PIECES.len())]);
    }
    for _ in 0..1 + dice.below(3) {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        let place = dice.below(length);
        let block = place..(place + 1 + dice.below(32)).min(length);
        match dice.below(8) {
            0 => bytes[place] = dice.next() as u8,
            1 => bytes[place] ^= 1 << dice.below(8),
            2 => drop(bytes.drain(block)),
            3 => {
                let copy = bytes[block].to_vec();
                let to = dice.below(length);
                bytes.splice(to..to, copy).for_each(drop);
            }
            4 => bytes[block].fill(dice.next() as u8),
            5 => bytes.truncate(place),
            6 => {
                let number = extreme_position(length as u64, dice).to_le_bytes();
                bytes[place..].iter_mut().zip(number).for_each(|(byte, new)| *byte = new);
            }
            _ => bytes.splice(place..place, PIECES[dice.below(PIECES.len())].iter().copied()).for_each(drop),
        }
    }
}
