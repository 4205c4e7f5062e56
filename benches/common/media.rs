//! What every publisher sends, prepared once: real footage, brought to the wanted bitrate, in RTMP chunks.
//!
//! All messages carry time deltas, as OBS sends them, so that eight seconds of chunks can be sent over and over without
//! a byte being changed. Larger access units than the footage has are made by filler data NAL units (H.264 §7.4.2.7):
//! whatever reads them sees a legal stream with one picture per access unit, of the footage's rhythm of sizes.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::ValueEnum;
use upscope::flv::file::{FileTag, FileTagKind, FileTags};

/// 8 s, 25 pictures a second with B-pictures, a key frame every 2 s, AAC-LC 48 kHz. See `samples/README.md`.
const FOOTAGE: &[u8] = include_bytes!("../../samples/big-buck-bunny-250k.flv");
/// How long the footage is; sound and picture end together there.
pub(crate) const ROUND_MS: u64 = 8_000;
/// What OBS sets.
pub(crate) const CHUNK_BYTES: usize = 4096;
/// The message stream that `createStream` gives to whoever asks first.
pub(crate) const MESSAGE_STREAM: u8 = 1;
/// `RTMP_Write` of librtmp, and so OBS, puts audio, video and data on this chunk stream.
const CHUNK_STREAM: u8 = 4;

/// What a publisher sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// 4.2 Mbit/s: H.264 720p25-like, AAC 128 kbit/s.
    #[value(name = "4m")]
    Large,
    /// 240 kbit/s: H.264 180p25, AAC 64 kbit/s.
    #[value(name = "250k")]
    Small,
    /// AAC 64 kbit/s alone.
    #[value(name = "audio")]
    Audio,
}

/// A publisher's bytes.
#[derive(Debug)]
pub(crate) struct Program {
    /// Metadata and decoder configurations.
    pub(crate) opening: Vec<u8>,
    /// Eight seconds of media, to be sent over and over.
    pub(crate) round: Vec<u8>,
    /// The messages of the round.
    pub(crate) messages: Vec<Message>,
    /// Coded bytes of a round, without anything around them.
    pub(crate) payload_bytes: usize,
}

/// A message of the round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    /// When it is sent, counted from the start of the round.
    pub(crate) due_ms: u64,
    /// Where it ends in the round's bytes.
    pub(crate) end: usize,
}

impl Program {
    /// Prepares the bytes.
    ///
    /// # Errors
    /// When the built-in footage cannot be read.
    pub(crate) fn new(profile: Profile) -> anyhow::Result<Self> {
        let tags =
            FileTags::new(&Bytes::from_static(FOOTAGE))?.collect::<Result<Vec<_>, _>>().context("read footage")?;
        let of = |kind| tags.iter().filter(move |tag| tag.kind == kind);
        let has_video = profile != Profile::Audio;
        let is_configuration = |tag: &&FileTag| tag.body.get(1) == Some(&0);

        let mut opening = Vec::new();
        let mut metadata = b"\x02\x00\x0d@setDataFrame".to_vec();
        metadata.extend(&of(FileTagKind::Data).next().context("no metadata in the footage")?.body);
        write_message(Header::Full, 18, &metadata, &mut opening);
        if has_video {
            let configuration = of(FileTagKind::Video).find(is_configuration).context("no AVC configuration")?;
            write_message(Header::Full, 9, &configuration.body, &mut opening);
        }
        let configuration = of(FileTagKind::Audio).find(is_configuration).context("no AAC configuration")?;
        write_message(Header::Full, 8, &configuration.body, &mut opening);

        let mut units: Vec<(u64, u8, Vec<u8>)> = Vec::new();
        let audio: Vec<_> = of(FileTagKind::Audio).filter(|tag| tag.body.len() > 16).collect();
        for (at, tag) in (0_u64..).zip(audio.iter().take(AUDIO_FRAMES)) {
            let mut body = tag.body.to_vec();
            if profile == Profile::Large {
                // Behind the end of the frame's syntax: decoders stop before it.
                body.resize(2 + 2 * (body.len() - 2), 0);
            }
            units.push((at * ROUND_MS / AUDIO_FRAMES as u64, 8, body));
        }
        let audio_bytes: usize = units.iter().map(|(_, _, body)| body.len()).sum();
        let video: Vec<_> = of(FileTagKind::Video).filter(|tag| tag.body.get(1) == Some(&1)).collect();
        if (video.len(), units.len()) != (PICTURES, AUDIO_FRAMES) {
            bail!("the footage has {} pictures and {} audio frames", video.len(), units.len());
        }
        let video_bytes: usize = video.iter().map(|tag| tag.body.len()).sum();
        for (at, tag) in (0_u64..).zip(&video).filter(|_| has_video) {
            let mut body = tag.body.to_vec();
            if profile == Profile::Large {
                let length = (LARGE_BYTES - audio_bytes) * body.len() / video_bytes;
                fill_up(&mut body, length);
            }
            units.push((at * ROUND_MS / PICTURES as u64, 9, body));
        }
        units.sort_by_key(|(time_ms, kind, _)| (*time_ms, *kind != 9));

        let mut program = Self { opening, round: Vec::new(), messages: Vec::new(), payload_bytes: 0 };
        let last_ms = units.last().map_or(0, |(time_ms, ..)| *time_ms);
        // Behind the opening as behind the round before.
        let mut before_ms = last_ms;
        for (time_ms, kind, body) in units {
            let delta_ms = u32::try_from((ROUND_MS + time_ms - before_ms) % ROUND_MS)?;
            before_ms = time_ms;
            write_message(Header::Delta(delta_ms), kind, &body, &mut program.round);
            program.messages.push(Message { due_ms: time_ms, end: program.round.len() });
            program.payload_bytes += body.len() - if kind == 9 { 5 } else { 2 };
        }
        Ok(program)
    }
}

/// Of the footage.
const PICTURES: usize = 200;
/// Of the footage: 375 times 1024 samples at 48 kHz are 8 s.
const AUDIO_FRAMES: usize = 375;
/// Of a round of [`Profile::Large`].
const LARGE_BYTES: usize = 4_200_000;

/// How a message's first chunk begins.
#[derive(Debug, Clone, Copy)]
enum Header {
    /// Type 0 at time 0.
    Full,
    /// Type 1, with the time since the message before in milliseconds.
    Delta(u32),
}

/// RTMP 1.0 §5.3.
fn write_message(header: Header, type_id: u8, body: &[u8], out: &mut Vec<u8>) {
    let (format, time_ms) = match header {
        Header::Full => (0x00, 0),
        Header::Delta(delta_ms) => (0x40, delta_ms),
    };
    out.push(format | CHUNK_STREAM);
    out.extend(&time_ms.to_be_bytes()[1..]);
    write_length(body, out);
    out.push(type_id);
    if format == 0 {
        out.extend([MESSAGE_STREAM, 0, 0, 0]);
    }
    for (at, piece) in body.chunks(CHUNK_BYTES).enumerate() {
        if at > 0 {
            out.push(0xc0 | CHUNK_STREAM);
        }
        out.extend(piece);
    }
}

/// In three bytes.
pub(crate) fn write_length(body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend(&length.to_be_bytes()[1..]);
}

/// Adds a filler data NAL unit, so that `body` becomes `length` bytes long, if it can be.
fn fill_up(body: &mut Vec<u8>, length: usize) {
    let Some(fill) = length.checked_sub(body.len()).filter(|fill| *fill >= 6) else { return };
    body.extend(u32::try_from(fill - 4).unwrap_or(u32::MAX).to_be_bytes());
    body.push(12);
    body.resize(length - 1, 0xff);
    body.push(0x80);
}
