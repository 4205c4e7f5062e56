//! Captions that are found in pictures are declared; where there are none, that is said.

mod core;

use crate::core::memory::{Broadcast, settings};
use crate::core::tags::{AAC, AVC, audio_header, picture_behind, sound, video_header};

/// SEI with a control code for CC1, with one for CC3, and with a packet of service 1.
const CC1: &str = "00000012 0604 0e b50031 47413934 03 41ff fc9420 ff 80";
const CC3: &str = "00000012 0604 0e b50031 47413934 03 41ff fd1520 ff 80";
const SERVICE1: &str = "00000015 0604 11 b50031 47413934 03 42ff ff0222 fe4141 ff 80";

/// The multivariant playlist of twelve seconds, whose pictures from `from_ms` on have `sei`.
fn index(sei: &str, from_ms: u32) -> String {
    let mut broadcast = Broadcast::new(settings());
    broadcast.tag(video_header(0, AVC[0]));
    broadcast.tag(audio_header(0, AAC[0]));
    for at in (0..12_000).step_by(20) {
        broadcast.tag(picture_behind(if at >= from_ms { sei } else { "" }, at, at.is_multiple_of(2000)));
        broadcast.tag(sound(at));
    }
    broadcast.finish();
    broadcast.memory.text("live/cam1/index.m3u8").to_owned()
}

#[test]
fn channels_are_declared_with_their_names() {
    let text = index(&format!("{CC1}{CC3}"), 0);
    for (number, channel) in [(1, "CC1"), (3, "CC3")] {
        let line = format!(
            "#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID=\"captions\",LANGUAGE=\"und\",NAME=\"Captions {number}\",AUTOSELECT=YES,\
             INSTREAM-ID=\"{channel}\"\n"
        );
        assert!(text.contains(&line), "{text}");
    }
    assert!(text.contains(",CLOSED-CAPTIONS=\"captions\"\n") && text.contains("#EXT-X-VERSION:4\n"), "{text}");
}

#[test]
fn services_need_version_7() {
    let text = index(SERVICE1, 0);
    assert!(text.contains("INSTREAM-ID=\"SERVICE1\"") && text.contains("#EXT-X-VERSION:7\n"), "{text}");
}

#[test]
fn captions_that_begin_later_are_declared_then() {
    let text = index(CC1, 7000);
    assert!(text.contains("INSTREAM-ID=\"CC1\""), "{text}");
}

#[test]
fn where_there_are_none_that_is_said() {
    let text = index("", 0);
    assert!(text.contains(",CLOSED-CAPTIONS=NONE\n") && !text.contains("CLOSED-CAPTIONS,"), "{text}");
}
