//! Advice to broadcasters: a fault gives exactly its sentence, once, and what is as it should be gives none.

mod common;
mod core;

use upscope::flv::{Metadata, Tag, TagBody};

use crate::common::case::{Case, ids};
use crate::core::memory::{Broadcast, settings};
use crate::core::tags::{AAC, AVC, audio_header, open_key, picture_of, sound, video_header};

/// Cases of the corpus whose publisher does what it should not, and what it is told.
const FAULTY: [(&str, &str); 4] = [
    ("c-jump-forward10", JUMPS),
    (
        "c-res-change",
        "the picture changed from 192x108 to 256x144 in mid-broadcast: some players flicker or stop there; keep one size \
         for all of a broadcast",
    ),
    ("r-ff51-opengop", OPEN),
    // x265 opens its GOPs unless told otherwise.
    ("r-ff9-hevc", OPEN),
];

const JUMPS: &str = "the timestamps jumped forward by 10.0 s: viewers notice a break; unless the encoder was restarted, give it \
     one steady clock for picture and sound";
const OPEN: &str = "key frames that do not stand alone (open GOP or intra refresh): players that begin or seek there show broken \
     pictures for a moment; have the encoder close its GOPs (x264 and x265: open-gop=0)";

#[test]
fn the_corpus_is_told_what_is_wrong_and_nothing_else() {
    for id in ids() {
        let mut broadcast = Broadcast::new(settings());
        for session in Case::load(&id).sessions() {
            broadcast.receive([&session.client[..]]);
        }
        broadcast.finish();
        let expected: Vec<_> = FAULTY.iter().filter(|(faulty, _)| *faulty == id).map(|(_, advice)| *advice).collect();
        assert_eq!(broadcast.advice, expected, "{id}");
    }
}

/// A minute as it should be: 25 pictures a second, shown 80 ms after decoding, a key frame every 2 s, sound of 48 kHz.
#[derive(Clone, Copy)]
struct Minute {
    /// The next picture is a key frame after so many.
    gop: u32,
    /// The size of the picture at so many milliseconds, in bytes.
    size: fn(u32) -> usize,
    composition_ms: fn(u32) -> i32,
    /// When what is sent at so many milliseconds is to be decoded, unless it is left out.
    picture_at: fn(u32) -> Option<u32>,
    sound_at: fn(u32) -> Option<u32>,
    has_open_gops: bool,
    /// Other headers come with the key frame behind half a minute.
    changes_size: bool,
}

const GOOD: Minute = Minute {
    gop: 50,
    size: |_| 5_000,
    composition_ms: |_| 80,
    picture_at: Some,
    sound_at: Some,
    has_open_gops: false,
    changes_size: false,
};

impl Minute {
    fn play(self, broadcast: &mut Broadcast) {
        let mut sounds = 0_u64;
        for number in 0..1500_u32 {
            let at = number * 40;
            if self.changes_size && number == 750 {
                broadcast.tag(video_header(at, AVC[1]));
            }
            if let Some(timestamp) = (self.picture_at)(at) {
                let is_key = number.is_multiple_of(self.gop);
                let is_open = is_key && number > 0 && self.has_open_gops;
                let picture = || picture_of((self.size)(at), timestamp, (self.composition_ms)(at), is_key);
                broadcast.tag(if is_open { open_key(timestamp) } else { picture() });
            }
            while sounds * 64 / 3 < u64::from(at) + 40 {
                if let Some(timestamp) = (self.sound_at)(u32::try_from(sounds * 64 / 3).unwrap()) {
                    broadcast.tag(sound(timestamp));
                }
                sounds += 1;
            }
        }
    }

    /// What the broadcaster is told.
    fn advice(self) -> Vec<String> {
        let mut broadcast = Broadcast::new(settings());
        broadcast.tag(video_header(0, AVC[0]));
        broadcast.tag(audio_header(0, AAC[0]));
        self.play(&mut broadcast);
        broadcast.finish();
        broadcast.advice
    }
}

#[test]
fn a_minute_as_it_should_be_gives_none() {
    assert_eq!(GOOD.advice(), Vec::<String>::new());
    // Nor does the odd late picture, a frame rate that varies, or a rate that swings where no line is too slow for it.
    let vfr =
        |at: u32| (at.is_multiple_of(2000) || at / 40 % 7 != 3 && !(4000..4300).contains(&(at % 8000))).then_some(at);
    assert_eq!(Minute { picture_at: vfr, ..GOOD }.advice(), Vec::<String>::new());
    let odd = |at: u32| Some(if at.is_multiple_of(9000) { at + 30 } else { at });
    assert_eq!(Minute { picture_at: odd, ..GOOD }.advice(), Vec::<String>::new());
    let swinging = |at: u32| if at / 2000 == 20 { 3_000 } else { 300 };
    assert_eq!(Minute { size: swinging, ..GOOD }.advice(), Vec::<String>::new());
}

#[test]
fn rare_key_frames() {
    let words =
        "a key frame only every 8.0 s: viewers wait longer for the picture; set the encoder's keyframe interval to 2 s";
    assert_eq!(Minute { gop: 200, ..GOOD }.advice(), [words]);
}

#[test]
fn no_key_frame_for_long() {
    let words =
        "no key frame for 10.0 s: viewers wait longer for the picture; set the encoder's keyframe interval to 2 s";
    assert_eq!(Minute { gop: 1000, ..GOOD }.advice(), [words]);
}

#[test]
fn key_frames_that_do_not_stand_alone() {
    assert_eq!(Minute { has_open_gops: true, ..GOOD }.advice(), [OPEN]);
}

#[test]
fn a_bitrate_that_swings() {
    let words = "the bitrate swings between 1.0 and 8.0 Mbit/s: viewers whose line carries the average only will stop to buffer; \
         set the encoder's rate control to CBR";
    let swinging = |at: u32| if at / 2000 % 4 == 3 { 40_000 } else { 5_000 };
    assert_eq!(Minute { size: swinging, ..GOOD }.advice(), [words]);
}

#[test]
fn timestamps_that_jump() {
    let jumping = |at: u32| Some(if at < 30_000 { at } else { at + 10_000 });
    assert_eq!(Minute { picture_at: jumping, sound_at: jumping, ..GOOD }.advice(), [JUMPS]);
    let starting_anew = |at: u32| Some(at % 20_000);
    let words = "the timestamps jumped back by 20.0 s: viewers notice a break; unless the encoder was restarted, give it one \
         steady clock for picture and sound";
    assert_eq!(Minute { picture_at: starting_anew, sound_at: starting_anew, ..GOOD }.advice(), [words]);
}

#[test]
fn sound_that_drifts() {
    // A sound card that runs slow or fast by 1 %.
    let slow = |at: u32| Some(at + at / 100);
    let fast = |at: u32| Some(at - at / 100);
    let words = |off: &str| {
        format!(
            "the sound is {off}: it is mended in small steps that may be heard; give the \
             encoder and its sound source the same sample rate"
        )
    };
    assert_eq!(Minute { sound_at: slow, ..GOOD }.advice(), [words("215 ms shorter than its timestamps after 22 s")]);
    assert_eq!(Minute { sound_at: fast, ..GOOD }.advice(), [words("202 ms longer than its timestamps after 21 s")]);
}

#[test]
fn pictures_that_are_dropped() {
    let words = "no picture for 1.4 s while the sound went on: the encoder drops frames; lower its bitrate, or use a faster line \
         to the server";
    let dropping = |at: u32| (at % 20_000 < 10_640 || at % 20_000 >= 12_000).then_some(at);
    assert_eq!(Minute { picture_at: dropping, ..GOOD }.advice(), [words]);
}

#[test]
fn no_sound() {
    let words = "no sound for 10 s: if that is not meant to be, look at the encoder's audio source";
    assert_eq!(Minute { sound_at: |_| None, ..GOOD }.advice(), [words]);
    assert_eq!(Minute { sound_at: |at| (at < 30_000).then_some(at), ..GOOD }.advice(), [words]);

    // Who says that there is none means it.
    let mut broadcast = Broadcast::new(settings());
    let said = Metadata { has_video: Some(true), has_audio: Some(false), ..Metadata::default() };
    broadcast.tag(Tag { timestamp: 0, body: TagBody::Metadata(Box::new(said)) });
    broadcast.tag(video_header(0, AVC[0]));
    Minute { sound_at: |_| None, ..GOOD }.play(&mut broadcast);
    assert_eq!(broadcast.advice, Vec::<String>::new());
}

#[test]
fn deep_reordering() {
    let words = "pictures are decoded 16 frames (0.6 s) before they are shown: viewers see them that much later, and some \
         players cannot hold so many; set the encoder's B-frames to 2 or 3";
    let deep = |at: u32| if (at / 40).is_multiple_of(16) { 640 } else { 80 };
    assert_eq!(Minute { composition_ms: deep, ..GOOD }.advice(), [words]);
}

#[test]
fn another_size() {
    let words = "the picture changed from 640x360 to 320x180 in mid-broadcast: some players flicker or stop there; keep one size \
         for all of a broadcast";
    assert_eq!(Minute { changes_size: true, ..GOOD }.advice(), [words]);
}
