//! It is foreseen until when nothing can end a segment, so that a publisher's bytes may wait till then.

mod core;

use std::time::Duration;

use upscope::flv::Tag;

use crate::core::memory::{Broadcast, settings};
use crate::core::tags::{AAC, AVC, audio_header, picture, sound, video_header};

/// What came of the foresight for a broadcast.
#[derive(Debug, Default)]
struct Foreseen {
    /// Tags, and those of them that could have waited.
    tags: u32,
    quiet: u32,
    /// Segments that ended before that could be.
    too_early: u32,
}

/// Pictures every 40 ms, those at which `is_key` holds key frames, and sound, for half a minute.
fn watch(has_video: bool, is_key: impl Fn(u32) -> bool) -> Foreseen {
    let mut foreseen = Foreseen::default();
    let mut broadcast = Broadcast::new(settings());
    let mut send = |tag: Tag| {
        let quiet_until = broadcast.packager.quiet_until();
        let segments = broadcast.packager.totals().segments;
        broadcast.tag(tag);
        let is_quiet = quiet_until.is_some_and(|until| broadcast.now.monotonic < until);
        foreseen.tags += 1;
        foreseen.quiet += u32::from(is_quiet);
        foreseen.too_early += u32::from(is_quiet && broadcast.packager.totals().segments > segments);
    };
    if has_video {
        send(video_header(0, AVC[0]));
    }
    send(audio_header(0, AAC[0]));
    let mut sounds = (0..30_000_u32).step_by(21).peekable();
    for at in (0..30_000_u32).step_by(40) {
        if has_video {
            send(picture(at, is_key(at)));
        }
        while let Some(sound_at) = sounds.next_if(|sound_at| *sound_at < at + 40) {
            send(sound(sound_at));
        }
    }
    broadcast.finish();
    foreseen
}

#[test]
fn most_of_a_steady_broadcast_can_wait() {
    for gop in [40, 400, 1000, 2000] {
        let Foreseen { tags, quiet, too_early } = watch(true, |at| at.is_multiple_of(gop));
        assert!(quiet > tags * 7 / 8, "GOPs of {gop} ms: {quiet} of {tags}");
        assert_eq!(too_early, 0, "GOPs of {gop} ms");
    }
    let Foreseen { tags, quiet, too_early } = watch(false, |_| false);
    assert!(quiet > tags * 7 / 8, "{quiet} of {tags}");
    assert_eq!(too_early, 0);
}

#[test]
fn rare_key_frames_end_segments_any_time() {
    let Foreseen { quiet, too_early, .. } = watch(true, |at| at.is_multiple_of(9000));
    assert_eq!(too_early, 0);
    assert!(quiet > 0);
}

#[test]
fn who_has_ended_a_segment_early_is_not_trusted_again() {
    // A key frame every two seconds, and one more wherever the scene changes.
    let is_key = |at: u32| at.is_multiple_of(2000) || [3200, 7120, 10_880, 15_240, 21_000].contains(&at);
    let Foreseen { tags, quiet, too_early } = watch(true, is_key);
    assert!(too_early <= 1, "{too_early}");
    assert!(quiet > tags / 10, "{quiet} of {tags}");
}

#[test]
fn nothing_can_wait_at_the_start_and_behind_an_interruption() {
    let mut broadcast = Broadcast::new(settings());
    assert_eq!(broadcast.packager.quiet_until(), None);
    for (start, end) in [(0, 3000), (3000, 6000)] {
        broadcast.tag(video_header(start, AVC[0]));
        assert_eq!(broadcast.packager.quiet_until(), None);
        for at in (start..end).step_by(40) {
            broadcast.tag(picture(at, at.is_multiple_of(1000)));
        }
        let quiet_until = broadcast.packager.quiet_until().unwrap();
        assert!(quiet_until > broadcast.now.monotonic + Duration::from_millis(500), "{quiet_until:?}");
        broadcast.interrupt();
        assert_eq!(broadcast.packager.quiet_until(), None);
    }
}
