//! The program is killed (SIGKILL) at random moments under several publishers who come back, and what it leaves in the
//! folder is looked at each time.
//!
//! `UPSCOPE_CRASH_KILLS=300 cargo test --release --test crash` is the long form.

#![expect(clippy::disallowed_methods, reason = "the output lies in files, and time passes")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::Over;
use common::output::files;
use common::peer::{self, FilmTag, Peer, films, media};
use common::playlist::{Entry, MediaPlaylist, Multivariant};
use common::server::Server;
use common::{mp4, output::Output};

/// Publishers at the same time.
const STREAMS: usize = 3;
/// How often it is killed, unless told.
const FEW_KILLS: usize = 6;
/// How many times as fast as it plays the film is sent: segments end all the time.
const SPEED: u32 = 20;
/// The longest time between two kills, in milliseconds.
const LONGEST_LIFE_MS: u64 = 900;

#[test]
fn p10_kill_9_at_any_moment() {
    let kills: usize = std::env::var("UPSCOPE_CRASH_KILLS").map_or(FEW_KILLS, |count| count.parse().unwrap());
    let server = Server::start_with(&["--window", "6"]);
    let address = server.address();
    let rtmp = address.to_string();
    let film = peer::film();
    let mut witness = Witness::new();
    let mut slowest = Vec::new();
    let is_over = AtomicBool::new(false);
    let server = thread::scope(|scope| {
        let mut server = server;
        let _over = Over(&is_over);
        for number in 0..STREAMS {
            let (film, is_over) = (&film, &is_over);
            scope.spawn(move || publish(address, &format!("s{number}"), film, is_over));
        }
        for kill in 0..kills {
            // Some are killed before they have done anything.
            thread::sleep(Duration::from_millis(witness.random(kill) % LONGEST_LIFE_MS));
            let folder = server.kill();
            witness.look(folder.path());
            server = Server::start_in(folder, &["--window", "6", "--rtmp", &rtmp]);
            slowest.push(server.ready_after);
        }
        thread::sleep(Duration::from_millis(LONGEST_LIFE_MS));
        server
    });
    let stopped = server.stop();
    assert!(stopped.status.success(), "{}", stopped.log);
    witness.look(stopped.folder.path());
    witness.look_at_the_end(stopped.folder.path());

    slowest.sort_unstable();
    let (median, last) = (slowest[slowest.len() / 2], slowest[slowest.len() - 1]);
    println!(
        "{kills} kills: {} segments were listed; listening after {median:?}, at most {last:?}",
        witness.listed.len()
    );
    assert!(median < Duration::from_millis(50), "listening after {median:?}");
}

/// Sends the film from its beginning, and again whenever the connection breaks.
fn publish(address: SocketAddr, name: &str, film: &[FilmTag], is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let Some(mut peer) = Peer::try_publishing(address, "live", name) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let start = std::time::Instant::now();
        for tag in films(film) {
            let due = Duration::from_millis(tag.1.into()) / SPEED;
            thread::sleep(due.saturating_sub(start.elapsed()));
            if is_over.load(Ordering::Relaxed) || !peer.send(&media(&tag)) {
                break;
            }
        }
    }
}

/// Remembers all that was ever in the folder.
struct Witness {
    hash: RandomState,
    /// The hash of each media file; `None` once it has been deleted.
    files: BTreeMap<PathBuf, Option<u64>>,
    /// Media sequence numbers of the playlists.
    sequences: BTreeMap<PathBuf, u64>,
    /// By playlist and number: the entry, and how many discontinuities of the broadcast lie before it.
    listed: BTreeMap<(PathBuf, u64), (Entry, u64)>,
    whole: BTreeSet<PathBuf>,
}

impl Witness {
    fn new() -> Self {
        let (files, sequences) = (BTreeMap::new(), BTreeMap::new());
        Self { hash: RandomState::new(), files, sequences, listed: BTreeMap::new(), whole: BTreeSet::new() }
    }

    /// Another number each time.
    fn random(&self, number: usize) -> u64 {
        self.hash.hash_one(number)
    }

    /// Holds what is in the folder against all that was there before.
    fn look(&mut self, folder: &Path) {
        let found = files(folder);
        for path in &found {
            let name = path.file_name().unwrap().to_str().unwrap();
            match name.rsplit_once('.').unwrap().1 {
                "tmp" => {}
                "m3u8" if name == "index.m3u8" => {
                    let index = Multivariant::read(fs::read_to_string(path).unwrap()).unwrap();
                    let uris = index.variants.iter().map(|variant| &variant.uri);
                    for uri in uris.chain(index.audio.iter().filter_map(|audio| audio.uri.as_ref())) {
                        assert!(path.with_file_name(uri).exists(), "{}: {uri}", path.display());
                    }
                }
                "m3u8" => self.look_at_playlist(path),
                _ => self.look_at_media(path),
            }
        }
        let gone: Vec<_> = self.files.keys().filter(|path| !path.exists()).cloned().collect();
        for path in gone {
            self.files.insert(path, None);
        }
    }

    fn look_at_media(&mut self, path: &Path) {
        let now = Some(self.hash.hash_one(fs::read(path).unwrap()));
        if let Some(before) = self.files.insert(path.to_owned(), now) {
            assert_eq!(before, now, "{} has other content than before, or is back", path.display());
        }
    }

    fn look_at_playlist(&mut self, path: &Path) {
        let playlist = MediaPlaylist::read(fs::read_to_string(path).unwrap()).unwrap();
        let sequence = self.sequences.entry(path.to_owned()).or_default();
        assert!(playlist.media_sequence >= *sequence, "{}: the media sequence goes back", path.display());
        *sequence = playlist.media_sequence;
        let mut discontinuities = playlist.discontinuity_sequence.unwrap_or(0);
        for (entry, number) in playlist.entries.iter().zip(playlist.media_sequence..) {
            discontinuities += u64::from(entry.has_discontinuity);
            assert!(entry.uri.ends_with(&format!("-{number}.mp4")), "{}: {}", path.display(), entry.uri);
            let segment = path.with_file_name(&entry.uri);
            if !entry.is_gap && self.whole.insert(segment.clone()) {
                let header = path.with_file_name(entry.map.as_ref().unwrap());
                let header = mp4::read_header(&fs::read(header).unwrap()).unwrap();
                let bytes = fs::read(&segment).unwrap_or_else(|e| panic!("{}: {e}", segment.display()));
                mp4::read_segment(&bytes, &header).unwrap_or_else(|e| panic!("{}: {e}", segment.display()));
            }
            assert!(entry.is_gap || segment.exists(), "{} is listed", segment.display());
            let now = (entry.clone(), discontinuities);
            if let Some(before) = self.listed.insert((path.to_owned(), number), now.clone()) {
                assert_eq!(before, now, "{}: segment {number}", path.display());
            }
        }
    }

    /// Every stream was one broadcast over all lives of the program; nothing is left half.
    fn look_at_the_end(&self, folder: &Path) {
        for stream in 0..STREAMS {
            let stream = folder.join(format!("live/s{stream}"));
            let output = Output::read(&stream.join("index.m3u8")).unwrap();
            assert!(output.renditions().all(|rendition| rendition.playlist.has_end));
            let playlists = self.sequences.keys().filter(|playlist| playlist.starts_with(&stream)).count();
            assert_eq!(playlists, output.renditions().count(), "one broadcast: {:?}", self.sequences);
        }
        let left: Vec<_> = files(folder).into_iter().filter(|path| path.to_string_lossy().ends_with(".tmp")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
