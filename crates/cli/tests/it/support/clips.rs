//! Human recordings from Debian packages, with their transcripts.

use std::path::{Path, PathBuf};

use voxline::audio::sample;
use voxline::resample::Resampler;

/// A recording: mono, 16-bit, 16 kHz.
pub(crate) struct Clip {
    /// Name in `samples/transcripts.tsv`.
    pub(crate) name: String,
    /// Transcript.
    pub(crate) text: String,
    /// Samples.
    pub(crate) pcm: Vec<i16>,
}

impl Clip {
    /// Returns the length in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.pcm.len() as f64 / 16_000.0
    }
}

/// Returns the clips of a set.
///
/// # Panics
/// Panics if a recording is missing; the message says how to install it.
pub(crate) fn set(name: &str) -> Vec<Clip> {
    let clips: Vec<Clip> = include_str!("../../../../../samples/transcripts.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut fields = line.split('\t');
            [(); 3].map(|()| fields.next().expect("a line has three fields"))
        })
        .filter(|[set, ..]| *set == name)
        .map(|[set, clip, text]| Clip { name: clip.to_owned(), text: text.to_owned(), pcm: audio(set, clip) })
        .collect();
    assert!(!clips.is_empty(), "samples/transcripts.tsv has no set '{name}'");
    clips
}

/// Returns the clip with this name in a set.
pub(crate) fn clip(set_name: &str, name: &str) -> Clip {
    set(set_name).into_iter().find(|clip| clip.name == name).expect("the clip is in the set")
}

/// Returns the samples of a recording. The recording needs no transcript.
pub(crate) fn audio(set: &str, clip: &str) -> Vec<i16> {
    match set {
        "en-16k" => {
            let dir = Path::new("/usr/share/pocketsphinx/test/data");
            match clip.strip_prefix("austen_") {
                Some(part) => {
                    wav(dir.join(format!("librivox/sense_and_sensibility_01_austen_64kb-{part}.wav")))
                }
                None => {
                    let path = dir.join(format!("{clip}.raw"));
                    let bytes =
                        std::fs::read(&path).unwrap_or_else(|error| missing(&path, &error.to_string()));
                    bytes.as_chunks().0.iter().map(|sample| i16::from_le_bytes(*sample)).collect()
                }
            }
        }
        "en-telephone" => wav(format!("/usr/share/asterisk/sounds/en_US_f_Allison/{clip}.wav").into()),
        "ru-telephone" => wav(format!("/usr/share/asterisk/sounds/ru_RU_f_IvrvoiceRU/{clip}.wav").into()),
        _ => panic!("no recordings are known for set '{set}'"),
    }
}

/// Returns the names of all recordings of a set that is a directory, without those in its subdirectories.
pub(crate) fn names(set: &str) -> Vec<String> {
    let directory = Path::new(match set {
        "ru-telephone" => "/usr/share/asterisk/sounds/ru_RU_f_IvrvoiceRU",
        _ => panic!("the recordings of set '{set}' are not listed"),
    });
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| missing(directory, &error.to_string()));
    let paths = entries.flatten().map(|entry| entry.path());
    let recordings = paths.filter(|path| path.extension().is_some_and(|it| it == "wav"));
    recordings.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

/// Returns pieces of music, with their names.
pub(crate) fn music() -> Vec<(String, Vec<i16>)> {
    let directory = Path::new("/usr/share/asterisk/moh");
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| missing(directory, &error.to_string()));
    let paths = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "wav"));
    let mut pieces: Vec<_> =
        paths.map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), wav(path))).collect();
    pieces.sort();
    assert!(!pieces.is_empty(), "no music in {}", directory.display());
    pieces
}

fn wav(path: PathBuf) -> Vec<i16> {
    let mut reader = hound::WavReader::open(&path).unwrap_or_else(|error| missing(&path, &error.to_string()));
    assert_eq!(reader.spec().channels, 1, "{} isn't mono", path.display());
    let samples: Vec<i16> = reader.samples().collect::<Result<_, _>>().expect("a package's file is whole");
    match reader.spec().sample_rate {
        16_000 => samples,
        rate => resample(&samples, rate),
    }
}

fn resample(samples: &[i16], rate: u32) -> Vec<i16> {
    let samples: Vec<f32> = samples.iter().map(|&value| sample::to_f32(value)).collect();
    let mut resampler = Resampler::new(rate, 16_000).expect("the packages have ordinary rates");
    let mut output = Vec::new();
    resampler.push(&samples, &mut output);
    resampler.finish(&mut output);
    output.into_iter().map(sample::to_s16).collect()
}

fn missing(path: &Path, reason: &str) -> ! {
    panic!(
        "{}: {reason}; run `apt-get install pocketsphinx-testdata asterisk-core-sounds-en-wav \
         asterisk-core-sounds-ru-wav asterisk-moh-opsound-wav`",
        path.display()
    )
}
