//! Films that are pushed as fast as the connection takes them, and not at the pace at which they play. Who closes a
//! connection before reading all that the server said breaks it, and what was not sent yet is lost: ffmpeg does so.

#![expect(clippy::disallowed_methods, reason = "the output lies in files, and time passes")]

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::output::{Output, files};
use common::peer::{self, FilmTag, Peer, films, media, message};
use common::server::Server;

/// What a publisher sends at most until it is acknowledged, in bytes.
const WINDOW: u32 = 40_000;
/// Publishers, one after the other: not each one's end would be lost.
const ROUNDS: u32 = 10;

/// RTMP 1.0 §5.4.4.
fn window_acknowledgement_size() -> Vec<u8> {
    message(2, 5, 0, 0, &WINDOW.to_be_bytes())
}

/// Publishes `tags` at once, says goodbye and is gone without having heard anything.
fn push(address: SocketAddr, name: &str, tags: &[FilmTag]) {
    let mut peer = Peer::publishing(address, "live", name);
    peer.send(&window_acknowledgement_size());
    for tag in tags {
        assert!(peer.send(&media(tag)), "{name}: cut off");
    }
    peer.send(&peer::goodbye());
}

/// Each of some publishers pushes `film`, and all samples of the track or tracks that are carried come out.
fn assert_whole(film: &[FilmTag], samples: usize) {
    let server = Server::start();
    for round in 0..ROUNDS {
        let name = format!("film{round}");
        push(server.address(), &name, film);
        let index = server.folder().join("live").join(&name).join("index.m3u8");
        let output = Output::await_end_within(Duration::from_secs(10), &index);
        assert_eq!(output.renditions().map(|rendition| rendition.samples().count()).sum::<usize>(), samples, "{name}");
    }
}

fn samples(tags: &[FilmTag]) -> usize {
    tags.iter().filter(|tag| tag.2[1] != 0).count()
}

#[test]
fn all_of_a_film_comes_out_and_its_end_is_heard() {
    let film: Vec<_> = films(&peer::film()).take(5_000).collect();
    assert_whole(&film, samples(&film));
}

#[test]
fn all_pictures_come_out_though_the_sound_is_refused() {
    let pictures: Vec<_> = films(&peer::film()).filter(|tag| tag.0 == 9).take(1_000).collect();
    let samples = samples(&pictures);
    let nellymoser = |at: u32| (8, at, vec![0x6E; 64]);
    let film: Vec<_> = pictures.into_iter().flat_map(|tag| [nellymoser(tag.1), tag]).collect();
    assert_whole(&film, samples);
}

#[test]
fn what_came_before_a_pause_is_listed_though_nothing_follows() {
    let server = Server::start();
    // Its segments are complete in no time.
    let film: Vec<_> = films(&peer::film()).filter(|tag| tag.0 == 8).take(5_000).collect();
    for round in 0..ROUNDS {
        let name = format!("pauses{round}");
        let mut peer = Peer::publishing(server.address(), "live", &name);
        for tag in &film {
            assert!(peer.send(&media(tag)), "{name}: cut off");
        }
        std::thread::sleep(Duration::from_millis(500));
        let files = files(&server.folder().join("live").join(&name));
        let number = |path: &PathBuf| path.file_stem()?.to_str()?.strip_prefix("audio-")?.parse::<u32>().ok();
        let last = files.iter().filter_map(number).max().unwrap();
        let playlist = files.iter().find(|path| path.ends_with("audio.m3u8")).unwrap();
        let text = std::fs::read_to_string(playlist).unwrap();
        assert!(text.ends_with(&format!("\naudio-{last}.mp4\n")), "{name}: audio-{last}.mp4 is not listed:\n{text}");
    }
}

/// How many Acknowledgements (§5.4.3) are in what was heard.
fn acknowledgements(heard: &[u8]) -> usize {
    // Message type 3, four bytes long, after a timestamp of three.
    heard.windows(5).filter(|bytes| bytes[..4] == [0, 0, 4, 3]).count()
}

#[test]
fn who_waits_is_acknowledged() {
    let server = Server::start();
    let film: Vec<_> = films(&peer::film()).take(2_000).collect();
    let mut peer = Peer::publishing(server.address(), "live", "waits");
    peer.send(&window_acknowledgement_size());
    let mut sent = 0;
    for tag in &film {
        let bytes = media(tag);
        sent += bytes.len();
        peer.send(&bytes);
        if sent > WINDOW as usize {
            break;
        }
    }
    let began = Instant::now();
    while acknowledgements(&peer.heard) == 0 {
        peer.hears("never", Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(1), "not acknowledged");
    }
}

#[test]
fn who_sends_as_it_plays_is_acknowledged_all_the_time() {
    let server = Server::start();
    let mut peer = Peer::publishing(server.address(), "live", "plays");
    peer.send(&window_acknowledgement_size());
    let until = Instant::now() + Duration::from_secs(6);
    let mut sent = 0;
    peer.show_film_and(|| Instant::now() > until, |tag| sent += media(tag).len());
    peer.hears("never", Duration::from_millis(500));
    let (heard, due) = (acknowledgements(&peer.heard), sent / WINDOW as usize);
    assert!(heard >= due.saturating_sub(2) && due >= 4, "{heard} of {due} acknowledgements");
}
