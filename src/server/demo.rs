//! A publisher of our own: sends a built-in film over real RTMP, round and round, in real time.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType, StreamMetadata,
};
use rml_rtmp::time::RtmpTimestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use crate::flv::file::{FileTag, FileTagKind, FileTags};
use crate::flv::{TagBody, parse_data};

/// Under which name the film is published.
pub const APP: &str = "live";
/// Under which name the film is published.
pub const STREAM_KEY: &str = "demo";

/// See `samples/README.md`.
const FILM: &[u8] = include_bytes!("../../samples/big-buck-bunny.flv");
/// How long to wait before another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Publishes the film to the server at `address` for ever.
pub async fn publish(address: SocketAddr) {
    let address = reachable(address);
    loop {
        match publish_once(address).await {
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

async fn publish_once(address: SocketAddr) -> anyhow::Result<std::convert::Infallible> {
    let mut client = Client::connect(address).await?;
    let film = Film::read(&Bytes::from_static(FILM))?;
    client.send_metadata(&film).await?;
    let start = Instant::now();
    for round in 0.. {
        let offset = film.length * round;
        for tag in &film.tags {
            let time = offset + Duration::from_millis(tag.timestamp.into());
            client.wait_until(start + time).await?;
            if round == 0 || !is_sequence_header(tag) {
                client.send(tag, time).await?;
            }
        }
    }
    bail!("the film has been shown too often")
}

/// What is sent again and again.
#[derive(Debug)]
struct Film {
    /// Audio and video, in file order.
    tags: Vec<FileTag>,
    metadata: StreamMetadata,
    /// From the first frame to the end of the last.
    length: Duration,
}

impl Film {
    fn read(file: &Bytes) -> anyhow::Result<Self> {
        let all = FileTags::new(file)?.collect::<Result<Vec<_>, _>>().context("read the demo's film")?;
        let mut metadata = StreamMetadata::new();
        metadata.encoder = Some(concat!("upscope demo ", env!("CARGO_PKG_VERSION")).to_owned());
        for tag in all.iter().filter(|tag| tag.kind == FileTagKind::Data) {
            if let Ok(Some(tag)) = parse_data(tag.timestamp, &tag.body)
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

/// The publishing side of a connection.
struct Client {
    socket: TcpStream,
    session: ClientSession,
}

impl Client {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let mut socket = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        socket.set_nodelay(true)?;
        let rest = shake_hands(&mut socket).await.context("shake hands")?;

        let mut config = ClientSessionConfig::new();
        config.flash_version = concat!("upscope demo/", env!("CARGO_PKG_VERSION")).to_owned();
        config.tc_url = Some(format!("rtmp://{address}/{APP}"));
        let (session, greetings) = ClientSession::new(config).map_err(in_words)?;
        let mut client = Self { socket, session };
        client.perform(greetings).await?;
        let events = client.session.handle_input(&rest).map_err(in_words)?;
        client.perform(events).await?;

        let request = client.session.request_connection(APP.to_owned()).map_err(in_words)?;
        client.ask(request, &ClientSessionEvent::ConnectionRequestAccepted).await.context("connect to the app")?;
        let request = client.session.request_publishing(STREAM_KEY.to_owned(), PublishRequestType::Live);
        let request = request.map_err(in_words)?;
        client.ask(request, &ClientSessionEvent::PublishRequestAccepted).await.context("publish")?;
        Ok(client)
    }

    async fn send_metadata(&mut self, film: &Film) -> anyhow::Result<()> {
        let result = self.session.publish_metadata(&film.metadata).map_err(in_words)?;
        self.perform(vec![result]).await.map(drop)
    }

    async fn send(&mut self, tag: &FileTag, time: Duration) -> anyhow::Result<()> {
        // The RTMP clock wraps at 2^32 ms.
        let wrapped = u32::try_from(time.as_millis() % (1 << 32)).context("tell the time")?;
        let (timestamp, body) = (RtmpTimestamp::new(wrapped), tag.body.clone());
        let result = match tag.kind {
            FileTagKind::Audio => self.session.publish_audio_data(body, timestamp, false),
            FileTagKind::Video => self.session.publish_video_data(body, timestamp, false),
            FileTagKind::Data => return Ok(()),
        };
        self.perform(vec![result.map_err(in_words)?]).await.map(drop)
    }

    /// Sends a request and waits for the answer.
    async fn ask(&mut self, request: ClientSessionResult, wanted: &ClientSessionEvent) -> anyhow::Result<()> {
        let mut events = self.perform(vec![request]).await?;
        while !events.contains(wanted) {
            if let Some(ClientSessionEvent::ConnectionRequestRejected { description }) = events.first() {
                bail!("refused: {description}");
            }
            if let Some(ClientSessionEvent::UnhandleableOnStatusCode { code }) = events.first() {
                bail!("refused: {code}");
            }
            events = self.receive().await?;
        }
        Ok(())
    }

    /// Waits, and listens meanwhile.
    async fn wait_until(&mut self, time: Instant) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(time) => return Ok(()),
                ready = self.socket.readable() => ready?,
            }
            let mut buffer = [0; 1024];
            match self.socket.try_read(&mut buffer) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(length) => self.handle(&buffer[..length]).await.map(drop)?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn receive(&mut self) -> anyhow::Result<Vec<ClientSessionEvent>> {
        let mut buffer = [0; 1024];
        match self.socket.read(&mut buffer).await? {
            0 => bail!("the server closed the connection"),
            length => self.handle(&buffer[..length]).await,
        }
    }

    async fn handle(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<ClientSessionEvent>> {
        let results = self.session.handle_input(bytes).map_err(in_words)?;
        self.perform(results).await
    }

    /// Sends what is to be sent, returns the rest.
    async fn perform(&mut self, results: Vec<ClientSessionResult>) -> anyhow::Result<Vec<ClientSessionEvent>> {
        let mut events = Vec::new();
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => self.socket.write_all(&packet.bytes).await?,
                ClientSessionResult::RaisedEvent(event) => events.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        Ok(events)
    }
}

/// Returns what came behind the handshake.
async fn shake_hands(socket: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut handshake = Handshake::new(PeerType::Client);
    let hello = handshake.generate_outbound_p0_and_p1().map_err(in_words)?;
    socket.write_all(&hello).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.read(&mut buffer).await?;
        if length == 0 {
            bail!("the server closed the connection");
        }
        match handshake.process_bytes(&buffer[..length]).map_err(in_words)? {
            HandshakeProcessResult::InProgress { response_bytes } => socket.write_all(&response_bytes).await?,
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                socket.write_all(&response_bytes).await?;
                return Ok(remaining_bytes);
            }
        }
    }
}

/// The library's errors are of a kind that `anyhow` does not take.
fn in_words(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
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
