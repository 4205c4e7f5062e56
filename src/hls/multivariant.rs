//! The multivariant playlist: what there is to choose from, and at what bandwidth, as measured.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use m3u8_rs::{
    AlternativeMedia, AlternativeMediaType, ClosedCaptionGroupId, InstreamId, MasterPlaylist, QuotedOrUnquoted,
    Resolution, VariantStream,
};

use crate::cmaf::Segment;
use crate::codec::{CaptionChannel, Captions, Configuration, Picture, Range};
use crate::media::{TrackId, TrackKind};

/// The group of the audio renditions; those in another codec than the first have a group of their own, so that players
/// without that codec pass over its variants only (RFC 8216bis 4.4.6.2.1).
const AUDIO_GROUP: &str = "audio";

/// The groups of captions, by the first video rendition that has them.
const CAPTIONS_GROUP: &str = "captions";

/// EXT-X-MEDIA needs version 4 (RFC 8216bis 8).
const VERSION: usize = 4;

/// Captions of CEA-708 need version 7 (RFC 8216bis 8).
const VERSION_WITH_SERVICES: usize = 7;

/// The shortest and the longest run of segments whose bit rate counts as a peak, in half target durations (RFC 8216bis
/// 4.4.6.2).
const SHORTEST_PEAK: u64 = 1;
const LONGEST_PEAK: u64 = 3;

/// Common frame rates, which encoders mean when the timestamps come within [`FRAME_RATE_TOLERANCE`] of them.
const FRAME_RATES: [f64; 13] = [
    10.0,
    12.5,
    15.0,
    20.0,
    24_000.0 / 1001.0,
    24.0,
    25.0,
    30_000.0 / 1001.0,
    30.0,
    50.0,
    60_000.0 / 1001.0,
    60.0,
    120.0,
];

/// How far a measured frame rate may be from a common one to be taken for it, as a share of it. 30 and 29.97 are 0.1 % apart.
const FRAME_RATE_TOLERANCE: f64 = 0.000_5;

/// Of how many measurements the largest counts: about as long as a window lasts.
const COMPARED_FRAME_RATES: usize = 30;

/// Frames come unevenly when the usual one lasts less than this share of the mean.
const UNEVEN: f64 = 0.9;

/// What one rendition's segments measure.
#[derive(Debug, Default, Clone)]
pub(super) struct Measured {
    /// The largest bit rate of a run of segments, in bits a second.
    peak: u64,
    bytes: u64,
    duration_us: u64,
    /// Bytes and durations of the last segments, as many as count as one peak.
    run: VecDeque<(u64, u64)>,
    /// Samples a second of the last segments, the latest first.
    frame_rates: VecDeque<f64>,
    /// What has come since the frame rate was measured, in microseconds.
    since_frame_rate_us: u64,
    /// A segment of this process has been measured.
    is_current: bool,
}

impl Measured {
    /// Takes into account what a former process listed: only its size and duration are known.
    pub(super) fn add_listed(&mut self, segment: &Segment, target_duration_s: u64) {
        self.add(segment, target_duration_s);
        self.frame_rates.clear();
        self.is_current = false;
    }

    /// All that is said of it is known.
    pub(super) fn is_current(&self) -> bool {
        self.is_current
    }

    /// Takes the next segment into account.
    pub(super) fn add(&mut self, segment: &Segment, target_duration_s: u64) {
        if segment.is_gap || segment.duration_us == 0 {
            self.run.clear();
            return;
        }
        self.is_current = true;
        self.bytes += segment.bytes;
        self.duration_us += segment.duration_us;
        let half_target_us = target_duration_s * 500_000;
        self.find_peak(segment, half_target_us);
        self.since_frame_rate_us += segment.duration_us;
        if self.since_frame_rate_us >= half_target_us || self.frame_rates.is_empty() {
            self.frame_rates.truncate(COMPARED_FRAME_RATES - 1);
            self.frame_rates.push_front(frame_rate(segment));
            self.since_frame_rate_us = 0;
        }
    }

    /// Looks at all runs that end with this segment.
    fn find_peak(&mut self, segment: &Segment, half_target_us: u64) {
        self.run.push_front((segment.bytes, segment.duration_us));
        let (mut bytes, mut duration_us, mut length) = (0, 0, 0);
        for (of_bytes, of_duration_us) in &self.run {
            if length > 0 && duration_us + of_duration_us > LONGEST_PEAK * half_target_us {
                break;
            }
            bytes += of_bytes;
            duration_us += of_duration_us;
            length += 1;
            if duration_us >= SHORTEST_PEAK * half_target_us || self.peak == 0 {
                self.peak = self.peak.max(bit_rate(bytes, duration_us));
            }
        }
        self.run.truncate(length);
    }

    /// What is said of it.
    pub(super) fn rates(&self) -> Rates {
        Rates { peak: self.peak(), average: self.average(), frame_rate: self.frame_rate() }
    }

    /// In bits a second. Where hardly a run is long enough, between gaps, the average may be above all of them.
    fn peak(&self) -> u64 {
        self.peak.max(self.average())
    }

    fn average(&self) -> u64 {
        bit_rate(self.bytes, self.duration_us)
    }

    /// Samples a second, a common frame rate where it is near one. Of rates that differ it is the largest (RFC 8216bis
    /// 4.4.6.2); of those that differ by their rounding it is the latest.
    fn frame_rate(&self) -> f64 {
        let latest = self.frame_rates.front().copied().unwrap_or(0.0);
        let largest = self.frame_rates.iter().copied().fold(latest, f64::max);
        let rate = if largest * UNEVEN > latest { largest } else { latest };
        let near = |common: &&f64| (rate / **common - 1.0).abs() <= FRAME_RATE_TOLERANCE;
        FRAME_RATES.iter().find(near).copied().unwrap_or(rate)
    }
}

/// The frame rate of a segment: that of its usual frame, where others last longer (RFC 8216bis 4.4.6.2 asks for the
/// largest).
#[expect(clippy::cast_precision_loss, reason = "a frame rate for people")]
fn frame_rate(segment: &Segment) -> f64 {
    let mean_us = segment.duration_us as f64 / f64::from(segment.samples.max(1));
    let usual_us = segment.usual_sample_us as f64;
    // Rounding to milliseconds and jitter make even frames a little uneven.
    1e6 / if usual_us > 0.0 && usual_us < UNEVEN * mean_us { usual_us } else { mean_us }
}

/// The multivariant playlist as it was put.
#[derive(Debug)]
pub(super) struct Multivariant {
    /// Of each rendition in it, in order.
    pub(super) said: Vec<Said>,
    pub(super) body: Bytes,
}

/// What the multivariant playlist says of a rendition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) track: TrackId,
    /// The oldest and the latest header, by which its codecs are told.
    pub(super) headers: Option<(u32, u32)>,
    pub(super) captions: Captions,
    pub(super) rates: Rates,
}

/// What is said of a rendition's segments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    peak: u64,
    average: u64,
    frame_rate: f64,
}

impl Multivariant {
    /// What was said is still true, and all there is to say.
    pub(super) fn still_holds(&self, now: &[Said]) -> bool {
        self.said.len() == now.len() && self.said.iter().zip(now).all(|(was, now)| was.still_holds(now))
    }
}

impl Said {
    fn still_holds(&self, now: &Self) -> bool {
        (self.track, self.headers, self.captions) == (now.track, now.headers, now.captions)
            && self.rates.still_hold(&now.rates)
    }
}

impl Rates {
    /// No peak was exceeded, the average is within 5 % (Apple 1.28 asks for 10 %), the frame rate within 1.
    fn still_hold(&self, now: &Self) -> bool {
        now.peak <= self.peak
            && self.average.abs_diff(now.average) * 20 <= self.average
            && (self.frame_rate - now.frame_rate).abs() <= 1.0
    }
}

/// A rendition to choose.
#[derive(Debug, Clone)]
pub(super) struct Choice<'a> {
    pub(super) kind: TrackKind,
    pub(super) index: u8,
    pub(super) uri: String,
    pub(super) configuration: &'a Configuration,
    pub(super) captions: Captions,
    /// The codecs of all headers that its playlist may name, the latest first.
    pub(super) codecs: &'a [String],
    pub(super) measured: &'a Measured,
}

/// The playlist's text.
pub(super) fn render(choices: &[Choice<'_>]) -> Bytes {
    let videos: Vec<_> = choices.iter().filter(|choice| choice.kind == TrackKind::Video).collect();
    let audios: Vec<_> = choices.iter().filter(|choice| choice.kind == TrackKind::Audio).collect();
    let (variants, alternatives) =
        if videos.is_empty() { (sounds(&audios), Vec::new()) } else { pictures(&videos, &audios) };
    let is_service = |media: &AlternativeMedia| matches!(media.instream_id, Some(InstreamId::Service(_)));
    let has_services = alternatives.iter().any(is_service);
    let version = if has_services { VERSION_WITH_SERVICES } else { VERSION };
    let playlist = MasterPlaylist { version: Some(version), variants, alternatives, ..MasterPlaylist::default() };
    let mut text = Vec::with_capacity(512);
    playlist.write_to(&mut text).expect("a Vec takes all that is written to it");
    text.into()
}

/// Variants without pictures.
fn sounds(audios: &[&Choice<'_>]) -> Vec<VariantStream> {
    let main = |&choice| Main { choice, says_range: false };
    audios.iter().map(|audio| variant(&main(audio), &Group::default())).collect()
}

/// Variants with pictures, and the sound and the captions that go with them.
fn pictures(videos: &[&Choice<'_>], audios: &[&Choice<'_>]) -> (Vec<VariantStream>, Vec<AlternativeMedia>) {
    let groups = groups(audios);
    let has_high_range = videos.iter().any(|video| range(video) != Range::Sdr);
    let main = |video| Main { choice: video, says_range: has_high_range };
    let mut variants = Vec::with_capacity(videos.len() * groups.len());
    for video in videos {
        for group in &groups {
            let closed_captions = captions_group(videos, video.captions)
                .map_or(ClosedCaptionGroupId::None, |position| {
                    ClosedCaptionGroupId::GroupId(captions_group_id(position))
                });
            variants.push(VariantStream { closed_captions: Some(closed_captions), ..variant(&main(video), group) });
        }
    }
    let mut alternatives = Vec::with_capacity(audios.len());
    for (position, video) in videos.iter().enumerate() {
        // Those with the same captions share a group.
        if captions_group(videos, video.captions) == Some(position) {
            let group_id = captions_group_id(position);
            alternatives.extend(video.captions.channels().map(|channel| captions(channel, &group_id)));
        }
    }
    for group in &groups {
        for (position, audio) in group.audios.iter().enumerate() {
            alternatives.push(alternative(audio, &group.id, position == 0));
        }
    }
    (variants, alternatives)
}

/// Audio renditions in one codec; none where there is no sound.
#[derive(Default)]
struct Group<'a> {
    id: String,
    audios: Vec<&'a Choice<'a>>,
}

fn groups<'a>(audios: &[&'a Choice<'a>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'_>> = Vec::with_capacity(1);
    for &audio in audios {
        match groups.iter_mut().find(|group| group.audios[0].codecs.first() == audio.codecs.first()) {
            Some(group) => group.audios.push(audio),
            None => {
                let id = match groups.len() {
                    0 => AUDIO_GROUP.to_owned(),
                    before => format!("{AUDIO_GROUP}-{}", before + 1),
                };
                groups.push(Group { id, audios: vec![audio] });
            }
        }
    }
    if groups.is_empty() {
        groups.push(Group::default());
    }
    groups
}

/// What a variant is about.
struct Main<'a> {
    choice: &'a Choice<'a>,
    /// `VIDEO-RANGE` tells variants apart; nothing is said where all are SDR.
    says_range: bool,
}

fn variant(main: &Main<'_>, group: &Group<'_>) -> VariantStream {
    let Main { choice, says_range } = main;
    let audios = &group.audios;
    let mut codecs: Vec<&str> = Vec::new();
    for codec in choice.codecs.iter().chain(audios.iter().flat_map(|audio| audio.codecs)) {
        if !codecs.contains(&codec.as_str()) {
            codecs.push(codec);
        }
    }
    let peak_audio = audios.iter().map(|audio| audio.measured.peak()).max().unwrap_or(0);
    let average_audio = audios.iter().map(|audio| audio.measured.average()).max().unwrap_or(0);
    let is_video = choice.kind == TrackKind::Video;
    VariantStream {
        uri: choice.uri.clone(),
        bandwidth: choice.measured.peak() + peak_audio,
        average_bandwidth: Some(choice.measured.average() + average_audio),
        codecs: Some(codecs.join(",")),
        resolution: choice
            .configuration
            .resolution()
            .map(|(width, height)| Resolution { width: width.into(), height: height.into() }),
        other_attributes: is_video
            .then(|| other_attributes(choice.measured.frame_rate(), says_range.then(|| range(choice)))),
        audio: (is_video && !audios.is_empty()).then(|| group.id.clone()),
        ..VariantStream::default()
    }
}

fn range(choice: &Choice<'_>) -> Range {
    choice.configuration.picture().map_or(Range::Sdr, Picture::range)
}

/// `FRAME-RATE` with three decimals (RFC 8216bis 4.4.6.2), which `VariantStream::frame_rate` would leave to the number, and
/// `VIDEO-RANGE`. Both in one entry, as those of a map come in another order each time.
fn other_attributes(frame_rate: f64, range: Option<Range>) -> HashMap<String, QuotedOrUnquoted> {
    let range = match range {
        None => "",
        Some(Range::Sdr) => ",VIDEO-RANGE=SDR",
        Some(Range::Hlg) => ",VIDEO-RANGE=HLG",
        Some(Range::Pq) => ",VIDEO-RANGE=PQ",
    };
    HashMap::from([("FRAME-RATE".to_owned(), QuotedOrUnquoted::Unquoted(format!("{frame_rate:.3}{range}")))])
}

fn alternative(audio: &Choice<'_>, group_id: &str, is_default: bool) -> AlternativeMedia {
    AlternativeMedia {
        media_type: AlternativeMediaType::Audio,
        uri: Some(audio.uri.clone()),
        group_id: group_id.to_owned(),
        name: format!("Audio {}", u16::from(audio.index) + 1),
        default: is_default,
        autoselect: true,
        channels: channels(audio.configuration),
        ..AlternativeMedia::default()
    }
}

/// `CHANNELS` (RFC 8216bis 4.4.6.1): how many, or how many objects of joint object coding.
fn channels(configuration: &Configuration) -> Option<String> {
    match configuration.objects() {
        Some(objects) => Some(format!("{objects}/JOC")),
        None => configuration.channels().map(|channels| channels.to_string()),
    }
}

/// The position of the first video rendition with these captions, if they are any.
fn captions_group(videos: &[&Choice<'_>], captions: Captions) -> Option<usize> {
    videos.iter().position(|video| video.captions == captions).filter(|_| !captions.is_empty())
}

fn captions_group_id(position: usize) -> String {
    if position == 0 { CAPTIONS_GROUP.to_owned() } else { format!("{CAPTIONS_GROUP}-{}", position + 1) }
}

/// RFC 8216bis 4.4.6.1. In which language they are is not said in the pictures.
fn captions(channel: CaptionChannel, group_id: &str) -> AlternativeMedia {
    AlternativeMedia {
        media_type: AlternativeMediaType::ClosedCaptions,
        group_id: group_id.to_owned(),
        language: Some("und".to_owned()),
        name: match channel {
            CaptionChannel::Cc(number) => format!("Captions {number}"),
            CaptionChannel::Service(number) => format!("Captions, service {number}"),
        },
        autoselect: true,
        instream_id: Some(match channel {
            CaptionChannel::Cc(number) => InstreamId::CC(number),
            CaptionChannel::Service(number) => InstreamId::Service(number),
        }),
        ..AlternativeMedia::default()
    }
}

/// Bits a second, rounded up.
fn bit_rate(bytes: u64, duration_us: u64) -> u64 {
    (bytes * 8_000_000).div_ceil(duration_us.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::samples::{FFMPEG_OPUS, HDR10_HEVC, HE_AAC, OBS_AVC, hex};
    use crate::codec::{aac, ac3, avc, hevc, opus};

    #[test]
    fn each_audio_codec_has_its_group_and_high_range_is_told() {
        let configurations = [
            Configuration::Avc(avc::Configuration::parse(hex(OBS_AVC)).unwrap()),
            Configuration::Hevc(hevc::Configuration::parse(hex(HDR10_HEVC)).unwrap()),
            Configuration::Aac(aac::Configuration::parse(hex(HE_AAC)).unwrap()),
            Configuration::Opus(opus::Configuration::parse(hex(FFMPEG_OPUS)).unwrap()),
        ];
        let codecs = configurations.each_ref().map(|configuration| [configuration.rfc6381()]);
        let measured = Measured { frame_rates: VecDeque::from([25.0]), ..Measured::default() };
        let choice = |position: usize, index, uri: &str| Choice {
            kind: if position < 2 { TrackKind::Video } else { TrackKind::Audio },
            index,
            uri: uri.to_owned(),
            configuration: &configurations[position],
            captions: Captions::default(),
            codecs: &codecs[position],
            measured: &measured,
        };
        let choices = [
            choice(0, 0, "video.m3u8"),
            choice(1, 1, "video1.m3u8"),
            choice(2, 0, "audio.m3u8"),
            choice(3, 1, "audio1.m3u8"),
        ];
        let text = render(&choices);
        let variant = |codecs: &str, rest: &str| {
            format!("#EXT-X-STREAM-INF:BANDWIDTH=0,AVERAGE-BANDWIDTH=0,CODECS=\"{codecs}\",{rest}\n")
        };
        let mut expected = String::from(
            "#EXTM3U\n#EXT-X-VERSION:4\n\
             #EXT-X-MEDIA:TYPE=AUDIO,URI=\"audio.m3u8\",GROUP-ID=\"audio\",NAME=\"Audio 1\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"\n\
             #EXT-X-MEDIA:TYPE=AUDIO,URI=\"audio1.m3u8\",GROUP-ID=\"audio-2\",NAME=\"Audio 2\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"\n",
        );
        for (video, size, range, uri) in
            [("avc1.64001e", "640x360", "SDR", "video.m3u8"), ("hvc1.2.4.L60.90", "322x182", "PQ", "video1.m3u8")]
        {
            for (audio, group) in [("mp4a.40.5", "audio"), ("opus", "audio-2")] {
                let rest = format!(
                    "RESOLUTION={size},FRAME-RATE=25.000,VIDEO-RANGE={range},AUDIO=\"{group}\",CLOSED-CAPTIONS=NONE\n{uri}"
                );
                expected.push_str(&variant(&format!("{video},{audio}"), &rest));
            }
        }
        assert_eq!(String::from_utf8(text.to_vec()).unwrap(), expected);
    }
    #[test]
    fn the_largest_of_the_last_frame_rates_counts() {
        let of = |rates: &[f64]| {
            let measured = Measured { frame_rates: rates.iter().copied().collect(), ..Measured::default() };
            format!("{:.3}", measured.frame_rate())
        };
        assert_eq!(of(&[]), "0.000");
        assert_eq!(of(&[29.98, 29.9, 30.1]), "29.970");
        // A camera in the dark.
        assert_eq!(of(&[8.5, 8.5, 25.01, 25.0]), "25.000");
        assert_eq!(of(&[25.0, 8.5]), "25.000");
    }

    #[test]
    fn objects_are_counted_in_place_of_channels() {
        let surround = |frame| Configuration::Ac3(ac3::Configuration::of_access_unit(&hex(frame)).unwrap());
        assert_eq!(channels(&surround("0b77 0007 3f 87c0")).as_deref(), Some("6"));
        assert_eq!(channels(&surround("0b77 0007 3f 87c4 1011 00")).as_deref(), Some("16/JOC"));
    }
}
