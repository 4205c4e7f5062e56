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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mp4_atom::ReadFrom;
    use proptest::prelude::*;

    use super::*;
    use crate::isobmff::listing::listing;

    /// Samples of `(duration, size, composition_offset, is_sync)`.
    fn samples(fields: &[(u32, usize, i32, bool)]) -> Vec<Sample> {
        let mut decode_time = 0;
        let sample = |&(duration, size, composition_offset, is_sync): &(u32, usize, i32, bool)| {
            let data = Bytes::from(vec![0; size]);
            let sample = Sample { decode_time, composition_offset, duration, is_sync, is_open_gop: false, data };
            decode_time += u64::from(duration);
            sample
        };
        fields.iter().map(sample).collect()
    }

    fn written(base_media_decode_time: u64, samples: &[Sample]) -> BytesMut {
        let mut out = BytesMut::new();
        MovieFragment { sequence_number: 7, base_media_decode_time, samples }.write(&mut out);
        out
    }

    #[test]
    fn audio_in_full() {
        let samples = samples(&[(1024, 170, 0, true), (1024, 171, 0, true), (1024, 169, 0, true)]);
        let expected = "
moof 104
  mfhd 16 00000000 00000007
  traf 80
    tfhd 24 00020028 00000001 00000400 02000000
    tfdt 16 00000000 0000bb80
    trun 32 00000201 00000003 00000070 000000aa 000000ab 000000a9
mdat 518
";
        assert_eq!(listing(&written(48_000, &samples)), expected);
    }

    #[test]
    fn video_with_b_pictures_in_full() {
        let samples = samples(&[(3000, 900, 6000, true), (3000, 100, 15_000, false), (3000, 50, -3000, false)]);
        let expected = "
moof 124
  mfhd 16 00000000 00000007
  traf 100
    tfhd 24 00020028 00000001 00000bb8 01010000
    tfdt 20 01000000 00000001 +4
    trun 48 01000a05 00000003 00000084 02000000 00000384 00001770 00000064 00003a98 00000032 fffff448
mdat 1058
";
        assert_eq!(listing(&written(1 << 32, &samples)), expected);
    }

    #[test]
    fn fields_that_differ_stand_in_the_run_and_no_others() {
        let samples = samples(&[(3000, 9, 0, true), (3003, 9, 0, false), (3000, 9, 0, true)]);
        let expected = "
moof 112
  mfhd 16 00000000 00000007
  traf 88
    tfhd 20 00020010 00000001 00000009
    tfdt 16 +8
    trun 44 00000501 00000003 00000078 00000bb8 02000000 00000bbb 01010000 00000bb8 02000000
mdat 35
";
        assert_eq!(listing(&written(0, &samples)), expected);
    }

    #[test]
    fn a_fragment_of_one_sample_in_full() {
        let expected = "
moof 96
  mfhd 16 00000000 00000007
  traf 72
    tfhd 28 00020038 00000001 00000bb8 00000005 01010000
    tfdt 16 00000000 00015f90
    trun 20 00000001 00000001 00000068
mdat 13
";
        assert_eq!(listing(&written(90_000, &samples(&[(3000, 5, 0, false)]))), expected);
    }

    #[test]
    fn what_surrounds_two_seconds_of_audio_at_64_kbit_a_second_is_three_percent() {
        // 94 frames of 1024 samples at 48 kHz.
        let frames: Vec<_> = (0..94).map(|at| (1024, 170 + at % 2, 0, true)).collect();
        let samples = samples(&frames);
        let overhead = written(1_000_000, &samples).len();
        assert_eq!(overhead, 100 + 4 * samples.len());
        assert!(overhead * 100 <= 3 * 16_000, "{overhead} bytes");
    }

    #[test]
    fn mdat_has_a_long_size_when_it_needs_one() {
        let mut out = BytesMut::new();
        write_mdat_header(u64::from(u32::MAX) - 8, &mut out);
        assert_eq!(&out[..], b"\xff\xff\xff\xffmdat");
        out.clear();
        write_mdat_header(u64::from(u32::MAX) - 7, &mut out);
        assert_eq!(&out[..], b"\0\0\0\x01mdat\0\0\0\x01\0\0\0\x08");
    }

    #[test]
    fn what_stood_in_the_buffer_before_stays() {
        let samples = samples(&[(1024, 10, 0, true)]);
        let alone = written(5, &samples);
        let mut out = BytesMut::from(&b"before"[..]);
        MovieFragment { sequence_number: 7, base_media_decode_time: 5, samples: &samples }.write(&mut out);
        assert_eq!(&out[..6], b"before");
        assert_eq!(out[6..], alone);
    }

    /// What a reader makes of a fragment: sequence number, decode time, data offset and samples.
    type Found = (u32, u64, i32, Vec<FoundSample>);
    /// Defaults applied: duration, size, composition offset, flags.
    type FoundSample = (u32, u32, i64, u32);

    fn read_by_mp4_atom(fragment: &mut &[u8]) -> Found {
        let moof = mp4_atom::Moof::read_from(fragment).unwrap();
        let [traf] = &moof.traf[..] else { panic!("one track") };
        let [trun] = &traf.trun[..] else { panic!("one run") };
        let tfhd = &traf.tfhd;
        assert_eq!((tfhd.track_id, tfhd.base_data_offset, tfhd.default_base_is_moof), (TRACK_ID, None, true));
        let samples = trun.samples.iter().map(|sample| {
            (
                sample.duration.or(tfhd.default_sample_duration).unwrap(),
                sample.size.or(tfhd.default_sample_size).unwrap(),
                sample.cts.unwrap_or(0),
                sample.flags.or(tfhd.default_sample_flags).unwrap(),
            )
        });
        let time = traf.tfdt.as_ref().unwrap().base_media_decode_time;
        (moof.mfhd.sequence_number, time, trun.data_offset.unwrap(), samples.collect())
    }

    /// The same by `mp4`, which knows composition offsets as unsigned only.
    fn read_by_mp4(fragment: &[u8]) -> Found {
        use mp4::ReadBox;

        let mut reader = std::io::Cursor::new(fragment);
        let header = mp4::BoxHeader::read(&mut reader).unwrap();
        let moof = mp4::MoofBox::read_box(&mut reader, header.size).unwrap();
        let [traf] = &moof.trafs[..] else { panic!("one track") };
        let (tfhd, trun) = (&traf.tfhd, traf.trun.as_ref().unwrap());
        let samples = (0..trun.sample_count as usize).map(|at| {
            let first_flags = trun.first_sample_flags.filter(|_| at == 0);
            (
                trun.sample_durations.get(at).copied().or(tfhd.default_sample_duration).unwrap(),
                trun.sample_sizes.get(at).copied().or(tfhd.default_sample_size).unwrap(),
                trun.sample_cts.get(at).map_or(0, |&offset| i64::from(offset.cast_signed())),
                trun.sample_flags.get(at).copied().or(first_flags).or(tfhd.default_sample_flags).unwrap(),
            )
        });
        let time = traf.tfdt.as_ref().unwrap().base_media_decode_time;
        (moof.mfhd.sequence_number, time, trun.data_offset.unwrap(), samples.collect())
    }

    fn any_samples() -> impl Strategy<Value = Vec<Sample>> {
        // Few values, so that equal fields come up; and any values.
        let duration = prop_oneof![Just(3000_u32), Just(3003), 1..u32::MAX];
        let size = prop_oneof![Just(100_usize), 1..3000_usize];
        let offset = prop_oneof![3 => Just(0), 1 => any::<i32>()];
        let fields = (duration, size, offset, any::<bool>());
        prop::collection::vec(fields, 1..12).prop_map(|fields| samples(&fields))
    }

    proptest! {
        #[test]
        fn other_readers_find_every_field(
            samples in any_samples(),
            sync in 0..4_u8,
            time in prop_oneof![any::<u64>(), any::<u32>().prop_map(u64::from)],
        ) {
            let mut samples = samples;
            for (at, sample) in samples.iter_mut().enumerate() {
                match sync {
                    0 => sample.is_sync = true,
                    1 => sample.is_sync = false,
                    2 => sample.is_sync = at == 0,
                    _ => {}
                }
            }
            let fragment = written(time, &samples);
            let wanted: Vec<_> = samples
                .iter()
                .map(|sample| (sample.duration, size(sample), i64::from(sample.composition_offset), flags(sample)))
                .collect();
            let data_offset = i32::try_from(fragment.len()).unwrap();
            let mut rest = &fragment[..];
            prop_assert_eq!(read_by_mp4_atom(&mut rest), (7, time, data_offset, wanted.clone()));
            let payload: usize = samples.iter().map(|sample| sample.data.len()).sum();
            let mdat = [&u32::try_from(payload + 8).unwrap().to_be_bytes()[..], b"mdat"].concat();
            prop_assert_eq!(rest, &mdat[..]);
            prop_assert_eq!(read_by_mp4(&fragment), (7, time, data_offset, wanted));
        }
    }
}
