//! What was found: which rule is broken, where, and in what way.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

/// A rule of the specifications that can be seen in files, or one of ours.
///
/// The numbers are those of the project's list of rules (`rule 6` and so on); the bracket says where the rule comes
/// from: B is draft-pantos-hls-rfc8216bis-22, A the HLS Authoring Specification for Apple Devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// 1: the header (init) is a whole, empty movie with `mvex`.
    Header,
    /// 2: each fragment is addressed relative to its `moof`, has `tfdt`, and belongs to a track of the header.
    Fragment,
    /// 3: an `EXT-X-MAP` applies to every segment.
    Map,
    /// 4: decode times continue from segment to segment and from fragment to fragment.
    DecodeTime,
    /// 5: `EXT-X-INDEPENDENT-SEGMENTS` is true, and sync samples are what they say.
    SyncSample,
    /// 6: no segment is longer than `EXT-X-TARGETDURATION`.
    TargetDuration,
    /// 7: `EXTINF` says how long the media is.
    SegmentDuration,
    /// 8: the sample entries are `avc1` and `hvc1`.
    SampleEntry,
    /// 9: one `EXT-X-VERSION`, as high as the tags need.
    Version,
    /// 10: `EXT-X-DISCONTINUITY-SEQUENCE` is there when needed, and stands before the first segment.
    DiscontinuitySequence,
    /// 11: `EXT-X-DISCONTINUITY` where the header changes.
    Discontinuity,
    /// 12: `EXT-X-PROGRAM-DATE-TIME`, well formed, where needed, in step with the media.
    ProgramDateTime,
    /// 13: what is missing is a GAP, and the timeline goes on across it.
    Gap,
    /// 14: `EXT-X-DATERANGE` has what it needs.
    DateRange,
    /// 15: `EXT-X-DEFINE` with QUERYPARAM only from version 11 on.
    Define,
    /// 17: playlists and segments appear whole, by rename: nothing torn, no temporary file left.
    Torn,
    /// 19: a listed segment is there and whole.
    Listed,
    /// 21: `EXT-X-MEDIA-SEQUENCE`, and one name for one segment.
    MediaSequence,
    /// 23: the window is at least three target durations.
    Window,
    /// 25: `EXT-X-ENDLIST` ends it; a rolling playlist has no `EXT-X-PLAYLIST-TYPE`.
    End,
    /// 36: the safe choices where the low-latency text is open.
    LowLatency,
    /// 37: renditions agree on target duration, numbers, timestamps and dates.
    Renditions,
    /// 38: the multivariant playlist says what is really there.
    Multivariant,
    /// The text of a playlist can be read, by us and by others, and means one thing.
    Syntax,
    /// A URI stays inside the folder.
    Uri,
    /// Timed metadata can be read, and are for their segment.
    EventMessage,
    /// Samples are of their codec's form and have a duration.
    Sample,
}

impl Rule {
    /// The number in the project's list of rules, or a word.
    pub fn id(self) -> &'static str {
        self.id_and_source().0
    }

    fn id_and_source(self) -> (&'static str, &'static str) {
        match self {
            Self::Header => ("1", "B 3.1.2"),
            Self::Fragment => ("2", "B 3.1.2"),
            Self::Map => ("3", "B 3.1.2"),
            Self::DecodeTime => ("4", "A 7.3"),
            Self::SyncSample => ("5", "B 4.4.1.3, A 9.11"),
            Self::TargetDuration => ("6", "B 4.4.3.1"),
            Self::SegmentDuration => ("7", "A 8.1"),
            Self::SampleEntry => ("8", "A 1.10"),
            Self::Version => ("9", "B 4.4.1.2"),
            Self::DiscontinuitySequence => ("10", "B 4.4.3.3, A 8.17"),
            Self::Discontinuity => ("11", "B 4.4.4.3"),
            Self::ProgramDateTime => ("12", "B 4.4.4.6"),
            Self::Gap => ("13", "B 4.4.4.7"),
            Self::DateRange => ("14", "B 4.4.5.1"),
            Self::Define => ("15", "B 4.4.2.3"),
            Self::Torn => ("17", "B 6.2.1"),
            Self::Listed => ("19", "B 6.2.1"),
            Self::MediaSequence => ("21", "B 6.2.2"),
            Self::Window => ("23", "B 6.2.2"),
            Self::End => ("25", "B 6.2.1"),
            Self::LowLatency => ("36", "B 4.4.3.7"),
            Self::Renditions => ("37", "B 6.2.4"),
            Self::Multivariant => ("38", "B 4.4.6.2"),
            Self::Syntax => ("text", "B 4.1"),
            Self::Uri => ("uri", "B 4.1"),
            Self::EventMessage => ("emsg", "ISO/IEC 23000-19 7.4.5"),
            Self::Sample => ("sample", "ISO/IEC 14496-15"),
        }
    }
}

/// `6 [B 4.4.3.1]`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, source) = self.id_and_source();
        write!(f, "{id} [{source}]")
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// A rule is broken.
    Fault,
    /// Allowed, and worth knowing.
    Note,
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule it is about.
    pub rule: Rule,
    /// How bad it is.
    pub severity: Severity,
    /// The file, relative to what was inspected.
    pub place: String,
    /// What is wrong, in words.
    pub message: String,
}

/// `rule 6 [B 4.4.3.1]: cam1/~1/video-12.mp4: lasts 3.4 s, TARGETDURATION is 2`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.severity {
            Severity::Fault => "",
            Severity::Note => "note, ",
        };
        write!(f, "{prefix}rule {}: {}: {}", self.rule, self.place, self.message)
    }
}

/// Collects what is found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    all: Vec<Finding>,
}

impl Findings {
    /// A broken rule.
    pub(super) fn fault(&mut self, rule: Rule, place: &str, message: impl Into<String>) {
        self.add(rule, Severity::Fault, place, message.into());
    }

    /// Something allowed and worth knowing.
    pub(super) fn note(&mut self, rule: Rule, place: &str, message: impl Into<String>) {
        self.add(rule, Severity::Note, place, message.into());
    }

    fn add(&mut self, rule: Rule, severity: Severity, place: &str, message: String) {
        let finding = Finding { rule, severity, place: place.to_owned(), message };
        // A header or a folder that two playlists share is looked at twice.
        if self.all.len() < MOST_FINDINGS && !self.all.iter().rev().take(MOST_REPEATS).any(|seen| *seen == finding) {
            self.all.push(finding);
        }
    }

    pub(super) fn faults(&self) -> usize {
        self.all.iter().filter(|finding| finding.severity == Severity::Fault).count()
    }

    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.all
    }
}

/// Prints findings, broken rules first. What a rule says more than [`MOST_LINES_OF_A_RULE`] times is counted only.
pub(super) fn print(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    let mut printed: BTreeMap<(Severity, Rule), usize> = BTreeMap::new();
    for wanted in [Severity::Fault, Severity::Note] {
        for finding in findings.iter().filter(|finding| finding.severity == wanted) {
            let count = printed.entry((finding.severity, finding.rule)).or_default();
            *count += 1;
            if *count <= MOST_LINES_OF_A_RULE {
                writeln!(out, "{finding}")?;
            }
        }
    }
    for ((severity, rule), count) in printed {
        if count > MOST_LINES_OF_A_RULE {
            let what = if severity == Severity::Fault { "" } else { "notes, " };
            writeln!(out, "… and {} more: {what}rule {rule}", count - MOST_LINES_OF_A_RULE)?;
        }
    }
    Ok(())
}

const MOST_LINES_OF_A_RULE: usize = 20;
/// A broadcast of a day has 43 200 segments of two seconds.
const MOST_FINDINGS: usize = 100_000;
/// How far back an equal finding is looked for.
const MOST_REPEATS: usize = 32;
