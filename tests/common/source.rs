//! What a session's messages hold: for each publish the access units that have to come out.
//!
//! The rules are the corpus's own. Video: a message with at least one slice, from the first key frame after the first
//! sequence header on. Audio: a message that is not empty, after the codec is known.

use std::collections::BTreeMap;

use super::amf::Command;
use super::chunk::Message;
use super::session::{Session, number};

/// What was sent under one publish command.
#[derive(Default)]
pub(crate) struct SourcePublish {
    pub(crate) key: String,
    /// By track id; 0 but for Enhanced RTMP multitrack.
    pub(crate) video: BTreeMap<u8, SourceTrack>,
    pub(crate) audio: BTreeMap<u8, SourceTrack>,
}

/// A track as it was sent.
#[derive(Default)]
pub(crate) struct SourceTrack {
    /// In the order in which they were sent.
    pub(crate) units: Vec<AccessUnit>,
    /// How often the decoder configuration changed, the first one included.
    pub(crate) configurations: usize,
    /// Inter frames before the first key frame.
    pub(crate) before_first_key: usize,
    /// Messages without a NAL unit of a picture.
    pub(crate) without_slice: usize,
    /// The decoder configuration that was sent last.
    pub(crate) configuration: Option<Vec<u8>>,
    nal_length_bytes: usize,
}

/// A coded picture or audio frame.
#[derive(Clone)]
pub(crate) struct AccessUnit {
    /// RTMP timestamp, the 32-bit wrap undone.
    pub(crate) decode_ms: i64,
    pub(crate) composition_ms: i64,
    pub(crate) is_key: bool,
    /// The coded bytes.
    pub(crate) payload: Vec<u8>,
    /// Length of the NAL unit lengths in `payload`.
    pub(crate) nal_length_bytes: usize,
    timestamp: u32,
}

impl AccessUnit {
    pub(crate) fn presentation_ms(&self) -> i64 {
        self.decode_ms + self.composition_ms
    }
}

/// What each publish command of `session` was followed by, in order.
pub(crate) fn publishes(session: &Session) -> Vec<SourcePublish> {
    let mut publishes: Vec<SourcePublish> = Vec::new();
    // Message stream id to index in `publishes`.
    let mut live: BTreeMap<u32, usize> = BTreeMap::new();
    let mut created = 0;
    for message in session.messages() {
        if let Some(command) = Command::of(&message) {
            match command.name() {
                "createStream" => created += 1,
                "publish" => {
                    // xiu publishes on message stream 0: it means the one created last.
                    let id = if message.stream_id == 0 { created.max(1) } else { message.stream_id };
                    live.insert(id, publishes.len());
                    let key = command.text(3).unwrap_or_default().to_owned();
                    publishes.push(SourcePublish { key, ..SourcePublish::default() });
                }
                "deleteStream" | "closeStream" => match command.number(3) {
                    Some(id) => live.retain(|&live, _| f64::from(live) != id),
                    None => live.retain(|&live, _| live != message.stream_id),
                },
                "FCUnpublish" => live.retain(|_, &mut index| Some(publishes[index].key.as_str()) != command.text(3)),
                _ => {}
            }
            continue;
        }
        for (kind, timestamp, payload) in media(&message) {
            let only = live.values().next().filter(|_| live.len() == 1 && message.stream_id == 0);
            let Some(&index) = live.get(&message.stream_id).or(only) else { continue };
            match kind {
                8 => audio(&mut publishes[index].audio, timestamp, payload),
                9 => video(&mut publishes[index].video, timestamp, payload),
                _ => {}
            }
        }
    }
    for publish in &mut publishes {
        unwrap_timestamps(publish);
    }
    publishes
}

/// The audio, video and data of a message, aggregates taken apart: type, timestamp, payload.
fn media(message: &Message) -> Vec<(u8, u32, &[u8])> {
    if message.kind != 22 {
        return vec![(message.kind, message.timestamp, &message.payload)];
    }
    let mut parts = Vec::new();
    let mut rest = message.payload.as_slice();
    let mut first = None;
    while rest.len() >= 11 {
        let size = number(&rest[1..4]);
        let timestamp = u32::try_from(number(&rest[7..8]) << 24 | number(&rest[4..7])).unwrap();
        let first = *first.get_or_insert(timestamp);
        let timestamp = message.timestamp.wrapping_add(timestamp.wrapping_sub(first));
        parts.push((rest[0] & 31, timestamp, &rest[11..11 + size]));
        rest = rest.get(15 + size..).unwrap_or_default();
    }
    parts
}

fn video(tracks: &mut BTreeMap<u8, SourceTrack>, timestamp: u32, payload: &[u8]) {
    let Some(&first) = payload.first() else { return };
    if first & 0x80 != 0 {
        let Some(packet) = Enhanced::read(payload, first & 15, 6) else { return };
        let track = tracks.entry(packet.track).or_default();
        let is_key = first >> 4 & 7 == 1;
        match (packet.kind, &packet.four_cc) {
            (0, _) => track.configure(packet.body, 4),
            (1, b"hvc1" | b"avc1") => track.picture(timestamp, signed24(packet.body), is_key, &packet.body[3..]),
            (1 | 3, _) => track.picture(timestamp, 0, is_key, packet.body),
            _ => {}
        }
        return;
    }
    let (frame, codec) = (first >> 4, first & 15);
    if !matches!(codec, 7 | 12) || frame == 5 || payload.len() < 5 {
        return;
    }
    let track = tracks.entry(0).or_default();
    let body = &payload[5..];
    match payload[1] {
        0 if body.len() > 1 => {
            let nal_length_bytes = if codec == 7 { usize::from(body[4] & 3) + 1 } else { 4 };
            track.configure(body, nal_length_bytes);
        }
        1 => {
            let has_slice = |nal: &&[u8]| matches!(nal[0] & 31, 1 | 2 | 5);
            if codec == 7 && !nal_units(body, track.nal_length_bytes.max(1)).iter().any(has_slice) {
                track.without_slice += 1;
                return;
            }
            track.picture(timestamp, signed24(&payload[2..]), frame == 1, body);
        }
        _ => {}
    }
}

fn audio(tracks: &mut BTreeMap<u8, SourceTrack>, timestamp: u32, payload: &[u8]) {
    let Some(&first) = payload.first() else { return };
    match first >> 4 {
        9 => {
            let Some(packet) = Enhanced::read(payload, first & 15, 5) else { return };
            let track = tracks.entry(packet.track).or_default();
            match packet.kind {
                0 => track.configure(packet.body, 0),
                1 => track.sound(timestamp, packet.body),
                _ => {}
            }
        }
        10 if payload.len() >= 2 => {
            let track = tracks.entry(0).or_default();
            match payload[1] {
                0 if payload.len() >= 4 => track.configure(&payload[2..], 0),
                0 => {}
                _ => track.sound(timestamp, &payload[2..]),
            }
        }
        2 | 14 if payload.len() >= 5 => {
            let track = tracks.entry(0).or_default();
            track.configure(b"mp3", 0);
            track.sound(timestamp, &payload[1..]);
        }
        _ => {}
    }
}

/// An Enhanced RTMP packet.
struct Enhanced<'a> {
    kind: u8,
    four_cc: [u8; 4],
    track: u8,
    body: &'a [u8],
}

impl<'a> Enhanced<'a> {
    /// `kind` is the packet type of the first byte, `multitrack` the type that says that a track id follows.
    fn read(payload: &'a [u8], mut kind: u8, multitrack: u8) -> Option<Self> {
        let mut at = 1;
        while kind == 7 {
            // ModEx: its size, its data, then its type and the packet type that follows.
            let mut size = number(payload.get(at..at + 1)?) + 1;
            at += 1;
            if size == 256 {
                size = number(payload.get(at..at + 2)?) + 1;
                at += 2;
            }
            at += size;
            kind = payload.get(at)? & 15;
            at += 1;
        }
        let is_multitrack = kind == multitrack;
        if is_multitrack {
            assert_eq!(payload.get(at)? >> 4, 0, "messages with many tracks are not in the corpus");
            kind = payload.get(at)? & 15;
            at += 1;
        }
        let four_cc = payload.get(at..at + 4)?.try_into().unwrap();
        at += 4;
        let mut track = 0;
        if is_multitrack {
            track = *payload.get(at)?;
            at += 1;
        }
        Some(Self { kind, four_cc, track, body: &payload[at..] })
    }
}

impl SourceTrack {
    fn configure(&mut self, record: &[u8], nal_length_bytes: usize) {
        if self.configuration.as_deref() != Some(record) {
            self.configurations += 1;
            self.configuration = Some(record.to_vec());
            self.nal_length_bytes = nal_length_bytes;
        }
    }

    fn picture(&mut self, timestamp: u32, composition_ms: i64, is_key: bool, payload: &[u8]) {
        if self.configuration.is_none() || self.units.is_empty() && !is_key {
            self.before_first_key += 1;
            return;
        }
        self.push(timestamp, composition_ms, is_key, payload);
    }

    fn sound(&mut self, timestamp: u32, payload: &[u8]) {
        if self.configuration.is_some() && !payload.is_empty() {
            self.push(timestamp, 0, true, payload);
        }
    }

    fn push(&mut self, timestamp: u32, composition_ms: i64, is_key: bool, payload: &[u8]) {
        self.units.push(AccessUnit {
            decode_ms: 0,
            composition_ms,
            is_key,
            payload: payload.to_vec(),
            nal_length_bytes: self.nal_length_bytes,
            timestamp,
        });
    }
}

/// Puts all tracks of a publish on one clock, which starts at the first one's first timestamp.
fn unwrap_timestamps(publish: &mut SourcePublish) {
    let mut anchor = None;
    for track in publish.video.values_mut().chain(publish.audio.values_mut()) {
        let mut last: Option<i64> = anchor;
        for unit in &mut track.units {
            let now = match last {
                None => i64::from(unit.timestamp),
                Some(last) => {
                    let low = u32::try_from(last.rem_euclid(1 << 32)).unwrap();
                    last + i64::from(unit.timestamp.wrapping_sub(low).cast_signed())
                }
            };
            unit.decode_ms = now;
            last = Some(now);
        }
        anchor = anchor.or_else(|| track.units.first().map(|unit| unit.decode_ms));
    }
}

/// The NAL units of an access unit, without the empty ones.
pub(crate) fn nal_units(mut bytes: &[u8], length_bytes: usize) -> Vec<&[u8]> {
    let mut units = Vec::new();
    while bytes.len() > length_bytes {
        let end = (length_bytes + number(&bytes[..length_bytes])).min(bytes.len());
        if end > length_bytes {
            units.push(&bytes[length_bytes..end]);
        }
        bytes = &bytes[end..];
    }
    units
}

fn signed24(bytes: &[u8]) -> i64 {
    let value = i64::try_from(number(&bytes[..3])).unwrap();
    if value & 0x80_0000 == 0 { value } else { value - (1 << 24) }
}
