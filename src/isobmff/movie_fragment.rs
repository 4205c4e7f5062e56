//! Movie fragments: `moof` and the header of the `mdat` behind it. Written for each chunk, so by hand.

use bytes::{BufMut, BytesMut};

use super::{TRACK_ID, write_box, write_full_box};
use crate::media::Sample;

/// Samples of one track that go into one `moof` + `mdat`.
#[derive(Debug, Clone, Copy)]
pub struct MovieFragment<'a> {
    /// Counts the fragments of a track, from 1.
    pub sequence_number: u32,
    /// Decode time of the first sample, in ticks.
    pub base_media_decode_time: u64,
    /// The samples in decode order, at least one.
    pub samples: &'a [Sample],
}

impl MovieFragment<'_> {
    /// Writes `moof` and the header of `mdat`. The samples' bytes have to follow directly, in their order.
    pub fn write(&self, out: &mut BytesMut) {
        debug_assert!(!self.samples.is_empty(), "a fragment without samples");
        let layout = Layout::of(self.samples);
        let moof = out.len();
        let mut data_offset_at = 0;
        write_box(out, b"moof", |out| {
            write_full_box(out, b"mfhd", 0, 0, |out| out.put_u32(self.sequence_number));
            write_box(out, b"traf", |out| {
                layout.write_tfhd(out);
                write_tfdt(self.base_media_decode_time, out);
                data_offset_at = layout.write_trun(self.samples, out);
            });
        });
        write_mdat_header(self.payload_bytes(), out);
        let data_offset = u32::try_from(out.len() - moof).expect("a moof is far smaller than 4 GiB");
        out[data_offset_at..data_offset_at + 4].copy_from_slice(&data_offset.to_be_bytes());
    }

    /// Bytes of all samples together.
    pub fn payload_bytes(&self) -> u64 {
        self.samples.iter().map(|sample| sample.data.len() as u64).sum()
    }
}

/// Which fields all samples share, and which `trun` must give for each.
#[derive(Debug)]
struct Layout {
    duration: Option<u32>,
    size: Option<u32>,
    flags: Flags,
    has_composition_offsets: bool,
}

/// How samples' flags are given.
#[derive(Debug, PartialEq, Eq)]
enum Flags {
    /// All have these.
    Same(u32),
    /// The first is a sync sample, the others are not.
    FirstIsSync,
    /// Each has its own.
    Each,
}

impl Layout {
    fn of(samples: &[Sample]) -> Self {
        let Some((first, others)) = samples.split_first() else {
            return Self { duration: None, size: None, flags: Flags::Same(SYNC), has_composition_offsets: false };
        };
        let flags = if others.iter().all(|sample| sample.is_sync == first.is_sync) {
            Flags::Same(flags(first))
        } else if first.is_sync && !others.iter().any(|sample| sample.is_sync) {
            Flags::FirstIsSync
        } else {
            Flags::Each
        };
        Self {
            duration: others.iter().all(|sample| sample.duration == first.duration).then_some(first.duration),
            size: others.iter().all(|sample| sample.data.len() == first.data.len()).then(|| size(first)),
            flags,
            has_composition_offsets: samples.iter().any(|sample| sample.composition_offset != 0),
        }
    }

    /// `TrackFragmentHeaderBox`, §8.8.7.
    fn write_tfhd(&self, out: &mut BytesMut) {
        let default_flags = match self.flags {
            Flags::Same(flags) => Some(flags),
            Flags::FirstIsSync => Some(NON_SYNC),
            Flags::Each => None,
        };
        let box_flags = DEFAULT_BASE_IS_MOOF
            | if self.duration.is_some() { DEFAULT_SAMPLE_DURATION } else { 0 }
            | if self.size.is_some() { DEFAULT_SAMPLE_SIZE } else { 0 }
            | if default_flags.is_some() { DEFAULT_SAMPLE_FLAGS } else { 0 };
        write_full_box(out, b"tfhd", 0, box_flags, |out| {
            out.put_u32(TRACK_ID);
            for field in [self.duration, self.size, default_flags].into_iter().flatten() {
                out.put_u32(field);
            }
        });
    }

    /// `TrackRunBox`, §8.8.8. Returns where in `out` its data offset stands.
    fn write_trun(&self, samples: &[Sample], out: &mut BytesMut) -> usize {
        let box_flags = DATA_OFFSET
            | if self.flags == Flags::FirstIsSync { FIRST_SAMPLE_FLAGS } else { 0 }
            | if self.duration.is_none() { SAMPLE_DURATION } else { 0 }
            | if self.size.is_none() { SAMPLE_SIZE } else { 0 }
            | if self.flags == Flags::Each { SAMPLE_FLAGS } else { 0 }
            | if self.has_composition_offsets { SAMPLE_COMPOSITION_TIME_OFFSETS } else { 0 };
        // Version 1 has signed composition offsets.
        let version = u8::from(self.has_composition_offsets);
        let mut data_offset_at = 0;
        write_full_box(out, b"trun", version, box_flags, |out| {
            out.put_u32(u32::try_from(samples.len()).expect("a fragment holds far fewer than 2^32 samples"));
            data_offset_at = out.len();
            out.put_u32(0);
            if self.flags == Flags::FirstIsSync {
                out.put_u32(SYNC);
            }
            for sample in samples {
                if self.duration.is_none() {
                    out.put_u32(sample.duration);
                }
                if self.size.is_none() {
                    out.put_u32(size(sample));
                }
                if self.flags == Flags::Each {
                    out.put_u32(flags(sample));
                }
                if self.has_composition_offsets {
                    out.put_i32(sample.composition_offset);
                }
            }
        });
        data_offset_at
    }
}

/// `TrackFragmentBaseMediaDecodeTimeBox`, §8.8.12; 64 bits only when the time needs them.
fn write_tfdt(base_media_decode_time: u64, out: &mut BytesMut) {
    match u32::try_from(base_media_decode_time) {
        Ok(time) => write_full_box(out, b"tfdt", 0, 0, |out| out.put_u32(time)),
        Err(_) => write_full_box(out, b"tfdt", 1, 0, |out| out.put_u64(base_media_decode_time)),
    }
}

/// `MediaDataBox`, §8.1.1, without its data.
fn write_mdat_header(payload_bytes: u64, out: &mut BytesMut) {
    match u32::try_from(payload_bytes + 8) {
        Ok(size) => {
            out.put_u32(size);
            out.put_slice(b"mdat");
        }
        Err(_) => {
            out.put_u32(1);
            out.put_slice(b"mdat");
            out.put_u64(payload_bytes + 16);
        }
    }
}

fn size(sample: &Sample) -> u32 {
    u32::try_from(sample.data.len()).expect("an RTMP message, and so a sample, is shorter than 2^24 bytes")
}

fn flags(sample: &Sample) -> u32 {
    if sample.is_sync { SYNC } else { NON_SYNC }
}

/// Sample flags (§8.8.3.1): depends on no other sample.
const SYNC: u32 = 0x0200_0000;
/// Sample flags: depends on others, and is no sync sample.
const NON_SYNC: u32 = 0x0101_0000;

// Flags of tfhd.
const DEFAULT_SAMPLE_DURATION: u32 = 0x00_0008;
const DEFAULT_SAMPLE_SIZE: u32 = 0x00_0010;
const DEFAULT_SAMPLE_FLAGS: u32 = 0x00_0020;
const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;

// Flags of trun.
const DATA_OFFSET: u32 = 0x00_0001;
const FIRST_SAMPLE_FLAGS: u32 = 0x00_0004;
const SAMPLE_DURATION: u32 = 0x00_0100;
const SAMPLE_SIZE: u32 = 0x00_0200;
const SAMPLE_FLAGS: u32 = 0x00_0400;
const SAMPLE_COMPOSITION_TIME_OFFSETS: u32 = 0x00_0800;
