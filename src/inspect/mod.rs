//! `upscope inspect`: reads an output folder back and says which rules it breaks.
//!
//! It shares nothing with what wrote the folder: boxes, playlists, codec records and times are read again here, and
//! the crates mp4, mp4-atom and m3u8-rs must read the same. It knows nothing of RTMP, and takes any folder of CMAF HLS,
//! whoever wrote it: nothing in it is trusted, reads are bounded, and a broken file is a finding, not an end.
//!
//! ```text
//! index.m3u8 ─multivariant─┐                                        ┌─ rendition_rules ─┐
//! video.m3u8 ─playlist─────┴→ rendition: headers, segments measured ┤                   ├→ findings, table
//! *.mp4 ─boxes─ header, segment, samples ┘    (second_reader agrees) └─ broadcast ───────┘
//! ```
//!
//! | document | here |
//! |---|---|
//! | draft-pantos-hls-rfc8216bis-22 (B) | `playlist`, `multivariant`, `rendition_rules`, `broadcast` |
//! | HLS Authoring Specification for Apple Devices (A) | the same |
//! | ISO/IEC 14496-12, 14496-15, 23000-19 | `boxes`, `header`, `segment`, `event_message`, `samples`, `codec` |
//!
//! One look cannot tell what changes over time: that files are replaced atomically, that numbers go on, how long
//! removed segments stay. Those rules are for a test that watches.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};

mod boxes;
mod broadcast;
mod codec;
mod event_message;
mod files;
mod finding;
mod header;
mod multivariant;
mod playlist;
mod rendition;
mod rendition_rules;
mod samples;
mod second_reader;
mod segment;
mod table;
mod text;

pub use finding::{Finding, Rule, Severity};

use broadcast::Broadcast;
use files::Place;
use finding::Findings;

/// What an inspection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// All that was found, faults and notes.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The rules that are broken.
    pub fn faults(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Fault)
    }

    /// 0 when no rule is broken, 1 when one is. What cannot be read at all is an error, and 2.
    pub fn exit_code(&self) -> u8 {
        u8::from(self.faults().next().is_some())
    }
}

/// Inspects a folder with everything below it, a multivariant playlist with what it leads to, or one media playlist.
/// Prints a table for each broadcast and then the findings.
///
/// # Errors
/// When there is nothing to inspect at `path`, or `out` cannot be written.
pub fn run(path: &Path, out: &mut dyn Write) -> anyhow::Result<Report> {
    let about = fs::metadata(path).with_context(|| format!("inspect {}", path.display()))?;
    let playlists = if about.is_dir() { files::playlists_below(path)? } else { vec![path.to_owned()] };
    if playlists.is_empty() {
        bail!("no playlist in {}", path.display());
    }
    // What is relative to which folder, for people.
    let root = if about.is_dir() { path } else { path.parent().unwrap_or(path) };

    let mut findings = Findings::default();
    let (mut multivariants, mut media) = (Vec::new(), Vec::new());
    for playlist in playlists {
        let (Some(folder), Some(name)) = (playlist.parent(), playlist.file_name()) else { continue };
        let place = Place::new(folder, &name.to_string_lossy());
        let bytes = match files::read(&playlist, files::PLAYLIST_BYTES) {
            Ok(bytes) => bytes,
            Err(why) if about.is_dir() => {
                findings.fault(Rule::Listed, &place.name(), format!("cannot be read: {why:#}"));
                continue;
            }
            Err(why) => return Err(why.context(format!("inspect {}", playlist.display()))),
        };
        match playlist::is_multivariant(&bytes) {
            Some(true) => multivariants.push((place, bytes)),
            Some(false) => media.push(place),
            None if about.is_dir() => findings.fault(Rule::Syntax, &place.name(), "is no playlist"),
            None => bail!("{} is no playlist", playlist.display()),
        }
    }

    let mut reached = HashSet::new();
    let mut found_in: Vec<(String, Findings)> = Vec::new();
    for (place, bytes) in multivariants {
        let mut findings = Findings::default();
        let mut broadcast = Broadcast::read_multivariant(&bytes, place, &mut findings);
        reached.extend(broadcast.renditions.iter().map(|rendition| rendition.place.path()));
        broadcast.judge(&mut findings);
        let name = relative(&broadcast.place, root);
        table::print(&broadcast, &name, out)?;
        found_in.push((name, findings));
    }
    // What no multivariant playlist leads to, such as an earlier broadcast.
    for place in media {
        if reached.contains(&place.path()) {
            continue;
        }
        let mut findings = Findings::default();
        let mut broadcast = Broadcast::read_media(place, &mut findings);
        broadcast.judge(&mut findings);
        let name = relative(&broadcast.place, root);
        table::print(&broadcast, &name, out)?;
        found_in.push((name, findings));
    }

    let mut all = findings.into_vec();
    for (name, findings) in found_in {
        // Places are relative to the playlist's folder, what is printed to what was inspected.
        let folder = name.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
        all.extend(
            findings.into_vec().into_iter().map(|found| Finding { place: format!("{folder}{}", found.place), ..found }),
        );
    }
    let report = Report { findings: all };
    finding::print(&report.findings, out)?;
    match report.faults().count() {
        0 => writeln!(out, "no rule broken")?,
        1 => writeln!(out, "1 finding")?,
        count => writeln!(out, "{count} findings")?,
    }
    Ok(report)
}

fn relative(place: &Place, root: &Path) -> String {
    let path = place.path();
    path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned()
}
