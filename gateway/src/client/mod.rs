//! The client library.
//!
//! A [`Connection`] is one socket: requests pipelined by id, answers matched, pushes as a bounded stream.

mod connection;
mod error;
mod id;
mod operations;
mod push;
mod tls;
mod types;

pub use connection::{Connection, Options, Reply};
pub use error::{Error, Refusal};
pub use id::MessageClock;
pub use operations::{Greeting, SendReply, Welcome};
pub use push::{Push, Pushes};
pub use tls::Tls;
pub use types::{
    Conversation, Group, HistoryPage, HistoryQuery, Member, MemberPage, Membership, Outgoing, Probe, Receipt, Record,
    SendOutcome, Shard, Step, Stored, Tokens, User,
};
