//! The conversation (RTMP 1.0 §7.2): what a publisher's commands mean, and what comes out of it.
//!
//! ```text
//! connect ─→ Event::Connect ─accept→ createStream … publish ─→ Event::Publish ─accept→ media ─→ Event::Media …
//!                │                                    ↑             │                    │
//!             reject                                  └──reject─────┘   FCUnpublish,     ↓
//!                                                     └──────────────── deleteStream ── Event::Unpublish
//! ```
//!
//! While an event waits for its answer, later commands and media wait in line behind it, so clients may send everything
//! at once. What clients do in the field rules over the specification: commands are taken on any message stream,
//! transaction ids may repeat, media may come on message stream 0.

use std::collections::VecDeque;

use bytes::Buf;
use rml_amf0::Amf0Value;

use super::command::{Command, split_query, url_path};
use super::error::Error;
use super::limits;
use super::message::{Message, RawMessage, split_aggregate, type_id};
use super::reply::{Replies, WINDOW_BYTES};
use crate::amf0::Value;

/// What a publisher did.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It wants to connect to an app; answer with `accept_connect` or `reject_connect`.
    Connect(Box<Connect>),
    /// It wants to publish; answer with `accept_publish` or `reject_publish`.
    Publish(Publish),
    /// It sent media for the stream that it was let publish.
    Media(Message),
    /// It ended the stream that it was let publish.
    Unpublish,
    /// It wanted something that no server of ours gives, and has been told so: in these words.
    Refused(&'static str),
}

/// What came with `connect` (§7.2.1.1; Enhanced RTMP v2 "Enhancing `NetConnection` connect Command").
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Connect {
    /// The application, without slashes around it and without query; may have an instance path (`live/room7`).
    pub app: String,
    /// What followed `?` in the application or, if nothing did, in the URL.
    pub query: Option<String>,
    /// The URL to which the client believes to connect.
    pub tc_url: String,
    /// The client's name and version, if it tells.
    pub flash_ver: Option<String>,
    /// 0 for AMF0, 3 for AMF3.
    pub object_encoding: f64,
    /// Enhanced RTMP v1: the codecs it can send, as `FourCC`s or `*`.
    pub four_cc_list: Vec<String>,
    /// Enhanced RTMP v2: video codec (or `*`) and `FourCcInfoMask`.
    pub video_four_cc_info_map: Vec<(String, f64)>,
    /// Enhanced RTMP v2: audio codec (or `*`) and `FourCcInfoMask`.
    pub audio_four_cc_info_map: Vec<(String, f64)>,
    /// Enhanced RTMP v2: `CapsExMask`.
    pub caps_ex: Option<f64>,
}

/// What came with `publish` (§7.2.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The application from `connect`.
    pub app: String,
    /// The stream's name without query, as sent: not checked, may be empty.
    pub stream_key: String,
    /// What followed `?` in the name or, if nothing did, in the application.
    pub query: Option<String>,
    /// What the client asks to be done with earlier recordings.
    pub kind: PublishKind,
}

/// What a publisher asks to be done with earlier recordings of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PublishKind {
    /// Nothing.
    #[default]
    Live,
    /// To replace them.
    Record,
    /// To go on behind them.
    Append,
}

/// The server's side of a conversation.
pub(super) struct Session {
    pub(super) replies: Replies,
    events: VecDeque<Event>,
    application: Option<Application>,
    /// The event that waits for an answer.
    question: Option<Question>,
    /// What came after it.
    waiting: VecDeque<RawMessage>,
    waiting_bytes: usize,
    live: Option<Live>,
    has_published: bool,
    streams_created: u32,
    /// §5.4.4: how often the peer wants to be acknowledged, in bytes.
    window_bytes: u32,
    /// Media messages that belonged to no accepted publish.
    pub(super) media_outside_publish: u64,
    /// Messages without a body, of an unknown type, or with a command that is unknown or unreadable.
    pub(super) ignored: u64,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            replies: Replies::new(),
            events: VecDeque::new(),
            application: None,
            question: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            live: None,
            has_published: false,
            streams_created: 0,
            window_bytes: WINDOW_BYTES,
            media_outside_publish: 0,
            ignored: 0,
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if self.events.is_empty() && self.events.capacity() > KEPT_EVENTS {
            self.events = VecDeque::new();
        }
        event
    }

    /// A publish was accepted at some time.
    pub(super) fn has_published(&self) -> bool {
        self.has_published
    }

    /// Bytes that wait for an answer of ours.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes after which the peer is to be acknowledged.
    pub(super) fn window_bytes(&self) -> u32 {
        self.window_bytes
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// When a command is hostile.
    pub(super) fn handle_message(&mut self, message: RawMessage) -> Result<(), Error> {
        match message.type_id {
            type_id::ACKNOWLEDGEMENT | type_id::SET_PEER_BANDWIDTH => {}
            type_id::WINDOW_ACKNOWLEDGEMENT_SIZE => self.set_window(&message),
            type_id::USER_CONTROL => self.user_control(&message),
            _ if self.question.is_some() => {
                self.waiting_bytes += cost(&message);
                self.waiting.push_back(message);
            }
            _ => self.act(message)?,
        }
        Ok(())
    }

    /// §7.2.1.1. Does nothing when no `Connect` waits.
    pub(super) fn accept_connect(&mut self) -> Result<(), Error> {
        if let Some(Question::Connect(question)) = self.question.take_if(|q| matches!(q, Question::Connect(_))) {
            self.replies.begin();
            self.replies.connected(question.transaction_id, question.object_encoding, question.is_enhanced);
            self.application = Some(question.application);
        }
        self.resume()
    }

    pub(super) fn reject_connect(&mut self, description: &str) -> Result<(), Error> {
        if let Some(Question::Connect(question)) = self.question.take_if(|q| matches!(q, Question::Connect(_))) {
            self.replies.error(question.transaction_id, "NetConnection.Connect.Rejected", description);
        }
        self.resume()
    }

    /// §7.2.2.6. Does nothing when no `Publish` waits.
    pub(super) fn accept_publish(&mut self) -> Result<(), Error> {
        if let Some(Question::Publish(live)) = self.question.take_if(|q| matches!(q, Question::Publish(_))) {
            self.replies.stream_begin(live.stream_id);
            self.replies.status(live.stream_id, "status", "NetStream.Publish.Start", "Publishing.");
            self.live = Some(live);
            self.has_published = true;
        }
        self.resume()
    }

    pub(super) fn reject_publish(&mut self, code: &str, description: &str) -> Result<(), Error> {
        if let Some(Question::Publish(refused)) = self.question.take_if(|q| matches!(q, Question::Publish(_))) {
            self.replies.status(refused.stream_id, "error", code, description);
        }
        self.resume()
    }

    /// Tells the publisher of the live stream what is not done with it.
    pub(super) fn warn_publish(&mut self, code: &str, description: &str) {
        if let Some(live) = &self.live {
            self.replies.status(live.stream_id, "warning", code, description);
        }
    }

    /// Ends the live stream from our side; no `Unpublish` follows.
    pub(super) fn end_publish(&mut self, code: &str, description: &str) {
        if let Some(live) = self.live.take() {
            let level = if code.ends_with(".Success") { "status" } else { "error" };
            self.replies.status(live.stream_id, level, code, description);
        }
    }

    /// Takes what waited in line, up to the next question.
    fn resume(&mut self) -> Result<(), Error> {
        while self.question.is_none() {
            let Some(message) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= cost(&message);
            self.act(message)?;
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Ok(())
    }

    fn act(&mut self, message: RawMessage) -> Result<(), Error> {
        match message.type_id {
            type_id::AUDIO | type_id::VIDEO | type_id::DATA_AMF0 | type_id::DATA_AMF3 => self.media(message),
            type_id::AGGREGATE => {
                let (what, limit) = ("messages in an aggregate", limits::AGGREGATED_MESSAGES);
                let at = message.end;
                for (index, message) in split_aggregate(message).enumerate() {
                    if index == limit {
                        return Err(Error::Limit { at, what, limit: limit as u64 });
                    }
                    self.media(message);
                }
            }
            type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => match Command::parse(message)? {
                Some(command) => self.command(&command),
                None => self.ignored += 1,
            },
            _ => self.ignored += 1,
        }
        Ok(())
    }

    fn media(&mut self, message: RawMessage) {
        // Publishing on one stream and sending on stream 0, or the other way round, is found in the field.
        let is_ours = |live: &Live| [live.stream_id, 0].contains(&message.stream_id) || live.stream_id == 0;
        if !self.live.as_ref().is_some_and(is_ours) {
            self.media_outside_publish += 1;
            return;
        }
        match message.into_media() {
            Some(media) if !media.body.is_empty() => self.events.push_back(Event::Media(media)),
            _ => self.ignored += 1,
        }
    }

    fn command(&mut self, command: &Command) {
        let Some(application) = &self.application else {
            match command.name.as_str() {
                "connect" => self.connect(command),
                _ => self.ignored += 1,
            }
            return;
        };
        match command.name.as_str() {
            "createStream" => self.create_stream(command),
            "publish" => {
                let publish = publish(application, command);
                self.publish(command, publish);
            }
            "FCPublish" => {
                let stream = command.text(0).unwrap_or_default();
                self.replies.on_fc("onFCPublish", "NetStream.Publish.Start", stream);
            }
            "FCUnpublish" => {
                let name = split_query(command.text(0).unwrap_or_default()).0;
                if self.live.as_ref().is_some_and(|live| live.stream_key == name) {
                    self.unpublish();
                }
            }
            "deleteStream" => {
                // GStreamer gives the name instead of the id. Only another stream's id is not meant for this one.
                let id = command.number(0);
                let is_ours = |live: &Live| id.is_none_or(|id| id == f64::from(live.stream_id) || live.stream_id == 0);
                if self.live.as_ref().is_some_and(is_ours) {
                    self.unpublish();
                }
            }
            "closeStream" => {
                if self.live.as_ref().is_some_and(|live| [live.stream_id, 0].contains(&command.stream_id)) {
                    self.unpublish();
                }
            }
            // Transaction 1 is that of `connect`; an answer to xiu's second and third would look like that to it.
            "releaseStream" | "_checkbw" if command.transaction_id > 1.0 => {
                self.replies.result(command.transaction_id, Amf0Value::Undefined);
            }
            "getStreamLength" => self.replies.result(command.transaction_id, Amf0Value::Number(0.0)),
            "play" | "play2" => {
                let reason = "This server takes publishers only; watch over HLS.";
                self.refuse(command, "NetStream.Play.Failed", reason);
            }
            "connect" => {
                let reason = "This connection is connected already.";
                self.replies.error(command.transaction_id, "NetConnection.Connect.Rejected", reason);
                self.events.push_back(Event::Refused(reason));
            }
            _ => self.ignored += 1,
        }
    }

    fn connect(&mut self, command: &Command) {
        let connect = connect(&command.object);
        self.question = Some(Question::Connect(ConnectQuestion {
            transaction_id: command.transaction_id,
            object_encoding: connect.object_encoding,
            is_enhanced: connect.caps_ex.is_some()
                || !connect.four_cc_list.is_empty()
                || !connect.video_four_cc_info_map.is_empty(),
            application: Application {
                app: connect.app.clone(),
                query: connect.query.clone(),
                key_in_url: key_in_url(&connect).map(str::to_owned),
            },
        }));
        self.events.push_back(Event::Connect(Box::new(connect)));
    }

    fn create_stream(&mut self, command: &Command) {
        self.streams_created = self.streams_created.saturating_add(1);
        self.replies.result(command.transaction_id, Amf0Value::Number(f64::from(self.streams_created)));
    }

    fn publish(&mut self, command: &Command, publish: Publish) {
        if self.live.is_some() {
            let reason = "This connection is publishing already: one stream a connection.";
            self.refuse(command, "NetStream.Publish.BadName", reason);
            return;
        }
        self.question =
            Some(Question::Publish(Live { stream_id: command.stream_id, stream_key: publish.stream_key.clone() }));
        self.events.push_back(Event::Publish(publish));
    }

    fn refuse(&mut self, command: &Command, code: &str, reason: &'static str) {
        self.replies.status(command.stream_id, "error", code, reason);
        self.events.push_back(Event::Refused(reason));
    }

    fn unpublish(&mut self) {
        if let Some(live) = self.live.take() {
            self.replies.on_fc("onFCUnpublish", "NetStream.Unpublish.Success", &live.stream_key);
            self.replies.status(live.stream_id, "status", "NetStream.Unpublish.Success", "Stream ended.");
            self.events.push_back(Event::Unpublish);
        }
    }

    /// §5.4.4. What we announced is kept to as well: to acknowledge early hurts nobody.
    fn set_window(&mut self, message: &RawMessage) {
        match (&message.body[..]).try_get_u32() {
            Ok(0) | Err(_) => self.ignored += 1,
            Ok(window_bytes) => self.window_bytes = window_bytes.min(WINDOW_BYTES),
        }
    }

    /// §7.1.7. Events other than pings need no answer.
    fn user_control(&mut self, message: &RawMessage) {
        let mut body = &message.body[..];
        if body.try_get_u16() != Ok(PING_REQUEST) {
            return;
        }
        match body.try_get_u32() {
            Ok(timestamp) => self.replies.pong(timestamp),
            Err(_) => self.ignored += 1,
        }
    }
}

/// The event that waits, and what its answer needs.
enum Question {
    Connect(ConnectQuestion),
    Publish(Live),
}

struct ConnectQuestion {
    transaction_id: f64,
    object_encoding: f64,
    is_enhanced: bool,
    application: Application,
}

/// What publishes are resolved against.
struct Application {
    app: String,
    query: Option<String>,
    key_in_url: Option<String>,
}

/// The stream that is being published.
struct Live {
    stream_id: u32,
    stream_key: String,
}

fn connect(object: &Value) -> Connect {
    let text = |name| object.property(name).and_then(Value::as_str);
    let tc_url = text("tcUrl").unwrap_or_default();
    let (url_path, url_query) = url_path(tc_url);
    let (app, query) = split_query(text("app").unwrap_or(url_path));
    Connect {
        app: app.trim_matches('/').to_owned(),
        query: query.or(url_query).map(str::to_owned),
        tc_url: tc_url.to_owned(),
        flash_ver: text("flashVer").map(str::to_owned),
        object_encoding: object.property("objectEncoding").and_then(Value::as_number).unwrap_or(0.0),
        four_cc_list: four_cc_list(object.property("fourCcList")),
        video_four_cc_info_map: info_map(object.property("videoFourCcInfoMap")),
        audio_four_cc_info_map: info_map(object.property("audioFourCcInfoMap")),
        caps_ex: object.property("capsEx").and_then(Value::as_number),
    }
}

/// A strict array by the specification; an object with numbered properties is taken too.
fn four_cc_list(value: Option<&Value>) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Some(Value::StrictArray(elements)) => elements.iter().filter_map(text).collect(),
        Some(other) => other.properties().unwrap_or_default().iter().filter_map(|(_, value)| text(value)).collect(),
        None => Vec::new(),
    }
}

fn info_map(value: Option<&Value>) -> Vec<(String, f64)> {
    let entries = value.and_then(Value::properties).unwrap_or_default();
    entries.iter().filter_map(|(codec, mask)| Some((codec.clone(), mask.as_number()?))).collect()
}

/// What follows the application in the URL: some clients have the key there only.
fn key_in_url(connect: &Connect) -> Option<&str> {
    let key = url_path(&connect.tc_url).0.strip_prefix(connect.app.as_str())?.strip_prefix('/')?;
    Some(key).filter(|key| !key.is_empty())
}

fn publish(application: &Application, command: &Command) -> Publish {
    let (name, query) = split_query(command.text(0).unwrap_or_default());
    let name = if name.is_empty() { application.key_in_url.as_deref().unwrap_or_default() } else { name };
    Publish {
        app: application.app.clone(),
        stream_key: name.to_owned(),
        query: query.or(application.query.as_deref()).map(str::to_owned),
        kind: match command.text(1) {
            Some("record") => PublishKind::Record,
            Some("append") => PublishKind::Append,
            _ => PublishKind::Live,
        },
    }
}

/// What a waiting message takes.
fn cost(message: &RawMessage) -> usize {
    size_of::<RawMessage>() + message.body.len()
}

/// §7.1.7.
const PING_REQUEST: u16 = 6;
/// Room for events that a drained queue may keep.
const KEPT_EVENTS: usize = 256;
