//! Commands (RTMP 1.0 §7.1.1, §7.2) as a publisher sends them.

use super::error::Error;
use super::message::{RawMessage, without_amf3_envelope};
use crate::amf0::{self, Limits, Value};

/// A command of the peer's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub(super) name: String,
    /// 0 where no answer is wanted, or where the peer does not count.
    pub(super) transaction_id: f64,
    /// The command object.
    pub(super) object: Value,
    /// What follows it.
    pub(super) arguments: Vec<Value>,
    /// The message stream on which it came.
    pub(super) stream_id: u32,
}

impl Command {
    /// The command in a message; `None` when there is none that can be understood. Missing values read as null.
    ///
    /// # Errors
    /// [`Error::HostileCommand`] when it passes a limit.
    pub(super) fn parse(message: RawMessage) -> Result<Option<Self>, Error> {
        let RawMessage { type_id, stream_id, body, end, .. } = message;
        let (values, error) = amf0::decode_within(&without_amf3_envelope(type_id, body), Limits::COMMAND);
        if let Some(source) = error.filter(|error| error.kind.is_limit()) {
            return Err(Error::HostileCommand { at: end, source });
        }
        let mut values = values.into_iter();
        let Some(Value::String(name)) = values.next() else { return Ok(None) };
        let transaction_id = values.next().and_then(|value| value.as_number()).unwrap_or(0.0);
        let object = values.next().unwrap_or(Value::Null);
        Ok(Some(Self { name, transaction_id, object, arguments: values.collect(), stream_id }))
    }

    /// The text argument at `index`.
    pub(super) fn text(&self, index: usize) -> Option<&str> {
        self.arguments.get(index).and_then(Value::as_str)
    }

    /// The numeric argument at `index`.
    pub(super) fn number(&self, index: usize) -> Option<f64> {
        self.arguments.get(index).and_then(Value::as_number)
    }
}

/// Splits `name?query`; an empty query is none.
pub(super) fn split_query(name: &str) -> (&str, Option<&str>) {
    match name.split_once('?') {
        Some((name, query)) => (name, Some(query).filter(|query| !query.is_empty())),
        None => (name, None),
    }
}

/// The path in a tcUrl, without slashes around it, and its query.
pub(super) fn url_path(url: &str) -> (&str, Option<&str>) {
    let (url, query) = split_query(url);
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.split_once('/').map_or("", |(_, path)| path);
    (path.trim_matches('/'), query)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::rtmp::message::type_id;

    fn parse(type_id: u8, body: &[u8]) -> Result<Option<Command>, Error> {
        Command::parse(RawMessage { type_id, timestamp: 0, stream_id: 1, body: Bytes::copy_from_slice(body), end: 99 })
    }

    #[test]
    fn a_command_may_come_in_an_amf3_envelope_and_lack_values() {
        let create = [2, 0, 1, b'x', 0, 0x40, 0x10, 0, 0, 0, 0, 0, 0, 5, 2, 0, 1, b'k'];
        let plain = parse(type_id::COMMAND_AMF0, &create).unwrap().unwrap();
        assert_eq!((plain.name.as_str(), plain.transaction_id, plain.text(0)), ("x", 4.0, Some("k")));
        let enveloped = [&[0], &create[..]].concat();
        assert_eq!(parse(type_id::COMMAND_AMF3, &enveloped).unwrap(), Some(plain));
        let bare = parse(type_id::COMMAND_AMF0, &create[..4]).unwrap().unwrap();
        assert_eq!((bare.transaction_id, bare.object, bare.arguments), (0.0, Value::Null, vec![]));
    }

    #[test]
    fn what_is_no_command_is_passed_over_but_a_bomb_is_not() {
        assert_eq!(parse(type_id::COMMAND_AMF0, &[]), Ok(None));
        assert_eq!(parse(type_id::COMMAND_AMF0, &[5]), Ok(None));
        assert_eq!(parse(type_id::COMMAND_AMF0, &[2, 0, 9, b'a']), Ok(None));
        assert!(matches!(
            parse(type_id::COMMAND_AMF0, &[0x0a, 0, 0, 0, 1].repeat(4000)),
            Err(Error::HostileCommand { at: 99, .. })
        ));
    }

    #[test]
    fn urls_and_names_are_taken_apart() {
        assert_eq!(split_query("cam?a=1&b=?"), ("cam", Some("a=1&b=?")));
        assert_eq!(split_query("cam?"), ("cam", None));
        assert_eq!(url_path("rtmp://host:1935/live/room7/?t=1"), ("live/room7", Some("t=1")));
        assert_eq!(url_path("rtmp://host"), ("", None));
        assert_eq!(url_path(""), ("", None));
    }
}
