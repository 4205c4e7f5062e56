//! A broadcast: the renditions of a multivariant playlist, and the rules between them.

use std::collections::{BTreeMap, BTreeSet};

use super::codec::Media;
use super::files::{self, Place};
use super::finding::{Findings, Rule};
use super::multivariant::{Alternative, Multivariant, Variant};
use super::rendition::Rendition;
use super::rendition_rules;
use super::segment::{self, SegmentMedia};
use super::text::{difference, seconds};

/// A broadcast as found.
#[derive(Debug)]
pub(super) struct Broadcast {
    /// The playlist it was found by.
    pub(super) place: Place,
    pub(super) multivariant: Option<Multivariant>,
    pub(super) renditions: Vec<Rendition>,
}

impl Broadcast {
    /// Reads a broadcast from its multivariant playlist.
    pub(super) fn read_multivariant(bytes: &[u8], place: Place, findings: &mut Findings) -> Self {
        let multivariant = Multivariant::read(bytes, &place, findings);
        if multivariant.variants.is_empty() {
            findings.fault(Rule::Multivariant, &place.name(), "has no variant");
        }
        let variants = multivariant.variants.iter().filter_map(|variant| variant.place.as_ref());
        let alternatives = multivariant.alternatives.iter().filter_map(|media| media.place.as_ref());
        let mut places: Vec<&Place> = Vec::new();
        for place in variants.chain(alternatives) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let places: Vec<Place> = places.into_iter().cloned().collect();
        let renditions = places.into_iter().filter_map(|place| Rendition::read_playlist(place, findings)).collect();
        Self { place, multivariant: Some(multivariant), renditions }
    }

    /// Reads one media playlist as a broadcast of one rendition.
    pub(super) fn read_media(place: Place, findings: &mut Findings) -> Self {
        let renditions = Rendition::read_playlist(place.clone(), findings).into_iter().collect();
        Self { place, multivariant: None, renditions }
    }

    /// Reads the media and judges everything.
    pub(super) fn judge(&mut self, findings: &mut Findings) {
        for rendition in &mut self.renditions {
            rendition.read_media(findings);
        }
        let claims_independent_segments = self.multivariant.as_ref().is_some_and(|m| m.claims_independent_segments);
        // A rendition that joined late starts with a later number.
        let has_rolled = self.renditions.iter().all(|rendition| rendition.playlist.media_sequence > 0);
        for rendition in &self.renditions {
            rendition_rules::judge(rendition, claims_independent_segments, has_rolled, findings);
        }
        if let Some((first, others)) = self.renditions.split_first() {
            for other in others {
                compare(first, other, findings);
            }
        }
        if let Some(multivariant) = &self.multivariant {
            for variant in &multivariant.variants {
                self.variant(variant, &multivariant.alternatives, findings);
            }
            for alternative in &multivariant.alternatives {
                self.alternative(alternative, findings);
            }
        }
        self.names_of_renditions(findings);
        self.hidden_files(findings);
    }

    /// Whether all of it is over.
    pub(super) fn has_ended(&self) -> bool {
        self.renditions.iter().all(|rendition| rendition.playlist.has_ended)
    }

    fn rendition(&self, place: Option<&Place>) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| Some(&rendition.place) == place)
    }

    /// Compares what a variant says with what is there.
    fn variant(&self, variant: &Variant, alternatives: &[Alternative], findings: &mut Findings) {
        let place = self.place.name();
        let mut fault = |message: String| {
            findings.fault(Rule::Multivariant, &place, format!("{}: {message}", variant.uri));
        };
        let Some(main) = self.rendition(variant.place.as_ref()) else { return };
        let in_group =
            |media: &&Alternative| variant.audio_group.as_ref() == Some(&media.group) && media.kind == "AUDIO";
        let group: Vec<&Rendition> =
            alternatives.iter().filter(in_group).filter_map(|media| self.rendition(media.place.as_ref())).collect();
        let all = || [main].into_iter().chain(group.iter().copied());

        if let Some(declared) = &variant.codecs {
            for entry in all().flat_map(Rendition::entries).filter(|entry| !entry.codecs.is_empty()) {
                if !entry.codecs.iter().any(|codec| declared.iter().any(|other| other.eq_ignore_ascii_case(codec))) {
                    let declared = declared.join(",");
                    fault(format!("CODECS is '{declared}', the header's sample entry says {}", entry.codec_name()));
                }
            }
            let known: Vec<&String> = all().flat_map(Rendition::entries).flat_map(|entry| &entry.codecs).collect();
            let is_group_read = group.len() == alternatives.iter().filter(in_group).count();
            let is_all_known = is_group_read
                && all().all(|rendition| rendition.headers.iter().all(Option::is_some))
                && all().all(|rendition| !rendition.headers.is_empty())
                && all().flat_map(Rendition::entries).all(|entry| !entry.codecs.is_empty());
            for codec in declared.iter().filter(|_| is_all_known) {
                if !known.iter().any(|other| other.eq_ignore_ascii_case(codec)) {
                    fault(format!("CODECS has '{codec}', no header's sample entry says that"));
                }
            }
        }
        if main.is_video() {
            let sizes: BTreeSet<(u32, u32)> = main.entries().filter_map(|entry| size(&entry.media)).collect();
            match variant.resolution {
                None => fault("no RESOLUTION".to_owned()),
                Some((width, height)) if !sizes.contains(&(width, height)) => {
                    let real: Vec<String> = sizes.iter().map(|(width, height)| format!("{width}x{height}")).collect();
                    fault(format!("RESOLUTION is {width}x{height}, the pictures are {}", real.join(" and ")));
                }
                Some(_) => {}
            }
            match (variant.frame_rate_milli, main.frame_rates_milli()) {
                (None, _) => fault("no FRAME-RATE".to_owned()),
                (Some(declared), Some((average, usual))) => {
                    // Between the two lies what may be said of a rate that varies.
                    let (least, most) = (average.min(usual), average.max(usual));
                    if declared < least * 95 / 100 || declared > most * 105 / 100 {
                        fault(format!("FRAME-RATE is {}, there are {} frames a second", milli(declared), milli(usual)));
                    }
                }
                (Some(_), None) => {}
            }
        }

        // A playable combination is the variant with one rendition of the group.
        let most = |measure: fn(&Rendition) -> Option<u64>| {
            let others = group.iter().filter(|other| other.place != main.place);
            Some(measure(main)?.saturating_add(others.filter_map(|other| measure(other)).max().unwrap_or(0)))
        };
        if main.media.iter().flatten().count() < LEAST_MEASURED_SEGMENTS {
            return;
        }
        // The declared figures of a live broadcast are older than its last segments.
        let slack_percent = if self.has_ended() { 0 } else { LIVE_SLACK_PERCENT };
        let figures = [
            ("BANDWIDTH", variant.bandwidth, most(Rendition::peak_bits), 125),
            ("AVERAGE-BANDWIDTH", variant.average_bandwidth, most(Rendition::average_bits), 110),
        ];
        for (name, declared, measured, percent) in figures {
            if let (Some(declared), Some(measured)) = (declared, measured)
                && measured.saturating_mul(100) > declared.saturating_mul(percent + slack_percent)
            {
                fault(format!("{name} is {declared}, measured {measured}"));
            }
        }
    }

    fn alternative(&self, alternative: &Alternative, findings: &mut Findings) {
        let Some(rendition) = self.rendition(alternative.place.as_ref()) else { return };
        // Of joint object coding it is the number of objects.
        let Some(channels) = alternative.channels.as_ref().filter(|channels| !channels.ends_with("/JOC")) else {
            return;
        };
        let real = rendition.entries().filter_map(|entry| match entry.media {
            Media::Audio { channels, .. } if channels > 0 => Some(channels.to_string()),
            _ => None,
        });
        let real: Vec<String> = real.collect();
        let declared = channels.split('/').next().unwrap_or_default();
        if !real.is_empty() && !real.iter().any(|real| real == declared) {
            let name = self.place.name();
            let message =
                format!("{}: CHANNELS is '{channels}', the header says {}", alternative.name, real.join(", "));
            findings.fault(Rule::Multivariant, &name, message);
        }
    }

    /// A file belongs to one rendition.
    fn names_of_renditions(&self, findings: &mut Findings) {
        let mut owners: BTreeMap<&Place, &Rendition> = BTreeMap::new();
        for rendition in &self.renditions {
            for segment in &rendition.playlist.segments {
                let Some(place) = &segment.place else { continue };
                let owner = owners.entry(place).or_insert(rendition);
                if owner.place != rendition.place && !rendition.playlist.is_opaque {
                    let message = format!("is listed by {} and by {}", owner.name, rendition.name);
                    findings.fault(Rule::MediaSequence, &place.name(), message);
                }
            }
        }
    }

    /// Temporary files must not stay once nobody writes any more.
    fn hidden_files(&self, findings: &mut Findings) {
        if !self.has_ended() {
            return;
        }
        let places = self.renditions.iter().map(|rendition| &rendition.place).chain([&self.place]);
        let folders: BTreeMap<_, _> = places.map(|place| (place.folder(), place)).collect();
        for (folder, place) in folders {
            for name in files::hidden_files(&folder) {
                let message = "a temporary file is left, and the broadcast is over";
                findings.fault(Rule::Torn, &place.sibling(&name), message);
            }
        }
    }
}

/// Compares two renditions of a broadcast (RFC 8216bis §6.2.4).
fn compare(one: &Rendition, other: &Rendition, findings: &mut Findings) {
    let (a, b) = (&one.playlist, &other.playlist);
    let mut fault = |message: String| {
        findings.fault(Rule::Renditions, &other.name, format!("{message} ({} is compared)", one.name));
    };
    if a.target_duration != b.target_duration {
        fault(format!("TARGETDURATION is {}, not {}", b.target_duration, a.target_duration));
    }
    let (Some(a_last), Some(b_last)) = (a.segments.last(), b.segments.last()) else { return };
    if a.media_sequence != b.media_sequence && a.has_ended && b.has_ended {
        let message = format!("starts with segment {}, {} with {}", b.media_sequence, one.name, a.media_sequence);
        findings.note(Rule::Renditions, &other.name, message);
    }
    let mut fault = |message: String| {
        findings.fault(Rule::Renditions, &other.name, format!("{message} ({} is compared)", one.name));
    };
    // The playlists of a live broadcast are written one after the other.
    if !(a.has_ended || b.has_ended) && a_last.number.abs_diff(b_last.number) > 1 {
        fault(format!("ends with segment {}, not {}", b_last.number, a_last.number));
    }

    let theirs: BTreeMap<u64, _> =
        other.segments().map(|(segment, media)| (segment.number, (segment, media))).collect();
    let mut starts_apart = Vec::new();
    let mut has_other_discontinuity = None;
    for (segment, media) in one.segments() {
        let Some((twin, twin_media)) = theirs.get(&segment.number) else { continue };
        if segment.discontinuity_number != twin.discontinuity_number {
            has_other_discontinuity.get_or_insert((segment, *twin));
        }
        if let (Some(media), Some(twin_media)) = (media, twin_media)
            && let (Some(start), Some(twin_start)) = (media.decode_time, twin_media.decode_time)
        {
            let start = segment::micros(start, media.timescale);
            starts_apart.push(difference(segment::micros(twin_start, twin_media.timescale), start));
        }
    }
    if let Some((segment, twin)) = has_other_discontinuity {
        fault(format!(
            "segment {} has discontinuity number {}, not {}",
            segment.number, twin.discontinuity_number, segment.discontinuity_number
        ));
    }
    let usual_segment = a.micros() / (a.segments.len() as u64).max(1);
    if let Some(apart) = median(starts_apart).filter(|apart| apart.unsigned_abs() > usual_segment / 2) {
        fault(format!("segments of the same number start {} apart", seconds(apart)));
    }

    let tolerance = one.frame_micros().max(other.frame_micros()) + DATE_TOLERANCE_MICROS;
    // A date is that of the first sample of a segment: the first decoded or the first seen, says no standard.
    let mappings = |rendition| {
        [
            date_mapping(rendition, SegmentMedia::presentation_time),
            date_mapping(rendition, |media| media.earliest_presentation_time),
        ]
    };
    let ([decoded, seen], [their_decoded, their_seen]) = (mappings(one), mappings(other));
    for (number, offset) in decoded {
        let apart = |mine: Option<&i64>, theirs: Option<&i64>| Some(theirs?.saturating_sub(*mine?));
        let decoded = apart(Some(&offset), their_decoded.get(&number));
        let seen = apart(seen.get(&number), their_seen.get(&number));
        let Some(apart) = decoded.into_iter().chain(seen).min_by_key(|apart| apart.unsigned_abs()) else { continue };
        if apart.unsigned_abs() > tolerance {
            let message = format!("maps dates to media {} differently, discontinuity number {number}", seconds(apart));
            fault(message);
        }
    }

    let (Some(mine), Some(theirs)) = (span(one), span(other)) else { return };
    if mine.1 <= theirs.0 || theirs.1 <= mine.0 {
        fault("no moment of it is in both renditions".to_owned());
    } else if a.has_ended && b.has_ended && mine.1.abs_diff(theirs.1) > a.target_duration.saturating_mul(2_000_000) {
        let apart = seconds(difference(theirs.1, mine.1));
        findings.note(Rule::Renditions, &other.name, format!("its end is {apart} from that of {}", one.name));
    }
}

/// The date of media time 0 for each discontinuity number: what most segments say.
fn date_mapping(rendition: &Rendition, start: fn(&SegmentMedia) -> Option<u64>) -> BTreeMap<u64, i64> {
    let mut offsets: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for (segment, media) in rendition.segments() {
        if let (Some(date), Some(media)) = (segment.date_time, media)
            && let Some(time) = start(media)
        {
            let time = difference(segment::micros(time, media.timescale), 0);
            offsets.entry(segment.discontinuity_number).or_default().push(date.saturating_sub(time));
        }
    }
    offsets.into_iter().filter_map(|(number, offsets)| Some((number, median(offsets)?))).collect()
}

/// When it begins and ends, in microseconds of media time.
fn span(rendition: &Rendition) -> Option<(u64, u64)> {
    let mut times = rendition.media.iter().flatten().filter_map(|media| {
        let (start, end) = (media.decode_time?, media.end_time()?);
        Some((segment::micros(start, media.timescale), segment::micros(end, media.timescale)))
    });
    let first = times.next()?;
    Some(times.fold(first, |(start, end), (s, e)| (start.min(s), end.max(e))))
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// The size of the pictures, as decoded where we can tell.
pub(super) fn size(media: &Media) -> Option<(u32, u32)> {
    match media {
        Media::Video { entry_size, coded_size } => Some(coded_size.unwrap_or(*entry_size)),
        Media::Audio { .. } | Media::Other => None,
    }
}

/// Thousandths with three decimals.
pub(super) fn milli(value: u64) -> String {
    format!("{}.{:03}", value / 1000, value % 1000)
}

/// Dates have milliseconds.
const DATE_TOLERANCE_MICROS: u64 = 5_000;
/// Fewer segments are no measure of a rate.
const LEAST_MEASURED_SEGMENTS: usize = 3;
const LIVE_SLACK_PERCENT: u64 = 15;
