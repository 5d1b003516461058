//! Writes the seeds of a target into a directory: `seeds TARGET DIRECTORY`.

use std::path::PathBuf;
use std::{env, fs, io};

use voxline_fixtures::fuzz::TARGETS;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(name), Some(directory)) = (arguments.next(), arguments.next().map(PathBuf::from)) else {
        return Err(io::Error::other("usage: seeds TARGET DIRECTORY"));
    };
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        let names = TARGETS.map(|target| target.name).join(" ");
        return Err(io::Error::other(format!("no target {name}; there are: {names}")));
    };
    fs::create_dir_all(&directory)?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        fs::write(directory.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}
