//! The core by its stages, and whole: bytes and samples a second over real footage. Run by `cargo bench`.
//!
//! | bench | from | to |
//! |---|---|---|
//! | `chunk` | bytes of a connection | RTMP messages |
//! | `remux` | FLV tags | CMAF chunks, segments, playlists |
//! | `playlist` | a new segment | the playlist's text, for windows of 30 and 900 segments |
//! | `pipeline` | bytes of a connection | actions |

#[allow(dead_code, reason = "shared with programs that need other parts")]
#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use upscope::action::{BroadcastId, StreamName};
use upscope::cmaf::Segment;
use upscope::codec::{Configuration, aac};
use upscope::flv::Tag;
use upscope::flv::file::FileTags;
use upscope::hls::{Presentation, Window};
use upscope::media::{Moment, TrackId};
use upscope::packager::{Packager, Settings};
use upscope::rtmp::{Connection, Event};

use common::conversation::{HANDSHAKE_BYTES, connect, hello, publish};
use common::media::{Profile, Program};
use common::pipeline::Pipeline;

/// Real footage of OBS: 13.8 s of 640x360 at 30 frames a second with B-frames, and AAC.
const FILM: &[u8] = include_bytes!("../samples/big-buck-bunny.flv");

fn chunk(criterion: &mut Criterion) {
    let program = Program::new(Profile::Large).expect("the sample is whole");
    let mut group = criterion.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(program.round.len() as u64));
    let mut connection = Connection::new();
    for words in [hello(), vec![0; HANDSHAKE_BYTES], connect("live"), publish("p0"), program.opening.clone()] {
        connection.handle_bytes(&words).expect("what a client says");
        answer(&mut connection);
    }
    group.bench_function("bytes to messages, read by 16 KiB", |bencher| {
        bencher.iter(|| {
            for piece in program.round.chunks(16 << 10) {
                connection.handle_bytes(piece).expect("the program is legal");
                black_box(answer(&mut connection));
            }
        });
    });
    group.finish();
}

/// Answers what is asked; the bytes of all media messages.
fn answer(connection: &mut Connection) -> usize {
    let mut bytes = 0;
    while let Some(event) = connection.poll_event() {
        match event {
            Event::Connect(_) => connection.accept_connect(),
            Event::Publish(_) => connection.accept_publish(),
            Event::Media(message) => bytes += message.body.len(),
            Event::Unpublish | Event::Refused(_) => {}
        }
    }
    while connection.poll_output().is_some() {}
    bytes
}

fn remux(criterion: &mut Criterion) {
    let film = Bytes::from_static(FILM);
    let tags: Vec<Tag> = FileTags::new(&film)
        .expect("the sample is an FLV file")
        .flat_map(|tag| tag.expect("a whole tag").parse().expect("a legal tag"))
        .collect();
    let mut group = criterion.benchmark_group("remux");
    for (unit, throughput) in
        [("bytes", Throughput::Bytes(film.len() as u64)), ("samples", Throughput::Elements(tags.len() as u64))]
    {
        group.throughput(throughput);
        group.bench_function(format!("tags to actions, {unit}"), |bencher| {
            bencher.iter_batched(
                || (packager(), tags.clone()),
                |(mut packager, tags)| {
                    for tag in tags {
                        packager.handle_tag(tag, Moment::default());
                        while let Some(action) = packager.poll_action() {
                            black_box(action);
                        }
                    }
                    packager
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn playlist(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("playlist");
    for window in [30, 900] {
        let name = StreamName::parse("live", "cam1").expect("a legal name");
        let mut presentation = Presentation::new(name, BroadcastId { unix_ms: 1 }, Window::Segments(window));
        let record = aac::Configuration::parse(Bytes::from_static(&[0x11, 0x90])).expect("48 kHz stereo");
        presentation.expect_rendition(TrackId::AUDIO, &Configuration::Aac(record));
        let mut number = 0;
        let mut list_next = || {
            presentation.handle_segment(segment(number), 2, Duration::from_secs(2 * number));
            number += 1;
            while let Some(action) = presentation.poll_action() {
                black_box(action);
            }
        };
        (0..window).for_each(|_| list_next());
        group.bench_function(format!("a segment into {window}"), |bencher| bencher.iter(&mut list_next));
    }
    group.finish();
}

fn segment(number: u64) -> Segment {
    Segment {
        track: TrackId::AUDIO,
        number,
        header: 0,
        start_us: number * 2_000_000,
        duration_us: 2_000_000,
        bytes: 32_000,
        samples: 94,
        usual_sample_us: 21_333,
        is_discontinuous: false,
        discontinuities: 0,
        is_independent: true,
        is_gap: false,
    }
}

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    for (what, profile) in [("4.2 Mbit/s", Profile::Large), ("240 kbit/s", Profile::Small)] {
        let program = Program::new(profile).expect("the sample is whole");
        for (unit, throughput) in [
            ("bytes", Throughput::Bytes(program.round.len() as u64)),
            ("samples", Throughput::Elements(program.messages.len() as u64)),
        ] {
            group.throughput(throughput);
            let mut pipeline = Pipeline::publishing(&program).expect("the conversation is legal");
            group.bench_function(format!("bytes to actions, {what}, {unit}"), |bencher| {
                bencher.iter(|| pipeline.handle_round(&program, Some(16 << 10)).expect("the program is legal"));
            });
        }
    }
    group.finish();
}

fn packager() -> Packager {
    let settings =
        Settings { segment: Duration::from_secs(2), window: Window::Segments(30), track_wait: Duration::from_secs(1) };
    Packager::new(StreamName::parse("live", "cam1").expect("a legal name"), Moment::default(), settings)
}

criterion_group!(stages, chunk, remux, playlist, pipeline);
criterion_main!(stages);
