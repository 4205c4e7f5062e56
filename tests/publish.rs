//! Every case of the corpus, played at full speed through the real listener: what was sent has to come out, nothing lost,
//! nothing twice, in order and in step.

#![expect(clippy::disallowed_methods, reason = "the output lies in files")]

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::case::{Audio, Case, Publish, Video};
use common::mp4::{Kind, Sample};
use common::output::{Output, Rendition, files, seconds};
use common::run::{Run, Stream, below, may_be_refused, must_be_refused};
use common::source::{self, AccessUnit, SourceTrack, nal_units};

/// How far a sample's presentation time may lie from the one that was sent, in milliseconds: RTMP's rounding to whole
/// milliseconds, twice, as audio starts at a rounded time and goes on in exact samples.
const OFF_MS: f64 = 2.0;

/// The case whose muxer gives time 0 to its first three pictures and audio frames; they have to be spread, and what comes
/// after them may lag by what that takes, in milliseconds.
const SPREAD: (&str, f64) = ("r-gst-bbb", 50.0);

/// How far the listed duration may lie from the one that was sent, in seconds.
const OFF_S: f64 = 0.1;

/// Cases in which NAL units may be left out, put together or have their lengths rewritten.
const REWRITTEN: [&str; 3] = ["c-nal-len2", "c-empty-nal", "c-sei-only"];

/// The case whose later key frames are no IDR pictures; a server may count them as sync samples or not.
const OPEN_GOP: &str = "r-ff51-opengop";

tests_of_the_corpus!(check);

#[test]
fn the_reader_of_sessions_agrees_with_the_cases() {
    for id in common::case::ids() {
        let case = Case::load(&id);
        let sources: Vec<_> = case.sessions().iter().flat_map(source::publishes).collect();
        assert_eq!(sources.len(), case.expect.publishes.len(), "{id}");
        for (source, expected) in sources.iter().zip(&case.expect.publishes) {
            assert_eq!(source.key, expected.key, "{id}");
            let first_picture = source.video.get(&0).and_then(|track| track.units.first());
            if let Some(video) = &expected.video {
                agrees_on_video(&id, &source.video[&0], video);
            }
            for audio in expected.audio.iter().chain(&expected.audio_more) {
                let track = &source.audio[&audio.track_id];
                agrees_on_audio(&id, track, audio, first_picture.map(AccessUnit::presentation_ms));
            }
        }
    }
}

fn agrees_on_video(id: &str, track: &SourceTrack, video: &Video) {
    let times: Vec<_> = track.units.iter().map(AccessUnit::presentation_ms).collect();
    let keys: Vec<_> = track.units.iter().filter(|unit| unit.is_key).map(AccessUnit::presentation_ms).collect();
    assert_eq!(times.len(), video.aus, "{id}: aus");
    assert_eq!(times.iter().min(), Some(&video.first_pts_ms), "{id}: first_pts_ms");
    assert_eq!(times.iter().max(), Some(&video.last_pts_ms), "{id}: last_pts_ms");
    assert_eq!(keys.len(), video.key_frames, "{id}: key_frames");
    assert_eq!(&keys[..keys.len().min(40)], video.key_pts_ms, "{id}: key_pts_ms");
    assert_eq!(track.before_first_key, video.before_first_key, "{id}: before_first_key");
    assert_eq!(track.without_slice, video.messages_no_slice, "{id}: messages_no_slice");
    assert_eq!(track.configurations, video.configs, "{id}: configs");
}

fn agrees_on_audio(id: &str, track: &SourceTrack, audio: &Audio, first_picture_ms: Option<i64>) {
    let times: Vec<_> = track.units.iter().map(AccessUnit::presentation_ms).collect();
    let from_first_key = times.iter().filter(|&&time| first_picture_ms.is_none_or(|first| time >= first)).count();
    assert_eq!(times.len(), audio.aus, "{id}: audio aus");
    assert_eq!(from_first_key, audio.aus_from_first_key, "{id}: aus_from_first_key");
    assert_eq!(times.iter().min(), Some(&audio.first_pts_ms), "{id}: audio first_pts_ms");
    assert_eq!(times.iter().max(), Some(&audio.last_pts_ms), "{id}: audio last_pts_ms");
    assert_eq!(track.configurations, audio.configs, "{id}: audio configs");
}

/// Plays a case and holds what came out against what was sent.
fn check(id: &str) {
    let run = Run::of(id);
    let mut findings = run.troubles.clone();
    if run.stopped.status.code() != Some(0) {
        findings.push(format!("after SIGTERM the program ended with {}", run.stopped.status));
    }
    for stream in &run.streams {
        check_answer(&run, stream, &mut findings);
    }
    check_files(&run, &mut findings);
    for (stream, output) in run.outputs(&mut findings) {
        let mut about_stream = Vec::new();
        check_stream(&run, stream, &output, &mut about_stream);
        findings.extend(about_stream.into_iter().map(|finding| format!("{}: {finding}", stream.name)));
    }
    run.conclude(&findings);
}

/// Accepted or refused, as it should be; nothing is left of what was refused.
fn check_answer(run: &Run, stream: &Stream, findings: &mut Vec<String>) {
    let expected = run.expected(stream);
    match &stream.refusal {
        Some(code) => {
            if !may_be_refused(&expected) {
                findings.push(format!("{}: was refused with {code:?}, has to be accepted", stream.name));
            }
            if run.folder(stream).exists() {
                findings.push(format!("{}: was refused, but there is a folder", stream.name));
            }
        }
        None if must_be_refused(&expected) => findings.push(format!("{}: was accepted", stream.name)),
        None => {}
    }
}

/// No file but those that the playlists of accepted streams lead to, and no query anywhere.
fn check_files(run: &Run, findings: &mut Vec<String>) {
    let root = run.stopped.folder.path();
    let mut reached = BTreeSet::new();
    for stream in run.streams.iter().filter(|stream| stream.refusal.is_none()) {
        if let Ok(output) = run.output(stream) {
            reached.extend(output.reached);
        }
    }
    let is_ours_at_top = |path: &std::path::Path| path.parent() == Some(root);
    let secrets = secrets(&run.case);
    for path in files(root) {
        let name = below(&path, root);
        if !reached.contains(&path) && !is_ours_at_top(&path) && !reached.is_empty() {
            findings.push(format!("{name} is left, and no playlist leads to it"));
        }
        let content = fs::read(&path).unwrap();
        for secret in &secrets {
            if name.to_string().contains(secret.as_str()) || contains(&content, secret.as_bytes()) {
                findings.push(format!("{name} gives away {secret:?} of the stream key's query"));
            }
        }
    }
    for secret in &secrets {
        if run.stopped.log.contains(secret.as_str()) {
            findings.push(format!("the log gives away {secret:?} of the stream key's query"));
        }
    }
}

/// The queries of a case's stream keys, whole and in parts.
fn secrets(case: &Case) -> Vec<String> {
    let queries = case.expect.publishes.iter().filter_map(|publish| publish.name_and_query().1);
    queries.flat_map(|query| query.split('&').chain([query])).map(str::to_owned).collect()
}

fn contains(content: &[u8], word: &[u8]) -> bool {
    content.windows(word.len()).any(|window| window == word)
}

/// Everything that a case says of a stream that was accepted.
fn check_stream(run: &Run, stream: &Stream, output: &Output, findings: &mut Vec<String>) {
    let expected = run.expected(stream);
    check_playlists(run, &expected, output, findings);
    check_codecs(&expected, output, findings);

    let mut clock = Clock::default();
    let videos: Vec<&Video> = expected.iter().filter_map(|publish| publish.video.as_ref()).collect();
    match (&output.video, videos.is_empty()) {
        (Some(_), true) => findings.push("there is a video rendition, and no video was sent".into()),
        (None, true) => {}
        // Where refusing it is fine, leaving out the track is, too.
        (None, false) if may_be_refused(&expected) => {}
        (None, false) => findings.push("no video rendition".into()),
        (Some(rendition), false) => {
            let sent: Vec<&SourceTrack> = stream.sources.iter().filter_map(|source| source.video.get(&0)).collect();
            let units: Vec<&AccessUnit> = sent.iter().flat_map(|track| &track.units).collect();
            check_samples(run, "video", &units, rendition, &mut clock, findings);
            check_sizes(&videos, rendition, output, findings);
        }
    }

    if let Some(more) = output.video_more.first() {
        findings.push(format!("{} is one video rendition too many", more.uri));
    }

    let audios: Vec<&Audio> = expected.iter().filter_map(|publish| publish.audio.as_ref()).collect();
    match (output.audio.first(), audios.is_empty()) {
        (Some(_), true) => findings.push("there is an audio rendition, and no audio was sent".into()),
        (None, true) => {}
        (None, false) if may_be_refused(&expected) => {}
        (None, false) => findings.push("no audio rendition".into()),
        (Some(rendition), false) => {
            let sent: Vec<&SourceTrack> = stream.sources.iter().filter_map(|source| source.audio.get(&0)).collect();
            check_audio(run, "audio", &sent, &audios, rendition, &mut clock, findings);
        }
    }
    clock.conclude(if run.case.id == SPREAD.0 { SPREAD.1 } else { OFF_MS }, findings);

    // Further audio tracks: each a rendition of its own.
    let more = expected.iter().map(|publish| publish.audio_more.len()).max().unwrap_or(0);
    if !output.audio.is_empty() && output.audio.len() < 1 + more {
        findings.push(format!("{} audio renditions, not {}", output.audio.len(), 1 + more));
    }
    for (more, rendition) in output.audio.iter().enumerate().skip(1) {
        let Some(audio) = expected[0].audio_more.get(more - 1) else {
            findings.push(format!("{} is one audio rendition too many", rendition.uri));
            continue;
        };
        let sent = [&stream.sources[0].audio[&audio.track_id]];
        check_audio(run, &rendition.uri, &sent, &[audio], rendition, &mut Clock::default(), findings);
    }
}

/// ENDLIST, discontinuities, headers, listed durations.
fn check_playlists(run: &Run, expected: &[&Publish], output: &Output, findings: &mut Vec<String>) {
    let joins = expected.len() - 1;
    let between = run.case.expect.joined_discontinuities.map(|count| count * joins);
    let least = expected.iter().map(|publish| publish.discontinuities[0]).sum::<usize>() + between[0];
    let most = expected.iter().map(|publish| publish.discontinuities[1]).sum::<usize>() + between[1];
    for rendition in output.renditions() {
        let uri = &rendition.uri;
        if !rendition.playlist.has_end {
            findings.push(format!("{uri} has no EXT-X-ENDLIST"));
        }
        let count = rendition.playlist.discontinuities();
        if !(least..=most).contains(&count) {
            findings.push(format!("{uri} has {count} discontinuities, not {least} to {most}"));
        }
    }
    // Further audio tracks have headers of their own.
    let headers: usize = output.video.iter().chain(output.audio.first()).map(|rendition| rendition.headers.len()).sum();
    let fewest = expected.iter().map(|publish| publish.init_segments[0]).max().unwrap_or(0);
    let most: usize = expected.iter().map(|publish| publish.init_segments[1]).sum();
    if !(fewest..=most).contains(&headers) {
        findings.push(format!("{headers} different EXT-X-MAPs, not {fewest} to {most}"));
    }
}

/// CODECS lists what was sent and nothing else, and the headers say the same.
fn check_codecs(expected: &[&Publish], output: &Output, findings: &mut Vec<String>) {
    let video: Vec<&String> =
        expected.iter().filter_map(|p| p.video.as_ref()).flat_map(|video| &video.codecs).collect();
    let audio: Vec<&String> = expected
        .iter()
        .flat_map(|publish| publish.audio.iter().chain(&publish.audio_more))
        .flat_map(|audio| &audio.codecs)
        .collect();
    let is_one_of = |codec: &str, right: &[&String]| right.iter().any(|right| right.eq_ignore_ascii_case(codec));
    for variant in &output.multivariant.variants {
        for codec in &variant.codecs {
            if !is_one_of(codec, &video) && !is_one_of(codec, &audio) {
                findings.push(format!("CODECS has {codec:?}; right were {video:?} {audio:?}"));
            }
        }
        if output.video.is_some() && !variant.codecs.iter().any(|codec| is_one_of(codec, &video)) {
            findings.push(format!("CODECS {:?} lacks the video's, one of {video:?}", variant.codecs));
        }
        if !output.audio.is_empty() && !variant.codecs.iter().any(|codec| is_one_of(codec, &audio)) {
            findings.push(format!("CODECS {:?} lacks the audio's, one of {audio:?}", variant.codecs));
        }
    }
    for (uri, header) in output.renditions().flat_map(|rendition| &rendition.headers) {
        let right = if matches!(header.track.kind, Kind::Video { .. }) { &video } else { &audio };
        if let Some(codec) = &header.track.codec
            && !is_one_of(codec, right)
        {
            findings.push(format!("{uri} is {codec}, not one of {right:?}"));
        }
    }
}

/// RESOLUTION and the headers have the sizes that were sent.
fn check_sizes(videos: &[&Video], rendition: &Rendition, output: &Output, findings: &mut Vec<String>) {
    let right: BTreeSet<[u16; 2]> = videos.iter().flat_map(|video| &video.sizes).copied().collect();
    if right.is_empty() {
        return;
    }
    let came: BTreeSet<[u16; 2]> = rendition
        .headers
        .values()
        .filter_map(|header| match header.track.kind {
            Kind::Video { width, height, .. } => Some([width, height]),
            Kind::Audio { .. } => None,
        })
        .collect();
    if came != right {
        findings.push(format!("the headers' sizes are {came:?}, not {right:?}"));
    }
    for variant in &output.multivariant.variants {
        if !variant.resolution.is_some_and(|size| right.iter().any(|right| right.map(u64::from) == size)) {
            findings.push(format!("RESOLUTION is {:?}, not one of {right:?}", variant.resolution));
        }
    }
}

/// The audio frames, but for some before the first picture; rate and channels.
fn check_audio(
    run: &Run,
    name: &str,
    sent: &[&SourceTrack],
    audios: &[&Audio],
    rendition: &Rendition,
    clock: &mut Clock,
    findings: &mut Vec<String>,
) {
    for (uri, header) in &rendition.headers {
        let Kind::Audio { sample_rate, channels } = header.track.kind else { continue };
        // The sample entry of HE-AAC may have the rate of its core.
        let is_right = |rate: u32| sample_rate == rate || audios[0].codecs.len() > 1 && sample_rate * 2 == rate;
        if !audios.iter().any(|audio| is_right(audio.rate) && audio.channels == channels) {
            let right: Vec<_> = audios.iter().map(|audio| (audio.rate, audio.channels)).collect();
            findings.push(format!("{uri} has {sample_rate} Hz, {channels} channels, not {right:?}"));
        }
    }

    let came = rendition.samples().count();
    let most: usize = audios.iter().map(|audio| audio.aus).sum();
    let fewest: usize = audios.iter().map(|audio| audio.aus_from_first_key.saturating_sub(1)).sum();
    if !(fewest..=most).contains(&came) {
        findings.push(format!("{came} {name} frames came out, not {fewest} to {most}"));
    }
    // Each publish may lack some frames at its start; the only way to share out the lack that fits is the right one.
    let lacks = most.saturating_sub(came);
    let choices: Vec<Vec<&AccessUnit>> = match sent {
        [first, second] => (0..=lacks)
            .map(|lack| first.units.iter().skip(lack).chain(second.units.iter().skip(lacks - lack)).collect())
            .collect(),
        _ => vec![sent.iter().flat_map(|track| &track.units).skip(lacks).collect()],
    };
    let fits = |units: &&Vec<&AccessUnit>| {
        units.iter().zip(rendition.samples()).all(|(unit, (_, _, sample))| unit.payload == sample.payload)
    };
    let units = choices.iter().find(fits).unwrap_or(&choices[0]);
    check_samples(run, name, units, rendition, clock, findings);
}

/// All of `units`, once each and in order, are the samples of the rendition, at their times.
fn check_samples(
    run: &Run,
    name: &str,
    units: &[&AccessUnit],
    rendition: &Rendition,
    clock: &mut Clock,
    findings: &mut Vec<String>,
) {
    let samples: Vec<(usize, u32, &Sample)> = rendition.samples().collect();
    if samples.len() != units.len() {
        findings.push(format!("{} {name} samples came out, {} were sent", samples.len(), units.len()));
    }
    let lengths = rendition.segments.iter().flat_map(|segment| {
        let length = match segment.header.as_ref().map(|header| &header.track.kind) {
            Some(Kind::Video { nal_length_bytes, .. }) => *nal_length_bytes,
            _ => 0,
        };
        segment.media.samples.iter().map(move |_| length)
    });
    let is_rewritten = name == "video" && REWRITTEN.contains(&run.case.id.as_str());
    for (index, ((unit, &(period, timescale, sample)), nal_length_bytes)) in
        units.iter().zip(&samples).zip(lengths).enumerate()
    {
        let is_same = if is_rewritten {
            let (sent, came) =
                (nal_units(&unit.payload, unit.nal_length_bytes), nal_units(&sample.payload, nal_length_bytes));
            came.ends_with(&sent)
        } else {
            sample.payload == unit.payload
        };
        if !is_same {
            findings.push(differing(name, index, sample, units));
            break;
        }
        clock.note(name, period, index, unit, sample, timescale);
    }
    let wrong = units.iter().zip(&samples).position(|(unit, (_, _, sample))| match run.case.id.as_str() {
        OPEN_GOP => sample.is_sync && !unit.is_key,
        _ => sample.is_sync != unit.is_key,
    });
    if let Some(index) = wrong {
        let says = samples[index].2.is_sync;
        findings.push(format!("{name} sample {index}: sync is {says}, key frame was {}", units[index].is_key));
    }
    check_duration(run, name, units, rendition, findings);
}

/// Which unit of the source sample `index` is, if not the one it should be.
fn differing(name: &str, index: usize, sample: &Sample, units: &[&AccessUnit]) -> String {
    let came = match units.iter().position(|unit| unit.payload == sample.payload) {
        Some(other) => format!("is unit {other} of the source"),
        None => format!("({} bytes) is no unit of the source", sample.payload.len()),
    };
    format!("{name} sample {index} {came}; unit {index} has {} bytes", units[index].payload.len())
}

/// The playlist lists as many seconds as were sent; a track that ends early may be filled up to the other's end.
fn check_duration(run: &Run, name: &str, units: &[&AccessUnit], rendition: &Rendition, findings: &mut Vec<String>) {
    let listed = rendition.playlist.duration_s();
    let publishes = &run.case.expect.publishes;
    if let Some([least, most]) = publishes[0].duration_s_range {
        if !(least - OFF_S..=most + OFF_S).contains(&listed) {
            findings.push(format!("{name}: {listed:.3} s are listed, not {least} to {most} s"));
        }
        return;
    }
    // A publish that goes on with a stream starts where its clock goes back.
    let mut sent_ms = 0;
    for part in units.chunk_by(|one, next| next.decode_ms >= one.decode_ms - 1000) {
        let times = part.iter().map(|unit| unit.presentation_ms());
        sent_ms += times.clone().max().unwrap() - times.min().unwrap();
    }
    let sent = seconds(sent_ms, 1000);
    let longest: f64 = publishes.iter().filter_map(|publish| publish.duration_s).sum();
    if listed < sent - OFF_S || listed > longest + 2.0 * OFF_S {
        findings.push(format!("{name}: {listed:.3} s are listed; {sent:.3} s were sent, {longest} s of all tracks"));
    }
}

/// Holds the output's clock against the source's: between discontinuities they have to differ by a constant, which is the
/// same for picture and sound.
#[derive(Default)]
struct Clock {
    /// Track, period, index of the sample, output minus source in milliseconds.
    differences: Vec<(String, usize, usize, f64)>,
}

impl Clock {
    fn note(&mut self, name: &str, period: usize, index: usize, unit: &AccessUnit, sample: &Sample, timescale: u32) {
        let came_ms = seconds(sample.presentation_time(), timescale) * 1000.0;
        let sent_ms = seconds(unit.presentation_ms(), 1000) * 1000.0;
        self.differences.push((name.to_owned(), period, index, came_ms - sent_ms));
    }

    fn conclude(&self, off_ms: f64, findings: &mut Vec<String>) {
        for period in 0..=self.differences.iter().map(|difference| difference.1).max().unwrap_or(0) {
            let mut of_period = self.differences.iter().filter(|difference| difference.1 == period);
            let Some((_, _, _, constant)) = of_period.next() else { continue };
            let off = of_period.find(|difference| (difference.3 - constant).abs() > off_ms);
            if let Some((name, _, index, difference)) = off {
                findings.push(format!(
                    "{name} sample {index} is {:.2} ms out of step with the first sample",
                    difference - constant
                ));
            }
        }
    }
}
