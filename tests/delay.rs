//! How much later than its last picture a segment is listed: what `--ingest-delay` allows, though most of a publisher's bytes
//! wait longer.

#![expect(clippy::disallowed_methods, reason = "the output lies in files, and delays are told by the clock")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::peer::{Peer, SetOnDrop};
use common::server::Server;

/// Publishers at the same time, each with a phase of its own.
const PUBLISHERS: u32 = 4;
/// For how long they publish: four segments.
const LONG: Duration = Duration::from_millis(9000);
/// What the test itself, its polls and a busy machine may add.
const OURS: Duration = Duration::from_millis(40);

/// The median time from a key frame's sending to the playlist that lists the segment it ends.
fn median_delay(ingest_delay: &str) -> Duration {
    let server = Server::start_with(&["--ingest-delay", ingest_delay]);
    let delays = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..PUBLISHERS {
            let (address, folder, delays) = (server.address(), server.folder().to_owned(), &delays);
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(370) * number);
                let name = format!("p{number}");
                let found = delays_of(address, &name, &folder.join("live").join(&name));
                delays.lock().unwrap().extend(found);
            });
        }
    });
    let mut delays = delays.into_inner().unwrap();
    delays.sort();
    assert!(delays.len() >= 12, "{} segments", delays.len());
    delays[delays.len() / 2]
}

fn delays_of(address: SocketAddr, name: &str, folder: &Path) -> Vec<Duration> {
    let mut peer = Peer::publishing(address, "live", name);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let listed = scope.spawn(|| when_listed(folder, &is_over));
        let mut sent = Vec::new();
        {
            let _over = SetOnDrop(&is_over);
            let until = Instant::now() + LONG;
            let is_over = || Instant::now() > until;
            peer.show_film_and(is_over, |tag| {
                // The film's key frames are two seconds apart.
                if tag.0 == 9 && tag.2[0] >> 4 == 1 && tag.2[1] == 1 {
                    sent.push(Instant::now());
                }
            });
            thread::sleep(Duration::from_millis(300));
        }
        let listed = listed.join().unwrap();
        // The first key frame ends nothing.
        sent.iter().skip(1).zip(listed).map(|(sent, listed)| listed.saturating_duration_since(*sent)).collect()
    })
}

/// When each segment of the video came into its playlist.
fn when_listed(folder: &Path, is_over: &AtomicBool) -> Vec<Instant> {
    let mut listed = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let playlist = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .find_map(|entry| fs::read_to_string(entry.path().join("video.m3u8")).ok());
        let count = playlist.map_or(0, |text| text.matches("#EXTINF").count());
        while listed.len() < count {
            listed.push(Instant::now());
        }
        thread::sleep(Duration::from_millis(2));
    }
    listed
}

#[test]
fn a_segment_waits_no_longer_than_the_ingest_delay() {
    // Half of it on average.
    let by_default = median_delay("50ms");
    assert!(by_default < Duration::from_millis(50) + OURS, "{by_default:?}");
    let prompt = median_delay("0");
    assert!(prompt < OURS, "{prompt:?}");
    eprintln!("a segment is listed after {by_default:?} (median) by default, after {prompt:?} with no ingest delay");
}
