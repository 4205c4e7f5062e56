//! What holds whatever a publisher sends: the judge in `core` looks at every action.

mod common;
mod core;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use upscope::hls::Window;
use upscope::packager::Settings;

use crate::common::session::Session;
use crate::core::memory::{Broadcast, settings};
use crate::core::steps::{Step, play_to_the_end};
use crate::core::tags;

fn any_settings() -> impl Strategy<Value = Settings> {
    let segment = select(vec![500u64, 1000, 2000, 6000]).prop_map(Duration::from_millis);
    let window = prop_oneof![
        (1usize..8).prop_map(Window::Segments),
        (1u64..30).prop_map(|seconds| Window::Lasting(Duration::from_secs(seconds))),
    ];
    let track_wait = select(vec![0u64, 1000, 3000]).prop_map(Duration::from_millis);
    (segment, window, track_wait).prop_map(|(segment, window, track_wait)| Settings { segment, window, track_wait })
}

fn any_header() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..tags::AVC.len()).prop_map(Step::VideoHeader),
        (0..tags::AAC.len()).prop_map(|which| Step::AudioHeader(0, which)),
        (0..tags::AAC.len()).prop_map(|which| Step::AudioHeader(1, which)),
    ]
}

/// Single tags in any order, at any time.
fn any_noise() -> impl Strategy<Value = Step> {
    let composition_ms = prop_oneof![4 => Just(0), 2 => -200..200i32, 1 => -0x80_0000..0x80_0000i32];
    let at_ms = prop_oneof![4 => Just(0), 2 => -3000..3000i32, 1 => any::<i32>()];
    let sound_at_ms = prop_oneof![4 => Just(0), 2 => -3000..3000i32, 1 => any::<i32>()];
    prop_oneof![
        4 => (at_ms, composition_ms, any::<bool>(), 1usize..3000).prop_map(|(at_ms, composition_ms, is_key, bytes)| {
            Step::Picture { at_ms, composition_ms, is_key, bytes }
        }),
        4 => (0u8..2, sound_at_ms, 1usize..600).prop_map(|(track, at_ms, bytes)| Step::Sound { track, at_ms, bytes }),
        4 => (0..100i32).prop_map(Step::Shift),
        2 => (-500..7000i32).prop_map(Step::Shift),
        1 => any::<u32>().prop_map(Step::Set),
        1 => Just(Step::OpenKey),
        1 => Just(Step::NoPicture),
        2 => any_header(),
        1 => Just(Step::Interrupt),
        1 => (0..20_000u64).prop_map(Step::Wait),
    ]
}

/// Stretches of steady media, and what comes between them.
fn any_run() -> impl Strategy<Value = Step> {
    let run = (40..9000u32, select(vec![20u32, 33, 40, 100]), 1..300u32, any::<bool>(), any::<bool>(), 0..90i32);
    prop_oneof![
        8 => run.prop_map(|(ms, frame_ms, gop, has_video, has_audio, composition_ms)| {
            Step::Run { ms, frame_ms, gop, has_video, has_audio, composition_ms }
        }),
        2 => any_header(),
        4 => any_noise(),
    ]
}

/// So many cases, or `PROPTEST_CASES`.
fn cases(usual: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: wanted.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn arbitrary_tags_keep_every_promise(
        settings in any_settings(),
        mut steps in prop::collection::vec(any_noise(), 0..150),
        begins_orderly in any::<bool>(),
    ) {
        if begins_orderly {
            steps.splice(0..0, [Step::VideoHeader(0), Step::AudioHeader(0, 0)]);
        }
        play_to_the_end(settings, &steps);
    }

    #[test]
    fn media_with_holes_jumps_and_changes_keeps_every_promise(
        settings in any_settings(),
        mut steps in prop::collection::vec(any_run(), 1..16),
        has_video in any::<bool>(),
    ) {
        steps.insert(0, Step::AudioHeader(0, 0));
        if has_video {
            steps.insert(0, Step::VideoHeader(0));
        }
        play_to_the_end(settings, &steps);
    }
}

/// Small sessions of the corpus: one byte a chunk, sizes that change, aggregates, timestamps that wrap.
const SESSIONS: [&str; 8] =
    ["c-short", "c-onebyte", "c-aggregate", "c-wrap32", "c-res-change", "r-ff51-aac22", "r-gst-aonly", "c-extdelta"];

fn session(name: &str) -> Session {
    Session::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/corpus/sessions/{name}.rec")))
}

/// What comes out of a whole session whose bytes come in `pieces`.
fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Broadcast {
    let mut broadcast = Broadcast::new(settings());
    broadcast.receive(pieces);
    broadcast.finish();
    broadcast
}

fn assert_same(ours: &Broadcast, whole: &Broadcast) {
    assert_eq!(ours.memory.objects.keys().collect::<Vec<_>>(), whole.memory.objects.keys().collect::<Vec<_>>());
    for (key, body) in &whole.memory.objects {
        assert!(ours.memory.objects[key] == *body, "{key} differs");
    }
    assert_eq!(ours.notices, whole.notices);
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn input_cut_anywhere_gives_the_same_output(
        name in select(SESSIONS.to_vec()),
        cuts in prop::collection::vec(any::<Index>(), 1..200),
    ) {
        let bytes = session(name).client;
        let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pieces = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        assert_same(&outcome(pieces), &outcome([&bytes[..]]));
    }
}

#[test]
fn input_byte_by_byte_gives_the_same_output() {
    let bytes = session("c-short").client;
    assert_same(&outcome(bytes.chunks(1)), &outcome([&bytes[..]]));
}
