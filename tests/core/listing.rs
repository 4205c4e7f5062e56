//! Whole outputs as text: a broadcast's playlists, its files, and the boxes in them.

use std::fmt::Write;
use std::path::Path;

use super::boxes::{self, Mp4Box, Sample};
use super::memory::Broadcast;

/// All that a broadcast left behind: what was said, the playlists, the files, and the boxes of each header and of each
/// rendition's first segment.
pub(crate) fn broadcast(broadcast: &Broadcast) -> String {
    let objects = &broadcast.memory.objects;
    let mut text = String::new();
    for notice in &broadcast.notices {
        writeln!(text, "notice: {notice}").unwrap();
    }
    writeln!(text, "{:#?}", broadcast.packager.totals()).unwrap();
    for (key, body) in objects.iter().filter(|(key, _)| key.ends_with(".m3u8")) {
        write!(text, "\n=== {key}\n{}", String::from_utf8_lossy(body)).unwrap();
    }
    text += "\n=== segments: bytes, first decode time, ticks, chunks, samples\n";
    for (key, body) in objects.iter().filter(|(key, _)| is_segment(key)) {
        let chunks = boxes::chunks(body);
        let samples = chunks.concat();
        let ticks: u64 = samples.iter().map(|sample| u64::from(sample.duration)).sum();
        let start = samples[0].decode_time;
        let (chunks, count) = (chunks.len(), samples.len());
        writeln!(text, "{} {} {start} +{ticks} {chunks} {count}", file(key), body.len()).unwrap();
    }
    for (key, body) in objects.iter().filter(|(key, _)| is_header(key)) {
        write!(text, "\n=== {key}\n{}", listing(body)).unwrap();
    }
    let mut rendition = "";
    for (key, body) in objects.iter().filter(|(key, _)| is_segment(key)) {
        let of = key.rsplit_once('-').unwrap().0;
        if rendition != of {
            write!(text, "\n=== {key}\n{}", listing(body)).unwrap();
        }
        rendition = of;
    }
    text
}

/// Compares with `tests/golden/NAME.txt`, or writes it when `UPSCOPE_BLESS` is set.
pub(crate) fn assert_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var_os("UPSCOPE_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == found,
        "the output is not that of tests/golden/{name}.txt; if it should be, bless it with UPSCOPE_BLESS=1:\n{}",
        difference(&expected, found)
    );
}

/// The lines that differ (`-` expected, `+` found) with their numbers, behind the start and before the end that are the same.
fn difference(expected: &str, found: &str) -> String {
    const MOST_LINES: usize = 40;
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let (expected, found) = (&expected[same..], &found[same..]);
    let tail = expected.iter().rev().zip(found.iter().rev()).take_while(|(a, b)| a == b).count();
    let mut text = format!("from line {} on, {tail} lines at the end are the same:\n", same + 1);
    for (sign, lines) in [('-', &expected[..expected.len() - tail]), ('+', &found[..found.len() - tail])] {
        for line in lines.iter().take(MOST_LINES) {
            writeln!(text, "{sign} {line}").unwrap();
        }
        if lines.len() > MOST_LINES {
            writeln!(text, "{sign} … {} more lines", lines.len() - MOST_LINES).unwrap();
        }
    }
    text
}

/// One line a box: its type, its size, and its main fields, or the bytes of one whose fields are not told apart here.
fn listing(bytes: &[u8]) -> String {
    let mut text = String::new();
    for found in boxes::boxes(bytes) {
        list(found, 0, &mut text);
    }
    if bytes[4..8] == *b"moof" {
        for (number, chunk) in boxes::chunks(bytes).iter().enumerate() {
            writeln!(text, "samples of chunk {number}: times a duration, offset, sync").unwrap();
            for run in chunk.chunk_by(|a, b| row(a) == row(b)) {
                let (duration, offset, is_sync) = row(&run[0]);
                let sync = if is_sync { " sync" } else { "" };
                let sizes: Vec<_> = run.iter().map(|sample| sample.size.to_string()).collect();
                writeln!(text, "  {}x {duration} {offset:+}{sync}: {} bytes", run.len(), sizes.join(" ")).unwrap();
            }
        }
    }
    text
}

fn row(sample: &Sample) -> (u32, i32, bool) {
    (sample.duration, sample.composition_offset, sample.is_sync)
}

fn list(this: Mp4Box<'_>, depth: usize, text: &mut String) {
    let Mp4Box { kind, size, body } = this;
    write!(text, "{:indent$}{} {size}", "", kind.escape_ascii(), indent = depth * 2).unwrap();
    let (fields, inner) = match &kind {
        b"moov" | b"trak" | b"mdia" | b"minf" | b"dinf" | b"stbl" | b"mvex" | b"moof" | b"traf" => (String::new(), 0),
        b"dref" | b"stsd" => (String::new(), 8),
        b"avc1" => {
            let [width, height] = [24, 26].map(|at| u16::from_be_bytes([body[at], body[at + 1]]));
            (format!("{width}x{height}"), 78)
        }
        b"mp4a" => (format!("{} channels, {} Hz", body[17], boxes::u32_at(body, 24) >> 16), 28),
        b"ftyp" => (format!("{}", body.escape_ascii()), body.len()),
        b"mdhd" => {
            let at = if this.version() == 0 { 12 } else { 20 };
            (format!("version {}, timescale {}", this.version(), boxes::u32_at(body, at)), body.len())
        }
        b"hdlr" => (format!("{}", body[8..12].escape_ascii()), body.len()),
        b"mfhd" => (format!("sequence number {}", boxes::u32_at(body, 4)), body.len()),
        b"tfhd" => (format!("flags {:06x}, {}", this.flags(), numbers(&this)), body.len()),
        b"tfdt" => (format!("version {}, {}", this.version(), numbers(&this)), body.len()),
        b"trun" => {
            let count = boxes::u32_at(body, 4);
            (format!("version {}, flags {:06x}, {count} samples", this.version(), this.flags()), body.len())
        }
        b"mdat" => (String::new(), body.len()),
        _ => (bytes(body), body.len()),
    };
    writeln!(text, "{}{fields}", if fields.is_empty() { "" } else { " " }).unwrap();
    for found in boxes::boxes(&body[inner..]) {
        list(found, depth + 1, text);
    }
}

fn numbers(this: &Mp4Box<'_>) -> String {
    this.fields().map(|field| field.to_string()).collect::<Vec<_>>().join(" ")
}

/// In hexadecimal digits, zeros at the end only counted.
fn bytes(body: &[u8]) -> String {
    let end = body.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let word = |word: &[u8]| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let words: Vec<_> = body[..end].chunks(4).map(word).collect();
    let zeros = if end < body.len() { format!(" +{}", body.len() - end) } else { String::new() };
    format!("{}{zeros}", words.join(" ")).trim_start().to_owned()
}

fn file(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, file)| file)
}

fn is_header(key: &str) -> bool {
    key.contains("-init-")
}

fn is_segment(key: &str) -> bool {
    key.ends_with(".mp4") && !is_header(key)
}
