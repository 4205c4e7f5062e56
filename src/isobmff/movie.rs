//! The CMAF header: `ftyp` and a `moov` without samples (ISO/IEC 23000-19). Written once a configuration; `mp4` and `mp4-atom`
//! know the boxes.

use bytes::{BufMut as _, BytesMut};
use mp4::WriteBox;
use mp4_atom::{
    BufMut, Dinf, Dref, DrefEntry, Encode, Hdlr, Mdhd, Mvhd, Smhd, Stco, Stsc, Stsz, Stts, Tkhd, Trex, Url, Vmhd,
};

use super::{TRACK_ID, sample_entry};
use crate::codec::Configuration;
use crate::media::Track;

/// Writes the CMAF header of `track`, the target of `EXT-X-MAP`.
pub fn write_header(track: &Track, out: &mut BytesMut) {
    let mut header = Vec::with_capacity(1024);
    file_type().write_box(&mut header).expect("writing into memory cannot fail");
    encode_movie(track, &mut header).expect("boxes without samples have no size or value that is out of range");
    out.put_slice(&header);
}

/// HLS (RFC 8216bis §3.1.2) wants `iso6` or later; `cmfc` says CMAF, `mp42` that `esds` and friends are to be understood.
fn file_type() -> mp4::FtypBox {
    let [iso6, cmfc, mp42] = [*b"iso6", *b"cmfc", *b"mp42"].map(|value| mp4::FourCC { value });
    mp4::FtypBox { major_brand: iso6, minor_version: 0, compatible_brands: vec![iso6, cmfc, mp42] }
}

/// `MovieBox`, ISO/IEC 14496-12 §8.2.1. Durations are 0: nobody knows how long the broadcast will be.
fn encode_movie(track: &Track, out: &mut Vec<u8>) -> mp4_atom::Result<()> {
    let timescale = track.timescale.ticks_per_second();
    out.encode_atom(b"moov", |moov| {
        let movie =
            Mvhd { timescale, rate: 1.into(), volume: 1.into(), next_track_id: TRACK_ID + 1, ..Mvhd::default() };
        movie.encode(moov)?;
        moov.encode_atom(b"trak", |trak| {
            track_header(&track.configuration).encode(trak)?;
            trak.encode_atom(b"mdia", |mdia| {
                // Language: HLS names it in the multivariant playlist, and RTMP does not tell it.
                Mdhd { timescale, language: "und".into(), ..Mdhd::default() }.encode(mdia)?;
                handler(&track.configuration).encode(mdia)?;
                mdia.encode_atom(b"minf", |minf| encode_media_information(&track.configuration, minf))
            })
        })?;
        moov.encode_atom(b"mvex", |mvex| {
            // The defaults that matter stand in each fragment.
            Trex { track_id: TRACK_ID, default_sample_description_index: 1, ..Trex::default() }.encode(mvex)
        })
    })
}

/// `TrackHeaderBox`, §8.3.2. The size is that of the shown picture, pixel shape applied.
fn track_header(configuration: &Configuration) -> Tkhd {
    let general = Tkhd { track_id: TRACK_ID, enabled: true, in_movie: true, ..Tkhd::default() };
    match configuration {
        Configuration::Avc(avc) => {
            let (width, height) = avc.display_size();
            Tkhd { width: width.into(), height: height.into(), ..general }
        }
        Configuration::Aac(_) => Tkhd { volume: 1.into(), ..general },
    }
}

/// `HandlerBox`, §8.4.3.
fn handler(configuration: &Configuration) -> Hdlr {
    let (handler, name) = if configuration.is_video() { (b"vide", "video") } else { (b"soun", "audio") };
    Hdlr { handler: handler.into(), name: name.into() }
}

/// What `minf` holds, §8.4.4: the media data are in the same file, and the sample tables are empty.
fn encode_media_information(configuration: &Configuration, minf: &mut Vec<u8>) -> mp4_atom::Result<()> {
    if configuration.is_video() {
        Vmhd::default().encode(minf)?;
    } else {
        Smhd::default().encode(minf)?;
    }
    Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } }.encode(minf)?;
    minf.encode_atom(b"stbl", |stbl| {
        stbl.encode_atom(b"stsd", |stsd| {
            let (version_and_flags, entry_count) = (0_u32, 1_u32);
            version_and_flags.encode(stsd)?;
            entry_count.encode(stsd)?;
            sample_entry::encode(configuration, stsd)
        })?;
        Stts::default().encode(stbl)?;
        Stsc::default().encode(stbl)?;
        Stsz::default().encode(stbl)?;
        Stco::default().encode(stbl)
    })
}
