//! A chat file: JSON lines, plain or gzip, one message a line, in the order they are to be sent.
//!
//! ```text
//! {"sent_at": "2026-03-01T09:00:00Z", "conversation": "...", "index": 0, "sender": "...", "text": "..."}
//! ```
//!
//! What always holds of a [`Chat`]: a conversation's messages are its indexes 0, 1, 2, ... in file order; every
//! conversation has at least two members; the first member wrote its first message.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use hashbrown::HashMap;
use serde::Deserialize;

/// Who hears conversations that only one person wrote. Several, so that none of them hears everything.
const LISTENERS: usize = 8;
/// Longest line: a text of the longest a server may allow, every character escaped.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Longest account name a server takes by default.
const NAME_BYTES_MAX: usize = 64;

/// A chat file, checked.
#[derive(Debug, Default)]
pub struct Chat {
    /// Accounts by name: the file's senders, then listeners.
    pub users: Vec<String>,
    /// In order of their first message.
    pub conversations: Vec<Conversation>,
    /// In file order.
    pub messages: Vec<Message>,
    texts: String,
}

/// A conversation of the file.
#[derive(Debug)]
pub struct Conversation {
    /// Its id in the file.
    pub id: String,
    /// Its messages in order.
    pub messages: Vec<u32>,
    /// Users, in the order they first wrote; with a single one, a listener is the second.
    pub members: Vec<u32>,
}

/// A message of the file.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// In which conversation.
    pub conversation: u32,
    /// Its place there, from 0.
    pub index: u32,
    /// Which user.
    pub sender: u32,
    text_start: usize,
    text_bytes: u32,
}

/// What is wrong with a file, and where.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// A line is not a message.
    #[error("line {line}: {what}")]
    Line {
        /// From 1.
        line: usize,
        /// Why.
        what: String,
    },
    /// There is nothing in it.
    #[error("the file has no messages")]
    Empty,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    conversation: std::borrow::Cow<'a, str>,
    index: u64,
    #[serde(borrow)]
    sender: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    text: std::borrow::Cow<'a, str>,
}

impl Chat {
    /// Reads a file; gzip is recognised by its first bytes.
    pub fn open(path: &Path) -> Result<Chat, ChatError> {
        Chat::read(File::open(path)?)
    }

    /// Reads a file's bytes.
    pub fn read(bytes: impl Read) -> Result<Chat, ChatError> {
        let mut bytes = BufReader::new(bytes);
        if bytes.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
            parse(BufReader::with_capacity(64 << 10, MultiGzDecoder::new(bytes)))
        } else {
            parse(bytes)
        }
    }

    /// A message's text.
    pub fn text(&self, message: u32) -> &str {
        let message = &self.messages[message as usize];
        &self.texts[message.text_start..message.text_start + message.text_bytes as usize]
    }

    /// The user who wrote message `index` of a conversation.
    pub fn sender(&self, conversation: u32, index: u32) -> u32 {
        self.messages[self.conversations[conversation as usize].messages[index as usize] as usize].sender
    }

    /// Messages of a conversation.
    pub fn count(&self, conversation: u32) -> u32 {
        self.conversations[conversation as usize].messages.len() as u32
    }

    /// The longest text of all, in bytes.
    pub fn text_bytes_max(&self) -> usize {
        self.messages.iter().map(|message| message.text_bytes as usize).max().unwrap_or(0)
    }

    /// How many deliveries to others the messages make.
    pub fn deliveries(&self) -> u64 {
        let others = |c: &Conversation| (c.members.len() as u64 - 1) * c.messages.len() as u64;
        self.conversations.iter().map(others).sum()
    }
}

fn parse(mut lines: impl BufRead) -> Result<Chat, ChatError> {
    let mut builder = Builder::default();
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let error = |what: String| ChatError::Line { line: number, what };
        let read = (&mut lines).take(LINE_BYTES_MAX as u64).read_line(&mut line);
        let bytes = read.map_err(|e| error(format!("cannot be read: {e}")))?;
        if bytes == 0 {
            break;
        }
        if bytes == LINE_BYTES_MAX && !line.ends_with('\n') {
            return Err(error(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        if line.trim().is_empty() {
            continue;
        }
        let parsed: Line<'_> = serde_json::from_str(&line).map_err(|e| error(format!("not a message: {e}")))?;
        builder.add(&parsed).map_err(error)?;
    }
    builder.finish()
}

#[derive(Default)]
struct Builder {
    chat: Chat,
    users: HashMap<String, u32>,
    conversations: HashMap<String, u32>,
}

impl Builder {
    fn add(&mut self, line: &Line<'_>) -> Result<(), String> {
        let id = u32::try_from(self.chat.messages.len()).map_err(|_| "more messages than can be counted".to_owned())?;
        let sender = self.user(&line.sender)?;
        let conversation = self.conversation(&line.conversation)?;
        let entry = &mut self.chat.conversations[conversation as usize];
        if line.index != entry.messages.len() as u64 {
            let (next, id) = (entry.messages.len(), &entry.id);
            return Err(format!("index {} where conversation {id} continues with {next}", line.index));
        }
        entry.messages.push(id);
        if !entry.members.contains(&sender) {
            entry.members.push(sender);
        }
        let (text_start, text_bytes) = (self.chat.texts.len(), line.text.len() as u32);
        self.chat.texts.push_str(&line.text);
        let index = line.index as u32;
        self.chat.messages.push(Message { conversation, index, sender, text_start, text_bytes });
        Ok(())
    }

    fn user(&mut self, name: &str) -> Result<u32, String> {
        if let Some(&user) = self.users.get(name) {
            return Ok(user);
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(format!("a sender's name has 1 to {NAME_BYTES_MAX} bytes, this one {}", name.len()));
        }
        let user = self.chat.users.len() as u32;
        self.chat.users.push(name.to_owned());
        self.users.insert(name.to_owned(), user);
        Ok(user)
    }

    fn conversation(&mut self, id: &str) -> Result<u32, String> {
        if let Some(&conversation) = self.conversations.get(id) {
            return Ok(conversation);
        }
        if id.is_empty() || id.len() > NAME_BYTES_MAX {
            return Err(format!("a conversation's id has 1 to {NAME_BYTES_MAX} bytes, this one {}", id.len()));
        }
        let conversation = self.chat.conversations.len() as u32;
        self.chat.conversations.push(Conversation { id: id.to_owned(), messages: Vec::new(), members: Vec::new() });
        self.conversations.insert(id.to_owned(), conversation);
        Ok(conversation)
    }

    /// Gives every conversation with one sender a listener.
    fn finish(mut self) -> Result<Chat, ChatError> {
        if self.chat.messages.is_empty() {
            return Err(ChatError::Empty);
        }
        let alone: Vec<usize> = (0..self.chat.conversations.len())
            .filter(|&conversation| self.chat.conversations[conversation].members.len() == 1)
            .collect();
        let listeners = self.add_listeners(alone.len().min(LISTENERS));
        for (turn, conversation) in alone.into_iter().enumerate() {
            self.chat.conversations[conversation].members.push(listeners[turn % listeners.len()]);
        }
        Ok(self.chat)
    }

    fn add_listeners(&mut self, count: usize) -> Vec<u32> {
        let free = (1..).map(|n| format!("listener-{n}")).filter(|name| !self.users.contains_key(name));
        let names: Vec<String> = free.take(count).collect();
        let first = self.chat.users.len() as u32;
        self.chat.users.extend(names);
        (first..self.chat.users.len() as u32).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// A chat from (conversation, sender, text) in order.
    pub fn chat(messages: &[(&str, &str, &str)]) -> Chat {
        let mut next = HashMap::<&str, u64>::new();
        let mut file = String::new();
        for (conversation, sender, text) in messages {
            let index = next.entry(conversation).or_default();
            let line = serde_json::json!({
                "sent_at": "2026-03-01T09:00:00Z", "conversation": conversation, "index": *index, "sender": sender, "text": text,
            });
            file.push_str(&format!("{line}\n"));
            *index += 1;
        }
        Chat::read(file.as_bytes()).unwrap()
    }

    fn error(file: &str) -> String {
        Chat::read(file.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn texts_are_kept_byte_for_byte_and_interleaved_conversations_apart() {
        let chat =
            chat(&[("x", "ann", "e\u{301} 👩‍👩‍👧"), ("y", "bob", ""), ("x", "bob", "\"quoted\\\"\n"), ("y", "bob", "b")]);
        assert_eq!(chat.users, ["ann", "bob", "listener-1"]);
        assert_eq!((0..4).map(|m| chat.text(m)).collect::<Vec<_>>(), ["e\u{301} 👩‍👩‍👧", "", "\"quoted\\\"\n", "b"]);
        assert_eq!(
            (&chat.conversations[0].messages[..], &chat.conversations[0].members[..]),
            (&[0, 2][..], &[0, 1][..])
        );
        assert_eq!(
            (&chat.conversations[1].messages[..], &chat.conversations[1].members[..]),
            (&[1, 3][..], &[1, 2][..])
        );
        assert_eq!((chat.deliveries(), chat.text_bytes_max()), (4, 22));
    }

    #[test]
    fn a_gzip_file_is_the_same_file() {
        let line = r#"{"sent_at":"2026-03-01T09:00:00Z","conversation":"c","index":0,"sender":"s","text":"hi"}"#;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(line.as_bytes()).unwrap();
        let chat = Chat::read(&gzip.finish().unwrap()[..]).unwrap();
        assert_eq!(chat.text(0), "hi");
    }

    #[test]
    fn errors_name_the_line() {
        let good = r#"{"conversation":"c","index":0,"sender":"s","text":"hi"}"#;
        assert!(error(&format!("{good}\n{{\n")).starts_with("line 2: not a message"));
        assert_eq!(error(&format!("{good}\n\n{good}\n")), "line 3: index 0 where conversation c continues with 1");
        let skipped = good.replace("\"index\":0", "\"index\":1");
        assert_eq!(error(&skipped), "line 1: index 1 where conversation c continues with 0");
        let nameless = good.replace("\"sender\":\"s\"", "\"sender\":\"\"");
        assert!(error(&nameless).starts_with("line 1: a sender's name"));
        assert!(error(&format!("{good}\n{}", "x".repeat(LINE_BYTES_MAX))).starts_with("line 2: longer than"));
        assert_eq!(error("\n"), "the file has no messages");
    }

    #[test]
    fn a_listener_never_takes_a_senders_name() {
        let chat = chat(&[("x", "listener-1", "alone")]);
        assert_eq!(chat.users, ["listener-1", "listener-2"]);
    }
}
