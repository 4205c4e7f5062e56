//! FLAC: the stream's metadata, and the length of frames.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::Bits;
use super::{Error, Sound, check_length};

/// A `STREAMINFO` block (RFC 9639 §8.2) that has been parsed. Two are equal when decoders need to know nothing new: frame sizes,
/// number of samples and checksum, which encoders know at the end only, do not count.
#[derive(Debug, Clone, Eq)]
pub struct Configuration {
    /// The body of `dfLa`.
    record: Bytes,
    sound: Sound,
    bits_per_sample: u8,
}

impl PartialEq for Configuration {
    fn eq(&self, other: &Self) -> bool {
        let of = |configuration: &Self| (configuration.sound, configuration.bits_per_sample);
        of(self) == of(other) && self.record[BLOCK_SIZES] == other.record[BLOCK_SIZES]
    }
}

impl Configuration {
    /// Parses the body of a sequence header: `fLaC` and metadata blocks, or the blocks alone, or, as ffmpeg sends it, the
    /// inside of `STREAMINFO` alone. Blocks behind the first (tags, pictures) are left out.
    ///
    /// # Errors
    /// When it is cut short, or its sample rate or channels cannot be carried.
    pub fn parse(body: Bytes) -> Result<Self, Error> {
        check_length(&body, MOST_RECORD_BYTES)?;
        let blocks = body.strip_prefix(b"fLaC").unwrap_or(&body);
        let info = match *blocks {
            [kind, 0, 0, STREAM_INFO_SIZE, ref info @ ..] if kind & 0x7f == 0 => info,
            _ => blocks,
        };
        let info = info.get(..STREAM_INFO_SIZE.into()).ok_or(Error::CutShort("FLAC stream info"))?;
        let mut bits = Bits::new(&info[10..], "FLAC stream info");
        let sample_rate = bits.read(20)?;
        let channels = bits.read_u8(3)? + 1;
        let bits_per_sample = bits.read_u8(5)? + 1;
        if sample_rate == 0 {
            return Err(Error::Invalid { field: "sample rate", value: 0 });
        }
        // `FLACSpecificBox` (FLAC in ISOBMFF §3.3.2): version and flags, then the blocks; this one is the last.
        let mut record = BytesMut::with_capacity(8 + info.len());
        record.put_u32(0);
        record.put_slice(&[LAST_BLOCK, 0, 0, STREAM_INFO_SIZE]);
        record.put_slice(info);
        Ok(Self { record: record.freeze(), sound: Sound { sample_rate, channels }, bits_per_sample })
    }

    /// The body of `dfLa`, version and flags among it.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// What comes out of the decoder.
    pub fn sound(&self) -> Sound {
        self.sound
    }

    /// Bits in each sample, 4 to 32.
    pub fn bits_per_sample(&self) -> u8 {
        self.bits_per_sample
    }

    /// Samples of each channel in a frame (§9.1); the last one of a stream may be shorter.
    ///
    /// # Errors
    /// When it is no frame.
    pub fn samples(&self, frame: &[u8]) -> Result<u32, Error> {
        let mut bits = Bits::new(frame, "FLAC frame header");
        if bits.read(15)? != SYNC_CODE {
            return Err(Error::Missing("FLAC sync code"));
        }
        let _has_variable_block_size = bits.flag()?;
        let block_size = bits.read(4)?;
        bits.skip(4 + 4 + 3 + 1)?;
        // The coded number: as many bytes as the ones at the start of the first say, as in UTF-8.
        let more = bits.read_u8(8)?.leading_ones().saturating_sub(1);
        bits.skip(8 * more as usize)?;
        match block_size {
            0 => Err(Error::Invalid { field: "FLAC block size", value: 0 }),
            1 => Ok(192),
            2..=5 => Ok(144 << block_size),
            6 => Ok(bits.read(8)? + 1),
            7 => Ok(bits.read(16)? + 1),
            _ => Ok(1 << block_size),
        }
    }
}

const LAST_BLOCK: u8 = 0x80;
/// Where the smallest and the largest block size stand in the body of `dfLa`.
const BLOCK_SIZES: Range<usize> = 8..12;
const STREAM_INFO_SIZE: u8 = 34;
const SYNC_CODE: u32 = 0b111_1111_1111_1100;

/// Pictures and tags may stand behind what we want.
const MOST_RECORD_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::{FFMPEG_FLAC, hex};

    #[test]
    fn all_ways_to_send_the_stream_info_come_out_alike() {
        let found = Configuration::parse(hex(FFMPEG_FLAC)).unwrap();
        assert_eq!(found.record(), &hex(&format!("00000000 80000022 {FFMPEG_FLAC}")));
        assert_eq!(found.sound(), Sound { sample_rate: 48_000, channels: 2 });
        assert_eq!(found.bits_per_sample(), 16);
        for form in ["80000022", "664c6143 00000022", "664c6143 80000022"] {
            assert_eq!(Configuration::parse(hex(&format!("{form} {FFMPEG_FLAC}"))), Ok(found.clone()), "{form}");
        }
        let with_tags = hex(&format!("664c6143 00000022 {FFMPEG_FLAC} 84000004 00000000"));
        assert_eq!(Configuration::parse(with_tags), Ok(found));
    }

    #[test]
    fn what_encoders_know_at_the_end_only_makes_no_other_configuration() {
        let first = hex(FFMPEG_FLAC);
        let of = |place: usize, byte: u8| {
            let mut info = first.to_vec();
            info[place] = byte;
            Configuration::parse(info.into()).unwrap()
        };
        let first = Configuration::parse(first.clone()).unwrap();
        // The largest frame, the number of samples, the checksum; the largest block, the sample rate.
        assert_eq!([9, 17, 33].map(|place| of(place, 1) == first), [true; 3]);
        assert_eq!([2, 10].map(|place| of(place, 9) == first), [false; 2]);
    }

    #[test]
    fn each_frame_tells_its_length() {
        let configuration = Configuration::parse(hex(FFMPEG_FLAC)).unwrap();
        for (frame, expected) in [
            ("fff8aa88005b4c", 1024),
            ("fff8 1a88 00", 192),
            ("fff8 5a88 00", 4608),
            ("fff9 7a88 f09f9880 0fff", 4096),
            ("fff8 6a88 c280 3f", 64),
        ] {
            assert_eq!(configuration.samples(&hex(frame)), Ok(expected), "{frame}");
        }
        assert_eq!(configuration.samples(&hex("fff7aa8800")), Err(Error::Missing("FLAC sync code")));
        assert_eq!(configuration.samples(&hex("fff87a8800ff")), Err(Error::CutShort("FLAC frame header")));
        assert!(configuration.samples(&hex("fff80a8800ff")).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(found) = Configuration::parse(data.clone().into()) {
                prop_assert!(found.sound().sample_rate > 0 && found.sound().channels <= 8);
                if let Ok(samples) = found.samples(&[&[0xff, 0xf8], &data[..]].concat()) {
                    prop_assert!(samples > 0);
                }
            }
        }
    }
}
