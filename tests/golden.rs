//! Whole outputs, readable by eye: playlists, files and boxes, compared as text with `tests/golden/*.txt`.
//! `UPSCOPE_BLESS=1 cargo test --test golden` writes those anew; look at the diff.

#![expect(clippy::disallowed_methods, reason = "samples are read from the disk")]

mod common;
mod core;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use upscope::hls::Window;
use upscope::packager::Settings;

use crate::common::session::Session;
use crate::core::listing::{self, assert_golden};
use crate::core::memory::{Broadcast, settings};

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn session(name: &str) -> Vec<u8> {
    Session::read(&path(&format!("tests/corpus/sessions/{name}.rec"))).client
}

/// What comes out of the sessions, one after the other.
fn packaged(sessions: &[&str]) -> Broadcast {
    let mut broadcast = Broadcast::new(settings());
    for (count, name) in sessions.iter().enumerate() {
        if count > 0 {
            broadcast.wait(Duration::from_secs(7));
        }
        broadcast.receive([&session(name)[..]]);
    }
    broadcast.finish();
    broadcast
}

#[test]
fn the_sample() {
    let mut broadcast = Broadcast::new(settings());
    broadcast.push(&Bytes::from(std::fs::read(path("samples/big-buck-bunny.flv")).unwrap()));
    broadcast.finish();
    assert_golden("sample", &listing::broadcast(&broadcast));
}

#[test]
fn a_publisher_that_comes_back() {
    assert_golden("back", &listing::broadcast(&packaged(&["c-close-abrupt", "c-query"])));
}

#[test]
fn another_resolution() {
    assert_golden("resolution", &listing::broadcast(&packaged(&["c-res-change"])));
}

#[test]
fn sound_only() {
    assert_golden("sound", &listing::broadcast(&packaged(&["r-gst-aonly"])));
}

#[test]
fn a_window_of_three_segments() {
    let mut broadcast = Broadcast::new(Settings { window: Window::Segments(3), ..settings() });
    broadcast.receive([&session("r-obs-2s")[..]]);
    broadcast.finish();
    let mut text = listing::broadcast(&broadcast);
    broadcast.wait(Duration::from_secs(60));
    text += "\n=== a minute later there are\n";
    for key in broadcast.memory.objects.keys() {
        text += &format!("{key}\n");
    }
    text += "\n=== all that was done, in order\n";
    text += &broadcast.memory.log;
    assert_golden("window", &text);
}
