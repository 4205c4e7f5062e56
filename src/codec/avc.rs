//! H.264: the decoder configuration record, and one cheap walk over an access unit's NAL unit headers.

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::{FrameMbsFlags, SeqParameterSet};
use h264_reader::rbsp::{BitReader, decode_nal};

use super::{Error, FrameRate};

/// An `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3.1) that has been parsed. Two are equal when their bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    record: Bytes,
    nal_length_size: u8,
    width: u16,
    height: u16,
    frame_rate: Option<FrameRate>,
    pixel_aspect_ratio: Option<(u16, u16)>,
    colour: Option<Colour>,
}

/// How colours are to be understood: the code points of ISO/IEC 23091-2 (H.264 Annex E).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    /// `colour_primaries`.
    pub primaries: u8,
    /// `transfer_characteristics`; 16 is PQ, 18 HLG.
    pub transfer: u8,
    /// `matrix_coefficients`.
    pub matrix: u8,
    /// Samples use the whole range of values.
    pub is_full_range: bool,
}

impl Configuration {
    /// Parses the body of a legacy or enhanced sequence header.
    ///
    /// # Errors
    /// When the record is cut short or without a readable SPS, when it has no PPS, or has 3-byte NAL unit lengths.
    pub fn parse(record: Bytes) -> Result<Self, Error> {
        if record.is_empty() {
            return Err(Error::Empty);
        }
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
        let first_sps = parameter_sets(&mut sets, sps_count & 0b1_1111)?.ok_or(Error::Missing("SPS"))?;
        let pps_count = sets.split_off_first().copied().ok_or(Error::CutShort("decoder configuration record"))?;
        parameter_sets(&mut sets, pps_count)?.ok_or(Error::Missing("PPS"))?;
        let sps = read_sps(first_sps)?;
        let (width, height) = dimensions(&sps)?;
        let vui = sps.vui_parameters.as_ref();
        Ok(Self {
            record: with_four_byte_lengths(&record),
            nal_length_size,
            width,
            height,
            frame_rate: vui.and_then(|vui| vui.timing_info.as_ref()).and_then(fixed_frame_rate),
            pixel_aspect_ratio: vui.and_then(|vui| vui.aspect_ratio_info.as_ref()).and_then(|ratio| ratio.get()),
            colour: vui.and_then(|vui| vui.video_signal_type.as_ref()).and_then(colour),
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

    /// Width of the picture in pixels, cropping applied.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Height of the picture in pixels, cropping applied.
    pub fn height(&self) -> u16 {
        self.height
    }

    /// Width and height as shown, in square pixels: what is wide in the SPS is widened, what is high is heightened.
    pub fn display_size(&self) -> (u16, u16) {
        let stretch = |size: u16, by: u16, over: u16| {
            let (size, by, over) = (u64::from(size), u64::from(by), u64::from(over));
            u16::try_from((size * by + over / 2) / over).unwrap_or(u16::MAX)
        };
        match self.pixel_aspect_ratio {
            Some((across, down)) if across > down => (stretch(self.width, across, down), self.height),
            Some((across, down)) => (self.width, stretch(self.height, down, across)),
            None => (self.width, self.height),
        }
    }

    /// The frame rate, when the SPS says that it is fixed.
    pub fn frame_rate(&self) -> Option<FrameRate> {
        self.frame_rate
    }

    /// Width and height of a pixel, when the SPS gives it.
    pub fn pixel_aspect_ratio(&self) -> Option<(u16, u16)> {
        self.pixel_aspect_ratio
    }

    /// How colours are to be understood, when the SPS says so.
    pub fn colour(&self) -> Option<Colour> {
        self.colour
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

/// What an access unit's NAL unit headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccessUnit {
    /// It holds at least one slice: it is a picture.
    pub has_slice: bool,
    /// It holds an IDR slice: decoding can start here.
    pub has_idr: bool,
    /// `recovery_frame_cnt` of a recovery point SEI: decoding that starts here shows right pictures after so many frames
    /// (0 at the I picture of an open GOP, more with intra refresh).
    pub recovery_frame_count: Option<u32>,
    /// It holds a unit of no bytes (or padding at the end), which [`normalise`] takes out.
    pub has_empty_unit: bool,
    /// It holds an SPS or PPS, which an `avc1` track should have in its header only.
    pub has_parameter_set: bool,
}

/// Looks at the headers of an access unit's NAL units (H.264 §7.3.1). Slices are not read, nothing is allocated.
///
/// # Errors
/// [`Error::CutShort`] when a length runs past the end: the tag is broken and should be skipped and counted.
pub fn inspect(data: &[u8], nal_length_size: u8) -> Result<AccessUnit, Error> {
    let mut found = AccessUnit::default();
    for unit in Units::new(data, nal_length_size) {
        let unit = unit?;
        let Some(&header) = unit.first() else {
            found.has_empty_unit = true;
            continue;
        };
        match header & 0b1_1111 {
            IDR_SLICE => {
                found.has_slice = true;
                found.has_idr = true;
            }
            1..IDR_SLICE => found.has_slice = true,
            SEI => found.recovery_frame_count = found.recovery_frame_count.or_else(|| recovery_frame_count(&unit[1..])),
            SPS | PPS => found.has_parameter_set = true,
            _ => {}
        }
    }
    Ok(found)
}

/// The access unit with 4-byte lengths and without empty units: the same slice when that is what it is already. Units from
/// a broken length on are left out; [`inspect`] refuses such an access unit.
pub fn normalise(data: &Bytes, nal_length_size: u8) -> Bytes {
    let is_filled = |unit: Result<&[u8], Error>| unit.is_ok_and(|unit| !unit.is_empty());
    if nal_length_size == 4 && Units::new(data, nal_length_size).all(is_filled) {
        return data.clone();
    }
    // Lengths of 1 byte grow by 3, and the shortest unit is of 1 byte.
    let mut normal = BytesMut::with_capacity(data.len() + data.len() / 2 * 3);
    for unit in Units::new(data, nal_length_size).map_while(Result::ok).filter(|unit| !unit.is_empty()) {
        let length = u32::try_from(unit.len()).expect("a unit whose length was read from at most 4 bytes");
        normal.put_u32(length);
        normal.put_slice(unit);
    }
    normal.freeze()
}

/// The NAL units of an access unit in the length-prefixed form of ISO/IEC 14496-15 §5.3.2. A run of fewer zero bytes than a
/// length has, at the very end, counts as an empty unit.
struct Units<'a> {
    rest: &'a [u8],
    length_size: usize,
}

impl<'a> Units<'a> {
    fn new(data: &'a [u8], nal_length_size: u8) -> Self {
        debug_assert!(matches!(nal_length_size, 1 | 2 | 4));
        Self { rest: data, length_size: nal_length_size.into() }
    }

    fn broken(&mut self) -> Option<Result<&'a [u8], Error>> {
        self.rest = &[];
        Some(Err(Error::CutShort("last NAL unit")))
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = Result<&'a [u8], Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((length, rest)) = self.rest.split_at_checked(self.length_size) else {
            if self.rest.iter().any(|&byte| byte != 0) {
                return self.broken();
            }
            self.rest = &[];
            return Some(Ok(&[]));
        };
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        let Some((unit, rest)) = rest.split_at_checked(length) else {
            return self.broken();
        };
        self.rest = rest;
        Some(Ok(unit))
    }
}

/// `recovery_frame_cnt` of the recovery point message in an SEI NAL unit's payload (H.264 §7.3.2.3, §D.1.8), if it has one.
fn recovery_frame_count(payload: &[u8]) -> Option<u32> {
    let mut bytes = WithoutEmulation { rest: payload, zeros: 0 };
    loop {
        let payload_type = ff_coded(&mut bytes)?;
        let payload_size = ff_coded(&mut bytes)?;
        if payload_type == RECOVERY_POINT {
            return unsigned_exp_golomb(bytes.take(payload_size));
        }
        // Leaves the loop at the end: a message cannot skip more bytes than there are.
        if payload_size > 0 {
            bytes.nth(payload_size - 1)?;
        }
    }
}

/// A payload type or size: as many 255s as fit, and the remainder.
fn ff_coded(bytes: &mut impl Iterator<Item = u8>) -> Option<usize> {
    let mut value = 0_usize;
    loop {
        let byte = bytes.next()?;
        value = value.saturating_add(byte.into());
        if byte != 0xff {
            return Some(value);
        }
    }
}

/// `ue(v)` (H.264 §9.1) at the start of `bytes`.
fn unsigned_exp_golomb(bytes: impl Iterator<Item = u8>) -> Option<u32> {
    let mut bits = bytes.flat_map(|byte| (0..8).rev().map(move |shift| u32::from(byte >> shift & 1)));
    let zeros = bits.by_ref().take(32).position(|bit| bit == 1)?;
    let mut value = 1_u32;
    for _ in 0..zeros {
        value = value << 1 | bits.next()?;
    }
    Some(value - 1)
}

/// The bytes of an RBSP: those of a NAL unit without each `03` that follows two zeros (H.264 §7.3.1).
struct WithoutEmulation<'a> {
    rest: &'a [u8],
    zeros: u8,
}

impl Iterator for WithoutEmulation<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let mut byte = *self.rest.split_off_first()?;
        if self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            byte = *self.rest.split_off_first()?;
        }
        self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Some(byte)
    }
}

/// Takes `count` length-prefixed parameter sets off `rest` and returns the first that is not empty.
fn parameter_sets<'a>(rest: &mut &'a [u8], count: u8) -> Result<Option<&'a [u8]>, Error> {
    let mut first = None;
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk().ok_or(Error::CutShort("decoder configuration record"))?;
        let (set, after) = after
            .split_at_checked(u16::from_be_bytes(*length).into())
            .ok_or(Error::CutShort("decoder configuration record"))?;
        *rest = after;
        if !set.is_empty() {
            first = first.or(Some(set));
        }
    }
    Ok(first)
}

fn read_sps(unit: &[u8]) -> Result<SeqParameterSet, Error> {
    // Zero bytes after the stop bit belong to no parameter set, and the reader refuses them.
    let end = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let unit = &unit[..end];
    match unit.first() {
        Some(header) if header & 0b1_1111 == SPS => {}
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
    debug_assert!(matches!(sps.frame_mbs_flags, FrameMbsFlags::Frames | FrameMbsFlags::Fields { .. }));
    let (width, height) = sps.pixel_dimensions().map_err(|_| Error::UnreadableParameterSet)?;
    let pixels = |field, value: u32| match u16::try_from(value) {
        Ok(pixels @ 1..) => Ok(pixels),
        _ => Err(Error::Invalid { field, value: value.into() }),
    };
    Ok((pixels("picture width", width)?, pixels("picture height", height)?))
}

/// H.264 §E.2.1: a tick is half a frame.
fn fixed_frame_rate(timing: &h264_reader::nal::sps::TimingInfo) -> Option<FrameRate> {
    let is_sane = timing.fixed_frame_rate_flag && timing.num_units_in_tick > 0 && timing.time_scale > 0;
    is_sane.then(|| FrameRate { frames: timing.time_scale.into(), seconds: 2 * u64::from(timing.num_units_in_tick) })
}

fn colour(signal: &h264_reader::nal::sps::VideoSignalType) -> Option<Colour> {
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

const IDR_SLICE: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// The recovery point message's payload type.
const RECOVERY_POINT: usize = 6;

/// Macroblocks in a row or column of a picture that we believe: 65 536 pixels.
const MOST_MACROBLOCKS: u32 = 4096;
