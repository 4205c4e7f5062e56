//! Reads our own media playlists back after a restart.
//!
//! Takes exactly what `render` writes: whoever else wrote the file, if one line of it is not ours the whole of it is
//! refused. Integers only, so that what is listed again is listed with the same words.

use chrono::DateTime;

use crate::media::TrackId;

use super::date_range;
use super::object::Object;

/// Larger than any playlist that we write: a day of half-second segments, in bytes.
pub const MOST_PLAYLIST_BYTES: u64 = 32 << 20;

/// The longest target duration and segment that are believed, in seconds.
const LONGEST_S: u64 = 3600;

/// What a media playlist says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reread {
    pub(super) target_duration_s: u64,
    pub(super) media_sequence: u64,
    pub(super) discontinuity_sequence: u64,
    pub(super) are_segments_independent: bool,
    pub(super) date_ranges: Vec<date_range::Line>,
    pub(super) entries: Vec<Entry>,
    pub(super) is_ended: bool,
}

/// What it says of a segment. Its number follows from its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) duration_us: u64,
    pub(super) program_date_time_us: u64,
    pub(super) is_discontinuous: bool,
    pub(super) is_gap: bool,
    pub(super) header: u32,
}

/// The line, counted from 1, that we would not have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign(pub usize);

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {} is none of ours", self.0)
    }
}

impl std::error::Error for Foreign {}

/// Reads the media playlist of `track`.
pub(super) fn read(text: &[u8], track: TrackId) -> Result<Reread, Foreign> {
    let text = std::str::from_utf8(text).map_err(|_| Foreign(1))?;
    let mut lines = Lines { rest: text, number: 0 };
    lines.exactly("#EXTM3U")?;
    lines.exactly("#EXT-X-VERSION:6")?;
    let target_duration_s = lines.number("#EXT-X-TARGETDURATION:", LONGEST_S)?;
    // Half the numbers are left for the segments to come.
    let media_sequence = lines.number("#EXT-X-MEDIA-SEQUENCE:", u64::MAX / 2)?;
    let discontinuity_sequence = match lines.take("#EXT-X-DISCONTINUITY-SEQUENCE:") {
        Some(text) => lines.parse(text, u64::MAX / 2)?,
        None => 0,
    };
    let are_segments_independent = lines.take("#EXT-X-INDEPENDENT-SEGMENTS") == Some("");
    let mut date_ranges = Vec::new();
    while let Some(value) = lines.take("#EXT-X-DATERANGE:") {
        date_ranges.push(date_range::Line::read(value).ok_or_else(|| lines.foreign())?);
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut header = None;
    loop {
        if lines.rest.is_empty() || lines.take("#EXT-X-ENDLIST") == Some("") {
            let is_ended = text.ends_with("#EXT-X-ENDLIST\n");
            lines.end()?;
            return Ok(Reread {
                target_duration_s,
                media_sequence,
                discontinuity_sequence,
                are_segments_independent,
                date_ranges,
                entries,
                is_ended,
            });
        }
        let is_discontinuous = lines.take("#EXT-X-DISCONTINUITY") == Some("");
        if let Some(uri) = lines.take("#EXT-X-MAP:URI=\"") {
            header = match uri.strip_suffix('"').and_then(Object::parse) {
                Some(Object::Header(of, number)) if of == track => Some(number),
                _ => return Err(lines.foreign()),
            };
        }
        let time = lines.need("#EXT-X-PROGRAM-DATE-TIME:")?;
        let time = DateTime::parse_from_rfc3339(time).map_err(|_| lines.foreign())?;
        let program_date_time_us = u64::try_from(time.timestamp_micros()).map_err(|_| lines.foreign())?;
        let is_gap = lines.take("#EXT-X-GAP") == Some("");
        let duration = lines.need("#EXTINF:")?;
        let duration_us = micros(duration).ok_or_else(|| lines.foreign())?;
        let number = media_sequence + entries.len() as u64;
        lines.exactly(&Object::Segment(track, number).to_string())?;
        let header = header.ok_or_else(|| lines.foreign())?;
        entries.push(Entry { duration_us, program_date_time_us, is_discontinuous, is_gap, header });
    }
}

/// `2.000000,` in microseconds.
fn micros(text: &str) -> Option<u64> {
    let (seconds, micros) = text.strip_suffix(',')?.split_once('.')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if micros.len() != 6 || !is_number(seconds) || !is_number(micros) {
        return None;
    }
    let seconds: u64 = seconds.parse().ok().filter(|seconds| *seconds <= LONGEST_S)?;
    Some(seconds * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// The lines of a playlist, each with its line feed.
struct Lines<'a> {
    rest: &'a str,
    /// Of the line taken last.
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line behind `start`, if it starts so. A tag without a value is taken only whole.
    fn take(&mut self, start: &str) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        let value = line.strip_prefix(start)?;
        if !value.is_empty() && !start.ends_with([':', '"']) {
            return None;
        }
        self.rest = rest;
        self.number += 1;
        Some(value)
    }

    fn need(&mut self, start: &str) -> Result<&'a str, Foreign> {
        self.take(start).ok_or(Foreign(self.number + 1))
    }

    fn exactly(&mut self, line: &str) -> Result<(), Foreign> {
        self.need(line).and_then(|rest| if rest.is_empty() { Ok(()) } else { Err(self.foreign()) })
    }

    fn number(&mut self, start: &str, most: u64) -> Result<u64, Foreign> {
        let text = self.need(start)?;
        self.parse(text, most)
    }

    fn parse(&self, text: &str, most: u64) -> Result<u64, Foreign> {
        text.parse().ok().filter(|number| *number <= most).ok_or_else(|| self.foreign())
    }

    fn end(&self) -> Result<(), Foreign> {
        if self.rest.is_empty() { Ok(()) } else { Err(Foreign(self.number + 1)) }
    }

    /// The line taken last is not ours.
    fn foreign(&self) -> Foreign {
        Foreign(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n\
         #EXT-X-DISCONTINUITY-SEQUENCE:3\n#EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-MAP:URI=\"audio1-init-4.mp4\"\n\
         #EXT-X-PROGRAM-DATE-TIME:2025-11-22T17:55:00.123Z\n#EXTINF:2.000001,\naudio1-7.mp4\n\
         #EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"audio1-init-5.mp4\"\n\
         #EXT-X-PROGRAM-DATE-TIME:2025-11-22T17:55:02.000Z\n#EXT-X-GAP\n#EXTINF:1.500000,\naudio1-8.mp4\n";
    const AUDIO1: TrackId = TrackId { kind: crate::media::TrackKind::Audio, index: 1 };

    #[test]
    fn a_playlist_of_ours_is_understood() {
        let first = Entry {
            duration_us: 2_000_001,
            program_date_time_us: 1_763_834_100_123_000,
            is_discontinuous: false,
            is_gap: false,
            header: 4,
        };
        let second = Entry {
            duration_us: 1_500_000,
            program_date_time_us: 1_763_834_102_000_000,
            is_discontinuous: true,
            is_gap: true,
            header: 5,
        };
        let expected = Reread {
            target_duration_s: 2,
            media_sequence: 7,
            discontinuity_sequence: 3,
            are_segments_independent: true,
            date_ranges: Vec::new(),
            entries: vec![first, second],
            is_ended: false,
        };
        assert_eq!(read(TEXT.as_bytes(), AUDIO1).as_ref(), Ok(&expected));
        let ended = format!("{TEXT}#EXT-X-ENDLIST\n");
        assert_eq!(read(ended.as_bytes(), AUDIO1), Ok(Reread { is_ended: true, ..expected }));
        assert_eq!(read(TEXT.as_bytes(), TrackId::AUDIO), Err(Foreign(7)));
    }

    #[test]
    fn a_playlist_cut_anywhere_or_with_a_byte_changed_is_refused_or_still_sane() {
        for end in 0..TEXT.len() {
            if let Ok(read) = read(&TEXT.as_bytes()[..end], AUDIO1) {
                assert!(TEXT[..end].ends_with(".mp4\n") || read.entries.is_empty(), "{}", &TEXT[..end]);
            }
        }
        for position in 0..TEXT.len() {
            for byte in [0, b'\n', b'9', b'-', b'"', 0xff] {
                let mut text = TEXT.as_bytes().to_vec();
                text[position] = byte;
                // Whatever it says, it does not fail.
                let _ = read(&text, AUDIO1);
            }
        }
    }

    #[test]
    fn numbers_that_would_overflow_and_lines_of_others_are_refused() {
        for (from, to, line) in [
            ("SEQUENCE:7", "SEQUENCE:18446744073709551615", 4),
            ("DURATION:2", "DURATION:99999999999", 3),
            ("DURATION:2", "DURATION:-2", 3),
            ("2.000001", "99999999.000001", 9),
            ("2.000001", "2.0", 9),
            ("audio1-7.mp4", "audio1-9.mp4", 10),
            ("audio1-7.mp4", "../../../etc/passwd", 10),
            ("audio1-init-4.mp4", "http://example.org/", 7),
            ("#EXT-X-GAP", "#EXT-X-GAPE", 14),
            ("2025-11-22T17:55:00.123Z", "yesterday", 8),
            ("#EXT-X-VERSION:6", "#EXT-X-VERSION:7", 2),
        ] {
            assert_eq!(read(TEXT.replacen(from, to, 1).as_bytes(), AUDIO1), Err(Foreign(line)), "{from} -> {to}");
        }
    }
}
