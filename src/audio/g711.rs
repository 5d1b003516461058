//! Decoding of G.711, the 8-bit encodings of telephony.

/// Decodes a mu-law code (ITU-T G.711, table 2a): a 14-bit value on a scale of 16 bits.
#[must_use]
pub const fn mu_law(code: u8) -> i16 {
    let code = !code as i16;
    let magnitude = (((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4);
    if code & 0x80 != 0 { 0x84 - magnitude } else { magnitude - 0x84 }
}

/// Decodes an A-law code (ITU-T G.711, table 1a): a 13-bit value on a scale of 16 bits.
#[must_use]
pub const fn a_law(code: u8) -> i16 {
    // Every other bit is sent inverted.
    let code = (code ^ 0x55) as i16;
    let (segment, step) = ((code & 0x70) >> 4, (code & 0x0F) << 4);
    let magnitude = if segment == 0 { step + 8 } else { (step + 0x108) << (segment - 1) };
    if code & 0x80 != 0 { magnitude } else { -magnitude }
}
