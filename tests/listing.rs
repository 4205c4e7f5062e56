//! When what is complete is listed: at once, and of media that comes faster than it plays, many segments at once.

mod core;

use std::time::Duration;

use upscope::hls::Window;
use upscope::packager::Settings;

use crate::core::memory::{Broadcast, settings};
use crate::core::tags::{AAC, AVC, audio_header, picture, sound, video_header};

/// How long what is complete may wait to be listed.
const LONGEST: Duration = Duration::from_millis(50);
/// Segments of two seconds.
const SEGMENTS: u32 = 400;

/// What came of a broadcast whose segments were complete at a pace.
struct Listed {
    broadcast: Broadcast,
    /// How often its playlist was put.
    times: usize,
    /// The most segments that it listed.
    most: usize,
}

/// Segments of two seconds, one in `every`.
fn listed(window: Window, every: Duration) -> Listed {
    let mut broadcast = Broadcast::new(Settings { window, ..settings() });
    broadcast.tag(video_header(0, AVC[0]));
    let mut most = 0;
    for number in 0..SEGMENTS {
        broadcast.packager.handle_tag(picture(number * 2_000, true), broadcast.now);
        broadcast.wait(every);
        most = most.max(entries(&broadcast));
        if let Some(at) = broadcast.packager.lists_at() {
            assert!(at <= broadcast.now.monotonic + LONGEST, "{at:?} at {:?}", broadcast.now.monotonic);
        }
    }
    let times = broadcast.memory.log.lines().filter(|line| line.ends_with("video.m3u8")).count();
    Listed { broadcast, times, most }
}

/// How many segments are listed.
fn entries(broadcast: &Broadcast) -> usize {
    broadcast.memory.judge.playlists().map(|(_, playlist)| playlist.entries.len()).max().unwrap_or(0)
}

#[test]
fn a_live_segment_is_listed_as_soon_as_it_is_complete() {
    let Listed { broadcast, times, .. } = listed(Window::Segments(1000), Duration::from_secs(2));
    assert_eq!(times as u64, broadcast.packager.totals().segments);
    assert_eq!(broadcast.packager.lists_at(), None);
}

#[test]
fn segments_of_a_film_are_listed_together() {
    let Listed { mut broadcast, times, .. } = listed(Window::Segments(1000), Duration::from_millis(2));
    // 800 ms; at the start each time that there are twice as many.
    assert!((16..16 + 10).contains(&times), "{times} times");
    assert!(broadcast.packager.lists_at().is_some());
    // Nothing more comes for a while.
    broadcast.wait(LONGEST);
    assert_eq!(entries(&broadcast) as u64, broadcast.packager.totals().segments);
    assert_eq!(broadcast.packager.lists_at(), None);
}

#[test]
fn who_follows_a_film_misses_no_segment() {
    // The judge sees to it that a playlist goes on where the one before ended.
    let Listed { mut broadcast, times, most } = listed(Window::Segments(10), Duration::from_micros(100));
    assert!((30..50).contains(&times), "{times} times");
    assert!(most <= 20, "{most} segments");
    broadcast.finish();
    assert_eq!(broadcast.memory.judge.listed as u64, broadcast.packager.totals().segments);
}

#[test]
fn what_was_complete_before_an_interruption_is_listed_with_it() {
    let Listed { mut broadcast, .. } = listed(Window::Segments(1000), Duration::from_millis(2));
    broadcast.interrupt();
    assert_eq!(entries(&broadcast) as u64, broadcast.packager.totals().segments);
}

#[test]
fn a_film_of_pictures_and_sound_ends_without_a_leap() {
    // The judge sees to it here too, whatever was listed of either before.
    for length_ms in (1..60).map(|number| number * 1_300) {
        let mut broadcast = Broadcast::new(Settings { window: Window::Segments(3), ..settings() });
        broadcast.tag(video_header(0, AVC[0]));
        broadcast.tag(audio_header(0, AAC[0]));
        for at in (0..length_ms).step_by(100) {
            broadcast.packager.handle_tag(picture(at, at % 2_000 == 0), broadcast.now);
            // The sound ends first.
            if at < length_ms * 3 / 4 {
                broadcast.packager.handle_tag(sound(at), broadcast.now);
            }
            broadcast.wait(Duration::from_micros(100));
        }
        broadcast.finish();
    }
}
