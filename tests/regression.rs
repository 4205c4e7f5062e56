//! Broadcasts that once broke a promise, cut down to the least that showed it. The judge in `core` says which.

mod core;

use std::collections::BTreeSet;
use std::iter;
use std::time::Duration;

use upscope::action::{Action, ObjectKind};
use upscope::hls::Window;
use upscope::media::{Item, Moment};
use upscope::packager::Settings;
use upscope::remuxer::Remuxer;

use crate::core::memory::{Broadcast, settings};
use crate::core::steps::{Step, play_to_the_end};
use crate::core::tags;

/// Segments of half a second, the shortest window, no wait for tracks: everything shows soonest.
fn hasty() -> Settings {
    Settings { segment: Duration::from_millis(500), window: Window::Segments(1), track_wait: Duration::ZERO }
}

/// Headers of both tracks, then `steps`.
fn play(steps: &[Step]) {
    play_to_the_end(hasty(), &[&[Step::VideoHeader(0), Step::AudioHeader(0, 0)], steps].concat());
}

const KEY: Step = key(0);
const PICTURE: Step = picture(0);
const SOUND: Step = sound(0, 0);

const fn key(at_ms: i32) -> Step {
    Step::Picture { at_ms, composition_ms: 0, is_key: true, bytes: 1 }
}

const fn picture(at_ms: i32) -> Step {
    Step::Picture { at_ms, composition_ms: 0, is_key: false, bytes: 1 }
}

const fn sound(track: u8, at_ms: i32) -> Step {
    Step::Sound { track, at_ms, bytes: 1 }
}

const fn late_key(composition_ms: i32) -> Step {
    Step::Picture { at_ms: 0, composition_ms, is_key: true, bytes: 1 }
}

const fn run(ms: u32, has_video: bool, has_audio: bool) -> Step {
    Step::Run { ms, frame_ms: 20, gop: 1, has_video, has_audio, composition_ms: 0 }
}

const fn both(ms: u32) -> Step {
    run(ms, true, true)
}

const fn video(ms: u32) -> Step {
    run(ms, true, false)
}

const fn audio(ms: u32) -> Step {
    run(ms, false, true)
}

const fn nothing(ms: u32) -> Step {
    run(ms, false, false)
}

#[test]
fn a_hole_in_the_first_segment_counts_for_the_target_duration() {
    play(&[KEY, Step::Shift(1500), KEY]);
}

#[test]
fn a_first_segment_that_is_ended_by_a_late_picture_is_as_long_as_it_gets() {
    play(&[key(0), Step::Shift(4186), audio(1305), nothing(4908), video(40)]);
}

#[test]
fn a_short_first_piece_shortens_what_follows_it() {
    let slow = Step::Run { ms: 4188, frame_ms: 33, gop: 127, has_video: true, has_audio: false, composition_ms: 0 };
    play(&[slow, audio(1305), nothing(4908), video(40)]);
}

#[test]
fn renditions_that_join_late_have_the_discontinuity_numbers_of_the_others() {
    play(&[audio(5001), both(40)]);
}

#[test]
fn a_new_audio_configuration_breaks_all_renditions_even_where_pictures_are_ahead() {
    play(&[key(223), SOUND, picture(-778), KEY, Step::AudioHeader(0, 1), SOUND]);
}

#[test]
fn decode_times_do_not_go_back_where_a_frame_is_shorter_than_expected() {
    play(&[both(4307), Step::Shift(14), Step::AudioHeader(0, 1), both(40)]);
}

#[test]
fn queued_sound_is_counted_in_its_own_timescale() {
    play(&[video(270), audio(2201), Step::AudioHeader(0, 1), nothing(369), audio(2381)]);
}

#[test]
fn a_gap_behind_a_break_is_as_long_as_the_leaders_segment() {
    play(&[audio(5001), video(449), sound(0, 1085)]);
}

#[test]
fn a_hole_before_a_break_is_filled_like_any_other() {
    play(&[
        key(1585),
        Step::Shift(585),
        SOUND,
        Step::AudioHeader(0, 1),
        SOUND,
        Step::OpenKey,
        SOUND,
        PICTURE,
        picture(1524),
        sound(0, -1001),
    ]);
}

#[test]
fn a_configuration_that_comes_while_pictures_are_missing_ends_no_segment_late() {
    play(&[both(40), Step::AudioHeader(0, 1), audio(1481)]);
    let slow = Step::Run { ms: 2971, frame_ms: 33, gop: 1, has_video: false, has_audio: true, composition_ms: 0 };
    play(&[both(501), picture(1589), Step::AudioHeader(0, 1), slow]);
}

#[test]
fn pictures_that_join_while_sound_is_silent_fill_the_hole_as_well() {
    play_to_the_end(
        hasty(),
        &[
            Step::AudioHeader(1, 0),
            Step::AudioHeader(0, 0),
            SOUND,
            sound(0, -1677),
            sound(1, 897),
            Step::Set(2_538_056_499),
            SOUND,
            sound(0, 1865),
            Step::VideoHeader(0),
            key(-1001),
        ],
    );
}

#[test]
fn pictures_that_join_where_one_track_is_ahead_fill_the_hole_as_well() {
    play_to_the_end(
        hasty(),
        &[
            Step::AudioHeader(0, 0),
            SOUND,
            Step::Set(2_147_485_602),
            Step::AudioHeader(1, 0),
            SOUND,
            Step::Shift(410),
            sound(1, 0),
            sound(0, -1500),
            Step::VideoHeader(0),
            sound(1, 0),
            key(-1479),
            PICTURE,
            sound(1, 0),
        ],
    );
}

#[test]
fn composition_times_that_vary_do_not_stretch_the_sound() {
    let steps = [Step::VideoHeader(0), Step::AudioHeader(0, 0), audio(5001), late_key(528), both(1481)];
    play_to_the_end(Settings { segment: Duration::from_secs(1), ..hasty() }, &steps);
    play_to_the_end(
        Settings { track_wait: Duration::from_secs(1), ..hasty() },
        &[&steps[..2], &[late_key(-400), audio(6101)]].concat(),
    );
}

#[test]
fn a_publisher_that_comes_back_with_less_keeps_the_numbers_together() {
    play(&[
        late_key(901),
        PICTURE,
        PICTURE,
        Step::Interrupt,
        Step::AudioHeader(1, 0),
        sound(1, 0),
        Step::Interrupt,
        Step::AudioHeader(1, 0),
        Step::VideoHeader(0),
        key(1001),
        sound(1, 0),
    ]);
}

#[test]
fn no_segment_lasts_no_time() {
    play(&[
        Step::AudioHeader(1, 0),
        KEY,
        PICTURE,
        sound(1, 0),
        Step::Interrupt,
        Step::VideoHeader(0),
        Step::AudioHeader(1, 1),
        KEY,
        Step::Interrupt,
    ]);
    play(&[KEY, audio(40), nothing(294), Step::AudioHeader(0, 1), both(40)]);
}

#[test]
fn another_sample_rate_does_not_move_the_sound() {
    // A minute and a half later the ticks of one are seven seconds of the other's.
    for (before, after) in [(0, 1), (1, 0)] {
        let steps = [Step::VideoHeader(0), Step::AudioHeader(0, before), both(90_000), Step::AudioHeader(0, after)];
        let broadcast = play_to_the_end(hasty(), &[&steps[..], &[both(4000)]].concat());
        let totals = broadcast.packager.totals();
        // What the sound was ahead of its timestamps, since it is always that of 48 kHz.
        assert!(totals.gaps < 2, "{} gaps", totals.gaps);
        assert!(totals.late < 10, "{} frames left out", totals.late);
    }
}

#[test]
fn the_playlists_of_an_ended_broadcast_start_with_the_same_segment() {
    // The pictures go on into a segment of which there is no sound: their window moves on once more. Shaka Player does not
    // come to the end of playlists that start apart.
    let broadcast = play_to_the_end(hasty(), &[Step::VideoHeader(0), Step::AudioHeader(0, 0), both(5000), video(1000)]);
    let first = |track: &str| {
        let key = broadcast.memory.objects.keys().find(|key| key.ends_with(&format!("{track}.m3u8"))).unwrap();
        let text = broadcast.memory.text(key);
        text.lines().find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:")).unwrap().to_owned()
    };
    assert_eq!(first("video"), first("audio"));
}

#[test]
fn media_that_comes_all_at_once_does_not_fill_the_disk() {
    let mut broadcast = Broadcast::new(Settings { window: Window::Segments(30), ..settings() });
    let keys = (0..5_000).map(|number| tags::picture(number * 2_000, true));
    let (mut files, mut most) = (0_usize, 0);
    for tag in iter::once(tags::video_header(0, tags::AVC[0])).chain(keys) {
        // No time passes.
        broadcast.packager.handle_tag(tag, broadcast.now);
        while let Some(action) = broadcast.packager.poll_action() {
            match action {
                Action::Put { kind: ObjectKind::Segment, .. } => files += 1,
                Action::Delete { .. } => files -= 1,
                _ => {}
            }
        }
        most = most.max(files);
    }
    assert!((1_000..1_100).contains(&most), "{most} segments");
}

#[test]
fn the_bandwidth_is_never_below_the_average() {
    // The last segment is too short to count as a peak, behind a gap, and dense.
    let dense = Step::Picture { at_ms: 500, composition_ms: 0, is_key: true, bytes: 100_000 };
    let broadcast = play_to_the_end(settings(), &[Step::VideoHeader(0), KEY, video(4_000), dense]);
    let index = broadcast.memory.text("live/cam1/index.m3u8");
    let value = |name: &str| -> u64 {
        let (_, rest) = index.split_once(&format!("{name}=")).unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    };
    assert!(value(":BANDWIDTH") >= value(",AVERAGE-BANDWIDTH"), "{index}");
}

#[test]
fn no_two_pictures_are_shown_at_once() {
    let mut remuxer = Remuxer::new(Duration::ZERO);
    // GStreamer sends several pictures with one timestamp when it is late.
    let pictures = [0, 40, 40, 40, 80].map(|at_ms| tags::picture(at_ms, at_ms == 0));
    for tag in iter::once(tags::video_header(0, tags::AVC[0])).chain(pictures) {
        remuxer.handle_tag(tag, Moment::default()).unwrap();
    }
    remuxer.interrupt();
    let mut shown = BTreeSet::new();
    while let Some(item) = remuxer.poll_item() {
        if let Item::Sample(_, sample) = item {
            assert!(shown.insert(sample.presentation_time()), "{sample:?}");
        }
    }
    assert_eq!(shown.len(), 5);
}
