//! Where segments end when media is missing, late or changes: whole broadcasts, their segments in one line a rendition.

mod core;

use std::fmt::Write;
use std::time::Duration;

use upscope::remuxer::Dropped;

use crate::core::memory::{Broadcast, settings};
use crate::core::steps::{Step, play_to_the_end};

/// Plays `steps` and compares one line a rendition: its name, its first media sequence number, and its segments' seconds.
/// `|` stands before a discontinuity, `-` at a gap. Asserts that nothing was late or left out.
fn assert_rows(steps: &[Step], expected: &[&str]) {
    let broadcast = play_to_the_end(settings(), steps);
    assert_eq!(rows(&broadcast), expected);
    let totals = broadcast.packager.totals();
    assert_eq!((totals.late, totals.dropped), (0, Dropped::default()));
}

fn rows(broadcast: &Broadcast) -> Vec<String> {
    let mut rows = Vec::new();
    for (key, playlist) in broadcast.memory.judge.playlists() {
        let name = key.rsplit_once('/').unwrap().1.trim_end_matches(".m3u8");
        let mut row = format!("{name} {}:", playlist.media_sequence);
        for entry in &playlist.entries {
            let mark = match (entry.has_discontinuity, entry.is_gap) {
                (false, false) => "",
                (true, false) => "|",
                (false, true) => "-",
                (true, true) => "|-",
            };
            let seconds = Duration::from_micros(entry.duration_us).as_secs_f64();
            write!(row, " {mark}{seconds:.2}").unwrap();
        }
        rows.push(row);
    }
    rows
}

/// 25 pictures a second, shown 80 ms after decoding, a key frame every `gop`; sound of 48 kHz.
const fn run(ms: u32, gop: u32, has_video: bool, has_audio: bool) -> Step {
    Step::Run { ms, frame_ms: 40, gop, has_video, has_audio, composition_ms: 80 }
}
const fn both(ms: u32) -> Step {
    run(ms, 50, true, true)
}
const fn video(ms: u32) -> Step {
    run(ms, 50, true, false)
}
const fn audio(ms: u32) -> Step {
    run(ms, 50, false, true)
}
const V: Step = Step::VideoHeader(0);
const A: Step = Step::AudioHeader(0, 0);

#[test]
fn segments_of_all_tracks_end_together() {
    assert_rows(&[V, A, both(8000)], &["audio 0: 2.07 2.01 2.01 1.94", "video 0: 2.00 2.00 2.00 2.00"]);
}

#[test]
fn an_encoder_that_drops_pictures_for_a_while_leaves_gaps_and_the_sound_goes_on() {
    assert_rows(
        &[V, A, both(4000), audio(2000), both(4000)],
        &["audio 0: 2.07 2.01 1.99 2.01 1.94", "video 0: 2.00 2.00 -2.00 2.00 2.00"],
    );
    assert_rows(
        &[V, A, both(3000), audio(3000), both(6000)],
        &["audio 0: 2.07 2.01 2.01 1.99 2.01 1.94", "video 0: 2.00 2.00 -2.00 2.00 2.00 2.00"],
    );
    assert_rows(
        &[V, A, both(4000), audio(4000), both(4000)],
        &["audio 0: 2.07 2.01 1.99 2.01 1.99 1.94", "video 0: 2.00 2.00 -2.00 -2.00 2.00 2.00"],
    );
}

#[test]
fn pictures_that_stop_become_gaps_and_may_come_back() {
    assert_rows(
        &[V, A, both(4000), audio(12_000)],
        &["audio 0: 2.07 2.01 1.99 2.01 2.01 2.01 1.98 1.94", "video 0: 2.00 2.00 -2.00 -2.00 -2.00 -2.00 -2.00"],
    );
    assert_rows(
        &[V, A, both(4000), audio(12_000), both(4000)],
        &[
            "audio 0: 2.07 2.01 1.99 2.01 2.01 2.01 1.98 2.01 1.99 1.94",
            "video 0: 2.00 2.00 -2.00 -2.00 -2.00 -2.00 -2.00 -2.00 2.00 2.00",
        ],
    );
}

#[test]
fn sound_that_stops_becomes_gaps_and_may_come_back() {
    // What it lacks at the end is not listed as gaps: the rendition ends there.
    assert_rows(
        &[V, A, both(4000), video(20_000)],
        &[
            "audio 0: 2.07 2.01 -2.00 -2.00 -2.00 -2.00 -2.00 -2.00",
            "video 0: 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00",
        ],
    );
    assert_rows(
        &[V, A, both(4000), video(12_000), both(4000)],
        &[
            "audio 0: 2.07 2.01 -2.00 -2.00 -2.00 -2.00 -2.00 2.01 1.98 1.94",
            "video 0: 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00 2.00",
        ],
    );
}

#[test]
fn a_hole_in_the_sound_is_a_gap_where_it_fills_a_segment() {
    assert_rows(
        &[V, A, both(4000), video(3000), both(5000)],
        &["audio 0: 2.07 2.01 -2.00 1.01 1.98 2.01 0.94", "video 0: 2.00 2.00 2.00 1.00 2.00 2.00 1.00"],
    );
}

#[test]
fn a_hole_in_both_is_a_hole_and_no_discontinuity() {
    assert_rows(
        &[V, A, both(4000), Step::Shift(4000), both(4000)],
        &["audio 0: 2.07 2.01 -2.00 2.01 1.98 1.94", "video 0: 2.00 2.00 -2.00 -2.00 2.00 2.00"],
    );
}

#[test]
fn a_clock_that_jumps_is_a_discontinuity_without_gaps() {
    assert_rows(
        &[V, A, both(4000), Step::Shift(10_000), both(4000)],
        &["audio 0: 2.07 1.94 |2.07 1.94", "video 0: 2.00 2.00 |2.00 2.00"],
    );
    assert_rows(
        &[V, A, both(4000), Step::Set(0), both(4000)],
        &["audio 0: 2.07 1.94 |2.07 1.94", "video 0: 2.00 2.00 |2.00 2.00"],
    );
}

#[test]
fn long_gops_at_the_start_set_the_target_duration() {
    assert_rows(
        &[V, A, run(20_000, 104, true, true)],
        &["audio 0: 4.25 4.16 4.16 4.16 3.29", "video 0: 4.16 4.16 4.16 4.16 3.36"],
    );
}

#[test]
fn later_long_gops_are_cut() {
    assert_rows(
        &[V, A, both(6000), run(20_000, 250, true, true)],
        &[
            "audio 0: 2.07 2.01 2.01 2.40 2.39 2.37 2.37 2.39 2.37 2.39 2.37 0.90",
            "video 0: 2.00 2.00 2.00 2.40 2.40 2.36 2.36 2.40 2.36 2.40 2.36 0.96",
        ],
    );
}

#[test]
fn without_key_frames_segments_last_ten_seconds() {
    assert_rows(&[V, A, run(25_000, 10_000, true, true)], &["audio 0: 10.39 10.37 4.25", "video 0: 10.32 10.36 4.32"]);
}

#[test]
fn another_resolution_is_a_discontinuity_of_all_tracks() {
    assert_rows(
        &[V, A, both(5000), Step::VideoHeader(1), both(5000)],
        &["audio 0: 2.07 2.01 1.00 |1.99 2.01 0.94", "video 0: 2.00 2.00 1.00 |2.00 2.00 1.00"],
    );
}

#[test]
fn sound_that_joins_is_listed_from_the_segment_on_in_which_it_begins() {
    assert_rows(
        &[V, video(5000), A, both(5000)],
        &["audio 3: 2.07 2.01 0.94", "video 0: 2.00 2.00 1.00 2.00 2.00 1.00"],
    );
}

#[test]
fn pictures_that_join_lead_from_there_on() {
    assert_rows(
        &[A, audio(5000), V, both(5000)],
        &["audio 0: 2.01 2.01 1.00 |2.06 2.01 0.94", "video 3: |2.00 2.00 1.00"],
    );
}

#[test]
fn a_publisher_that_comes_back_goes_on_behind_a_discontinuity() {
    assert_rows(
        &[V, A, both(5000), Step::Interrupt, Step::Wait(3000), V, A, both(5000)],
        &["audio 0: 2.07 2.01 0.94 |2.07 2.01 0.94", "video 0: 2.00 2.00 1.00 |2.00 2.00 1.00"],
    );
}

#[test]
fn a_publisher_that_comes_back_without_pictures_leaves_gaps() {
    assert_rows(
        &[V, A, both(5000), Step::Interrupt, Step::Wait(3000), A, audio(5000)],
        &["audio 0: 2.07 2.01 0.94 |1.49 2.01 1.51", "video 0: 2.00 2.00 1.00 |-2.00 -2.00"],
    );
}

#[test]
fn headers_alone_make_no_broadcast() {
    assert_rows(&[V, A], &[]);
}

#[test]
fn another_audio_configuration_is_a_discontinuity_of_all_tracks() {
    // Pictures are a frame ahead when it comes: the cut that was made before that frame becomes the break.
    let broadcast = play_to_the_end(settings(), &[V, A, both(5000), Step::AudioHeader(0, 1), both(5000)]);
    let expected = ["audio 0: 2.07 2.01 0.94 |2.07 2.01 1.02", "video 0: 2.00 2.00 1.00 |2.00 2.00 1.00"];
    assert_eq!(rows(&broadcast), expected);
    assert_eq!(broadcast.packager.totals().late, 0);
}

#[test]
fn sound_that_lags_three_seconds_is_waited_for() {
    let mut steps = vec![V, A];
    for second in 0..12 {
        steps.push(video(1000));
        steps.push(Step::Shift(-4000));
        if second >= 3 {
            steps.push(audio(1000));
        } else {
            steps.push(Step::Shift(1000));
        }
        steps.push(Step::Shift(3000));
    }
    steps.extend([Step::Shift(-3000), audio(3000)]);
    let rows = rows(&play_to_the_end(settings(), &steps));
    assert!(rows.iter().all(|row| !row.contains(['-', '|'])), "{rows:?}");
}
