//! What legal publishers do with their clocks, key frames and codecs: whole broadcasts, judged at each action.

mod core;

use std::time::Duration;

use upscope::flv::{AudioPacket, AudioTag, FourCc, Tag, TagBody};
use upscope::packager::Settings;
use upscope::remuxer::Dropped;

use crate::core::boxes;
use crate::core::judge::Playlist;
use crate::core::memory::{Broadcast, settings};
use crate::core::steps::{Step, play_to_the_end};
use crate::core::tags::{AAC, AVC, audio_header, hex, picture, picture_behind, picture_of, sound, video_header};

const HEADERS: [Step; 2] = [Step::VideoHeader(0), Step::AudioHeader(0, 0)];

fn playlist<'a>(broadcast: &'a Broadcast, name: &str) -> &'a Playlist {
    let mut playlists = broadcast.memory.judge.playlists();
    playlists.find(|(key, _)| key.ends_with(&format!("/{name}.m3u8"))).map(|(_, playlist)| playlist).unwrap()
}

/// The lengths of a rendition's segments in milliseconds, `|` before a discontinuity.
fn lengths(broadcast: &Broadcast, name: &str) -> String {
    let entries = playlist(broadcast, name).entries.iter();
    let words = entries.map(|entry| {
        let mark = if entry.has_discontinuity { "|" } else { "" };
        format!("{mark}{}", entry.duration_us / 1000)
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Nothing is late, left out or a gap.
fn assert_whole(broadcast: &Broadcast) {
    let totals = broadcast.packager.totals();
    assert_eq!((totals.late, totals.gaps, totals.dropped), (0, 0, Dropped::default()));
}

const fn run(ms: u32, frame_ms: u32, gop: u32, composition_ms: i32) -> Step {
    Step::Run { ms, frame_ms, gop, has_video: true, has_audio: true, composition_ms }
}

#[test]
fn a_clock_may_start_anywhere_and_wrap() {
    let play = |start| {
        let steps = [Step::Set(start), HEADERS[0].clone(), HEADERS[1].clone(), run(8000, 40, 50, 80)];
        let broadcast = play_to_the_end(settings(), &steps);
        assert_whole(&broadcast);
        (lengths(&broadcast, "video"), lengths(&broadcast, "audio"))
    };
    let from_zero = play(0);
    assert_eq!(from_zero.0, "2000 2000 2000 2000");
    for start in [0x00ff_ffff, 0x0100_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        for before in [0, 1, 999, 4000] {
            assert_eq!(play(start - before), from_zero, "{start:#x} - {before}");
        }
    }
}

#[test]
fn equal_and_decreasing_timestamps_are_spread() {
    let mut broadcast = begin();
    for at in (0..8000_u32).step_by(40) {
        // Each third picture has the time of the one before, each seventh an earlier one.
        let number = at / 40;
        let timestamp = match number {
            0 => 0,
            _ if number.is_multiple_of(7) => at - 60,
            _ if number.is_multiple_of(3) => at - 40,
            _ => at,
        };
        broadcast.tag(picture(timestamp, number.is_multiple_of(50)));
        broadcast.tag(sound(at));
        broadcast.tag(sound(at));
    }
    broadcast.finish();
    let totals = broadcast.packager.totals();
    assert_eq!((totals.samples, totals.late, totals.dropped), (600, 0, Dropped::default()));
    assert!(
        !broadcast.memory.judge.playlists().any(|(_, playlist)| playlist.entries.iter().any(|e| e.has_discontinuity))
    );
}

#[test]
fn composition_offsets_may_be_negative() {
    for composition_ms in [-40, -400, -2000] {
        let broadcast = play_to_the_end(settings(), &[&HEADERS[..], &[run(8000, 40, 50, composition_ms)]].concat());
        assert_eq!(lengths(&broadcast, "video"), "2000 2000 2000 2000", "{composition_ms}");
        assert_eq!(broadcast.packager.totals().dropped, Dropped::default());
    }
}

#[test]
fn dates_agree_behind_a_jump_among_reordered_pictures() {
    // I P B B P B B …: the clock jumps at a picture that is shown sooner after its decoding than key frames are.
    let composition_ms = |number: u32| match number % 3 {
        _ if number.is_multiple_of(48) => 80,
        1 => 160,
        _ => 40,
    };
    let mut broadcast = begin();
    let mut sounds = (0..8000_u32).step_by(21).peekable();
    for number in 0..200_u32 {
        let at = number * 40;
        let jumped = |at| if at < 3200 { at } else { at + 60_000 };
        broadcast.tag(picture_of(20, jumped(at), composition_ms(number), number.is_multiple_of(48)));
        while let Some(sound_at) = sounds.next_if(|sound_at| *sound_at < at + 40) {
            broadcast.tag(sound(jumped(sound_at)));
        }
    }
    broadcast.finish();
    // The first date behind the discontinuity, and what the segment there begins with: in milliseconds.
    let [video, audio] = ["video", "audio"].map(|name| {
        let (key, _) =
            broadcast.memory.judge.playlists().find(|(key, _)| key.ends_with(&format!("/{name}.m3u8"))).unwrap();
        let (folder, _) = key.rsplit_once('/').unwrap();
        let (_, behind) = broadcast.memory.text(key).split_once("#EXT-X-DISCONTINUITY\n").unwrap();
        let mut lines = behind.lines().skip_while(|line| !line.starts_with("#EXT-X-PROGRAM-DATE-TIME"));
        let (_, seconds) = lines.next().unwrap().trim_end_matches('Z').rsplit_once(':').unwrap();
        let uri = lines.find(|line| !line.starts_with('#')).unwrap();
        let samples = boxes::chunks(&broadcast.memory.objects[&format!("{folder}/{uri}")]).concat();
        let shown = |sample: &boxes::Sample| sample.decode_time.cast_signed() + i64::from(sample.composition_offset);
        let ticks_per_ms = if name == "video" { 90 } else { 48 };
        let first_shown = samples.iter().map(shown).min().unwrap() / ticks_per_ms;
        (seconds.replace('.', "").parse::<i64>().unwrap(), first_shown)
    });
    let apart = (video.0 - audio.0) - (video.1 - audio.1);
    assert!(apart.abs() <= 2, "{apart} ms: {video:?} {audio:?}");
}

#[test]
fn several_video_tracks_are_cut_at_the_same_key_frames() {
    for composition_ms in [0, 40, 80, 400] {
        let mut broadcast = Broadcast::new(settings());
        let of_track = |track: u8, mut tag: Tag| {
            if let TagBody::Video(video) = &mut tag.body {
                video.track = track;
            }
            tag
        };
        broadcast.tag(audio_header(0, AAC[0]));
        broadcast.tag(of_track(0, video_header(0, AVC[0])));
        broadcast.tag(of_track(1, video_header(0, AVC[1])));
        let mut sounds = (0..8000_u32).step_by(21).peekable();
        for at in (0..8000_u32).step_by(40) {
            for track in [0, 1] {
                broadcast.tag(of_track(track, picture_of(20, at, composition_ms, at.is_multiple_of(2000))));
            }
            while let Some(sound_at) = sounds.next_if(|sound_at| *sound_at < at + 40) {
                broadcast.tag(sound(sound_at));
            }
        }
        broadcast.finish();
        assert_whole(&broadcast);
        for name in ["video", "video1"] {
            assert_eq!(lengths(&broadcast, name), "2000 2000 2000 2000", "{name}, {composition_ms} ms");
            assert!(playlist(&broadcast, name).claims_independent_segments, "{name}, {composition_ms} ms");
        }
    }
}

#[test]
fn a_key_frame_every_frame_and_segments_shorter_than_a_frame() {
    let broadcast = play_to_the_end(settings(), &[&HEADERS[..], &[run(8000, 40, 1, 0)]].concat());
    assert_whole(&broadcast);
    assert_eq!(lengths(&broadcast, "video"), "2000 2000 2000 2000");
    // A picture a second, segments of half a second: each is as long as its picture.
    let short = Settings { segment: Duration::from_millis(500), ..settings() };
    let broadcast = play_to_the_end(short, &[&HEADERS[..], &[run(8000, 1000, 1, 0)]].concat());
    assert_whole(&broadcast);
    assert!(playlist(&broadcast, "video").entries.len() >= 7, "{}", lengths(&broadcast, "video"));
}

#[test]
fn recovery_points_without_idr_are_where_segments_end() {
    // An SEI with a recovery point of count 0 before pictures that nobody calls key frames.
    const RECOVERY: &str = "00000005 060601c480";
    let mut broadcast = begin();
    for at in (0..8000_u32).step_by(40) {
        let is_recovery = at > 0 && at.is_multiple_of(2000);
        broadcast.tag(picture_behind(if is_recovery { RECOVERY } else { "" }, at, at == 0));
        broadcast.tag(sound(at));
    }
    broadcast.finish();
    assert_eq!(lengths(&broadcast, "video"), "2000 2000 2000 2000");
    // Their pictures may need earlier ones.
    assert!(!playlist(&broadcast, "video").claims_independent_segments);
}

#[test]
fn another_codec_in_mid_broadcast_is_another_header_and_named() {
    let mut broadcast = begin();
    for at in (0..8000_u32).step_by(20) {
        broadcast.tag(picture(at, at.is_multiple_of(2000)));
        let mp3 = AudioPacket::CodedFrames(hex("fffb9464"));
        broadcast.tag(match at {
            0..4000 => sound(at),
            _ => Tag { timestamp: at, body: TagBody::Audio(AudioTag { track: 0, codec: FourCc::MP3, packet: mp3 }) },
        });
    }
    broadcast.finish();
    for name in ["video", "audio"] {
        let entries = &playlist(&broadcast, name).entries;
        assert_eq!(entries.iter().filter(|entry| entry.has_discontinuity).count(), 1, "{name}");
    }
    let maps: Vec<_> = playlist(&broadcast, "audio").entries.iter().map(|entry| entry.map.as_str()).collect();
    assert_eq!((maps.first(), maps.last()), (Some(&"audio-init-0.mp4"), Some(&"audio-init-1.mp4")));
    let index = broadcast.memory.text("live/cam1/index.m3u8");
    assert!(index.contains("CODECS=\"avc1.64001e,mp4a.40.34,mp4a.40.2\""), "{index}");
}

#[test]
fn another_sound_near_a_key_frame_loses_nothing() {
    // Pictures are shown 80 ms after they are decoded; the sound changes before, at and behind a key frame and where
    // segments end.
    for change in (5700..6300).step_by(7) {
        let mut broadcast = begin();
        let mut sounds = (0..9000_u32).step_by(21).peekable();
        for at in (0..9000_u32).step_by(40) {
            broadcast.tag(picture_of(20, at, 80, at.is_multiple_of(2000)));
            while let Some(sound_at) = sounds.next_if(|sound_at| *sound_at < at + 40) {
                if (change..change + 21).contains(&sound_at) {
                    broadcast.tag(audio_header(sound_at, AAC[1]));
                }
                broadcast.tag(sound(sound_at));
            }
        }
        broadcast.finish();
        assert_whole(&broadcast);
        let entries = &playlist(&broadcast, "audio").entries;
        assert_eq!(entries.iter().filter(|entry| entry.has_discontinuity).count(), 1, "{change}");
    }
}

#[test]
fn rounding_to_milliseconds_does_not_accumulate() {
    // 30 000/1001 pictures a second for a quarter of an hour; each timestamp is cut to a millisecond.
    let mut broadcast = begin();
    let mut sounds = 0_u64;
    for number in 0..27_000_u64 {
        let at = u32::try_from(number * 1001 / 30).unwrap();
        broadcast.tag(picture(at, number.is_multiple_of(60)));
        while sounds * 64 / 3 <= u64::from(at) {
            broadcast.tag(sound(u32::try_from(sounds * 64 / 3).unwrap()));
            sounds += 1;
        }
    }
    broadcast.finish();
    assert_whole(&broadcast);
    let listed = |name| playlist(&broadcast, name).duration_us();
    let (video_us, audio_us) = (listed("video"), listed("audio"));
    assert!(video_us.abs_diff(27_000 * 1_001_000 / 30) < 40_000, "{video_us}");
    assert_eq!(audio_us / 1000, sounds * 64 / 3);
    assert!(broadcast.memory.text("live/cam1/index.m3u8").contains("FRAME-RATE=29.970"));
}

fn begin() -> Broadcast {
    let mut broadcast = Broadcast::new(settings());
    broadcast.tag(video_header(0, AVC[0]));
    broadcast.tag(audio_header(0, AAC[0]));
    broadcast
}
