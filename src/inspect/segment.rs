//! A media segment: fragments, each `moof` and `mdat` (RFC 8216bis §3.1.2, ISO/IEC 14496-12 §8.8).
//!
//! ```text
//! moof ── mfhd
//!      └─ traf ── tfhd   track, defaults, default-base-is-moof
//!              ├─ tfdt   decode time of the first sample
//!              └─ trun…  duration, size, flags, composition offset of each sample
//! mdat    the samples, without a byte between or after them
//! ```

use std::collections::BTreeMap;

use super::boxes::{self, BadBox, Fields, Mp4Box};
use super::event_message;
use super::finding::{Findings, Rule};
use super::header::{Defaults, Header, Track};
use super::samples;
use super::second_reader;
use super::text;

/// What a segment holds.
#[derive(Debug, Clone, Default)]
pub(super) struct SegmentMedia {
    /// Of the file.
    pub(super) bytes: u64,
    /// Of the samples in it.
    pub(super) sample_bytes: u64,
    /// Ticks a second.
    pub(super) timescale: u32,
    /// Of the first sample, when its fragment says so.
    pub(super) decode_time: Option<u64>,
    /// The composition offset of the first sample, in ticks.
    pub(super) composition_offset: i64,
    /// The earliest presentation, when known.
    pub(super) earliest_presentation_time: Option<u64>,
    /// The sum of all sample durations, in ticks.
    pub(super) duration: u64,
    /// How many samples there are of each duration in ticks.
    pub(super) durations: BTreeMap<u32, u64>,
    pub(super) samples: u64,
    pub(super) starts_with_sync: bool,
    /// The sequence numbers of the first and the last fragment.
    pub(super) sequence_numbers: Option<(u32, u32)>,
}

impl SegmentMedia {
    /// Decode time after the last sample.
    pub(super) fn end_time(&self) -> Option<u64> {
        self.decode_time?.checked_add(self.duration)
    }

    /// Presentation time of the first sample.
    pub(super) fn presentation_time(&self) -> Option<u64> {
        self.decode_time?.checked_add_signed(self.composition_offset)
    }

    /// Its duration in microseconds.
    pub(super) fn micros(&self) -> u64 {
        micros(self.duration, self.timescale)
    }

    /// Reads a segment and judges it.
    pub(super) fn read(bytes: &[u8], header: &Header, place: &str, findings: &mut Findings) -> Option<Self> {
        let faults_before = findings.faults();
        let top = match boxes::boxes(bytes, 0) {
            Ok(top) => top,
            Err(bad) => {
                findings.fault(Rule::Listed, place, format!("is not whole: {bad}"));
                return None;
            }
        };
        let mut reader = Reader {
            media: Self { bytes: bytes.len() as u64, timescale: header.track().timescale, ..Self::default() },
            header,
            place,
            findings,
            expected_decode_time: None,
            sample_problems: 0,
        };
        let mut moofs = Vec::new();
        for (position, found) in top.iter().enumerate() {
            match &found.kind {
                b"moof" => {
                    let mdat = top.get(position + 1).filter(|next| next.kind == *b"mdat");
                    if mdat.is_none() {
                        reader.fault(Rule::Listed, "is not whole: no mdat after moof");
                    }
                    moofs.push(*found);
                    if let Err(bad) = reader.fragment(found, mdat) {
                        reader.fault(Rule::Fragment, bad.to_string());
                        return None;
                    }
                }
                b"mdat" if position == 0 || top[position - 1].kind != *b"moof" => {
                    reader.fault(Rule::Fragment, "has an mdat without a moof before it");
                }
                _ => {}
            }
        }
        let media = reader.media;
        for (position, found) in top.iter().enumerate().filter(|(_, found)| found.kind == *b"emsg") {
            if !top[position..].iter().any(|later| later.kind == *b"moof") {
                findings.fault(Rule::EventMessage, place, "an emsg stands behind the last moof");
            }
            let problem = event_message::check(found, media.timescale, media.earliest_presentation_time).err();
            if let Some(problem) = problem {
                findings.fault(Rule::EventMessage, place, problem);
            }
        }
        if moofs.is_empty() {
            findings.fault(Rule::Listed, place, format!("has no moof in its {} bytes", bytes.len()));
            return None;
        }
        if findings.faults() == faults_before {
            second_reader::compare_fragments(&moofs, &media, place, findings);
        }
        Some(media)
    }
}

/// Ticks in microseconds, rounded down.
pub(super) fn micros(ticks: u64, timescale: u32) -> u64 {
    u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(timescale.max(1))).unwrap_or(u64::MAX)
}

struct Reader<'a, 'b> {
    media: SegmentMedia,
    header: &'a Header,
    place: &'a str,
    findings: &'b mut Findings,
    /// The end of the fragment before.
    expected_decode_time: Option<u64>,
    sample_problems: usize,
}

/// A sample as `trun` and the defaults describe it.
struct Sample {
    duration: Option<u32>,
    size: Option<u32>,
    is_sync: bool,
    composition_offset: i64,
}

impl Reader<'_, '_> {
    fn fragment(&mut self, moof: &Mp4Box<'_>, mdat: Option<&Mp4Box<'_>>) -> Result<(), BadBox> {
        let inside = moof.children(0)?;
        match boxes::find(&inside, b"mfhd").and_then(|mfhd| mfhd.full()?.2.u32()) {
            Some(number) => {
                let (first, last) = self.media.sequence_numbers.unwrap_or((number, number));
                if self.media.sequence_numbers.is_some() && number <= last {
                    self.fault(Rule::Fragment, format!("fragment {number} comes after fragment {last}"));
                }
                self.media.sequence_numbers = Some((first, number));
            }
            None => self.fault(Rule::Fragment, "a moof has no mfhd"),
        }
        let trafs: Vec<_> = inside.iter().filter(|found| found.kind == *b"traf").collect();
        if trafs.len() != 1 {
            self.fault(Rule::Fragment, format!("a moof has {} traf, CMAF wants one", trafs.len()));
        }
        let mut used = 0;
        for traf in trafs {
            used += self.track_fragment(moof, traf, mdat)?;
        }
        if let Some(mdat) = mdat.filter(|mdat| mdat.body.len() as u64 != used) {
            self.fault(Rule::Listed, format!("mdat holds {} bytes, its samples {used}", mdat.body.len()));
        }
        Ok(())
    }

    /// Reads one `traf`; returns how many bytes its samples take.
    fn track_fragment(
        &mut self,
        moof: &Mp4Box<'_>,
        traf: &Mp4Box<'_>,
        mdat: Option<&Mp4Box<'_>>,
    ) -> Result<u64, BadBox> {
        let inside = traf.children(0)?;
        let header = self.header;
        let Some(tfhd) = boxes::find(&inside, b"tfhd").and_then(|found| TrackFragmentHeader::read(&found)) else {
            self.fault(Rule::Fragment, "a traf has no tfhd that can be read");
            return Ok(0);
        };
        let track = header.tracks.iter().find(|track| track.id == tfhd.track_id).unwrap_or_else(|| {
            self.fault(Rule::Fragment, format!("traf of track {}, which the header does not have", tfhd.track_id));
            header.track()
        });
        if tfhd.has_base_data_offset {
            self.fault(Rule::Fragment, "tfhd has base-data-offset: addresses are relative to the file");
        } else if !tfhd.default_base_is_moof {
            self.fault(Rule::Fragment, "tfhd lacks default-base-is-moof");
        }
        let decode_time = boxes::find(&inside, b"tfdt").and_then(|tfdt| {
            let (version, _, mut fields) = tfdt.full()?;
            fields.sized(version)
        });
        if decode_time.is_none() {
            self.fault(Rule::Fragment, "a traf has no tfdt");
        }
        if let (Some(expected), Some(found)) = (self.expected_decode_time, decode_time)
            && expected != found
        {
            let message = format!("a fragment starts at {found}, the one before ends at {expected}");
            self.fault(Rule::DecodeTime, message);
        }
        if self.media.samples == 0 {
            self.media.decode_time = decode_time;
        }
        let mut used = 0;
        let mut time = decode_time;
        // Without data_offset a run follows the one before it (ISO/IEC 14496-12 §8.8.8.3).
        let mut data_at = mdat.map(|mdat| mdat.start + (mdat.whole.len() - mdat.body.len()));
        let defaults = tfhd.defaults_over(track.defaults);
        for (number, found) in inside.iter().filter(|found| found.kind == *b"trun").enumerate() {
            let Some((data_offset, samples)) = track_run(found, defaults) else {
                self.fault(Rule::Fragment, "a trun says more samples than it has room for");
                return Ok(used);
            };
            match data_offset {
                Some(offset) => data_at = moof.start.checked_add_signed(isize::try_from(offset).unwrap_or(isize::MAX)),
                None if number == 0 => self.fault(Rule::Fragment, "the first trun has no data_offset"),
                None => {}
            }
            for sample in samples {
                let size = u64::from(sample.size.unwrap_or(0));
                used += size;
                self.sample(&sample, track, time, data_at, mdat);
                data_at = data_at.and_then(|at| at.checked_add(usize::try_from(size).ok()?));
                time = time.and_then(|time| time.checked_add(u64::from(sample.duration.unwrap_or(0))));
            }
        }
        self.expected_decode_time = time;
        Ok(used)
    }

    fn sample(
        &mut self,
        sample: &Sample,
        track: &Track,
        time: Option<u64>,
        data_at: Option<usize>,
        mdat: Option<&Mp4Box<'_>>,
    ) {
        let is_first = self.media.samples == 0;
        let duration = sample.duration.unwrap_or(0);
        self.media.samples += 1;
        self.media.duration += u64::from(duration);
        *self.media.durations.entry(duration).or_default() += 1;
        if is_first {
            self.media.starts_with_sync = sample.is_sync;
            self.media.composition_offset = sample.composition_offset;
        }
        let presentation = time.and_then(|time| time.checked_add_signed(sample.composition_offset));
        self.media.earliest_presentation_time = match (self.media.earliest_presentation_time, presentation) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let mut problems = Vec::new();
        if duration == 0 {
            problems.push((Rule::Sample, "has no duration".to_owned()));
        }
        let size = sample.size.unwrap_or(0);
        self.media.sample_bytes += u64::from(size);
        if size == 0 {
            problems.push((Rule::Sample, "is empty".to_owned()));
        } else if let (Some(mdat), Some(data_at)) = (mdat, data_at) {
            let bytes = data_at
                .checked_sub(mdat.start)
                .filter(|from| *from >= mdat.whole.len() - mdat.body.len())
                .zip(usize::try_from(size).ok())
                .and_then(|(from, size)| mdat.whole.get(from..from.checked_add(size)?));
            match bytes {
                Some(bytes) => problems.extend(samples::judge(bytes, track.entry.form, sample.is_sync)),
                None => problems.push((Rule::Fragment, "lies outside the mdat that follows its moof".to_owned())),
            }
        }
        for (rule, problem) in problems {
            self.sample_problems += 1;
            // One broken offset breaks every sample after it.
            if self.sample_problems <= MOST_SAMPLE_PROBLEMS {
                let at = time.map_or(0, |time| text::difference(micros(time, self.media.timescale), 0));
                let message = format!("sample {} at {} {problem}", self.media.samples, text::seconds(at));
                self.findings.fault(rule, self.place, message);
            }
        }
    }

    fn fault(&mut self, rule: Rule, message: impl Into<String>) {
        self.findings.fault(rule, self.place, message);
    }
}

const MOST_SAMPLE_PROBLEMS: usize = 3;

struct TrackFragmentHeader {
    track_id: u32,
    has_base_data_offset: bool,
    default_base_is_moof: bool,
    defaults: Defaults,
}

impl TrackFragmentHeader {
    /// ISO/IEC 14496-12 §8.8.7.
    fn read(tfhd: &Mp4Box<'_>) -> Option<Self> {
        let (_, flags, mut fields) = tfhd.full()?;
        let track_id = fields.u32()?;
        if flags & 0x01 != 0 {
            fields.u64()?;
        }
        if flags & 0x02 != 0 {
            fields.u32()?;
        }
        let mut field = |flag| if flags & flag == 0 { Some(None) } else { fields.u32().map(Some) };
        let defaults = Defaults { duration: field(0x08)?, size: field(0x10)?, flags: field(0x20)? };
        Some(Self {
            track_id,
            has_base_data_offset: flags & 0x01 != 0,
            default_base_is_moof: flags & 0x02_0000 != 0,
            defaults,
        })
    }

    fn defaults_over(&self, trex: Defaults) -> Defaults {
        Defaults {
            duration: self.defaults.duration.or(trex.duration),
            size: self.defaults.size.or(trex.size),
            flags: self.defaults.flags.or(trex.flags),
        }
    }
}

/// The data offset and the samples of a `trun` (ISO/IEC 14496-12 §8.8.8).
fn track_run(trun: &Mp4Box<'_>, defaults: Defaults) -> Option<(Option<i32>, Vec<Sample>)> {
    let (version, flags, mut fields) = trun.full()?;
    let count = usize::try_from(fields.u32()?).ok()?;
    let data_offset = if flags & 0x01 == 0 { None } else { fields.array().map(i32::from_be_bytes) };
    let first_flags = if flags & 0x04 == 0 { None } else { Some(fields.u32()?) };
    let sample_fields = usize::try_from((flags & 0xf00).count_ones()).ok()?;
    // A run of samples that say nothing of themselves costs no bytes; nothing bounds it but this.
    let most = fields.0.len().checked_div(4 * sample_fields).unwrap_or(MOST_SILENT_SAMPLES);
    if count > most {
        return None;
    }
    let mut samples = Vec::with_capacity(count);
    for number in 0..count {
        let mut field = |flag| if flags & flag == 0 { Some(None) } else { fields.u32().map(Some) };
        let (duration, size) = (field(0x100)?, field(0x200)?);
        let own_flags = field(0x400)?.or_else(|| first_flags.filter(|_| number == 0));
        let composition_offset = field(0x800)?.map_or(0, |offset| match version {
            0 => i64::from(offset),
            _ => i64::from(offset.cast_signed()),
        });
        let is_sync = own_flags.or(defaults.flags).is_none_or(|flags| flags & NON_SYNC == 0);
        samples.push(Sample {
            duration: duration.or(defaults.duration),
            size: size.or(defaults.size),
            is_sync,
            composition_offset,
        });
    }
    Some((data_offset, samples))
}

/// `sample_is_non_sync_sample` (ISO/IEC 14496-12 §8.8.3.1).
const NON_SYNC: u32 = 0x0001_0000;
/// A segment of a minute of 8 kHz PCM in one-sample samples.
const MOST_SILENT_SAMPLES: usize = 480_000;

/// Reads a big-endian length of 1 to 4 bytes.
pub(super) fn length(fields: &mut Fields<'_>, bytes: usize) -> Option<usize> {
    let bytes = fields.take(bytes)?;
    Some(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}
