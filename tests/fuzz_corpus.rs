//! The fuzz targets' bodies with the stable compiler: over the corpus, over mutations of it, over what the fuzzer came
//! upon that is worth keeping (`fuzz/kept`), and over all that it ever found (`fuzz/found`).

#![expect(clippy::disallowed_methods, reason = "inputs are read from the disk")]

#[path = "../fuzz/bodies.rs"]
mod bodies;
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::chunk::Message;
use common::session::Session;

/// Mutations of each seed.
const MUTATIONS: u32 = 4;
/// More than this of a recording is no seed, in bytes: mutations take long.
const SEED_BYTES: usize = 60_000;

type Body = fn(&[u8]);
const TARGETS: [(&str, Body); 6] = [
    ("amf0", bodies::amf0),
    ("chunk", bodies::chunk),
    ("flv", bodies::flv),
    ("codec", bodies::codec),
    ("sei", bodies::sei),
    ("session", bodies::session),
];

#[test]
fn amf0() {
    run("amf0");
}

#[test]
fn chunk() {
    run("chunk");
}

#[test]
fn flv() {
    run("flv");
}

#[test]
fn codec() {
    run("codec");
}

#[test]
fn sei() {
    run("sei");
}

#[test]
fn session_and_packager() {
    run("session");
}

/// Writes the seeds where cargo-fuzz looks for them.
#[test]
#[ignore = "writes fuzz/corpus"]
fn write_seeds() {
    for (target, _) in TARGETS {
        let folder = path("fuzz/corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        for (index, seed) in [seeds(target), kept(target)].concat().iter().enumerate() {
            fs::write(folder.join(format!("seed-{index}")), seed).unwrap();
        }
    }
}

fn run(target: &str) {
    let body = TARGETS.iter().find(|(name, _)| *name == target).unwrap().1;
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    for seed in seeds(target) {
        body(&seed);
        for _ in 0..MUTATIONS {
            body(&random.mutated(&seed));
        }
    }
    for input in kept(target) {
        body(&input);
    }
    for found in found(target) {
        body(&fs::read(found).unwrap());
    }
}

/// Inputs for a target, out of the recorded sessions.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let sessions = sessions();
    let of_kind = |kinds: &[u8]| -> Vec<Message> {
        let early = |session: &Session| {
            let messages = session.messages().into_iter();
            messages.filter(|message| kinds.contains(&message.kind)).take(6).collect::<Vec<_>>()
        };
        sessions.iter().flat_map(early).collect()
    };
    let with = |first: u8, rest: &[u8]| [&[first], rest].concat();
    let coded: Vec<(Vec<u8>, Vec<u8>)> =
        sessions.iter().flat_map(|s| [records(s, 8), records(s, 9)].concat()).collect();
    let mut seeds: Vec<Vec<u8>> = match target {
        "amf0" => of_kind(&[18, 20]).into_iter().map(|message| message.payload).collect(),
        "chunk" | "session" => sessions.iter().map(|s| with(0, &s.client[..s.client.len().min(SEED_BYTES)])).collect(),
        "flv" => {
            let kind = |message: &Message| if message.kind == 18 { 2 } else { message.kind - 8 };
            let messages = of_kind(&[8, 9, 18]);
            let splice = [&b"\x02\0\x08onSCTE35\x02\0\x44"[..], SPLICE].concat();
            messages.iter().map(|message| with(kind(message), &message.payload)).chain([with(2, &splice)]).collect()
        }
        "sei" => {
            let frames = coded.iter().map(|(_, frame)| frame.as_slice()).chain([&CAPTIONS[..]]);
            frames.flat_map(|frame| [0, 1].map(|which| with(which, frame))).collect()
        }
        _ => {
            let of_codec = |which| coded.iter().map(move |(record, frame)| codec_input(which, record, frame));
            (0..11).flat_map(of_codec).collect()
        }
    };
    seeds.sort();
    seeds.dedup();
    seeds
}

/// User data with a recovery point before it: a control code of CC1, and a packet of service 1.
const CAPTIONS: [u8; 25] = *b"\x06\x01\xc4\x04\x13\xb5\0\x31GA94\x03\x43\xff\xfc\x94\x20\xff\x02\x22\xfe\x41\x41\xff";

/// SCTE 35 §14.2.
const SPLICE: &[u8] = b"/DAvAAAAAAAA///wFAVIAACPf+/+c2nALv4AUsz1AAAAAAAKAAhDVUVJAAABNWLbowo=";

/// The first message of a kind, which is mostly a decoder configuration record, with each of those that follow it.
fn records(session: &Session, kind: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let of_kind: Vec<_> = session.messages().into_iter().filter(|message| message.kind == kind).take(5).collect();
    let [first, others @ ..] = &of_kind[..] else { return vec![] };
    // Behind the header of AAC, or of all others.
    let coded = |message: &Message| {
        let header = if message.payload.first().is_some_and(|first| first >> 4 == 10) { 2 } else { 5 };
        message.payload.get(header..).unwrap_or_default().to_vec()
    };
    others.iter().map(|other| (coded(first), coded(other))).collect()
}

/// As the target `codec` takes it.
fn codec_input(which: u8, record: &[u8], frame: &[u8]) -> Vec<u8> {
    [&[which, u8::try_from(record.len()).unwrap_or(0)], record, frame].concat()
}

fn sessions() -> Vec<Session> {
    let entries = fs::read_dir(path("tests/corpus/sessions")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rec"));
    paths.sort();
    paths.iter().map(|path| Session::read(path)).collect()
}

/// Inputs that earlier runs of the fuzzer kept, as few as reach all that they reached: in one file, each behind its length.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let packed = fs::read(path("fuzz/kept").join(target)).unwrap();
    let mut inputs = Vec::new();
    let mut rest = &packed[..];
    while let Some((length, after)) = rest.split_first_chunk() {
        let (input, after) = after.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        inputs.push(input.to_vec());
        rest = after;
    }
    inputs
}

fn found(target: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(path("fuzz/found")).into_iter().flatten().map(|entry| entry.unwrap().path());
    let is_for = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{target}-"));
    entries.filter(is_for).collect()
}

fn path(inside: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(inside)
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit.max(1)
    }

    /// Bytes changed, taken out, doubled or cut off.
    fn mutated(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len());
            let end = (at + self.below(40)).min(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ if at < bytes.len() => {
                    let values = [0, 1, 0x7F, 0x80, 0xFF, self.below(256)];
                    bytes[at] = u8::try_from(values[self.below(values.len())]).unwrap();
                }
                _ => {}
            }
        }
        bytes
    }
}
