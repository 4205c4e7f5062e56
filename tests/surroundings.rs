//! The promises about what surrounds a broadcast: other publishers, readers of the folder, the disk, the clock, the
//! system, each a test of its name against the real program. The README's table says what viewers see.

#![expect(clippy::disallowed_methods, reason = "the output lies in files, and time passes")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Over;
use common::mp4;
use common::output::{Output, files};
use common::peer::{self, FilmTag, NULL, Peer, SOON, films, media, number, text};
use common::playlist::MediaPlaylist;
use common::server::{PROGRAM, Server};

/// Whether a tag is a picture or a sound, and not a header.
fn is_sample(tag: &FilmTag) -> bool {
    tag.2[1] == 1
}

/// Sends the film again and again, `speed` times as fast as it plays, until told to stop; how many samples it sent.
fn send_films(peer: &mut Peer, speed: u32, is_over: impl Fn(Duration) -> bool) -> usize {
    let film = peer::film();
    let start = Instant::now();
    let mut samples = 0;
    for tag in films(&film) {
        if is_over(start.elapsed()) {
            break;
        }
        let due = Duration::from_millis(tag.1.into()) / speed;
        thread::sleep(due.saturating_sub(start.elapsed()));
        assert!(peer.send(&media(&tag)), "the connection broke after {:?}", start.elapsed());
        samples += usize::from(is_sample(&tag));
    }
    samples
}

fn index(server: &Server, name: &str) -> PathBuf {
    server.folder().join("live").join(name).join("index.m3u8")
}

/// The samples of an ended stream; all of its segments are there, numbered without a hole.
fn samples_of(index: &Path) -> usize {
    let output = Output::await_end(index);
    for rendition in output.renditions() {
        let playlist = &rendition.playlist;
        assert!(playlist.entries.iter().all(|entry| !entry.is_gap), "{}", playlist.text);
        for (entry, number) in playlist.entries.iter().zip(playlist.media_sequence..) {
            assert!(entry.uri.ends_with(&format!("-{number}.mp4")), "{}", playlist.text);
        }
    }
    output.renditions().map(|rendition| rendition.samples().count()).sum()
}

fn assert_no_temporary_file(folder: &Path) {
    let left: Vec<_> = files(folder).into_iter().filter(|path| path.to_string_lossy().ends_with(".tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn p6_a_live_name_belongs_to_its_publisher() {
    let server = Server::start();
    let is_over = AtomicBool::new(false);
    let mut first = Peer::publishing(server.address(), "live", "mine");
    let sent = thread::scope(|scope| {
        let first = scope.spawn(|| send_films(&mut first, 10, |_| is_over.load(Ordering::Relaxed)));
        let over = Over(&is_over);
        for _ in 0..5 {
            let mut second = Peer::dial(server.address());
            second.send(&peer::opening("live", "mine"));
            assert!(second.hears("NetStream.Publish.BadName", Duration::from_secs(1)), "refused within 1 s");
            let mut other = Peer::publishing(server.address(), "live", "another");
            for stranger in [&mut second, &mut other] {
                for stream in [0.0, 1.0, 2.0] {
                    stranger.send(&peer::command(0, &[text("FCUnpublish"), number(5.0), NULL.to_vec(), text("mine")]));
                    stranger
                        .send(&peer::command(0, &[text("deleteStream"), number(6.0), NULL.to_vec(), number(stream)]));
                }
            }
            thread::sleep(Duration::from_millis(200));
        }
        drop(over);
        first.join().unwrap()
    });
    first.send(&peer::goodbye());
    assert_eq!(samples_of(&index(&server, "mine")), sent, "the first does not lose a byte");
}

/// Bytes that are free on the disk of a folder.
fn free(folder: &Path) -> u64 {
    let told = Command::new("stat").args(["--file-system", "--format=%a %S"]).arg(folder).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    told.split_whitespace().map(|number| number.parse::<u64>().unwrap()).product()
}

#[test]
fn p7_what_has_to_stay_free_on_a_small_disk_stays_free() {
    const LEAST: u64 = 3 << 20;
    /// Playlists and headers are always written.
    const SMALL: u64 = 256 << 10;
    // A disk of 6 MiB that nobody but the program sees.
    let script = "mount -t tmpfs -o size=6m none \"$UPSCOPE_OUT\" && exec \"$0\" \"$@\"";
    let alone = ["--mount", "--map-root-user", "sh", "-c", script];
    if !Command::new("unshare").args(["--mount", "--map-root-user", "true"]).status().is_ok_and(|ended| ended.success())
    {
        return eprintln!("skipped: this system lets nobody have a disk of his own (unshare --map-root-user)");
    }
    let mut shell = Command::new("unshare");
    shell.args(alone).arg(PROGRAM);
    let server = Server::launch(shell, tempfile::tempdir().unwrap(), &["--min-free", "3M"]);
    let folder = PathBuf::from(format!("/proc/{}/root{}", server.pid(), server.folder().display()));
    let mut peer = Peer::publishing(server.address(), "live", "much");
    let film = peer::film();
    let rounds_ms = 7 * film.iter().map(|tag| tag.1).max().unwrap();
    let mut least_free = u64::MAX;
    for (count, tag) in films(&film).take_while(|tag| tag.1 < rounds_ms).enumerate() {
        assert!(peer.send(&media(&tag)), "the publisher stays");
        if count % 100 == 0 {
            least_free = least_free.min(free(&folder));
        }
    }
    peer.send(&peer::goodbye());
    // Each segment is tried for a while before it is given up.
    let output = Output::await_end_within(Duration::from_secs(60), &folder.join("live/much/index.m3u8"));
    least_free = least_free.min(free(&folder));
    assert!(least_free > LEAST - SMALL, "{least_free} bytes were free");
    assert!(least_free < LEAST + (1 << 20), "the room was used: {least_free} bytes were free");
    for rendition in output.renditions() {
        let gaps: Vec<_> = rendition.playlist.entries.iter().map(|entry| entry.is_gap).collect();
        assert!(!gaps[0] && gaps.contains(&true), "what there was room for, and gaps: {gaps:?}");
    }
}

#[test]
fn p7_a_stream_holds_no_more_than_its_window_and_what_left_it_whatever_it_sends() {
    const WINDOW: usize = 4;
    let server = Server::start_with(&["--segment", "0.5s", "--window", "4", "--grace", "1s"]);
    let film = peer::film();
    let header = |kind| film.iter().find(|tag| tag.0 == kind).unwrap();
    let picture = film.iter().filter(|tag| tag.0 == 9).nth(3).unwrap();
    let sound = film.iter().filter(|tag| tag.0 == 8).nth(3).unwrap();
    let at = |tag: &FilmTag, ms: u32| media(&(tag.0, ms, tag.2.clone()));
    let key = film.iter().filter(|tag| tag.0 == 9).nth(1).unwrap();
    let start = |kind| if kind == 8 { media(header(8)) } else { [media(header(9)), media(key)].concat() };
    let random = |index: u32| index.wrapping_mul(0x9E37_79B9);
    let streams: [(&str, u8, Vec<u8>); 5] = [
        ("random-sounds", 8, (0..2000).flat_map(|i| at(sound, random(i))).collect()),
        ("random-pictures", 9, (0..2000).flat_map(|i| at(picture, random(i))).collect()),
        ("random-keys", 9, (0..2000).flat_map(|i| at(key, random(i))).collect()),
        ("no-keys", 9, (0..4000).flat_map(|i| at(picture, i * 40)).collect()),
        (
            "headers",
            9,
            (0..100u32)
                .flat_map(|i| {
                    let mut changed = header(9).clone();
                    changed.2[8] = u8::try_from(10 + i % 50).unwrap();
                    [at(&changed, i * 40), at(key, i * 40)].concat()
                })
                .collect(),
        ),
    ];
    for (name, kind, bytes) in &streams {
        let mut peer = Peer::publishing(server.address(), "live", name);
        peer.send(&[&start(*kind)[..], bytes, &peer::goodbye()].concat());
        peer.hears("NetStream.Unpublish.Success", SOON);
    }
    let ended = Instant::now();
    for (name, ..) in &streams {
        let output = Output::await_end(&index(&server, name));
        let mut lifetime_s: f64 = 0.0;
        for rendition in output.renditions() {
            let playlist = &rendition.playlist;
            let least_s = 3.0 * f64::from(u32::try_from(playlist.target_duration_s[0]).unwrap());
            let without_first_s = playlist.duration_s() - playlist.entries[0].duration_s;
            assert!(playlist.entries.len() <= WINDOW || without_first_s < least_s, "{name}: {}", playlist.text);
            assert!(rendition.segments.iter().all(|segment| segment.size <= 64 << 20), "{name}");
            lifetime_s = lifetime_s.max(2.0 * least_s + playlist.duration_s());
        }
        // What left the playlists stays as long as viewers may ask for it, and then is gone.
        // Those of long segments stay too long to be waited for.
        while ended.elapsed() < Duration::from_secs(30) {
            let held: BTreeSet<_> = files(&server.folder().join("live").join(name)).into_iter().collect();
            let beyond: Vec<_> = held.difference(&output.reached).collect();
            // And the multivariant playlist.
            if beyond.len() <= 1 {
                break;
            }
            assert!(ended.elapsed().as_secs_f64() < lifetime_s, "{name} after {lifetime_s} s: {beyond:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Looks at a rendition's playlist again and again, as a viewer who misses nothing.
struct Watcher {
    playlist: PathBuf,
    text: String,
    longest_s: f64,
    /// What has been listed: until when it has to be there.
    listed: BTreeMap<PathBuf, Instant>,
    changes: usize,
    deleted: usize,
}

impl Watcher {
    fn new(playlist: PathBuf) -> Self {
        Self { playlist, text: String::new(), longest_s: 0.0, listed: BTreeMap::new(), changes: 0, deleted: 0 }
    }

    fn look(&mut self) {
        let Ok(text) = fs::read_to_string(&self.playlist) else {
            assert!(self.text.is_empty(), "{} was there a moment ago", self.playlist.display());
            return;
        };
        let seen = Instant::now();
        self.listed.retain(|path, until| {
            let is_there = path.exists();
            // Read before the clock, so that time spent here is not held against anybody.
            assert!(is_there || Instant::now() >= *until, "{} is gone {:?} early", path.display(), *until - seen);
            self.deleted += usize::from(!is_there);
            is_there
        });
        if text == self.text {
            return;
        }
        self.changes += 1;
        let playlist = MediaPlaylist::read(text.clone()).expect("whole at every look");
        self.longest_s = self.longest_s.max(playlist.duration_s());
        for entry in &playlist.entries {
            let path = self.playlist.with_file_name(&entry.uri);
            if !self.listed.contains_key(&path) {
                let header = self.playlist.with_file_name(entry.map.as_ref().unwrap());
                let header = mp4::read_header(&fs::read(header).unwrap()).expect("a whole header");
                mp4::read_segment(&fs::read(&path).unwrap(), &header).expect("a whole segment");
            }
            // RFC 8216bis 6.2.2; 1 ms for the rounding of what is written.
            let lifetime = Duration::from_secs_f64(entry.duration_s + self.longest_s - 0.001);
            self.listed.insert(path, seen + lifetime);
        }
        self.text = text;
    }
}

#[test]
fn a_new_broadcast_under_the_same_address_leaves_the_one_before_as_it_was() {
    let server = Server::start();
    let index = index(&server, "again");
    let film: Vec<u8> = peer::film().iter().flat_map(media).collect();
    // What each broadcast has put, but for the address that they share.
    let mut kept: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for _ in 0..3 {
        let mut peer = Peer::publishing(server.address(), "live", "again");
        peer.send(&[&film[..], &peer::goodbye()].concat());
        assert!(peer.hears("NetStream.Unpublish.Success", SOON));
        Output::await_end(&index);
        // Who holds an old media playlist finds all that it lists, for it has not changed.
        for (path, content) in &kept {
            assert_eq!(fs::read(path).ok().as_ref(), Some(content), "{}", path.display());
        }
        assert!(addresses.insert(fs::read_to_string(&index).unwrap()), "the address leads to the new one");
        kept = files(server.folder()).into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
        kept.retain(|path, _| path.parent() != index.parent() && path.starts_with(index.parent().unwrap()));
        assert!(kept.len() > 10 * addresses.len(), "{} files", kept.len());
    }
}

#[test]
fn p9_a_reader_never_sees_half_a_file_and_all_that_is_listed_stays_its_time() {
    const STREAMS: usize = 3;
    let server = Server::start_with(&["--window", "3"]);
    let is_over = AtomicBool::new(false);
    let (changes, deleted) = thread::scope(|scope| {
        for number in 0..STREAMS {
            let mut peer = Peer::publishing(server.address(), "live", &format!("s{number}"));
            let is_over = &is_over;
            scope.spawn(move || send_films(&mut peer, 60, |_| is_over.load(Ordering::Relaxed)));
        }
        let _over = Over(&is_over);
        let start = Instant::now();
        let mut watchers = Vec::new();
        while watchers.len() < 2 * STREAMS {
            watchers = files(server.folder())
                .into_iter()
                .filter(|path| ["video.m3u8", "audio.m3u8"].iter().any(|name| path.ends_with(name)))
                .map(Watcher::new)
                .collect();
            assert!(start.elapsed() < SOON);
        }
        loop {
            watchers.iter_mut().for_each(Watcher::look);
            let changes: usize = watchers.iter().map(|watcher| watcher.changes).sum();
            let deleted: usize = watchers.iter().map(|watcher| watcher.deleted).sum();
            if changes >= 1500 && deleted >= 100 || start.elapsed() > Duration::from_secs(60) {
                return (changes, deleted);
            }
        }
    });
    assert!(changes >= 1500 && deleted >= 100, "only {changes} changes seen, {deleted} files deleted");
}

#[test]
fn p12_sigterm_and_sigint_end_all_within_1_s_and_no_media_is_lost() {
    for signal in ["TERM", "INT"] {
        let server = Server::start();
        let names = ["a", "b", "c"];
        let mut peers: Vec<_> = names.iter().map(|name| Peer::publishing(server.address(), "live", name)).collect();
        let sent: Vec<_> = thread::scope(|scope| {
            let sending = |peer| move || send_films(peer, 5, |elapsed| elapsed > Duration::from_millis(2500));
            let senders: Vec<_> = peers.iter_mut().map(|peer| scope.spawn(sending(peer))).collect();
            senders.into_iter().map(|sender| sender.join().unwrap()).collect()
        });
        let start = Instant::now();
        server.signal(signal);
        let stopped = server.stopped();
        assert!(start.elapsed() < Duration::from_secs(1), "{signal}: {:?}\n{}", start.elapsed(), stopped.log);
        assert_eq!(stopped.status.code(), Some(0), "{signal}: {}", stopped.log);
        for (name, sent) in names.iter().zip(sent) {
            let index = stopped.folder.path().join("live").join(name).join("index.m3u8");
            assert_eq!(samples_of(&index), sent, "{signal} {name}");
        }
        assert_no_temporary_file(stopped.folder.path());
    }
}

#[test]
fn p13_a_folder_that_takes_nothing_for_8_s_costs_no_publisher_and_at_most_10_log_lines() {
    const SEGMENT: Duration = Duration::from_secs(2);
    let mut server = Server::start();
    let is_over = AtomicBool::new(false);
    let mut peer = Peer::publishing(server.address(), "live", "a");
    let live = server.folder().join("live");
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_films(&mut peer, 1, |_| is_over.load(Ordering::Relaxed)));
        let over = Over(&is_over);
        thread::sleep(Duration::from_secs(5));
        // A file in the place of the folder: nothing can be opened, made or renamed there.
        fs::rename(&live, server.folder().join("away")).unwrap();
        fs::write(&live, "in the way").unwrap();
        thread::sleep(Duration::from_secs(8));
        fs::remove_file(&live).unwrap();
        let start = Instant::now();
        let is_media = |path: &PathBuf| path.starts_with(&live) && path.ends_with("video.m3u8") && lists_media(path);
        let is_back = || files(server.folder()).iter().any(is_media);
        while !is_back() {
            assert!(start.elapsed() < 2 * SEGMENT, "{}", server.log());
            thread::sleep(Duration::from_millis(50));
        }
        drop(over);
        sender.join().unwrap();
    });
    peer.send(&peer::goodbye());
    Output::await_end(&index(&server, "a"));
    let log = server.log();
    assert!(log.contains("is lost, and becomes a gap") && log.contains("writing works again"), "{log}");
    let lines = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    assert!(lines.count() <= 10, "{log}");
}

/// Whether the last segment that a playlist lists is no gap.
fn lists_media(playlist: &Path) -> bool {
    let text = fs::read_to_string(playlist).unwrap_or_default();
    text.rsplit("#EXT-X-PROGRAM-DATE-TIME")
        .next()
        .is_some_and(|last| last.contains(".mp4") && !last.contains("#EXT-X-GAP"))
}

/// A stream goes on while `disturb` does something to the server: it loses nothing, and no number.
fn assert_goes_on(server: &Server, disturb: impl FnOnce(SocketAddr)) {
    let is_over = AtomicBool::new(false);
    let mut peer = Peer::publishing(server.address(), "live", "steady");
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| send_films(&mut peer, 2, |_| is_over.load(Ordering::Relaxed)));
        let over = Over(&is_over);
        thread::sleep(Duration::from_secs(1));
        disturb(server.address());
        thread::sleep(Duration::from_secs(2));
        drop(over);
        sender.join().unwrap()
    });
    peer.send(&peer::goodbye());
    assert_eq!(samples_of(&index(server, "steady")), sent);
}

#[test]
fn p14_with_48_descriptors_and_120_connections_a_stream_goes_on() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 48; exec \"$0\" \"$@\"", PROGRAM]);
    let server = Server::launch(shell, tempfile::tempdir().unwrap(), &[]);
    assert_goes_on(&server, |address| {
        let idle: Vec<_> = (0..120).map(|_| Peer::dial(address)).collect();
        // Longer than anything is tried again.
        thread::sleep(Duration::from_secs(8));
        drop(idle);
        thread::sleep(Duration::from_millis(200));
        let mut newcomer = Peer::publishing(address, "live", "newcomer");
        send_films(&mut newcomer, 10, |elapsed| elapsed > Duration::from_secs(1));
        newcomer.send(&peer::goodbye());
    });
    assert!(samples_of(&index(&server, "newcomer")) > 100);
}

/// The library that shows a program another time of day, where the package `libfaketime` is installed.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|library| library.exists())
}

#[test]
fn p14_a_clock_that_jumps_ten_years_changes_dates_and_nothing_else() {
    let Some(library) = faketime() else { return eprintln!("skipped: libfaketime is not installed") };
    let scratch = tempfile::tempdir().unwrap();
    let offset = scratch.path().join("offset");
    let set = |days: i32| {
        fs::write(scratch.path().join("new"), format!("{days:+}d\n")).unwrap();
        fs::rename(scratch.path().join("new"), &offset).unwrap();
    };
    set(0);
    let mut command = Command::new(PROGRAM);
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &offset);
    // The monotonic clock is not one that jumps.
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    let server = Server::launch(command, tempfile::tempdir().unwrap(), &[]);
    assert_goes_on(&server, |address| {
        for days in [3650, -3650, 0] {
            set(days);
            let mut other = Peer::publishing(address, "live", "other");
            send_films(&mut other, 10, |elapsed| elapsed > Duration::from_secs(2));
            drop(other);
            // It is seen at the next beat.
            thread::sleep(Duration::from_millis(200));
        }
    });
    let output = Output::await_end(&index(&server, "steady"));
    let playlist = &output.renditions().next().unwrap().playlist;
    assert_eq!(playlist.discontinuities(), 0, "{}", playlist.text);
    let other = fs::read_dir(server.folder().join("live/other")).unwrap().flatten();
    let years: BTreeSet<_> = other
        .filter_map(|entry| fs::read_to_string(entry.path().join("video.m3u8")).ok())
        .flat_map(|text| {
            let dates = text.lines().filter_map(|line| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:"));
            dates.map(|date| date[..4].to_owned()).collect::<Vec<_>>()
        })
        .collect();
    assert!(years.len() >= 3, "the clock did jump: {years:?}");
}

#[test]
fn p14_a_process_that_is_stopped_for_10_s_goes_on_where_it_was() {
    let server = Server::start();
    assert_goes_on(&server, |_| {
        server.signal("STOP");
        thread::sleep(Duration::from_secs(10));
        server.signal("CONT");
    });
}

#[test]
fn p14_rubbish_and_links_in_the_folder_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let out = folder.path();
    fs::create_dir_all(out.join("live/steady/~5")).unwrap();
    fs::create_dir_all(out.join("live/steady/~100000000000000")).unwrap();
    fs::create_dir_all(out.join("live/steady/~6/video-0.mp4")).unwrap();
    fs::create_dir_all(elsewhere.path().join("~7")).unwrap();
    for (path, content) in [
        ("notes.txt", "somebody else's"),
        ("live/notes.txt", "somebody else's"),
        ("live/steady/.hidden.tmp", "somebody else's"),
        ("live/steady/~5/notes.txt", "somebody else's"),
        ("live/steady/~5/.notes.tmp", "somebody else's"),
        ("live/steady/~5/video.m3u8", "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:99999999999999999999999\n"),
        ("live/steady/~100000000000000/video.m3u8", "\0\0\0"),
        ("live/\u{fc}nicode \n", "somebody else's"),
    ] {
        fs::write(out.join(path), content).unwrap();
    }
    for name in ["victim.m3u8", "~7/video.m3u8", "~7/video-0.mp4"] {
        fs::write(elsewhere.path().join(name), "not below the folder").unwrap();
    }
    symlink(elsewhere.path(), out.join("live/linked")).unwrap();
    symlink(elsewhere.path().join("~7"), out.join("live/steady/~7")).unwrap();
    symlink(elsewhere.path().join("victim.m3u8"), out.join("live/steady/index.m3u8")).unwrap();
    symlink(elsewhere.path().join("victim.m3u8"), out.join("live/steady/.index.m3u8.tmp")).unwrap();
    symlink("/dev/zero", out.join("live/steady/~5/audio.m3u8")).unwrap();
    symlink(".", out.join("live/steady/loop")).unwrap();
    let of = |folder: &Path| -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let entries = walk(folder).into_iter();
        entries.map(|path| (path.clone(), (!path.is_symlink()).then(|| fs::read(&path).unwrap()))).collect()
    };
    let (mut before, outside) = (of(out), of(elsewhere.path()));
    // Names of ours, in a stream of ours.
    before.remove(&out.join("live/steady/index.m3u8"));
    before.remove(&out.join("live/steady/.index.m3u8.tmp"));

    let server = Server::start_in(folder, &["--grace", "1s"]);
    assert_goes_on(&server, |address| {
        let mut linked = Peer::publishing(address, "live", "linked");
        send_films(&mut linked, 10, |elapsed| elapsed > Duration::from_secs(1));
        linked.send(&peer::goodbye());
    });
    let after = of(server.folder());
    for (path, content) in &before {
        assert_eq!(after.get(path), Some(content), "{}", path.display());
    }
    assert_eq!(of(elsewhere.path()), outside);
}

/// All files and links below a folder; links are not followed.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() && !path.is_symlink() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn p14_a_second_instance_refuses_to_start_and_the_first_goes_on() {
    let server = Server::start();
    assert_goes_on(&server, |_| {
        let mut second = Command::new(PROGRAM);
        second.args(["--rtmp", "127.0.0.1:0", "--out"]).arg(server.folder());
        let second = second.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(1), "{said}");
        assert!(said.contains("another upscope process is writing to it"), "{said}");
    });
}
