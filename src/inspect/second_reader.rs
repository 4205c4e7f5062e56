//! A second opinion: the crates mp4 and mp4-atom must read the same out of a file as we do.
//!
//! They see only what the box walker has found sound, see [`boxes`].

use std::io::Cursor;

use mp4_atom::Decode;

use super::boxes::{self, Mp4Box};
use super::finding::{Findings, Rule};
use super::header::Track;
use super::segment::SegmentMedia;

/// Compares the tracks of a header.
pub(super) fn compare_header(bytes: &[u8], ours: &[Track], place: &str, findings: &mut Findings) {
    let Ok(top) = boxes::boxes(bytes, 0) else { return };
    let Some(moov) = boxes::find(&top, b"moov") else { return };
    let is_plain = match boxes::check_tree(&moov) {
        Ok(is_plain) => is_plain,
        Err(bad) => return findings.fault(Rule::Header, place, bad.to_string()),
    };
    let ours: Vec<(u32, u32)> = ours.iter().map(|track| (track.id, track.timescale)).collect();
    let mut compare = |reader: &str, theirs: Result<Vec<(u32, u32)>, String>| match theirs {
        Ok(theirs) if theirs == ours => {}
        Ok(theirs) => {
            findings.fault(Rule::Header, place, format!("{reader} reads tracks {theirs:?}, we read {ours:?}"))
        }
        Err(why) => findings.fault(Rule::Header, place, format!("{reader} cannot read it: {why}")),
    };
    compare(
        "mp4-atom",
        mp4_atom::Moov::decode(&mut &*moov.whole)
            .map(|moov| moov.trak.iter().map(|trak| (trak.tkhd.track_id, trak.mdia.mdhd.timescale)).collect())
            .map_err(|error| error.to_string()),
    );
    if is_plain {
        let read = read_box::<mp4::MoovBox>(&moov);
        compare(
            "mp4",
            read.map(|moov| moov.traks.iter().map(|trak| (trak.tkhd.track_id, trak.mdia.mdhd.timescale)).collect()),
        );
    }
}

/// Compares the fragments of a segment: decode time, samples and their bytes.
pub(super) fn compare_fragments(moofs: &[Mp4Box<'_>], ours: &SegmentMedia, place: &str, findings: &mut Findings) {
    let (mut decode_time, mut samples, mut sample_bytes) = (None, 0, 0);
    for moof in moofs {
        match boxes::check_tree(moof) {
            Ok(true) => {}
            Ok(false) => return,
            Err(bad) => return findings.fault(Rule::Fragment, place, bad.to_string()),
        }
        let read = match read_box::<mp4::MoofBox>(moof) {
            Ok(read) => read,
            Err(why) => return findings.fault(Rule::Fragment, place, format!("mp4 cannot read a moof: {why}")),
        };
        for traf in &read.trafs {
            decode_time = decode_time.or_else(|| traf.tfdt.as_ref().map(|tfdt| tfdt.base_media_decode_time));
            let Some(trun) = &traf.trun else { continue };
            samples += u64::from(trun.sample_count);
            sample_bytes += match (trun.sample_sizes.is_empty(), traf.tfhd.default_sample_size) {
                (true, Some(size)) => u64::from(trun.sample_count) * u64::from(size),
                (true, None) => return,
                (false, _) => trun.sample_sizes.iter().map(|size| u64::from(*size)).sum(),
            };
        }
        // It knows one run a fragment.
        let trafs = moof.children(0).unwrap_or_default();
        let inside = trafs.iter().flat_map(|traf| traf.children(0).unwrap_or_default());
        if inside.filter(|found| found.kind == *b"trun").count() != read.trafs.len() {
            return;
        }
    }
    if (decode_time, samples, sample_bytes) != (ours.decode_time, ours.samples, ours.sample_bytes) {
        let message = format!(
            "mp4 reads {samples} samples of {sample_bytes} bytes from {decode_time:?}, we read {} of {} from {:?}",
            ours.samples, ours.sample_bytes, ours.decode_time
        );
        findings.fault(Rule::Fragment, place, message);
    }
}

/// Lets mp4 read one box and nothing beyond it.
fn read_box<'a, T>(found: &Mp4Box<'a>) -> Result<T, String>
where
    T: for<'b> mp4::ReadBox<&'b mut Cursor<&'a [u8]>>,
{
    let mut cursor = Cursor::new(found.whole);
    let size = mp4::BoxHeader::read(&mut cursor).map_err(|error| error.to_string())?.size;
    T::read_box(&mut cursor, size).map_err(|error| error.to_string())
}
