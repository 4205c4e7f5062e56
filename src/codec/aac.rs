//! AAC and HE-AAC: the `AudioSpecificConfig`.

use bytes::Bytes;

use super::bits::Bits;
use super::{Error, Sound, check_length};

/// An `AudioSpecificConfig` (ISO/IEC 14496-3 §1.6.2.1) that has been parsed. Two are equal when their bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    record: Bytes,
    object_type: u8,
    core_sample_rate: u32,
    sample_rate: u32,
    channels: u8,
    samples_per_frame: u32,
    extension: Extension,
}

/// What is added to the AAC core, as far as the configuration says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extension {
    /// Plain AAC, or an extension that is only found by decoding.
    #[default]
    None,
    /// Spectral band replication: HE-AAC.
    Sbr,
    /// Parametric stereo on top: HE-AAC v2.
    ParametricStereo,
}

impl Configuration {
    /// Parses the body of a legacy or enhanced sequence header.
    ///
    /// # Errors
    /// When it is empty (ffmpeg relaying MPEG-TS sends that: pass over it) or cut short, or when its object type, rate or
    /// channels are none that AAC or HE-AAC has.
    pub fn parse(record: Bytes) -> Result<Self, Error> {
        check_length(&record, MOST_RECORD_BYTES)?;
        let mut bits = Bits::new(&record, "AudioSpecificConfig");
        let mut object_type = bits.object_type()?;
        let core_sample_rate = bits.sample_rate()?;
        let channel_configuration = bits.read_u8(4)?;
        let mut extension = Extension::None;
        let mut sample_rate = core_sample_rate;
        // Hierarchical signalling: the extension first, then its core.
        if let Some(announced) = Extension::of(object_type) {
            extension = announced;
            sample_rate = bits.sample_rate()?;
            object_type = bits.object_type()?;
        }
        if !(AAC_MAIN..=AAC_LTP).contains(&object_type) {
            return Err(Error::Unsupported { field: "AAC object type", value: object_type.into() });
        }
        // GASpecificConfig, §4.4.1.
        let core_samples_per_frame = if bits.read(1)? == 1 { 960 } else { 1024 };
        if bits.read(1)? == 1 {
            bits.skip(CORE_CODER_DELAY_BITS)?;
        }
        let _extension_flag = bits.read(1)?;
        let core_channels = match channel_configuration {
            0 => bits.program_config_element()?,
            1..=6 => channel_configuration,
            11 => 7,
            7 | 12 | 14 => 8,
            other => return Err(Error::Invalid { field: "channel configuration", value: other.into() }),
        };
        if !(1..=MOST_CHANNELS).contains(&core_channels) {
            return Err(Error::Invalid { field: "number of channels", value: core_channels.into() });
        }
        // Backward compatible signalling: the core first, the extension behind it.
        if extension == Extension::None
            && let Some((found, rate)) = bits.sync_extension()
        {
            extension = found;
            sample_rate = rate;
        }
        Ok(Self {
            object_type,
            core_sample_rate,
            sample_rate,
            channels: if extension == Extension::ParametricStereo { core_channels.max(2) } else { core_channels },
            samples_per_frame: core_samples_per_frame * upsampling(core_sample_rate, sample_rate)?,
            extension,
            record,
        })
    }

    /// The record for `esds`, byte for byte as it came.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// Audio object type of the core: 2 is AAC-LC.
    pub fn object_type(&self) -> u8 {
        self.object_type
    }

    /// What is added to the core.
    pub fn extension(&self) -> Extension {
        self.extension
    }

    /// Samples a second of the core; half of [`Configuration::sample_rate`] with SBR.
    pub fn core_sample_rate(&self) -> u32 {
        self.core_sample_rate
    }

    /// Samples a second, as decoded; never 0.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Channels as decoded, 1 to 8.
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// What comes out of the decoder.
    pub fn sound(&self) -> Sound {
        Sound { sample_rate: self.sample_rate, channels: self.channels }
    }

    /// Samples that a frame decodes to, at [`Configuration::sample_rate`]: 1024 or 960, and twice that with SBR.
    pub fn samples_per_frame(&self) -> u32 {
        self.samples_per_frame
    }

    /// `mp4a.40.2`, `.5` with SBR, `.29` with parametric stereo (RFC 6381 §3.3).
    pub fn rfc6381(&self) -> String {
        let object_type = match self.extension {
            Extension::None => self.object_type,
            Extension::Sbr => SBR,
            Extension::ParametricStereo => PS,
        };
        format!("mp4a.40.{object_type}")
    }
}

impl Extension {
    /// The extension that an object type announces.
    fn of(object_type: u8) -> Option<Self> {
        match object_type {
            SBR => Some(Self::Sbr),
            PS => Some(Self::ParametricStereo),
            _ => None,
        }
    }
}

/// How many samples come out for each of the core's: SBR doubles them, or leaves them when it only refines.
fn upsampling(core_sample_rate: u32, sample_rate: u32) -> Result<u32, Error> {
    if sample_rate == core_sample_rate {
        return Ok(1);
    }
    if sample_rate == 2 * core_sample_rate {
        return Ok(2);
    }
    Err(Error::Invalid { field: "SBR sample rate", value: sample_rate.into() })
}

impl Bits<'_> {
    /// `GetAudioObjectType()`.
    fn object_type(&mut self) -> Result<u8, Error> {
        match self.read_u8(5)? {
            31 => Ok(32 + self.read_u8(6)?),
            object_type => Ok(object_type),
        }
    }

    /// `samplingFrequencyIndex`, and `samplingFrequency` where that is 15.
    fn sample_rate(&mut self) -> Result<u32, Error> {
        let index = self.read_u8(4)?;
        if let Some(&rate) = SAMPLE_RATES.get(usize::from(index)) {
            return Ok(rate);
        }
        if index != 15 {
            return Err(Error::Invalid { field: "sampling frequency index", value: index.into() });
        }
        match self.read(24)? {
            rate @ 1..=HIGHEST_SAMPLE_RATE => Ok(rate),
            rate => Err(Error::Invalid { field: "sample rate", value: rate.into() }),
        }
    }

    /// Counts the channels of a `program_config_element()` (§4.4.1.1).
    fn program_config_element(&mut self) -> Result<u8, Error> {
        let _tag_object_type_and_rate = self.read(4 + 2 + 4)?;
        let [front, side, back] = [self.read(4)?, self.read(4)?, self.read(4)?];
        let lfe = self.read(2)?;
        let [associated_data, coupling] = [self.read(3)?, self.read(4)?];
        for mixdown_bits in [4, 4, 3] {
            if self.read(1)? == 1 {
                self.skip(mixdown_bits)?;
            }
        }
        let mut channels = lfe;
        for _ in 0..front + side + back {
            let is_pair = self.read(1)?;
            channels += 1 + is_pair;
            self.skip(4)?;
        }
        for _ in 0..lfe + associated_data {
            self.skip(4)?;
        }
        for _ in 0..coupling {
            self.skip(5)?;
        }
        self.align();
        let comment_bytes = self.read(8)?;
        for _ in 0..comment_bytes {
            self.skip(8)?;
        }
        Ok(u8::try_from(channels).expect("at most 45 elements of 2 channels and 3 LFE"))
    }

    /// The extension behind the core's configuration, and the rate with it. Bytes of any other kind there are nothing to us.
    fn sync_extension(&mut self) -> Option<(Extension, u32)> {
        if self.read(11).ok()? != SYNC_EXTENSION_SBR || self.object_type().ok()? != SBR || self.read(1).ok()? == 0 {
            return None;
        }
        let sample_rate = self.sample_rate().ok()?;
        let has_parametric_stereo = self.read(11) == Ok(SYNC_EXTENSION_PS) && self.read(1) == Ok(1);
        let extension = if has_parametric_stereo { Extension::ParametricStereo } else { Extension::Sbr };
        Some((extension, sample_rate))
    }
}

const AAC_MAIN: u8 = 1;
const AAC_LTP: u8 = 4;
const SBR: u8 = 5;
const PS: u8 = 29;

const CORE_CODER_DELAY_BITS: usize = 14;
const SYNC_EXTENSION_SBR: u32 = 0x2b7;
const SYNC_EXTENSION_PS: u32 = 0x548;

/// As many as HLS players are known to take.
const MOST_CHANNELS: u8 = 8;

/// Of an explicit sample rate; the table ends at 96 000.
const HIGHEST_SAMPLE_RATE: u32 = 192_000;

/// Table 1.18, by `samplingFrequencyIndex`.
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Bytes of a record that we believe: a program config element has at most 255 bytes of comment.
const MOST_RECORD_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::{FFMPEG_AAC, HE_AAC, hex};

    /// Object type, extension, core rate, rate, channels, samples a frame, RFC 6381.
    type Facts = (u8, Extension, u32, u32, u8, u32, &'static str);

    fn check(record: &str, (object_type, extension, core_rate, rate, channels, samples, name): Facts) {
        let found = Configuration::parse(hex(record)).unwrap();
        assert_eq!(found.record(), &hex(record));
        assert_eq!(found.object_type(), object_type, "{record}");
        assert_eq!(found.extension(), extension, "{record}");
        assert_eq!((found.core_sample_rate(), found.sample_rate()), (core_rate, rate), "{record}");
        assert_eq!((found.channels(), found.samples_per_frame()), (channels, samples), "{record}");
        assert_eq!(found.rfc6381(), name, "{record}");
    }

    #[test]
    fn configurations_of_encoders_in_the_field_are_understood() {
        // ffmpeg and OBS say "no SBR" in the sync extension; GStreamer and others say nothing.
        check(FFMPEG_AAC, (2, Extension::None, 48_000, 48_000, 2, 1024, "mp4a.40.2"));
        check("1190", (2, Extension::None, 48_000, 48_000, 2, 1024, "mp4a.40.2"));
        check("1210", (2, Extension::None, 44_100, 44_100, 2, 1024, "mp4a.40.2"));
        check("138856e500", (2, Extension::None, 22_050, 22_050, 1, 1024, "mp4a.40.2"));
        // Other bytes behind the configuration are nothing to us.
        check("1210 0000 00", (2, Extension::None, 44_100, 44_100, 2, 1024, "mp4a.40.2"));
    }

    #[test]
    fn he_aac_counts_in_the_rate_that_comes_out() {
        check(HE_AAC, (2, Extension::Sbr, 24_000, 48_000, 2, 2048, "mp4a.40.5"));
        // Parametric stereo: one channel in, two out.
        check("eb098800", (2, Extension::ParametricStereo, 24_000, 48_000, 2, 2048, "mp4a.40.29"));
        // The same two by the backward compatible sync extension.
        check("131056e598", (2, Extension::Sbr, 24_000, 48_000, 2, 2048, "mp4a.40.5"));
        check("130856e59d4880", (2, Extension::ParametricStereo, 24_000, 48_000, 2, 2048, "mp4a.40.29"));
        // SBR that does not double the rate.
        check("29918800", (2, Extension::Sbr, 48_000, 48_000, 2, 1024, "mp4a.40.5"));
    }

    #[test]
    fn frames_of_960_samples_explicit_rates_and_program_configs_are_understood() {
        check("1194", (2, Extension::None, 48_000, 48_000, 2, 960, "mp4a.40.2"));
        check("1780 5dc0 10", (2, Extension::None, 48_000, 48_000, 2, 1024, "mp4a.40.2"));
        check("11b0", (2, Extension::None, 48_000, 48_000, 6, 1024, "mp4a.40.2"));
        check("11b8", (2, Extension::None, 48_000, 48_000, 8, 1024, "mp4a.40.2"));
        // One front pair, one front single, one back pair, an LFE.
        check("1180 04c8050020180000", (2, Extension::None, 48_000, 48_000, 6, 1024, "mp4a.40.2"));
    }

    #[test]
    fn what_is_no_configuration_is_refused_in_words() {
        for (record, words) in [
            ("", "the record is empty"),
            ("11", "the bytes end within the AudioSpecificConfig"),
            ("0000", "AAC object type 0 is not supported"),
            // USAC (42) and Opus-like escapes.
            ("f94640", "AAC object type 42 is not supported"),
            ("1690", "13 is no sampling frequency index"),
            ("178000000010", "0 is no sample rate"),
            ("11c8", "9 is no channel configuration"),
            ("2b120800", "44100 is no SBR sample rate"),
        ] {
            assert_eq!(Configuration::parse(hex(record)).unwrap_err().to_string(), words, "{record}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn no_bytes_make_it_panic_and_what_is_accepted_is_sane(
            start in prop::sample::select(vec!["", "1190", "1180", "2b11", "eb09", "1310"]),
            rest in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            if let Ok(found) = Configuration::parse([&hex(start)[..], &rest].concat().into()) {
                prop_assert!((1..=MOST_CHANNELS).contains(&found.channels()));
                prop_assert!((1..=HIGHEST_SAMPLE_RATE).contains(&found.sample_rate()));
                prop_assert!(matches!(found.samples_per_frame(), 960 | 1024 | 1920 | 2048));
            }
        }
    }
}
