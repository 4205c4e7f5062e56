//! Enhanced RTMP multitrack, in each of its three forms: every track becomes a rendition of its own, with every frame that was
//! sent for it. The frames are those of recorded sessions, put together anew.

mod common;

use std::time::Duration;

use common::case::Case;
use common::output::{Output, Rendition};
use common::peer::{Peer, goodbye, media};
use common::server::{Server, inspect};
use common::source::{self, SourceTrack};

/// Enhanced RTMP v2, `AvMultitrackType`.
#[derive(Clone, Copy, Debug)]
enum Form {
    OneTrack,
    ManyTracks,
    ManyTracksManyCodecs,
}

use Form::{ManyTracks, ManyTracksManyCodecs, OneTrack};

/// `VideoPacketType` and `AudioPacketType` agree on these.
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;

const VIDEO: u8 = 9;
const AUDIO: u8 = 8;

/// A track to send: its codec and what was recorded of it.
struct Track {
    four_cc: &'static [u8; 4],
    source: SourceTrack,
}

/// The first video or audio track of a recorded session.
fn recorded(id: &str, kind: u8, four_cc: &'static [u8; 4]) -> Track {
    let case = Case::load(id);
    let publish = source::publishes(&case.sessions()[0]).remove(0);
    let mut tracks = if kind == VIDEO { publish.video } else { publish.audio };
    Track { four_cc, source: tracks.remove(&0).unwrap() }
}

/// One message for the bodies of several tracks, by their numbers; `first` is its first byte without the packet type.
fn message(form: Form, kind: u8, first: u8, packet_type: u8, bodies: &[(u8, &[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let multitrack = if kind == VIDEO { 6 } else { 5 };
    let mut message = vec![first | multitrack, (form as u8) << 4 | packet_type];
    if !matches!(form, ManyTracksManyCodecs) {
        assert!(bodies.iter().all(|(_, four_cc, _)| *four_cc == bodies[0].1), "{form:?} has one codec");
        message.extend_from_slice(bodies[0].1);
    }
    for (track, four_cc, body) in bodies {
        if matches!(form, ManyTracksManyCodecs) {
            message.extend_from_slice(*four_cc);
        }
        message.push(*track);
        if !matches!(form, OneTrack) {
            message.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
        }
        message.extend_from_slice(body);
    }
    message
}

/// All messages of `tracks`, with their times: those of the first one. Frames with the same place go into one message, as far
/// as the form allows it.
fn messages(form: Form, kind: u8, tracks: &[Track]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut say = |at: u32, first: u8, packet_type: u8, bodies: Vec<(u8, &[u8; 4], Vec<u8>)>| {
        let together = if matches!(form, OneTrack) { 1 } else { bodies.len() };
        for bodies in bodies.chunks(together) {
            messages.push((kind, at, message(form, kind, first, packet_type, bodies)));
        }
    };
    let first_byte = |is_key: bool| if kind == VIDEO && !is_key { 0xa0 } else { 0x90 };
    let each = || (0_u8..).zip(tracks);
    let records = each().map(|(number, track)| (number, track.four_cc, track.source.configuration.clone().unwrap()));
    say(0, first_byte(true), SEQUENCE_START, records.collect());
    for (place, unit) in tracks[0].source.units.iter().enumerate() {
        let frames = each().filter_map(|(number, track)| {
            let frame = track.source.units.get(place)?;
            assert_eq!(frame.is_key, unit.is_key, "frame {place} of track {number}");
            let mut body = Vec::new();
            if track.four_cc == b"avc1" {
                body.extend_from_slice(&i32::try_from(frame.composition_ms).unwrap().to_be_bytes()[1..]);
            }
            body.extend_from_slice(&frame.payload);
            Some((number, track.four_cc, body))
        });
        let at = u32::try_from(unit.decode_ms).unwrap();
        say(at, first_byte(unit.is_key), CODED_FRAMES, frames.collect());
    }
    messages
}

/// Publishes the tracks; each has to come out as a rendition of its own, with `codecs` for each video rendition.
fn check(form: Form, video: &[Track], audio: &[Track], codecs: &[&str]) {
    let server = Server::start();
    let mut peer = Peer::publishing(server.address(), "live", "many");
    let mut all = messages(form, VIDEO, video);
    all.extend(messages(form, AUDIO, audio));
    all.sort_by_key(|(_, at, _)| *at);
    for each in &all {
        assert!(peer.send(&media(each)), "{form:?}");
    }
    peer.send(&goodbye());
    let output = Output::await_end(&server.folder().join("live/many/index.m3u8"));
    assert!(peer.closed_within(Duration::from_millis(100)).is_none(), "{form:?}: a legal publisher is sent away");

    let named: Vec<_> = output.multivariant.variants.iter().map(|variant| variant.codecs.join(",")).collect();
    assert_eq!(named, codecs, "{form:?}: {}", output.multivariant.text);
    let came: Vec<_> = output.video.iter().chain(&output.video_more).collect();
    assert_eq!((came.len(), output.audio.len()), (video.len(), audio.len()), "{form:?}: {}", output.multivariant.text);
    for (track, rendition) in video.iter().zip(came).chain(audio.iter().zip(&output.audio)) {
        assert_came(form, track, rendition);
    }
    assert_eq!(inspect(server.folder()), Ok(()), "{form:?}");
}

/// All frames in order and without a break, but for sound that may lie before the first picture.
fn assert_came(form: Form, track: &Track, rendition: &Rendition) {
    let name = format!("{form:?}, {}", rendition.uri);
    let samples: Vec<_> = rendition.samples().map(|(_, _, sample)| &sample.payload).collect();
    let sent: Vec<_> = track.source.units.iter().map(|unit| &unit.payload).collect();
    let most_lacking = if rendition.uri.starts_with("audio") { 5 } else { 0 };
    let lacking = sent.len().checked_sub(samples.len()).unwrap_or_else(|| panic!("{name}: too many"));
    assert!(lacking <= most_lacking, "{name}: {} of {} frames", samples.len(), sent.len());
    assert!(samples == sent[lacking..], "{name}: frames differ");
    assert_eq!((rendition.playlist.discontinuities(), rendition.headers.len()), (0, 1), "{name}");
}

fn h264() -> Track {
    recorded("r-ff9-opus", VIDEO, b"avc1")
}

fn av1() -> Track {
    recorded("r-ff9-av1", VIDEO, b"av01")
}

fn opus() -> Track {
    recorded("r-ff9-opus", AUDIO, b"Opus")
}

#[test]
fn each_track_in_messages_of_its_own() {
    check(OneTrack, &[h264(), av1()], &[opus(), opus()], &["avc1.64000c,opus", "av01.0.00M.08,opus"]);
}

#[test]
fn many_tracks_of_one_codec_in_a_message() {
    check(ManyTracks, &[h264(), h264()], &[opus(), opus()], &["avc1.64000c,opus", "avc1.64000c,opus"]);
}

#[test]
fn many_tracks_of_many_codecs_in_a_message() {
    check(ManyTracksManyCodecs, &[h264(), av1()], &[opus(), opus()], &["avc1.64000c,opus", "av01.0.00M.08,opus"]);
}
