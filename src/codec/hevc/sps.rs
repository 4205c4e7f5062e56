//! The sequence parameter set of H.265 (§7.3.2.2), as far as the picture's size, shape and colours.

use crate::codec::bits::Bits;
use crate::codec::nal::WithoutEmulation;
use crate::codec::{Colour, Error, Light, Picture};

/// What a sequence parameter set says, as far as it concerns us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sps {
    pub(super) id: u32,
    /// From `general_profile_space` to `general_level_idc`, as in the decoder configuration record.
    pub(super) general: [u8; 12],
    /// `chroma_format_idc`, 0 to 3.
    pub(super) chroma_format: u8,
    /// Of luma and chroma, minus 8.
    pub(super) bit_depths: [u8; 2],
    pub(super) picture: Picture,
}

/// Reads a sequence parameter set NAL unit.
pub(super) fn read(unit: &[u8]) -> Result<Sps, Error> {
    let rbsp: Vec<u8> = WithoutEmulation::new(unit).take(MOST_BYTES).collect();
    let mut bits = Bits::new(&rbsp, "SPS");
    let header = bits.read(16)?;
    if header >> 9 & 0b11_1111 != SPS {
        return Err(Error::Missing("SPS"));
    }
    let _video_parameter_set_id = bits.read(4)?;
    let sub_layers = bits.read(3)?;
    let _temporal_id_nesting = bits.flag()?;
    bits.profile_tier_level(sub_layers)?;
    let general = *rbsp[3..].first_chunk().ok_or(Error::CutShort("SPS"))?;
    let id = bits.unsigned_exp_golomb()?;
    let chroma_format = bits.unsigned_exp_golomb()?;
    if chroma_format > 3 {
        return Err(Error::Invalid { field: "chroma format", value: chroma_format.into() });
    }
    let has_separate_planes = chroma_format == 3 && bits.flag()?;
    let (coded_width, coded_height) = (bits.unsigned_exp_golomb()?, bits.unsigned_exp_golomb()?);
    let mut window = [0; 4];
    if bits.flag()? {
        for offset in &mut window {
            *offset = bits.unsigned_exp_golomb()?;
        }
    }
    let [left, right, top, bottom] = window;
    let (unit_width, unit_height) = match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let picture = Picture {
        width: cropped("picture width", coded_width, unit_width, left, right)?,
        height: cropped("picture height", coded_height, unit_height, top, bottom)?,
        ..Picture::default()
    };
    let mut depth = || Ok(u8::try_from(bits.at_most("bit depth above 8", 8)?).expect("at most 8"));
    let bit_depths = [depth()?, depth()?];
    // A size is all that cannot be done without.
    let picture = bits.rest(picture, sub_layers, chroma_format, has_separate_planes).unwrap_or(picture);
    let chroma_format = u8::try_from(chroma_format).expect("at most 3");
    Ok(Sps { id, general, chroma_format, bit_depths, picture })
}

/// §7.4.3.2.1: the conformance window counts in chroma samples.
fn cropped(field: &'static str, coded: u32, unit: u64, before: u32, after: u32) -> Result<u16, Error> {
    let coded = u64::from(coded);
    let shown = coded.saturating_sub(unit * (u64::from(before) + u64::from(after)));
    match u16::try_from(shown) {
        Ok(shown @ 1..) => Ok(shown),
        _ => Err(Error::Invalid { field, value: shown }),
    }
}

impl Bits<'_> {
    /// §7.3.3.
    fn profile_tier_level(&mut self, sub_layers: u32) -> Result<(), Error> {
        self.skip(88 + 8)?;
        let mut present = Vec::new();
        for _ in 0..sub_layers {
            present.push((self.flag()?, self.flag()?));
        }
        if sub_layers > 0 {
            self.skip(2 * (8 - sub_layers as usize))?;
        }
        for (has_profile, has_level) in present {
            self.skip(if has_profile { 88 } else { 0 } + if has_level { 8 } else { 0 })?;
        }
        Ok(())
    }

    /// From what is behind the bit depths to the end of the VUI's colours.
    fn rest(
        &mut self,
        picture: Picture,
        sub_layers: u32,
        chroma_format: u32,
        has_separate_planes: bool,
    ) -> Result<Picture, Error> {
        let order_count_bits = self.unsigned_exp_golomb()? + 4;
        let all_layers = self.flag()?;
        for _ in 0..if all_layers { sub_layers + 1 } else { 1 } {
            for _ in 0..3 {
                self.unsigned_exp_golomb()?;
            }
        }
        // Block sizes and transform depths.
        for _ in 0..6 {
            self.unsigned_exp_golomb()?;
        }
        if self.flag()? && self.flag()? {
            self.scaling_lists(chroma_format, has_separate_planes)?;
        }
        let _asymmetric_partitions_and_adaptive_offset = self.read(2)?;
        if self.flag()? {
            // PCM.
            self.skip(8)?;
            self.unsigned_exp_golomb()?;
            self.unsigned_exp_golomb()?;
            self.skip(1)?;
        }
        self.short_term_reference_sets()?;
        if self.flag()? {
            for _ in 0..self.at_most("long-term reference pictures", 32)? {
                self.skip(order_count_bits.min(16) as usize + 1)?;
            }
        }
        let _temporal_prediction_and_intra_smoothing = self.read(2)?;
        if self.flag()? { self.usability_information(picture) } else { Ok(picture) }
    }

    fn at_most(&mut self, field: &'static str, most: u32) -> Result<u32, Error> {
        match self.unsigned_exp_golomb()? {
            value if value <= most => Ok(value),
            value => Err(Error::Invalid { field, value: value.into() }),
        }
    }

    /// §7.3.4.
    fn scaling_lists(&mut self, _chroma_format: u32, _has_separate_planes: bool) -> Result<(), Error> {
        for size in 0..4 {
            for _ in 0..if size == 3 { 2 } else { 6 } {
                if !self.flag()? {
                    self.unsigned_exp_golomb()?;
                    continue;
                }
                if size > 1 {
                    self.unsigned_exp_golomb()?;
                }
                for _ in 0..(1_u32 << (4 + 2 * size)).min(64) {
                    self.unsigned_exp_golomb()?;
                }
            }
        }
        Ok(())
    }

    /// §7.3.7, in all of them.
    fn short_term_reference_sets(&mut self) -> Result<(), Error> {
        let sets = self.at_most("short-term reference picture sets", 64)?;
        let mut pictures_before = 0;
        for set in 0..sets {
            let is_predicted = set > 0 && self.flag()?;
            if is_predicted {
                self.skip(1)?;
                self.unsigned_exp_golomb()?;
                let mut pictures = 0;
                for _ in 0..=pictures_before {
                    let is_used = self.flag()?;
                    if is_used || self.flag()? {
                        pictures += 1;
                    }
                }
                pictures_before = pictures;
                continue;
            }
            let before = self.at_most("reference pictures", 16)?;
            let after = self.at_most("reference pictures", 16)?;
            for _ in 0..before + after {
                self.unsigned_exp_golomb()?;
                self.skip(1)?;
            }
            pictures_before = before + after;
        }
        Ok(())
    }

    /// The VUI (§E.2.1), as far as we need it.
    fn usability_information(&mut self, mut picture: Picture) -> Result<Picture, Error> {
        if self.flag()? {
            let index = self.read(8)?;
            let ratio = if index == EXTENDED_SAR {
                (self.read(16)?, self.read(16)?)
            } else {
                usize::try_from(index).ok().and_then(|index| ASPECT_RATIOS.get(index)).copied().unwrap_or_default()
            };
            let ratio = (u16::try_from(ratio.0).unwrap_or(0), u16::try_from(ratio.1).unwrap_or(0));
            picture.pixel_aspect_ratio = (ratio.0 > 0 && ratio.1 > 0).then_some(ratio);
        }
        if self.flag()? {
            let _overscan_appropriate = self.flag()?;
        }
        if self.flag()? {
            let _video_format = self.read(3)?;
            let is_full_range = self.flag()?;
            if self.flag()? {
                let [primaries, transfer, matrix] = [self.read_u8(8)?, self.read_u8(8)?, self.read_u8(8)?];
                picture.light =
                    Light { colour: Some(Colour { primaries, transfer, matrix, is_full_range }), ..Light::default() };
            }
        }
        Ok(picture)
    }
}

const SPS: u32 = 33;

/// More than any parameter set has before its colours.
const MOST_BYTES: usize = 4096;

/// `aspect_ratio_idc`, Table E.1.
const EXTENDED_SAR: u32 = 255;
const ASPECT_RATIOS: [(u32, u32); 17] = [
    (0, 0),
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::samples::{HDR10_SPS, hex};

    #[test]
    fn size_shape_and_colours_are_found_behind_reference_sets() {
        let sps = read(&hex(HDR10_SPS)).unwrap();
        assert_eq!((sps.id, sps.chroma_format, sps.bit_depths), (0, 1, [2, 2]));
        let found = sps.picture;
        assert_eq!((found.width, found.height), (322, 182));
        assert_eq!(found.pixel_aspect_ratio, Some((4, 3)));
        let colour = Colour { primaries: 9, transfer: 16, matrix: 9, is_full_range: false };
        assert_eq!(found.light.colour, Some(colour));
        // Without its end the size remains.
        let cut = read(&hex(HDR10_SPS)[..26]).unwrap().picture;
        assert_eq!((cut.width, cut.height, cut.light), (322, 182, Light::default()));
    }
}
