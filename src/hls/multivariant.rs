//! The multivariant playlist: what there is to choose from, and at what bandwidth, as measured.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use m3u8_rs::{AlternativeMedia, AlternativeMediaType, MasterPlaylist, QuotedOrUnquoted, Resolution, VariantStream};

use crate::cmaf::Segment;
use crate::codec::Configuration;
use crate::media::TrackKind;

/// The audio renditions' group.
const AUDIO_GROUP: &str = "audio";

/// EXT-X-MEDIA needs version 4 (RFC 8216bis 8); nothing here needs more.
const VERSION: usize = 4;

/// The shortest run of segments whose bit rate counts as a peak, in target durations (RFC 8216bis 4.4.6.2).
const SHORTEST_PEAK: f64 = 0.5;

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

/// Frames come unevenly when the shortest lasts less than this share of the mean.
const UNEVEN: f64 = 0.8;

/// What one rendition's segments measure.
#[derive(Debug, Default, Clone)]
pub(super) struct Measured {
    /// The largest bit rate of a run of segments, in bits a second.
    peak: u64,
    bytes: u64,
    duration_us: u64,
    /// Segments too short to count on their own.
    run: VecDeque<(u64, u64)>,
    /// Samples a second of the last segments.
    frame_rate: f64,
}

impl Measured {
    /// Takes the next segment into account.
    pub(super) fn add(&mut self, segment: &Segment, target_duration_s: u64) {
        if segment.is_gap || segment.duration_us == 0 {
            self.run.clear();
            return;
        }
        self.bytes += segment.bytes;
        self.duration_us += segment.duration_us;
        self.run.push_back((segment.bytes, segment.duration_us));
        let bytes: u64 = self.run.iter().map(|(bytes, _)| bytes).sum();
        let duration_us: u64 = self.run.iter().map(|(_, duration_us)| duration_us).sum();
        #[expect(clippy::cast_precision_loss, reason = "a bit rate for people")]
        let is_long_enough = duration_us as f64 >= SHORTEST_PEAK * 1e6 * target_duration_s as f64;
        if is_long_enough || self.peak == 0 {
            self.peak = self.peak.max(bit_rate(bytes, duration_us));
            self.run.clear();
        }
        if is_long_enough || self.frame_rate == 0.0 {
            self.frame_rate = frame_rate(segment);
        }
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    pub(super) fn average(&self) -> u64 {
        bit_rate(self.bytes, self.duration_us)
    }

    /// Samples a second, a common frame rate where it is near one.
    pub(super) fn frame_rate(&self) -> f64 {
        let near = |rate: &&f64| (self.frame_rate / **rate - 1.0).abs() <= FRAME_RATE_TOLERANCE;
        FRAME_RATES.iter().find(near).copied().unwrap_or(self.frame_rate)
    }
}

/// The frame rate of a segment: the largest, where frames come unevenly (RFC 8216bis 4.4.6.2).
#[expect(clippy::cast_precision_loss, reason = "a frame rate for people")]
fn frame_rate(segment: &Segment) -> f64 {
    let mean_us = segment.duration_us as f64 / f64::from(segment.samples.max(1));
    let shortest_us = segment.shortest_sample_us as f64;
    // Milliseconds and jitter make even frames a little uneven.
    1e6 / if shortest_us > 0.0 && shortest_us < UNEVEN * mean_us { shortest_us } else { mean_us }
}

/// A rendition to choose.
#[derive(Debug, Clone)]
pub(super) struct Choice<'a> {
    pub(super) kind: TrackKind,
    pub(super) index: u8,
    pub(super) uri: String,
    pub(super) configuration: &'a Configuration,
    /// The codecs of all headers that its playlist may name, the latest first.
    pub(super) codecs: &'a [String],
    pub(super) measured: &'a Measured,
}

/// What the multivariant playlist says, to tell whether it must be said anew.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Multivariant {
    variants: Vec<VariantStream>,
    alternatives: Vec<AlternativeMedia>,
    frame_rates: Vec<f64>,
}

impl Multivariant {
    pub(super) fn new(choices: &[Choice<'_>]) -> Self {
        let videos: Vec<_> = choices.iter().filter(|choice| choice.kind == TrackKind::Video).collect();
        let audios: Vec<_> = choices.iter().filter(|choice| choice.kind == TrackKind::Audio).collect();
        if videos.is_empty() {
            return Self {
                variants: audios.iter().map(|audio| variant(audio, &[])).collect(),
                alternatives: Vec::new(),
                frame_rates: Vec::new(),
            };
        }
        Self {
            variants: videos.iter().map(|video| variant(video, &audios)).collect(),
            alternatives: audios
                .iter()
                .enumerate()
                .map(|(position, audio)| alternative(audio, position == 0))
                .collect(),
            frame_rates: videos.iter().map(|video| video.measured.frame_rate()).collect(),
        }
    }

    /// The playlist that was written still tells the truth: no bandwidth was exceeded, the averages are within 5 %
    /// (Apple 1.28 asks for 10 %), all else is the same.
    pub(super) fn still_holds(&self, now: &Self) -> bool {
        let without_rates = |variant: &VariantStream| VariantStream {
            bandwidth: 0,
            average_bandwidth: None,
            other_attributes: None,
            ..variant.clone()
        };
        self.alternatives == now.alternatives
            && self.variants.len() == now.variants.len()
            && self.variants.iter().zip(&now.variants).all(|(written, now)| {
                let (was, is) = (written.average_bandwidth.unwrap_or(0), now.average_bandwidth.unwrap_or(0));
                without_rates(written) == without_rates(now)
                    && now.bandwidth <= written.bandwidth
                    && was.abs_diff(is) * 20 <= was
            })
            && self.frame_rates.iter().zip(&now.frame_rates).all(|(was, is)| (was - is).abs() <= 1.0)
    }

    pub(super) fn render(&self) -> Bytes {
        let playlist = MasterPlaylist {
            version: Some(VERSION),
            variants: self.variants.clone(),
            alternatives: self.alternatives.clone(),
            ..MasterPlaylist::default()
        };
        let mut text = Vec::with_capacity(512);
        playlist.write_to(&mut text).expect("a Vec takes all that is written to it");
        text.into()
    }
}

fn variant(main: &Choice<'_>, audios: &[&Choice<'_>]) -> VariantStream {
    let mut codecs: Vec<&str> = Vec::new();
    for codec in main.codecs.iter().chain(audios.iter().flat_map(|audio| audio.codecs)) {
        if !codecs.contains(&codec.as_str()) {
            codecs.push(codec);
        }
    }
    let peak_audio = audios.iter().map(|audio| audio.measured.peak()).max().unwrap_or(0);
    let average_audio = audios.iter().map(|audio| audio.measured.average()).max().unwrap_or(0);
    let is_video = main.kind == TrackKind::Video;
    VariantStream {
        uri: main.uri.clone(),
        bandwidth: main.measured.peak() + peak_audio,
        average_bandwidth: Some(main.measured.average() + average_audio),
        codecs: Some(codecs.join(",")),
        resolution: main
            .configuration
            .resolution()
            .map(|(width, height)| Resolution { width: width.into(), height: height.into() }),
        other_attributes: is_video.then(|| frame_rate_attribute(main.measured.frame_rate())),
        audio: (is_video && !audios.is_empty()).then(|| AUDIO_GROUP.to_owned()),
        // Captions are looked for in a later version; none are declared.
        closed_captions: is_video.then_some(m3u8_rs::ClosedCaptionGroupId::None),
        ..VariantStream::default()
    }
}

/// `FRAME-RATE` with three decimals (RFC 8216bis 4.4.6.2), which `VariantStream::frame_rate` would leave to the number.
fn frame_rate_attribute(rate: f64) -> HashMap<String, QuotedOrUnquoted> {
    HashMap::from([("FRAME-RATE".to_owned(), QuotedOrUnquoted::Unquoted(format!("{rate:.3}")))])
}

fn alternative(audio: &Choice<'_>, is_default: bool) -> AlternativeMedia {
    AlternativeMedia {
        media_type: AlternativeMediaType::Audio,
        uri: Some(audio.uri.clone()),
        group_id: AUDIO_GROUP.to_owned(),
        name: format!("Audio {}", u16::from(audio.index) + 1),
        default: is_default,
        autoselect: true,
        channels: audio.configuration.channels().map(|channels| channels.to_string()),
        ..AlternativeMedia::default()
    }
}

/// Bits a second, rounded up.
fn bit_rate(bytes: u64, duration_us: u64) -> u64 {
    (bytes * 8_000_000).div_ceil(duration_us.max(1))
}
