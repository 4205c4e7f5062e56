//! Sample entries: what `stsd` says about a codec. Decoder configuration records go in byte for byte.

use mp4_atom::esds::{DecoderConfig, DecoderSpecific, EsDescriptor, Esds, SLConfig};
use mp4_atom::{Audio, BufMut, Colr, Encode, FixedPoint, Pasp, Visual};

use crate::codec::{Configuration, aac, avc};

/// Appends the sample entry of `configuration`.
pub(super) fn encode(configuration: &Configuration, out: &mut Vec<u8>) -> mp4_atom::Result<()> {
    match configuration {
        Configuration::Avc(avc) => encode_avc1(avc, out),
        Configuration::Aac(aac) => encode_mp4a(aac, out),
    }
}

/// `AVCSampleEntry`, ISO/IEC 14496-15 §5.4.2.1.
fn encode_avc1(avc: &avc::Configuration, out: &mut Vec<u8>) -> mp4_atom::Result<()> {
    out.encode_atom(b"avc1", |avc1| {
        let visual = Visual { data_reference_index: 1, width: avc.width(), height: avc.height(), ..Visual::default() };
        visual.encode(avc1)?;
        avc1.encode_atom(b"avcC", |avcc| {
            avcc.append_slice(avc.record());
            Ok(())
        })?;
        if let Some((h_spacing, v_spacing)) = avc.pixel_aspect_ratio() {
            Pasp { h_spacing: h_spacing.into(), v_spacing: v_spacing.into() }.encode(avc1)?;
        }
        if let Some(colour) = avc.colour() {
            let colr = Colr::Nclx {
                colour_primaries: colour.primaries.into(),
                transfer_characteristics: colour.transfer.into(),
                matrix_coefficients: colour.matrix.into(),
                full_range_flag: colour.is_full_range,
            };
            colr.encode(avc1)?;
        }
        Ok(())
    })
}

/// `MP4AudioSampleEntry`, ISO/IEC 14496-14. Rate and channels are those that come out of the decoder.
fn encode_mp4a(aac: &aac::Configuration, out: &mut Vec<u8>) -> mp4_atom::Result<()> {
    out.encode_atom(b"mp4a", |mp4a| {
        let audio = Audio {
            data_reference_index: 1,
            channel_count: aac.channels().into(),
            sample_size: 16,
            // A rate that does not fit 16 bits is written as 0, and found in the decoder configuration.
            sample_rate: FixedPoint::new(u16::try_from(aac.sample_rate()).unwrap_or(0), 0),
        };
        audio.encode(mp4a)?;
        elementary_stream(aac).encode(mp4a)
    })
}

/// `ESDBox`: the `AudioSpecificConfig` as MPEG-4 systems wraps it (ISO/IEC 14496-1 §7.2.6). Bit rates are not known: 0.
fn elementary_stream(aac: &aac::Configuration) -> Esds {
    let dec_specific = DecoderSpecific { raw: aac.record().to_vec(), ..DecoderSpecific::default() };
    let dec_config = DecoderConfig {
        object_type_indication: MPEG4_AUDIO,
        stream_type: AUDIO_STREAM,
        dec_specific: Some(dec_specific),
        ..DecoderConfig::default()
    };
    Esds { es_desc: EsDescriptor { dec_config, sl_config: SLConfig::default(), ..EsDescriptor::default() } }
}

/// `objectTypeIndication` of ISO/IEC 14496-3.
const MPEG4_AUDIO: u8 = 0x40;
/// `streamType`.
const AUDIO_STREAM: u8 = 5;
