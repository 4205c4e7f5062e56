//! As much AMF0 as the commands of a publishing session need.

use super::chunk::Message;
use super::session::number;

/// A value, as far as it matters here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(f64),
    Text(String),
    Object(Vec<(String, Self)>),
    /// Null, undefined, booleans, and what is passed over.
    Other,
}

/// A command: its values, each with its place in the payload.
pub(crate) struct Command {
    values: Vec<(usize, Value)>,
}

impl Command {
    /// The command in `message`, if it is one. Values that cannot be read end it early.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let payload = &message.payload;
        let mut at = match message.kind {
            20 => 0,
            // AMF3 commands begin with a zero byte, and go on in AMF0.
            17 => usize::from(payload.first() == Some(&0)),
            _ => return None,
        };
        let mut values = Vec::new();
        while let Some((value, next)) = read(payload, at) {
            values.push((at, value));
            at = next;
        }
        Some(Self { values })
    }

    pub(crate) fn name(&self) -> &str {
        self.text(0).unwrap_or_default()
    }

    pub(crate) fn transaction(&self) -> f64 {
        self.number(1).unwrap_or_default()
    }

    pub(crate) fn number(&self, index: usize) -> Option<f64> {
        match self.values.get(index) {
            Some((_, Value::Number(number))) => Some(*number),
            _ => None,
        }
    }

    /// A number that is an id.
    pub(crate) fn id(&self, index: usize) -> Option<u32> {
        self.number(index)?.to_string().parse().ok()
    }

    pub(crate) fn text(&self, index: usize) -> Option<&str> {
        match self.values.get(index) {
            Some((_, Value::Text(text))) => Some(text),
            _ => None,
        }
    }

    /// Where the value's marker stands in the payload.
    pub(crate) fn place(&self, index: usize) -> usize {
        self.values[index].0
    }

    /// `level` and `code` of an `onStatus` or `_error`.
    pub(crate) fn status(&self) -> Option<(&str, &str)> {
        self.values.iter().find_map(|(_, value)| {
            let Value::Object(fields) = value else { return None };
            let text = |name| {
                fields.iter().find_map(|(field, value)| match value {
                    Value::Text(text) if field == name => Some(text.as_str()),
                    _ => None,
                })
            };
            Some((text("level")?, text("code")?))
        })
    }
}

/// The value at `at`, and where the next begins.
fn read(bytes: &[u8], at: usize) -> Option<(Value, usize)> {
    let marker = *bytes.get(at)?;
    let at = at + 1;
    match marker {
        0 => Some((Value::Number(f64::from_be_bytes(bytes.get(at..at + 8)?.try_into().unwrap())), at + 8)),
        1 => Some((Value::Other, at + 1)),
        2 => read_text(bytes, at).map(|(text, next)| (Value::Text(text), next)),
        3 => read_fields(bytes, at),
        8 => read_fields(bytes, at + 4),
        5 | 6 => Some((Value::Other, at)),
        // AMF3 follows; null, undefined and booleans are one byte.
        0x11 if *bytes.get(at)? <= 3 => Some((Value::Other, at + 1)),
        _ => None,
    }
}

fn read_text(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let start = at + 2;
    let end = start + number(bytes.get(at..start)?);
    Some((String::from_utf8_lossy(bytes.get(start..end)?).into_owned(), end))
}

fn read_fields(bytes: &[u8], mut at: usize) -> Option<(Value, usize)> {
    let mut fields = Vec::new();
    loop {
        let (name, next) = read_text(bytes, at)?;
        if name.is_empty() && bytes.get(next) == Some(&9) {
            return Some((Value::Object(fields), next + 1));
        }
        let (value, next) = read(bytes, next)?;
        fields.push((name, value));
        at = next;
    }
}
