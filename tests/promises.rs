//! The promises about memory, time, names and legal sessions (the README's section on security), each a test of its name,
//! against the real program with default settings.
//!
//! P1 and P2 are in `hostile.rs`; P6, P7, P9, P12 and P14 in `surroundings.rs`; P10 in `crash.rs`, `restart.rs` and
//! `src/server/tests.rs`; P11 in `src/server/store/disk.rs`; P13 in `src/server/tests.rs`; P15 in `soak.rs`.

#![expect(clippy::disallowed_methods, reason = "the output lies in files, and time passes")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use common::output::Output;
use common::peer::{self, FilmTag, NULL, Peer, SOON, media, message, message_in, number, text};
use common::server::Server;

/// The largest message that is taken, in bytes.
const LARGEST: usize = 4 << 20;

#[test]
fn p3_1000_idle_connections_cost_at_most_8_mib() {
    let server = Server::start();
    // A first connection, for what is allocated once.
    drop(opened(server.address(), &peer::opening("live", "warm-up")));
    let before = server.memory_kib("VmRSS");
    let idle: Vec<_> = (0..1000).map(|_| Peer::dial(server.address())).collect();
    await_descriptors(&server, 1000);
    let cost = server.memory_kib("VmRSS").saturating_sub(before);
    assert!(cost <= 8 << 10, "{cost} KiB");
    drop(idle);
}

#[test]
fn p3_a_connection_costs_at_most_64_kib_until_it_publishes() {
    // All that may be held at once: a known app, half a message on each of 31 chunk streams, a question that waits.
    let mut worst = [peer::hello(), peer::connect("live")].concat();
    for chunk_stream in 3..34 {
        worst.extend(peer::header(chunk_stream, 20, 0, 0, LARGEST));
        worst.extend([0; 128]);
    }
    let half_message =
        [peer::hello(), peer::set_chunk_size(65_536), peer::header(3, 20, 0, 0, LARGEST), vec![2; 16_000]];
    let unread = [peer::hello(), peer::connect("live"), peer::create_stream().repeat(300)];
    for (name, bytes) in
        [("chunk streams", worst), ("half a message", half_message.concat()), ("unread replies", unread.concat())]
    {
        const COUNT: usize = 200;
        let server = Server::start();
        drop(opened(server.address(), &peer::opening("live", "warm-up")));
        let before = server.memory_kib("VmRSS");
        let held: Vec<_> = (0..COUNT)
            .map(|_| {
                let mut peer = Peer::dial(server.address());
                peer.send(&bytes);
                peer
            })
            .collect();
        await_descriptors(&server, COUNT);
        thread::sleep(Duration::from_millis(500));
        let cost = server.memory_kib("VmHWM").saturating_sub(before) / 200;
        assert!(cost <= 64, "{name}: {cost} KiB a connection");
        drop(held);
    }
}

/// What a publisher may send to make memory grow, and how often.
fn greedy() -> Vec<(&'static str, Vec<u8>, usize)> {
    let film = peer::film();
    let [video_start, audio_start] = [9, 8].map(|kind| film.iter().find(|tag| tag.0 == kind).unwrap().clone());
    let picture = film.iter().filter(|tag| tag.0 == 9).nth(1).unwrap().clone();
    let sound = film.iter().filter(|tag| tag.0 == 8).nth(1).unwrap().clone();
    let at = |tag: &FilmTag, ms: u32| media(&(tag.0, ms, tag.2.clone()));
    let big = |prefix: &[u8], bytes: usize| {
        let mut body = prefix.to_vec();
        body.resize(bytes, 0x65);
        // One NAL unit over all of it.
        if prefix[0] & 15 == 7 {
            body[5..9].copy_from_slice(&u32::try_from(bytes - 9).unwrap().to_be_bytes());
            body[9] = 0x65;
        }
        body
    };
    let huge_picture = big(&[0x17, 1, 0, 0, 0, 0, 0, 0, 0, 0], LARGEST - 16);
    let huge_sound = big(&[0xAF, 1], LARGEST - 16);
    let aggregate: Vec<u8> = {
        let tag = [&[8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xAF], &[0, 0, 0, 12][..]].concat();
        tag.repeat((LARGEST - 16) / tag.len())
    };
    let metadata: Vec<u8> = {
        let pair = [&text("x")[1..], &NULL[..]].concat();
        let mut body = [text("onMetaData"), vec![8, 0, 0, 0, 0]].concat();
        body.extend(pair.repeat(60_000));
        body.extend([0, 0, 9]);
        body
    };
    let text_bomb = [text("onMetaData"), vec![12, 0, 0x7F, 0, 0], vec![b'x'; LARGEST - 64]].concat();
    let both = [media(&video_start), media(&audio_start)].concat();
    let whole = |kind, body: &[u8]| message_in(60_000, if kind == 9 { 6 } else { 4 }, kind, 1, 0, body);
    let times = |tag: &FilmTag, step: u32, count: u32| -> Vec<u8> {
        (0..count).flat_map(|i| at(tag, i.wrapping_mul(step))).collect()
    };
    let half_streams: Vec<u8> =
        (8..30).flat_map(|id| [peer::header(id, 9, 1, 0, LARGEST), vec![1; 60_000]].concat()).collect();
    vec![
        ("large pictures at one time", [both.clone(), whole(9, &huge_picture)].concat(), 6),
        ("large sounds at one time", [both.clone(), whole(8, &huge_sound)].concat(), 6),
        ("large sounds without a header", whole(8, &huge_sound), 6),
        ("much data", whole(18, &text_bomb), 6),
        ("an aggregate of half a million messages", whole(22, &aggregate), 3),
        (
            "tiny sounds, pictures promised",
            {
                let tiny: Vec<u8> = (0..100_000).flat_map(|_| message(4, 8, 1, 0, &[0xAF, 1, 0])).collect();
                [media(&video_start), media(&audio_start), tiny].concat()
            },
            4,
        ),
        (
            "tiny sounds, each with a block of rubbish behind it",
            {
                let rubbish = |ms| {
                    [at(&(8, 0, vec![0xAF, 1, 0x21, 0]), ms), message_in(60_000, 4, 8, 1, ms, &[0xB0; 15_000])].concat()
                };
                [media(&audio_start), (0..1500).flat_map(rubbish).collect()].concat()
            },
            3,
        ),
        ("metadata of 60,000 values", whole(18, &metadata), 20),
        (
            "texts at one time",
            {
                let text_of = |name| whole(18, &[text(name), text(&"\u{1}".repeat(8000))].concat());
                let texts = [text_of("onTextData"), text_of("onCuePoint")].concat();
                [both.clone(), at(&picture, 0), at(&sound, 0), texts.repeat(400)].concat()
            },
            5,
        ),
        ("pictures at one time", [both.clone(), times(&picture, 0, 400)].concat(), 8),
        ("sounds at one time", [both.clone(), times(&sound, 0, 40_000)].concat(), 3),
        (
            "sounds alone, pictures promised",
            [media(&video_start), media(&audio_start), times(&sound, 23, 20_000)].concat(),
            2,
        ),
        ("pictures alone, sounds promised", [both.clone(), times(&picture, 40, 400)].concat(), 5),
        ("times at random", [both, times(&sound, 0x9E37_79B9, 20_000)].concat(), 3),
        ("commands without end", peer::create_stream().repeat(20_000), 3),
        ("half messages on many chunk streams", half_streams, 6),
        (
            "headers that change each time",
            {
                (0..1000_u32)
                    .flat_map(|i| {
                        let mut changed = video_start.clone();
                        changed.2.extend(i.to_be_bytes());
                        [media(&changed), at(&picture, i * 40)].concat()
                    })
                    .collect()
            },
            1,
        ),
    ]
}

#[test]
fn p3_a_publisher_costs_at_most_16_mib_whatever_it_sends() {
    let mut findings = Vec::new();
    let film: Vec<u8> = peer::film().iter().flat_map(media).collect();
    for (name, bytes, repeats) in greedy() {
        let mut server = Server::start_with(&["--grace", "0s"]);
        // The program itself, of which a first publisher has touched each page, is not part of the 16 MiB.
        let mut first = opened(server.address(), &peer::opening("live", "first"));
        first.send(&[peer::set_chunk_size(60_000), film.clone()].concat());
        drop(first);
        thread::sleep(Duration::from_millis(300));
        let before = server.memory_kib("VmRSS");
        server.forget_peak();
        let mut publisher = opened(server.address(), &peer::opening("live", "greedy"));
        publisher.send(&peer::set_chunk_size(60_000));
        for _ in 0..repeats {
            if !publisher.send(&bytes) {
                break;
            }
        }
        thread::sleep(Duration::from_millis(200));
        let cost = server.memory_kib("VmHWM").saturating_sub(before);
        if cost > 16 << 10 || !server.is_alive() {
            findings.push(format!("{name}: {cost} KiB\n{}", server.log()));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn p3_chunk_streams_messages_and_depth_are_limited() {
    let streams: Vec<u8> = (3..40).flat_map(|id| message(id, 20, 0, 0, &text("x"))).collect();
    let long = peer::header(3, 9, 1, 0, LARGEST + 1);
    let deep = [text("connect"), number(1.0), [&[3], &text("a")[1..]].concat().repeat(17)].concat();
    for (bytes, says) in [
        (streams, "at most 32 chunk streams"),
        (long, "at most 4194304 bytes in a message"),
        (message(3, 20, 0, 0, &deep), "nested too deep"),
    ] {
        let mut server = Server::start();
        let mut peer = Peer::dial(server.address());
        peer.send(&[peer::hello(), bytes].concat());
        assert!(peer.closed_within(SOON).is_some(), "{says}");
        assert!(server.says(&[says], SOON), "{says}: {}", server.log());
    }
}

/// What a peer sends once, and then byte by byte.
fn slow_peers() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let hello = peer::hello();
    let connect = peer::connect("live");
    let connected = [hello.clone(), connect.clone()].concat();
    let pings = message(2, 4, 0, 0, &[0, 6, 0, 0, 0, 1]);
    vec![
        ("says nothing", vec![], vec![]),
        ("one byte", vec![3], vec![]),
        ("drips C1", vec![3], hello[1..].to_vec()),
        ("half of C1", hello[..700].to_vec(), vec![]),
        ("drips C2", hello[..1537].to_vec(), hello[1537..].to_vec()),
        ("nothing after the handshake", hello.clone(), vec![]),
        ("drips connect", hello.clone(), connect),
        ("nothing after connect", connected.clone(), vec![]),
        ("drips createStream", connected.clone(), peer::create_stream().repeat(9)),
        ("drips pings", connected.clone(), pings.repeat(99)),
        ("drips a long message", connected, [peer::header(3, 20, 0, 0, 9_999), vec![2; 200]].concat()),
    ]
}

#[test]
fn p4_publish_has_10_s_in_all_however_dripped() {
    let server = Server::start();
    let address = server.address();
    thread::scope(|scope| {
        for (name, at_once, drip) in slow_peers() {
            scope.spawn(move || {
                let mut peer = Peer::dial(address);
                let start = Instant::now();
                peer.send(&at_once);
                let mut drip = drip.into_iter();
                // Each half second a byte, until the server has had enough.
                while peer.closed_within(Duration::from_millis(500)).is_none() {
                    if let Some(byte) = drip.next() {
                        peer.send(&[byte]);
                    }
                    assert!(start.elapsed() < Duration::from_secs(13), "{name}: not closed");
                }
                let took = start.elapsed().as_secs_f64();
                assert!((9.5..11.5).contains(&took), "{name}: closed after {took} s");
            });
        }
    });
}

#[test]
fn p4_a_silent_publisher_has_15_s() {
    let server = Server::start();
    let address = server.address();
    let silent: [(&str, Vec<u8>); 3] = [
        ("nothing", vec![]),
        ("pings", message(2, 4, 0, 0, &[0, 6, 0, 0, 0, 1])),
        ("a byte of a picture", [peer::header(6, 9, 1, 0, 60_000), vec![0x17; 60]].concat()),
    ];
    thread::scope(|scope| {
        for (index, (name, drip)) in silent.into_iter().enumerate() {
            scope.spawn(move || {
                let mut peer = opened(address, &peer::opening("live", &format!("silent{index}")));
                let start = Instant::now();
                let mut drip = drip.into_iter().cycle();
                while peer.closed_within(Duration::from_millis(500)).is_none() {
                    if let Some(byte) = drip.next() {
                        peer.send(&[byte]);
                    }
                    assert!(start.elapsed() < Duration::from_secs(19), "{name}: not closed");
                }
                let took = start.elapsed().as_secs_f64();
                assert!((14.0..17.0).contains(&took), "{name}: closed after {took} s");
            });
        }
    });
}

#[test]
fn p4_a_wrong_first_byte_is_closed_within_100_ms() {
    let mut server = Server::start();
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0], b"POST", &[0], &[6], b"SSH-2.0", &[255; 5000]] {
        let mut peer = Peer::dial(server.address());
        peer.send(first);
        let took = peer.closed_within(SOON).expect("closed");
        assert!(took < Duration::from_millis(100), "{:02x}: {took:?}", first[0]);
    }
    assert!(server.says(&["looks like HTTP"], SOON) && server.says(&["TLS"], SOON), "{}", server.log());
}

#[test]
fn p5_names_outside_the_alphabet_are_refused_and_make_no_file() {
    let mut server = Server::start();
    let marker = server.folder().with_extension("outside");
    let long = "x".repeat(129);
    let names = [
        ("live", ""),
        ("live", "."),
        ("live", ".."),
        ("live", "../x"),
        ("live", ".x"),
        ("live", "a/b"),
        ("live", "a\\b"),
        ("live", "a\nb"),
        ("live", "a\r\n#EXT-X-ENDLIST"),
        ("live", "a\0b"),
        ("live", "a b"),
        ("live", "ü"),
        ("live", "~1"),
        ("live", "%2e%2e"),
        ("live", "a\"b"),
        ("live", "<b>"),
        ("live", "\u{202e}x"),
        ("live", &long),
        ("live", "index.m3u8"),
        ("..", "x"),
        ("../..", "x"),
        (".", "x"),
        ("live/../..", "x"),
        ("/etc", ".x"),
        ("a//b", "x"),
        ("a\nb", "x"),
        ("a/b/c/d/e", "x"),
        (&long, "x"),
    ];
    for (app, name) in names {
        let mut peer = Peer::dial(server.address());
        peer.send(&peer::opening(app, name));
        assert!(peer.hears("NetStream.Publish.BadName", SOON), "{app:?} {name:?}");
    }
    assert!(server.is_alive());
    assert_eq!(fs::read_dir(server.folder()).unwrap().count(), 0);
    assert!(!marker.exists());
    let log = server.log();
    assert!(log.lines().all(|line| line.contains(" INFO ")), "no line is broken:\n{log}");
    for good in ["a", "A-Z_0.9", &"x".repeat(128)] {
        opened(server.address(), &peer::opening("live", good));
    }
}

#[test]
fn p8_every_legal_session_is_taken() {
    let server = Server::start();
    let film = peer::film();
    let some: Vec<_> = film.iter().filter(|tag| tag.1 < 5_000).collect();
    let whole = |chunk_bytes: usize| -> Vec<u8> {
        let sized = |tag: &&FilmTag| message_in(chunk_bytes, if tag.0 == 8 { 4 } else { 6 }, tag.0, 1, tag.1, &tag.2);
        some.iter().flat_map(sized).collect()
    };
    let goodbye = peer::goodbye();
    let first_keys = |bytes: usize| -> Vec<u8> {
        let early = film.iter().filter(|tag| tag.1 < 2_500);
        early.flat_map(|tag| message_in(bytes, if tag.0 == 8 { 4 } else { 6 }, tag.0, 1, tag.1, &tag.2)).collect()
    };
    let sessions: [(&str, Vec<Vec<u8>>, bool); 4] = [
        ("all-at-once", vec![peer::opening("live", "all-at-once"), whole(128), goodbye.clone()], false),
        (
            "largest-chunks",
            vec![
                peer::opening("live", "largest-chunks"),
                peer::set_chunk_size(0x7FFF_FFFF),
                whole(1 << 24),
                goodbye.clone(),
            ],
            false,
        ),
        ("interleaved", vec![peer::opening("live", "interleaved"), interleave(&some), goodbye.clone()], false),
        ("byte-by-byte", vec![peer::opening("live", "byte-by-byte"), first_keys(128), goodbye], true),
    ];
    for (name, parts, is_dripped) in sessions {
        let mut peer = Peer::dial(server.address());
        let bytes = parts.concat();
        if is_dripped {
            let (opening, media) = bytes.split_at(parts[0].len());
            for byte in opening {
                assert!(peer.send(&[*byte]), "{name}");
            }
            for few in media.chunks(7) {
                assert!(peer.send(few), "{name}");
            }
        } else {
            assert!(peer.send(&bytes), "{name}");
        }
        assert!(peer.hears("NetStream.Unpublish.Success", Duration::from_secs(20)), "{name}");
        let index = server.folder().join("live").join(name).join("index.m3u8");
        let output = Output::await_end(&index);
        assert!(output.renditions().all(|rendition| rendition.samples().count() > 20), "{name}");
    }
}

#[test]
fn p8_a_publisher_is_back_a_fifth_of_a_second_after_a_reset() {
    let server = Server::start();
    for _ in 0..5 {
        let mut peer = opened(server.address(), &peer::opening("live", "phone"));
        for tag in peer::film().iter().take(100) {
            peer.send(&media(tag));
        }
        // A reset instead of a goodbye.
        socket2::SockRef::from(&peer.socket).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        thread::sleep(Duration::from_millis(200));
    }
    opened(server.address(), &peer::opening("live", "phone"));
}

#[test]
fn p8_a_publisher_is_back_at_once_after_its_connection_broke() {
    let server = Server::start();
    let few: Vec<u8> = peer::film().iter().take(100).flat_map(media).collect();
    for round in 0..20 {
        let mut peer = opened(server.address(), &peer::opening("live", "phone"));
        peer.send(&few);
        // Long enough that it is looked at by the beat.
        thread::sleep(Duration::from_millis(120 + round));
        let linger = if round % 2 == 0 { Some(Duration::ZERO) } else { None };
        socket2::SockRef::from(&peer.socket).set_linger(linger).unwrap();
        drop(peer);
    }
}

/// A video message and the audio messages before it, chunk by chunk in turn.
fn interleave(tags: &[&FilmTag]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut sound: Vec<&FilmTag> = Vec::new();
    for tag in tags {
        if tag.0 == 8 {
            sound.push(tag);
            continue;
        }
        let picture = message(6, 9, 1, tag.1, &tag.2);
        let first = 12 + tag.2.len().min(128);
        bytes.extend(&picture[..first]);
        bytes.extend(sound.drain(..).flat_map(|tag| message(4, 8, 1, tag.1, &tag.2)));
        bytes.extend(&picture[first..]);
    }
    bytes
}

/// A connection on which `opening` was accepted.
fn opened(address: SocketAddr, opening: &[u8]) -> Peer {
    let mut peer = Peer::dial(address);
    peer.send(opening);
    assert!(peer.hears("NetStream.Publish.Start", SOON), "not accepted");
    peer
}

fn await_descriptors(server: &Server, least: usize) {
    let start = Instant::now();
    while server.descriptors() < least {
        assert!(start.elapsed() < SOON, "{} descriptors", server.descriptors());
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(100));
}

#[test]
fn who_guesses_is_closed_after_five_refusals() {
    let mut server = Server::start_with(&["--sign-key", "s3cret"]);
    let mut peer = Peer::dial(server.address());
    peer.send(&[peer::opening("live", "gu3ss"), peer::publish("gu3ss").repeat(9)].concat());
    assert!(peer.hears("NetStream.Publish.Denied", SOON));
    assert!(peer.closed_within(SOON).is_some());
    assert!(server.says(&["refused 5 times"], SOON), "{}", server.log());
    assert!(!server.log().contains("gu3ss"), "what may be a key is not logged");
}
