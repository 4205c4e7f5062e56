//! What fMP4 HLS cannot carry is refused: a word to the publisher, a line in the log, and the other track goes on. The tags were
//! made by ffmpeg.

#![expect(clippy::disallowed_methods, reason = "the output lies in files")]

mod common;

use std::fs;
use std::time::Duration;

use common::peer::{FilmTag, Peer, film, flv, media, opening, set_chunk_size};
use common::server::Server;

const PATIENCE: Duration = Duration::from_secs(5);
const VIDEO: u8 = 9;
const AUDIO: u8 = 8;

/// Publishes `tags`, of which the track `kept` is that of the film. `words` have to be said to the publisher and in the log, once,
/// and the playlist has to have `codecs` and nothing else.
fn check(tags: Vec<FilmTag>, kept: u8, words: &str, codecs: &str) {
    let mut server = Server::start();
    let mut peer = Peer::dial(server.address());
    peer.send(&[opening("live", "odd"), set_chunk_size(60_000)].concat());
    assert!(peer.hears("NetStream.Publish.Start", PATIENCE));
    let mut all: Vec<_> = film().into_iter().filter(|(kind, ..)| *kind == kept).collect();
    all.extend(tags.into_iter().filter(|(kind, ..)| *kind != kept));
    all.sort_by_key(|(_, timestamp, _)| *timestamp);
    for tag in &all {
        assert!(peer.send(&media(tag)));
    }
    assert!(peer.hears("NetStream.Publish.UnsupportedCodec", PATIENCE), "{words}: {}", server.log());
    assert!(peer.hears(words, PATIENCE), "{words}: {}", String::from_utf8_lossy(&peer.heard));
    drop(peer);
    assert!(server.says(&["gone: "], PATIENCE));
    let stopped = server.stop();
    assert_eq!(stopped.log.matches(words).count(), 1, "{}", stopped.log);
    let index = fs::read_to_string(stopped.folder.path().join("live/odd/index.m3u8")).unwrap();
    assert!(index.contains(&format!("CODECS=\"{codecs}\"")), "{index}");
}

fn uncarried(name: &str) -> Vec<FilmTag> {
    flv(&format!("tests/corpus/uncarried/{name}.flv"))
}

const H264: &str = "avc1.64001e";
const AAC: &str = "mp4a.40.2";

#[test]
fn sorenson_h263() {
    check(uncarried("flv1-nellymoser"), AUDIO, "video is left out: HLS players do not take Sorenson H.263", AAC);
}

#[test]
fn screen_video() {
    check(uncarried("flashsv-adpcm_swf"), AUDIO, "video is left out: HLS players do not take Screen video", AAC);
}

#[test]
fn screen_video_2() {
    check(
        uncarried("flashsv2-libspeex"),
        AUDIO,
        "video is left out: HLS players do not take Screen video version 2",
        AAC,
    );
}

#[test]
fn vp6() {
    // Nothing that encodes it is left: the header of a key frame.
    check(vec![(VIDEO, 0, vec![0x14, 0, 0])], AUDIO, "video is left out: HLS players do not take On2 VP6", AAC);
}

#[test]
fn mpeg_ts_sequence_headers() {
    let start = vec![(VIDEO, 0, b"\x95av01\x80\x04\x81\0\0\0".to_vec())];
    check(start, AUDIO, "MPEG-TS sequence headers are not supported", AAC);
}

#[test]
fn nellymoser() {
    check(uncarried("flv1-nellymoser"), VIDEO, "audio is left out: HLS players do not take Nellymoser", H264);
}

#[test]
fn adpcm() {
    check(uncarried("flashsv-adpcm_swf"), VIDEO, "audio is left out: HLS players do not take ADPCM", H264);
}

#[test]
fn speex() {
    check(uncarried("flashsv2-libspeex"), VIDEO, "audio is left out: HLS players do not take Speex", H264);
}

#[test]
fn g711() {
    check(uncarried("flv1-pcm_alaw"), VIDEO, "audio is left out: HLS players do not take G.711 A-law", H264);
    let ulaw = uncarried("flv1-pcm_alaw").into_iter().map(|(kind, timestamp, mut body)| {
        body[0] = body[0] & 0x0f | 0x80;
        (kind, timestamp, body)
    });
    check(ulaw.collect(), VIDEO, "audio is left out: HLS players do not take G.711 mu-law", H264);
}
