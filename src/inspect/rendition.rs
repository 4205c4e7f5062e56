//! One rendition: a media playlist, its headers and its segments, read and measured.

use std::collections::BTreeMap;

use super::codec::{Media, SampleEntry};
use super::files::{self, Place};
use super::finding::{Findings, Rule};
use super::header::Header;
use super::playlist::{MediaPlaylist, Segment};
use super::segment::SegmentMedia;

/// A rendition as found.
#[derive(Debug)]
pub(super) struct Rendition {
    pub(super) place: Place,
    /// The playlist's path, for people.
    pub(super) name: String,
    pub(super) playlist: MediaPlaylist,
    /// What each of the playlist's maps names.
    pub(super) headers: Vec<Option<Header>>,
    /// What each of the playlist's segments holds; `None` for GAPs and for what could not be read.
    pub(super) media: Vec<Option<SegmentMedia>>,
}

impl Rendition {
    /// Reads the playlist only, so that those of a live broadcast are of the same moment.
    pub(super) fn read_playlist(place: Place, findings: &mut Findings) -> Option<Self> {
        let name = place.name();
        let bytes = match files::read(&place.path(), files::PLAYLIST_BYTES) {
            Ok(bytes) => bytes,
            Err(why) => {
                findings.fault(Rule::Listed, &name, format!("cannot be read: {why:#}"));
                return None;
            }
        };
        let playlist = MediaPlaylist::read(&bytes, &place, findings);
        Some(Self { place, name, playlist, headers: Vec::new(), media: Vec::new() })
    }

    /// Reads the headers and segments that the playlist lists.
    pub(super) fn read_media(&mut self, findings: &mut Findings) {
        if self.playlist.is_opaque {
            findings.note(Rule::Listed, &self.name, "encrypted, skipped or byte-range media: only the text was judged");
            return;
        }
        self.headers = self.playlist.maps.iter().map(|place| read_header(place.as_ref()?, findings)).collect();
        let headers = &self.headers;
        let read = |segment: &Segment| {
            let place = segment.place.as_ref().filter(|_| !segment.is_gap)?;
            let name = place.name();
            let bytes = files::read(&place.path(), files::SEGMENT_BYTES)
                .map_err(|why| findings.fault(Rule::Listed, &name, format!("is listed, but cannot be read: {why:#}")))
                .ok()?;
            let header = headers.get(segment.map?)?.as_ref()?;
            SegmentMedia::read(&bytes, header, &name, findings)
        };
        self.media = self.playlist.segments.iter().map(read).collect();
    }

    /// Its segments with what they hold.
    pub(super) fn segments(&self) -> impl DoubleEndedIterator<Item = (&Segment, Option<&SegmentMedia>)> {
        let media =
            self.media.iter().map(Option::as_ref).chain(std::iter::repeat_n(None, self.playlist.segments.len()));
        let media: Vec<_> = media.take(self.playlist.segments.len()).collect();
        self.playlist.segments.iter().zip(media)
    }

    /// Where a segment is, for people.
    pub(super) fn segment_name(&self, segment: &Segment) -> String {
        segment.place.as_ref().map_or_else(|| format!("{}: {}", self.name, segment.uri), Place::name)
    }

    /// The sample entries of its headers.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &SampleEntry> {
        self.headers.iter().flatten().map(|header| &header.track().entry)
    }

    /// Whether it carries pictures.
    pub(super) fn is_video(&self) -> bool {
        self.entries().any(|entry| matches!(entry.media, Media::Video { .. }))
    }

    /// Samples a second in thousandths: of all, and without the few that a pause made longer.
    pub(super) fn frame_rates_milli(&self) -> Option<(u64, u64)> {
        let (timescale, durations) = self.durations()?;
        let median = median_duration(&durations)?;
        let rate = |longest: u32| {
            let counted = durations.range(..=longest);
            let (count, ticks) =
                counted.fold((0u64, 0u64), |(c, t), (ticks, count)| (c + count, t + u64::from(*ticks) * count));
            (count * 1000 * u64::from(timescale)).checked_div(ticks)
        };
        Some((rate(u32::MAX)?, rate(median.saturating_add(median / 2))?))
    }

    /// The usual duration of a sample in microseconds; 0 when nothing is known.
    pub(super) fn frame_micros(&self) -> u64 {
        self.durations()
            .and_then(|(timescale, durations)| {
                Some(u64::from(median_duration(&durations)?) * 1_000_000 / u64::from(timescale))
            })
            .unwrap_or(0)
    }

    /// Samples of each duration in the timescale of the last segment.
    fn durations(&self) -> Option<(u32, BTreeMap<u32, u64>)> {
        let timescale = self.media.iter().flatten().next_back()?.timescale;
        let mut all = BTreeMap::new();
        for media in self.media.iter().flatten().filter(|media| media.timescale == timescale) {
            for (duration, count) in &media.durations {
                *all.entry(*duration).or_default() += count;
            }
        }
        Some((timescale, all))
    }

    /// Bits a second over all that was read.
    pub(super) fn average_bits(&self) -> Option<u64> {
        let (micros, bytes) =
            self.media.iter().flatten().fold((0, 0), |(m, b), s| (s.micros().saturating_add(m), b + s.bytes));
        bits_per_second(bytes, micros)
    }

    /// The most bits a second over any run of segments that lasts 0.5 to 1.5 target durations (RFC 8216bis §4.1).
    pub(super) fn peak_bits(&self) -> Option<u64> {
        let target = self.playlist.target_duration.saturating_mul(1_000_000);
        let mut peak = None;
        for first in 0..self.media.len() {
            let (mut micros, mut bytes) = (0u64, 0);
            // A gap ends the run.
            for segment in self.media[first..].iter().map_while(Option::as_ref) {
                micros = segment.micros().saturating_add(micros);
                bytes += segment.bytes;
                if micros > target + target / 2 {
                    break;
                }
                if micros >= target / 2 {
                    peak = peak.max(bits_per_second(bytes, micros));
                }
            }
        }
        peak.or_else(|| self.average_bits())
    }

    /// Bytes that are no sample, in thousandths of all bytes.
    pub(super) fn overhead_milli(&self) -> Option<u64> {
        let (bytes, samples) =
            self.media.iter().flatten().fold((0u64, 0u64), |(b, s), media| (b + media.bytes, s + media.sample_bytes));
        (bytes.saturating_sub(samples) * 1000).checked_div(bytes)
    }
}

fn read_header(place: &Place, findings: &mut Findings) -> Option<Header> {
    let name = place.name();
    match files::read(&place.path(), files::HEADER_BYTES) {
        Ok(bytes) => Header::read(bytes, &name, findings),
        Err(why) => {
            findings.fault(Rule::Listed, &name, format!("is listed as EXT-X-MAP, but cannot be read: {why:#}"));
            None
        }
    }
}

/// The duration that half of the samples do not exceed.
fn median_duration(durations: &BTreeMap<u32, u64>) -> Option<u32> {
    let half = durations.values().sum::<u64>().div_ceil(2);
    let mut seen = 0;
    durations
        .iter()
        .find(|(_, count)| {
            seen += **count;
            seen >= half
        })
        .map(|(duration, _)| *duration)
        .filter(|duration| *duration > 0)
}

fn bits_per_second(bytes: u64, micros: u64) -> Option<u64> {
    u64::try_from((u128::from(bytes) * 8_000_000).checked_div(u128::from(micros))?).ok()
}
