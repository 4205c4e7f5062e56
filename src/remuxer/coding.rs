//! Which codec is which, and where its configuration comes from: a sequence header, the frames, or both.

use bytes::Bytes;

use crate::codec::{Configuration, Error, aac, ac3, av1, avc, flac, hevc, mp3, opus, vp9};
use crate::flv::FourCc;

/// What a sequence header gives.
pub(super) enum SequenceStart {
    /// All there is to know.
    Configuration(Configuration),
    /// The rest stands in the first key frame.
    Vp9(vp9::Record),
    /// Nothing: the frames say it.
    InBand,
}

/// Whether a codec can be carried.
pub(super) fn is_carried(codec: FourCc) -> bool {
    matches!(
        codec,
        FourCc::AVC
            | FourCc::HEVC
            | FourCc::AV1
            | FourCc::VP9
            | FourCc::AAC
            | FourCc::MP3
            | FourCc::OPUS
            | FourCc::FLAC
            | FourCc::AC3
            | FourCc::EAC3
    )
}

/// Parses the sequence header of a codec that is carried.
pub(super) fn sequence_start(codec: FourCc, record: Bytes) -> Result<SequenceStart, Error> {
    let configuration = match codec {
        FourCc::AVC => Configuration::Avc(avc::Configuration::parse(record)?),
        FourCc::HEVC => Configuration::Hevc(hevc::Configuration::parse(record)?),
        FourCc::AV1 => match av1::Configuration::parse(record) {
            Err(Error::Missing(_)) => return Ok(SequenceStart::InBand),
            parsed => Configuration::Av1(parsed?),
        },
        FourCc::VP9 => return Ok(SequenceStart::Vp9(vp9::Record::parse(&record)?)),
        FourCc::AAC => Configuration::Aac(aac::Configuration::parse(record)?),
        FourCc::OPUS => Configuration::Opus(opus::Configuration::parse(record)?),
        FourCc::FLAC => Configuration::Flac(flac::Configuration::parse(record)?),
        _ => return Ok(SequenceStart::InBand),
    };
    Ok(SequenceStart::Configuration(configuration))
}

/// The configuration that stands in a coded frame, where it is another one than `current`.
pub(super) fn in_band(
    codec: FourCc,
    record: Option<vp9::Record>,
    current: Option<&Configuration>,
    data: &[u8],
) -> Result<Option<Configuration>, Error> {
    let found = match codec {
        FourCc::AV1 => match (av1::Configuration::of_temporal_unit(data)?, current) {
            (Some(found), Some(Configuration::Av1(current))) if found.is_same_sequence(current) => None,
            (found, _) => found.map(Configuration::Av1),
        },
        FourCc::VP9 => vp9::Configuration::of_frame(record, data)?.map(Configuration::Vp9),
        FourCc::MP3 => Some(Configuration::Mp3(mp3::Configuration::of_frame(data)?)),
        FourCc::AC3 | FourCc::EAC3 => Some(Configuration::Ac3(ac3::Configuration::of_access_unit(data)?)),
        _ => None,
    };
    Ok(found.filter(|found| current != Some(found)))
}
