//! A media playlist read twice: line by line here, and by m3u8-rs, which must agree (RFC 8216bis §4.4).
//!
//! m3u8-rs says nothing of order, repetition, unknown tags and digits beyond `f32`; that is what the lines are for.

use super::files::Place;
use super::finding::{Findings, Rule};
use super::text::{self, Attributes};

/// A media playlist.
#[derive(Debug, Default)]
pub(super) struct MediaPlaylist {
    /// Seconds; 0 when there is none.
    pub(super) target_duration: u64,
    pub(super) media_sequence: u64,
    pub(super) discontinuity_sequence: Option<u64>,
    pub(super) playlist_type: Option<String>,
    pub(super) has_ended: bool,
    pub(super) claims_independent_segments: bool,
    pub(super) maps: Vec<Option<Place>>,
    pub(super) segments: Vec<Segment>,
    /// The media is encrypted or cut into byte ranges: only the text is judged.
    pub(super) is_opaque: bool,
}

/// A segment as listed.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// Its media sequence number.
    pub(super) number: u64,
    /// Its name as listed.
    pub(super) uri: String,
    /// Its file, when the URI stays in the folder.
    pub(super) place: Option<Place>,
    pub(super) extinf_micros: u64,
    /// An `EXT-X-DISCONTINUITY` stands before it.
    pub(super) is_discontinuity: bool,
    /// Its discontinuity sequence number.
    pub(super) discontinuity_number: u64,
    pub(super) is_gap: bool,
    /// Its `EXT-X-PROGRAM-DATE-TIME`, in microseconds since 1970.
    pub(super) date_time: Option<i64>,
    /// Which of the maps applies.
    pub(super) map: Option<usize>,
}

impl MediaPlaylist {
    /// Reads a playlist and judges its text.
    pub(super) fn read(bytes: &[u8], place: &Place, findings: &mut Findings) -> Self {
        let name = place.name();
        let faults_before = findings.faults();
        let Some(lines) = lines(bytes, &name, findings) else { return Self::default() };
        let mut reader = Reader { playlist: Self::default(), place, name: &name, findings, state: State::default() };
        for line in lines {
            reader.line(line);
        }
        let playlist = reader.finish();
        // What is wrong by itself may be read in two ways.
        if findings.faults() == faults_before {
            agree_with_m3u8_rs(&playlist, bytes, &name, findings);
        }
        playlist
    }

    /// The sum of all `EXTINF`.
    pub(super) fn micros(&self) -> u64 {
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.extinf_micros))
    }
}

/// Whether the text is a multivariant playlist, a media playlist, or neither.
pub(super) fn is_multivariant(bytes: &[u8]) -> Option<bool> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.starts_with("#EXTM3U").then(|| text.lines().any(|line| line.starts_with("#EXT-X-STREAM-INF:")))
}

/// The lines of a playlist after `#EXTM3U`, and the faults that any playlist can have.
pub(super) fn lines<'a>(bytes: &'a [u8], name: &str, findings: &mut Findings) -> Option<Vec<&'a str>> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        findings.fault(Rule::Syntax, name, "is not UTF-8");
        return None;
    };
    if !text.ends_with('\n') {
        findings.fault(Rule::Torn, name, "its last line has no end: it was read half-written");
    }
    let mut lines = text.lines();
    if lines.next() != Some("#EXTM3U") {
        findings.fault(Rule::Syntax, name, "does not start with #EXTM3U");
        return None;
    }
    if text.contains(|c: char| c.is_control() && c != '\n' && c != '\r') {
        findings.fault(Rule::Syntax, name, "has control characters");
    }
    Some(lines.filter(|line| !line.is_empty()).collect())
}

/// Checks that there is one `EXT-X-VERSION` and that it is as high as the tags need.
pub(super) fn judge_version(versions: &[&str], needed: Needed, name: &str, findings: &mut Findings) {
    let version = match versions {
        [] if needed.version <= 1 => return,
        [] => {
            let Needed { version, because } = needed;
            return findings.fault(Rule::Version, name, format!("no EXT-X-VERSION, {because} needs {version}"));
        }
        [version] => version,
        many => return findings.fault(Rule::Version, name, format!("{} EXT-X-VERSION tags", many.len())),
    };
    let Ok(version) = version.parse::<u64>() else {
        return findings.fault(Rule::Version, name, format!("EXT-X-VERSION '{version}' is no number"));
    };
    let Needed { version: least, because } = needed;
    let rule = if because == QUERYPARAM { Rule::Define } else { Rule::Version };
    if version < least {
        findings.fault(rule, name, format!("EXT-X-VERSION is {version}, {because} needs {least}"));
    } else if version > least.max(COMMON_VERSION) {
        findings.note(Rule::Version, name, format!("EXT-X-VERSION is {version}, {least} would do"));
    }
}

/// The lowest version that a playlist may state, and the tag that asks for it (RFC 8216bis §8).
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    version: u64,
    because: &'static str,
}

impl Default for Needed {
    fn default() -> Self {
        Self { version: 1, because: "" }
    }
}

impl Needed {
    pub(super) fn raise(&mut self, version: u64, because: &'static str) {
        if version > self.version {
            *self = Self { version, because };
        }
    }

    pub(super) fn raise_for_define(&mut self, attributes: &Attributes<'_>) {
        self.raise(8, "EXT-X-DEFINE");
        if attributes.get("QUERYPARAM").is_some() {
            self.raise(11, QUERYPARAM);
        }
    }
}

const QUERYPARAM: &str = "EXT-X-DEFINE with QUERYPARAM";
/// What every fMP4 playlist states; a multivariant playlist may state it too.
const COMMON_VERSION: u64 = 6;

/// What was read so far, and what waits for the next URI.
struct Reader<'a, 'b> {
    playlist: MediaPlaylist,
    place: &'a Place,
    name: &'a str,
    findings: &'b mut Findings,
    state: State<'a>,
}

#[derive(Default)]
struct State<'a> {
    versions: Vec<&'a str>,
    once: Vec<&'a str>,
    needed: Needed,
    extinf_micros: Option<u64>,
    date_time: Option<i64>,
    discontinuities: u64,
    is_discontinuity: bool,
    is_gap: bool,
    map: Option<usize>,
    map_uris: Vec<String>,
    date_ranges: Vec<(&'a str, Attributes<'a>)>,
    part_target_micros: Option<u64>,
    part_hold_back_micros: Option<u64>,
    lines_after_end: usize,
}

impl<'a> Reader<'a, '_> {
    fn line(&mut self, line: &'a str) {
        if self.playlist.has_ended {
            self.state.lines_after_end += 1;
        }
        if !line.starts_with('#') {
            return self.uri(line);
        }
        // Anything else is a comment.
        if line.starts_with("#EXT") {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            self.tag(tag, value);
        }
    }

    fn tag(&mut self, tag: &'a str, value: &'a str) {
        if ONCE.contains(&tag) {
            if self.state.once.contains(&tag) {
                let rule = if tag == "#EXT-X-MEDIA-SEQUENCE" { Rule::MediaSequence } else { Rule::Syntax };
                return self.fault(rule, format!("{} is there twice", &tag[1..]));
            }
            self.state.once.push(tag);
        }
        match tag {
            "#EXT-X-VERSION" => self.state.versions.push(value),
            "#EXT-X-TARGETDURATION" => match value.parse() {
                Ok(seconds) => self.playlist.target_duration = seconds,
                Err(_) => self.fault(Rule::TargetDuration, format!("EXT-X-TARGETDURATION '{value}' is no number")),
            },
            "#EXT-X-MEDIA-SEQUENCE" => match value.parse() {
                _ if !self.playlist.segments.is_empty() => {
                    self.fault(Rule::MediaSequence, "EXT-X-MEDIA-SEQUENCE after the first segment");
                }
                Ok(number) => self.playlist.media_sequence = number,
                Err(_) => self.fault(Rule::MediaSequence, format!("EXT-X-MEDIA-SEQUENCE '{value}' is no number")),
            },
            "#EXT-X-DISCONTINUITY-SEQUENCE" => self.discontinuity_sequence(value),
            "#EXT-X-DISCONTINUITY" => {
                self.state.discontinuities += 1;
                self.state.is_discontinuity = true;
            }
            "#EXT-X-INDEPENDENT-SEGMENTS" => self.playlist.claims_independent_segments = true,
            "#EXT-X-PLAYLIST-TYPE" => self.playlist.playlist_type = Some(value.to_owned()),
            "#EXT-X-ENDLIST" => self.playlist.has_ended = true,
            "#EXT-X-GAP" => self.state.is_gap = true,
            "#EXTINF" => self.extinf(value),
            "#EXT-X-PROGRAM-DATE-TIME" => match text::date_time(value) {
                Ok(moment) => self.state.date_time = Some(moment),
                Err(why) => self.fault(Rule::ProgramDateTime, format!("EXT-X-PROGRAM-DATE-TIME '{value}' {why}")),
            },
            "#EXT-X-MAP" => self.map(value),
            "#EXT-X-DATERANGE" => self.date_range(value),
            "#EXT-X-DEFINE" => {
                if let Some(attributes) = self.attributes(tag, value) {
                    self.state.needed.raise_for_define(&attributes);
                }
            }
            "#EXT-X-BYTERANGE" => {
                self.state.needed.raise(4, "EXT-X-BYTERANGE");
                self.playlist.is_opaque = true;
            }
            "#EXT-X-I-FRAMES-ONLY" => self.state.needed.raise(4, "EXT-X-I-FRAMES-ONLY"),
            "#EXT-X-KEY" => self.playlist.is_opaque |= value != "METHOD=NONE",
            "#EXT-X-SKIP" => {
                self.state.needed.raise(9, "EXT-X-SKIP");
                self.playlist.is_opaque = true;
            }
            "#EXT-X-PART-INF" => {
                let target = self.attributes(tag, value).and_then(|list| text::micros(list.get("PART-TARGET")?));
                self.state.part_target_micros = target;
            }
            "#EXT-X-SERVER-CONTROL" => {
                let hold_back = self.attributes(tag, value).and_then(|list| text::micros(list.get("PART-HOLD-BACK")?));
                self.state.part_hold_back_micros = hold_back;
            }
            "#EXT-X-PART" => self.part(value),
            "#EXT-X-BITRATE" | "#EXT-X-START" | "#EXT-X-PRELOAD-HINT" | "#EXT-X-RENDITION-REPORT" => {}
            unknown => self.findings.note(Rule::Syntax, self.name, format!("unknown tag {}", &unknown[1..])),
        }
    }

    fn discontinuity_sequence(&mut self, value: &str) {
        if !self.playlist.segments.is_empty() {
            return self.fault(Rule::DiscontinuitySequence, "EXT-X-DISCONTINUITY-SEQUENCE after the first segment");
        }
        if self.state.discontinuities > 0 {
            return self.fault(Rule::DiscontinuitySequence, "EXT-X-DISCONTINUITY-SEQUENCE after EXT-X-DISCONTINUITY");
        }
        match value.parse() {
            Ok(number) => self.playlist.discontinuity_sequence = Some(number),
            Err(_) => {
                self.fault(Rule::DiscontinuitySequence, format!("EXT-X-DISCONTINUITY-SEQUENCE '{value}' is no number"));
            }
        }
    }

    fn extinf(&mut self, value: &str) {
        let duration = value.split(',').next().unwrap_or_default();
        if self.state.extinf_micros.is_some() {
            self.fault(Rule::Syntax, "two EXTINF for one segment");
        }
        if duration.contains('.') {
            self.state.needed.raise(3, "a decimal EXTINF");
        }
        let micros = text::micros(duration);
        if micros.is_none() {
            self.fault(Rule::SegmentDuration, format!("EXTINF '{value}' is no duration"));
        }
        self.state.extinf_micros = Some(micros.unwrap_or(0));
    }

    fn map(&mut self, value: &'a str) {
        self.state.needed.raise(6, "EXT-X-MAP");
        let Some(attributes) = self.attributes("#EXT-X-MAP", value) else { return };
        let Some(uri) = attributes.get("URI") else {
            return self.fault(Rule::Map, "EXT-X-MAP has no URI");
        };
        self.playlist.is_opaque |= attributes.get("BYTERANGE").is_some();
        // A header is applied again after each discontinuity; it is read once.
        if let Some(known) = self.state.map_uris.iter().position(|known| known == uri) {
            self.state.map = Some(known);
            return;
        }
        let place = self.resolve(uri);
        self.state.map_uris.push(uri.to_owned());
        self.playlist.maps.push(place);
        self.state.map = Some(self.playlist.maps.len() - 1);
    }

    fn date_range(&mut self, value: &'a str) {
        let Some(attributes) = self.attributes("#EXT-X-DATERANGE", value) else { return };
        let Some(id) = attributes.get("ID") else {
            return self.fault(Rule::DateRange, "EXT-X-DATERANGE has no ID");
        };
        let mut problems = Vec::new();
        // The same ID may come again with more attributes, but no other values; §4.4.5.1.
        for (text, before) in self.state.date_ranges.iter().filter(|(_, before)| before.get("ID") == Some(id)) {
            if *text == value {
                problems.push("is there twice");
            }
            if attributes.iter().any(|a| before.get(a.name).is_some_and(|value| value != a.value)) {
                problems.push("is there again with another value of an attribute");
            }
        }
        match attributes.get("START-DATE") {
            None => problems.push("has no START-DATE"),
            Some(date) if !date.contains('T') => problems.push("has a START-DATE that is no date and time"),
            Some(_) => {}
        }
        for name in ["DURATION", "PLANNED-DURATION"] {
            if attributes.get(name).is_some_and(|value| text::micros(value).is_none()) {
                problems.push("has a negative or unreadable duration");
            }
        }
        if attributes.get("END-ON-NEXT").is_some() {
            if attributes.get("CLASS").is_none() {
                problems.push("has END-ON-NEXT without CLASS");
            }
            if attributes.get("DURATION").or_else(|| attributes.get("END-DATE")).is_some() {
                problems.push("has END-ON-NEXT and an end");
            }
        }
        if attributes.iter().any(|a| a.name.starts_with("SCTE35-") && (a.is_quoted || !a.value.starts_with("0x"))) {
            problems.push("has a SCTE35 attribute that is not hexadecimal");
        }
        for problem in problems {
            self.fault(Rule::DateRange, format!("EXT-X-DATERANGE '{id}' {problem}"));
        }
        self.state.date_ranges.push((value, attributes));
    }

    fn part(&mut self, value: &'a str) {
        let Some(attributes) = self.attributes("#EXT-X-PART", value) else { return };
        let duration = attributes.get("DURATION").and_then(text::micros);
        match (duration, self.state.part_target_micros) {
            (_, None) => self.fault(Rule::LowLatency, "EXT-X-PART before EXT-X-PART-INF with PART-TARGET"),
            (Some(duration), Some(target)) if duration > target => self.fault(
                Rule::LowLatency,
                format!(
                    "a part lasts {}, PART-TARGET is {}",
                    text::seconds(text::difference(duration, 0)),
                    text::seconds(text::difference(target, 0))
                ),
            ),
            (None, _) => self.fault(Rule::LowLatency, "EXT-X-PART has no DURATION"),
            _ => {}
        }
    }

    fn uri(&mut self, uri: &str) {
        let state = &mut self.state;
        let segment = Segment {
            number: self.playlist.media_sequence.saturating_add(self.playlist.segments.len() as u64),
            uri: uri.to_owned(),
            place: None,
            extinf_micros: state.extinf_micros.unwrap_or(0),
            is_discontinuity: state.is_discontinuity,
            discontinuity_number: self
                .playlist
                .discontinuity_sequence
                .unwrap_or(0)
                .saturating_add(state.discontinuities),
            is_gap: state.is_gap,
            date_time: state.date_time,
            map: state.map,
        };
        let has_extinf = state.extinf_micros.is_some();
        (state.extinf_micros, state.date_time, state.is_discontinuity, state.is_gap) = (None, None, false, false);
        if !has_extinf {
            self.fault(Rule::Syntax, format!("{uri} has no EXTINF"));
        }
        let place = self.resolve(uri);
        self.playlist.segments.push(Segment { place, ..segment });
    }

    fn finish(mut self) -> MediaPlaylist {
        judge_version(&self.state.versions, self.state.needed, self.name, self.findings);
        if !self.state.once.contains(&"#EXT-X-TARGETDURATION") {
            self.fault(Rule::TargetDuration, "no EXT-X-TARGETDURATION");
        }
        if self.state.lines_after_end > 0 {
            self.fault(Rule::End, format!("{} lines after EXT-X-ENDLIST", self.state.lines_after_end));
        }
        if self.state.extinf_micros.is_some() {
            self.fault(Rule::Torn, "ends with an EXTINF that no segment follows");
        }
        if let Some(target) = self.state.part_target_micros {
            match self.state.part_hold_back_micros {
                None => self.fault(Rule::LowLatency, "EXT-X-PART-INF without PART-HOLD-BACK"),
                Some(hold_back) if hold_back < target.saturating_mul(2) => {
                    self.fault(Rule::LowLatency, "PART-HOLD-BACK is less than twice PART-TARGET");
                }
                Some(_) => {}
            }
        }
        let has_dates = self.playlist.segments.iter().any(|segment| segment.date_time.is_some());
        if !self.state.date_ranges.is_empty() && !has_dates {
            self.fault(Rule::DateRange, "EXT-X-DATERANGE without EXT-X-PROGRAM-DATE-TIME");
        }
        self.playlist
    }

    fn attributes(&mut self, tag: &str, value: &'a str) -> Option<Attributes<'a>> {
        Attributes::parse(value).map_err(|why| self.fault(Rule::Syntax, format!("{}: {why}", &tag[1..]))).ok()
    }

    fn resolve(&mut self, uri: &str) -> Option<Place> {
        self.place.resolve(uri).map_err(|why| self.fault(Rule::Uri, format!("'{uri}' {why}"))).ok()
    }

    fn fault(&mut self, rule: Rule, message: impl Into<String>) {
        self.findings.fault(rule, self.name, message);
    }
}

/// Tags that stand at most once in a media playlist.
const ONCE: [&str; 9] = [
    "#EXT-X-TARGETDURATION",
    "#EXT-X-MEDIA-SEQUENCE",
    "#EXT-X-DISCONTINUITY-SEQUENCE",
    "#EXT-X-PLAYLIST-TYPE",
    "#EXT-X-ENDLIST",
    "#EXT-X-INDEPENDENT-SEGMENTS",
    "#EXT-X-I-FRAMES-ONLY",
    "#EXT-X-PART-INF",
    "#EXT-X-SERVER-CONTROL",
];

/// Another reader must find the same segments in the text.
fn agree_with_m3u8_rs(ours: &MediaPlaylist, bytes: &[u8], name: &str, findings: &mut Findings) {
    let Ok(theirs) = m3u8_rs::parse_media_playlist_res(bytes) else {
        return findings.fault(Rule::Syntax, name, "m3u8-rs cannot read it");
    };
    // It counts a playlist without the tag as 0, as we do.
    let heads = [
        ("EXT-X-TARGETDURATION", ours.target_duration, theirs.target_duration),
        ("EXT-X-MEDIA-SEQUENCE", ours.media_sequence, theirs.media_sequence),
        ("number of segments", ours.segments.len() as u64, theirs.segments.len() as u64),
        ("EXT-X-ENDLIST", u64::from(ours.has_ended), u64::from(theirs.end_list)),
    ];
    let mut differences: Vec<String> = heads
        .iter()
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(what, ours, theirs)| format!("{what}: {ours} here, {theirs} for m3u8-rs"))
        .collect();
    for (ours, theirs) in ours.segments.iter().zip(&theirs.segments) {
        let date = theirs.program_date_time.map(|date| date.timestamp_micros());
        if ours.uri != theirs.uri || ours.is_discontinuity != theirs.discontinuity || ours.date_time != date {
            differences.push(format!("{}: m3u8-rs reads its name, date or discontinuity differently", ours.uri));
        }
    }
    for difference in differences {
        findings.fault(Rule::Syntax, name, difference);
    }
}
