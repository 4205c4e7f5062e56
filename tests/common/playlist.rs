//! Playlists, read by two parsers that have to agree.

use quick_m3u8::config::ParsingOptionsBuilder;
use quick_m3u8::tag::KnownTag;
use quick_m3u8::tag::hls::Tag;
use quick_m3u8::{HlsLine, Reader};

/// A media playlist.
#[derive(Debug, Default)]
pub(crate) struct MediaPlaylist {
    pub(crate) text: String,
    pub(crate) versions: Vec<u64>,
    pub(crate) target_duration_s: Vec<u64>,
    pub(crate) media_sequence: u64,
    /// `None` when the tag is missing.
    pub(crate) discontinuity_sequence: Option<u64>,
    pub(crate) claims_independent_segments: bool,
    pub(crate) has_end: bool,
    pub(crate) playlist_type: Option<String>,
    pub(crate) entries: Vec<Entry>,
}

/// A segment as the playlist lists it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Entry {
    pub(crate) uri: String,
    pub(crate) duration_s: f64,
    pub(crate) has_discontinuity: bool,
    pub(crate) is_gap: bool,
    /// The URI of the EXT-X-MAP in force.
    pub(crate) map: Option<String>,
    /// EXT-X-PROGRAM-DATE-TIME as written.
    pub(crate) program_date_time: Option<String>,
    /// The same, in milliseconds since 1970.
    pub(crate) unix_ms: Option<i64>,
}

impl MediaPlaylist {
    /// Reads `text` with quick-m3u8 and m3u8-rs.
    ///
    /// # Errors
    /// What one of them does not understand, or in what they differ.
    pub(crate) fn read(text: String) -> Result<Self, String> {
        let mut playlist = Self::default();
        let mut entry = Entry::default();
        for tag in lines(&text)? {
            match tag {
                HlsLine::Uri(uri) => {
                    let next = Entry { map: entry.map.clone(), ..Entry::default() };
                    let finished = std::mem::replace(&mut entry, next);
                    playlist.entries.push(Entry { uri: uri.into_owned(), ..finished });
                }
                HlsLine::KnownTag(KnownTag::Hls(tag)) => match tag {
                    Tag::Version(version) => playlist.versions.push(version.version()),
                    Tag::Targetduration(target) => playlist.target_duration_s.push(target.target_duration()),
                    Tag::MediaSequence(sequence) => playlist.media_sequence = sequence.media_sequence(),
                    Tag::DiscontinuitySequence(sequence) => {
                        if !playlist.entries.is_empty() || entry.has_discontinuity {
                            return Err("EXT-X-DISCONTINUITY-SEQUENCE stands behind a segment or discontinuity".into());
                        }
                        playlist.discontinuity_sequence = Some(sequence.discontinuity_sequence());
                    }
                    Tag::IndependentSegments(_) => playlist.claims_independent_segments = true,
                    Tag::Endlist(_) => playlist.has_end = true,
                    Tag::Inf(inf) => entry.duration_s = inf.duration(),
                    Tag::Discontinuity(_) => entry.has_discontinuity = true,
                    Tag::Gap(_) => entry.is_gap = true,
                    Tag::Map(map) => entry.map = Some(map.uri().to_owned()),
                    _ => {}
                },
                _ => {}
            }
        }
        playlist.text = text;
        playlist.agree_with_m3u8_rs()?;
        Ok(playlist)
    }

    /// Compares with m3u8-rs, which also reads the dates.
    fn agree_with_m3u8_rs(&mut self) -> Result<(), String> {
        let other = m3u8_rs::parse_media_playlist_res(self.text.as_bytes()).map_err(|e| format!("m3u8-rs: {e}"))?;
        let mut map = None;
        let mut entries = Vec::new();
        for segment in &other.segments {
            map = segment.map.as_ref().map(|map| map.uri.clone()).or(map);
            entries.push((segment.uri.clone(), segment.discontinuity, map.clone()));
        }
        let ours: Vec<_> = self.entries.iter().map(|e| (e.uri.clone(), e.has_discontinuity, e.map.clone())).collect();
        if entries != ours || other.media_sequence != self.media_sequence || other.end_list != self.has_end {
            return Err(format!("m3u8-rs and quick-m3u8 read it differently:\n{}", self.text));
        }
        self.playlist_type = other.playlist_type.map(|kind| kind.to_string());
        for ((entry, segment), date) in self.entries.iter_mut().zip(&other.segments).zip(dates(&self.text)) {
            entry.program_date_time = date.map(str::to_owned);
            entry.unix_ms = segment.program_date_time.map(|date| date.timestamp_millis());
        }
        Ok(())
    }

    /// The seconds of media that it lists, gaps included.
    pub(crate) fn duration_s(&self) -> f64 {
        self.entries.iter().map(|entry| entry.duration_s).sum()
    }

    pub(crate) fn discontinuities(&self) -> usize {
        self.entries.iter().filter(|entry| entry.has_discontinuity).count()
    }
}

/// The EXT-X-PROGRAM-DATE-TIME of each entry, as written.
fn dates(text: &str) -> Vec<Option<&str>> {
    let mut dates = Vec::new();
    let mut date = None;
    for line in text.lines() {
        match line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
            Some(written) => date = Some(written),
            None if !line.is_empty() && !line.starts_with('#') => dates.push(date.take()),
            None => {}
        }
    }
    dates
}

/// A multivariant playlist.
#[derive(Debug, Default)]
pub(crate) struct Multivariant {
    pub(crate) text: String,
    pub(crate) versions: Vec<u64>,
    pub(crate) variants: Vec<Variant>,
    /// The URIs of its audio renditions; the default one first.
    pub(crate) audio: Vec<AudioRendition>,
    pub(crate) claims_independent_segments: bool,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Variant {
    pub(crate) uri: String,
    pub(crate) bandwidth: u64,
    pub(crate) average_bandwidth: Option<u64>,
    pub(crate) codecs: Vec<String>,
    pub(crate) resolution: Option<[u64; 2]>,
    pub(crate) frame_rate: Option<f64>,
    pub(crate) audio_group: Option<String>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct AudioRendition {
    pub(crate) uri: Option<String>,
    pub(crate) group: String,
    pub(crate) is_default: bool,
    pub(crate) channels: Option<String>,
}

impl Multivariant {
    /// Reads `text` with quick-m3u8 and m3u8-rs.
    ///
    /// # Errors
    /// What one of them does not understand, or in what they differ.
    pub(crate) fn read(text: String) -> Result<Self, String> {
        let mut playlist = Self::default();
        let mut variant = Variant::default();
        for line in lines(&text)? {
            match line {
                HlsLine::Uri(uri) => {
                    let finished = std::mem::take(&mut variant);
                    playlist.variants.push(Variant { uri: uri.into_owned(), ..finished });
                }
                HlsLine::KnownTag(KnownTag::Hls(Tag::Version(version))) => playlist.versions.push(version.version()),
                HlsLine::KnownTag(KnownTag::Hls(Tag::IndependentSegments(_))) => {
                    playlist.claims_independent_segments = true;
                }
                HlsLine::KnownTag(KnownTag::Hls(Tag::StreamInf(stream))) => {
                    variant.bandwidth = stream.bandwidth();
                    variant.average_bandwidth = stream.average_bandwidth();
                    variant.codecs = stream.codecs().unwrap_or_default().split(',').map(str::to_owned).collect();
                    variant.resolution = stream.resolution().map(|size| [size.width, size.height]);
                    variant.frame_rate = stream.frame_rate();
                    variant.audio_group = stream.audio().map(str::to_owned);
                }
                HlsLine::KnownTag(KnownTag::Hls(Tag::Media(media))) => playlist.audio.push(AudioRendition {
                    uri: media.uri().map(str::to_owned),
                    group: media.group_id().to_owned(),
                    is_default: media.default(),
                    channels: None,
                }),
                _ => {}
            }
        }
        playlist.text = text;
        playlist.agree_with_m3u8_rs()?;
        playlist.audio.sort_by_key(|rendition| !rendition.is_default);
        Ok(playlist)
    }

    /// Compares with m3u8-rs.
    fn agree_with_m3u8_rs(&mut self) -> Result<(), String> {
        let other = m3u8_rs::parse_master_playlist_res(self.text.as_bytes()).map_err(|e| format!("m3u8-rs: {e}"))?;
        let variants: Vec<_> = other
            .variants
            .into_iter()
            .filter(|variant| !variant.is_i_frame)
            .map(|variant| Variant {
                uri: variant.uri,
                bandwidth: variant.bandwidth,
                average_bandwidth: variant.average_bandwidth,
                codecs: variant.codecs.unwrap_or_default().split(',').map(str::to_owned).collect(),
                resolution: variant.resolution.map(|size| [size.width, size.height]),
                frame_rate: variant.frame_rate,
                audio_group: variant.audio,
            })
            .collect();
        for (ours, theirs) in self.audio.iter_mut().zip(&other.alternatives) {
            ours.channels.clone_from(&theirs.channels);
        }
        let uris: Vec<_> = other.alternatives.iter().map(|media| media.uri.clone()).collect();
        if variants != self.variants || uris != self.audio.iter().map(|audio| audio.uri.clone()).collect::<Vec<_>>() {
            return Err(format!("m3u8-rs and quick-m3u8 read it differently:\n{}", self.text));
        }
        Ok(())
    }
}

/// The lines of a playlist, which has to begin with `#EXTM3U`.
fn lines(text: &str) -> Result<Vec<HlsLine<'_>>, String> {
    if !text.starts_with("#EXTM3U\n") || !text.ends_with('\n') {
        return Err(format!("does not begin with #EXTM3U or does not end with a line break:\n{text}"));
    }
    let mut reader = Reader::from_str(text, ParsingOptionsBuilder::new().with_parsing_for_all_tags().build());
    let mut lines = Vec::new();
    loop {
        match reader.read_line() {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => return Ok(lines),
            Err(error) => return Err(format!("quick-m3u8: {} in {:?}", error.error, error.errored_line)),
        }
    }
}
