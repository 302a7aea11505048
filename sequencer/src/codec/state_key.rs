//! The keys of sealed rows.
//!
//! ```text
//! key:  0        1
//!       +--------+-----------------------------------------------------+
//!       | table  | fields, big-endian                                  |
//!       +--------+-----------------------------------------------------+
//!         1 conversation   conversation u128
//!         2 member         conversation u128, user u64
//!         3 user           user u64
//!         4 name           the name, UTF-8
//!         5 relation       user u64, peer u64
//!         6 outbox         shard u16
//!         7 outbox page    shard u16, page u64
//!         8 inbox          shard u16
//!         9 shard          none
//!        10 trimmed        bucket u16, conversation u128
//!        11 recalled       bucket u16, conversation u128, seq u64
//!        12 erased         user u64
//!        13 place          user u64, conversation u128
//!        14 figures        none
//! ```
//!
//! What always holds: keys sort as bytes exactly as they sort as [`Key`]s, so that a conversation's members lie side by
//! side; decoding never panics, and accepts only what encoding could have written.

use bytes::{BufMut, Bytes, BytesMut};
use logstore::id::{ConversationId, SeqId, ShardId, UserId};

use super::Malformed;
use super::field::Fields;
use crate::state::Key;

const CONVERSATION: u8 = 1;
const MEMBER: u8 = 2;
const USER: u8 = 3;
const NAME: u8 = 4;
const RELATION: u8 = 5;
const OUTBOX: u8 = 6;
const OUTBOX_PAGE: u8 = 7;
const INBOX: u8 = 8;
const SHARD: u8 = 9;
const TRIMMED: u8 = 10;
const RECALLED: u8 = 11;
const ERASED: u8 = 12;
const PLACE: u8 = 13;
const FIGURES: u8 = 14;

/// Bytes of every key but a name's, at most.
const KEY_LEN: usize = 1 + 2 + 16 + 8;

impl Key {
    /// What the keys of rows begin with that are always in memory.
    pub(crate) const RESIDENT_PREFIXES: [[u8; 1]; 5] = [[OUTBOX], [OUTBOX_PAGE], [INBOX], [SHARD], [FIGURES]];

    /// The key's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(KEY_LEN);
        match self {
            Key::Conversation(id) => {
                out.put_u8(CONVERSATION);
                out.put_u128(id.0);
            }
            Key::Member(conversation, user) => {
                out.put_u8(MEMBER);
                out.put_u128(conversation.0);
                out.put_u64(user.0);
            }
            Key::User(user) => {
                out.put_u8(USER);
                out.put_u64(user.0);
            }
            Key::Name(name) => {
                out.put_u8(NAME);
                out.put_slice(name.as_bytes());
            }
            Key::Relation(user, peer) => {
                out.put_u8(RELATION);
                out.put_u64(user.0);
                out.put_u64(peer.0);
            }
            Key::Outbox(to) => {
                out.put_u8(OUTBOX);
                out.put_u16(to.0);
            }
            Key::OutboxPage(to, page) => {
                out.put_u8(OUTBOX_PAGE);
                out.put_u16(to.0);
                out.put_u64(*page);
            }
            Key::Inbox(from) => {
                out.put_u8(INBOX);
                out.put_u16(from.0);
            }
            Key::Shard => out.put_u8(SHARD),
            Key::Trimmed(bucket, conversation) => {
                out.put_u8(TRIMMED);
                out.put_u16(bucket.0);
                out.put_u128(conversation.0);
            }
            Key::Recalled(bucket, conversation, seq) => {
                out.put_u8(RECALLED);
                out.put_u16(bucket.0);
                out.put_u128(conversation.0);
                out.put_u64(seq.0);
            }
            Key::Erased(user) => {
                out.put_u8(ERASED);
                out.put_u64(user.0);
            }
            Key::Place(user, conversation) => {
                out.put_u8(PLACE);
                out.put_u64(user.0);
                out.put_u128(conversation.0);
            }
            Key::Figures => out.put_u8(FIGURES),
        }
        out.freeze()
    }

    /// Where notes for merges begin among all keys.
    pub(crate) fn first_note() -> Bytes {
        Bytes::from_static(&[TRIMMED])
    }

    /// Where they end.
    pub(crate) fn after_notes() -> Bytes {
        Bytes::from_static(&[ERASED + 1])
    }

    /// The inverse of [`Key::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Key, Malformed> {
        let mut f = Fields::new(bytes, 0);
        let key = match f.u8()? {
            CONVERSATION => Key::Conversation(conversation(&mut f)?),
            MEMBER => Key::Member(conversation(&mut f)?, user(&mut f)?),
            USER => Key::User(user(&mut f)?),
            NAME => return name(&bytes[1..]),
            RELATION => Key::Relation(user(&mut f)?, user(&mut f)?),
            OUTBOX => Key::Outbox(shard(&mut f)?),
            OUTBOX_PAGE => Key::OutboxPage(shard(&mut f)?, f.array("a page").map(u64::from_be_bytes)?),
            INBOX => Key::Inbox(shard(&mut f)?),
            SHARD => Key::Shard,
            TRIMMED => Key::trimmed(in_bucket(&mut f)?),
            RECALLED => {
                Key::recalled(in_bucket(&mut f)?, f.array("a seq").map(|bytes| SeqId(u64::from_be_bytes(bytes)))?)
            }
            ERASED => Key::Erased(user(&mut f)?),
            PLACE => Key::Place(user(&mut f)?, conversation(&mut f)?),
            FIGURES => Key::Figures,
            _ => return Err(Malformed { offset: 0, what: "a table this version knows" }),
        };
        f.finish()?;
        Ok(key)
    }
}

fn conversation(f: &mut Fields<'_>) -> Result<ConversationId, Malformed> {
    f.array("a conversation").map(|bytes| ConversationId(u128::from_be_bytes(bytes)))
}

/// A conversation behind its bucket.
fn in_bucket(f: &mut Fields<'_>) -> Result<ConversationId, Malformed> {
    let bucket = f.array("a bucket").map(u16::from_be_bytes)?;
    let conversation = conversation(f)?;
    if conversation.bucket().0 == bucket { Ok(conversation) } else { f.fail("the conversation's bucket") }
}

fn user(f: &mut Fields<'_>) -> Result<UserId, Malformed> {
    f.array("a user").map(|bytes| UserId(u64::from_be_bytes(bytes)))
}

fn shard(f: &mut Fields<'_>) -> Result<ShardId, Malformed> {
    f.array("a shard").map(|bytes| ShardId(u16::from_be_bytes(bytes)))
}

/// A name takes all the rest: nothing has to end it, and it sorts as it is.
fn name(bytes: &[u8]) -> Result<Key, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(name) => Ok(Key::Name(name.to_owned())),
        Err(bad) => Err(Malformed { offset: 1 + bad.valid_up_to(), what: "UTF-8" }),
    }
}
