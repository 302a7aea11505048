//! Something that was found: what it is, where it lies, and what is known of it, in an order for people.

use logstore::RecordKind;
use logstore::segment::SealedRecord;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::output::Row;
use crate::user::{kind_name, log_time, uuid};

/// A row of `show` and `find`.
pub struct Fact {
    item: &'static str,
    at: String,
    known: Vec<(&'static str, Value)>,
}

impl Fact {
    /// `item` lies at `at`.
    pub fn new(item: &'static str, at: impl Into<String>) -> Fact {
        Fact { item, at: at.into(), known: Vec::new() }
    }

    /// Something is known of it.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Fact {
        self.known.push((name, value.into()));
        self
    }

    /// Something is known of it if there is a value.
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Fact {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// A record in a segment.
    pub fn record(at: &str, record: &SealedRecord, hex: bool) -> Fact {
        let body = record.body.kept();
        let fact = Fact::new("record", at)
            .with("conversation", record.conversation.to_string())
            .with("seq_id", record.seq.0)
            .with("kind", kind_name(record.kind))
            .with("ordinal", record.ordinal.0)
            .with("sender", record.sender.to_string())
            .with("server_msg_id", record.server_msg_id.to_string())
            .with("client_msg_id", uuid(record.client_msg_id))
            .with("sent_at", log_time(record.time))
            .with("index", record.index.0);
        match body {
            None => fact.with("removed", true),
            Some(body) => fact.with_body(record.kind, body, hex),
        }
    }

    /// The body of a message: its length, the text if it is one, its bytes on request.
    pub fn with_body(self, kind: RecordKind, body: &[u8], hex: bool) -> Fact {
        let text = std::str::from_utf8(body).ok().filter(|_| kind == RecordKind::TEXT);
        let bytes = hex.then(|| self::hex(body));
        self.with("bytes", body.len()).with_some("text", text).with_some("hex", bytes)
    }

    fn words(&self) -> String {
        let word = |(name, value): &(&str, Value)| match value {
            Value::String(text) if text.is_empty() || text.contains(char::is_whitespace) => format!("{name}={text:?}"),
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        };
        self.known.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.known.len() + 2))?;
        map.serialize_entry("item", self.item)?;
        map.serialize_entry("at", &self.at)?;
        self.known.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

impl Row for Fact {
    const COLUMNS: &'static [&'static str] = &["item", "at", "what is known"];

    fn cells(&self) -> Vec<String> {
        vec![self.item.to_owned(), self.at.clone(), self.words()]
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_keeps_its_order_in_words_and_json() {
        let fact = Fact::new("record", "f").with("z", 1).with("a", "two words").with_some("none", None::<u64>);
        assert_eq!(fact.words(), "z=1 a=\"two words\"");
        assert_eq!(serde_json::to_string(&fact).unwrap(), r#"{"item":"record","at":"f","z":1,"a":"two words"}"#);
    }

    #[test]
    fn only_texts_are_shown_as_text() {
        let text = Fact::new("x", "").with_body(RecordKind::TEXT, "höre".as_bytes(), true).words();
        assert_eq!(text, "bytes=5 text=höre hex=68c3b67265");
        assert_eq!(Fact::new("x", "").with_body(RecordKind::CUSTOM, b"abc", false).words(), "bytes=3");
    }
}
