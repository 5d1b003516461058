//! The form of a recording: its file goes to the store of uploads, and its fields to memory.

use std::sync::Arc;

use super::error::OpenAiError;
use crate::http::body::BodyReader;
use crate::http::multipart::{Event, Multipart};
use crate::recordings::uploads::{Upload, UploadStore};

/// Fields that are read. Any other field is ignored.
const FIELDS: [&str; 11] = [
    "model",
    "language",
    "languages",
    "prompt",
    "keywords",
    "hotwords",
    "response_format",
    "temperature",
    "timestamp_granularities",
    "stream",
    "known_speaker_names",
];
/// Most bytes of all these fields together. A prompt of Whisper has some thousand bytes.
const MAX_FIELDS: usize = 128 * 1024;
/// Most bytes of a form beside its file: names, boundaries, and fields that are ignored, such as four samples
/// of speakers.
pub(super) const OTHER_BYTES: u64 = 32 << 20;

/// A form that has arrived.
pub(super) struct Form {
    pub(super) fields: Fields,
    pub(super) file: Upload,
}

/// Fields by name, in the order in which they came. A name of an array has lost its `[]`.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    /// Returns the first value of a field that is not empty: programs send empty ones for those that their
    /// user left out.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns the values of a field that are not empty.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(known, _)| *known == name);
        named.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }
}

#[cfg(any(test, feature = "test-util"))]
impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    /// Collects the fields that are read.
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(fields: I) -> Fields {
        let field = |(name, value)| Some((known(name)?, str::to_owned(value)));
        Fields(fields.into_iter().filter_map(field).collect())
    }
}

/// Receives a form with one file.
///
/// # Errors
/// Returns [`OpenAiError`] if the body is not such a form, is too large or late, or can't be stored.
pub(super) async fn receive(
    mut body: BodyReader,
    content_type: &str,
    store: &Arc<UploadStore>,
) -> Result<Form, OpenAiError> {
    let received = receive_parts(&mut body, content_type, store).await;
    if received.is_err() {
        body.discard();
    }
    received
}

async fn receive_parts(
    body: &mut BodyReader,
    content_type: &str,
    store: &Arc<UploadStore>,
) -> Result<Form, OpenAiError> {
    let mut form = Multipart::new(content_type)?;
    let mut receiver =
        Receiver { store, fields: Fields::default(), bytes: 0, file: None, part: Part::Ignored };
    while let Some(bytes) =
        body.next().await.map_err(|error| OpenAiError::of_body(error, store.max_bytes()))?
    {
        form.feed(&bytes);
        while let Some(event) = form.next_event()? {
            receiver.take(event).await?;
        }
    }
    form.finish()?;
    let Receiver { fields, file, .. } = receiver;
    let file = file.ok_or_else(|| OpenAiError::invalid("file", "the form has no file"))?;
    if file.length() == 0 {
        return Err(OpenAiError::invalid("file", "the file is empty"));
    }
    Ok(Form { fields, file })
}

/// A form that is arriving.
struct Receiver<'a> {
    store: &'a Arc<UploadStore>,
    fields: Fields,
    /// Number of bytes in the fields.
    bytes: usize,
    file: Option<Upload>,
    part: Part,
}

/// The part that is arriving.
enum Part {
    Field(&'static str, Vec<u8>),
    File,
    Ignored,
}

impl Receiver<'_> {
    async fn take(&mut self, event: Event) -> Result<(), OpenAiError> {
        match event {
            Event::Part(name) => self.part = self.begin(&name)?,
            Event::Data(data) => match &mut self.part {
                Part::Field(name, value) => {
                    self.bytes += data.len();
                    if self.bytes > MAX_FIELDS {
                        return Err(OpenAiError::invalid(name, "the fields of the form are too long"));
                    }
                    value.extend_from_slice(&data);
                }
                Part::File => {
                    let file = self.file.as_mut().expect("a file has begun");
                    file.write(&data).await?;
                }
                Part::Ignored => {}
            },
            Event::End => {
                if let Part::Field(name, value) = std::mem::replace(&mut self.part, Part::Ignored) {
                    let value = String::from_utf8(value);
                    let value =
                        value.map_err(|_| OpenAiError::invalid(name, format!("{name} is not UTF-8")))?;
                    self.fields.0.push((name, value));
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, name: &str) -> Result<Part, OpenAiError> {
        if name.strip_suffix("[]").unwrap_or(name) == "file" {
            if self.file.is_some() {
                return Err(OpenAiError::invalid("file", "the form has more than one file"));
            }
            self.file = Some(self.store.begin()?);
            return Ok(Part::File);
        }
        Ok(known(name).map_or(Part::Ignored, |known| Part::Field(known, Vec::new())))
    }
}

/// Returns the field of that name, which may be written as that of an array.
fn known(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix("[]").unwrap_or(name);
    FIELDS.into_iter().find(|known| *known == name)
}
