//! A little broadcast written by hand, box by box and line by line, by nothing of ours and by no crate.
//!
//! ```text
//! number      3     4     5     6     7     8     9    10
//! media    100 s   102   104   106 | 118   120   gap   124     | a discontinuity, media time jumps 10 s ahead
//! ```
//!
//! 320x180 at 25 fps, 44.1 kHz AAC, segments of 2 s in two fragments. The H.264 SPS is that of an ffmpeg test pattern;
//! samples are NAL units of the right type and of no content.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub(crate) const FOLDER: &str = "live/cam1/~1763834098123";
const UNIX_MS: u64 = 1_763_834_098_123;

/// A broadcast on disk, to break.
pub(crate) struct Broadcast {
    folder: TempDir,
}

impl Broadcast {
    /// A window of a live broadcast.
    pub(crate) fn live() -> Self {
        let broadcast = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(broadcast.path().join(FOLDER)).unwrap();
        fs::write(broadcast.path().join("live/cam1/index.m3u8"), INDEX).unwrap();
        for kind in [Kind::Video, Kind::Audio] {
            let mut playlist = kind.playlist_head();
            broadcast.write(&format!("{}-init-0.mp4", kind.name()), &kind.header());
            for segment in SEGMENTS {
                let (start, end) = (kind.cut(segment.start_s), kind.cut(segment.start_s + 2));
                playlist.push_str(&kind.playlist_entry(segment, start, end));
                if !segment.is_gap {
                    broadcast
                        .write(&format!("{}-{}.mp4", kind.name(), segment.number), &kind.segment(segment, start, end));
                }
            }
            broadcast.write(&format!("{}.m3u8", kind.name()), playlist.as_bytes());
        }
        broadcast
    }

    /// The same, over.
    pub(crate) fn ended() -> Self {
        let broadcast = Self::live();
        broadcast.edit_both(|playlist| format!("{playlist}#EXT-X-ENDLIST\n"));
        broadcast
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file of the broadcast.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(FOLDER).join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).unwrap();
    }

    /// Changes the text of a playlist.
    pub(crate) fn edit(&self, name: &str, change: impl Fn(String) -> String) {
        let before = fs::read_to_string(self.file(name)).unwrap();
        let after = change(before.clone());
        assert_ne!(before, after, "nothing planted in {name}");
        fs::write(self.file(name), after).unwrap();
    }

    /// Changes the text of both media playlists.
    pub(crate) fn edit_both(&self, change: impl Fn(String) -> String) {
        self.edit("video.m3u8", &change);
        self.edit("audio.m3u8", &change);
    }

    /// Replaces a piece of the text of a playlist.
    pub(crate) fn replace(&self, name: &str, from: &str, to: &str) {
        self.edit(name, |text| text.replacen(from, to, 1));
    }

    /// Changes the bytes of a file.
    pub(crate) fn patch(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.file(name)).unwrap();
        let before = bytes.clone();
        change(&mut bytes);
        assert_ne!(before, bytes, "nothing planted in {name}");
        fs::write(self.file(name), bytes).unwrap();
    }

    /// Replaces bytes `offset` bytes into the body of the first box of a type.
    pub(crate) fn patch_box(&self, name: &str, kind: &[u8; 4], offset: usize, new: &[u8]) {
        self.patch(name, |bytes| {
            let at = position(bytes, kind) + 8 + offset;
            bytes[at..at + new.len()].copy_from_slice(new);
        });
    }

    /// Gives the first box of a type another type.
    pub(crate) fn rename_box(&self, name: &str, kind: &[u8; 4], new: &[u8; 4]) {
        self.patch(name, |bytes| {
            let at = position(bytes, kind) + 4;
            bytes[at..at + 4].copy_from_slice(new);
        });
    }
}

/// Where the first box of a type begins.
pub(crate) fn position(bytes: &[u8], kind: &[u8; 4]) -> usize {
    bytes.windows(4).position(|window| window == kind).expect("no such box") - 4
}

const INDEX: &str = r#"#EXTM3U
#EXT-X-VERSION:6
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Audio",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="~1763834098123/audio.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=60000,AVERAGE-BANDWIDTH=55000,CODECS="avc1.4d400c,mp4a.40.2",RESOLUTION=320x180,FRAME-RATE=25.000,AUDIO="audio"
~1763834098123/video.m3u8
"#;

#[derive(Clone, Copy)]
struct Segment {
    number: u32,
    start_s: u64,
    is_discontinuity: bool,
    is_gap: bool,
}

const fn segment(number: u32, start_s: u64) -> Segment {
    Segment { number, start_s, is_discontinuity: number == 7, is_gap: number == 9 }
}

const SEGMENTS: [Segment; 8] = [
    segment(3, 100),
    segment(4, 102),
    segment(5, 104),
    segment(6, 106),
    segment(7, 118),
    segment(8, 120),
    segment(9, 122),
    segment(10, 124),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Video,
    Audio,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }

    fn timescale(self) -> u64 {
        match self {
            Self::Video => 90_000,
            Self::Audio => 44_100,
        }
    }

    /// Ticks of a sample.
    fn frame(self) -> u64 {
        match self {
            Self::Video => 3_600,
            Self::Audio => 1_024,
        }
    }

    /// The presentation of a sample after its decoding, in ticks.
    fn composition_offset(self) -> u64 {
        match self {
            Self::Video => 3_600,
            Self::Audio => 0,
        }
    }

    fn track_id(self) -> u32 {
        match self {
            Self::Video => 1,
            Self::Audio => 2,
        }
    }

    /// The sample boundary nearest to a second, in ticks. Audio frames begin anew behind the discontinuity.
    fn cut(self, seconds: u64) -> u64 {
        let origin = if seconds < 110 { 100 } else { 118 } * self.timescale();
        origin + ((seconds * self.timescale() - origin) * 2 / self.frame()).div_ceil(2) * self.frame()
    }

    fn playlist_head(self) -> String {
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:3\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n"
            .to_owned()
    }

    fn playlist_entry(self, segment: Segment, start: u64, end: u64) -> String {
        let name = self.name();
        let date_ms = (start + self.composition_offset()) * 1000 / self.timescale();
        let mut text = String::new();
        if segment.is_discontinuity {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if segment.number == 3 || segment.is_discontinuity {
            text.push_str(&format!("#EXT-X-MAP:URI=\"{name}-init-0.mp4\"\n"));
        }
        text.push_str(&format!("#EXT-X-PROGRAM-DATE-TIME:{}\n", date(UNIX_MS + date_ms)));
        if segment.is_gap {
            text.push_str("#EXT-X-GAP\n");
        }
        let micros = (end - start) * 1_000_000 / self.timescale();
        text.push_str(&format!("#EXTINF:{}.{:06},\n", micros / 1_000_000, micros % 1_000_000));
        text.push_str(&format!("{name}-{}.mp4\n", segment.number));
        text
    }

    fn header(self) -> Vec<u8> {
        let id = self.track_id().to_be_bytes();
        let timescale = u32::try_from(self.timescale()).unwrap().to_be_bytes();
        let (handler, media_header) = match self {
            Self::Video => (b"vide", full(b"vmhd", 1, &[&[0; 8]])),
            Self::Audio => (b"soun", full(b"smhd", 0, &[&[0; 4]])),
        };
        let matrix: Vec<u8> =
            [0x1_0000u32, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000].iter().flat_map(|n| n.to_be_bytes()).collect();
        let ftyp = boxed(b"ftyp", &[b"iso6", &[0; 4], b"iso6cmfc"]);
        let mvhd = full(
            b"mvhd",
            0,
            &[&[0; 8], &timescale, &[0; 4], &[0, 1, 0, 0, 1, 0], &[0; 10], &matrix, &[0; 24], &[0, 0, 0, 9]],
        );
        let tkhd = full(
            b"tkhd",
            3,
            &[&[0; 8], &id, &[0; 4], &[0; 4], &[0; 8], &[0; 8], &matrix, &[1, 64, 0, 0, 0, 180, 0, 0]],
        );
        let mdhd = full(b"mdhd", 0, &[&[0; 8], &timescale, &[0; 4], &[0x55, 0xc4, 0, 0]]);
        let hdlr = full(b"hdlr", 0, &[&[0; 4], handler, &[0; 12], b"media\0"]);
        let url = full(b"url ", 1, &[]);
        let dinf = boxed(b"dinf", &[&full(b"dref", 0, &[&[0, 0, 0, 1], &url])]);
        let stsd = full(b"stsd", 0, &[&[0, 0, 0, 1], &self.sample_entry()]);
        let empty = |kind| full(kind, 0, &[&[0; 4]]);
        let stsz = full(b"stsz", 0, &[&[0; 8]]);
        let stbl = boxed(b"stbl", &[&stsd, &empty(b"stts"), &empty(b"stsc"), &stsz, &empty(b"stco")]);
        let minf = boxed(b"minf", &[&media_header, &dinf, &stbl]);
        let mdia = boxed(b"mdia", &[&mdhd, &hdlr, &minf]);
        let trex = full(b"trex", 0, &[&id, &[0, 0, 0, 1], &[0; 12]]);
        let moov = boxed(b"moov", &[&mvhd, &boxed(b"trak", &[&tkhd, &mdia]), &boxed(b"mvex", &[&trex])]);
        [ftyp, moov].concat()
    }

    fn sample_entry(self) -> Vec<u8> {
        match self {
            Self::Video => {
                let sps: &[u8] =
                    b"\x67\x4d\x40\x0c\xec\xa0\xa0\xcf\xcf\x80\x88\0\0\x03\0\x08\0\0\x03\x01\x90\x78\xa1\x4c\xb0";
                let avcc = boxed(b"avcC", &[b"\x01\x4d\x40\x0c\xff\xe1\0\x19", sps, b"\x01\0\x05\x68\xeb\xe1\x92\xc8"]);
                let sizes = [1, 64, 0, 180, 0, 0x48, 0, 0, 0, 0x48, 0, 0, 0, 0, 0, 0, 0, 1];
                boxed(b"avc1", &[&[0, 0, 0, 0, 0, 0, 0, 1], &[0; 16], &sizes, &[0; 32], &[0, 24, 255, 255], &avcc])
            }
            Self::Audio => {
                let descriptors = b"\x03\x19\0\0\0\x04\x11\x40\x15\0\0\0\0\0\0\0\0\0\0\0\x05\x02\x12\x10\x06\x01\x02";
                let esds = full(b"esds", 0, &[descriptors]);
                let sound = [0, 2, 0, 16, 0, 0, 0, 0, 0xac, 0x44, 0, 0];
                boxed(b"mp4a", &[&[0, 0, 0, 0, 0, 0, 0, 1], &[0; 8], &sound, &esds])
            }
        }
    }

    fn segment(self, segment: Segment, start: u64, end: u64) -> Vec<u8> {
        let middle = start + (end - start) / 2 / self.frame() * self.frame();
        let first = self.fragment(2 * segment.number, start, middle, true);
        [first, self.fragment(2 * segment.number + 1, middle, end, false)].concat()
    }

    fn fragment(self, number: u32, start: u64, end: u64, starts_with_key: bool) -> Vec<u8> {
        let count = usize::try_from((end - start) / self.frame()).unwrap();
        let samples: Vec<Vec<u8>> = (0..count).map(|n| self.sample(n == 0 && starts_with_key)).collect();
        let sync_of = |n: usize| self == Self::Audio || n == 0 && starts_with_key;
        let mut run = Vec::new();
        for (n, sample) in samples.iter().enumerate() {
            let flags: u32 = if sync_of(n) { 0x0200_0000 } else { 0x0101_0000 };
            run.extend(u32::try_from(self.frame()).unwrap().to_be_bytes());
            run.extend(u32::try_from(sample.len()).unwrap().to_be_bytes());
            run.extend(flags.to_be_bytes());
            run.extend(u32::try_from(self.composition_offset()).unwrap().to_be_bytes());
        }
        let mfhd = full(b"mfhd", 0, &[&number.to_be_bytes()]);
        let tfhd = full(b"tfhd", 0x02_0000, &[&self.track_id().to_be_bytes()]);
        let tfdt = version_1(b"tfdt", 0, &[&start.to_be_bytes()]);
        let trun_bytes = 12 + 8 + run.len();
        let moof_bytes = 8 + mfhd.len() + 8 + tfhd.len() + tfdt.len() + trun_bytes;
        let data_offset = u32::try_from(moof_bytes + 8).unwrap().to_be_bytes();
        let trun = version_1(b"trun", 0xf01, &[&u32::try_from(count).unwrap().to_be_bytes(), &data_offset, &run]);
        let moof = boxed(b"moof", &[&mfhd, &boxed(b"traf", &[&tfhd, &tfdt, &trun])]);
        assert_eq!(moof.len(), moof_bytes);
        [moof, boxed(b"mdat", &[&samples.concat()])].concat()
    }

    fn sample(self, is_key: bool) -> Vec<u8> {
        match (self, is_key) {
            (Self::Video, true) => nal_unit(0x65, 400),
            (Self::Video, false) => nal_unit(0x41, 150),
            (Self::Audio, _) => vec![0x21; 30],
        }
    }
}

fn nal_unit(header: u8, bytes: u32) -> Vec<u8> {
    let mut sample = bytes.to_be_bytes().to_vec();
    sample.push(header);
    sample.resize(4 + bytes as usize, 0x88);
    sample
}

fn boxed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let size = u32::try_from(8 + body.len()).unwrap();
    [&size.to_be_bytes(), &kind[..], &body].concat()
}

fn full(kind: &[u8; 4], flags: u32, parts: &[&[u8]]) -> Vec<u8> {
    boxed(kind, &[&flags.to_be_bytes(), &parts.concat()])
}

fn version_1(kind: &[u8; 4], flags: u32, parts: &[&[u8]]) -> Vec<u8> {
    full(kind, flags | 1 << 24, parts)
}

/// A date of 22 November 2025, on which the broadcast is.
fn date(unix_ms: u64) -> String {
    let midnight_ms = 1_763_769_600_000;
    let ms = unix_ms - midnight_ms;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("2025-11-22T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}
