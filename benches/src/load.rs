//! Messages of 1:1 conversations, each a function of its number.
//!
//! What always holds: message `n` goes to the same conversation with the same text in every run; only the time in its id is the
//! moment's, so that a message that was refused can be made again.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConnectionId, ConversationId, TimeMs, UserId};
use sequencer::Send;

/// Bodies to draw from.
pub struct Texts(Vec<(Bytes, logstore::id::BodyHash)>);

impl Texts {
    /// Those of the file that `SKEIN_CHAT` names, or of the sample in this repository.
    pub fn of_chat() -> Texts {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/sample/sample.jsonl");
        let named = std::env::var_os("SKEIN_CHAT").map(std::path::PathBuf::from);
        let path = named.as_deref().unwrap_or(&sample);
        let file = std::fs::File::open(path).expect("the chat file can be read");
        let source: Box<dyn Read> = match path.extension() {
            Some(end) if end == "gz" => Box::new(flate2::read::GzDecoder::new(file)),
            _ => Box::new(file),
        };
        let text = |line: std::io::Result<String>| {
            let value: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            Bytes::from(value["text"].as_str().unwrap_or_default().to_owned())
        };
        Texts::from(BufReader::new(source).lines().map(text).collect::<Vec<_>>())
    }

    /// One of so many bytes.
    pub fn of_bytes(bytes: usize) -> Texts {
        Texts::from(vec![Bytes::from(vec![b'x'; bytes])])
    }

    fn from(texts: Vec<Bytes>) -> Texts {
        assert!(!texts.is_empty(), "there is a text to send");
        Texts(texts.into_iter().map(|text| (text.clone(), Send::hash_of(RecordKind::TEXT, &text))).collect())
    }
}

/// A load: conversations chosen evenly by chance, texts too.
pub struct Load {
    conversations: u64,
    texts: Texts,
}

impl Load {
    /// Over so many conversations.
    pub fn new(conversations: u64, texts: Texts) -> Load {
        Load { conversations, texts }
    }

    /// How many conversations.
    pub fn conversations(&self) -> u64 {
        self.conversations
    }

    /// The `n`th conversation and its two users.
    pub fn conversation(n: u64) -> (ConversationId, [UserId; 2]) {
        let users = [UserId(2 * n + 1), UserId(2 * n + 2)];
        (ConversationId::direct(users[0], users[1]), users)
    }

    /// Where message `n` goes.
    pub fn target(&self, n: u64) -> ConversationId {
        Load::conversation(mixed(n) % self.conversations).0
    }

    /// Message `n`, its id made now.
    pub fn message(&self, n: u64, now: TimeMs) -> Send {
        let chance = mixed(n);
        let (conversation, users) = Load::conversation(chance % self.conversations);
        let more = mixed(chance);
        let (body, body_hash) = &self.texts.0[(more >> 1) as usize % self.texts.0.len()];
        // A UUIDv7: 12 bits of chance below the version, 62 below the variant; the number alone makes it unique.
        let random = u128::from(chance & 0xFFF) << 64 | u128::from(n & ((1 << 62) - 1));
        Send {
            conversation,
            sender: users[(more & 1) as usize],
            origin: ConnectionId(0),
            client_msg_id: ClientMsgId(u128::from(now.0) << 80 | 7 << 76 | 2 << 62 | random),
            kind: RecordKind::TEXT,
            body_hash: *body_hash,
            checked_upto: 0,
            body: body.clone(),
        }
    }
}

/// SplitMix64: the same chances in every run.
fn mixed(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
