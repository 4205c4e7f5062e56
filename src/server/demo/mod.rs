//! A publisher of our own: sends a built-in film over real RTMP, round and round, in real time.

mod client;

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use rml_rtmp::sessions::StreamMetadata;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

pub(super) use self::client::Client;
use crate::flv::file::{FileTag, FileTagKind, FileTags};
use crate::flv::{TagBody, parse_data};

/// Under which name the film is published.
pub const NAME: &str = "live/demo";
/// The app that the demo publisher names.
const APP: &str = "live";

/// See `samples/README.md`.
pub(super) const FILM: &[u8] = include_bytes!("../../../samples/big-buck-bunny.flv");
/// How long to wait before another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Publishes the film to the server at `address` with `stream_key` until `until` is ready. Then it falls silent; its future stays pending,
/// so that the server can end the broadcast first.
pub async fn publish(address: SocketAddr, stream_key: &str, until: impl Future) {
    let mut showing = pin!(publish_for_ever(reachable(address), stream_key));
    tokio::select! {
        biased;
        _ = until => std::future::pending().await,
        never = &mut showing => match never {},
    }
}

async fn publish_for_ever(address: SocketAddr, stream_key: &str) -> Infallible {
    loop {
        match publish_once(address, stream_key).await {
            Ok(never) => match never {},
            Err(error) => tracing::warn!("the demo publisher was cut off: {error:#}; trying again"),
        }
        sleep(RETRY_AFTER).await;
    }
}

/// Where a program on the same machine finds a server that listens on `address`.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}

async fn publish_once(address: SocketAddr, stream_key: &str) -> anyhow::Result<Infallible> {
    let film = Film::read(&Bytes::from_static(FILM))?;
    let socket = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    socket.set_nodelay(true)?;
    let mut client = Client::publish(socket, APP, stream_key).await?;
    client.send_metadata(&film.metadata).await?;
    let start = Instant::now();
    for round in 0.. {
        for (tag, time) in film.round(round) {
            client.wait_until(start + time).await?;
            client.send(tag, time).await?;
        }
    }
    bail!("the film has been shown too often")
}

/// What is sent again and again.
#[derive(Debug)]
pub(super) struct Film {
    /// Audio and video, in file order.
    pub(super) tags: Vec<FileTag>,
    pub(super) metadata: StreamMetadata,
    /// From the first frame to the end of the last.
    length: Duration,
}

impl Film {
    pub(super) fn read(file: &Bytes) -> anyhow::Result<Self> {
        let all = FileTags::new(file)?.collect::<Result<Vec<_>, _>>().context("read the demo's film")?;
        let mut metadata = StreamMetadata::new();
        metadata.encoder = Some(concat!("upscope demo ", env!("CARGO_PKG_VERSION")).to_owned());
        for tag in all.iter().filter(|tag| tag.kind == FileTagKind::Data) {
            if let Some(tag) = parse_data(tag.timestamp, &tag.body).ok().and_then(|mut tags| tags.next())
                && let TagBody::Metadata(told) = tag.body
            {
                metadata.video_width = told.width;
                metadata.video_height = told.height;
            }
        }
        let end_ms = [FileTagKind::Audio, FileTagKind::Video].map(|kind| end_ms(&all, kind)).into_iter().max();
        let tags = all.into_iter().filter(|tag| tag.kind != FileTagKind::Data).collect();
        Ok(Self { tags, metadata, length: Duration::from_millis(end_ms.unwrap_or(0).max(1).into()) })
    }

    /// The tags of a showing with their times from the first one on, which run on from round to round.
    pub(super) fn round(&self, round: u32) -> impl Iterator<Item = (&FileTag, Duration)> {
        let offset = self.length * round;
        let tags = self.tags.iter().filter(move |tag| round == 0 || !is_sequence_header(tag));
        tags.map(move |tag| (tag, offset + Duration::from_millis(tag.timestamp.into())))
    }
}

/// When the last frame of a kind ends, supposing that it is as long as the one before.
fn end_ms(tags: &[FileTag], kind: FileTagKind) -> u32 {
    let mut times = tags.iter().filter(|tag| tag.kind == kind).rev().map(|tag| tag.timestamp);
    match (times.next(), times.next()) {
        (Some(last), Some(before)) => last + last.saturating_sub(before),
        (last, _) => last.unwrap_or(0),
    }
}

/// A decoder's configuration (FLV 10.1 §E.4.2.2, §E.4.3.2): needed once.
fn is_sequence_header(tag: &FileTag) -> bool {
    tag.body.get(1) == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_film_begins_with_a_key_frame_and_its_rounds_join_without_a_gap() {
        let film = Film::read(&Bytes::from_static(FILM)).unwrap();
        let first_picture = film.tags.iter().find(|tag| tag.kind == FileTagKind::Video && !is_sequence_header(tag));
        assert_eq!(first_picture.unwrap().body[0] >> 4, 1, "a key frame");
        let last = film.tags.iter().map(|tag| tag.timestamp).max().unwrap();
        let behind_last = film.length - Duration::from_millis(last.into());
        assert!((1..=40).contains(&behind_last.as_millis()), "{behind_last:?}");
        assert_eq!((film.metadata.video_width, film.metadata.video_height), (Some(640), Some(360)));
    }

    #[test]
    fn an_address_of_all_interfaces_is_reached_at_the_loopback_one() {
        for (bound, reached) in [("0.0.0.0:5", "127.0.0.1:5"), ("[::]:5", "[::1]:5"), ("10.0.0.1:5", "10.0.0.1:5")] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), reached);
        }
    }
}
