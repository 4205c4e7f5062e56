//! The process is killed after each single action in turn, and another goes on: whatever was on the disk then, all rules
//! hold over both lives.

mod core;

use std::time::Duration;

use upscope::hls::Window;
use upscope::packager::Settings;

use crate::core::memory::{Broadcast, settings};
use crate::core::tags::{AAC, AVC, audio_header, picture, sound, video_header};

/// Pictures 25 times a second, a key frame a second, and sound between them.
fn push(broadcast: &mut Broadcast, seconds: u32) {
    broadcast.tag(video_header(0, AVC[0]));
    broadcast.tag(audio_header(0, AAC[0]));
    for frame in 0..seconds * 25 {
        broadcast.tag(picture(frame * 40, frame % 25 == 0));
        for sounds in 0..2 {
            broadcast.tag(sound(frame * 40 + sounds * 20));
        }
    }
}

fn short() -> Settings {
    Settings { segment: Duration::from_secs(1), window: Window::Segments(4), ..settings() }
}

/// A broadcast of 9 s whose process is killed when it has done `actions`.
fn killed(actions: usize) -> Broadcast {
    let mut broadcast = Broadcast::new(short());
    broadcast.memory.actions_left = actions;
    push(&mut broadcast, 4);
    broadcast.interrupt();
    push(&mut broadcast, 5);
    broadcast
}

#[test]
fn p10_kill_9_after_every_single_action_and_again() {
    let all = usize::MAX - killed(usize::MAX).memory.actions_left;
    assert!(all > 50, "{all}");
    let mut resumed = 0;
    for actions in 0..=all {
        let mut first = killed(actions);
        first.memory.actions_left = usize::MAX;
        let Some(mut second) = first.restart(short()) else { continue };
        resumed += 1;
        // Killed again, after a time that differs from case to case.
        second.memory.actions_left = actions * 7 % all;
        push(&mut second, 4);
        second.memory.actions_left = usize::MAX;
        let mut third = second.restart(short()).expect("it is still there");
        push(&mut third, 6);
        third.finish();
        third.wait(Duration::from_secs(120));
        let unlisted = third.memory.unlisted();
        assert!(unlisted.is_empty(), "killed after {actions}: these stay for ever: {unlisted:?}");
        for (key, playlist) in third.memory.judge.playlists() {
            let behind = playlist.entries.iter().filter(|entry| entry.has_discontinuity).count() as u64
                + playlist.discontinuity_sequence.unwrap_or(0);
            // The second life may have been too short to list anything.
            assert!(behind >= 1, "{key}: a restart is a discontinuity");
        }
    }
    assert!(resumed > all * 2 / 3, "{resumed} of {all}");
}

#[test]
fn a_broadcast_whose_publisher_does_not_come_back_is_ended_as_it_was_left() {
    let all = usize::MAX - killed(usize::MAX).memory.actions_left;
    for actions in 0..=all {
        let mut first = killed(actions);
        first.memory.actions_left = usize::MAX;
        let Some(mut second) = first.restart(short()) else { continue };
        second.wait(Duration::from_secs(30));
        second.finish();
    }
}
