//! Date ranges: cue points and splices of a broadcast, in the words of `EXT-X-DATERANGE` (RFC 8216bis §4.4.5.1).
//!
//! What was received stands in them only as numbers and hexadecimal digits.

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::Bytes;
use chrono::DateTime;

use super::render::date_time;
use crate::media::EventBody;
use crate::scte35::{Section, Splice};

/// The most lines that a playlist holds; the oldest go first.
const MOST_LINES: usize = 64;

/// The longest break that is believed, in microseconds: a day.
const LONGEST_BREAK_US: u64 = 86_400_000_000;

/// The longest line that is read back, in bytes.
const LONGEST_LINE_BYTES: usize = 4096;

/// The lines that all playlists of a broadcast have, oldest first.
#[derive(Debug, Default)]
pub(super) struct DateRanges {
    lines: VecDeque<Line>,
    /// Tells apart what happens within a millisecond.
    count: u32,
}

/// One `EXT-X-DATERANGE`. Times are in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    text: Bytes,
    start_us: u64,
    /// When it no longer says anything of the presentation.
    end_us: u64,
    /// It is a way out, and this is its event's number; the way back has not come.
    open: Option<u32>,
}

impl DateRanges {
    /// Those that a former process wrote.
    pub(super) fn resume(lines: impl IntoIterator<Item = Line>) -> Self {
        let mut ranges = Self::default();
        for line in lines.into_iter().take(MOST_LINES) {
            // The way back closes the way out.
            let closed = ranges.lines.iter_mut().filter(|other| id_of(&other.text) == id_of(&line.text));
            closed.for_each(|other| (other.open, other.end_us) = (None, line.end_us));
            ranges.lines.push_back(line);
        }
        ranges
    }

    /// Adds what happens at `unix_us`.
    pub(super) fn push(&mut self, unix_us: u64, body: &EventBody) {
        let line = match body {
            EventBody::Id3(_) => return,
            EventBody::CuePoint(json) => self.cue_point(unix_us, json),
            EventBody::Splice(section) => self.splice(unix_us, section),
        };
        self.count += 1;
        if self.lines.len() == MOST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Forgets what was over before `unix_us` (RFC 8216bis §6.2.1).
    pub(super) fn forget_before(&mut self, unix_us: u64) {
        self.lines.retain(|line| line.end_us >= unix_us);
    }

    /// The text of the lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = Bytes> {
        self.lines.iter().map(|line| line.text.clone())
    }

    fn cue_point(&self, start_us: u64, json: &str) -> Line {
        let mut text = format!(
            "#EXT-X-DATERANGE:ID=\"cue-{}-{}\",CLASS=\"upscope.cue-point\",START-DATE=\"{}\",X-UPSCOPE-CUE-POINT=0x",
            start_us / 1000,
            self.count,
            date_time(start_us)
        );
        for byte in json.bytes() {
            let _ = write!(text, "{byte:02X}");
        }
        text.push('\n');
        Line { text: text.into(), start_us, end_us: start_us, open: None }
    }

    /// §4.4.5.1.1.
    fn splice(&mut self, unix_us: u64, section: &Section) -> Line {
        let event_id = section.event_id();
        let is_way_out = |line: &&mut Line| line.open == Some(event_id);
        let way_out = match section.splice() {
            // The way back has the ID and the start of the way out.
            Splice::In => self.lines.iter_mut().rev().find(is_way_out),
            Splice::Out { .. } | Splice::Other => None,
        };
        let (start_us, id) = match way_out {
            Some(line) => {
                line.open = None;
                line.end_us = unix_us.max(line.start_us);
                (line.start_us, id_of(&line.text).to_owned())
            }
            None => (unix_us, format!("splice-{event_id}-{}-{}", unix_us / 1000, self.count)),
        };
        let mut text = format!("#EXT-X-DATERANGE:ID=\"{id}\",START-DATE=\"{}\"", date_time(start_us));
        let (mut end_us, mut open, mut attribute) = (unix_us, None, "SCTE35-CMD");
        match section.splice() {
            Splice::Out { duration_us } => {
                (attribute, open) = ("SCTE35-OUT", Some(event_id));
                end_us += duration_us.unwrap_or(LONGEST_BREAK_US).min(LONGEST_BREAK_US);
                if let Some(planned_us) = duration_us {
                    let _ = write!(text, ",PLANNED-DURATION={}", seconds(planned_us));
                }
            }
            Splice::In => {
                attribute = "SCTE35-IN";
                let _ = write!(text, ",DURATION={}", seconds(unix_us.saturating_sub(start_us)));
            }
            Splice::Other => {}
        }
        let _ = write!(text, ",{attribute}=0x");
        for byte in section.bytes() {
            let _ = write!(text, "{byte:02X}");
        }
        text.push('\n');
        Line { text: text.into(), start_us, end_us, open }
    }
}

impl Line {
    /// Reads a line of ours back: what follows `#EXT-X-DATERANGE:`, without its end. `None` when it is none of ours.
    pub(super) fn read(value: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"\"-,=.:".contains(&byte);
        if value.len() > LONGEST_LINE_BYTES || !value.bytes().all(is_plain) {
            return None;
        }
        let (id, rest) = value.strip_prefix("ID=\"")?.split_once("\",")?;
        let rest = rest.strip_prefix("CLASS=\"upscope.cue-point\",").unwrap_or(rest);
        let (date, rest) = rest.strip_prefix("START-DATE=\"")?.split_once("\",")?;
        let start_us = u64::try_from(DateTime::parse_from_rfc3339(date).ok()?.timestamp_micros()).ok()?;
        let (name, digits) = rest.rsplit_once(',').map_or(rest, |(_, last)| last).split_once("=0x")?;
        let kinds = ["X-UPSCOPE-CUE-POINT", "SCTE35-OUT", "SCTE35-IN", "SCTE35-CMD"];
        if !kinds.contains(&name) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let given_us = |name: &str| {
            let (_, value) = rest.split_once(name)?;
            let (seconds, millis) = value.split_once(',')?.0.split_once('.')?;
            Some(seconds.parse::<u64>().ok()?.min(86_400) * 1_000_000 + millis.parse::<u64>().ok()?.min(999) * 1000)
        };
        let (end_us, open) = match name {
            "SCTE35-OUT" => {
                let event_id = id.strip_prefix("splice-")?.split_once('-')?.0.parse().ok()?;
                (start_us + given_us("PLANNED-DURATION=").unwrap_or(LONGEST_BREAK_US), Some(event_id))
            }
            _ => (start_us + given_us("DURATION=").unwrap_or(0), None),
        };
        let text = Bytes::from(format!("#EXT-X-DATERANGE:{value}\n"));
        Some(Self { text, start_us, end_us, open })
    }
}

/// The ID in a line of ours.
fn id_of(text: &[u8]) -> &str {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.split('"').nth(1).unwrap_or_default()
}

/// Seconds with three decimals.
fn seconds(micros: u64) -> String {
    let millis = micros / 1000;
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SCTE 35 §14.2: out for 60.3 s.
    const OUT: &str = "/DAvAAAAAAAA///wFAVIAACPf+/+c2nALv4AUsz1AAAAAAAKAAhDVUVJAAABNWLbowo=";
    /// The same event, back, with a checksum of its own.
    const BACK: &str = "0xFC301B00000000000000FFF00A054800008F7F5F000000000000778F36F3";
    const NOON_US: u64 = 1_763_812_800_000_000;

    fn text(ranges: &DateRanges) -> String {
        String::from_utf8(ranges.lines().collect::<Vec<_>>().concat()).unwrap()
    }

    fn splice(text: &str) -> EventBody {
        EventBody::Splice(Section::parse_text(text).unwrap())
    }

    #[test]
    fn a_cue_point_is_digits_only() {
        let mut ranges = DateRanges::default();
        ranges.push(NOON_US, &EventBody::CuePoint("{\"a\"}\n".to_owned()));
        let expected = "#EXT-X-DATERANGE:ID=\"cue-1763812800000-0\",CLASS=\"upscope.cue-point\",\
            START-DATE=\"2025-11-22T12:00:00.000Z\",X-UPSCOPE-CUE-POINT=0x7B2261227D0A\n";
        assert_eq!(text(&ranges), expected);
    }

    #[test]
    fn the_way_back_has_the_id_of_the_way_out() {
        let mut ranges = DateRanges::default();
        ranges.push(NOON_US, &splice(OUT));
        ranges.push(NOON_US + 30_500_000, &splice(BACK));
        let text = text(&ranges);
        let lines: Vec<_> = text.lines().collect();
        let start = "#EXT-X-DATERANGE:ID=\"splice-1207959695-1763812800000-0\",START-DATE=\"2025-11-22T12:00:00.000Z\"";
        assert!(lines[0].starts_with(&format!("{start},PLANNED-DURATION=60.293,SCTE35-OUT=0xFC302F")), "{text}");
        assert!(lines[1].starts_with(&format!("{start},DURATION=30.500,SCTE35-IN=0xFC301B")), "{text}");
        // Both are over with the way back.
        ranges.forget_before(NOON_US + 30_500_000);
        assert_eq!(ranges.lines.len(), 2);
        ranges.forget_before(NOON_US + 30_500_001);
        assert_eq!(ranges.lines.len(), 0);
    }

    #[test]
    fn lines_are_read_back_as_they_were_written() {
        let mut ranges = DateRanges::default();
        ranges.push(NOON_US, &EventBody::CuePoint("{}".to_owned()));
        ranges.push(NOON_US + 1_000_000, &splice(OUT));
        let read = |line: Bytes| {
            let text = std::str::from_utf8(&line).unwrap();
            Line::read(text.strip_prefix("#EXT-X-DATERANGE:").unwrap().trim_end()).unwrap()
        };
        let mut again = DateRanges::resume(ranges.lines().map(read));
        assert_eq!(text(&again), text(&ranges));
        // The way back is found after a restart.
        again.push(NOON_US + 5_000_000, &splice(BACK));
        assert!(text(&again).contains("START-DATE=\"2025-11-22T12:00:01.000Z\",DURATION=4.000,SCTE35-IN"));
        for foreign in ["", "ID=\"a\"", "ID=\"cue-1-0\",START-DATE=\"yesterday\",SCTE35-CMD=0x00", "ID=\"a\",X=\"<b>\""]
        {
            assert_eq!(Line::read(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn there_are_never_too_many() {
        let mut ranges = DateRanges::default();
        for second in 0..1000 {
            ranges.push(NOON_US + second * 1_000_000, &splice(OUT));
        }
        assert_eq!(ranges.lines.len(), MOST_LINES);
    }
}
