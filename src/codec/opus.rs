//! Opus: the identification header, and the duration of packets.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Error, Sound, check_length};

/// An `OpusHead` (RFC 7845 §5.1) that has been parsed. Two are equal when what they say is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    channels: u8,
    /// The body of `dOps`.
    record: Bytes,
}

impl Configuration {
    /// Parses the body of a sequence header.
    ///
    /// # Errors
    /// When it is cut short, or of a version, a number of channels or a channel mapping that we do not know.
    pub fn parse(head: Bytes) -> Result<Self, Error> {
        check_length(&head, MOST_HEAD_BYTES)?;
        let fields = head.strip_prefix(b"OpusHead").ok_or(Error::Missing("OpusHead"))?;
        let Some((&[version, channels, skip_0, skip_1, r0, r1, r2, r3, gain_0, gain_1, family], mapping)) =
            fields.split_first_chunk::<11>()
        else {
            return Err(Error::CutShort("OpusHead"));
        };
        if version > LAST_COMPATIBLE_VERSION {
            return Err(Error::Unsupported { field: "OpusHead version", value: version.into() });
        }
        if !(1..=MOST_CHANNELS).contains(&channels) || family == 0 && channels > 2 {
            return Err(Error::Invalid { field: "number of channels", value: channels.into() });
        }
        let mapping: &[u8] = match family {
            0 => &[],
            _ => mapping.get(..2 + usize::from(channels)).ok_or(Error::CutShort("OpusHead"))?,
        };
        // `dOps` (Opus in ISOBMFF §4.3.2): the same fields, in network byte order and with a version of its own.
        let mut record = BytesMut::with_capacity(11 + mapping.len());
        record.put_slice(&[0, channels, skip_1, skip_0, r3, r2, r1, r0, gain_1, gain_0, family]);
        record.put_slice(mapping);
        Ok(Self { channels, record: record.freeze() })
    }

    /// The body of `dOps`.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// What comes out of the decoder: always 48 kHz.
    pub fn sound(&self) -> Sound {
        Sound { sample_rate: SAMPLE_RATE, channels: self.channels }
    }
}

/// Samples at 48 kHz that a packet decodes to (RFC 6716 §3.1, §3.2); it may be another number with each packet.
///
/// # Errors
/// When there is nothing in it, or more than a packet may last.
pub fn samples(packet: &[u8]) -> Result<u32, Error> {
    let &toc = packet.first().ok_or(Error::CutShort("Opus packet"))?;
    let frame = match toc >> 3 {
        // SILK: 10, 20, 40, 60 ms.
        configuration @ 0..12 => [480, 960, 1920, 2880][usize::from(configuration % 4)],
        // Hybrid: 10, 20 ms.
        configuration @ 12..16 => [480, 960][usize::from(configuration % 2)],
        // CELT: 2.5, 5, 10, 20 ms.
        configuration => [120, 240, 480, 960][usize::from(configuration % 4)],
    };
    let frames = match toc & 0b11 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(*packet.get(1).ok_or(Error::CutShort("Opus packet"))? & 0b11_1111),
    };
    match frame * frames {
        samples @ 1..=MOST_SAMPLES => Ok(samples),
        samples => Err(Error::Invalid { field: "number of samples in an Opus packet", value: samples.into() }),
    }
}

const SAMPLE_RATE: u32 = 48_000;
/// 120 ms.
const MOST_SAMPLES: u32 = 5_760;
const MOST_CHANNELS: u8 = 8;
/// Versions with the same upper four bits are compatible.
const LAST_COMPATIBLE_VERSION: u8 = 15;
const MOST_HEAD_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::{FFMPEG_OPUS, hex};

    #[test]
    fn heads_become_the_box_in_network_byte_order() {
        let stereo = Configuration::parse(hex(FFMPEG_OPUS)).unwrap();
        assert_eq!(stereo.record(), &hex("00 02 0138 0000bb80 0000 00"));
        assert_eq!(stereo.sound(), Sound { sample_rate: 48_000, channels: 2 });
        let surround =
            Configuration::parse(hex("4f70757348656164 01 06 3801 80bb0000 0000 01 0402 000401020305")).unwrap();
        assert_eq!(surround.record(), &hex("00 06 0138 0000bb80 0000 01 0402 000401020305"));
        assert_eq!(surround.sound().channels, 6);
    }

    #[test]
    fn each_packet_tells_its_duration() {
        // 20 ms CELT; 10 ms hybrid, two of them; 60 ms SILK; 2.5 ms; six of 20 ms.
        for (packet, expected) in
            [("fc7e", 960), ("6100", 960), ("18", 2880), ("80", 120), ("fb 06", 5760), ("e1", 240)]
        {
            assert_eq!(samples(&hex(packet)), Ok(expected), "{packet}");
        }
        assert_eq!(samples(&[]), Err(Error::CutShort("Opus packet")));
        assert_eq!(samples(&hex("fb")), Err(Error::CutShort("Opus packet")));
        assert_eq!(samples(&hex("fb00")).unwrap_err().to_string(), "0 is no number of samples in an Opus packet");
        assert!(samples(&hex("fb07")).is_err());
    }

    #[test]
    fn what_is_no_head_is_refused_in_words() {
        for (head, words) in [
            ("", "the record is empty"),
            ("4f707573", "there is no OpusHead"),
            ("4f70757348656164 0102", "the bytes end within the OpusHead"),
            ("4f70757348656164 10 02 3801 80bb0000 0000 00", "OpusHead version 16 is not supported"),
            ("4f70757348656164 01 03 3801 80bb0000 0000 00", "3 is no number of channels"),
            ("4f70757348656164 01 03 3801 80bb0000 0000 01 0201", "the bytes end within the OpusHead"),
        ] {
            assert_eq!(Configuration::parse(hex(head)).unwrap_err().to_string(), words, "{head}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..40)) {
            let head = [b"OpusHead", &data[..]].concat();
            let _ = (Configuration::parse(head.into()), samples(&data));
        }
    }
}
