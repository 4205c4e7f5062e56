//! Publishers come and go at random for a while, and then everything is as it was: memory, descriptors, threads, files.
//!
//! `UPSCOPE_SOAK_SECONDS=600 UPSCOPE_SOAK_PUBLISHERS=100 cargo test --release --test soak` is the long form.

#![expect(clippy::disallowed_methods, reason = "the output lies in files, and time passes")]

mod common;

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::peer::{self, FilmTag, Peer, films, media};
use common::server::Server;

/// How long, unless told.
const FEW_SECONDS: u64 = 8;
/// How many, unless told.
const FEW_PUBLISHERS: u64 = 12;
/// How many times as fast as it plays the film is sent.
const SPEED: u32 = 4;
/// The longest that a publisher stays, in milliseconds.
const LONGEST_STAY_MS: u64 = 3_000;
/// How long viewers may ask for the files of an ended broadcast, and how long threads wait for work.
const CALM_WITHIN: Duration = Duration::from_secs(40);
/// What memory may grow by, in KiB: at once, for the allocator's sake, and in each minute.
const GROWTH_KIB: u64 = 1_024;
const GROWTH_KIB_A_MINUTE: u64 = 102;

#[test]
fn p15_publishers_come_and_go_and_everything_is_as_it_was() {
    let told = |name, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let seconds = told("UPSCOPE_SOAK_SECONDS", FEW_SECONDS);
    let publishers = told("UPSCOPE_SOAK_PUBLISHERS", FEW_PUBLISHERS);
    let server = Server::start_with(&["--retain", "0", "--grace", "1s", "--window", "3"]);
    // What is allocated once: as many at the same time as there will ever be.
    come_and_go(server.address(), publishers, Duration::from_secs(5));
    let before = Figures::when_calm(&server, None);
    come_and_go(server.address(), publishers, Duration::from_secs(seconds));
    let after = Figures::when_calm(&server, Some(&before));
    println!("{publishers} publishers for {seconds} s: {before:?} before, {after:?} after");
    assert_eq!((after.files, after.descriptors), (before.files, before.descriptors));
    assert!(after.threads <= before.threads, "{after:?}");
    let most = before.memory_kib + GROWTH_KIB + GROWTH_KIB_A_MINUTE * seconds / 60;
    assert!(after.memory_kib <= most, "{after:?}, {before:?}");
    let stopped = server.stop();
    assert!(stopped.status.success());
    assert_eq!(stopped.log.lines().filter(|line| line.contains(" ERROR ")).count(), 0, "{}", stopped.log);
}

/// What may grow.
#[derive(Debug, PartialEq, Eq)]
struct Figures {
    memory_kib: u64,
    descriptors: usize,
    threads: usize,
    /// Files and folders in the output folder.
    files: usize,
}

impl Figures {
    fn of(server: &Server) -> Self {
        Self {
            memory_kib: server.memory_kib("VmRSS"),
            descriptors: server.descriptors(),
            threads: server.threads(),
            files: count(server.folder()),
        }
    }

    /// Once all broadcasts have left and nothing more happens, or as it is after a while.
    fn when_calm(server: &Server, before: Option<&Self>) -> Self {
        let start = Instant::now();
        let mut last = Self::of(server);
        loop {
            thread::sleep(Duration::from_secs(2));
            let now = Self::of(server);
            let is_back = before.is_none_or(|before| {
                now.files <= before.files && now.descriptors <= before.descriptors && now.threads <= before.threads
            });
            if now.files == 0 && is_back && now == last || start.elapsed() > CALM_WITHIN {
                return now;
            }
            last = now;
        }
    }
}

fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| 1 + if entry.path().is_dir() { count(&entry.path()) } else { 0 }).sum()
}

fn come_and_go(address: SocketAddr, publishers: u64, time: Duration) {
    let (film, over) = (peer::film(), Instant::now() + time);
    let random = RandomState::new();
    thread::scope(|scope| {
        for publisher in 0..publishers {
            let (film, random) = (&film, &random);
            scope.spawn(move || {
                let mut count = 0;
                while Instant::now() < over {
                    count += 1;
                    visit(address, &format!("s{publisher}"), film, random.hash_one((publisher, count)));
                }
            });
        }
    });
}

/// Publishes for a while, and leaves in one of several ways.
fn visit(address: SocketAddr, name: &str, film: &[FilmTag], random: u64) {
    let stay = Duration::from_millis(random % LONGEST_STAY_MS);
    let mut peer = Peer::publishing(address, "live", name);
    let start = Instant::now();
    for tag in films(film) {
        let due = Duration::from_millis(tag.1.into()) / SPEED;
        if due > stay {
            break;
        }
        thread::sleep(due.saturating_sub(start.elapsed()));
        assert!(peer.send(&media(&tag)), "the connection broke");
    }
    match random / LONGEST_STAY_MS % 3 {
        0 => drop(peer),
        // A reset.
        1 => socket2::SockRef::from(&peer.socket).set_linger(Some(Duration::ZERO)).unwrap(),
        _ => {
            peer.send(&peer::goodbye());
        }
    }
}
