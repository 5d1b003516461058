//! A parser of `multipart/form-data` (RFC 7578) that holds no more than the head of a part and one piece of
//! its data.
//!
//! The parser does no input or output: [`Multipart::feed`] takes bytes as they arrive, and
//! [`Multipart::next_event`] returns what they hold. `multer`, which axum brings, reads ahead as much as its
//! source supplies, up to the whole body.

use bytes::{Buf, Bytes, BytesMut};

/// Longest head of a part, in bytes: curl and browsers write some 200.
const MAX_HEAD: usize = 8 * 1024;
/// Most white space after a boundary (RFC 2046, section 5.1.1, "transport-padding").
const MAX_PADDING: usize = 128;
/// Longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;
/// Maximum number of parts.
const MAX_PARTS: usize = 1_000;

/// Reason why a body can't be read as a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MultipartError {
    #[error("the content type should be multipart/form-data with a boundary")]
    ContentType,
    #[error("the form breaks off before its last boundary")]
    Truncated,
    #[error("the form has a boundary that doesn't end its line")]
    Boundary,
    #[error("a part of the form has a head of more than {MAX_HEAD} bytes")]
    LongHead,
    #[error("a part of the form has no Content-Disposition with a name")]
    NoName,
    #[error("the form has more than {MAX_PARTS} parts")]
    TooMany,
}

/// An event of a form. Each part has a head, its data in any number of pieces, and an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The name of the part that begins.
    Part(String),
    Data(Bytes),
    End,
}

/// Parser of one form.
pub(crate) struct Multipart {
    /// Line break, two dashes and the boundary, which end the data of a part.
    delimiter: Vec<u8>,
    /// Bytes that were not read yet.
    rest: BytesMut,
    state: State,
    /// Number of parts so far.
    parts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Preamble,
    /// After a boundary, in its line.
    Boundary,
    Head,
    Data,
    /// After the last boundary.
    Epilogue,
}

impl Multipart {
    /// Creates a parser of a body with this content type.
    ///
    /// # Errors
    /// Returns [`MultipartError::ContentType`] if the content type is another one, or has no boundary.
    pub(crate) fn new(content_type: &str) -> Result<Multipart, MultipartError> {
        let (kind, parameters) = content_type.split_once(';').ok_or(MultipartError::ContentType)?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(MultipartError::ContentType);
        }
        let boundary = parameter(parameters, "boundary").ok_or(MultipartError::ContentType)?;
        if !(1..=MAX_BOUNDARY).contains(&boundary.len()) {
            return Err(MultipartError::ContentType);
        }
        // The first boundary may be at the very start, without a line break of its own.
        let rest = BytesMut::from(&b"\r\n"[..]);
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        Ok(Multipart { delimiter, rest, state: State::Preamble, parts: 0 })
    }

    /// Takes the next bytes of the body. All events of the bytes before should have been read: what is left
    /// of these stays in memory.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.state != State::Epilogue {
            self.rest.extend_from_slice(bytes);
        }
    }

    /// Returns the next event, or `None` if it depends on further bytes.
    ///
    /// # Errors
    /// Returns [`MultipartError`] if the body is no form. Nothing follows then.
    pub(crate) fn next_event(&mut self) -> Result<Option<Event>, MultipartError> {
        if self.state == State::Preamble {
            // Bytes before the first boundary are to be ignored (RFC 2046, section 5.1.1).
            self.up_to_delimiter();
            if !self.pass_delimiter() {
                return Ok(None);
            }
        }
        if self.state == State::Boundary && !self.end_boundary()? {
            return Ok(None);
        }
        match self.state {
            State::Head => Ok(self.head()?.map(Event::Part)),
            State::Data => {
                let data = self.up_to_delimiter();
                if !data.is_empty() {
                    return Ok(Some(Event::Data(data)));
                }
                Ok(self.pass_delimiter().then_some(Event::End))
            }
            State::Preamble | State::Boundary | State::Epilogue => Ok(None),
        }
    }

    /// Checks that the form is complete. Must be called at the end of the body.
    ///
    /// # Errors
    /// Returns [`MultipartError::Truncated`] if the last boundary is missing.
    pub(crate) fn finish(&self) -> Result<(), MultipartError> {
        if self.state == State::Epilogue { Ok(()) } else { Err(MultipartError::Truncated) }
    }

    /// Takes the bytes before the next delimiter, or as many as can't belong to one.
    fn up_to_delimiter(&mut self) -> Bytes {
        let (rest, delimiter) = (&self.rest, &self.delimiter);
        let (mut at, mut end) = (0, rest.len());
        while let Some(found) = rest[at..].iter().position(|byte| *byte == b'\r') {
            at += found;
            let compared = delimiter.len().min(rest.len() - at);
            if rest[at..at + compared] == delimiter[..compared] {
                end = at;
                break;
            }
            at += 1;
        }
        self.rest.split_to(end).freeze()
    }

    /// Takes the delimiter at the start of the rest. Returns whether all of it was there.
    fn pass_delimiter(&mut self) -> bool {
        let is_there = self.rest.starts_with(&self.delimiter);
        if is_there {
            self.rest.advance(self.delimiter.len());
            self.state = State::Boundary;
        }
        is_there
    }

    /// Reads the rest of a boundary's line, except for the line break. Returns whether all of it was there.
    fn end_boundary(&mut self) -> Result<bool, MultipartError> {
        if self.rest.starts_with(b"--") {
            self.rest.clear();
            self.state = State::Epilogue;
            return Ok(true);
        }
        let padding = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let line_break = &b"\r\n"[..];
        let (after, is_dash) = (&self.rest[padding..], &self.rest[..] == b"-");
        if padding > MAX_PADDING
            || !(after.starts_with(line_break) || line_break.starts_with(after) || is_dash)
        {
            return Err(MultipartError::Boundary);
        }
        if !after.starts_with(line_break) {
            return Ok(false);
        }
        self.rest.advance(padding);
        self.state = State::Head;
        Ok(true)
    }

    /// Reads the head of a part, which starts with the line break of its boundary. Returns the name of the
    /// part, or `None` if more of the head is to come.
    fn head(&mut self) -> Result<Option<String>, MultipartError> {
        const END: &[u8] = b"\r\n\r\n";
        let within = &self.rest[..self.rest.len().min(MAX_HEAD)];
        let Some(length) = within.windows(END.len()).position(|bytes| bytes == END) else {
            return if within.len() == MAX_HEAD { Err(MultipartError::LongHead) } else { Ok(None) };
        };
        let head = self.rest.split_to(length + END.len());
        let name = name_of(&String::from_utf8_lossy(&head)).ok_or(MultipartError::NoName)?;
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(MultipartError::TooMany);
        }
        self.state = State::Data;
        Ok(Some(name))
    }
}

/// Returns the name in the head of a part.
fn name_of(head: &str) -> Option<String> {
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (kind, parameters) = disposition.split_once(';')?;
    kind.trim().eq_ignore_ascii_case("form-data").then(|| parameter(parameters, "name"))?
}

/// Returns the value of a parameter, quoted or not, of those after the first `;` of a header.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (found, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start());
        if found.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after.split_once(';').map_or("", |(_, after)| after);
    }
}

/// Splits a value, and the text after it, from a list of parameters.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=x-y";
    const FORM: &[u8] = b"ignored\r\n--x-y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
        --x-y \t\r\ncontent-type: audio/wav\r\ncontent-disposition: form-data; filename=\"a;name=b.wav\"; name=file\r\n\
        \r\nRI\r\n--x-FF\r\n\r\n--x-y\r\nContent-Disposition: form-data; name=\"a\\\"b\"\r\n\r\n\r\n--x-y--\r\nignored";

    /// Parses a body that arrives in pieces of `size` bytes. Returns each part's name and data.
    fn parts(body: &[u8], size: usize) -> Result<Vec<(String, Vec<u8>)>, MultipartError> {
        let mut form = Multipart::new(TYPE)?;
        let mut parts = Vec::<(String, Vec<u8>)>::new();
        for piece in body.chunks(size) {
            form.feed(piece);
            while let Some(event) = form.next_event()? {
                match event {
                    Event::Part(name) => parts.push((name, Vec::new())),
                    Event::Data(data) => parts.last_mut().expect("a part is open").1.extend(data),
                    Event::End => parts.last_mut().expect("a part is open").1.push(b'$'),
                }
            }
            assert!(form.rest.len() <= MAX_HEAD + size, "{} bytes are held", form.rest.len());
        }
        form.finish()?;
        Ok(parts)
    }

    #[test]
    fn a_form_is_the_same_in_pieces_of_any_size() {
        let expected = [("model", &b"whisper-1$"[..]), ("file", b"RI\r\n--x-FF\r\n$"), ("a\"b", b"$")];
        let expected = expected.map(|(name, data)| (name.to_owned(), data.to_vec()));
        for size in 1..=FORM.len() {
            assert_eq!(parts(FORM, size).unwrap(), expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_form_that_breaks_off_is_no_form() {
        let end = FORM.len() - "\r\nignored".len();
        for length in 0..end {
            assert!(parts(&FORM[..length], length.max(1)).is_err(), "{length} bytes");
        }
        assert!(parts(&FORM[..end], end).is_ok());
    }

    #[test]
    fn only_a_form_with_a_boundary_is_read() {
        let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
        for other in [
            "",
            "multipart/form-data",
            "multipart/mixed; boundary=x",
            "multipart/form-data; boundary=",
            &long,
        ] {
            assert_eq!(Multipart::new(other).err(), Some(MultipartError::ContentType), "{other}");
        }
        for boundary in
            ["Multipart/Form-Data; charset=utf-8; Boundary=\"x-y\"", "multipart/form-data;boundary=x-y"]
        {
            assert_eq!(Multipart::new(boundary).unwrap().delimiter, b"\r\n--x-y", "{boundary}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused_with_the_reason() {
        let head = |head: &str| format!("--x-y\r\n{head}\r\n\r\n\r\n--x-y--").into_bytes();
        let named = "Content-Disposition: form-data; name=a";
        assert_eq!(parts(&head(named), 7).unwrap().len(), 1);
        for (body, expected) in [
            (head("Content-Type: text/plain"), MultipartError::NoName),
            (head(""), MultipartError::NoName),
            (head("Content-Disposition: attachment; name=a"), MultipartError::NoName),
            (head("Content-Disposition: form-data; filename=\"a"), MultipartError::NoName),
            (head(&format!("{named}\r\nX: {}", "x".repeat(MAX_HEAD))), MultipartError::LongHead),
            (b"--x-yz\r\n\r\n".to_vec(), MultipartError::Boundary),
            (format!("--x-y{}\r\n", " ".repeat(MAX_PADDING + 1)).into(), MultipartError::Boundary),
            (b"no form".to_vec(), MultipartError::Truncated),
            (format!("--x-y\r\n{named}\r\n\r\n\r\n").repeat(MAX_PARTS + 1).into(), MultipartError::TooMany),
        ] {
            for size in [1, 7, body.len()] {
                assert_eq!(parts(&body, size).err(), Some(expected), "{}", String::from_utf8_lossy(&body));
            }
        }
    }
}
