//! The publishing side of an RTMP connection, by rml_rtmp: for the demo, and as scripted publisher in tests.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType, StreamMetadata,
};
use rml_rtmp::time::RtmpTimestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};

use crate::flv::file::{FileTag, FileTagKind};

/// Bytes read at once; a server says little.
const READ_BYTES: usize = 4096;

/// A connection on which something is published.
pub(in crate::server) struct Client<S> {
    socket: S,
    session: ClientSession,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Shakes hands, connects to `app` and asks to publish `stream_key`; returns when the server said yes.
    pub(in crate::server) async fn publish(socket: S, app: &str, stream_key: &str) -> anyhow::Result<Self> {
        let mut client = Self::connect(socket, app).await?;
        client.publish_again(stream_key).await?;
        Ok(client)
    }

    /// Asks to publish `stream_key`, while nothing else is being published.
    pub(in crate::server) async fn publish_again(&mut self, stream_key: &str) -> anyhow::Result<()> {
        let request = self.session.request_publishing(stream_key.to_owned(), PublishRequestType::Live);
        let request = request.map_err(in_words)?;
        self.ask(request, &ClientSessionEvent::PublishRequestAccepted).await.context("publish")
    }

    /// Shakes hands and connects to `app`.
    pub(in crate::server) async fn connect(mut socket: S, app: &str) -> anyhow::Result<Self> {
        let rest = shake_hands(&mut socket).await.context("shake hands")?;
        let mut config = ClientSessionConfig::new();
        config.flash_version = concat!("upscope demo/", env!("CARGO_PKG_VERSION")).to_owned();
        config.tc_url = Some(format!("rtmp://localhost/{app}"));
        let (session, greetings) = ClientSession::new(config).map_err(in_words)?;
        let mut client = Self { socket, session };
        client.perform(greetings).await?;
        client.handle(&rest).await?;
        let request = client.session.request_connection(app.to_owned()).map_err(in_words)?;
        client.ask(request, &ClientSessionEvent::ConnectionRequestAccepted).await.context("connect to the app")?;
        Ok(client)
    }

    /// Says what is about to come.
    pub(in crate::server) async fn send_metadata(&mut self, metadata: &StreamMetadata) -> anyhow::Result<()> {
        let result = self.session.publish_metadata(metadata).map_err(in_words)?;
        self.perform(vec![result]).await.map(drop)
    }

    /// Sends audio or video at `time` of the publisher's clock.
    pub(in crate::server) async fn send(&mut self, tag: &FileTag, time: Duration) -> anyhow::Result<()> {
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

    /// Waits, and listens meanwhile.
    pub(in crate::server) async fn wait_until(&mut self, time: Instant) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(time) => return Ok(()),
                events = self.receive() => drop(events?),
            }
        }
    }

    /// Says goodbye.
    #[cfg(test)]
    pub(in crate::server) async fn unpublish(&mut self) -> anyhow::Result<()> {
        let results = self.session.stop_publishing().map_err(in_words)?;
        self.perform(results).await.map(drop)
    }

    /// Sends a request and waits for the answer.
    async fn ask(&mut self, request: ClientSessionResult, wanted: &ClientSessionEvent) -> anyhow::Result<()> {
        let mut events = self.perform(vec![request]).await?;
        loop {
            for event in events {
                match event {
                    event if event == *wanted => return Ok(()),
                    ClientSessionEvent::ConnectionRequestRejected { description } => bail!("refused: {description}"),
                    ClientSessionEvent::UnhandleableOnStatusCode { code } if code.starts_with("NetStream.Publish.") => {
                        bail!("refused: {code}")
                    }
                    _ => {}
                }
            }
            events = self.receive().await?;
        }
    }

    /// Cancel safe until something is received.
    async fn receive(&mut self) -> anyhow::Result<Vec<ClientSessionEvent>> {
        let mut buffer = [0; READ_BYTES];
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
                ClientSessionResult::OutboundResponse(packet) => {
                    self.socket.write_all(&packet.bytes).await?;
                    // TLS holds back what the socket does not take.
                    self.socket.flush().await?;
                }
                ClientSessionResult::RaisedEvent(event) => events.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        Ok(events)
    }
}

/// Returns what came behind the handshake.
async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) -> anyhow::Result<Vec<u8>> {
    let mut handshake = Handshake::new(PeerType::Client);
    let hello = handshake.generate_outbound_p0_and_p1().map_err(in_words)?;
    socket.write_all(&hello).await?;
    let mut buffer = [0; READ_BYTES];
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
