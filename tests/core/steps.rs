//! Broadcasts as lists of what happens in them.

use std::time::Duration;

use upscope::flv::Tag;
use upscope::packager::Settings;

use super::memory::Broadcast;
use super::tags;

/// One thing that happens to a broadcast.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Steady media of so many milliseconds.
    Run {
        ms: u32,
        frame_ms: u32,
        gop: u32,
        has_video: bool,
        has_audio: bool,
        composition_ms: i32,
    },
    /// The publisher's clock steps.
    Shift(i32),
    /// The publisher's clock is set.
    Set(u32),
    VideoHeader(usize),
    AudioHeader(u8, usize),
    Picture {
        at_ms: i32,
        composition_ms: i32,
        is_key: bool,
        bytes: usize,
    },
    OpenKey,
    NoPicture,
    Sound {
        track: u8,
        at_ms: i32,
        bytes: usize,
    },
    Interrupt,
    Wait(u64),
}

/// Plays steps, and says how many tags they came to.
pub(crate) fn play(broadcast: &mut Broadcast, steps: &[Step]) -> usize {
    let mut clock = 0u32;
    let mut sent = 0;
    for step in steps {
        let mut send = |tag: Tag| {
            sent += 1;
            broadcast.tag(tag);
        };
        match *step {
            Step::Run { ms, frame_ms, gop, has_video, has_audio, composition_ms } => {
                let mut sound_us = 0u64;
                for at in (0..ms).step_by(frame_ms as usize) {
                    if has_video {
                        let is_key = (at / frame_ms).is_multiple_of(gop);
                        send(tags::picture_of(30, clock.wrapping_add(at), composition_ms, is_key));
                    }
                    while has_audio && sound_us <= u64::from(at + frame_ms) * 1000 {
                        let sound_ms = u32::try_from(sound_us / 1000).unwrap();
                        send(tags::sound(clock.wrapping_add(sound_ms)));
                        sound_us += 21_333;
                    }
                }
                clock = clock.wrapping_add(ms);
            }
            Step::Shift(ms) => clock = clock.wrapping_add_signed(ms),
            Step::Set(ms) => clock = ms,
            Step::VideoHeader(which) => send(tags::video_header(clock, tags::AVC[which])),
            Step::AudioHeader(track, which) => send(tags::audio_header_of(track, clock, tags::AAC[which])),
            Step::Picture { at_ms, composition_ms, is_key, bytes } => {
                send(tags::picture_of(bytes, clock.wrapping_add_signed(at_ms), composition_ms, is_key));
            }
            Step::OpenKey => send(tags::open_key(clock)),
            Step::NoPicture => send(tags::no_picture(clock)),
            Step::Sound { track, at_ms, bytes } => {
                send(tags::sound_of(track, clock.wrapping_add_signed(at_ms), bytes));
            }
            Step::Interrupt => broadcast.interrupt(),
            Step::Wait(ms) => broadcast.wait(Duration::from_millis(ms)),
        }
    }
    sent
}

/// Plays steps and ends the broadcast; asserts what can be said then, however it went.
pub(crate) fn play_to_the_end(settings: Settings, steps: &[Step]) -> Broadcast {
    let mut broadcast = Broadcast::new(settings);
    let sent = play(&mut broadcast, steps);
    broadcast.finish();
    let actions = broadcast.memory.objects.len();
    broadcast.wait(Duration::from_secs(7200));
    assert!(broadcast.memory.objects.len() <= actions);
    assert_eq!(broadcast.packager.deadline(), None, "something is still to be deleted");
    let unlisted = broadcast.memory.unlisted();
    assert!(unlisted.is_empty(), "neither listed nor deleted: {unlisted:?}");
    let renditions = broadcast.memory.judge.playlists().count();
    let listed = broadcast.memory.judge.listed;
    // A frame moves the clock on by 5 s at the most, which is ten of the shortest segments.
    assert!(listed <= renditions * (12 * sent + 12), "{listed} segments of {sent} tags");
    broadcast
}
