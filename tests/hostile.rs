//! Hostile sessions, one after the other, while a healthy publisher streams in real time. After each: the program is alive, the
//! bad connection was closed in time with its reason logged, descriptors and memory are back, and the healthy output goes
//! on without a gap.

#![expect(clippy::disallowed_methods, reason = "the output lies in files, and time passes")]

mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::output::Output;
use common::peer::{
    self, FilmTag, NULL, Peer, SetOnDrop, command, connect, create_stream, header, hello, media, message, number,
    object, opening, publish, text,
};
use common::server::Server;

/// What becomes of a session.
enum End {
    /// The server closes it at once, and says why.
    Closed(&'static str),
    /// The server refuses, in words that the peer gets, and logs it; then the peer leaves.
    Refused(&'static str),
    /// The server bears it; the peer leaves.
    Borne,
}
use End::{Borne, Closed, Refused};

struct Hostile {
    name: &'static str,
    bytes: Vec<u8>,
    end: End,
}

/// How long the server may take for anything that it does at once.
const SOON: Duration = Duration::from_secs(2);
/// How much more memory than before may be in use after a session, in KiB: what the allocator keeps for the next.
const KEPT_KIB: u64 = 24 << 10;

fn sessions() -> Vec<Hostile> {
    let film = peer::film();
    let picture_header = film.iter().find(|tag| tag.0 == 9).unwrap().clone();
    let sound_header = film.iter().find(|tag| tag.0 == 8).unwrap().clone();
    let key_frame = film.iter().filter(|tag| tag.0 == 9).nth(1).unwrap().clone();
    let sound = film.iter().filter(|tag| tag.0 == 8).nth(1).unwrap().clone();

    let greeted = || [hello(), connect("live")].concat();
    let count = Cell::new(0);
    // A name of its own for each, so that none waits for the one before.
    let live = |parts: &[Vec<u8>]| {
        count.set(count.get() + 1);
        let name = format!("bad{}", count.get());
        [opening("live", &name), peer::set_chunk_size(60_000), parts.concat()].concat()
    };
    let started = |parts: &[Vec<u8>]| live(&[media(&picture_header), media(&sound_header), parts.concat()]);
    let at = |tag: &FilmTag, ms: u32| media(&(tag.0, ms, tag.2.clone()));
    let with = |tag: &FilmTag, body: &[u8]| media(&(tag.0, tag.1, body.to_vec()));
    let raw = |values: &[Vec<u8>]| [hello(), command(0, values)].concat();
    let nested = |marker: &[u8], times: usize| marker.repeat(times);
    let data = |values: &[Vec<u8>]| peer::message_in(60_000, 5, 18, 1, 0, &values.concat());

    let mut all: Vec<Hostile> = Vec::new();
    let mut add = |name, bytes: Vec<u8>, end| all.push(Hostile { name, bytes, end });

    // Other protocols.
    add("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), Closed("looks like HTTP"));
    add("HTTP POST of RTMPT", b"POST /open/1 HTTP/1.1\r\n\r\n".to_vec(), Closed("looks like HTTP"));
    add("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3], Closed("TLS"));
    add("RTMPE", vec![6; 1537], Closed("RTMPE"));
    add("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Closed("does not speak RTMP"));
    add("zeros", vec![0; 70_000], Closed("does not speak RTMP"));
    add("RTMP version 255", vec![255; 1537], Closed("does not speak RTMP"));

    // Chunks.
    add("chunk size 0", [hello(), peer::set_chunk_size(0)].concat(), Closed("chunk size 0"));
    add(
        "a chunk size of one byte",
        [hello(), message(2, 1, 0, 0, &[9])].concat(),
        Closed("Set Chunk Size message too short"),
    );
    add("an abort of one byte", [hello(), message(2, 2, 0, 0, &[9])].concat(), Closed("Abort message too short"));
    add("an abort of nothing", live(&[message(2, 2, 0, 0, &[0, 0, 0, 77]).repeat(99)]), Borne);
    add("type 3 first", [hello(), vec![0xC5; 10]].concat(), Closed("no full header before"));
    add("type 2 first", [hello(), vec![0x85; 10]].concat(), Closed("no full header before"));
    add(
        "33 chunk streams",
        [hello(), (3..40).flat_map(|id| message(id, 20, 0, 0, &[5])).collect()].concat(),
        Closed("chunk streams"),
    );
    add(
        "chunk stream ids of three bytes",
        {
            let many = (0..40_u8).flat_map(|id| [&[1, id, 200], &header(3, 20, 0, 0, 1)[1..], &[5][..]].concat());
            [hello(), many.collect()].concat()
        },
        Closed("chunk streams"),
    );
    add("a message of 16 MiB", [hello(), header(3, 20, 0, 0, 0xFF_FFFF)].concat(), Closed("bytes in a message"));
    add(
        "an endless message before connect",
        [hello(), peer::set_chunk_size(99_999), header(3, 20, 0, 0, 99_999), vec![2; 99_000]].concat(),
        Closed("bytes before publishing"),
    );
    add(
        "half messages on all chunk streams before publishing",
        {
            let half = (3..33)
                .flat_map(|id| [header(id, 20, 0, 0, 90_000), vec![2; 128], vec![0xC0 | id], vec![2; 128]].concat());
            let half: Vec<u8> = half.collect();
            [
                greeted(),
                half,
                (0..300).flat_map(|_| (3..33).flat_map(|id| [vec![0xC0 | id], vec![2; 128]].concat())).collect(),
            ]
            .concat()
        },
        Closed("bytes before publishing"),
    );
    add(
        "half messages on many chunk streams",
        {
            let begin = (8..20).flat_map(|id| [header(id, 9, 1, 0, 4 << 20), vec![1; 60_000]].concat());
            let go_on = (8..20).flat_map(|id| [vec![0xC0 | id], vec![1; 60_000]].concat());
            live(&[begin.collect(), go_on.collect::<Vec<u8>>().repeat(12)])
        },
        Closed("bytes in unfinished messages"),
    );
    add("messages without a body", live(&[message(7, 9, 1, 0, &[]).repeat(5_000)]), Borne);
    add(
        "messages of unknown types",
        live(&[(23..=255_u8).flat_map(|kind| message(7, kind, 1, 0, &[1, 2, 3])).collect()]),
        Borne,
    );
    add(
        "a message begun anew again and again",
        live(&[(0..99).flat_map(|_| [header(7, 9, 1, 0, 70_000), vec![1; 60_000]].concat()).collect()]),
        Borne,
    );
    add(
        "extended times that do not agree",
        started(&[
            [header(7, 8, 1, u32::MAX, 200), vec![0xAF; 128], vec![0xC7, 1, 2, 3, 4], vec![0; 72]].concat(),
            message(7, 8, 1, 0, &[0xAF, 1]),
        ]),
        Borne,
    );
    add(
        "random bytes after the handshake",
        [hello(), (0..60_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()].concat(),
        Closed("closed: "),
    );

    // AMF0 and commands.
    add(
        "objects 1,000 deep",
        raw(&[text("connect"), number(1.0), nested(&[3, 0, 1, b'a'], 1000)]),
        Closed("nested too deep"),
    );
    add(
        "arrays 3,000 deep",
        raw(&[text("connect"), number(1.0), nested(&[10, 0, 0, 0, 1], 3000)]),
        Closed("nested too deep"),
    );
    add(
        "arrays in a command of another name",
        raw(&[text("x"), nested(&[8, 0, 0, 0, 1, 0, 1, b'a'], 1500)]),
        Closed("nested too deep"),
    );
    add("more values than anybody needs", raw(&[text("connect"), NULL.repeat(5000)]), Closed("too many AMF0 values"));
    add("an array of four billion", raw(&[text("connect"), number(1.0), vec![10, 255, 255, 255, 255, 5]]), Borne);
    add("a text of four gigabytes", raw(&[text("connect"), number(1.0), vec![12, 255, 255, 255, 255, b'x']]), Borne);
    add("connect without a name", raw(&[vec![2, 0, 200, b'c']]), Borne);
    add(
        "connect with numbers for texts",
        raw(&[text("connect"), number(f64::NAN), object(&[("app", number(7.0)), ("tcUrl", NULL.to_vec())])]),
        Borne,
    );
    add("publish before connect", [hello(), publish("bad"), create_stream()].concat(), Borne);
    add("connect twice", [greeted(), connect("other"), publish("bad")].concat(), Borne);
    add("publish twice", [opening("live", "twice"), publish("worse")].concat(), Refused("one stream a connection"));
    add(
        "play",
        [greeted(), create_stream(), command(1, &[text("play"), number(0.0), NULL.to_vec(), text("good")])].concat(),
        Refused("NetStream.Play.Failed"),
    );
    add(
        "deleteStream of another's",
        [greeted(), command(0, &[text("deleteStream"), number(0.0), NULL.to_vec(), number(1.0)])].concat(),
        Borne,
    );
    add(
        "FCUnpublish of another's",
        [greeted(), command(0, &[text("FCUnpublish"), number(0.0), NULL.to_vec(), text("good")])].concat(),
        Borne,
    );
    add(
        "100 unknown commands",
        [greeted(), command(0, &[text("\u{0}\n\u{1b}[31m"), number(2.0)]).repeat(100)].concat(),
        Borne,
    );
    add("pings without end", [greeted(), message(2, 4, 0, 0, &[0, 6, 0, 0, 0, 1]).repeat(3000)].concat(), Borne);
    add(
        "unknown user control",
        [greeted(), message(2, 4, 0, 0, &[255, 255]).repeat(99), message(2, 4, 0, 0, &[])].concat(),
        Borne,
    );
    add(
        "a window of 0 and of 1",
        [greeted(), message(2, 5, 0, 0, &[0; 4]), message(2, 5, 0, 0, &[0, 0, 0, 1]), create_stream().repeat(50)]
            .concat(),
        Borne,
    );
    add("AMF3 that is no AMF0", [greeted(), message(3, 17, 0, 0, &[0x0A, 0x0B, 1, 9, 9, 9])].concat(), Borne);
    add("shared objects", [greeted(), message(3, 19, 0, 0, &[7; 90]), message(3, 16, 0, 0, &[7; 90])].concat(), Borne);

    // Names.
    add("a name that leaves the folder", opening("live", "../../x"), Refused("NetStream.Publish.BadName"));
    add("an app that leaves the folder", opening("../..", "x"), Refused("NetStream.Publish.BadName"));
    add("a name with a line break", opening("live", "a\n#EXT-X-ENDLIST"), Refused("NetStream.Publish.BadName"));
    add("a name with a NUL", opening("live", "a\0b"), Refused("NetStream.Publish.BadName"));
    add("a name with escapes for terminals", opening("live", "\u{1b}]0;x\u{7}"), Refused("NetStream.Publish.BadName"));
    add(
        "a name of 60,000 characters",
        [greeted(), publish(&"x".repeat(15_000))].concat(),
        Refused("NetStream.Publish.BadName"),
    );
    add("a name of a file of ours", opening("live", "index.m3u8"), Refused("NetStream.Publish.BadName"));
    add("somebody else's name", opening("live", "good"), Refused("already being published"));
    add(
        "somebody else's name, again and again",
        [opening("live", "good"), publish("good").repeat(9)].concat(),
        Closed("refused 5 times"),
    );

    // Media.
    add("media before publishing", [greeted(), media(&sound).repeat(200)].concat(), Borne);
    add(
        "an empty sequence header",
        live(&[with(&picture_header, &[0x17, 0, 0, 0, 0]), with(&sound_header, &[0xAF, 0]), media(&key_frame)]),
        Borne,
    );
    add(
        "a sequence header of rubbish",
        live(&[with(&picture_header, &[&[0x17, 0, 0, 0, 0], &[0xEE; 900][..]].concat()), media(&key_frame)]),
        Borne,
    );
    add(
        "a sequence header cut short",
        live(&[
            with(&picture_header, &picture_header.2[..12]),
            with(&sound_header, &sound_header.2[..3]),
            media(&key_frame),
            media(&sound),
        ]),
        Borne,
    );
    add(
        "a configuration record of empty parameter sets",
        live(&[with(&picture_header, &[0x17, 0, 0, 0, 0, 1, 100, 0, 30, 255, 0xE1, 0, 0, 1, 0, 0]), media(&key_frame)]),
        Borne,
    );
    add(
        "NAL units longer than the picture",
        started(&[with(&key_frame, &[0x17, 1, 0, 0, 0, 255, 255, 255, 255, 0x65])]),
        Borne,
    );
    add("pictures of one byte", started(&[with(&key_frame, &[0x17]).repeat(500)]), Borne);
    add(
        "500 configurations",
        live(&[(0..500_u32)
            .flat_map(|i| {
                let mut tag = picture_header.clone();
                tag.2.extend(i.to_be_bytes());
                [media(&tag), at(&key_frame, i * 40)].concat()
            })
            .collect()]),
        Closed("changes of configuration in a minute"),
    );
    add(
        "a sample rate that changes with each frame",
        live(&[(0..400_u32)
            .flat_map(|i| with(&(8, i * 26, vec![]), &[0x2F, 0xFF, 0xFB, [0x90, 0x94][usize::from(i % 2 == 1)], 0, 0]))
            .collect()]),
        Closed("changes of configuration in a minute"),
    );
    add(
        "times at random",
        started(&[(0..2000_u32).flat_map(|i| at(&key_frame, i.wrapping_mul(0x9E37_79B9))).collect()]),
        Borne,
    );
    add("a clock that runs back", started(&[(0..500_u32).rev().flat_map(|i| at(&key_frame, i * 40)).collect()]), Borne);
    add("a clock that stands still", started(&[at(&key_frame, 0).repeat(500), at(&sound, 0).repeat(3000)]), Borne);
    add(
        "the end of time",
        started(&[[u32::MAX - 80, u32::MAX - 40, u32::MAX, 39, 79]
            .iter()
            .flat_map(|ms| at(&key_frame, *ms))
            .collect()]),
        Borne,
    );
    add(
        "composition times out of reach",
        started(&[(0..200_u32)
            .flat_map(|i| {
                let mut tag = key_frame.clone();
                tag.1 = i * 40;
                tag.2[2..5].copy_from_slice(&[[0x7F, 255, 255], [0x80, 0, 0]][usize::from(i % 2 == 1)]);
                media(&tag)
            })
            .collect()]),
        Borne,
    );
    add(
        "tracks without end",
        started(&[(0..255_u8)
            .flat_map(|track| {
                with(&sound_header, &[&[0x95, 0x00, b'm', b'p', b'4', b'a', track], &sound_header.2[2..]].concat())
            })
            .collect()]),
        Borne,
    );
    add(
        "packet types that do not exist",
        started(&[(0..255_u8)
            .flat_map(|byte| [with(&key_frame, &[byte, 1, 2, 3, 4, 5]), with(&sound, &[byte, 1, 2, 3])].concat())
            .collect()]),
        Borne,
    );
    add(
        "codecs that do not exist",
        started(&[with(&key_frame, b"\x90zzzz\0\0\0\0"), with(&key_frame, &[0x1F, 1]), with(&sound, &[0xFF, 1])]),
        Borne,
    );
    add("an aggregate of nonsense", started(&[peer::message_in(60_000, 7, 22, 1, 0, &[0xFF; 5000])]), Borne);
    add(
        "an aggregate of 100,000",
        started(&[peer::message_in(
            60_000,
            7,
            22,
            1,
            0,
            &[8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xAF, 0, 0, 0, 12].repeat(100_000),
        )]),
        Closed("messages in an aggregate"),
    );
    add("metadata 5,000 deep", live(&[data(&[text("onMetaData"), nested(&[3, 0, 1, b'a'], 5000)])]), Borne);
    add(
        "metadata of nonsense",
        live(&[
            data(&[
                text("onMetaData"),
                object(&[
                    ("width", number(f64::INFINITY)),
                    ("height", number(-1e300)),
                    ("framerate", number(f64::NAN)),
                    ("encoder", text("<script>\n\u{1b}[2J")),
                ]),
            ]),
            media(&picture_header),
            media(&key_frame),
        ]),
        Borne,
    );
    add(
        "data that is no AMF0",
        live(&[
            peer::message_in(60_000, 5, 18, 1, 0, &[0xEE; 9000]),
            peer::message_in(60_000, 5, 15, 1, 0, &[0; 9000]),
        ]),
        Borne,
    );
    add(
        "publish and unpublish 40 times",
        {
            let goodbye = |_| {
                [publish("bad"), command(1, &[text("deleteStream"), number(4.0), NULL.to_vec(), number(1.0)])].concat()
            };
            [greeted(), create_stream(), (0..40).flat_map(goodbye).collect()].concat()
        },
        Borne,
    );
    all
}

#[test]
fn hostile_sessions_harm_nobody() {
    let sessions = sessions();
    assert!(sessions.len() >= 60, "{}", sessions.len());
    let mut server = Server::start_with(&["--grace", "0s", "--segment", "1s"]);
    let address = server.address();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = Peer::publishing(address, "live", "good");
            publisher.show_film(|| is_over.load(Ordering::Relaxed));
        });
        let _over = SetOnDrop(&is_over);
        let index = server.folder().join("live/good/index.m3u8");
        let start = Instant::now();
        while Output::read(&index).is_err() {
            assert!(start.elapsed() < Duration::from_secs(9), "{}", server.log());
            thread::sleep(Duration::from_millis(50));
        }
        // What is allocated once is allocated.
        for hostile in sessions.iter().rev().take(3) {
            play(&mut server, hostile);
        }
        thread::sleep(Duration::from_millis(300));
        let (descriptors, memory_kib) = (server.descriptors(), server.memory_kib("VmRSS"));
        let mut good = Good::default();
        for hostile in &sessions {
            let name = hostile.name;
            play(&mut server, hostile);
            assert!(server.is_alive(), "{name}: the program has ended");
            let start = Instant::now();
            // The healthy one may be writing a segment just now.
            while server.descriptors() > descriptors + 1 {
                assert!(start.elapsed() < SOON, "{name}: {} descriptors, {descriptors} before", server.descriptors());
                thread::sleep(Duration::from_millis(5));
            }
            let now_kib = server.memory_kib("VmRSS");
            assert!(now_kib <= memory_kib + KEPT_KIB, "{name}: {now_kib} KiB, {memory_kib} before");
            good.check(&index, name);
        }
        let log = server.log();
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    });
    let stopped = server.stop();
    assert!(stopped.status.success(), "{}", stopped.log);
    let output = Output::read(&stopped.folder.path().join("live/good/index.m3u8")).unwrap();
    for rendition in output.renditions() {
        assert!(rendition.playlist.has_end);
        assert!(rendition.segments.iter().all(|segment| !segment.entry.is_gap && !segment.entry.has_discontinuity));
    }
    let entries: Vec<_> = std::fs::read_dir(stopped.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(entries, ["live"], "nothing beside the app");
}

/// Plays a session to its end.
fn play(server: &mut Server, Hostile { name, bytes, end }: &Hostile) {
    let mut peer = Peer::dial(server.address());
    let port = format!(":{}", peer.socket.local_addr().unwrap().port());
    peer.send(bytes);
    match end {
        Closed(reason) => {
            assert!(peer.closed_within(SOON).is_some(), "{name}: not closed\n{}", server.log());
            // Random bytes break one rule or another.
            assert!(
                server.says(&[reason, &port], SOON),
                "{name}: \"{reason}\" is not said of {port}\n{}",
                server.log()
            );
        }
        Refused(words) => {
            assert!(peer.hears(words, SOON), "{name}: not refused\n{}", server.log());
            assert!(server.says(&["refused", &port], SOON), "{name}: nothing is said of {port}\n{}", server.log());
        }
        Borne => {
            // Until the server has taken all of it: it acknowledges a ping that comes behind.
            peer.send(&message(2, 4, 0, 0, &[0, 6, 0xAA, 0xBB, 0xCC, 0xDD]));
            peer.closed_within(Duration::from_millis(60));
        }
    }
}

/// What the healthy stream's viewers have seen.
#[derive(Default)]
struct Good {
    seen: BTreeMap<String, u64>,
    newest: Option<Instant>,
    listed: u64,
}

impl Good {
    /// The playlists are whole, go on, and take nothing back.
    fn check(&mut self, index: &Path, after: &str) {
        let output = Output::read(index).unwrap_or_else(|error| panic!("{after}: {error}"));
        let now = Instant::now();
        let mut listed = 0;
        for rendition in output.renditions() {
            for (number, segment) in (rendition.playlist.media_sequence..).zip(&rendition.segments) {
                let entry = &segment.entry;
                assert!(!entry.is_gap && !entry.has_discontinuity, "{after}: {} is broken", entry.uri);
                let before = *self.seen.entry(entry.uri.clone()).or_insert(number);
                assert_eq!(before, number, "{after}: {} has another number", entry.uri);
            }
            listed = listed.max(rendition.playlist.media_sequence + u64::try_from(rendition.segments.len()).unwrap());
        }
        assert!(listed >= self.listed, "{after}: a segment was taken back");
        if listed > self.listed {
            self.newest = Some(now);
            self.listed = listed;
        }
        // The film's key frames are up to 2 s apart.
        let waited = now - self.newest.unwrap();
        assert!(waited < Duration::from_millis(4500), "{after}: no new segment for {waited:?}");
    }
}
