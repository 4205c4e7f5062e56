//! Parameter sets among the pictures: those that say what the header says change nothing, others make another header behind a
//! discontinuity, whatever the sequence headers say again.

mod core;

use crate::core::judge::Playlist;
use crate::core::memory::{Broadcast, settings};
use crate::core::tags::{AAC, AVC, audio_header, hex, picture_behind, sound, video_header};

/// The parameter sets of `AVC[0]` and `AVC[1]`, each with its length.
const SETS: [&str; 2] = [
    "0000001e 6764001eacd940a02ff97016a0202028000003000800000301e478b16cb0 00000004 68efbcb0",
    "00000018 67640015acd941419f9f011000003e90001d4c00f162d960 00000006 68ebe084b22c",
];

/// What comes of pictures and sound of eight seconds; before the picture at a time stand the sets that `sets` says.
fn play(sets: impl Fn(u32) -> Option<usize>, headers: impl Fn(u32) -> bool) -> Broadcast {
    let mut broadcast = Broadcast::new(settings());
    broadcast.tag(audio_header(0, AAC[0]));
    for at in (0..8000).step_by(20) {
        if at == 0 || headers(at) {
            broadcast.tag(video_header(at, AVC[0]));
        }
        let before = sets(at).map_or("", |which| SETS[which]);
        broadcast.tag(picture_behind(before, at, at.is_multiple_of(2000)));
        broadcast.tag(sound(at));
    }
    broadcast.finish();
    let totals = broadcast.packager.totals();
    assert_eq!((totals.samples, totals.dropped.total(), totals.late), (800, 0, 0));
    broadcast
}

fn video(broadcast: &Broadcast) -> &Playlist {
    let mut playlists = broadcast.memory.judge.playlists();
    playlists.find(|(key, _)| key.ends_with("/video.m3u8")).map(|(_, playlist)| playlist).unwrap()
}

/// The header of each segment, `|` before a discontinuity.
fn headers(broadcast: &Broadcast) -> String {
    let mark = |has_discontinuity| if has_discontinuity { "|" } else { "" };
    let entries = video(broadcast).entries.iter();
    let names = entries
        .map(|entry| format!("{}{}", mark(entry.has_discontinuity), entry.map.trim_start_matches("video-init-")));
    names.collect::<Vec<_>>().join(" ").replace(".mp4", "")
}

#[test]
fn repeated_sets_change_nothing_and_stay_where_they_are() {
    let is_key = |at: u32| at.is_multiple_of(2000);
    let broadcast = play(|at| is_key(at).then_some(0), |_| false);
    assert_eq!(headers(&broadcast), "0 0 0 0");
    let segment = broadcast.memory.objects.iter().find(|(key, _)| key.ends_with("/video-1.mp4")).unwrap().1;
    assert!(segment.windows(4).any(|window| window == [0x68, 0xef, 0xbc, 0xb0]));
}

#[test]
fn other_sets_make_another_header_behind_a_discontinuity() {
    let broadcast = play(|at| (at == 4000).then_some(1), |_| false);
    assert_eq!(headers(&broadcast), "0 0 |1 1");
    let header = broadcast.memory.objects.iter().find(|(key, _)| key.ends_with("/video-init-1.mp4")).unwrap().1;
    // As ffmpeg writes it.
    let record = hex(AVC[1]);
    assert!(header.windows(record.len()).any(|window| window == record));
    assert!(broadcast.memory.text("live/cam1/index.m3u8").contains("RESOLUTION=320x180"));
}

#[test]
fn a_sequence_header_that_comes_again_does_not_undo_it() {
    let broadcast = play(|at| (at >= 4000 && at.is_multiple_of(2000)).then_some(1), |at| at.is_multiple_of(1000));
    assert_eq!(headers(&broadcast), "0 0 |1 1");
}

#[test]
fn sets_between_key_frames_are_left_to_the_decoder() {
    let broadcast = play(|at| (at == 3000).then_some(1), |_| false);
    assert_eq!(headers(&broadcast), "0 0 0 0");
}
