//! MP3 (MPEG-1 and MPEG-2 audio layer III), which has no sequence header: each frame says what it is.

use super::{Error, Sound};

/// What a frame header (ISO/IEC 11172-3 §2.4.1.3) says that may not change without a new CMAF header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration {
    /// MPEG-1; otherwise MPEG-2 or the 2.5 that everyone knows.
    is_mpeg1: bool,
    sound: Sound,
}

impl Configuration {
    /// The configuration of a frame.
    ///
    /// # Errors
    /// When it is no frame of layer III.
    pub fn of_frame(data: &[u8]) -> Result<Self, Error> {
        let &[sync, version_and_layer, rates, mode] = data.first_chunk().ok_or(Error::CutShort("MP3 frame header"))?;
        if sync != 0xff || version_and_layer & 0xe0 != 0xe0 {
            return Err(Error::Missing("MP3 sync word"));
        }
        let version = version_and_layer >> 3 & 0b11;
        let layer = version_and_layer >> 1 & 0b11;
        if layer != LAYER_III {
            return Err(Error::Unsupported { field: "MPEG audio layer", value: 4 - u64::from(layer) });
        }
        let halvings = match version {
            MPEG_1 => 0,
            MPEG_2 => 1,
            MPEG_2_5 => 2,
            other => return Err(Error::Invalid { field: "MPEG audio version", value: other.into() }),
        };
        let rate = rates >> 2 & 0b11;
        let Some(&full_rate) = SAMPLE_RATES.get(usize::from(rate)) else {
            return Err(Error::Invalid { field: "sampling frequency index", value: rate.into() });
        };
        let channels = if mode >> 6 == MONO { 1 } else { 2 };
        Ok(Self { is_mpeg1: version == MPEG_1, sound: Sound { sample_rate: full_rate >> halvings, channels } })
    }

    /// What comes out of the decoder.
    pub fn sound(&self) -> Sound {
        self.sound
    }

    /// Samples of each channel in a frame.
    pub fn samples_per_frame(&self) -> u32 {
        if self.is_mpeg1 { 1152 } else { 576 }
    }

    /// `objectTypeIndication`: ISO/IEC 11172-3 or 13818-3.
    pub fn object_type_indication(&self) -> u8 {
        if self.is_mpeg1 { 0x6b } else { 0x69 }
    }
}

const LAYER_III: u8 = 1;
const MPEG_1: u8 = 3;
const MPEG_2: u8 = 2;
const MPEG_2_5: u8 = 0;
const MONO: u8 = 3;
/// Of MPEG-1; MPEG-2 has half of them, 2.5 a quarter.
const SAMPLE_RATES: [u32; 3] = [44_100, 48_000, 32_000];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::hex;

    #[test]
    fn a_frame_says_what_it_is() {
        for (frame, rate, channels, samples, indication) in [
            // libmp3lame: 48 kHz joint stereo, 44.1 kHz mono, 22.05 kHz stereo, 8 kHz mono.
            ("fffb9464", 48_000, 2, 1152, 0x6b),
            ("fffb90c4", 44_100, 1, 1152, 0x6b),
            ("fff38044", 22_050, 2, 576, 0x69),
            ("ffe318c4", 8_000, 1, 576, 0x69),
        ] {
            let found = Configuration::of_frame(&hex(frame)).unwrap();
            assert_eq!(found.sound(), Sound { sample_rate: rate, channels }, "{frame}");
            assert_eq!((found.samples_per_frame(), found.object_type_indication()), (samples, indication), "{frame}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_in_words() {
        for (frame, words) in [
            ("fffb90", "the bytes end within the MP3 frame header"),
            ("494433 04", "there is no MP3 sync word"),
            ("fffd9064", "MPEG audio layer 2 is not supported"),
            ("ffeb9064", "1 is no MPEG audio version"),
            ("fffb9c64", "3 is no sampling frequency index"),
        ] {
            assert_eq!(Configuration::of_frame(&hex(frame)).unwrap_err().to_string(), words, "{frame}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..6)) {
            let _ = Configuration::of_frame(&data);
            let _ = Configuration::of_frame(&[&[0xff], &data[..]].concat());
        }
    }
}
