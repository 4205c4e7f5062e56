//! Supplemental enhancement information of H.265 (Annex D): the light of the whole stream, captions of a picture.

use crate::codec::bits::Bits;
use crate::codec::{Captions, ContentLightLevel, Error, Light, MasteringDisplay, sei};

/// The light and the captions in an SEI NAL unit.
pub(super) fn read(unit: &[u8]) -> (Light, Captions) {
    let (mut light, mut captions) = (Light::default(), Captions::default());
    sei::messages(unit.get(HEADER_BYTES..).unwrap_or_default(), |kind, payload| match kind {
        sei::ITU_T_T35 => captions |= Captions::of_itu_t_t35(payload),
        ALTERNATIVE_TRANSFER_CHARACTERISTICS => light.preferred_transfer = payload.into_iter().next(),
        MASTERING_DISPLAY_COLOUR_VOLUME | CONTENT_LIGHT_LEVEL => {
            let mut message = [0; MOST_BYTES];
            let filled = message.iter_mut().zip(payload).map(|(place, byte)| *place = byte).count();
            let mut bits = Bits::new(&message[..filled], "SEI");
            match kind {
                MASTERING_DISPLAY_COLOUR_VOLUME => light.mastering_display = bits.mastering_display().ok(),
                _ => light.content_light_level = bits.content_light_level().ok(),
            }
        }
        _ => {}
    });
    (light, captions)
}

impl Bits<'_> {
    /// §D.2.28: green, blue, red, as in `mdcv`.
    fn mastering_display(&mut self) -> Result<MasteringDisplay, Error> {
        let [green, blue, red, white_point] = [self.point()?, self.point()?, self.point()?, self.point()?];
        Ok(MasteringDisplay {
            primaries: [green, blue, red],
            white_point,
            most_luminance: self.read(32)?,
            least_luminance: self.read(32)?,
        })
    }

    /// §D.2.35.
    fn content_light_level(&mut self) -> Result<ContentLightLevel, Error> {
        Ok(ContentLightLevel { most: self.read_u16()?, most_average: self.read_u16()? })
    }

    fn point(&mut self) -> Result<(u16, u16), Error> {
        Ok((self.read_u16()?, self.read_u16()?))
    }
}

const MASTERING_DISPLAY_COLOUR_VOLUME: usize = 137;
const CONTENT_LIGHT_LEVEL: usize = 144;
const ALTERNATIVE_TRANSFER_CHARACTERISTICS: usize = 147;

const HEADER_BYTES: usize = 2;
/// Of the messages about light.
const MOST_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::samples::hex;

    #[test]
    fn light_is_found_behind_other_messages_and_emulation_prevention() {
        let master =
            "4e01 0502abcd 8918 33c2 86c4 1d4c 0bb8 84d0 3e80 3d13 4042 00989680 0000030001 90 04 03e8 0190 80";
        let (found, _) = read(&hex(master));
        let display = found.mastering_display.unwrap();
        assert_eq!(display.primaries, [(13_250, 34_500), (7_500, 3_000), (34_000, 16_000)]);
        assert_eq!(
            (display.white_point, display.most_luminance, display.least_luminance),
            ((15_635, 16_450), 10_000_000, 1)
        );
        assert_eq!(found.content_light_level, Some(ContentLightLevel { most: 1000, most_average: 400 }));
        assert_eq!((found.colour, found.preferred_transfer), (None, None));
        assert_eq!(read(&hex("4e01 9301 12 80")).0.preferred_transfer, Some(18));
        for nothing in ["", "4e01", "4e01 89", "4e01 8918 33c2", "4e01 ffffff"] {
            assert_eq!(read(&hex(nothing)).0, Light::default(), "{nothing}");
        }
    }

    #[test]
    fn captions_are_found() {
        let (_, found) = read(&hex("4e01 04 0e b5 00 31 47413934 03 41 ff fc 9420 ff 80"));
        assert_eq!(format!("{found:?}"), "[Cc(1)]");
        assert!(read(&hex("4e01 0502abcd 80")).1.is_empty());
    }
}
