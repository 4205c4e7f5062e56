//! Data messages become timed metadata: what is SCTE 35 a splice, a cue point one of HLS, all others ID3.

use crate::amf0::Value;
use crate::flv::DataTag;
use crate::id3;
use crate::media::EventBody;
use crate::scte35::Section;

/// The longest cue point in JSON that a playlist has to hold, in bytes; longer ones travel with the media.
const LONGEST_CUE_POINT_BYTES: usize = 1024;

/// What a data message is to players.
pub(super) fn event(data: &DataTag) -> EventBody {
    // Encoders have it in a property of `onCuePoint`, in one of `onUserDataEvent`, or bare in an `onSCTE35` of their own; its
    // checksum says what it is.
    if let Some(section) = data.arguments.iter().find_map(section) {
        return EventBody::Splice(section);
    }
    let mut text = String::new();
    match &data.arguments[..] {
        [only] => write_json(only, &mut text),
        several => write_array(several, &mut text),
    }
    match data.name.as_str() {
        "onCuePoint" if text.len() <= LONGEST_CUE_POINT_BYTES => EventBody::CuePoint(text),
        name => EventBody::Id3(id3::user_text(name, &text)),
    }
}

/// The first SCTE 35 section in a value or below it.
fn section(value: &Value) -> Option<Section> {
    match value {
        Value::String(text) | Value::XmlDocument(text) => Section::parse_text(text),
        Value::StrictArray(elements) => elements.iter().find_map(section),
        _ => value.properties()?.iter().find_map(|(_, value)| section(value)),
    }
}

/// Appends `value` in JSON. What JSON cannot say is null; depth and size are the decoder's.
fn write_json(value: &Value, text: &mut String) {
    match value {
        Value::Number(number) | Value::Date(number) if number.is_finite() => {
            let is_whole = number.fract() == 0.0 && number.abs() < 1e15;
            // Numbers of hundreds of digits get an exponent.
            let number = if is_whole { number.to_string() } else { serde_json::Value::from(*number).to_string() };
            text.push_str(&number);
        }
        Value::Boolean(boolean) => text.push_str(if *boolean { "true" } else { "false" }),
        Value::String(string) | Value::XmlDocument(string) => write_string(string, text),
        Value::Object(properties) | Value::EcmaArray(properties) | Value::TypedObject { properties, .. } => {
            text.push('{');
            for (position, (name, value)) in properties.iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                write_string(name, text);
                text.push(':');
                write_json(value, text);
            }
            text.push('}');
        }
        Value::StrictArray(elements) => write_array(elements, text),
        Value::Null
        | Value::Undefined
        | Value::Reference(_)
        | Value::Unsupported
        | Value::Number(_)
        | Value::Date(_) => {
            text.push_str("null");
        }
    }
}

fn write_array(elements: &[Value], text: &mut String) {
    text.push('[');
    for (position, element) in elements.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        write_json(element, text);
    }
    text.push(']');
}

fn write_string(string: &str, text: &mut String) {
    text.push_str(&serde_json::Value::from(string).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, arguments: Vec<Value>) -> EventBody {
        event(&DataTag { name: name.to_owned(), arguments })
    }

    fn object(properties: &[(&str, Value)]) -> Value {
        Value::Object(properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn what_is_said_becomes_json() {
        let odd = [
            Value::Number(f64::NAN),
            Value::Number(0.5),
            Value::Number(7.0),
            Value::Number(1e300),
            Value::Boolean(true),
            Value::Undefined,
        ];
        let argument = object(&[("text", text("a \"b\"\n\0")), ("list", Value::StrictArray(odd.to_vec()))]);
        let json = r#"{"text":"a \"b\"\n\u0000","list":[null,0.5,7,1e+300,true,null]}"#;
        assert_eq!(said("onTextData", vec![argument.clone()]), EventBody::Id3(id3::user_text("onTextData", json)));
        let several = said("onFI", vec![text("a"), text("b")]);
        assert_eq!(several, EventBody::Id3(id3::user_text("onFI", r#"["a","b"]"#)));
        assert_eq!(said("onCuePoint", vec![argument]), EventBody::CuePoint(json.to_owned()));
        let long = said("onCuePoint", vec![text(&"a".repeat(2000))]);
        assert!(matches!(long, EventBody::Id3(_)), "{long:?}");
    }

    #[test]
    fn a_splice_is_found_wherever_it_is() {
        let section = "/DAvAAAAAAAA///wFAVIAACPf+/+c2nALv4AUsz1AAAAAAAKAAhDVUVJAAABNWLbowo=";
        let parameters = object(&[("type", text("scte35")), ("data", text(section))]);
        for (name, argument) in [
            ("onCuePoint", object(&[("name", text("scte35")), ("parameters", parameters)])),
            ("onSCTE35", text(section)),
            ("onUserDataEvent", Value::StrictArray(vec![Value::Null, text(section)])),
        ] {
            let EventBody::Splice(found) = said(name, vec![argument]) else { panic!("{name}") };
            assert_eq!(found.event_id(), 0x4800_008f);
        }
    }
}
