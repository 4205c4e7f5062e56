//! H.264: the decoder configuration record here, access units in `access_unit`.

mod access_unit;
mod parameter_sets;

use bytes::{Bytes, BytesMut};
use h264_reader::nal::sps::{SeqParameterSet, TimingInfo, VideoSignalType};
use h264_reader::rbsp::{BitReader, decode_nal};

pub use self::access_unit::{AccessUnit, inspect};
use super::nal::Units;
pub use super::nal::normalise;
use super::{Colour, Error, FrameRate, Light, Picture, check_length};

/// An `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3.1) that has been parsed. Two are equal when their bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    record: Bytes,
    nal_length_size: u8,
    picture: Picture,
}

impl Configuration {
    /// Parses the body of a legacy or enhanced sequence header.
    ///
    /// # Errors
    /// When the record is cut short or without a readable SPS, when it has no PPS, or has 3-byte NAL unit lengths.
    pub fn parse(record: Bytes) -> Result<Self, Error> {
        check_length(&record, MOST_RECORD_BYTES)?;
        let &[version, _profile, _compatibility, _level, lengths, sps_count, ref sets @ ..] = &record[..] else {
            return Err(Error::CutShort("decoder configuration record"));
        };
        if version != 1 {
            return Err(Error::Invalid { field: "version of the decoder configuration record", value: version.into() });
        }
        let nal_length_size = (lengths & 0b11) + 1;
        if nal_length_size == 3 {
            return Err(Error::Invalid { field: "NAL unit length size", value: 3 });
        }
        let mut sets = sets;
        let first_sps = take_sets(&mut sets, sps_count & 0b1_1111)?.next().ok_or(Error::Missing("SPS"))?;
        let pps_count = sets.split_off_first().copied().ok_or(Error::CutShort("decoder configuration record"))?;
        take_sets(&mut sets, pps_count)?.next().ok_or(Error::Missing("PPS"))?;
        let sps = read_sps(first_sps)?;
        let (width, height) = dimensions(&sps)?;
        let vui = sps.vui_parameters.as_ref();
        Ok(Self {
            record: with_four_byte_lengths(&record),
            nal_length_size,
            picture: Picture {
                width,
                height,
                frame_rate: vui.and_then(|vui| vui.timing_info.as_ref()).and_then(fixed_frame_rate),
                pixel_aspect_ratio: vui.and_then(|vui| vui.aspect_ratio_info.as_ref()).and_then(|ratio| ratio.get()),
                light: Light {
                    colour: vui.and_then(|vui| vui.video_signal_type.as_ref()).and_then(colour),
                    ..Light::default()
                },
            },
        })
    }

    /// The record for `avcC`: byte for byte as it came, but for a NAL unit length size of 1 or 2, which is made the 4 that
    /// [`normalise`] writes.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// Bytes of a NAL unit's length in what the publisher sends: 1, 2 or 4.
    pub fn nal_length_size(&self) -> u8 {
        self.nal_length_size
    }

    /// The picture, as the SPS describes it; the frame rate where it is fixed.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    pub(super) fn picture_mut(&mut self) -> &mut Picture {
        &mut self.picture
    }

    /// `AVCProfileIndication`: 66 Baseline, 77 Main, 100 High …
    pub fn profile(&self) -> u8 {
        self.record[1]
    }

    /// `profile_compatibility`: the constraint flags.
    pub fn profile_compatibility(&self) -> u8 {
        self.record[2]
    }

    /// `AVCLevelIndication`: ten times the level.
    pub fn level(&self) -> u8 {
        self.record[3]
    }

    /// `avc1.PPCCLL` (RFC 6381 §3.3).
    pub fn rfc6381(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile(), self.profile_compatibility(), self.level())
    }
}

/// Takes `count` length-prefixed parameter sets off `rest`; the empty ones are passed over.
fn take_sets<'a>(rest: &mut &'a [u8], count: u8) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, Error> {
    let whole = *rest;
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk().ok_or(Error::CutShort("decoder configuration record"))?;
        *rest =
            after.get(u16::from_be_bytes(*length).into()..).ok_or(Error::CutShort("decoder configuration record"))?;
    }
    // The lengths are as those of NAL units of 2 bytes.
    let sets = Units::new(&whole[..whole.len() - rest.len()], 2).filter_map(Result::ok);
    Ok(sets.filter(|set| !set.is_empty()))
}

fn read_sps(unit: &[u8]) -> Result<SeqParameterSet, Error> {
    // Zero bytes after the stop bit belong to no parameter set, and the reader refuses them.
    let end = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let unit = &unit[..end];
    match unit.first() {
        Some(header) if header & 0b1_1111 == access_unit::SPS => {}
        _ => return Err(Error::Missing("SPS")),
    }
    let rbsp = decode_nal(unit).map_err(|_| Error::UnreadableParameterSet)?;
    SeqParameterSet::from_bits(BitReader::new(&rbsp[..])).map_err(|_| Error::UnreadableParameterSet)
}

/// Width and height, cropped (H.264 §7.4.2.1.1).
fn dimensions(sps: &SeqParameterSet) -> Result<(u16, u16), Error> {
    // The largest level allows 1055 macroblocks; above 4096 it is nonsense, and the sums below cannot overflow.
    for (field, value) in [
        ("picture width in macroblocks", sps.pic_width_in_mbs_minus1),
        ("picture height in macroblocks", sps.pic_height_in_map_units_minus1),
    ] {
        if value >= MOST_MACROBLOCKS {
            return Err(Error::Invalid { field, value: u64::from(value) + 1 });
        }
    }
    let (width, height) = sps.pixel_dimensions().map_err(|_| Error::UnreadableParameterSet)?;
    let pixels = |field, value: u32| match u16::try_from(value) {
        Ok(pixels @ 1..) => Ok(pixels),
        _ => Err(Error::Invalid { field, value: value.into() }),
    };
    Ok((pixels("picture width", width)?, pixels("picture height", height)?))
}

/// H.264 §E.2.1: a tick is half a frame.
fn fixed_frame_rate(timing: &TimingInfo) -> Option<FrameRate> {
    let is_sane = timing.fixed_frame_rate_flag && timing.num_units_in_tick > 0 && timing.time_scale > 0;
    is_sane.then(|| FrameRate { frames: timing.time_scale.into(), seconds: 2 * u64::from(timing.num_units_in_tick) })
}

fn colour(signal: &VideoSignalType) -> Option<Colour> {
    let description = signal.colour_description.as_ref()?;
    Some(Colour {
        primaries: description.colour_primaries,
        transfer: description.transfer_characteristics,
        matrix: description.matrix_coefficients,
        is_full_range: signal.video_full_range_flag,
    })
}

/// `lengthSizeMinusOne` made 3; the same bytes when it is.
fn with_four_byte_lengths(record: &Bytes) -> Bytes {
    if record[4] & 0b11 == 3 {
        return record.clone();
    }
    let mut normal = BytesMut::from(&record[..]);
    normal[4] |= 0b11;
    normal.freeze()
}

/// Macroblocks in a row or column of a picture that we believe: 65 536 pixels.
const MOST_MACROBLOCKS: u32 = 4096;

/// Bytes of a record that we believe: 31 parameter sets of a usual size fit many times.
const MOST_RECORD_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::{FFMPEG_AVC_5994, OBS_AVC, TWO_BYTE_LENGTHS_AVC, hex};

    #[test]
    fn a_record_tells_size_rate_and_colour() {
        let obs = Configuration::parse(hex(OBS_AVC)).unwrap();
        assert_eq!(obs.record(), &hex(OBS_AVC));
        assert_eq!((obs.picture().width, obs.picture().height), (640, 360));
        assert_eq!(obs.picture().display_size(), (640, 360));
        assert_eq!(obs.nal_length_size(), 4);
        assert_eq!((obs.profile(), obs.profile_compatibility(), obs.level()), (100, 0, 30));
        assert_eq!(obs.rfc6381(), "avc1.64001e");
        assert_eq!(obs.picture().frame_rate.unwrap().millihertz(), 30_000);
        assert_eq!(obs.picture().pixel_aspect_ratio, Some((1, 1)));
        assert_eq!(
            obs.picture().light.colour,
            Some(Colour { primaries: 1, transfer: 1, matrix: 1, is_full_range: false })
        );
    }

    #[test]
    fn a_rate_that_is_not_fixed_is_no_promise() {
        let ntsc = Configuration::parse(hex(FFMPEG_AVC_5994)).unwrap();
        assert_eq!((ntsc.picture().width, ntsc.picture().height), (320, 180));
        assert_eq!(ntsc.picture().frame_rate, None);
        assert_eq!(ntsc.rfc6381(), "avc1.640015");
    }

    #[test]
    fn ntsc_rates_are_rounded_only_when_written() {
        let timing = TimingInfo { num_units_in_tick: 1001, time_scale: 120_000, fixed_frame_rate_flag: true };
        assert_eq!(fixed_frame_rate(&timing), Some(FrameRate { frames: 120_000, seconds: 2002 }));
        assert_eq!(fixed_frame_rate(&timing).unwrap().millihertz(), 59_940);
        assert_eq!(fixed_frame_rate(&TimingInfo { num_units_in_tick: 0, ..timing }), None);
    }

    #[test]
    fn lengths_of_two_bytes_become_four_in_the_record() {
        let configuration = Configuration::parse(hex(TWO_BYTE_LENGTHS_AVC)).unwrap();
        assert_eq!(configuration.nal_length_size(), 2);
        let mut expected = hex(TWO_BYTE_LENGTHS_AVC).to_vec();
        expected[4] = 0xff;
        assert_eq!(configuration.record(), &expected);
        assert_eq!((configuration.picture().width, configuration.picture().height), (192, 108));
    }

    #[test]
    fn zeros_behind_the_sps_and_empty_entries_are_passed_over() {
        let mut record = hex("0164001effe2 0000 001f 6764001eacd940a02ff97016a0202028000003000800000301e478b16cb000");
        assert_eq!(Configuration::parse(record.clone()), Err(Error::CutShort("decoder configuration record")));
        record = [&record[..], &hex("02 0000 0004 68efbcb0")].concat().into();
        assert_eq!(Configuration::parse(record).unwrap().picture().width, 640);
    }

    #[test]
    fn anamorphic_pictures_are_stretched_for_show_only() {
        let mut configuration = Configuration::parse(hex(OBS_AVC)).unwrap();
        configuration.picture.pixel_aspect_ratio = Some((4, 3));
        assert_eq!(configuration.picture().display_size(), (853, 360));
        configuration.picture.pixel_aspect_ratio = Some((8, 9));
        assert_eq!(configuration.picture().display_size(), (640, 405));
        configuration.picture.pixel_aspect_ratio = Some((u16::MAX, 1));
        assert_eq!(configuration.picture().display_size(), (u16::MAX, 360));
    }

    #[test]
    fn what_is_no_record_is_refused_in_words() {
        for (record, words) in [
            ("", "the record is empty"),
            ("01", "the bytes end within the decoder configuration record"),
            ("0264001effe0", "2 is no version of the decoder configuration record"),
            ("0164001efee0 00", "3 is no NAL unit length size"),
            ("0164001effe0 00", "there is no SPS"),
            ("0164001effe1 0000 00", "there is no SPS"),
            ("0164001effe1 0002 68ef 01 0002 68ef", "there is no SPS"),
            ("0164001effe1 0001 67 01 0002 68ef", "the sequence parameter set cannot be read"),
            ("0164001effe1 0009 67", "the bytes end within the decoder configuration record"),
        ] {
            assert_eq!(Configuration::parse(hex(record)).unwrap_err().to_string(), words, "{record}");
        }
        let ballast = [&hex(OBS_AVC)[..], &[0; MOST_RECORD_BYTES]].concat();
        let words = "65581 is no length of a decoder configuration record";
        assert_eq!(Configuration::parse(ballast.into()).unwrap_err().to_string(), words);
        let without_pps = &hex(OBS_AVC)[..OBS_AVC.len() / 2 - 7];
        let record = [without_pps, &[0]].concat();
        assert_eq!(Configuration::parse(record.into()), Err(Error::Missing("PPS")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_bytes_make_the_parser_panic(record in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Configuration::parse(record.into());
        }

        #[test]
        fn no_damage_to_a_record_makes_the_parser_panic(
            sample in prop::sample::select(vec![OBS_AVC, FFMPEG_AVC_5994, TWO_BYTE_LENGTHS_AVC]),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut record = hex(sample).to_vec();
            for (index, byte) in damage {
                let at = index.index(record.len());
                record[at] = byte;
            }
            if let Ok(configuration) = Configuration::parse(record.into()) {
                prop_assert!(configuration.picture().width > 0 && configuration.picture().height > 0);
                let _ = (configuration.picture().display_size(), configuration.picture().frame_rate.map(FrameRate::millihertz));
            }
        }
    }
}
