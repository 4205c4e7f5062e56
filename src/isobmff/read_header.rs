//! Reads our own CMAF headers and segments back after a restart: only what it takes to go on with the track.
//!
//! Whatever the bytes are, it ends soon and does not fail: each box is looked at once, and the decoder configuration
//! record goes through the same parser as a publisher's.

use bytes::Bytes;

use crate::codec::{Configuration, aac, av1, avc, hevc};
use crate::media::{Timescale, Track, TrackId, TrackKind};

/// The track `id` that a header describes. `None` where that is not told by the header alone: it comes again with the
/// publisher.
pub fn read_header(header: &Bytes, id: TrackId) -> Option<Track> {
    let mdia = media(header)?;
    let stsd = find(&find(&find(&mdia, b"minf")?, b"stbl")?, b"stsd")?;
    let configuration = configuration(&slice_from(&stsd, FULL_BOX + ENTRY_COUNT)?)?;
    let timescale = read_timescale(header)?;
    let is_right_kind = configuration.is_video() == (id.kind == TrackKind::Video);
    is_right_kind.then_some(Track { id, timescale, configuration })
}

/// The timescale of a header's track.
pub fn read_timescale(header: &Bytes) -> Option<Timescale> {
    let mdhd = find(&media(header)?, b"mdhd")?;
    let times = if *mdhd.first()? == 0 { 8 } else { 16 };
    let timescale = mdhd.get(FULL_BOX + times..)?.get(..4)?;
    Timescale::new(u32::from_be_bytes(timescale.try_into().ok()?))
}

fn media(header: &Bytes) -> Option<Bytes> {
    find(&find(&find(header, b"moov")?, b"trak")?, b"mdia")
}

/// `baseMediaDecodeTime` of a segment's first fragment in ticks, from the beginning of its bytes.
pub fn read_decode_time(segment: &Bytes) -> Option<u64> {
    let tfdt = find(&find(&find(segment, b"moof")?, b"traf")?, b"tfdt")?;
    let (version, time) = (tfdt.first()?, tfdt.get(FULL_BOX..)?);
    match version {
        0 => Some(u32::from_be_bytes(time.try_into().ok()?).into()),
        _ => Some(u64::from_be_bytes(time.try_into().ok()?)),
    }
}

fn configuration(entries: &Bytes) -> Option<Configuration> {
    let record =
        |entry: &[u8; 4], fields: usize, kind: &[u8; 4]| find(&slice_from(&find(entries, entry)?, fields)?, kind);
    if let Some(record) = record(b"avc1", VISUAL_SAMPLE_ENTRY, b"avcC") {
        return avc::Configuration::parse(record).ok().map(Configuration::Avc);
    }
    if let Some(record) = record(b"hvc1", VISUAL_SAMPLE_ENTRY, b"hvcC") {
        return hevc::Configuration::parse(record).ok().map(Configuration::Hevc);
    }
    if let Some(record) = record(b"av01", VISUAL_SAMPLE_ENTRY, b"av1C") {
        return av1::Configuration::parse(record).ok().map(Configuration::Av1);
    }
    let esds = record(b"mp4a", AUDIO_SAMPLE_ENTRY, b"esds")?;
    let es = descriptor(&slice_from(&esds, FULL_BOX)?, 0x03)?;
    let decoder_config = descriptor(&slice_from(&es, 3)?, 0x04)?;
    let record = descriptor(&slice_from(&decoder_config, 13)?, 0x05)?;
    aac::Configuration::parse(record).ok().map(Configuration::Aac)
}

/// The content of the first box of this kind among siblings.
fn find(siblings: &Bytes, kind: &[u8; 4]) -> Option<Bytes> {
    let mut start = 0_usize;
    loop {
        let head = siblings.get(start..start.checked_add(8)?)?;
        let size = usize::try_from(u32::from_be_bytes(head[..4].try_into().ok()?)).ok()?;
        let end = start.checked_add(size).filter(|end| size >= 8 && *end <= siblings.len())?;
        if &head[4..] == kind {
            return Some(siblings.slice(start + 8..end));
        }
        start = end;
    }
}

/// The content of the MPEG-4 descriptor that stands first, if it has this tag (ISO/IEC 14496-1 §8.3.3).
fn descriptor(bytes: &Bytes, tag: u8) -> Option<Bytes> {
    if *bytes.first()? != tag {
        return None;
    }
    let mut length = 0_usize;
    for position in 1..=4 {
        let byte = *bytes.get(position)?;
        length = length << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            let end = position + 1 + length;
            return (end <= bytes.len()).then(|| bytes.slice(position + 1..end));
        }
    }
    None
}

fn slice_from(bytes: &Bytes, start: usize) -> Option<Bytes> {
    (start <= bytes.len()).then(|| bytes.slice(start..))
}

/// Version and flags.
const FULL_BOX: usize = 4;
const ENTRY_COUNT: usize = 4;
/// What stands before the boxes of a `VisualSampleEntry`, in bytes (ISO/IEC 14496-12 §12.1.3).
const VISUAL_SAMPLE_ENTRY: usize = 78;
/// What stands before the boxes of an `AudioSampleEntry`, in bytes (§12.2.3).
const AUDIO_SAMPLE_ENTRY: usize = 28;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::codec::samples::{FFMPEG_AAC, HE_AAC, OBS_AVC, hex};
    use crate::isobmff::write_header;

    fn tracks() -> Vec<Track> {
        let avc = avc::Configuration::parse(hex(OBS_AVC)).unwrap();
        let mut tracks =
            vec![Track { id: TrackId::VIDEO, timescale: Timescale::VIDEO, configuration: Configuration::Avc(avc) }];
        for record in [FFMPEG_AAC, HE_AAC] {
            let aac = aac::Configuration::parse(hex(record)).unwrap();
            let timescale = Timescale::new(aac.sample_rate()).unwrap();
            tracks.push(Track { id: TrackId::AUDIO, timescale, configuration: Configuration::Aac(aac) });
        }
        tracks
    }

    fn written(track: &Track) -> Bytes {
        let mut header = BytesMut::new();
        write_header(track, &mut header);
        header.freeze()
    }

    #[test]
    fn what_was_written_is_read() {
        for track in tracks() {
            assert_eq!(read_header(&written(&track), track.id), Some(track));
        }
    }

    #[test]
    fn a_header_cut_anywhere_or_with_a_byte_changed_does_no_harm() {
        for track in tracks() {
            let header = written(&track);
            for end in 0..header.len() {
                let _ = read_header(&header.slice(..end), track.id);
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = header.to_vec();
                    changed[end] = byte;
                    let _ = read_header(&changed.into(), track.id);
                }
            }
        }
    }
}
