//! The RTMP machine as a publisher meets it: conversations of the clients in the field, an independent client, limits,
//! and every recorded session in `tests/corpus/sessions`.

#![expect(clippy::disallowed_methods, reason = "recordings are read from the disk")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use rml_amf0::Amf0Value as Amf;
use rml_rtmp::chunk_io::{ChunkDeserializer, ChunkSerializer};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::messages::{MessagePayload, RtmpMessage, UserControlEventType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType, StreamMetadata,
};
use rml_rtmp::time::RtmpTimestamp;
use upscope::rtmp::{Connect, Connection, Counters, Error, Event, Message, MessageKind, Publish, PublishKind, limits};

/// A connection whose questions are answered at once, and what came of it.
#[derive(Default)]
struct Server {
    connection: Connection,
    events: Vec<Event>,
    output: Vec<u8>,
    refuses_publish: bool,
}

impl Server {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let result = self.connection.handle_bytes(bytes);
        while let Some(event) = self.connection.poll_event() {
            match &event {
                Event::Connect(_) => self.connection.accept_connect(),
                Event::Publish(_) if self.refuses_publish => {
                    self.connection.reject_publish("NetStream.Publish.BadName", "no");
                }
                Event::Publish(_) => self.connection.accept_publish(),
                Event::Media(_) | Event::Unpublish | Event::Refused(_) => {}
            }
            self.events.push(event);
        }
        while let Some(bytes) = self.connection.poll_output() {
            self.output.extend(bytes);
        }
        result
    }

    fn media(&self) -> Vec<&Message> {
        self.events
            .iter()
            .filter_map(|event| if let Event::Media(message) = event { Some(message) } else { None })
            .collect()
    }

    fn publishes(&self) -> Vec<&Publish> {
        self.events
            .iter()
            .filter_map(|event| if let Event::Publish(publish) = event { Some(publish) } else { None })
            .collect()
    }

    fn unpublishes(&self) -> usize {
        self.events.iter().filter(|event| **event == Event::Unpublish).count()
    }
}

/// A scripted publisher that says what it is told, past the handshake.
struct Client {
    server: Server,
    serializer: ChunkSerializer,
    deserializer: ChunkDeserializer,
}

impl Client {
    fn new() -> Self {
        let mut client = Self {
            server: Server::default(),
            serializer: ChunkSerializer::new(),
            deserializer: ChunkDeserializer::new(),
        };
        client.server.feed(&simple_handshake()).unwrap();
        assert_eq!(client.server.output.len(), 3073);
        client.server.output.clear();
        client
    }

    fn connected(app: &str) -> Self {
        let mut client = Self::new();
        client.connect([("app", text(app)), ("tcUrl", text("rtmp://localhost/live"))]);
        client.server.events.clear();
        client
    }

    fn publishing() -> Self {
        let mut client = Self::connected("live");
        client.say("publish", 5.0, [text("cam"), text("live")], 1);
        client.server.events.clear();
        client
    }

    fn send(&mut self, type_id: u8, stream_id: u32, timestamp: u32, data: impl Into<Bytes>) -> Result<(), Error> {
        let message_stream_id = stream_id;
        let payload =
            MessagePayload { timestamp: RtmpTimestamp::new(timestamp), type_id, message_stream_id, data: data.into() };
        let bytes = self.serializer.serialize(&payload, false, false).unwrap().bytes;
        self.server.feed(&bytes)
    }

    /// Sends a command and returns the answers.
    fn say<const N: usize>(
        &mut self,
        name: &str,
        transaction: f64,
        arguments: [Amf; N],
        stream_id: u32,
    ) -> Vec<Answer> {
        let mut values = vec![text(name), Amf::Number(transaction), Amf::Null];
        values.extend(arguments);
        self.send(20, stream_id, 0, rml_amf0::serialize(&values).unwrap()).unwrap();
        self.answers()
    }

    fn connect<const N: usize>(&mut self, properties: [(&str, Amf); N]) -> Vec<Answer> {
        let properties = properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let values = vec![text("connect"), Amf::Number(1.0), Amf::Object(properties)];
        self.send(20, 0, 0, rml_amf0::serialize(&values).unwrap()).unwrap();
        self.answers()
    }

    fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut bytes = std::mem::take(&mut self.server.output);
        while let Some(payload) = self.deserializer.get_next_message(&bytes).unwrap() {
            bytes.clear();
            let message = payload.to_rtmp_message().unwrap();
            if let RtmpMessage::SetChunkSize { size } = message {
                self.deserializer.set_max_chunk_size(usize::try_from(size).unwrap()).unwrap();
            }
            answers.push(Answer { stream_id: payload.message_stream_id, message });
        }
        answers
    }
}

struct Answer {
    stream_id: u32,
    message: RtmpMessage,
}

impl Answer {
    /// `name transaction code` of a command, and the message stream it came on.
    fn summary(&self) -> String {
        match &self.message {
            RtmpMessage::Amf0Command { command_name, transaction_id, additional_arguments, .. } => {
                let value = match additional_arguments.first() {
                    Some(Amf::Object(properties)) => match (&properties["level"], &properties["code"]) {
                        (Amf::Utf8String(level), Amf::Utf8String(code)) => format!("{level} {code}"),
                        other => panic!("{other:?}"),
                    },
                    Some(Amf::Number(number)) => number.to_string(),
                    other => format!("{other:?}"),
                };
                format!("{}: {command_name} {transaction_id} {value}", self.stream_id)
            }
            RtmpMessage::UserControl { event_type, stream_id, timestamp, .. } => {
                format!("{event_type:?} {:?}", stream_id.or(timestamp.as_ref().map(|time| time.value)).unwrap())
            }
            RtmpMessage::WindowAcknowledgement { .. } => "window".into(),
            RtmpMessage::SetPeerBandwidth { .. } => "bandwidth".into(),
            RtmpMessage::SetChunkSize { .. } => "chunk size".into(),
            RtmpMessage::Acknowledgement { sequence_number } => format!("acknowledgement {sequence_number}"),
            other => format!("{other:?}"),
        }
    }
}

fn summaries(answers: &[Answer]) -> Vec<String> {
    answers.iter().map(Answer::summary).collect()
}

fn text(value: &str) -> Amf {
    Amf::Utf8String(value.into())
}

/// C0, C1 and C2 as a client sends them that waits for nothing.
fn simple_handshake() -> Vec<u8> {
    let mut bytes = vec![0xaa; 1 + 2 * 1536];
    bytes[..9].copy_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

fn started(stream_id: u32) -> [String; 2] {
    [format!("StreamBegin {stream_id}"), format!("{stream_id}: onStatus 0 status NetStream.Publish.Start")]
}

fn ended(stream_id: u32) -> [String; 2] {
    [
        "0: onFCUnpublish 0 status NetStream.Unpublish.Success".into(),
        format!("{stream_id}: onStatus 0 status NetStream.Unpublish.Success"),
    ]
}

#[test]
fn a_conversation_like_that_of_obs() {
    let mut client = Client::new();
    let answers = client.connect([
        ("app", text("live")),
        ("flashVer", text("FMLE/3.0 (compatible; FMSc/1.0)")),
        ("tcUrl", text("rtmp://localhost:1935/live")),
    ]);
    assert_eq!(
        summaries(&answers),
        ["window", "bandwidth", "chunk size", "0: _result 1 status NetConnection.Connect.Success"]
    );
    assert_eq!(summaries(&client.say("releaseStream", 2.0, [text("cam")], 0)), ["0: _result 2 Some(Undefined)"]);
    assert_eq!(
        summaries(&client.say("FCPublish", 3.0, [text("cam")], 0)),
        ["0: onFCPublish 0 status NetStream.Publish.Start"]
    );
    assert_eq!(summaries(&client.say("createStream", 4.0, [], 0)), ["0: _result 4 1"]);
    assert_eq!(summaries(&client.say("publish", 5.0, [text("cam?token=x"), text("live")], 1)), started(1));
    client.send(18, 1, 0, rml_amf0::serialize(&vec![text("@setDataFrame")]).unwrap()).unwrap();
    client.send(8, 1, 0, &[0xaf, 0][..]).unwrap();
    client.send(9, 1, 33, &[0x17, 0][..]).unwrap();
    assert_eq!(summaries(&client.say("FCUnpublish", 6.0, [text("cam?token=x")], 0)), ended(1));
    assert_eq!(summaries(&client.say("deleteStream", 7.0, [Amf::Number(1.0)], 0)), [""; 0]);

    let connect = Connect {
        app: "live".into(),
        tc_url: "rtmp://localhost:1935/live".into(),
        flash_ver: Some("FMLE/3.0 (compatible; FMSc/1.0)".into()),
        ..Connect::default()
    };
    let publish = Publish {
        app: "live".into(),
        stream_key: "cam".into(),
        query: Some("token=x".into()),
        kind: PublishKind::Live,
    };
    let media = |kind, timestamp, body: &'static [u8]| Event::Media(Message { kind, timestamp, body: body.into() });
    assert_eq!(
        client.server.events,
        [
            Event::Connect(Box::new(connect)),
            Event::Publish(publish),
            media(MessageKind::Data, 0, b"\x02\0\x0d@setDataFrame"),
            media(MessageKind::Audio, 0, &[0xaf, 0]),
            media(MessageKind::Video, 33, &[0x17, 0]),
            Event::Unpublish,
        ]
    );
    assert_eq!(client.server.connection.counters(), Counters::default());
}

#[test]
fn a_conversation_like_that_of_gstreamer() {
    let mut client = Client::connected("live");
    assert_eq!(summaries(&client.say("releaseStream", 0.0, [text("cam")], 0)), [""; 0]);
    client.say("FCPublish", 0.0, [text("cam")], 0);
    client.say("createStream", 2.0, [], 0);
    assert_eq!(summaries(&client.say("publish", 0.0, [text("cam"), text("live")], 1)), started(1));
    client.send(8, 1, 0, &b"a"[..]).unwrap();
    assert_eq!(summaries(&client.say("deleteStream", 0.0, [text("cam")], 0)), ended(1));
    assert_eq!((client.server.media().len(), client.server.unpublishes()), (1, 1));
}

#[test]
fn a_conversation_like_that_of_xiu_on_message_stream_0() {
    let mut client = Client::connected("live");
    // Its transaction 1 is that of connect, to which a second answer would start it over.
    assert_eq!(summaries(&client.say("releaseStream", 1.0, [text("cam")], 0)), [""; 0]);
    client.say("FCPublish", 1.0, [text("cam")], 0);
    client.say("createStream", 2.0, [], 0);
    assert_eq!(summaries(&client.say("publish", 3.0, [text("cam"), text("live")], 0)), started(0));
    client.send(8, 0, 0, &b"a"[..]).unwrap();
    client.send(9, 1, 0, &b"v"[..]).unwrap();
    assert_eq!(client.server.media().len(), 2);
    client.say("closeStream", 0.0, [], 0);
    assert_eq!(client.server.unpublishes(), 1);
}

#[test]
fn media_on_message_stream_0_belongs_to_the_stream_and_that_of_another_does_not() {
    let mut client = Client::publishing();
    client.send(8, 0, 0, &b"a"[..]).unwrap();
    client.send(8, 7, 0, &b"b"[..]).unwrap();
    assert_eq!(client.server.media().len(), 1);
    assert_eq!(client.server.connection.counters().media_outside_publish, 1);
}

#[test]
fn a_key_that_is_in_the_url_only_is_found_there() {
    let mut client = Client::new();
    client.connect([("app", text("live/")), ("tcUrl", text("rtmp://localhost/live/cam?x=1"))]);
    client.say("publish", 0.0, [text(""), text("record")], 1);
    let publish =
        Publish { app: "live".into(), stream_key: "cam".into(), query: Some("x=1".into()), kind: PublishKind::Record };
    assert_eq!(client.server.publishes(), [&publish]);
}

#[test]
fn an_app_may_have_a_query_and_be_missing() {
    let mut client = Client::new();
    client.connect([("app", text("live/room7?user=a")), ("tcUrl", text("rtmp://localhost/live/room7?user=a"))]);
    client.say("publish", 0.0, [text("cam"), text("append")], 1);
    let publishes = client.server.publishes();
    assert_eq!((&*publishes[0].app, publishes[0].query.as_deref()), ("live/room7", Some("user=a")));
    assert_eq!(publishes[0].kind, PublishKind::Append);

    let mut client = Client::new();
    client.connect([("tcUrl", text("rtmp://localhost/live"))]);
    client.say("publish", 0.0, [text("cam")], 1);
    assert_eq!((&*client.server.publishes()[0].app, &*client.server.publishes()[0].stream_key), ("live", "cam"));
}

#[test]
fn enhanced_rtmp_is_negotiated() {
    let mut client = Client::new();
    let info = Amf::Object(HashMap::from([("av01".to_owned(), Amf::Number(4.0))]));
    let answers = client.connect([
        ("app", text("live")),
        ("fourCcList", Amf::StrictArray(vec![text("av01"), text("hvc1")])),
        ("videoFourCcInfoMap", info),
        ("capsEx", Amf::Number(15.0)),
        ("objectEncoding", Amf::Number(3.0)),
    ]);
    let Event::Connect(connect) = &client.server.events[0] else { panic!() };
    assert_eq!(connect.four_cc_list, ["av01", "hvc1"]);
    assert_eq!(connect.video_four_cc_info_map, [("av01".to_owned(), 4.0)]);
    assert_eq!((connect.caps_ex, connect.object_encoding), (Some(15.0), 3.0));
    let RtmpMessage::Amf0Command { additional_arguments, .. } = &answers[3].message else { panic!() };
    let Amf::Object(information) = &additional_arguments[0] else { panic!() };
    assert_eq!(information["objectEncoding"], Amf::Number(3.0));
    assert_eq!(information["capsEx"], Amf::Number(14.0));
    assert_eq!(information["videoFourCcInfoMap"], Amf::Object(HashMap::from([("*".to_owned(), Amf::Number(4.0))])));
}

#[test]
fn commands_and_data_may_come_as_amf3() {
    let mut client = Client::connected("live");
    let mut publish = vec![0];
    publish.extend(rml_amf0::serialize(&vec![text("publish"), Amf::Number(5.0), Amf::Null, text("cam")]).unwrap());
    client.send(17, 1, 0, publish).unwrap();
    assert_eq!(summaries(&client.answers()), started(1));
    client.send(15, 1, 7, &[0, 2, 0, 1, b'x'][..]).unwrap();
    let message = Message { kind: MessageKind::Data, timestamp: 7, body: Bytes::from_static(&[2, 0, 1, b'x']) };
    assert_eq!(client.server.media(), [&message]);
}

#[test]
fn streams_may_follow_each_other_but_not_overlap() {
    let mut client = Client::publishing();
    let answers = client.say("publish", 6.0, [text("second"), text("live")], 2);
    assert_eq!(summaries(&answers), ["2: onStatus 0 error NetStream.Publish.BadName"]);
    client.send(9, 2, 0, &b"v"[..]).unwrap();
    // Ending the one that was refused, or one of another name, does nothing to the one that is live.
    client.say("deleteStream", 7.0, [Amf::Number(2.0)], 0);
    client.say("FCUnpublish", 7.0, [text("second")], 0);
    client.say("closeStream", 7.0, [], 2);
    assert!(matches!(client.server.events[..], [Event::Refused(_)]));
    client.server.events.clear();

    client.say("deleteStream", 8.0, [Amf::Number(1.0)], 0);
    client.send(9, 1, 0, &b"late"[..]).unwrap();
    assert_eq!(summaries(&client.say("publish", 9.0, [text("second"), text("live")], 2)), started(2));
    client.send(9, 2, 0, &b"v"[..]).unwrap();
    assert_eq!(client.server.events.len(), 3);
    assert_eq!(client.server.publishes()[0].stream_key, "second");
    assert_eq!(client.server.media()[0].body, "v");
}

#[test]
fn what_follows_a_refused_publish_is_dropped() {
    let mut client = Client::connected("live");
    client.server.refuses_publish = true;
    let answers = client.say("publish", 5.0, [text("cam"), text("live")], 1);
    assert_eq!(summaries(&answers), ["1: onStatus 0 error NetStream.Publish.BadName"]);
    client.send(9, 1, 0, &b"v"[..]).unwrap();
    client.say("deleteStream", 6.0, [Amf::Number(1.0)], 0);
    assert_eq!(client.server.events.len(), 1);
    client.server.refuses_publish = false;
    assert_eq!(summaries(&client.say("publish", 7.0, [text("cam2"), text("live")], 1)), started(1));
}

#[test]
fn a_connect_may_be_refused() {
    let mut connection = Connection::new();
    let mut client = Client::new();
    let properties = HashMap::from([("app".to_owned(), text("secret"))]);
    let connect = rml_amf0::serialize(&vec![text("connect"), Amf::Number(1.0), Amf::Object(properties)]).unwrap();
    let publish = rml_amf0::serialize(&vec![text("publish"), Amf::Number(2.0), Amf::Null, text("cam")]).unwrap();
    connection.handle_bytes(&simple_handshake()).unwrap();
    while connection.poll_output().is_some() {}
    for data in [connect, publish] {
        let payload =
            MessagePayload { timestamp: RtmpTimestamp::new(0), type_id: 20, message_stream_id: 0, data: data.into() };
        connection.handle_bytes(&client.serializer.serialize(&payload, false, false).unwrap().bytes).unwrap();
    }
    assert!(matches!(connection.poll_event(), Some(Event::Connect(_))));
    assert_eq!(connection.poll_event(), None);
    assert_eq!(connection.poll_output(), None);
    connection.reject_connect("no such app");
    assert_eq!(connection.poll_event(), None, "nobody publishes without being connected");
    client.server.output.extend(connection.poll_output().unwrap());
    assert_eq!(summaries(&client.answers()), ["0: _error 1 error NetConnection.Connect.Rejected"]);
}

#[test]
fn the_server_may_end_a_stream() {
    let mut client = Client::publishing();
    client.server.connection.end_publish("NetStream.Publish.Idle", "silent for 15 s");
    client.send(9, 1, 0, &b"v"[..]).unwrap();
    assert_eq!(summaries(&client.answers()), ["1: onStatus 0 error NetStream.Publish.Idle"]);
    client.say("deleteStream", 7.0, [Amf::Number(1.0)], 0);
    assert_eq!(client.server.events, []);
}

#[test]
fn playing_is_refused() {
    let mut client = Client::connected("live");
    assert_eq!(summaries(&client.say("play", 5.0, [text("cam")], 1)), ["1: onStatus 0 error NetStream.Play.Failed"]);
    let reason = "This server takes publishers only; watch over HLS.";
    assert_eq!(client.server.events.last(), Some(&Event::Refused(reason)), "the operator is told too");
}

#[test]
fn small_questions_are_answered_and_unknown_ones_are_not() {
    let mut client = Client::connected("live");
    assert_eq!(summaries(&client.say("_checkbw", 5.0, [], 0)), ["0: _result 5 Some(Undefined)"]);
    assert_eq!(summaries(&client.say("getStreamLength", 6.0, [text("cam")], 0)), ["0: _result 6 0"]);
    assert_eq!(summaries(&client.say("whatever", 7.0, [], 0)), [""; 0]);
    let ping = RtmpMessage::UserControl {
        event_type: UserControlEventType::PingRequest,
        stream_id: None,
        buffer_length: None,
        timestamp: Some(RtmpTimestamp::new(77)),
    };
    let payload = ping.into_message_payload(RtmpTimestamp::new(0), 0).unwrap();
    client.send(4, 0, 0, payload.data).unwrap();
    assert_eq!(summaries(&client.answers()), ["PingResponse 77"]);
    for odd in [&[0, 99, 1, 2, 3, 4][..], &[0, 6, 1], &[0]] {
        client.send(4, 0, 0, odd).unwrap();
    }
    // Types that nobody knows, and a shared object.
    for type_id in [0, 7, 16, 19, 99, 255] {
        client.send(type_id, 0, 0, &b"?"[..]).unwrap();
    }
    assert_eq!(summaries(&client.answers()), [""; 0]);
}

#[test]
fn commands_that_make_no_sense_are_passed_over() {
    let mut client = Client::publishing();
    for odd in [&[5][..], &[2, 0, 7, b'p', b'u', b'b', b'l', b'i', b's', b'h'], &[0xff], &[2, 0xff, 0xff]] {
        client.send(20, 1, 0, odd).unwrap();
    }
    client.send(8, 1, 0, &b"still here"[..]).unwrap();
    assert_eq!(client.server.media().len(), 1);
}

#[test]
fn acknowledgements_count_every_byte_since_c0() {
    let mut client = Client::publishing();
    client.send(5, 0, 0, &[0, 1, 0, 0][..]).unwrap();
    let start = client.server.connection.bytes_received();
    while client.server.connection.bytes_received() < start + 200_000 {
        client.send(9, 1, 0, vec![0; 10_000]).unwrap();
    }
    let acknowledgements = summaries(&client.answers());
    assert!((2..=3).contains(&acknowledgements.len()), "{acknowledgements:?}");
    let last = acknowledgements.last().unwrap();
    let number: u64 = last.strip_prefix("acknowledgement ").unwrap().parse().unwrap();
    assert!(number <= client.server.connection.bytes_received() && number > start + 100_000);

    // Without a wish of the peer's, our own window counts.
    let mut client = Client::publishing();
    for _ in 0..25 {
        client.send(9, 1, 0, vec![0; 100_000]).unwrap();
    }
    assert_eq!(client.answers().len(), 1);
}

#[test]
fn an_aggregate_is_split_into_its_messages() {
    let mut client = Client::publishing();
    let mut aggregate = vec![8, 0, 0, 1, 0, 0, 5, 0, 0, 0, 0, b'a', 0, 0, 0, 12];
    aggregate.extend([9, 0, 0, 1, 0, 0, 9, 0, 0, 0, 0, b'v', 0, 0, 0, 12]);
    client.send(22, 1, 1000, aggregate).unwrap();
    let media: Vec<_> = client.server.media().iter().map(|m| (m.kind, m.timestamp, &m.body[..])).collect();
    assert_eq!(media, [(MessageKind::Audio, 1000, &b"a"[..]), (MessageKind::Video, 1004, &b"v"[..])]);
}

#[test]
fn other_protocols_are_told_at_the_first_byte() {
    for (bytes, name) in [(&b"GET / HTTP/1.1\r\n"[..], "HTTP"), (&[0x16, 3, 1], "TLS"), (&[6], "RTMPE")] {
        let mut connection = Connection::new();
        let error = connection.handle_bytes(&bytes[..1]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(connection.handle_bytes(&bytes[1..]), Err(error), "the error stays");
        assert_eq!(connection.poll_output(), None);
    }
}

#[test]
fn little_is_kept_before_publishing() {
    let mut client = Client::connected("live");
    client.send(9, 1, 0, vec![0; 100_000]).unwrap();
    assert_eq!(client.server.events, [], "media before publishing is dropped");
    // A command that never ends.
    let mut header = vec![7, 0, 0, 0, 0x10, 0, 0, 20, 0, 0, 0, 0];
    header.resize(12 + 128, 0);
    client.server.feed(&header).unwrap();
    let mut sent = 0;
    let error = loop {
        sent += 128;
        assert!(sent < 2 * limits::BYTES_BEFORE_PUBLISH);
        if let Err(error) = client.server.feed(&[&[0xc7][..], &[0; 128]].concat()) {
            break error;
        }
    };
    assert!(matches!(error, Error::Limit { what: "bytes before publishing", .. }), "{error}");
}

#[test]
fn a_nested_command_ends_the_connection_and_nothing_else() {
    let mut client = Client::connected("live");
    let error = client.send(20, 0, 0, [0x0a, 0, 0, 0, 1].repeat(5000)).unwrap_err();
    assert!(matches!(error, Error::HostileCommand { .. }), "{error}");
    assert!(error.to_string().contains("nested too deep"), "{error}");
}

#[test]
fn an_independent_client_publishes() {
    let mut server = Server::default();
    let mut handshake = Handshake::new(PeerType::Client);
    server.feed(&handshake.generate_outbound_p0_and_p1().unwrap()).unwrap();
    let Ok(HandshakeProcessResult::Completed { response_bytes, remaining_bytes }) =
        handshake.process_bytes(&std::mem::take(&mut server.output))
    else {
        panic!("the handshake is not complete");
    };
    assert!(remaining_bytes.is_empty());
    server.feed(&response_bytes).unwrap();

    let (mut session, results) = ClientSession::new(ClientSessionConfig::new()).unwrap();
    let mut events = exchange(&mut session, &mut server, results);
    let request = session.request_connection("live".into()).unwrap();
    events.extend(exchange(&mut session, &mut server, vec![request]));
    let request = session.request_publishing("cam?t=1".into(), PublishRequestType::Live).unwrap();
    events.extend(exchange(&mut session, &mut server, vec![request]));
    assert_eq!(
        events
            .iter()
            .filter(|event| !matches!(event, ClientSessionEvent::AcknowledgementReceived { .. }))
            .collect::<Vec<_>>(),
        [&ClientSessionEvent::ConnectionRequestAccepted, &ClientSessionEvent::PublishRequestAccepted]
    );

    let metadata =
        session.publish_metadata(&StreamMetadata { video_width: Some(640), ..StreamMetadata::new() }).unwrap();
    exchange(&mut session, &mut server, vec![metadata]);
    let mut expected = Vec::new();
    for (timestamp, size) in (0u32..).step_by(40).zip([10, 5000, 200_000, 1, 4096, 4097, 128]) {
        let body = Bytes::from(vec![u8::try_from(timestamp % 251).unwrap(); size]);
        let video = session.publish_video_data(body.clone(), RtmpTimestamp::new(timestamp), false).unwrap();
        let audio = session.publish_audio_data(body.clone(), RtmpTimestamp::new(timestamp), true).unwrap();
        exchange(&mut session, &mut server, vec![video, audio]);
        expected.push(Message { kind: MessageKind::Video, timestamp, body: body.clone() });
        expected.push(Message { kind: MessageKind::Audio, timestamp, body });
    }
    let stop = session.stop_publishing().unwrap();
    exchange(&mut session, &mut server, stop);

    let publish =
        Publish { app: "live".into(), stream_key: "cam".into(), query: Some("t=1".into()), kind: PublishKind::Live };
    assert_eq!(server.publishes(), [&publish]);
    let media = server.media();
    assert_eq!(media[0].kind, MessageKind::Data);
    assert_eq!(media[1..], expected.iter().collect::<Vec<_>>());
    assert_eq!(server.unpublishes(), 1);
}

/// Carries bytes between the two until both are silent; returns what the client reported.
fn exchange(
    session: &mut ClientSession,
    server: &mut Server,
    results: Vec<ClientSessionResult>,
) -> Vec<ClientSessionEvent> {
    let mut events = Vec::new();
    let mut results = results;
    loop {
        let mut to_server = Vec::new();
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => to_server.extend(packet.bytes),
                ClientSessionResult::RaisedEvent(event) => events.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        server.feed(&to_server).unwrap();
        let to_client = std::mem::take(&mut server.output);
        if to_client.is_empty() {
            return events;
        }
        results = session.handle_input(&to_client).unwrap();
    }
}

/// A whole conversation: handshake, connect, publish, media, end.
fn conversation() -> Vec<u8> {
    let command = |name: &str, object: Amf, argument: Amf| {
        (20, rml_amf0::serialize(&vec![text(name), Amf::Number(2.0), object, argument]).unwrap())
    };
    let app = Amf::Object(HashMap::from([("app".to_owned(), text("live"))]));
    let mut bytes = simple_handshake();
    let mut serializer = ChunkSerializer::new();
    bytes.extend(serializer.set_max_chunk_size(200, RtmpTimestamp::new(0)).unwrap().bytes);
    let messages = [
        command("connect", app, Amf::Null),
        command("FCPublish", Amf::Null, text("cam")),
        command("createStream", Amf::Null, Amf::Null),
        command("publish", Amf::Null, text("cam")),
        (9, vec![1; 700]),
        (8, vec![2; 300]),
        (22, [[8, 0, 0, 1, 0, 0, 5, 0, 0, 0, 0, 7, 0, 0, 0, 12]; 4].concat()),
        (4, vec![0, 6, 0, 0, 0, 1]),
        command("deleteStream", Amf::Null, Amf::Number(1.0)),
    ];
    for (timestamp, (type_id, data)) in (0x00FF_FFF0..).step_by(10).zip(messages) {
        let timestamp = RtmpTimestamp::new(timestamp);
        let payload = MessagePayload { timestamp, type_id, message_stream_id: 1, data: data.into() };
        bytes.extend(serializer.serialize(&payload, false, false).unwrap().bytes);
    }
    bytes
}

proptest! {
    #[test]
    fn a_damaged_conversation_ends_in_order(
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        piece in 1usize..300,
    ) {
        let mut bytes = conversation();
        for (at, value) in damage {
            // The handshake but for the first byte is never looked at.
            let at = 3073 + at.index(bytes.len() - 3073);
            bytes[at] = value;
        }
        let mut server = Server::default();
        let result = bytes.chunks(piece).try_for_each(|piece| server.feed(piece));
        let mut at_once = Server::default();
        let result_at_once = at_once.feed(&bytes);
        if result.is_ok() && result_at_once.is_ok() {
            prop_assert_eq!(server.events, at_once.events);
        }
    }
}

#[test]
fn recorded_sessions_are_taken_however_they_are_cut() {
    for path in recordings() {
        let recording = Recording::read(&path);
        let whole = recording.bytes.concat();
        let events_cut = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut server = Server::default();
            for piece in pieces {
                server.feed(piece).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
            server.events
        };
        let as_recorded = events_cut(&mut recording.bytes.iter().map(Vec::as_slice));
        assert!(as_recorded.iter().any(|event| matches!(event, Event::Media(_))), "{}", path.display());
        assert_eq!(events_cut(&mut std::iter::once(&whole[..])), as_recorded, "{} in one", path.display());
        assert_eq!(events_cut(&mut whole.chunks(1)), as_recorded, "{} byte by byte", path.display());
        assert_eq!(events_cut(&mut whole.chunks(1009)), as_recorded, "{} in 1009s", path.display());
    }
}

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/sessions");
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("the corpus is part of the project").map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rec"));
    paths.sort();
    paths
}

/// What a client sent, in the pieces in which it came.
struct Recording {
    bytes: Vec<Vec<u8>>,
}

impl Recording {
    /// The format is described in `tests/corpus/README.md`.
    fn read(path: &Path) -> Self {
        let file = fs::read(path).unwrap();
        let rest = file.strip_prefix(b"RTMPREC1").unwrap();
        let (header, rest) = rest.split_first_chunk().unwrap();
        let mut rest = &rest[usize::try_from(u32::from_be_bytes(*header)).unwrap()..];
        let mut bytes = Vec::new();
        while let Some(([kind, _, _, _, _, _, _, _, _, length @ ..], tail)) = rest.split_first_chunk::<13>() {
            let (payload, tail) = tail.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
            if *kind == b'C' {
                bytes.push(payload.to_vec());
            }
            rest = tail;
        }
        Self { bytes }
    }
}
