//! Headers and segments, read with mp4-atom; the `mp4` crate judges as well where it knows the codec.

use std::io::Cursor;

use mp4_atom::{Codec, Decode, Ftyp, Header as BoxHeader, Moof, Moov, ReadFrom, Trex};

/// What a CMAF header says.
#[derive(Debug)]
pub(crate) struct Header {
    /// The types of its boxes, in order.
    pub(crate) boxes: Vec<String>,
    pub(crate) ftyp: Ftyp,
    pub(crate) moov: Moov,
    pub(crate) track: Track,
}

/// The one track of a header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Track {
    pub(crate) id: u32,
    pub(crate) timescale: u32,
    /// The type of its sample entry.
    pub(crate) entry: String,
    /// The RFC 6381 string, where it can be told from the sample entry by a few bytes.
    pub(crate) codec: Option<String>,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Video { width: u16, height: u16, nal_length_bytes: usize },
    Audio { sample_rate: u32, channels: u16 },
}

/// One coded picture or audio frame of a segment, in ticks of its track.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) decode_time: u64,
    pub(crate) composition_offset: i64,
    pub(crate) duration: u32,
    pub(crate) is_sync: bool,
    pub(crate) payload: Vec<u8>,
}

impl Sample {
    pub(crate) fn presentation_time(&self) -> i64 {
        i64::try_from(self.decode_time).unwrap() + self.composition_offset
    }
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) moofs: Vec<Moof>,
    pub(crate) samples: Vec<Sample>,
    /// The boxes, their types in order.
    pub(crate) boxes: Vec<String>,
}

/// Reads a CMAF header.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_header(bytes: &[u8]) -> Result<Header, String> {
    let (mut ftyp, mut moov) = (None, None);
    let boxes = split(bytes)?;
    for (kind, range) in &boxes {
        let mut body = &bytes[range.clone()];
        match kind.as_str() {
            "ftyp" => ftyp = Some(Ftyp::decode(&mut body).map_err(|e| format!("ftyp: {e}"))?),
            "moov" => moov = Some(Moov::decode(&mut body).map_err(|e| format!("moov: {e}"))?),
            _ => {}
        }
    }
    let moov = moov.ok_or("no moov")?;
    let track = read_track(&moov)?;
    let header =
        Header { boxes: boxes.into_iter().map(|(kind, _)| kind).collect(), ftyp: ftyp.ok_or("no ftyp")?, moov, track };
    agree_with_mp4(bytes, &header)?;
    Ok(header)
}

fn read_track(moov: &Moov) -> Result<Track, String> {
    let [trak] = moov.trak.as_slice() else { return Err(format!("{} tracks instead of 1", moov.trak.len())) };
    let [entry] = trak.mdia.minf.stbl.stsd.codecs.as_slice() else { return Err("not one sample entry".into()) };
    let video = |visual: &mp4_atom::Visual, nal_length_bytes| Kind::Video {
        width: visual.width,
        height: visual.height,
        nal_length_bytes,
    };
    let audio = |audio: &mp4_atom::Audio| Kind::Audio {
        sample_rate: audio.sample_rate.integer().into(),
        channels: audio.channel_count,
    };
    let (kind, codec) = match entry {
        Codec::Avc1(avc1) => {
            let avcc = &avc1.avcc;
            let [profile, compatibility, level] =
                [avcc.avc_profile_indication, avcc.profile_compatibility, avcc.avc_level_indication];
            let codec = format!("avc1.{profile:02x}{compatibility:02x}{level:02x}");
            (video(&avc1.visual, avcc.length_size.into()), Some(codec))
        }
        Codec::Hvc1(hvc1) => (video(&hvc1.visual, usize::from(hvc1.hvcc.length_size_minus_one) + 1), None),
        Codec::Av01(av01) => (video(&av01.visual, 0), None),
        Codec::Vp09(vp09) => (video(&vp09.visual, 0), None),
        Codec::Mp4a(mp4a) => {
            let config = &mp4a.esds.es_desc.dec_config;
            let object_type = config.dec_specific.as_ref().and_then(|specific| specific.raw.first()).map(|b| b >> 3);
            let codec = match (config.object_type_indication, object_type) {
                (0x40, Some(object_type)) => Some(format!("mp4a.40.{object_type}")),
                (0x40, None) => None,
                (other, _) => Some(format!("mp4a.{other:02X}")),
            };
            (audio(&mp4a.audio), codec)
        }
        Codec::Opus(opus) => (audio(&opus.audio), Some("opus".into())),
        Codec::Flac(flac) => (audio(&flac.audio), Some("fLaC".into())),
        other => return Err(format!("unexpected sample entry {other:?}")),
    };
    let entry = match entry {
        Codec::Avc1(_) => "avc1",
        Codec::Hvc1(_) => "hvc1",
        Codec::Av01(_) => "av01",
        Codec::Vp09(_) => "vp09",
        Codec::Mp4a(_) => "mp4a",
        Codec::Opus(_) => "Opus",
        _ => "fLaC",
    };
    let timescale = trak.mdia.mdhd.timescale;
    Ok(Track { id: trak.tkhd.track_id, timescale, entry: entry.into(), codec, kind })
}

/// Reads a segment of the track of `header`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_segment(bytes: &[u8], header: &Header) -> Result<Segment, String> {
    let trex = header.moov.mvex.iter().flat_map(|mvex| &mvex.trex).find(|trex| trex.track_id == header.track.id);
    let trex = trex.ok_or("no trex of the track")?;
    let mut segment = Segment::default();
    // Where the samples of the last moof end, and where the mdat that follows it has to end.
    let mut covered = None;
    for (kind, range) in split(bytes)? {
        if kind == "moof" {
            let mut body = &bytes[range.clone()];
            let moof = Moof::decode(&mut body).map_err(|e| format!("moof: {e}"))?;
            agree_on_moof(&bytes[range.clone()], &moof)?;
            covered = Some(read_samples(bytes, range.start, &moof, trex, &mut segment.samples)?);
            segment.moofs.push(moof);
        } else if kind == "mdat" {
            let end = covered.take().ok_or("mdat without moof")?;
            if end != (range.start + 8, range.end) {
                return Err(format!("samples lie in {end:?}, the mdat's body is {}..{}", range.start + 8, range.end));
            }
        }
        segment.boxes.push(kind);
    }
    if covered.is_some() {
        return Err("moof without mdat".into());
    }
    Ok(segment)
}

/// Adds the samples of `moof`, which begins at `start`; gives the range in which their bytes lie without a hole.
fn read_samples(
    bytes: &[u8],
    start: usize,
    moof: &Moof,
    trex: &Trex,
    samples: &mut Vec<Sample>,
) -> Result<(usize, usize), String> {
    let [traf] = moof.traf.as_slice() else { return Err(format!("{} traf instead of 1", moof.traf.len())) };
    let tfhd = &traf.tfhd;
    if tfhd.track_id != trex.track_id {
        return Err(format!("track {} in a segment of track {}", tfhd.track_id, trex.track_id));
    }
    if !tfhd.default_base_is_moof || tfhd.base_data_offset.is_some() {
        return Err("data is not addressed from the moof".into());
    }
    let mut decode_time = traf.tfdt.as_ref().ok_or("no tfdt")?.base_media_decode_time;
    let (mut first, mut end) = (None, 0);
    for trun in &traf.trun {
        let offset = trun.data_offset.ok_or("trun without data offset")?;
        let mut at = start.checked_add_signed(isize::try_from(offset).unwrap()).ok_or("data offset out of range")?;
        if first.is_some() && at != end {
            return Err("runs do not follow each other".into());
        }
        first = first.or(Some(at));
        for entry in &trun.samples {
            let size = entry.size.or(tfhd.default_sample_size).unwrap_or(trex.default_sample_size);
            let flags = entry.flags.or(tfhd.default_sample_flags).unwrap_or(trex.default_sample_flags);
            let duration = entry.duration.or(tfhd.default_sample_duration).unwrap_or(trex.default_sample_duration);
            let payload = bytes.get(at..at + usize::try_from(size).unwrap()).ok_or("sample behind the file's end")?;
            samples.push(Sample {
                decode_time,
                composition_offset: entry.cts.unwrap_or(0),
                duration,
                // sample_is_non_sync_sample
                is_sync: flags & 0x1_0000 == 0,
                payload: payload.to_vec(),
            });
            at += payload.len();
            decode_time += u64::from(duration);
        }
        end = at;
    }
    Ok((first.ok_or("no trun")?, end))
}

/// The boxes at the top of a file: their types and where they lie.
fn split(bytes: &[u8]) -> Result<Vec<(String, std::ops::Range<usize>)>, String> {
    let mut boxes = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let mut rest = Cursor::new(&bytes[at..]);
        let header = BoxHeader::read_from(&mut rest).map_err(|e| format!("box at {at}: {e}"))?;
        let head = usize::try_from(rest.position()).unwrap();
        let end = at + head + header.size.ok_or("a box without size")?;
        if end > bytes.len() {
            return Err(format!("{:?} at {at} ends behind the file", header.kind));
        }
        boxes.push((header.kind.to_string(), at..end));
        at = end;
    }
    Ok(boxes)
}

/// The second judge of a header.
fn agree_with_mp4(bytes: &[u8], header: &Header) -> Result<(), String> {
    if !matches!(header.track.entry.as_str(), "avc1" | "mp4a") {
        return Ok(());
    }
    let size = u64::try_from(bytes.len()).unwrap();
    let other = mp4::Mp4Reader::read_header(Cursor::new(bytes), size).map_err(|e| format!("mp4 crate: {e}"))?;
    let track = other.tracks().get(&header.track.id).ok_or("mp4 crate: no such track")?;
    let same = match header.track.kind {
        Kind::Video { width, height, .. } => (track.width(), track.height()) == (width, height),
        Kind::Audio { channels, .. } => {
            track.trak.mdia.minf.stbl.stsd.mp4a.as_ref().is_some_and(|mp4a| mp4a.channelcount == channels)
        }
    };
    if same && track.timescale() == header.track.timescale && track.sample_count() == 0 {
        return Ok(());
    }
    Err(format!("mp4 crate and mp4-atom read it differently: {:?}", header.track))
}

/// The second judge of a `moof`.
fn agree_on_moof(bytes: &[u8], moof: &Moof) -> Result<(), String> {
    use mp4::ReadBox;

    let mut reader = Cursor::new(bytes);
    let head = mp4::BoxHeader::read(&mut reader).map_err(|e| format!("mp4 crate: {e}"))?;
    let other = mp4::MoofBox::read_box(&mut reader, head.size).map_err(|e| format!("mp4 crate: moof: {e}"))?;
    let theirs: Vec<_> = other
        .trafs
        .iter()
        .map(|traf| {
            let tfdt = traf.tfdt.as_ref().map(|tfdt| tfdt.base_media_decode_time);
            (traf.tfhd.track_id, tfdt, traf.trun.as_ref().map_or(0, |trun| trun.sample_count))
        })
        .collect();
    let ours: Vec<_> = moof
        .traf
        .iter()
        .map(|traf| {
            let tfdt = traf.tfdt.as_ref().map(|tfdt| tfdt.base_media_decode_time);
            let samples = traf.trun.first().map_or(0, |trun| trun.samples.len());
            (traf.tfhd.track_id, tfdt, u32::try_from(samples).unwrap())
        })
        .collect();
    if ours == theirs && other.mfhd.sequence_number == moof.mfhd.sequence_number {
        return Ok(());
    }
    Err(format!("mp4 crate and mp4-atom read the moof differently: {theirs:?}, {ours:?}"))
}
