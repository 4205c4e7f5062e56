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
    match configuration.picture() {
        Some(picture) => {
            let (width, height) = picture.display_size();
            Tkhd { width: width.into(), height: height.into(), ..general }
        }
        None => Tkhd { volume: 1.into(), ..general },
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use mp4_atom::{Codec, ReadFrom};

    use super::*;
    use crate::codec::samples::{
        FFMPEG_AAC, FFMPEG_AV1, FFMPEG_FLAC, FFMPEG_HEVC, FFMPEG_OPUS, HDR10_HEVC, HE_AAC, OBS_AVC, hex,
    };
    use crate::codec::{aac, ac3, av1, avc, flac, hevc, mp3, opus, vp9};
    use crate::isobmff::listing::listing;
    use crate::media::{Timescale, TrackId};

    fn video(record: &str) -> Track {
        let configuration = Configuration::Avc(avc::Configuration::parse(hex(record)).unwrap());
        Track { id: TrackId::VIDEO, timescale: Timescale::VIDEO, configuration }
    }

    fn audio(record: &str) -> Track {
        let aac = aac::Configuration::parse(hex(record)).unwrap();
        let timescale = Timescale::new(aac.sample_rate()).unwrap();
        Track { id: TrackId::AUDIO, timescale, configuration: Configuration::Aac(aac) }
    }

    fn header(track: &Track) -> BytesMut {
        let mut out = BytesMut::new();
        write_header(track, &mut out);
        out
    }

    #[test]
    fn a_video_header_in_full() {
        let expected = "
ftyp 28 69736f36 00000000 69736f36 636d6663 6d703432
moov 700
  mvhd 120 01000000 00000000 00000000 00000000 00000000 00015f90 00000000 00000000 00010000 01000000 00000000 00000000 00010000 00000000 00000000 00000000 00010000 00000000 00000000 00000000 40000000 00000000 00000000 00000000 00000000 00000000 00000000 00000002
  trak 532
    tkhd 104 01000007 00000000 00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00010000 00000000 00000000 00000000 00010000 00000000 00000000 00000000 40000000 02800000 01680000
    mdia 420
      mdhd 44 01000000 00000000 00000000 00000000 00000000 00015f90 00000000 00000000 55c40000
      hdlr 38 00000000 00000000 76696465 00000000 00000000 00000000 76696465 6f00
      minf 330
        vmhd 20 00000001 +8
        dinf 36
          dref 28 00000000 00000001
            url  12 00000001
        stbl 266
          stsd 190 00000000 00000001
            avc1 174 00000000 00000001 00000000 00000000 00000000 00000000 02800168 00480000 00480000 00000000 00010000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000018 ffff
              avcC 53 0164001e ffe1001e 6764001e acd940a0 2ff97016 a0202028 00000300 08000003 01e478b1 6cb00100 0468efbc b0
              pasp 16 00000001 00000001
              colr 19 6e636c78 00010001 000100
          stts 16 +8
          stsc 16 +8
          stsz 20 +12
          stco 16 +8
  mvex 40
    trex 32 00000000 00000001 00000001 +12
";
        assert_eq!(listing(&header(&video(OBS_AVC))), expected);
    }

    #[test]
    fn an_audio_header_in_full() {
        let expected = "
ftyp 28 69736f36 00000000 69736f36 636d6663 6d703432
moov 600
  mvhd 120 01000000 00000000 00000000 00000000 00000000 0000bb80 00000000 00000000 00010000 01000000 00000000 00000000 00010000 00000000 00000000 00000000 00010000 00000000 00000000 00000000 40000000 00000000 00000000 00000000 00000000 00000000 00000000 00000002
  trak 432
    tkhd 104 01000007 00000000 00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000000 01000000 00010000 00000000 00000000 00000000 00010000 00000000 00000000 00000000 40000000 +8
    mdia 320
      mdhd 44 01000000 00000000 00000000 00000000 00000000 0000bb80 00000000 00000000 55c40000
      hdlr 38 00000000 00000000 736f756e 00000000 00000000 00000000 61756469 6f00
      minf 230
        smhd 16 +8
        dinf 36
          dref 28 00000000 00000001
            url  12 00000001
        stbl 170
          stsd 94 00000000 00000001
            mp4a 78 00000000 00000001 00000000 00000000 00020010 00000000 bb800000
              esds 42 00000000 031c0000 00041440 15000000 00000000 00000000 05051190 56e50006 0102
          stts 16 +8
          stsc 16 +8
          stsz 20 +12
          stco 16 +8
  mvex 40
    trex 32 00000000 00000001 00000001 +12
";
        assert_eq!(listing(&header(&audio(FFMPEG_AAC))), expected);
    }

    #[test]
    fn mp4_reads_the_video_header() {
        let header = header(&video(OBS_AVC));
        let reader = mp4::Mp4Reader::read_header(Cursor::new(&header), header.len() as u64).unwrap();
        assert_eq!(reader.major_brand().to_string(), "iso6");
        let track = &reader.tracks()[&TRACK_ID];
        assert_eq!(track.track_type().unwrap(), mp4::TrackType::Video);
        assert_eq!(track.media_type().unwrap(), mp4::MediaType::H264);
        assert_eq!((track.width(), track.height()), (640, 360));
        assert_eq!((track.timescale(), track.language(), track.sample_count()), (90_000, "und", 0));
        assert_eq!(track.sequence_parameter_set().unwrap(), &hex(OBS_AVC)[8..38]);
        assert_eq!(track.picture_parameter_set().unwrap(), &hex("68efbcb0"));
        assert_eq!(track.duration().as_micros(), 0);
    }

    #[test]
    fn mp4_reads_the_audio_header() {
        let header = header(&audio(FFMPEG_AAC));
        let reader = mp4::Mp4Reader::read_header(Cursor::new(&header), header.len() as u64).unwrap();
        let track = &reader.tracks()[&TRACK_ID];
        assert_eq!(track.media_type().unwrap(), mp4::MediaType::AAC);
        assert_eq!(track.audio_profile().unwrap(), mp4::AudioObjectType::AacLowComplexity);
        assert_eq!(track.sample_freq_index().unwrap(), mp4::SampleFreqIndex::Freq48000);
        assert_eq!(track.channel_config().unwrap(), mp4::ChannelConfig::Stereo);
        assert_eq!((track.timescale(), track.language()), (48_000, "und"));
    }

    fn movie(header: &BytesMut) -> mp4_atom::Moov {
        let mut bytes = &header[..];
        let file_type = mp4_atom::Ftyp::read_from(&mut bytes).unwrap();
        assert_eq!(file_type.major_brand, b"iso6".into());
        assert_eq!(file_type.compatible_brands, [b"iso6".into(), b"cmfc".into(), b"mp42".into()]);
        let movie = mp4_atom::Moov::read_from(&mut bytes).unwrap();
        assert!(bytes.is_empty());
        movie
    }

    #[test]
    fn mp4_atom_reads_what_hls_asks_of_the_video_header() {
        let movie = movie(&header(&video(OBS_AVC)));
        // RFC 8216bis §3.1.2: an mvex, durations of 0, empty sample tables, data in the same file.
        assert_eq!(movie.mvex.unwrap().trex.len(), 1);
        assert_eq!(movie.mvhd.duration, 0);
        let [track] = &movie.trak[..] else { panic!("one track") };
        assert_eq!((track.tkhd.duration, track.tkhd.track_id, track.mdia.mdhd.duration), (0, TRACK_ID, 0));
        assert_eq!((track.tkhd.width.integer(), track.tkhd.height.integer()), (640, 360));
        assert!(track.edts.is_none());
        let table = &track.mdia.minf.stbl;
        assert!(table.stts.entries.is_empty() && table.stsc.entries.is_empty());
        assert_eq!(table.stsz.samples, mp4_atom::StszSamples::default());
        assert!(table.stco.as_ref().unwrap().entries.is_empty());
        let [Codec::Avc1(avc1)] = &table.stsd.codecs[..] else { panic!("{:?}", table.stsd) };
        assert_eq!((avc1.visual.width, avc1.visual.height), (640, 360));
        assert_eq!(avc1.avcc.length_size, 4);
        assert_eq!(avc1.pasp, Some(mp4_atom::Pasp { h_spacing: 1, v_spacing: 1 }));
        assert_eq!(avc1.colr, Some(mp4_atom::Colr::new(1, 1, 1, false).unwrap()));
    }

    fn entry(configuration: Configuration) -> Codec {
        let (id, timescale) = match configuration.sample_rate() {
            Some(rate) => (TrackId::AUDIO, Timescale::new(rate).unwrap()),
            None => (TrackId::VIDEO, Timescale::VIDEO),
        };
        let header = header(&Track { id, timescale, configuration });
        movie(&header).trak.remove(0).mdia.minf.stbl.stsd.codecs.remove(0)
    }

    #[test]
    fn mp4_atom_reads_the_records_of_other_pictures() {
        let hevc = hevc::Configuration::parse(hex(FFMPEG_HEVC)).unwrap();
        let Codec::Hvc1(hvc1) = entry(Configuration::Hevc(hevc)) else { panic!() };
        assert_eq!((hvc1.visual.width, hvc1.visual.height), (320, 180));
        assert_eq!((hvc1.hvcc.general_profile_idc, hvc1.hvcc.general_level_idc), (1, 60));
        assert_eq!(hvc1.hvcc.length_size_minus_one, 3);
        assert!(hvc1.hvcc.arrays.iter().all(|array| array.completeness));
        assert_eq!(hvc1.hvcc.arrays.len(), 3);

        let av1 = av1::Configuration::parse(hex(FFMPEG_AV1)).unwrap();
        let Codec::Av01(av01) = entry(Configuration::Av1(av1)) else { panic!() };
        assert_eq!((av01.visual.width, av01.visual.height), (320, 180));
        assert_eq!((av01.av1c.seq_profile, av01.av1c.seq_level_idx_0), (0, 0));

        let vp9 = vp9::Configuration::of_frame(None, &hex("824983420013f00b360638241c184a")).unwrap().unwrap();
        let Codec::Vp09(vp09) = entry(Configuration::Vp9(vp9)) else { panic!() };
        assert_eq!((vp09.visual.width, vp09.visual.height), (320, 180));
        assert_eq!((vp09.vpcc.profile, vp09.vpcc.level, vp09.vpcc.bit_depth), (0, 11, 8));
    }

    #[test]
    fn high_dynamic_range_is_in_the_sample_entry() {
        let hevc = hevc::Configuration::parse(hex(HDR10_HEVC)).unwrap();
        let track = Track { id: TrackId::VIDEO, timescale: Timescale::VIDEO, configuration: Configuration::Hevc(hevc) };
        let text = listing(&header(&track));
        for line in [
            "pasp 16 00000004 00000003",
            "colr 19 6e636c78 00090010 000900",
            "mdcv 32 33c286c4 1d4c0bb8 84d03e80 3d134042 00989680 00000001",
            "clli 12 03e80190",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn mp4_atom_reads_the_records_of_other_sound() {
        let opus = opus::Configuration::parse(hex(FFMPEG_OPUS)).unwrap();
        let Codec::Opus(opus) = entry(Configuration::Opus(opus)) else { panic!() };
        assert_eq!((opus.audio.channel_count, opus.audio.sample_rate), (2, 48_000.into()));
        assert_eq!((opus.dops.output_channel_count, opus.dops.pre_skip, opus.dops.input_sample_rate), (2, 312, 48_000));

        let flac = flac::Configuration::parse(hex(FFMPEG_FLAC)).unwrap();
        let Codec::Flac(flac) = entry(Configuration::Flac(flac)) else { panic!() };
        assert_eq!((flac.audio.channel_count, flac.audio.sample_size), (2, 16));
        assert_eq!(flac.dfla.blocks.len(), 1);

        let mp3 = mp3::Configuration::of_frame(&hex("fffb9464")).unwrap();
        let Codec::Mp4a(mp4a) = entry(Configuration::Mp3(mp3)) else { panic!() };
        let decoder = &mp4a.esds.es_desc.dec_config;
        assert_eq!((decoder.object_type_indication, decoder.stream_type), (0x6b, 5));
        assert!(decoder.dec_specific.is_none());

        let ac3 = ac3::Configuration::of_access_unit(&hex("0b77fe95144043e106f46370")).unwrap();
        let Codec::Ac3(ac3) = entry(Configuration::Ac3(ac3)) else { panic!() };
        assert_eq!((ac3.dac3.bsid, ac3.dac3.acmod, ac3.dac3.bit_rate_code), (8, 2, 10));

        let mut syncframe = hex("0b77017f3487c00020").to_vec();
        syncframe.resize(768, 0);
        let eac3 = ac3::Configuration::of_access_unit(&syncframe).unwrap();
        let Codec::Eac3(eac3) = entry(Configuration::Ac3(eac3)) else { panic!() };
        assert_eq!((eac3.dec3.data_rate, eac3.dec3.substreams.len()), (192, 1));
    }

    #[test]
    fn the_decoder_configuration_goes_in_byte_for_byte() {
        for (track, record) in [(video(OBS_AVC), hex(OBS_AVC)), (audio(HE_AAC), hex(HE_AAC))] {
            assert!(header(&track).windows(record.len()).any(|window| window == record));
        }
    }

    #[test]
    fn he_aac_is_described_as_it_comes_out() {
        let movie = movie(&header(&audio(HE_AAC)));
        let track = &movie.trak[0];
        assert_eq!(track.mdia.mdhd.timescale, 48_000);
        assert_eq!(track.tkhd.volume, 1.into());
        let [Codec::Mp4a(mp4a)] = &track.mdia.minf.stbl.stsd.codecs[..] else { panic!() };
        assert_eq!((mp4a.audio.channel_count, mp4a.audio.sample_rate), (2, 48_000.into()));
        let decoder = &mp4a.esds.es_desc.dec_config;
        assert_eq!((decoder.object_type_indication, decoder.stream_type), (0x40, 5));
        assert_eq!(decoder.dec_specific.as_ref().unwrap().raw, hex(HE_AAC));
    }

    #[test]
    fn a_rate_that_does_not_fit_is_left_to_the_decoder_configuration() {
        let movie = movie(&header(&audio("1010")));
        assert_eq!(movie.trak[0].mdia.mdhd.timescale, 96_000);
        let [Codec::Mp4a(mp4a)] = &movie.trak[0].mdia.minf.stbl.stsd.codecs[..] else { panic!() };
        assert_eq!(mp4a.audio.sample_rate, 0.into());
    }
}
