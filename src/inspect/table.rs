//! The table: a broadcast on one line each rendition.

use std::io::{self, Write};

use super::broadcast::{self, Broadcast};
use super::codec::Media;
use super::rendition::Rendition;
use super::text::{difference, seconds};

/// Prints a broadcast.
pub(super) fn print(broadcast: &Broadcast, name: &str, out: &mut dyn Write) -> io::Result<()> {
    let state = if broadcast.has_ended() { "ended" } else { "live" };
    let target = broadcast.renditions.first().map_or(0, |rendition| rendition.playlist.target_duration);
    writeln!(out, "{name}: {state}, target duration {target} s")?;
    let head = ["rendition", "codec", "size", "rate", "segments", "gaps", "duration", "average", "peak", "overhead"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(broadcast.renditions.iter().map(row));
    let widths: Vec<usize> =
        (0..head.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!(" {cell:<width$} "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn row(rendition: &Rendition) -> [String; 10] {
    let entry = rendition.entries().next_back();
    let unknown = || "-".to_owned();
    let (size, rate) = match entry.map(|entry| &entry.media) {
        Some(video @ Media::Video { .. }) => (
            broadcast::size(video).map_or_else(unknown, |(width, height)| format!("{width}x{height}")),
            rendition.frame_rates_milli().map_or_else(unknown, |(_, rate)| format!("{} fps", broadcast::milli(rate))),
        ),
        Some(Media::Audio { rate, channels }) => (format!("{channels} ch"), format!("{rate} Hz")),
        Some(Media::Other) | None => (unknown(), unknown()),
    };
    let segments = &rendition.playlist.segments;
    let numbers =
        segments.first().zip(segments.last()).map(|(a, b)| format!("{} (#{}-{})", segments.len(), a.number, b.number));
    [
        rendition.name.clone(),
        entry.map_or_else(unknown, super::codec::SampleEntry::codec_name),
        size,
        rate,
        numbers.unwrap_or_else(|| "0".to_owned()),
        segments.iter().filter(|segment| segment.is_gap).count().to_string(),
        seconds(difference(rendition.playlist.micros(), 0)),
        rendition.average_bits().map_or_else(unknown, kilobits),
        rendition.peak_bits().map_or_else(unknown, kilobits),
        rendition.overhead_milli().map_or_else(unknown, |milli| format!("{}.{} %", milli / 10, milli % 10)),
    ]
}

fn kilobits(bits: u64) -> String {
    format!("{} kbit/s", bits.div_ceil(1000))
}
