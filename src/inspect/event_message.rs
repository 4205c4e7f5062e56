//! Timed metadata within a segment: `emsg` (ISO/IEC 23009-1 §5.10.3.3, ISO/IEC 23000-19 §7.4.5).

use super::boxes::{Fields, Mp4Box};

/// What an `emsg` of a segment has to say for players to understand it, or what is wrong with it.
///
/// # Errors
/// Says in words what is wrong.
pub(super) fn check(found: &Mp4Box<'_>, timescale: u32, earliest_presentation_time: Option<u64>) -> Result<(), String> {
    let cut_short = || "an emsg ends too early".to_owned();
    let (version, _, fields) = found.full().ok_or_else(cut_short)?;
    match version {
        // Version 0 counts from the segment's start, and has its texts first.
        0 => text(fields).and_then(text).map(|_| ()).ok_or_else(cut_short),
        1 => {
            let mut fields = fields;
            let (Some(ticks), Some(time)) = (fields.u32(), fields.u64()) else { return Err(cut_short()) };
            fields.take(8).ok_or_else(cut_short)?;
            let scheme_at = fields;
            fields = text(fields).and_then(text).ok_or_else(cut_short)?;
            if ticks != timescale {
                return Err(format!("an emsg counts {ticks} ticks a second, its track {timescale}"));
            }
            if earliest_presentation_time.is_some_and(|earliest| time < earliest) {
                return Err(format!("an emsg for {time} stands in a segment that is shown later"));
            }
            let is_id3 = scheme_at.0.starts_with(b"https://aomedia.org/emsg/ID3\0");
            if is_id3 && !fields.0.starts_with(b"ID3") {
                return Err("an emsg of ID3 holds no ID3 tag".to_owned());
            }
            Ok(())
        }
        version => Err(format!("an emsg has version {version}")),
    }
}

/// What is behind a text that a NUL ends.
fn text(fields: Fields<'_>) -> Option<Fields<'_>> {
    let end = fields.0.iter().position(|&byte| byte == 0)?;
    Some(Fields(&fields.0[end + 1..]))
}
