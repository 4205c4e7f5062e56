//! Data messages of a publisher on their way to viewers: cue points and splices into the playlists, all others into segments.

mod common;
mod core;

use std::time::Duration;

use upscope::amf0::Value;
use upscope::flv::{DataTag, Tag, TagBody};
use upscope::hls::Window;
use upscope::packager::Settings;

use crate::common::case::Case;
use crate::core::boxes::{boxes, timescale, u32_at};
use crate::core::memory::{Broadcast, settings};
use crate::core::tags::{AAC, AVC, audio_header, picture, sound, video_header};

/// SCTE 35 §14.2: out for 60.3 s.
const OUT: &str = "/DAvAAAAAAAA///wFAVIAACPf+/+c2nALv4AUsz1AAAAAAAKAAhDVUVJAAABNWLbowo=";
/// The way back of the same event.
const BACK: &str = "0xFC301B00000000000000FFF00A054800008F7F5F000000000000778F36F3";

fn data(timestamp: u32, name: &str, argument: Value) -> Tag {
    Tag { timestamp, body: TagBody::Data(DataTag { name: name.to_owned(), arguments: vec![argument] }) }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn object(name: &str, value: &str) -> Value {
    Value::Object(vec![(name.to_owned(), text(value))])
}

fn begin(settings: Settings) -> Broadcast {
    let mut broadcast = Broadcast::new(settings);
    broadcast.tag(video_header(0, AVC[0]));
    broadcast.tag(audio_header(0, AAC[0]));
    broadcast
}

/// Pictures and sound of both tracks from one time to another, in milliseconds, with `events` among them.
fn play(broadcast: &mut Broadcast, from_ms: u32, to_ms: u32, events: &[Tag]) {
    let mut events = events.iter().peekable();
    for at in (from_ms..to_ms).step_by(20) {
        while let Some(event) = events.next_if(|event| event.timestamp <= at) {
            broadcast.tag(event.clone());
        }
        broadcast.tag(picture(at, at.is_multiple_of(2000)));
        broadcast.tag(sound(at));
    }
}

/// The lines of the media playlists that begin with `start`; they are the same in all.
fn lines(broadcast: &Broadcast, start: &str) -> Vec<String> {
    let playlists = broadcast.memory.objects.keys().filter(|key| key.contains('~') && key.ends_with(".m3u8"));
    let mut lines = playlists.map(|key| {
        let matching = broadcast.memory.text(key).lines().filter(|line| line.starts_with(start));
        matching.map(str::to_owned).collect::<Vec<_>>()
    });
    let first = lines.next().unwrap();
    assert!(lines.all(|others| others == first));
    first
}

/// What segments carry: the file, the time in milliseconds of the output timeline, and the text.
fn carried(broadcast: &Broadcast) -> Vec<(String, u64, String)> {
    let objects = &broadcast.memory.objects;
    let mut found = Vec::new();
    for (key, body) in objects.iter().filter(|(key, _)| key.ends_with(".mp4") && !key.contains("-init-")) {
        let header = format!("{}-init-0.mp4", key.rsplit_once('-').unwrap().0);
        for message in boxes(body).into_iter().filter(|found| found.kind == *b"emsg") {
            let fields = message.body;
            assert_eq!(message.version(), 1);
            assert_eq!(u64::from(u32_at(fields, 4)), timescale(&objects[&header]));
            let ticks = u64::from(u32_at(fields, 8)) << 32 | u64::from(u32_at(fields, 12));
            let id3 = fields[24..].strip_prefix(b"https://aomedia.org/emsg/ID3\0\0").unwrap();
            assert!(id3.starts_with(b"ID3\x04"));
            let text = String::from_utf8(id3[31 - 10..].to_vec()).unwrap();
            let file = key.rsplit_once('/').unwrap().1.to_owned();
            found.push((file, ticks * 1000 / u64::from(u32_at(fields, 4)), text));
        }
    }
    found
}

#[test]
fn what_is_said_at_a_moment_travels_with_the_pictures_of_that_moment() {
    let mut broadcast = begin(settings());
    let events = [
        data(0, "onTextData", object("text", "first")),
        data(2000, "onFI", object("st", "12:00:00.0")),
        data(2010, "anything", Value::Null),
        // Of no clock: now.
        data(1_000_000_000, "onTextData", object("text", "lost")),
    ];
    play(&mut broadcast, 0, 3000, &events);
    broadcast.tag(data(0, "onTextData", text("late")));
    play(&mut broadcast, 3000, 4000, &[]);
    broadcast.tag(data(9000, "onTextData", text("last")));
    broadcast.finish();
    let expected = [
        ("video-0.mp4", 1000, "onTextData\0{\"text\":\"first\"}"),
        ("video-1.mp4", 3000, "onFI\0{\"st\":\"12:00:00.0\"}"),
        ("video-1.mp4", 3010, "anything\0null"),
        ("video-1.mp4", 3980, "onTextData\0\"late\""),
        ("video-1.mp4", 4980, "onTextData\0\"last\""),
    ];
    let found = carried(&broadcast);
    let found: Vec<_> = found.iter().map(|(file, at_ms, text)| (file.as_str(), *at_ms, text.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(lines(&broadcast, "#EXT-X-DATERANGE"), Vec::<String>::new());
}

#[test]
fn without_pictures_it_travels_with_the_sound() {
    let mut broadcast = Broadcast::new(settings());
    broadcast.tag(audio_header(0, AAC[0]));
    (0..200).for_each(|n| broadcast.tag(sound(n * 20)));
    broadcast.tag(data(3000, "onTextData", text("heard")));
    (200..300).for_each(|n| broadcast.tag(sound(n * 20)));
    broadcast.finish();
    let found = carried(&broadcast);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.starts_with("audio-"), "{found:?}");
}

#[test]
fn cue_points_and_splices_are_date_ranges_without_a_received_byte() {
    let mut broadcast = begin(settings());
    let nasty = "\"\n#EXT-X-ENDLIST\nhttp://example.org/evil.mp4\n";
    let events = [
        data(500, "onCuePoint", object("name", nasty)),
        data(1000, "onCuePoint", Value::Object(vec![("parameters".to_owned(), object("scte35", OUT))])),
        data(5000, "onSCTE35", text(BACK)),
    ];
    play(&mut broadcast, 0, 8000, &events);
    broadcast.finish();
    assert_eq!(carried(&broadcast), []);
    let found = lines(&broadcast, "#EXT-X-DATERANGE");
    // The first picture was received at 17:54:58.123.
    let cue = "#EXT-X-DATERANGE:ID=\"cue-1763834098623-0\",CLASS=\"upscope.cue-point\",START-DATE=\"2025-11-22T17:54:58.623Z\",\
        X-UPSCOPE-CUE-POINT=0x7B226E616D65223A22";
    assert!(found[0].starts_with(cue), "{}", found[0]);
    let splice = "#EXT-X-DATERANGE:ID=\"splice-1207959695-1763834099123-1\",START-DATE=\"2025-11-22T17:54:59.123Z\"";
    assert!(found[1].starts_with(&format!("{splice},PLANNED-DURATION=60.293,SCTE35-OUT=0xFC302F")), "{}", found[1]);
    assert_eq!(found[2], format!("{splice},DURATION=4.000,SCTE35-IN={BACK}"));
    assert_eq!(found.len(), 3);
    assert_eq!(lines(&broadcast, "http").len(), 0);
}

#[test]
fn date_ranges_go_with_the_segments_they_are_about() {
    let mut broadcast = begin(Settings { window: Window::Segments(3), ..settings() });
    let cue = data(3000, "onCuePoint", object("name", "a"));
    play(&mut broadcast, 0, 4100, &[data(1000, "onSCTE35", text(OUT)), cue]);
    assert_eq!(lines(&broadcast, "#EXT-X-DATERANGE").len(), 2);
    play(&mut broadcast, 4100, 20_000, &[]);
    // The break is not over.
    let left = lines(&broadcast, "#EXT-X-DATERANGE");
    assert!(left.len() == 1 && left[0].contains("SCTE35-OUT"), "{left:?}");
    play(&mut broadcast, 20_000, 22_100, &[data(20_000, "onSCTE35", text(BACK))]);
    assert_eq!(lines(&broadcast, "#EXT-X-DATERANGE").len(), 2);
    play(&mut broadcast, 22_100, 40_000, &[]);
    assert_eq!(lines(&broadcast, "#EXT-X-DATERANGE").len(), 0);
}

#[test]
fn date_ranges_outlive_the_process() {
    let mut broadcast = begin(settings());
    play(&mut broadcast, 0, 6100, &[data(1000, "onSCTE35", text(OUT)), data(3000, "onCuePoint", text("a"))]);
    let before = lines(&broadcast, "#EXT-X-DATERANGE");
    let mut broadcast = broadcast.restart(settings()).unwrap();
    broadcast.wait(Duration::from_secs(5));
    broadcast.tag(video_header(0, AVC[0]));
    broadcast.tag(audio_header(0, AAC[0]));
    play(&mut broadcast, 0, 4100, &[data(1000, "onSCTE35", text(BACK))]);
    let after = lines(&broadcast, "#EXT-X-DATERANGE");
    assert_eq!(after[..2], before);
    let id = |line: &str| line.split('"').nth(1).unwrap().to_owned();
    assert_eq!(id(&after[2]), id(&before[0]));
}

#[test]
fn a_flood_of_data_is_left_out_and_the_media_goes_on() {
    let mut broadcast = begin(settings());
    let long = "x".repeat(4000);
    for at in (0..10_000).step_by(20) {
        broadcast.tag(picture(at, at.is_multiple_of(2000)));
        broadcast.tag(sound(at));
        for name in ["onTextData", "onCuePoint", "onSCTE35"] {
            (0..20).for_each(|_| broadcast.tag(data(at, name, text(&long[..at as usize % 4000]))));
        }
    }
    broadcast.finish();
    let segments: usize =
        broadcast.memory.objects.iter().filter(|(key, _)| key.contains("video-")).map(|(_, body)| body.len()).sum();
    assert!(segments < 5 * (64 << 10) + 100_000, "{segments} bytes");
    assert!(lines(&broadcast, "#EXT-X-DATERANGE").concat().len() < 400_000);
    assert!(broadcast.packager.totals().dropped.events > 1000);
    assert_eq!(broadcast.packager.totals().samples, 1000);
}

#[test]
fn a_recorded_session_with_data_messages() {
    let mut broadcast = Broadcast::new(settings());
    for session in Case::load("c-data-messages").sessions() {
        broadcast.receive([&session.client[..]]);
    }
    broadcast.finish();
    let found = carried(&broadcast);
    assert!(found.iter().any(|(.., text)| text.starts_with("onTextData\0")), "{found:?}");
    assert!(found.iter().any(|(.., text)| text.starts_with("onFI\0")), "{found:?}");
    let cues = lines(&broadcast, "#EXT-X-DATERANGE");
    assert!(cues.iter().all(|line| line.contains("X-UPSCOPE-CUE-POINT=0x7B")) && !cues.is_empty(), "{cues:?}");
}
