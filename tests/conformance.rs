//! The rules of HLS that can be seen in files, held against the output of every case of the corpus.
//!
//! `B` is draft-pantos-hls-rfc8216bis-22, `A` the HLS Authoring Specification for Apple Devices. Other people's parsers read
//! the output; `upscope inspect` has to be content with it, too.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::mp4::Header;
use common::output::{Output, Rendition, Segment, seconds};
use common::run::Run;
use common::server::inspect;
use mp4_atom::{DrefEntry, StszSamples};

/// A rounding of a listed duration, in seconds.
const ROUNDING_S: f64 = 0.001;

/// How far EXT-X-PROGRAM-DATE-TIME may drift from the media, in milliseconds.
const DATE_MS: f64 = 5.0;

tests_of_the_corpus!(check);

/// Plays a case and holds its output against the rules.
fn check(id: &str) {
    let run = Run::of(id);
    let mut findings = Vec::new();
    for (stream, output) in run.outputs(&mut findings) {
        let mut about_stream = Vec::new();
        for rendition in output.renditions() {
            for (uri, header) in &rendition.headers {
                header_rules(header, &mut |what| about_stream.push(format!("{uri}: {what}")));
            }
            let mut report = |what| about_stream.push(format!("{}: {what}", rendition.uri));
            playlist_rules(rendition, &mut report);
            segment_rules(rendition, &mut report);
            date_rules(rendition, &mut report);
        }
        rendition_rules(&output, &mut |what| about_stream.push(what));
        multivariant_rules(&output, &mut |what| about_stream.push(format!("index.m3u8: {what}")));
        about_stream.extend(inspect(&run.folder(stream)).err());
        findings.extend(about_stream.into_iter().map(|finding| format!("{}: {finding}", stream.name)));
    }
    run.conclude(&findings);
}

/// B 3.1.2: `ftyp`, then `moov` with `mvex`, no samples, no duration.
fn header_rules(header: &Header, report: &mut impl FnMut(String)) {
    if header.boxes != ["ftyp", "moov"] {
        report(format!("B 3.1.2: boxes {:?} instead of ftyp, moov", header.boxes));
    }
    let brands = header.ftyp.compatible_brands.iter().chain([&header.ftyp.major_brand]).map(ToString::to_string);
    let is_recent =
        |brand: &String| matches!(brand.as_str(), "iso6" | "iso7" | "iso8" | "iso9" | "isoa" | "isob" | "isoc");
    if !brands.clone().any(|brand| is_recent(&brand) || brand.starts_with("cmf")) {
        report(format!("B 3.1.2: no brand from iso6 on in {:?}", brands.collect::<Vec<_>>()));
    }
    let moov = &header.moov;
    if moov.mvex.is_none() {
        report("B 3.1.2: no mvex".into());
    }
    for trak in &moov.trak {
        let table = &trak.mdia.minf.stbl;
        let has_sizes = match &table.stsz.samples {
            StszSamples::Identical { count, .. } => *count > 0,
            StszSamples::Different { sizes } => !sizes.is_empty(),
        };
        let has_chunks = table.stco.as_ref().is_some_and(|stco| !stco.entries.is_empty());
        if has_sizes || has_chunks || !table.stts.entries.is_empty() || !table.stsc.entries.is_empty() {
            report("B 3.1.2: sample tables that are not empty".into());
        }
        if moov.mvhd.duration != 0 || trak.tkhd.duration != 0 {
            report("B 3.1.2: a duration in mvhd or tkhd".into());
        }
        let is_external = |entry: &DrefEntry| !matches!(entry, DrefEntry::Url(url) if url.location.is_empty());
        if trak.mdia.minf.dinf.dref.entries.iter().any(is_external) {
            report("B 3.1.2: an external data reference".into());
        }
    }
    // A 1.10
    if matches!(header.track.entry.as_str(), "avc3" | "hev1") {
        report(format!("A 1.10: sample entry {}", header.track.entry));
    }
}

/// What a media playlist says of itself.
fn playlist_rules(rendition: &Rendition, report: &mut impl FnMut(String)) {
    let playlist = &rendition.playlist;
    let needed = if playlist.entries.iter().any(|entry| entry.is_gap) { 8 } else { 7 };
    match playlist.versions.as_slice() {
        [version] if (6..=needed).contains(version) => {}
        versions => report(format!("B 4.4.1.2: EXT-X-VERSION {versions:?} instead of one of 6 to {needed}")),
    }
    let &[target_s] = playlist.target_duration_s.as_slice() else {
        return report(format!("B 4.4.3.1: {} EXT-X-TARGETDURATION", playlist.target_duration_s.len()));
    };
    let target_s = seconds(i64::try_from(target_s).unwrap(), 1);
    for entry in &playlist.entries {
        if entry.duration_s <= 0.0 {
            report(format!("B 4.4.4.1: {} lasts {} s", entry.uri, entry.duration_s));
        }
        if entry.duration_s.round() > target_s || entry.duration_s > target_s + 0.5 {
            report(format!("B 4.4.3.1: {} lasts {} s, target {target_s} s", entry.uri, entry.duration_s));
        }
    }
    if playlist.discontinuities() > 0 && playlist.discontinuity_sequence.is_none() {
        report("A 8.17: a discontinuity, and no EXT-X-DISCONTINUITY-SEQUENCE".into());
    }
    if !matches!(playlist.playlist_type.as_deref(), None | Some("VOD")) {
        report(format!("B 6.2.2: EXT-X-PLAYLIST-TYPE {:?} of a rolling playlist", playlist.playlist_type));
    }
    let mut names = BTreeSet::new();
    for entry in &playlist.entries {
        if !names.insert(&entry.uri) {
            report(format!("{} is listed twice", entry.uri));
        }
    }
    // B 4.4.4.7
    for segment in rendition.segments.iter().filter(|segment| segment.entry.is_gap && segment.path.exists()) {
        report(format!("B 4.4.4.7: {} is a gap, and there", segment.entry.uri));
    }
}

/// What the segments hold, and how they follow each other.
fn segment_rules(rendition: &Rendition, report: &mut impl FnMut(String)) {
    let mut last: Option<(&Segment, u64)> = None;
    let mut last_sequence_number = None;
    let mut off_s = 0.0;
    for segment in rendition.segments.iter().filter(|segment| !segment.entry.is_gap) {
        let uri = &segment.entry.uri;
        let header = segment.header.as_ref().expect("a segment has a header");
        let (Some(first), Some(end)) = (segment.media.samples.first(), segment.media.samples.last()) else {
            report(format!("{uri} has no samples"));
            continue;
        };

        // A 7.4
        if !first.is_sync && (rendition.playlist.claims_independent_segments || last.is_none()) {
            report(format!("A 7.4: {uri} does not begin with a sync sample"));
        }
        // A 7.3
        let mut expected = match last {
            Some((_, end)) if !segment.entry.has_discontinuity => end,
            _ => first.decode_time,
        };
        for (index, sample) in segment.media.samples.iter().enumerate() {
            if sample.decode_time != expected {
                report(format!("A 7.3: {uri} sample {index} decodes at {}, not {expected}", sample.decode_time));
                break;
            }
            if sample.duration == 0 {
                report(format!("{uri} sample {index} lasts 0"));
            }
            expected = sample.decode_time + u64::from(sample.duration);
        }
        for moof in &segment.media.moofs {
            let number = moof.mfhd.sequence_number;
            if last_sequence_number.is_some_and(|last| number <= last) && !segment.entry.has_discontinuity {
                report(format!("{uri} has moof {number} after moof {last_sequence_number:?}"));
            }
            last_sequence_number = Some(number);
        }
        let odd = segment
            .media
            .boxes
            .iter()
            .find(|kind| !matches!(kind.as_str(), "styp" | "prft" | "emsg" | "moof" | "mdat"));
        if let Some(kind) = odd {
            report(format!("{uri} has a box {kind}"));
        }
        // A 8.1
        let (listed_s, media_s) = (segment.entry.duration_s, segment.media_s());
        off_s += listed_s - media_s;
        if (listed_s - media_s).abs() > ROUNDING_S || off_s.abs() > seconds(end.duration.into(), header.track.timescale)
        {
            report(format!("A 8.1: {uri} is listed with {listed_s} s and has {media_s} s"));
        }
        // B 4.4.4.3
        if let Some((before, _)) = last {
            let changes = before.header.as_ref().is_some_and(|before| before.track != header.track);
            if changes && !segment.entry.has_discontinuity {
                report(format!("B 4.4.4.3: {uri} has another track, and no EXT-X-DISCONTINUITY"));
            }
        }
        last = Some((segment, expected));
    }
}

/// EXT-X-PROGRAM-DATE-TIME: at the start and after each discontinuity, with milliseconds and zone.
fn date_rules(rendition: &Rendition, report: &mut impl FnMut(String)) {
    for (index, entry) in rendition.playlist.entries.iter().enumerate() {
        let uri = &entry.uri;
        if entry.unix_ms.is_none() && (index == 0 || entry.has_discontinuity) {
            report(format!("B 4.4.4.6: {uri} has no EXT-X-PROGRAM-DATE-TIME"));
        }
        if let Some(date) = &entry.program_date_time {
            let time = date.split_once('T').map_or("", |(_, time)| time);
            let has_zone = time.ends_with('Z') || time.contains(['+', '-']);
            let fraction = time.split_once('.').map_or("", |(_, fraction)| fraction);
            if !has_zone || fraction.bytes().take_while(u8::is_ascii_digit).count() < 3 {
                report(format!("B 4.4.4.6: {uri} is dated {date}, without milliseconds or zone"));
            }
        }
    }
}

/// B 6.2.4: what has to be the same in all renditions.
fn rendition_rules(output: &Output, report: &mut impl FnMut(String)) {
    let renditions: Vec<&Rendition> = output.renditions().collect();
    let Some((first, others)) = renditions.split_first() else { return };
    for other in others {
        let (one, two) = (&first.playlist, &other.playlist);
        let uris = format!("{} and {}", first.uri, other.uri);
        if one.target_duration_s != two.target_duration_s {
            report(format!(
                "B 6.2.4: {uris} have different target durations, {:?} and {:?}",
                one.target_duration_s, two.target_duration_s
            ));
        }
        let (places, other_places) = (discontinuity_numbers(first), discontinuity_numbers(other));
        // One that is over may end before the others, where its media ends.
        let is_over = one.has_end && two.has_end;
        if !is_over && places.keys().last() != other_places.keys().last() {
            report(format!("{uris} do not end with the same media sequence number"));
        }
        let differing =
            places.iter().find(|(number, count)| other_places.get(number).is_some_and(|other| other != *count));
        if let Some((number, count)) = differing {
            let other = other_places[number];
            report(format!("B 6.2.4: {uris}: segment {number} has discontinuity sequence number {count} and {other}"));
        }
    }
    for segments in dated_segments(&renditions).values() {
        let (latest, anchor) = segments
            .iter()
            .map(|dated| (dated.uri, dated.least_ms))
            .max_by(|one, two| one.1.total_cmp(&two.1))
            .unwrap();
        let early: Vec<_> = segments.iter().filter(|dated| dated.most_ms < anchor - DATE_MS).collect();
        if let Some(first) = early.first() {
            let (off, uris) = (anchor - first.most_ms, early.iter().map(|dated| dated.uri).collect::<Vec<_>>());
            report(format!("B 6.2.4: {latest} is dated {off:.1} ms too late, or too early {}", uris.join(", ")));
        }
    }
}

/// The discontinuity sequence number of each segment, by media sequence number.
fn discontinuity_numbers(rendition: &Rendition) -> BTreeMap<u64, u64> {
    let playlist = &rendition.playlist;
    let mut discontinuities = playlist.discontinuity_sequence.unwrap_or(0);
    (playlist.media_sequence..)
        .zip(&playlist.entries)
        .map(|(number, entry)| {
            discontinuities += u64::from(entry.has_discontinuity);
            (number, discontinuities)
        })
        .collect()
}

/// The date at which a segment puts presentation time 0, in milliseconds: from its first sample in decode order, and from
/// the first one shown. Pictures that lead a key frame make the two differ, and either may be meant (B 4.4.4.6).
struct Dated<'a> {
    uri: &'a str,
    least_ms: f64,
    most_ms: f64,
}

/// The dated segments of all renditions, by discontinuity sequence number.
fn dated_segments<'a>(renditions: &[&'a Rendition]) -> BTreeMap<u64, Vec<Dated<'a>>> {
    let mut dated: BTreeMap<u64, Vec<Dated<'a>>> = BTreeMap::new();
    for rendition in renditions {
        for (segment, period) in rendition.segments.iter().zip(discontinuity_numbers(rendition).values()) {
            let times = segment.media.samples.iter().map(|sample| sample.presentation_time());
            let (Some(ms), Some(header)) = (segment.entry.unix_ms, &segment.header) else { continue };
            let (Some(decoded_first), Some(shown_first)) = (times.clone().next(), times.min()) else { continue };
            let origin_ms = |ticks| (seconds(ms, 1000) - seconds(ticks, header.track.timescale)) * 1000.0;
            dated.entry(*period).or_default().push(Dated {
                uri: &segment.entry.uri,
                least_ms: origin_ms(decoded_first),
                most_ms: origin_ms(shown_first),
            });
        }
    }
    dated
}

/// B 4.4.6.2, A 9: the variants say what is in them.
fn multivariant_rules(output: &Output, report: &mut impl FnMut(String)) {
    let multivariant = &output.multivariant;
    if multivariant.versions.len() > 1 {
        report("B 4.4.1.2: more than one EXT-X-VERSION".into());
    }
    let all_independent = output.renditions().all(|rendition| {
        rendition.segments.iter().all(|segment| segment.media.samples.first().is_none_or(|sample| sample.is_sync))
    });
    if multivariant.claims_independent_segments && !all_independent {
        report("A 9.11: EXT-X-INDEPENDENT-SEGMENTS is not true".into());
    }
    if multivariant.variants.is_empty() {
        report("no variant".into());
    }
    for variant in &multivariant.variants {
        let uri = &variant.uri;
        if variant.average_bandwidth.is_none() {
            report(format!("A 9.2: {uri} has no AVERAGE-BANDWIDTH"));
        }
        let tracks = output.renditions().filter_map(|rendition| rendition.headers.values().next()).count();
        let kinds = usize::from(output.video.is_some()) + usize::from(!output.audio.is_empty());
        if variant.codecs.len() < kinds.min(tracks) || variant.codecs.iter().any(String::is_empty) {
            report(format!("A 9.14: {uri} has CODECS {:?} for {kinds} kinds of media", variant.codecs));
        }
        let headers = output.video.iter().chain(output.audio.first()).flat_map(|rendition| rendition.headers.values());
        for codec in headers.filter_map(|header| header.track.codec.as_ref()) {
            if !variant.codecs.iter().any(|listed| listed.eq_ignore_ascii_case(codec)) {
                report(format!("B 4.4.6.2: CODECS {:?} lacks {codec}, which a header has", variant.codecs));
            }
        }
        let has_group = |group: &String| multivariant.audio.iter().any(|audio| &audio.group == group);
        if variant.audio_group.as_ref().is_some_and(|group| !has_group(group)) {
            report(format!("B 4.4.6.2: {uri} names an audio group that is not there"));
        }
        match &output.video {
            Some(video) => picture_rules(video, variant.resolution.is_some(), variant.frame_rate, report),
            None if variant.resolution.is_some() || variant.frame_rate.is_some() => {
                report(format!("{uri} is audio, and has RESOLUTION or FRAME-RATE"));
            }
            None => {}
        }
        bandwidth_rules(output, variant.bandwidth, variant.average_bandwidth, report);
    }
}

/// RESOLUTION is there, FRAME-RATE is what was measured.
fn picture_rules(video: &Rendition, has_resolution: bool, frame_rate: Option<f64>, report: &mut impl FnMut(String)) {
    if !has_resolution {
        report("A 9.15: no RESOLUTION".into());
    }
    let Some(declared) = frame_rate else { return report("A 9.15: no FRAME-RATE".into()) };
    let media_s: f64 = video.segments.iter().map(Segment::media_s).sum();
    let measured = seconds(i64::try_from(video.samples().count()).unwrap(), 1) / media_s;
    // FRAME-RATE is the highest one; a variable rate is lower on average.
    if declared < measured * 0.95 || declared > measured * 2.5 {
        report(format!("B 4.4.6.2: FRAME-RATE {declared}, measured are {measured:.3}"));
    }
}

/// A 1.28, 1.29: the measured average is below 110 %, the peak below 125 % of what is declared.
fn bandwidth_rules(output: &Output, peak: u64, average: Option<u64>, report: &mut impl FnMut(String)) {
    let declared_peak = bits(peak);
    let measured_peak: f64 = output.video.iter().chain(output.audio.first()).map(peak_bit_rate).sum();
    if measured_peak > declared_peak * 1.25 {
        report(format!("A 1.29: BANDWIDTH {declared_peak}, the measured peak is {measured_peak:.0}"));
    }
    if let Some(average) = average {
        let declared = bits(average);
        let measured: f64 = output.video.iter().chain(output.audio.first()).map(average_bit_rate).sum();
        if measured > declared * 1.1 {
            report(format!("A 1.28: AVERAGE-BANDWIDTH {declared}, measured are {measured:.0}"));
        }
        if average > peak {
            report(format!("AVERAGE-BANDWIDTH {average} is more than BANDWIDTH {peak}"));
        }
    }
}

fn average_bit_rate(rendition: &Rendition) -> f64 {
    let size: u64 = rendition.segments.iter().map(|segment| segment.size).sum();
    bits(size * 8) / rendition.segments.iter().map(Segment::media_s).sum::<f64>()
}

/// B 4.1: the largest bit rate of any contiguous segments that last 0.5 to 1.5 target durations together; of a stream that
/// is shorter, its average.
fn peak_bit_rate(rendition: &Rendition) -> f64 {
    let target_s = rendition.playlist.target_duration_s.first().copied().unwrap_or(0);
    let target_s = bits(target_s);
    let mut peak: Option<f64> = None;
    for start in 0..rendition.segments.len() {
        let (mut size, mut media_s) = (0, 0.0);
        for segment in &rendition.segments[start..] {
            size += segment.size;
            media_s += segment.media_s();
            if media_s >= 0.5 * target_s && media_s <= 1.5 * target_s {
                peak = Some(peak.unwrap_or(0.0).max(bits(size * 8) / media_s));
            }
        }
    }
    peak.unwrap_or_else(|| average_bit_rate(rendition))
}

/// A number of bits, for arithmetic.
fn bits(count: u64) -> f64 {
    f64::from(u32::try_from(count).expect("the corpus is small"))
}
