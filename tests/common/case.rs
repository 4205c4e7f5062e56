//! The cases of the corpus: which sessions, how to deliver them, what has to come out.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

use super::session::Session;

/// The folder of the corpus.
pub(crate) fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The ids of all cases, sorted.
pub(crate) fn ids() -> Vec<String> {
    let mut ids: Vec<_> = fs::read_dir(corpus().join("cases"))
        .expect("the corpus is there")
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// One case. The words are explained in the corpus's README.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) level: Level,
    pub(crate) files: Vec<String>,
    pub(crate) replay: Delivery,
    pub(crate) good_server: String,
    pub(crate) expect: Expect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Must,
    Should,
    May,
}

/// How the bytes reach the server. Whatever a case says of pace (`speed`) is left aside: all is sent as fast as it is
/// read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delivery {
    /// At most so many bytes in each TCP segment.
    #[serde(default)]
    pub(crate) segment: Option<usize>,
    #[serde(default)]
    pub(crate) speed: Option<f64>,
    /// Send only so many bytes of the session.
    #[serde(default)]
    pub(crate) stop_at: Option<usize>,
    /// How the connection ends; by default as it was recorded.
    #[serde(default)]
    pub(crate) end: Option<End>,
    /// Do not wait for the server's answers.
    #[serde(default)]
    pub(crate) no_wait: bool,
}

/// How a client goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum End {
    /// Closes in order.
    Fin,
    /// Resets the connection, once everything has been received.
    Rst,
    /// Falls silent and stays connected.
    Hang,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Expect {
    /// One entry per publish command, in order.
    pub(crate) publishes: Vec<Publish>,
    /// `[least, most]` discontinuities between publishes that are `joined`.
    #[serde(default)]
    pub(crate) joined_discontinuities: [usize; 2],
}

#[derive(Debug, Deserialize)]
pub(crate) struct Publish {
    pub(crate) app: String,
    pub(crate) key: String,
    pub(crate) connection: usize,
    pub(crate) accept: Accept,
    pub(crate) video: Option<Video>,
    pub(crate) audio: Option<Audio>,
    #[serde(default)]
    pub(crate) audio_more: Vec<Audio>,
    pub(crate) duration_s: Option<f64>,
    pub(crate) duration_s_range: Option<[f64; 2]>,
    pub(crate) audio_minus_video_start_ms: Option<i64>,
    pub(crate) discontinuities: [usize; 2],
    pub(crate) init_segments: [usize; 2],
}

impl Publish {
    /// The stream's name, and the query that may follow it in the key.
    pub(crate) fn name_and_query(&self) -> (&str, Option<&str>) {
        match self.key.split_once('?') {
            Some((name, query)) => (name, Some(query)),
            None => (&self.key, None),
        }
    }
}

/// Whether a publish has to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub(crate) enum Accept {
    Yes,
    No,
    Either,
}

impl TryFrom<serde_json::Value> for Accept {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        match value {
            serde_json::Value::Bool(true) => Ok(Self::Yes),
            serde_json::Value::Bool(false) => Ok(Self::No),
            serde_json::Value::String(word) if word == "either" => Ok(Self::Either),
            other => Err(format!("{other} is neither true, false nor \"either\"")),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Video {
    pub(crate) codecs: Vec<String>,
    pub(crate) aus: usize,
    #[serde(default)]
    pub(crate) sizes: Vec<[u16; 2]>,
    pub(crate) first_pts_ms: i64,
    pub(crate) last_pts_ms: i64,
    pub(crate) key_frames: usize,
    /// At most the first 40.
    pub(crate) key_pts_ms: Vec<i64>,
    pub(crate) before_first_key: usize,
    pub(crate) configs: usize,
    #[serde(default)]
    pub(crate) messages_no_slice: usize,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Audio {
    pub(crate) codecs: Vec<String>,
    pub(crate) aus: usize,
    pub(crate) aus_from_first_key: usize,
    pub(crate) rate: u32,
    pub(crate) channels: u16,
    pub(crate) first_pts_ms: i64,
    pub(crate) last_pts_ms: i64,
    pub(crate) configs: usize,
    #[serde(default)]
    pub(crate) track_id: u8,
}

impl Case {
    /// Reads `tests/corpus/cases/ID.json`.
    pub(crate) fn load(id: &str) -> Self {
        let path = corpus().join("cases").join(format!("{id}.json"));
        let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Its sessions, one per connection, in order.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.files.iter().map(|file| Session::read(&corpus().join("sessions").join(file))).collect()
    }
}
