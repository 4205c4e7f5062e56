//! Many idle connections and many refused attempts to publish from one address, while others publish in real time: no
//! segment of theirs comes late. In full, as the README has it:
//!
//! ```text
//! cargo test --release --test flood -- --ignored --nocapture
//! ```

#![expect(clippy::disallowed_methods, reason = "the output lies in files, and time passes")]

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::peer::{self, Peer, SetOnDrop};
use common::playlist::MediaPlaylist;
use common::server::Server;

/// A segment is late that is listed so long after the last of its media was sent: a quarter of a segment.
const LATE: Duration = Duration::from_millis(500);
/// Threads that attempt to publish.
const ATTACKERS: usize = 10;
/// The server closes an idle connection after 10 s; it is replaced before that.
const IDLE_FOR: Duration = Duration::from_secs(9);
/// How long the server may take for anything that it does at once.
const SOON: Duration = Duration::from_secs(3);
/// Lines in a second on what strangers do.
const LINES_A_SECOND: usize = 100;

#[derive(Clone, Copy)]
struct Flood {
    publishers: usize,
    idle_connections: usize,
    attempts_a_second: usize,
    seconds: usize,
}

#[test]
fn a_flood_makes_nobody_late() {
    Flood { publishers: 8, idle_connections: 200, attempts_a_second: 100, seconds: 8 }.assert_harmless();
}

#[test]
#[ignore = "takes a minute, and is meant for the release build"]
fn a_flood_of_1000_idle_connections_and_500_attempts_a_second_makes_none_of_50_late() {
    let calm = Flood { publishers: 50, idle_connections: 0, attempts_a_second: 0, seconds: 20 };
    calm.assert_harmless();
    Flood { idle_connections: 1000, attempts_a_second: 500, seconds: 40, ..calm }.assert_harmless();
}

impl Flood {
    fn assert_harmless(self) {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys.toml");
        let entry = |index| format!("{} = \"s{index}\"\n", key(index));
        fs::write(&keys, (0..self.publishers).map(entry).collect::<String>()).unwrap();
        let mut server = Server::start_with(&["--keys", keys.to_str().unwrap()]);
        let address = server.address();
        let (is_over, refused, mut lateness) = (AtomicBool::new(false), AtomicUsize::new(0), Lateness::default());
        thread::scope(|scope| {
            let _over = SetOnDrop(&is_over);
            for index in 0..self.publishers {
                let mut publisher = Peer::publishing(address, "live", &key(index));
                let is_over = &is_over;
                scope.spawn(move || publisher.show_film(|| is_over.load(Ordering::Relaxed)));
            }
            scope.spawn(|| self.hold_idle_connections(address, &is_over));
            for _ in 0..ATTACKERS.min(self.attempts_a_second) {
                scope.spawn(|| self.attempt(address, &is_over, &refused));
            }
            let start = Instant::now();
            while start.elapsed().as_secs() < self.seconds as u64 {
                lateness.look(&server.folder().join("live"));
                thread::sleep(Duration::from_millis(100));
            }
            assert!(server.descriptors() > self.publishers + self.idle_connections, "{}", server.descriptors());
        });
        let refused = refused.into_inner();
        let Lateness { segments, most, .. } = lateness;
        println!(
            "{} publishers, {} idle connections, {} attempts in {} s: {} segments, the latest listed {most:?} after its end",
            self.publishers,
            self.idle_connections,
            refused,
            self.seconds,
            segments.len()
        );
        assert!(most < LATE, "listed {most:?} after its end");
        // Video and sound, in segments of 2 s, of which the last is on its way.
        assert!(segments.len() >= self.publishers * 2 * (self.seconds / 2 - 2), "{} segments", segments.len());
        assert!(refused >= self.attempts_a_second * self.seconds * 9 / 10, "{refused} attempts");
        let lines = server.log().lines().filter(|line| !line.contains("stream=")).count();
        assert!(lines <= LINES_A_SECOND * (self.seconds + 2), "{lines} lines in {} s", self.seconds);
    }

    fn hold_idle_connections(self, address: SocketAddr, is_over: &AtomicBool) {
        let mut held: VecDeque<(Instant, Peer)> = VecDeque::new();
        while !is_over.load(Ordering::Relaxed) {
            while held.front().is_some_and(|(since, _)| since.elapsed() > IDLE_FOR) {
                held.pop_front();
            }
            while held.len() < self.idle_connections {
                held.push_back((Instant::now(), Peer::dial(address)));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// One thread's part of the attempts, each on a connection of its own, with a wrong key.
    fn attempt(self, address: SocketAddr, is_over: &AtomicBool, refused: &AtomicUsize) {
        let every =
            Duration::from_secs(1) * u32::try_from(ATTACKERS).unwrap() / u32::try_from(self.attempts_a_second).unwrap();
        let mut due = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += every;
            let mut peer = Peer::dial(address);
            peer.send(&peer::opening("live", "a guess"));
            assert!(peer.hears("NetStream.Publish.Denied", SOON), "not refused");
            refused.fetch_add(1, Ordering::Relaxed);
            // A reset, so that the system keeps nothing of it.
            socket2::SockRef::from(&peer.socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}

fn key(index: usize) -> String {
    format!("the-key-of-{index}")
}

/// How late segments are listed.
#[derive(Default)]
struct Lateness {
    /// The playlists by the time at which they were written.
    playlists: BTreeMap<PathBuf, SystemTime>,
    segments: BTreeSet<PathBuf>,
    most: Duration,
}

impl Lateness {
    /// Looks for new segments in the streams of the folder `app`.
    fn look(&mut self, app: &Path) {
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        for broadcast in entries(app).flat_map(|stream| entries(&stream)) {
            for name in ["video.m3u8", "audio.m3u8"] {
                self.look_at(&broadcast.join(name));
            }
        }
    }

    fn look_at(&mut self, path: &Path) {
        let Ok(written) = fs::metadata(path).and_then(|metadata| metadata.modified()) else { return };
        if self.playlists.insert(path.to_owned(), written) == Some(written) {
            return;
        }
        let playlist = MediaPlaylist::read(fs::read_to_string(path).unwrap()).unwrap();
        let mut end = UNIX_EPOCH;
        for entry in playlist.entries {
            if let Some(unix_ms) = entry.unix_ms {
                end = UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).unwrap());
            }
            end += Duration::from_secs_f64(entry.duration_s);
            if self.segments.insert(path.with_file_name(entry.uri)) {
                self.most = self.most.max(written.duration_since(end).unwrap_or_default());
            }
        }
    }
}
