//! A header: `ftyp` and an empty `moov` (RFC 8216bis §3.1.2, ISO/IEC 23000-19 §7.3).

use super::boxes::{self, BadBox, Fields, Mp4Box};
use super::codec::{Media, SampleEntry};
use super::finding::{Findings, Rule};
use super::second_reader;

/// A header that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Never empty.
    pub(super) tracks: Vec<Track>,
    /// The file, to tell whether another one is the same.
    pub(super) bytes: Vec<u8>,
}

/// A track of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Track {
    pub(super) id: u32,
    /// Ticks a second, never 0.
    pub(super) timescale: u32,
    pub(super) entry: SampleEntry,
    /// What `trex` says where a fragment says nothing.
    pub(super) defaults: Defaults,
}

/// Values for samples that do not state their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) duration: Option<u32>,
    pub(super) size: Option<u32>,
    pub(super) flags: Option<u32>,
}

impl Header {
    /// Reads a header and judges it.
    pub(super) fn read(bytes: Vec<u8>, place: &str, findings: &mut Findings) -> Option<Self> {
        let faults_before = findings.faults();
        let tracks = match read_tracks(&bytes, place, findings) {
            Ok(tracks) => tracks,
            Err(bad) => {
                findings.fault(Rule::Header, place, bad.to_string());
                return None;
            }
        };
        if tracks.is_empty() {
            findings.fault(Rule::Header, place, "has no track that can be read");
            return None;
        }
        if tracks.len() > 1 {
            findings.note(Rule::Header, place, format!("has {} tracks, CMAF wants one", tracks.len()));
        }
        if findings.faults() == faults_before {
            second_reader::compare_header(&bytes, &tracks, place, findings);
        }
        Some(Self { tracks, bytes })
    }

    /// The track that a rendition of ours is made of.
    pub(super) fn track(&self) -> &Track {
        &self.tracks[0]
    }
}

fn read_tracks(bytes: &[u8], place: &str, findings: &mut Findings) -> Result<Vec<Track>, BadBox> {
    let top = boxes::boxes(bytes, 0)?;
    match top.first() {
        Some(first) if first.kind == *b"ftyp" => {
            let brands: Vec<&[u8]> =
                first.body.chunks(4).enumerate().filter(|(n, _)| *n != 1).map(|(_, b)| b).collect();
            if !brands.iter().any(|brand| BRANDS.iter().any(|known| *brand == &known[..])) {
                findings.fault(Rule::Header, place, "ftyp has no brand iso6 or later");
            }
        }
        _ => findings.fault(Rule::Header, place, "does not start with ftyp"),
    }
    for stray in top.iter().filter(|found| matches!(&found.kind, b"moof" | b"mdat")) {
        findings.fault(Rule::Header, place, format!("has media in it: '{}'", stray.kind.escape_ascii()));
    }
    let Some(moov) = boxes::find(&top, b"moov") else {
        findings.fault(Rule::Header, place, "has no moov");
        return Ok(Vec::new());
    };
    let inside = moov.children(0)?;
    if boxes::find(&inside, b"mvhd").is_none_or(|mvhd| duration(&mvhd) != Some(0)) {
        findings.fault(Rule::Header, place, "mvhd is missing or its duration is not 0");
    }
    let extends = match boxes::find(&inside, b"mvex") {
        Some(mvex) => mvex.children(0)?.iter().filter(|b| b.kind == *b"trex").filter_map(trex).collect(),
        None => {
            findings.fault(Rule::Header, place, "has no mvex: players take it for a film without samples");
            Vec::new()
        }
    };
    let mut tracks: Vec<Track> = Vec::new();
    for trak in inside.iter().filter(|found| found.kind == *b"trak") {
        let Some(mut track) = read_track(trak, place, findings)? else { continue };
        match extends.iter().find(|(id, _)| *id == track.id) {
            Some((_, defaults)) => track.defaults = *defaults,
            None if extends.is_empty() => {}
            None => findings.fault(Rule::Header, place, format!("mvex has no trex for track {}", track.id)),
        }
        if tracks.iter().any(|seen| seen.id == track.id) {
            findings.fault(Rule::Header, place, format!("two tracks have the id {}", track.id));
        }
        tracks.push(track);
    }
    Ok(tracks)
}

fn read_track(trak: &Mp4Box<'_>, place: &str, findings: &mut Findings) -> Result<Option<Track>, BadBox> {
    let mut fault = |message: String| findings.fault(Rule::Header, place, message);
    let Some(id) = boxes::descend(trak, &[b"tkhd"])?.and_then(|tkhd| {
        if duration(&tkhd) != Some(0) {
            fault("the duration in tkhd is not 0".to_owned());
        }
        track_id(&tkhd)
    }) else {
        fault("a track has no tkhd that can be read".to_owned());
        return Ok(None);
    };
    let Some(timescale) = boxes::descend(trak, &[b"mdia", b"mdhd"])?.and_then(|mdhd| timescale(&mdhd)) else {
        fault(format!("track {id} has no timescale"));
        return Ok(None);
    };
    if let Some(dref) = boxes::descend(trak, &[b"mdia", b"minf", b"dinf", b"dref"])? {
        let is_external = |entry: &Mp4Box<'_>| entry.full().is_some_and(|(_, flags, _)| flags & 1 == 0);
        if dref.children(8)?.iter().any(is_external) {
            findings.fault(Rule::Fragment, place, format!("track {id} refers to data in another file"));
        }
    }
    let mut fault = |message: String| findings.fault(Rule::Header, place, message);
    let Some(table) = boxes::descend(trak, &[b"mdia", b"minf", b"stbl"])? else {
        fault(format!("track {id} has no stbl"));
        return Ok(None);
    };
    let table = table.children(0)?;
    for kind in [b"stts", b"stsc", b"stsz", b"stco"] {
        // stsz has its count after the common size.
        let count_at = if kind == b"stsz" { 8 } else { 4 };
        let count = boxes::find(&table, kind).and_then(|found| Fields(found.body.get(count_at..)?).u32());
        match count {
            Some(0) => {}
            Some(count) => {
                fault(format!("track {id} has {count} entries in {}, a header has none", kind.escape_ascii()))
            }
            None => fault(format!("track {id} has no {}", kind.escape_ascii())),
        }
    }
    let entries = match boxes::find(&table, b"stsd") {
        Some(stsd) => stsd.children(8)?,
        None => Vec::new(),
    };
    let Some(entry) = entries.first().map(SampleEntry::read) else {
        fault(format!("track {id} has no sample entry"));
        return Ok(None);
    };
    if entries.len() > 1 {
        fault(format!("track {id} has {} sample entries", entries.len()));
    }
    for problem in &entry.problems {
        fault(format!("sample entry '{}' {problem}", entry.kind_name()));
    }
    if let Some(better) = in_band_twin(entry.kind) {
        let message = format!("sample entry '{}': Apple's players want '{better}'", entry.kind_name());
        findings.fault(Rule::SampleEntry, place, message);
    }
    if let Media::Video { entry_size, coded_size: Some(coded_size) } = entry.media
        && entry_size != coded_size
    {
        let ((w, h), (cw, ch)) = (entry_size, coded_size);
        findings.fault(Rule::Header, place, format!("the sample entry says {w}x{h}, the SPS in it {cw}x{ch}"));
    }
    Ok(Some(Track { id, timescale, entry, defaults: Defaults::default() }))
}

/// The kind of sample entry that keeps its parameter sets to itself.
fn in_band_twin(kind: [u8; 4]) -> Option<&'static str> {
    match &kind {
        b"avc3" => Some("avc1"),
        b"hev1" => Some("hvc1"),
        _ => None,
    }
}

/// The duration in `mvhd` or `tkhd`.
fn duration(full_box: &Mp4Box<'_>) -> Option<u64> {
    let (version, _, mut fields) = full_box.full()?;
    fields.sized(version)?;
    fields.sized(version)?;
    fields.u32()?;
    if full_box.kind == *b"tkhd" {
        fields.u32()?;
    }
    // All ones stand for "not known" (ISO/IEC 14496-12 §8.2.2.3).
    let duration = fields.sized(version)?;
    let is_unknown = duration == if version == 0 { u64::from(u32::MAX) } else { u64::MAX };
    Some(if is_unknown { 0 } else { duration })
}

fn track_id(tkhd: &Mp4Box<'_>) -> Option<u32> {
    let (version, _, mut fields) = tkhd.full()?;
    fields.sized(version)?;
    fields.sized(version)?;
    fields.u32()
}

fn timescale(mdhd: &Mp4Box<'_>) -> Option<u32> {
    let (version, _, mut fields) = mdhd.full()?;
    fields.sized(version)?;
    fields.sized(version)?;
    fields.u32().filter(|timescale| *timescale > 0)
}

fn trex(found: &Mp4Box<'_>) -> Option<(u32, Defaults)> {
    let (_, _, mut fields) = found.full()?;
    let id = fields.u32()?;
    fields.u32()?;
    let (duration, size, flags) = (fields.u32()?, fields.u32()?, fields.u32()?);
    Some((id, Defaults { duration: Some(duration), size: Some(size), flags: Some(flags) }))
}

/// Brands that stand for `iso6` or what came after it.
const BRANDS: [&[u8; 4]; 10] =
    [b"iso6", b"iso7", b"iso8", b"iso9", b"isoa", b"isob", b"isoc", b"cmfc", b"cmf2", b"cmfs"];
