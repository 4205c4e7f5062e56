//! The text of a rolling media playlist. Each segment's lines are rendered once; durations are integer microseconds.

use std::fmt::Write as _;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};

use super::object::Object;

/// What stands before the first segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) target_duration_s: u64,
    pub(super) media_sequence: u64,
    /// RFC 8216bis 4.4.3.3, Apple 8.17: present once there ever was a discontinuity.
    pub(super) discontinuity_sequence: Option<u64>,
    /// RFC 8216bis 4.4.2.1: only while it is true of all segments.
    pub(super) are_segments_independent: bool,
}

/// One segment's lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) segment: Object,
    pub(super) duration_us: u64,
    pub(super) program_date_time_us: u64,
    pub(super) is_discontinuous: bool,
    pub(super) is_gap: bool,
    /// The header where it is not the one of the segment before.
    pub(super) header: Option<Object>,
}

/// The closing line of a playlist to which nothing will be added (RFC 8216bis 4.4.3.4).
pub(super) const ENDLIST: Bytes = Bytes::from_static(b"#EXT-X-ENDLIST\n");

pub(super) fn head(head: Head) -> Bytes {
    // EXT-X-MAP in a playlist that is not I-frames only needs version 6 (RFC 8216bis 8).
    let mut text = String::with_capacity(192);
    let Head { target_duration_s, media_sequence, discontinuity_sequence, are_segments_independent } = head;
    let _ = write!(
        text,
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:{target_duration_s}\n#EXT-X-MEDIA-SEQUENCE:{media_sequence}\n"
    );
    if let Some(sequence) = discontinuity_sequence {
        let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{sequence}");
    }
    if are_segments_independent {
        text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    }
    text.into()
}

pub(super) fn entry(entry: Entry) -> Bytes {
    let Entry { segment, duration_us, program_date_time_us, is_discontinuous, is_gap, header } = entry;
    let mut text = String::with_capacity(160);
    if is_discontinuous {
        text.push_str("#EXT-X-DISCONTINUITY\n");
    }
    if let Some(header) = header {
        push_map(&mut text, header);
    }
    let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{}", date_time(program_date_time_us));
    if is_gap {
        text.push_str("#EXT-X-GAP\n");
    }
    let _ = write!(text, "#EXTINF:{}.{:06},\n{segment}\n", duration_us / 1_000_000, duration_us % 1_000_000);
    text.into()
}

/// The line for a segment whose header is not said yet (RFC 8216bis 4.4.4.5).
pub(super) fn map(header: Object) -> Bytes {
    let mut text = String::with_capacity(48);
    push_map(&mut text, header);
    text.into()
}

/// The name is one of ours: nothing in it needs escaping.
fn push_map(text: &mut String, header: Object) {
    let _ = writeln!(text, "#EXT-X-MAP:URI=\"{header}\"");
}

/// ISO 8601 with milliseconds and zone (RFC 8216bis 4.4.4.6).
pub(super) fn date_time(unix_us: u64) -> String {
    i64::try_from(unix_us)
        .ok()
        .and_then(DateTime::from_timestamp_micros)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::TrackId;

    #[test]
    fn a_segment_has_its_lines_in_order() {
        let text = entry(Entry {
            segment: Object::Segment(TrackId::VIDEO, 7),
            duration_us: 1_999_000,
            program_date_time_us: 1_763_834_098_123_456,
            is_discontinuous: true,
            is_gap: false,
            header: Some(Object::Header(TrackId::VIDEO, 1)),
        });
        assert_eq!(
            text,
            "#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"video-init-1.mp4\"\n\
             #EXT-X-PROGRAM-DATE-TIME:2025-11-22T17:54:58.123Z\n#EXTINF:1.999000,\nvideo-7.mp4\n"
        );
    }

    #[test]
    fn times_beyond_the_calendar_do_not_fail() {
        assert_eq!(date_time(u64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
