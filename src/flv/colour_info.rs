//! What a publisher says of light beside the codec: the `colorInfo` of a video metadata packet (Enhanced RTMP v2, "Metadata
//! Frame").

use bytes::Bytes;

use crate::amf0::{self, Value};
use crate::codec::{Colour, ContentLightLevel, Light, MasteringDisplay};

/// The light of a metadata packet; `None` when it is about something else. An empty one takes back what was said before.
pub(super) fn parse(body: &Bytes) -> Option<Light> {
    let (values, _) = amf0::decode_lossy(body);
    let (_, info) =
        values.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).find(|(name, _)| name.as_str() == Some("colorInfo"))?;
    let of = |name| info.property(name);
    Some(Light {
        colour: of("colorConfig").and_then(colour),
        mastering_display: of("hdrMdcv").and_then(mastering_display),
        content_light_level: of("hdrCll").and_then(content_light_level),
        preferred_transfer: None,
    })
}

/// Code points that are not given are 2, unspecified; all of them, and there is no colour.
fn colour(config: &Value) -> Option<Colour> {
    let names = ["colorPrimaries", "transferCharacteristics", "matrixCoefficients"];
    let points = names.map(|name| scaled(config, name, 1.0, 255.0).and_then(|point| u8::try_from(point).ok()));
    if points == [None; 3] {
        return None;
    }
    let [primaries, transfer, matrix] = points.map(|point| point.unwrap_or(2));
    Some(Colour { primaries, transfer, matrix, is_full_range: false })
}

fn mastering_display(mdcv: &Value) -> Option<MasteringDisplay> {
    let coordinate = |name| scaled(mdcv, name, 50_000.0, 65_535.0).and_then(|value| u16::try_from(value).ok());
    let luminance = |name| scaled(mdcv, name, 10_000.0, f64::from(u32::MAX));
    Some(MasteringDisplay {
        primaries: [
            (coordinate("greenX")?, coordinate("greenY")?),
            (coordinate("blueX")?, coordinate("blueY")?),
            (coordinate("redX")?, coordinate("redY")?),
        ],
        white_point: (coordinate("whitePointX")?, coordinate("whitePointY")?),
        most_luminance: luminance("maxLuminance")?,
        least_luminance: luminance("minLuminance")?,
    })
}

fn content_light_level(cll: &Value) -> Option<ContentLightLevel> {
    let level = |name| scaled(cll, name, 1.0, 65_535.0).and_then(|value| u16::try_from(value).ok());
    Some(ContentLightLevel { most: level("maxCLL")?, most_average: level("maxFall")? })
}

/// A property times `scale`, rounded, if that is from 0 to `most`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and most, which fits")]
fn scaled(object: &Value, name: &str, scale: f64, most: f64) -> Option<u32> {
    let Some(Value::Number(number)) = object.property(name) else { return None };
    let value = (number * scale).round();
    (0.0..=most).contains(&value).then_some(value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::samples::hex;

    #[test]
    fn colours_of_ffmpeg_are_read() {
        // As ffmpeg 9 sends them.
        let said = hex(
            "020009636f6c6f72496e666f 03 000b636f6c6f72436f6e666967 03 00177472616e736665724368617261637465726973746963730040\
             30000000000000 00126d6174726978436f656666696369656e7473004022000000000000 000e636f6c6f725072696d617269657300402200\
             0000000000 000009 000009",
        );
        let colour = Colour { primaries: 9, transfer: 16, matrix: 9, is_full_range: false };
        assert_eq!(parse(&said), Some(Light { colour: Some(colour), ..Light::default() }));
        // Nothing is known; nothing is said.
        let empty = hex("020009636f6c6f72496e666f03000b636f6c6f72436f6e666967030000090000 09");
        assert_eq!(parse(&empty), Some(Light::default()));
        assert_eq!(parse(&hex("0200036f6e58 03000009")), None);
        assert_eq!(parse(&Bytes::new()), None);
    }

    #[test]
    fn mastering_display_and_light_levels_become_the_units_of_their_boxes() {
        let number = |name: &str, value: f64| {
            let mut property = vec![0, u8::try_from(name.len()).unwrap()];
            property.extend(name.bytes().chain([0]).chain(value.to_be_bytes()));
            property
        };
        let object = |name: &str, properties: &[Vec<u8>]| {
            let mut object = vec![0, u8::try_from(name.len()).unwrap()];
            object.extend(name.bytes().chain([3]).chain(properties.concat()).chain([0, 0, 9]));
            object
        };
        let points =
            [("redX", 0.68), ("redY", 0.32), ("greenX", 0.265), ("greenY", 0.69), ("blueX", 0.15), ("blueY", 0.06)];
        let rest =
            [("whitePointX", 0.3127), ("whitePointY", 0.329), ("maxLuminance", 1000.0), ("minLuminance", 0.0001)];
        let mdcv: Vec<_> = points.iter().chain(&rest).map(|&(name, value)| number(name, value)).collect();
        let cll = [number("maxFall", 400.0), number("maxCLL", 1000.0)];
        let body =
            [&hex("020009636f6c6f72496e666f 03")[..], &object("hdrMdcv", &mdcv), &object("hdrCll", &cll), &[0, 0, 9]];
        let light = parse(&body.concat().into()).unwrap();
        let display = light.mastering_display.unwrap();
        assert_eq!(display.primaries, [(13_250, 34_500), (7_500, 3_000), (34_000, 16_000)]);
        assert_eq!(
            (display.white_point, display.most_luminance, display.least_luminance),
            ((15_635, 16_450), 10_000_000, 1)
        );
        assert_eq!(light.content_light_level, Some(ContentLightLevel { most: 1000, most_average: 400 }));
    }
}
