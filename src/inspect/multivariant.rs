//! A multivariant playlist: what it says of its renditions (RFC 8216bis §4.4.6).

use super::files::Place;
use super::finding::{Findings, Rule};
use super::playlist::{self, Needed};
use super::text::{self, Attributes};

/// A multivariant playlist.
#[derive(Debug, Default)]
pub(super) struct Multivariant {
    pub(super) variants: Vec<Variant>,
    /// Its `EXT-X-MEDIA` tags with a playlist of their own.
    pub(super) alternatives: Vec<Alternative>,
    pub(super) claims_independent_segments: bool,
}

/// An `EXT-X-STREAM-INF` and its URI.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    pub(super) uri: String,
    pub(super) place: Option<Place>,
    pub(super) bandwidth: Option<u64>,
    pub(super) average_bandwidth: Option<u64>,
    pub(super) codecs: Option<Vec<String>>,
    pub(super) resolution: Option<(u32, u32)>,
    /// In thousandths of a frame a second.
    pub(super) frame_rate_milli: Option<u64>,
    pub(super) audio_group: Option<String>,
    captions_group: Option<String>,
}

/// An `EXT-X-MEDIA` with a URI.
#[derive(Debug, Clone)]
pub(super) struct Alternative {
    pub(super) kind: String,
    pub(super) group: String,
    pub(super) name: String,
    pub(super) place: Option<Place>,
    pub(super) channels: Option<String>,
}

impl Multivariant {
    /// Reads a multivariant playlist and judges its text.
    pub(super) fn read(bytes: &[u8], place: &Place, findings: &mut Findings) -> Self {
        let name = place.name();
        let faults_before = findings.faults();
        let Some(lines) = playlist::lines(bytes, &name, findings) else { return Self::default() };
        let mut found = Self::default();
        let mut groups: Vec<(String, String)> = Vec::new();
        let (mut versions, mut needed) = (Vec::new(), Needed::default());
        let mut waiting: Option<Variant> = None;
        for line in lines {
            if !line.starts_with('#') {
                match waiting.take() {
                    Some(variant) => {
                        let place = resolve(place, line, &name, findings);
                        found.variants.push(Variant { uri: line.to_owned(), place, ..variant });
                    }
                    None => findings.fault(Rule::Syntax, &name, format!("{line} has no EXT-X-STREAM-INF")),
                }
                continue;
            }
            if !line.starts_with("#EXT") {
                continue;
            }
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            if waiting.is_some() {
                findings.fault(Rule::Syntax, &name, "no URI in the line after EXT-X-STREAM-INF");
            }
            let mut attributes = || {
                let bad = |why| findings.fault(Rule::Syntax, &name, format!("{}: {why}", &tag[1..]));
                Attributes::parse(value).map_err(bad).unwrap_or_default()
            };
            match tag {
                "#EXT-X-VERSION" => versions.push(value),
                "#EXT-X-INDEPENDENT-SEGMENTS" => found.claims_independent_segments = true,
                "#EXT-X-STREAM-INF" => {
                    let attributes = attributes();
                    waiting = Some(variant(&attributes, &name, findings));
                }
                "#EXT-X-MEDIA" => {
                    let attributes = attributes();
                    if attributes.get("INSTREAM-ID").is_some_and(|id| id.starts_with("SERVICE")) {
                        needed.raise(7, "INSTREAM-ID of a SERVICE");
                    }
                    if let Some(media) = alternative(&attributes, place, &name, findings) {
                        if groups.contains(&(media.group.clone(), media.name.clone())) {
                            let message = format!("two EXT-X-MEDIA named '{}' in group '{}'", media.name, media.group);
                            findings.fault(Rule::Multivariant, &name, message);
                        }
                        groups.push((media.group.clone(), media.name.clone()));
                        if attributes.get("URI").is_some() {
                            found.alternatives.push(media);
                        }
                    }
                }
                "#EXT-X-DEFINE" => needed.raise_for_define(&attributes()),
                "#EXT-X-START"
                | "#EXT-X-I-FRAME-STREAM-INF"
                | "#EXT-X-SESSION-DATA"
                | "#EXT-X-SESSION-KEY"
                | "#EXT-X-CONTENT-STEERING" => {}
                "#EXTINF" | "#EXT-X-TARGETDURATION" | "#EXT-X-MEDIA-SEQUENCE" => {
                    findings.fault(Rule::Syntax, &name, format!("{} in a multivariant playlist", &tag[1..]));
                }
                unknown => findings.note(Rule::Syntax, &name, format!("unknown tag {}", &unknown[1..])),
            }
        }
        if waiting.is_some() {
            findings.fault(Rule::Torn, &name, "ends with an EXT-X-STREAM-INF that no URI follows");
        }
        playlist::judge_version(&versions, needed, &name, findings);
        for variant in &found.variants {
            for (kind, group) in [("audio", &variant.audio_group), ("captions", &variant.captions_group)] {
                if let Some(group) = group.as_ref().filter(|group| !groups.iter().any(|(g, _)| g == *group)) {
                    let message = format!("{} asks for {kind} group '{group}', which is not there", variant.uri);
                    findings.fault(Rule::Multivariant, &name, message);
                }
            }
        }
        if findings.faults() == faults_before {
            found.agree_with_m3u8_rs(bytes, &name, findings);
        }
        found
    }

    /// Another reader must find the same variants in the text.
    fn agree_with_m3u8_rs(&self, bytes: &[u8], name: &str, findings: &mut Findings) {
        let Ok(theirs) = m3u8_rs::parse_master_playlist_res(bytes) else {
            return findings.fault(Rule::Syntax, name, "m3u8-rs cannot read it");
        };
        let theirs: Vec<_> = theirs.variants.iter().filter(|variant| !variant.is_i_frame).collect();
        let agrees = self.variants.len() == theirs.len()
            && self.variants.iter().zip(theirs).all(|(ours, theirs)| {
                let size = theirs.resolution.map(|size| (size.width, size.height));
                ours.uri == theirs.uri
                    && ours.bandwidth == Some(theirs.bandwidth)
                    && ours.average_bandwidth == theirs.average_bandwidth
                    && ours.resolution.map(|(width, height)| (u64::from(width), u64::from(height))) == size
                    && ours.audio_group == theirs.audio
            });
        if !agrees {
            findings.fault(Rule::Syntax, name, "m3u8-rs reads its variants differently");
        }
    }
}

/// Judges what `EXT-X-STREAM-INF` must say; whether it is true is judged later.
fn variant(attributes: &Attributes<'_>, name: &str, findings: &mut Findings) -> Variant {
    let mut fault = |message: String| findings.fault(Rule::Multivariant, name, message);
    let mut number = |key: &str| match attributes.get(key).map(str::parse::<u64>) {
        None => {
            fault(format!("no {key}"));
            None
        }
        Some(Err(_)) => {
            fault(format!("{key} is no number"));
            None
        }
        Some(Ok(number)) => Some(number),
    };
    let (bandwidth, average_bandwidth) = (number("BANDWIDTH"), number("AVERAGE-BANDWIDTH"));
    if let (Some(peak), Some(average)) = (bandwidth, average_bandwidth)
        && peak < average
    {
        fault(format!("BANDWIDTH {peak} is below AVERAGE-BANDWIDTH {average}"));
    }
    if attributes.get("CODECS").is_none() {
        fault("no CODECS".to_owned());
    }
    let resolution = attributes.get("RESOLUTION").and_then(|text| {
        let size = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        if size.is_none() {
            fault(format!("RESOLUTION '{text}' is no size"));
        }
        size
    });
    let frame_rate_milli = attributes.get("FRAME-RATE").and_then(|text| {
        let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let rate = text::micros(text);
        if rate.is_none() || decimals > 3 {
            fault(format!("FRAME-RATE '{text}' is no number with three decimals"));
        }
        rate.map(|micros| micros / 1000)
    });
    Variant {
        uri: String::new(),
        place: None,
        bandwidth,
        average_bandwidth,
        codecs: attributes.get("CODECS").map(|list| list.split(',').map(|codec| codec.trim().to_owned()).collect()),
        resolution,
        frame_rate_milli,
        audio_group: attributes.get("AUDIO").map(str::to_owned),
        captions_group: attributes.get("CLOSED-CAPTIONS").filter(|group| *group != "NONE").map(str::to_owned),
    }
}

fn alternative(attributes: &Attributes<'_>, place: &Place, name: &str, findings: &mut Findings) -> Option<Alternative> {
    let mut required = |key: &str| {
        if attributes.get(key).is_none() {
            findings.fault(Rule::Multivariant, name, format!("EXT-X-MEDIA has no {key}"));
        }
        attributes.get(key).map(str::to_owned)
    };
    let (kind, group, title) = (required("TYPE")?, required("GROUP-ID")?, required("NAME")?);
    // RFC 8216bis §4.4.6.1.
    let channel = attributes.get("INSTREAM-ID");
    let number = |start: &str| channel.and_then(|id| id.strip_prefix(start)?.parse::<u8>().ok());
    let is_channel =
        number("CC").is_some_and(|n| (1..=4).contains(&n)) || number("SERVICE").is_some_and(|n| (1..=63).contains(&n));
    let problem = match kind.as_str() {
        "CLOSED-CAPTIONS" if !is_channel => Some("CLOSED-CAPTIONS without a channel as INSTREAM-ID"),
        "CLOSED-CAPTIONS" if attributes.get("URI").is_some() => Some("CLOSED-CAPTIONS with a URI"),
        "CLOSED-CAPTIONS" => None,
        _ => channel.map(|_| "an INSTREAM-ID that is no CLOSED-CAPTIONS"),
    };
    if let Some(problem) = problem {
        findings.fault(Rule::Multivariant, name, format!("EXT-X-MEDIA '{title}' is {problem}"));
    }
    Some(Alternative {
        kind,
        group,
        name: title,
        place: attributes.get("URI").and_then(|uri| resolve(place, uri, name, findings)),
        channels: attributes.get("CHANNELS").map(str::to_owned),
    })
}

fn resolve(place: &Place, uri: &str, name: &str, findings: &mut Findings) -> Option<Place> {
    place.resolve(uri).map_err(|why| findings.fault(Rule::Uri, name, format!("'{uri}' {why}"))).ok()
}
