//! What is done with an input, by the fuzzer and by `tests/fuzz_corpus.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use upscope::action::{Action, ObjectKind, StreamName};
use upscope::amf0::{self, Limits, Value};
use upscope::codec::{self, Configuration};
use upscope::flv::file::FileTags;
use upscope::flv::{Tags, parse_audio, parse_data, parse_video};
use upscope::hls::Window;
use upscope::media::Moment;
use upscope::packager::{Packager, Settings};
use upscope::rtmp::{Connection, Error, Event, MessageKind};
use upscope::scte35::Section;

/// AMF0 values.
pub(crate) fn amf0(data: &[u8]) {
    for limits in [Limits::COMMAND, Limits::METADATA] {
        let (values, _) = amf0::decode_within(data, limits);
        let (mut count, mut text) = (0, 0);
        values.iter().for_each(|value| measure(value, limits.depth + 1, &mut count, &mut text));
        assert!(count <= limits.values);
        // Repaired text is longer: three bytes for each wrong one.
        assert!(text <= 3 * limits.text_bytes);
    }
}

fn measure(value: &Value, depth_left: usize, count: &mut usize, text: &mut usize) {
    assert!(depth_left > 0);
    *count += 1;
    match value {
        Value::String(words) | Value::XmlDocument(words) => *text += words.len(),
        Value::StrictArray(values) => values.iter().for_each(|value| measure(value, depth_left - 1, count, text)),
        _ => {
            for (name, value) in value.properties().unwrap_or_default() {
                *text += name.len();
                measure(value, depth_left - 1, count, text);
            }
        }
    }
}

/// A connection: the first byte says whether the rest is sent as it is, behind a handshake, or is a script of chunks.
pub(crate) fn chunk(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let bytes = connection_bytes(mode, rest);
    let whole = converse([&bytes[..]]);
    let cut = converse(bytes.chunks(1 + usize::from(mode) * 7));
    // How much is held is looked at between inputs, so that limit may be reached or not.
    let is_limit = |result: &Result<(), Error>| matches!(result, Err(Error::Limit { .. }));
    if !is_limit(&whole.1) && !is_limit(&cut.1) {
        assert_eq!(whole, cut);
    }
}

fn connection_bytes(mode: u8, rest: &[u8]) -> Vec<u8> {
    match mode % 3 {
        0 => rest.to_vec(),
        1 => [&hello()[..], rest].concat(),
        _ => [hello(), opening(), script(rest)].concat(),
    }
}

/// What becomes of a connection whose questions are answered at once.
fn converse<'a>(inputs: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Result<(), Error>) {
    let mut connection = Connection::new();
    let mut events = Vec::new();
    for input in inputs {
        let result = connection.handle_bytes(input);
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Connect(_) => connection.accept_connect(),
                Event::Publish(_) => connection.accept_publish(),
                Event::Media(_) | Event::Unpublish | Event::Refused(_) => {}
            }
            events.push(event);
        }
        while connection.poll_output().is_some() {}
        if result.is_err() {
            break;
        }
    }
    // An answer of ours may have brought on an error of what waited behind it.
    (events, connection.handle_bytes(&[]))
}

/// A message body: the first byte says of which kind. Any input is read as an FLV file and as SCTE 35, too.
pub(crate) fn flv(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(rest);
    drop(tags(kind, 7, &body));
    for section in [Section::parse(data), Section::parse_text(&String::from_utf8_lossy(rest))].into_iter().flatten() {
        assert_eq!(Section::parse(section.bytes()), Some(section));
    }
    for file in [body, Bytes::copy_from_slice(data)] {
        if let Ok(tags) = FileTags::new(&file) {
            tags.for_each(drop);
        }
    }
}

fn tags(kind: u8, timestamp: u32, body: &Bytes) -> Option<Tags> {
    match kind % 3 {
        0 => parse_audio(timestamp, body).ok(),
        1 => parse_video(timestamp, body).ok(),
        _ => parse_data(timestamp, body).ok(),
    }
}

/// A decoder configuration record and a frame for it: the first byte says of which codec, the second how many
/// bytes the record has, if not all.
pub(crate) fn codec(data: &[u8]) {
    let [which, length, rest @ ..] = data else { return };
    let all = Bytes::copy_from_slice(rest);
    let (record, frame) = match usize::from(*length).min(all.len()) {
        0 => (all.clone(), all),
        length => (all.slice(..length), all.slice(length..)),
    };
    let configuration = match which % 11 {
        0 => codec::avc::Configuration::parse(record).ok().map(Configuration::Avc),
        1 => codec::aac::Configuration::parse(record).ok().map(Configuration::Aac),
        2 => codec::hevc::Configuration::parse(record).ok().map(Configuration::Hevc),
        3 => codec::av1::Configuration::parse(record).ok().map(Configuration::Av1),
        4 => codec::flac::Configuration::parse(record).ok().map(Configuration::Flac),
        5 => codec::opus::Configuration::parse(record).ok().map(Configuration::Opus),
        6 => codec::mp3::Configuration::of_frame(&record).ok().map(Configuration::Mp3),
        7 => codec::ac3::Configuration::of_access_unit(&record).ok().map(Configuration::Ac3),
        8 => codec::av1::Configuration::of_temporal_unit(&record).ok().flatten().map(Configuration::Av1),
        9 => codec::vp9::Configuration::of_frame(None, &record).ok().flatten().map(Configuration::Vp9),
        _ => {
            let record = codec::vp9::Record::parse(&record).ok();
            codec::vp9::Configuration::of_frame(record, &frame).ok().flatten().map(Configuration::Vp9)
        }
    };
    let Some(configuration) = configuration else { return };
    assert!(!configuration.rfc6381().is_empty());
    let _ = (configuration.resolution(), configuration.sample_rate(), configuration.channels());
    for is_called_key in [true, false] {
        if let Ok(Some(frame)) = configuration.inspect(frame.clone(), is_called_key) {
            assert_ne!(frame.samples, Some(0));
        }
    }
}

/// NAL units with supplemental enhancement information: the first byte says of which codec.
pub(crate) fn sei(data: &[u8]) {
    let Some((&which, payload)) = data.split_first() else { return };
    let header: &[u8] = if which & 1 == 0 { &[39 << 1, 1] } else { &[6] };
    let Ok(length) = u16::try_from(header.len() + payload.len()) else { return };
    let unit = Bytes::from([&length.to_be_bytes(), header, payload].concat());
    if which & 1 == 0 {
        codec::hevc::inspect(&unit, 2).expect("its lengths are right");
    } else {
        codec::avc::inspect(&unit, 2).expect("its lengths are right");
    }
    // And whatever is within as the units of an access unit.
    for nal_length_size in [1, 2, 4] {
        let whole = Bytes::copy_from_slice(payload);
        let _ = codec::hevc::inspect(&whole, nal_length_size);
        let _ = codec::avc::inspect(&whole, nal_length_size);
    }
}

/// A connection as for `chunk`, whose media is packaged.
pub(crate) fn session(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let bytes = connection_bytes(mode, rest);
    let (events, _) = converse([&bytes[..]]);
    let mut now = Moment { monotonic: Duration::ZERO, unix: Duration::from_secs(1_700_000_000) };
    let settings =
        Settings { segment: Duration::from_secs(2), window: Window::Segments(5), track_wait: Duration::from_secs(1) };
    let name = StreamName::parse("live", "a").expect("it is allowed");
    let mut packager = Packager::new(name, now, settings);
    let mut objects = Objects::default();
    for event in events {
        match event {
            Event::Media(message) => {
                let kind = match message.kind {
                    MessageKind::Audio => 0,
                    MessageKind::Video => 1,
                    MessageKind::Data => 2,
                };
                now.monotonic += Duration::from_millis(10);
                now.unix += Duration::from_millis(10);
                for tag in tags(kind, message.timestamp, &message.body).into_iter().flatten() {
                    packager.handle_tag(tag, now);
                    objects.perform_all(&mut packager);
                }
            }
            Event::Unpublish => packager.interrupt(now),
            Event::Connect(_) | Event::Publish(_) | Event::Refused(_) => {}
        }
        packager.handle_time(now);
        objects.perform_all(&mut packager);
    }
    packager.finish(now);
    objects.perform_all(&mut packager);
}

/// The names of all objects that are there, and of those that ever were.
#[derive(Default)]
struct Objects {
    there: BTreeSet<String>,
    ever: BTreeSet<String>,
}

impl Objects {
    fn perform_all(&mut self, packager: &mut Packager) {
        while packager.poll_notice().is_some() {}
        while let Some(action) = packager.poll_action() {
            let key = action.key().to_string();
            match action {
                Action::Append { .. } => assert!(!self.ever.contains(&key), "{key} grows after it was put"),
                Action::Put { kind: ObjectKind::Playlist, body, .. } => self.put_playlist(key, &body.concat()),
                Action::Put { .. } => {
                    assert!(self.ever.insert(key.clone()), "{key} is used twice");
                    self.there.insert(key);
                }
                Action::Delete { .. } => {
                    self.there.remove(&key);
                }
            }
        }
    }

    fn put_playlist(&mut self, key: String, text: &[u8]) {
        let text = std::str::from_utf8(text).expect("it is ours");
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut is_gap = false;
        for line in text.lines() {
            is_gap |= line == "#EXT-X-GAP";
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            assert!(is_gap || self.there.contains(&format!("{folder}/{line}")), "{key} lists {line}, not there");
            is_gap = false;
        }
        self.there.insert(key);
    }
}

/// C0, C1 and C2.
fn hello() -> Vec<u8> {
    let mut hello = vec![0; 1 + 2 * 1536];
    hello[0] = 3;
    hello
}

/// `connect` and `publish`.
fn opening() -> Vec<u8> {
    let connect = b"\x02\0\x07connect\0\x3f\xf0\0\0\0\0\0\0\x03\0\x03app\x02\0\x04live\0\0\x09";
    let publish = b"\x02\0\x07publish\0\0\0\0\0\0\0\0\0\x05\x02\0\x01a";
    let mut bytes = Vec::new();
    for body in [&connect[..], publish] {
        bytes.extend([3, 0, 0, 0, 0, 0]);
        bytes.push(u8::try_from(body.len()).expect("short"));
        bytes.extend([20, 1, 0, 0, 0]);
        bytes.extend(body);
    }
    bytes
}

/// Chunks as a script says: format and chunk stream, type, time, length, and the payload that is there or is made of it.
fn script(mut rest: &[u8]) -> Vec<u8> {
    const TYPES: [u8; 12] = [8, 9, 18, 20, 9, 8, 1, 2, 4, 22, 15, 17];
    let mut bytes = Vec::new();
    while let [first, kind, time, length, after @ ..] = rest {
        let format = first >> 6;
        let chunk_stream = 3 + (first & 3);
        let time = u32::from(*time) * if first & 4 == 0 { 1 } else { 0x01_0101 };
        let (payload, after) = after.split_at(usize::from(*length).min(after.len()));
        let (body, announced) = match first & 32 {
            0 => (payload.to_vec(), u16::from(*length)),
            _ => {
                let body = values(payload);
                let announced = u16::try_from(body.len()).expect("at most 20 bytes for each of 255");
                (body, announced)
            }
        };
        bytes.push(first & 0xC0 | chunk_stream);
        if format < 3 {
            bytes.extend(&time.min(0xFF_FFFF).to_be_bytes()[1..]);
        }
        if format < 2 {
            let [high, low] = announced.to_be_bytes();
            bytes.extend([0, high, low, TYPES[usize::from(*kind) % TYPES.len()]]);
        }
        if format == 0 {
            bytes.extend([u8::from(first & 8 == 0), 0, 0, 0]);
        }
        if format < 3 && time >= 0xFF_FFFF {
            bytes.extend(time.to_be_bytes());
        }
        for (index, piece) in body.chunks(128).enumerate() {
            if index > 0 && first & 16 == 0 {
                bytes.push(0xC0 | chunk_stream);
            }
            bytes.extend(piece);
        }
        rest = after;
    }
    bytes
}

/// AMF0 as a script says: a value, a name of a property or an end for each byte.
fn values(script: &[u8]) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "connect",
        "publish",
        "createStream",
        "deleteStream",
        "FCUnpublish",
        "closeStream",
        "@setDataFrame",
        "onMetaData",
        "onTextData",
        "app",
        "tcUrl",
        "fourCcList",
        "capsEx",
        "width",
        "encoder",
        "a?b=c",
    ];
    let mut bytes = Vec::new();
    for byte in script {
        let argument = byte >> 4;
        let word = WORDS[usize::from(argument)].as_bytes();
        let length = u8::try_from(word.len()).expect("they are short");
        match byte & 15 {
            0 | 1 => bytes.extend([&[2, 0, length], word].concat()),
            2 => bytes.extend([&[0, 0, length], word].concat()[1..].iter()),
            3 => bytes.push(3),
            4 => bytes.extend([8, 0, 0, 0, argument]),
            5 => bytes.extend([0, 0, 9]),
            6 => bytes.extend([10, 0, 0, 0, argument]),
            7 => bytes.extend([&[0], &f64::from(argument).to_be_bytes()[..]].concat()),
            8 => bytes.extend([&[0], &f64::from_bits(u64::from(argument) << 60 | 0xFFF).to_be_bytes()[..]].concat()),
            9 => bytes.push(5),
            10 => bytes.extend([1, argument & 1]),
            11 => bytes.extend([&[12, 0, 0, 0, length], word].concat()),
            12 => bytes.extend([&[16, 0, length], word].concat()),
            _ => bytes.push(argument),
        }
    }
    bytes
}
