//! What metadata OBUs say of light (AV1 §5.8.3, §5.8.4).

use crate::codec::bits::Bits;
use crate::codec::{ContentLightLevel, Error, Light, MasteringDisplay};

/// The light of a metadata OBU's payload; nothing where it is about something else.
pub(super) fn light(payload: &[u8]) -> Light {
    let Some((&kind, said)) = payload.split_first() else { return Light::default() };
    let mut bits = Bits::new(said, "AV1 metadata");
    match kind {
        HDR_CLL => Light { content_light_level: content_light_level(&mut bits).ok(), ..Light::default() },
        HDR_MDCV => Light { mastering_display: mastering_display(&mut bits).ok(), ..Light::default() },
        _ => Light::default(),
    }
}

fn content_light_level(bits: &mut Bits<'_>) -> Result<ContentLightLevel, Error> {
    Ok(ContentLightLevel { most: bits.read_u16()?, most_average: bits.read_u16()? })
}

/// Red, green, blue, where `mdcv` has green, blue, red; 16, 8 and 14 bits behind the point, where `mdcv` has decimals.
fn mastering_display(bits: &mut Bits<'_>) -> Result<MasteringDisplay, Error> {
    let [red, green, blue, white_point] = [point(bits)?, point(bits)?, point(bits)?, point(bits)?];
    let [most, least] = [bits.read(32)?, bits.read(32)?];
    Ok(MasteringDisplay {
        primaries: [green, blue, red],
        white_point,
        most_luminance: decimal(most, 8),
        least_luminance: decimal(least, 14),
    })
}

fn point(bits: &mut Bits<'_>) -> Result<(u16, u16), Error> {
    let mut coordinate = || {
        let rounded = (bits.read(16)? * 50_000 + (1 << 15)) >> 16;
        Ok(u16::try_from(rounded).expect("at most 50 000"))
    };
    Ok((coordinate()?, coordinate()?))
}

/// A number with so many bits behind the point, in 0.0001.
fn decimal(value: u32, bits: u32) -> u32 {
    let rounded = (u64::from(value) * 10_000 + (1 << (bits - 1))) >> bits;
    u32::try_from(rounded).unwrap_or(u32::MAX)
}

const HDR_CLL: u8 = 1;
const HDR_MDCV: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::samples::hex;

    #[test]
    fn light_comes_in_the_units_of_its_boxes() {
        // P3 in D65, 1000 to 0.0001 cd/m².
        let said = "02 ae14 51ec 43d7 b0a4 2666 0f5c 500d 5439 0003e800 00000002 80";
        let display = light(&hex(said)).mastering_display.unwrap();
        assert_eq!(display.primaries, [(13_250, 34_500), (7_500, 3_000), (34_000, 16_000)]);
        assert_eq!(display.white_point, (15_635, 16_450));
        assert_eq!((display.most_luminance, display.least_luminance), (10_000_000, 1));
        let level = light(&hex("01 03e8 0190 80")).content_light_level;
        assert_eq!(level, Some(ContentLightLevel { most: 1000, most_average: 400 }));
        for nothing in ["", "01", "01 03e8", "02 ae14", "04 b500", "03"] {
            assert_eq!(light(&hex(nothing)), Light::default(), "{nothing}");
        }
    }
}
