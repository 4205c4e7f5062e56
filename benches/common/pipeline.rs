//! From a connection's bytes to actions, in memory: all that upscope does for a publisher but sockets and files.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use upscope::action::{Action, StreamName};
use upscope::flv;
use upscope::hls::Window;
use upscope::media::Moment;
use upscope::packager::{Packager, Settings};
use upscope::rtmp::{Connection, Event, MessageKind};

use super::conversation::{HANDSHAKE_BYTES, connect, hello, publish};
use super::media::{Program, ROUND_MS};

/// A publisher's machines, with a writer that writes nowhere.
pub(crate) struct Pipeline {
    connection: Connection,
    packager: Packager,
    rounds: u64,
    /// Waits to be written, as in the server.
    queue: Vec<Action>,
    queued_bytes: usize,
    /// What came out.
    pub(crate) written: Written,
}

/// What came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes in media files and playlists.
    pub(crate) bytes: usize,
    /// System calls that a store would need for them at least.
    pub(crate) batches: usize,
    /// Actions.
    pub(crate) actions: usize,
}

impl Pipeline {
    /// A publisher who is let publish, and has sent what comes before media.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn publishing(program: &Program) -> anyhow::Result<Self> {
        let settings = Settings {
            segment: Duration::from_secs(2),
            window: Window::Segments(5),
            track_wait: Duration::from_secs(1),
        };
        let packager = Packager::new(StreamName::parse("live", "p0")?, moment(0), settings);
        let mut pipeline = Self {
            connection: Connection::new(),
            packager,
            rounds: 0,
            queue: Vec::new(),
            queued_bytes: 0,
            written: Written::default(),
        };
        let words = [hello(), vec![0; HANDSHAKE_BYTES], connect("live"), publish("p0"), program.opening.clone()];
        pipeline.handle_bytes(&words.concat(), 0)?;
        Ok(pipeline)
    }

    /// Takes the program's round once more, `piece_bytes` at a time, or message by message.
    ///
    /// # Errors
    /// When the pipeline refuses something.
    pub(crate) fn handle_round(&mut self, program: &Program, piece_bytes: Option<usize>) -> anyhow::Result<()> {
        let start_ms = self.rounds * ROUND_MS;
        self.rounds += 1;
        let mut from = 0;
        for message in &program.messages {
            let now_ms = start_ms + message.due_ms;
            match piece_bytes {
                None => {
                    self.handle_bytes(&program.round[from..message.end], now_ms)?;
                    from = message.end;
                }
                Some(piece_bytes) => {
                    while from + piece_bytes <= message.end {
                        self.handle_bytes(&program.round[from..from + piece_bytes], now_ms)?;
                        from += piece_bytes;
                    }
                }
            }
        }
        self.handle_bytes(&program.round[from..], start_ms + ROUND_MS)
    }

    /// As the publisher's task of the server does after each read.
    fn handle_bytes(&mut self, bytes: &[u8], now_ms: u64) -> anyhow::Result<()> {
        self.connection.handle_bytes(bytes)?;
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Connect(_) => self.connection.accept_connect(),
                Event::Publish(_) => self.connection.accept_publish(),
                Event::Media(message) => {
                    let parsed = match message.kind {
                        MessageKind::Audio => flv::parse_audio(message.timestamp, &message.body),
                        MessageKind::Video => flv::parse_video(message.timestamp, &message.body),
                        MessageKind::Data => flv::parse_data(message.timestamp, &message.body),
                    };
                    for tag in parsed? {
                        self.packager.handle_tag(tag, moment(now_ms));
                    }
                }
                Event::Unpublish | Event::Refused(_) => ensure!(false, "unpublished"),
            }
        }
        while self.connection.poll_output().is_some() {}
        if self.packager.deadline().is_some_and(|due| due <= moment(now_ms).monotonic) {
            self.packager.handle_time(moment(now_ms));
        }
        while let Some(action) = self.packager.poll_action() {
            self.write(action);
        }
        while self.packager.poll_notice().is_some() {}
        Ok(())
    }

    fn write(&mut self, action: Action) {
        let body: &[Bytes] = match &action {
            Action::Append { body, .. } | Action::Put { body, .. } => body,
            Action::Delete { .. } => &[],
        };
        let bytes: usize = body.iter().map(Bytes::len).sum();
        let is_due = !matches!(action, Action::Append { .. }) || self.queued_bytes + bytes >= WRITE_BYTES;
        self.written.bytes += bytes;
        self.written.actions += 1;
        self.queued_bytes += bytes;
        self.queue.push(action);
        if is_due {
            self.written.batches += 1;
            self.queued_bytes = 0;
            self.queue.clear();
        }
    }
}

/// What the server gathers before it writes.
const WRITE_BYTES: usize = 128 << 10;

fn moment(now_ms: u64) -> Moment {
    let monotonic = Duration::from_millis(now_ms);
    Moment { monotonic, unix: Duration::from_secs(1_800_000_000) + monotonic }
}
