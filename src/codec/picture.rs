//! What a picture is like, whatever codec carries it: size, shape, rate, colours, light.

/// A picture as its configuration describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Picture {
    /// Width in pixels, cropping applied, pixel shape not.
    pub width: u16,
    /// Height in pixels, cropping applied, pixel shape not.
    pub height: u16,
    /// Width and height of a pixel, when they are given.
    pub pixel_aspect_ratio: Option<(u16, u16)>,
    /// The frame rate, when one is promised.
    pub frame_rate: Option<FrameRate>,
    /// How its values become light.
    pub light: Light,
}

impl Picture {
    /// Width and height as shown, in square pixels: what is wide in the stream is widened, what is high is heightened.
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

    /// `VIDEO-RANGE` (RFC 8216bis §4.4.6.2).
    pub fn range(&self) -> Range {
        match self.light.preferred_transfer.or_else(|| self.light.colour.map(|colour| colour.transfer)) {
            Some(Colour::PQ) => Range::Pq,
            Some(Colour::HLG) => Range::Hlg,
            _ => Range::Sdr,
        }
    }
}

/// How much between black and white there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// As always.
    Sdr,
    /// Hybrid log-gamma.
    Hlg,
    /// Perceptual quantizer: HDR10 and its kin.
    Pq,
}

/// Frames a second as a fraction: 30000/1001 is NTSC's 29.97.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    /// Frames in `seconds`.
    pub frames: u64,
    /// Seconds in which they are shown; never 0.
    pub seconds: u64,
}

impl FrameRate {
    /// Frames in 1000 seconds, rounded to the nearest: what HLS writes with three decimals.
    pub fn millihertz(self) -> u64 {
        let exact = (u128::from(self.frames) * 1000 + u128::from(self.seconds) / 2) / u128::from(self.seconds);
        u64::try_from(exact).unwrap_or(u64::MAX)
    }
}

/// How a picture's values become light: said by the codec, by the publisher beside it (Enhanced RTMP `colorInfo`), or by
/// nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Light {
    /// The colours.
    pub colour: Option<Colour>,
    /// `preferred_transfer_characteristics` (H.265 §D.3.38): what who knows it takes in place of the colours' own, which is
    /// for old screens. So hybrid log-gamma is broadcast.
    pub preferred_transfer: Option<u8>,
    /// The screen on which the material was graded.
    pub mastering_display: Option<MasteringDisplay>,
    /// How bright the material gets.
    pub content_light_level: Option<ContentLightLevel>,
}

impl Light {
    /// What it says, and where it says nothing what `hint` says. The codec knows better than those beside it.
    #[must_use]
    pub fn or(self, hint: Self) -> Self {
        Self {
            colour: self.colour.filter(|colour| colour.is_specified()).or(hint.colour).or(self.colour),
            preferred_transfer: self.preferred_transfer.or(hint.preferred_transfer),
            mastering_display: self.mastering_display.or(hint.mastering_display),
            content_light_level: self.content_light_level.or(hint.content_light_level),
        }
    }
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

impl Colour {
    /// `transfer_characteristics` of the perceptual quantizer.
    pub const PQ: u8 = 16;
    /// `transfer_characteristics` of hybrid log-gamma.
    pub const HLG: u8 = 18;

    /// Some code point is not "unspecified".
    fn is_specified(self) -> bool {
        [self.primaries, self.transfer, self.matrix] != [2; 3]
    }
}

/// Mastering display colour volume (SMPTE ST 2086) in the units of `mdcv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MasteringDisplay {
    /// Chromaticity of green, blue and red, in 0.00002.
    pub primaries: [(u16, u16); 3],
    /// Chromaticity of white, in 0.00002.
    pub white_point: (u16, u16),
    /// In 0.0001 cd/m².
    pub most_luminance: u32,
    /// In 0.0001 cd/m².
    pub least_luminance: u32,
}

/// Content light level (CTA-861.3), in cd/m².
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentLightLevel {
    /// MaxCLL: of the brightest pixel.
    pub most: u16,
    /// MaxFALL: of the brightest picture on average.
    pub most_average: u16,
}
