//! How broadcasts start, and what headers that come late, again or changed do: tags in, items out.

mod core;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use upscope::flv::Tag;
use upscope::media::{Cause, Item, Moment, Timescale, TrackId};
use upscope::remuxer::{Dropped, Remuxer};

use crate::core::tags::{AAC, AVC, audio_header, no_picture, open_key, picture, picture_of, sound, video_header};

/// What came out, one word an item: epochs, tracks, and samples, with times in milliseconds of the output timeline. `!`
/// stands behind a picture at which decoding can start, `?` behind one whose GOP is open.
fn words(remuxer: &mut Remuxer) -> String {
    let mut timescales = BTreeMap::new();
    let mut text = String::new();
    while let Some(item) = remuxer.poll_item() {
        match item {
            Item::Epoch(epoch) => {
                let cause = if epoch.cause == Cause::Publish { "publish" } else { "jump" };
                write!(text, "{cause}@{} ", epoch.anchor_us / 1000).unwrap();
            }
            Item::Captions(id, captions) => write!(text, "{id} {captions:?} ").unwrap(),
            Item::Event(event) => write!(text, "e{} ", event.time_us / 1000).unwrap(),
            Item::Track(track) => {
                write!(text, "{}={} ", track.id, track.configuration.rfc6381()).unwrap();
                timescales.insert(track.id, track.timescale);
            }
            Item::Sample(id, sample) => {
                let usual = if id == TrackId::VIDEO { Timescale::VIDEO } else { Timescale::new(48_000).unwrap() };
                let timescale = timescales.get(&id).copied().unwrap_or(usual);
                let mark = match (id == TrackId::VIDEO, sample.is_sync, sample.is_open_gop) {
                    (true, true, false) => "!",
                    (true, true, true) => "?",
                    _ => "",
                };
                write!(text, "{}{}{mark} ", &id.to_string()[..1], timescale.micros(sample.decode_time) / 1000).unwrap();
            }
        }
    }
    text.trim_end().to_owned()
}

fn play(remuxer: &mut Remuxer, tags: impl IntoIterator<Item = Tag>) -> String {
    for tag in tags {
        let at = Duration::from_millis(tag.timestamp.into());
        remuxer.handle_tag(tag, Moment { monotonic: at, unix: at }).unwrap();
    }
    words(remuxer)
}

fn remuxer() -> Remuxer {
    Remuxer::new(Duration::from_secs(1))
}

/// What comes out of headers of both tracks and `tags`, and what of them does not.
fn played(tags: impl IntoIterator<Item = Tag>) -> (String, Dropped) {
    let mut remuxer = remuxer();
    let words = play(&mut remuxer, headers().into_iter().chain(tags));
    (words, remuxer.dropped())
}

fn headers() -> [Tag; 2] {
    [video_header(0, AVC[0]), audio_header(0, AAC[0])]
}

const START: &str = "publish@1000 video=avc1.64001e audio=mp4a.40.2";

#[test]
fn a_broadcast_starts_as_soon_as_both_tracks_are_there() {
    let (words, dropped) = played([picture(0, true), sound(0), picture(40, false), sound(21)]);
    assert_eq!(words, format!("{START} v1000! a1000 v1040 a1021"));
    assert_eq!(dropped, Dropped::default());
}

#[test]
fn pictures_wait_a_second_for_sound() {
    let pictures = |count| (0..count).map(|n| picture(n * 100, n == 0));
    assert_eq!(played(pictures(10)).0, "");
    assert!(played(pictures(11)).0.starts_with(&format!("{START} v1000! v1100 ")));
}

#[test]
fn sound_waits_a_second_where_nothing_says_that_pictures_come() {
    let tags = |count| [audio_header(0, AAC[0])].into_iter().chain((0..count).map(|n| sound(n * 100)));
    assert_eq!(play(&mut remuxer(), tags(10)), "");
    assert!(play(&mut remuxer(), tags(11)).starts_with("publish@1000 audio=mp4a.40.2 a1000 "));
}

#[test]
fn sound_waits_five_seconds_for_the_first_key_frame() {
    // A relay that joins in the middle of a GOP.
    let tags = |count| (0..count).flat_map(|n| [picture(n * 100, false), sound(n * 100)]);
    assert_eq!(played(tags(50)).0, "");
    let (words, dropped) = played(tags(51));
    assert!(words.starts_with("publish@1000 audio=mp4a.40.2 a1000 "), "{words}");
    assert_eq!(dropped, Dropped { before_first_key: 51, ..Dropped::default() });

    let (words, dropped) = played(tags(20).chain([picture(2000, true), sound(2000), sound(2021)]));
    assert_eq!(words, format!("{START} v1000! a1000 a1021"));
    assert_eq!(dropped, Dropped { before_first_key: 20, early_audio: 20, ..Dropped::default() });
}

#[test]
fn a_little_sound_before_the_first_picture_is_kept() {
    // The picture is shown 80 ms after it is decoded: sound leads by 180 ms.
    let (words, dropped) = played([sound(0), sound(21), picture_of(5, 100, 80, true), sound(42)]);
    assert_eq!(words, format!("{START} a1000 a1021 v1100! a1042"));
    assert_eq!(dropped, Dropped::default());
}

#[test]
fn much_sound_before_the_first_picture_is_left_out() {
    let tags = (0..50).map(|n| sound(n * 20)).chain([picture(1000, true), sound(1000)]);
    let (words, dropped) = played(tags);
    assert_eq!(words, format!("{START} v1000! a1000"));
    assert_eq!(dropped, Dropped { early_audio: 50, ..Dropped::default() });
}

#[test]
fn media_before_its_header_is_left_out() {
    let (words, dropped) = {
        let mut remuxer = remuxer();
        let tags = [
            picture(0, true),
            sound(0),
            video_header(0, AVC[0]),
            picture(40, false),
            picture(80, true),
            sound(80),
            audio_header(90, AAC[0]),
            sound(100),
        ];
        (play(&mut remuxer, tags), remuxer.dropped())
    };
    assert_eq!(words, format!("{START} v1000! a1020"));
    assert_eq!(dropped, Dropped { before_configuration: 3, before_first_key: 1, ..Dropped::default() });
}

#[test]
fn headers_that_come_again_change_nothing() {
    let before = [picture(0, true), sound(0), picture(40, false)];
    let (words, dropped) = played(before.into_iter().chain(headers()).chain([picture(80, false), sound(21)]));
    assert_eq!(words, format!("{START} v1000! a1000 v1040 v1080 a1021"));
    assert_eq!(dropped, Dropped::default());
}

#[test]
fn other_headers_are_announced_with_the_first_sample_that_needs_them() {
    let (words, dropped) = played([
        picture(0, true),
        sound(0),
        video_header(40, AVC[1]),
        picture(40, false),
        picture(80, true),
        audio_header(21, AAC[1]),
        sound(21),
    ]);
    assert_eq!(words, format!("{START} v1000! a1000 video=avc1.640015 v1080! audio=mp4a.40.2 a1021"));
    // No decoder could show a picture of the new sequence before its first key frame.
    assert_eq!(dropped, Dropped { before_first_key: 1, ..Dropped::default() });
}

#[test]
fn key_frames_without_an_idr_slice_open_their_gop_and_other_messages_are_no_pictures() {
    let (words, dropped) = played([open_key(0), sound(0), no_picture(20), picture(40, false)]);
    assert_eq!(words, format!("{START} v1000? a1000 v1040"));
    assert_eq!(dropped, Dropped { empty: 1, ..Dropped::default() });
}

#[test]
fn a_publisher_that_comes_back_says_everything_again() {
    let mut remuxer = remuxer();
    let media = [picture(5000, true), sound(5000), picture(5040, false)];
    let words = play(&mut remuxer, headers().into_iter().chain(media));
    assert_eq!(words, format!("{START} v1000! a1000 v1040"));
    remuxer.interrupt();
    assert_eq!(play(&mut remuxer, [picture(0, true), sound(0)]), "");
    let words = play(&mut remuxer, headers().into_iter().chain([picture(40, false), picture(80, true), sound(80)]));
    // A second behind what came before, whatever his clock says.
    assert_eq!(words, "publish@2040 video=avc1.64001e audio=mp4a.40.2 v2040! a2040");
    let dropped = Dropped { before_configuration: 2, before_first_key: 1, ..Dropped::default() };
    assert_eq!(remuxer.dropped(), dropped);
}

#[test]
fn a_publisher_who_leaves_before_the_start_is_heard_nevertheless() {
    let mut remuxer = remuxer();
    assert_eq!(play(&mut remuxer, headers().into_iter().chain([picture(0, true), picture(40, false)])), "");
    remuxer.interrupt();
    assert_eq!(words(&mut remuxer), format!("{START} v1000! v1040"));
}
