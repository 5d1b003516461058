//! The gateway as a unit of systemd.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use voxline_cli::config::gateway::GatewayConfig;

use crate::cli::{Place, path, text};
use crate::support::serving::Serving;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/voxline.service");

#[test]
#[expect(clippy::print_stderr, reason = "what was not checked should be known")]
fn the_sample_unit_is_one_that_systemd_takes() {
    let place = Place::new();
    let unit = fs::read_to_string(UNIT).unwrap();
    let drain = GatewayConfig::default().options().drain;
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    assert!(Duration::from_secs(stop.parse().unwrap()) > drain + Duration::from_secs(10));
    // The program of the unit is replaced by this build.
    let unit =
        place.file("voxline.service", unit.replace("/usr/local/bin/voxline", env!("CARGO_BIN_EXE_voxline")));
    match Command::new("systemd-analyze").args(["verify", "--man=no", path(&unit)]).output() {
        Ok(verified) => {
            assert!(verified.status.success(), "{}", text(&verified.stderr));
            let ours = text(&verified.stderr).lines().filter(|line| line.contains("voxline.service"));
            assert_eq!(ours.collect::<Vec<_>>(), [""; 0]);
        }
        Err(error) => eprintln!("not verified: systemd-analyze: {error}"),
    }
}

#[test]
fn systemd_is_told_when_it_serves_reads_again_and_stops() {
    let place = Place::new();
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        text(&message[..length]).to_owned()
    };
    let mut serve = place.command(&["serve", "--listen", "127.0.0.1:0", "--state", "state"]);
    let serving = Serving::start({
        serve.env("NOTIFY_SOCKET", place.path("notify"));
        serve
    });
    assert_eq!(hear().trim(), "READY=1");
    serving.signal("HUP");
    let reloading = hear();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(hear().trim(), "READY=1");
    serving.logged("nothing to reload");
    assert_eq!(serving.stop().0.code(), Some(0));
    assert_eq!(hear().trim(), "STOPPING=1");
}
