//! What a sample entry says of its codec: the RFC 6381 string, the picture size, the shape of samples.

use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::rbsp;

use super::boxes::{self, AUDIO_ENTRY, Fields, Mp4Box, VISUAL_ENTRY};

/// A sample entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SampleEntry {
    /// Its box type.
    pub(super) kind: [u8; 4],
    /// The strings that CODECS may have for it, the usual one first; empty when the codec is not known here.
    pub(super) codecs: Vec<String>,
    pub(super) media: Media,
    /// What the samples are made of.
    pub(super) form: SampleForm,
    /// What cannot be right about it.
    pub(super) problems: Vec<String>,
}

/// What is seen or heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Media {
    /// Pictures.
    Video {
        /// Width and height in the sample entry.
        entry_size: (u32, u32),
        /// Width and height that the decoder puts out, where we can tell.
        coded_size: Option<(u32, u32)>,
    },
    /// Sound.
    Audio {
        /// Samples a second.
        rate: u32,
        /// How many channels, 0 when the codec's own configuration tells.
        channels: u16,
    },
    /// Neither.
    Other,
}

/// What samples are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleForm {
    /// H.264 NAL units after lengths of so many bytes.
    H264(usize),
    /// H.265 NAL units after lengths of so many bytes.
    H265(usize),
    /// Nothing that we look into.
    Opaque,
}

impl SampleEntry {
    /// Reads a sample entry.
    pub(super) fn read(entry: &Mp4Box<'_>) -> Self {
        let mut read = Self {
            kind: entry.kind,
            codecs: Vec::new(),
            media: Media::Other,
            form: SampleForm::Opaque,
            problems: Vec::new(),
        };
        let is_understood = match &entry.kind {
            b"avc1" | b"avc3" | b"hvc1" | b"hev1" | b"av01" | b"vp09" => read.video(entry),
            b"mp4a" | b"Opus" | b"fLaC" | b"ac-3" | b"ec-3" => read.audio(entry),
            _ => Some(()),
        };
        if is_understood.is_none() {
            read.problems.push("is cut short or lacks the codec's configuration".to_owned());
        }
        read
    }

    /// `avc1`, for people.
    pub(super) fn kind_name(&self) -> String {
        self.kind.escape_ascii().to_string()
    }

    /// How people and CODECS call it.
    pub(super) fn codec_name(&self) -> String {
        self.codecs.first().cloned().unwrap_or_else(|| self.kind_name())
    }

    fn video(&mut self, entry: &Mp4Box<'_>) -> Option<()> {
        let mut fields = Fields(entry.body.get(24..)?);
        let entry_size = (u32::from(fields.u16()?), u32::from(fields.u16()?));
        self.media = Media::Video { entry_size, coded_size: None };
        let inside = entry.children(VISUAL_ENTRY).ok()?;
        let configuration = |kind| boxes::find(&inside, kind).map(|found| found.body);
        match &self.kind {
            b"avc1" | b"avc3" => {
                let record = configuration(b"avcC")?;
                self.codecs = vec![avc_string(&self.kind_name(), record)?];
                self.form = SampleForm::H264(usize::from(record.get(4)? & 3) + 1);
                let coded_size = first_sps(record).and_then(sps_size);
                if coded_size.is_none() {
                    self.problems.push("has no SPS in avcC that can be read".to_owned());
                }
                self.media = Media::Video { entry_size, coded_size };
            }
            b"hvc1" | b"hev1" => {
                let record = configuration(b"hvcC")?;
                self.codecs = vec![hevc_string(&self.kind_name(), record)?];
                self.form = SampleForm::H265(usize::from(record.get(21)? & 3) + 1);
            }
            b"av01" => self.codecs = vec![av1_string(configuration(b"av1C")?)?],
            _ => self.codecs = vec![vp9_string(configuration(b"vpcC")?)?],
        }
        Some(())
    }

    fn audio(&mut self, entry: &Mp4Box<'_>) -> Option<()> {
        let mut fields = Fields(entry.body.get(16..)?);
        let channels = fields.u16()?;
        let rate = u32::from(Fields(entry.body.get(24..)?).u16()?);
        self.media = Media::Audio { rate, channels };
        let inside = entry.children(AUDIO_ENTRY).ok()?;
        match &self.kind {
            b"mp4a" => {
                let (object_type, specific) = decoder_config(boxes::find(&inside, b"esds")?.body)?;
                match object_type {
                    0x40 => {
                        let aac = AudioSpecificConfig::read(specific)?;
                        self.codecs = aac.codecs();
                        self.media = Media::Audio { rate: aac.rate, channels: aac.channels };
                    }
                    0x69 | 0x6b => self.codecs = ["mp4a.40.34", "mp4a.69", "mp4a.6B"].map(str::to_owned).to_vec(),
                    other => self.codecs = vec![format!("mp4a.{other:02X}")],
                }
            }
            b"Opus" => self.codecs = vec!["opus".to_owned(), "Opus".to_owned()],
            b"fLaC" => self.codecs = vec!["fLaC".to_owned(), "flac".to_owned()],
            _ => self.codecs = vec![self.kind_name()],
        }
        Some(())
    }
}

/// `avc1.4D401F`: profile, constraints and level (RFC 6381 §3.3).
fn avc_string(kind: &str, record: &[u8]) -> Option<String> {
    let [_, profile, constraints, level] = *record.first_chunk()?;
    Some(format!("{kind}.{profile:02x}{constraints:02x}{level:02x}"))
}

fn first_sps(record: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(record.get(5..)?);
    let count = fields.u8()? & 0x1f;
    let length = fields.u16().filter(|_| count > 0)?;
    fields.take(usize::from(length)).filter(|sps| !sps.is_empty())
}

/// Width and height after cropping.
fn sps_size(nal_unit: &[u8]) -> Option<(u32, u32)> {
    let payload = rbsp::decode_nal(nal_unit).ok()?;
    let sps = SeqParameterSet::from_bits(rbsp::BitReader::new(&*payload)).ok()?;
    // Its arithmetic is not checked for heights beyond any level.
    let is_sane = sps.pic_width_in_mbs_minus1 < 4096 && sps.pic_height_in_map_units_minus1 < 4096;
    if is_sane { sps.pixel_dimensions().ok() } else { None }
}

/// ISO/IEC 14496-15 Annex E.3: `hvc1.1.6.L93.B0`.
fn hevc_string(kind: &str, record: &[u8]) -> Option<String> {
    let mut fields = Fields(record);
    fields.u8()?;
    let profile = fields.u8()?;
    let compatibility = fields.u32()?.reverse_bits();
    let constraints: [u8; 6] = fields.array()?;
    let level = fields.u8()?;
    let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let mut text = format!("{kind}.{space}{}.{compatibility:X}.{tier}{level}", profile & 0x1f);
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        text.push_str(&format!(".{byte:X}"));
    }
    Some(text)
}

/// AV1 in ISOBMFF §5: `av01.0.04M.08`.
fn av1_string(record: &[u8]) -> Option<String> {
    let [_, profile_level, flags] = *record.first_chunk()?;
    let tier = if flags & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (flags & 0x40 != 0, flags & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    Some(format!("av01.{}.{:02}{tier}.{depth:02}", profile_level >> 5, profile_level & 0x1f))
}

/// VP Codec ISO Media File Format Binding: `vp09.00.31.08`.
fn vp9_string(full_box: &[u8]) -> Option<String> {
    let [profile, level, depth] = *full_box.get(4..)?.first_chunk()?;
    Some(format!("vp09.{profile:02}.{level:02}.{:02}", depth >> 4))
}

/// The object type and the `DecoderSpecificInfo` of an `esds` (ISO/IEC 14496-1 §7.2.6).
fn decoder_config(esds: &[u8]) -> Option<(u8, &[u8])> {
    let mut fields = Fields(esds.get(4..)?);
    let mut stream = Fields(descriptor(&mut fields, 3)?);
    stream.u16()?;
    let flags = stream.u8()?;
    if flags & 0x80 != 0 {
        stream.u16()?;
    }
    if flags & 0x40 != 0 {
        let length = stream.u8()?;
        stream.take(usize::from(length))?;
    }
    if flags & 0x20 != 0 {
        stream.u16()?;
    }
    let mut decoder = Fields(descriptor(&mut stream, 4)?);
    let object_type = decoder.u8()?;
    decoder.take(12)?;
    Some((object_type, descriptor(&mut decoder, 5).unwrap_or_default()))
}

fn descriptor<'a>(fields: &mut Fields<'a>, wanted: u8) -> Option<&'a [u8]> {
    let tag = fields.u8()?;
    let mut length = 0;
    for _ in 0..4 {
        let byte = fields.u8()?;
        length = length << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    fields.take(length).filter(|_| tag == wanted)
}

/// The part of an `AudioSpecificConfig` that matters here (ISO/IEC 14496-3 §1.6.2.1).
#[derive(Debug, PartialEq, Eq)]
struct AudioSpecificConfig {
    object_type: u64,
    rate: u32,
    channels: u16,
    /// SBR or PS is signalled after the AAC-LC configuration.
    has_sync_extension: bool,
}

impl AudioSpecificConfig {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut bits = Bits { bytes, position: 0 };
        let object_type = match bits.take(5)? {
            31 => 32 + bits.take(6)?,
            short => short,
        };
        let rate = match bits.take(4)? {
            15 => u32::try_from(bits.take(24)?).ok()?,
            index => *AAC_RATES.get(usize::try_from(index).ok()?)?,
        };
        let channels = match u16::try_from(bits.take(4)?).ok()? {
            7 | 12 | 14 => 8,
            11 => 7,
            configuration => configuration,
        };
        // syncExtensionType 0x2b7 stands somewhere behind the GASpecificConfig.
        let rest = 8 * bytes.len() - bits.position;
        let has_sync_extension = (0..rest.saturating_sub(10))
            .any(|skip| Bits { bytes, position: bits.position + skip }.take(11) == Some(0x2b7));
        Some(Self { object_type, rate, channels, has_sync_extension })
    }

    fn codecs(&self) -> Vec<String> {
        let mut codecs = vec![format!("mp4a.40.{}", self.object_type)];
        if self.object_type == 2 && self.has_sync_extension {
            codecs.extend(["mp4a.40.5", "mp4a.40.29"].map(str::to_owned));
        }
        codecs
    }
}

const AAC_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u64> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.position / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.position % 8) & 1);
            self.position += 1;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_strings_follow_their_records() {
        assert_eq!(avc_string("avc1", &[1, 0x4d, 0x40, 0x1f]).as_deref(), Some("avc1.4d401f"));
        let hevc = [1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93];
        assert_eq!(hevc_string("hvc1", &hevc).as_deref(), Some("hvc1.1.6.L93.90"));
        assert_eq!(av1_string(&[0x81, 0x04, 0x0c]).as_deref(), Some("av01.0.04M.08"));
        assert_eq!(vp9_string(&[1, 0, 0, 0, 0, 31, 0x82]).as_deref(), Some("vp09.00.31.08"));
    }

    #[test]
    fn aac_configurations_tell_object_type_rate_and_channels() {
        let plain = AudioSpecificConfig::read(&[0x12, 0x10]).unwrap();
        assert_eq!((plain.object_type, plain.rate, plain.channels), (2, 44_100, 2));
        assert_eq!(plain.codecs(), ["mp4a.40.2"]);
        let explicit = AudioSpecificConfig::read(&[0x2b, 0x92, 0x08, 0x00]).unwrap();
        assert_eq!((explicit.object_type, explicit.rate), (5, 22_050));
        let backward = AudioSpecificConfig::read(&[0x13, 0x90, 0x56, 0xe5, 0xa5]).unwrap();
        assert!(backward.has_sync_extension);
        // 7.1 with the rear or the height speakers that ISO/IEC 14496-3 added.
        assert_eq!(AudioSpecificConfig::read(&[0x11, 0xe0]).unwrap().channels, 8);
        assert_eq!(AudioSpecificConfig::read(&[0x12]), None);
    }
}
