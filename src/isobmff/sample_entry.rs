//! Sample entries: what `stsd` says about a codec. Decoder configuration records go in as `codec` keeps them.

use mp4_atom::esds::{DecoderConfig, DecoderSpecific, EsDescriptor, Esds, SLConfig};
use mp4_atom::{Audio, BufMut, Colr, Encode, FixedPoint, FourCC, Pasp, Visual};

use crate::codec::{Colour, Configuration, ContentLightLevel, MasteringDisplay, Picture, Sound, aac, mp3};

/// Appends the sample entry of `configuration`.
pub(super) fn encode(configuration: &Configuration, out: &mut Vec<u8>) -> mp4_atom::Result<()> {
    match configuration {
        Configuration::Avc(avc) => encode_visual(b"avc1", avc.picture(), b"avcC", avc.record(), out),
        Configuration::Hevc(hevc) => encode_visual(b"hvc1", hevc.picture(), b"hvcC", hevc.record(), out),
        Configuration::Av1(av1) => encode_visual(b"av01", av1.picture(), b"av1C", av1.record(), out),
        Configuration::Vp9(vp9) => encode_visual(b"vp09", vp9.picture(), b"vpcC", &vp9.record(), out),
        Configuration::Aac(aac) => encode_mp4a(aac.sound(), elementary_stream_of_aac(aac), out),
        Configuration::Mp3(mp3) => encode_mp4a(mp3.sound(), elementary_stream_of_mp3(*mp3), out),
        Configuration::Opus(opus) => encode_audio(b"Opus", opus.sound(), 16, b"dOps", opus.record(), out),
        Configuration::Flac(flac) => {
            encode_audio(b"fLaC", flac.sound(), flac.bits_per_sample().into(), b"dfLa", flac.record(), out)
        }
        Configuration::Ac3(ac3) if ac3.is_enhanced() => {
            encode_audio(b"ec-3", ac3.sound(), 16, b"dec3", ac3.record(), out)
        }
        Configuration::Ac3(ac3) => encode_audio(b"ac-3", ac3.sound(), 16, b"dac3", ac3.record(), out),
    }
}

/// `VisualSampleEntry`, ISO/IEC 14496-12 §12.1.3: the decoder's record, then what is known of the picture.
fn encode_visual(
    kind: &[u8; 4],
    picture: &Picture,
    record_kind: &[u8; 4],
    record: &[u8],
    out: &mut Vec<u8>,
) -> mp4_atom::Result<()> {
    out.encode_atom(FourCC::new(kind), |entry| {
        let visual =
            Visual { data_reference_index: 1, width: picture.width, height: picture.height, ..Visual::default() };
        visual.encode(entry)?;
        encode_record(record_kind, record, entry)?;
        if let Some((h_spacing, v_spacing)) = picture.pixel_aspect_ratio {
            Pasp { h_spacing: h_spacing.into(), v_spacing: v_spacing.into() }.encode(entry)?;
        }
        if let Some(colour) = picture.light.colour {
            colour_information(colour).encode(entry)?;
        }
        if let Some(display) = picture.light.mastering_display {
            encode_mastering_display(&display, entry)?;
        }
        match picture.light.content_light_level {
            Some(level) => encode_content_light_level(level, entry),
            None => Ok(()),
        }
    })
}

fn encode_record(kind: &[u8; 4], record: &[u8], out: &mut Vec<u8>) -> mp4_atom::Result<()> {
    out.encode_atom(FourCC::new(kind), |body| {
        body.append_slice(record);
        Ok(())
    })
}

/// `ColourInformationBox`, §12.1.5.
fn colour_information(colour: Colour) -> Colr {
    Colr::Nclx {
        colour_primaries: colour.primaries.into(),
        transfer_characteristics: colour.transfer.into(),
        matrix_coefficients: colour.matrix.into(),
        full_range_flag: colour.is_full_range,
    }
}

/// `MasteringDisplayColourVolumeBox`, §12.1.7.
fn encode_mastering_display(display: &MasteringDisplay, out: &mut Vec<u8>) -> mp4_atom::Result<()> {
    out.encode_atom(FourCC::new(b"mdcv"), |mdcv| {
        for (x, y) in display.primaries.into_iter().chain([display.white_point]) {
            x.encode(mdcv)?;
            y.encode(mdcv)?;
        }
        display.most_luminance.encode(mdcv)?;
        display.least_luminance.encode(mdcv)
    })
}

/// `ContentLightLevelBox`, §12.1.6.
fn encode_content_light_level(level: ContentLightLevel, out: &mut Vec<u8>) -> mp4_atom::Result<()> {
    out.encode_atom(FourCC::new(b"clli"), |clli| {
        level.most.encode(clli)?;
        level.most_average.encode(clli)
    })
}

/// `AudioSampleEntry`, §12.2.3, with the decoder's record.
fn encode_audio(
    kind: &[u8; 4],
    sound: Sound,
    bits_per_sample: u16,
    record_kind: &[u8; 4],
    record: &[u8],
    out: &mut Vec<u8>,
) -> mp4_atom::Result<()> {
    out.encode_atom(FourCC::new(kind), |entry| {
        audio(sound, bits_per_sample).encode(entry)?;
        encode_record(record_kind, record, entry)
    })
}

/// Rate and channels are those that come out of the decoder.
fn audio(sound: Sound, bits_per_sample: u16) -> Audio {
    Audio {
        data_reference_index: 1,
        channel_count: sound.channels.into(),
        sample_size: bits_per_sample,
        // A rate that does not fit 16 bits is written as 0, and found in the decoder configuration.
        sample_rate: FixedPoint::new(u16::try_from(sound.sample_rate).unwrap_or(0), 0),
    }
}

/// `MP4AudioSampleEntry`, ISO/IEC 14496-14.
fn encode_mp4a(sound: Sound, elementary_stream: Esds, out: &mut Vec<u8>) -> mp4_atom::Result<()> {
    out.encode_atom(FourCC::new(b"mp4a"), |mp4a| {
        audio(sound, 16).encode(mp4a)?;
        elementary_stream.encode(mp4a)
    })
}

/// `ESDBox`: the `AudioSpecificConfig` as MPEG-4 systems wraps it (ISO/IEC 14496-1 §7.2.6). Bit rates are not known: 0.
fn elementary_stream_of_aac(aac: &aac::Configuration) -> Esds {
    elementary_stream(MPEG4_AUDIO, Some(DecoderSpecific { raw: aac.record().to_vec(), ..DecoderSpecific::default() }))
}

/// `ESDBox` of MP3, which needs no decoder configuration.
fn elementary_stream_of_mp3(mp3: mp3::Configuration) -> Esds {
    elementary_stream(mp3.object_type_indication(), None)
}

fn elementary_stream(object_type_indication: u8, dec_specific: Option<DecoderSpecific>) -> Esds {
    let dec_config =
        DecoderConfig { object_type_indication, stream_type: AUDIO_STREAM, dec_specific, ..DecoderConfig::default() };
    Esds { es_desc: EsDescriptor { dec_config, sl_config: SLConfig::default(), ..EsDescriptor::default() } }
}

/// `objectTypeIndication` of ISO/IEC 14496-3.
const MPEG4_AUDIO: u8 = 0x40;
/// `streamType`.
const AUDIO_STREAM: u8 = 5;
