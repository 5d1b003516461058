//! An event that cannot be written to the journal is not reported.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use voxline::audio::Feed;
use voxline::auth::TokenProvider;
use voxline::session::{Checkpoint, Journal, ServerSession, Session, SessionError, Settings};
use voxline::transcript::TranscriptEvent;
use voxline_testing::network;
use voxline_testing::peer::{Behaviour, RecordingPeer};

use super::world::{RATE, chunk, simulate};
use voxline_fixtures::noise;

/// A journal on a disk that is full after some entries.
struct Filling {
    room: usize,
    opened: bool,
    written: Vec<TranscriptEvent>,
}

impl Filling {
    fn entry(&mut self) -> io::Result<()> {
        self.room = self.room.checked_sub(1).ok_or_else(|| io::Error::other("the disk is full"))?;
        Ok(())
    }
}

impl Journal for Filling {
    fn record_server(&mut self, _: &ServerSession) -> io::Result<()> {
        self.entry()?;
        self.opened = true;
        Ok(())
    }

    fn record_event(&mut self, event: &TranscriptEvent) -> io::Result<()> {
        self.entry()?;
        self.written.push(event.clone());
        Ok(())
    }
}

/// Whichever entry fails, the user receives exactly the events that were written.
#[test]
fn no_event_is_told_whose_entry_in_the_journal_failed() {
    let pcm = noise(5 * RATE as usize);
    for room in 0..8 {
        simulate(async {
            let (connector, acceptor) = network::simulated(1, []);
            let peer = RecordingPeer::new(Behaviour { segment_frames: RATE.into(), ..Behaviour::default() });
            let tokens = TokenProvider::service(&"token".to_owned().into()).unwrap();
            let (sender, audio) = mpsc::channel(16);
            sender.send(chunk(&pcm, 0, pcm.len())).await.unwrap();
            sender.send(Feed::End).await.unwrap();
            let (events, mut heard) = mpsc::channel(64);
            let mut journal = Filling { room, opened: false, written: Vec::new() };
            let mut settings = Settings::new(RATE).with_seed(0);
            settings.timeouts.give_up = Duration::from_secs(30);
            let start = Checkpoint::default();
            let run = Session::new(&connector, &tokens, settings)
                .resume(start)
                .journal(&mut journal)
                .run(audio, events);
            let ended = tokio::select! {
                ended = run => ended,
                () = peer.serve_all(acceptor) => unreachable!("the connector lives"),
            };
            let mut told = Vec::new();
            while let Some(event) = heard.recv().await {
                told.push(event);
            }
            assert_eq!(told, journal.written, "room for {room} entries");
            // One entry for the server's session, one for each second, one for the end.
            let whole = room >= 7;
            assert_eq!(ended.result.is_ok(), whole, "room for {room} entries: {:?}", ended.result);
            assert!(whole || matches!(ended.result, Err(SessionError::Journal { .. })));
            assert_eq!(journal.opened, room > 0);
        });
    }
}
