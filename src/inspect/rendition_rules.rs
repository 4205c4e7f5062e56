//! The rules that one rendition must keep, whatever the others do.

use std::collections::HashSet;

use super::finding::{Findings, Rule};
use super::playlist::Segment;
use super::rendition::Rendition;
use super::segment::{self, SegmentMedia};
use super::text::{difference, seconds};

/// Judges a rendition. `claims_independent_segments`: the multivariant playlist claims it for all. `has_rolled`: segments
/// have been removed from the broadcast's playlists.
pub(super) fn judge(
    rendition: &Rendition,
    claims_independent_segments: bool,
    has_rolled: bool,
    findings: &mut Findings,
) {
    let mut judge = Judge { rendition, name: &rendition.name, findings };
    judge.kind_of_playlist();
    if has_rolled && !rendition.playlist.has_ended {
        judge.window();
    }
    judge.maps();
    judge.names();
    judge.durations();
    judge.decode_times();
    judge.dates();
    if claims_independent_segments || rendition.playlist.claims_independent_segments {
        judge.independence();
    }
}

struct Judge<'a, 'b> {
    rendition: &'a Rendition,
    name: &'a str,
    findings: &'b mut Findings,
}

impl<'a> Judge<'a, '_> {
    fn kind_of_playlist(&mut self) {
        let playlist = &self.rendition.playlist;
        let problem = match playlist.playlist_type.as_deref() {
            None => None,
            Some("VOD") if !playlist.has_ended => Some("EXT-X-PLAYLIST-TYPE is VOD without EXT-X-ENDLIST"),
            Some("EVENT") if !playlist.has_ended && playlist.media_sequence > 0 => {
                Some("EXT-X-PLAYLIST-TYPE is EVENT, and segments have been removed")
            }
            Some("VOD" | "EVENT") => None,
            Some(_) => Some("EXT-X-PLAYLIST-TYPE is neither EVENT nor VOD"),
        };
        if let Some(problem) = problem {
            self.fault(Rule::End, problem);
        }
        let has_discontinuity = playlist.segments.iter().any(|segment| segment.is_discontinuity);
        if has_discontinuity && playlist.discontinuity_sequence.is_none() {
            self.fault(Rule::DiscontinuitySequence, "has a discontinuity and no EXT-X-DISCONTINUITY-SEQUENCE");
        }
    }

    /// A window is too small only once something was removed.
    fn window(&mut self) {
        let playlist = &self.rendition.playlist;
        let least = playlist.target_duration.saturating_mul(3_000_000);
        if playlist.micros() < least {
            let (has, least) = (seconds(difference(playlist.micros(), 0)), seconds(difference(least, 0)));
            self.fault(Rule::Window, format!("lists {has}, three times the target duration is {least}"));
        } else if playlist.segments.len() < LEAST_SEGMENTS {
            let message = format!("lists {} segments, Apple wants {LEAST_SEGMENTS}", playlist.segments.len());
            self.findings.note(Rule::Window, self.name, message);
        }
    }

    fn maps(&mut self) {
        let segments = &self.rendition.playlist.segments;
        let bare = segments.iter().filter(|segment| segment.map.is_none() && !segment.is_gap).count();
        if bare > 0 {
            self.fault(Rule::Map, format!("{bare} segments have no EXT-X-MAP before them"));
        }
        for pair in segments.windows(2) {
            let header = |segment: &Segment| self.rendition.headers.get(segment.map?)?.as_ref();
            if let (Some(before), Some(after)) = (header(&pair[0]), header(&pair[1]))
                && before.bytes != after.bytes
                && !pair[1].is_discontinuity
            {
                let place = self.rendition.segment_name(&pair[1]);
                let message = "has another header than the segment before, and no EXT-X-DISCONTINUITY";
                self.findings.fault(Rule::Discontinuity, &place, message);
            }
        }
    }

    fn names(&mut self) {
        let mut seen = HashSet::new();
        for segment in &self.rendition.playlist.segments {
            if !seen.insert(&segment.uri) && !self.rendition.playlist.is_opaque {
                self.fault(Rule::MediaSequence, format!("{} is listed twice", segment.uri));
            }
        }
    }

    fn durations(&mut self) {
        let target = self.rendition.playlist.target_duration;
        let frame = self.rendition.frame_micros() + ROUNDING_MICROS;
        let (mut listed, mut real) = (0u64, 0u64);
        for (segment, media) in self.rendition.segments() {
            let place = self.rendition.segment_name(segment);
            let extinf = segment.extinf_micros;
            if extinf.saturating_add(500_000) / 1_000_000 > target {
                let lasts = seconds(difference(extinf, 0));
                self.findings.fault(Rule::TargetDuration, &place, format!("lasts {lasts}, TARGETDURATION is {target}"));
            }
            let Some(media) = media else { continue };
            if extinf.abs_diff(media.micros()) > frame {
                let (says, has) = (seconds(difference(extinf, 0)), seconds(difference(media.micros(), 0)));
                self.findings.fault(Rule::SegmentDuration, &place, format!("lasts {has}, EXTINF says {says}"));
            } else {
                listed = listed.saturating_add(extinf);
                real = real.saturating_add(media.micros());
            }
        }
        // Each may be a little off, but not all in the same direction.
        if listed.abs_diff(real) > frame {
            let off = seconds(difference(listed, real));
            self.fault(Rule::SegmentDuration, format!("the EXTINF of all segments are {off} off the media"));
        }
    }

    fn decode_times(&mut self) {
        let frame = self.rendition.frame_micros() + ROUNDING_MICROS;
        let mut before: Option<Before<'a>> = None;
        for (segment, media) in self.rendition.segments() {
            let Some((media, decode_time)) = media.and_then(|media| Some((media, media.decode_time?))) else {
                // A gap, or something that could not be read: the listed duration has to do.
                if segment.is_discontinuity {
                    before = None;
                }
                if let Some(before) = &mut before {
                    before.unread_micros = before.unread_micros.saturating_add(segment.extinf_micros);
                    before.is_across_gap |= segment.is_gap;
                }
                continue;
            };
            if let Some(Before { media: last, unread_micros, is_across_gap }) = &before
                && let Some(end) = last.end_time()
                && last.timescale == media.timescale
            {
                let place = self.rendition.segment_name(segment);
                let jump = difference(decode_time, end);
                if segment.is_discontinuity {
                    if jump < 0 {
                        let message = "its decode time is before the end of what stands before the discontinuity";
                        self.findings.note(Rule::DecodeTime, &place, message);
                    }
                } else if *unread_micros == 0 && jump != 0 {
                    let off = seconds(ticks_to_micros(jump, media.timescale));
                    let message = format!("tfdt is {decode_time}, the segment before ends at {end} ({off} off)");
                    self.findings.fault(Rule::DecodeTime, &place, message);
                } else {
                    let jump = ticks_to_micros(jump, media.timescale);
                    let off = jump.saturating_sub(difference(*unread_micros, 0));
                    if off.unsigned_abs() > frame {
                        let rule = if *is_across_gap { Rule::Gap } else { Rule::DecodeTime };
                        let (jump, listed) = (seconds(jump), seconds(difference(*unread_micros, 0)));
                        let message = format!("tfdt is {jump} on, what is listed in between lasts {listed}");
                        self.findings.fault(rule, &place, message);
                    }
                }
                if let (Some((_, last)), Some((first, _))) = (last.sequence_numbers, media.sequence_numbers)
                    && first <= last
                    && !segment.is_discontinuity
                {
                    let message = format!("starts with fragment {first}, the segment before ends with {last}");
                    self.findings.note(Rule::Fragment, &place, message);
                }
            }
            before = Some(Before { media, unread_micros: 0, is_across_gap: false });
        }
    }

    fn dates(&mut self) {
        let playlist = &self.rendition.playlist;
        let is_dated = playlist.segments.iter().any(|segment| segment.date_time.is_some());
        if !is_dated {
            if playlist.has_ended || playlist.segments.is_empty() {
                self.findings.note(Rule::ProgramDateTime, self.name, "no EXT-X-PROGRAM-DATE-TIME");
            } else {
                self.fault(Rule::ProgramDateTime, "no EXT-X-PROGRAM-DATE-TIME in a live playlist");
            }
            return;
        }
        let tolerance = self.rendition.frame_micros() + DATE_TOLERANCE_MICROS;
        // The segment before, and the date at which it ends.
        let mut before: Option<(i64, Option<&SegmentMedia>)> = None;
        for (number, (segment, media)) in self.rendition.segments().enumerate() {
            let place = self.rendition.segment_name(segment);
            if segment.date_time.is_none() && (number == 0 || segment.is_discontinuity) {
                let why = if number == 0 { "the first segment" } else { "after a discontinuity" };
                self.findings.fault(Rule::ProgramDateTime, &place, format!("no EXT-X-PROGRAM-DATE-TIME, {why}"));
            }
            if segment.is_discontinuity {
                before = None;
            }
            if let (Some((end, last)), Some(date)) = (before, segment.date_time) {
                let off = date.saturating_sub(end);
                // The date may be that of the first sample's presentation, which B pictures move.
                let moved = last.zip(media).map_or(0, |(last, media)| presentation_moves(last, media));
                if off.unsigned_abs().min(off.saturating_sub(moved).unsigned_abs()) > tolerance {
                    let message =
                        format!("EXT-X-PROGRAM-DATE-TIME is {} off the end of the segment before", seconds(off));
                    self.findings.fault(Rule::ProgramDateTime, &place, message);
                }
            }
            let micros = difference(media.map_or(segment.extinf_micros, SegmentMedia::micros), 0);
            let start = segment.date_time.or_else(|| before.map(|(end, _)| end));
            before = start.map(|start| (start.saturating_add(micros), media));
        }
    }

    fn independence(&mut self) {
        for (segment, media) in self.rendition.segments() {
            if media.is_some_and(|media| !media.starts_with_sync) {
                let place = self.rendition.segment_name(segment);
                let message = "does not start with a sync sample, EXT-X-INDEPENDENT-SEGMENTS is claimed";
                self.findings.fault(Rule::SyncSample, &place, message);
            }
        }
    }

    fn fault(&mut self, rule: Rule, message: impl Into<String>) {
        self.findings.fault(rule, self.name, message);
    }
}

/// The last segment that was read, and what is listed after it.
struct Before<'a> {
    media: &'a SegmentMedia,
    unread_micros: u64,
    is_across_gap: bool,
}

/// By how much the composition offset of the first sample differs, in microseconds.
fn presentation_moves(last: &SegmentMedia, media: &SegmentMedia) -> i64 {
    let offset = |media: &SegmentMedia| ticks_to_micros(media.composition_offset, media.timescale);
    offset(media).saturating_sub(offset(last))
}

fn ticks_to_micros(ticks: i64, timescale: u32) -> i64 {
    let micros = difference(segment::micros(ticks.unsigned_abs(), timescale), 0);
    if ticks < 0 { -micros } else { micros }
}

/// What six decimals and one division may lose.
const ROUNDING_MICROS: u64 = 1_000;
/// Dates have milliseconds.
const DATE_TOLERANCE_MICROS: u64 = 5_000;
/// A 8.11.
const LEAST_SEGMENTS: usize = 6;
