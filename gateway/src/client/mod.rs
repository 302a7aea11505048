//! The client library.
//!
//! A [`Connection`] is one socket: requests pipelined by id, answers matched, pushes as a bounded stream.
//! A [`Session`] is a device: it reconnects, resends what was not acknowledged under the same ids, and hands on
//! every record once, in order, without a hole. The rules of the latter are two structs without IO:
//! [`Inbox`] (what is received) and [`Outbox`] (what is sent).

mod backoff;
mod connection;
mod convert;
mod error;
mod event;
mod export;
mod id;
mod inbox;
mod live_import;
mod operations;
mod outbox;
mod push;
mod session;
mod tls;
mod types;

pub use backoff::Backoff;
pub use connection::{Connection, Options, Reply};
pub use error::{Error, Refusal, TlsProblem};
pub use event::{Event, Progress};
pub use export::{ExportFile, ExportShard, Exported};
pub use id::MessageClock;
pub use inbox::{Backlog, Fill, Inbox, StillBehind};
pub use live_import::{IMPORT_BYTES_MAX, ImportLook, ImportPlace};
pub use operations::{Greeting, SendReply, Welcome};
pub use outbox::{Batch, BatchLimits, Outbox, Settled};
pub use push::{Push, Pushes};
pub use sequencer::Retention;
pub use session::{Session, SessionOptions, SessionSender, Ticket, TokenSource};
pub use tls::Tls;
pub use types::{
    CompactPlan, Conversation, Erasure, Group, HistoryPage, HistoryQuery, Member, MemberPage, Membership, Outgoing,
    Probe, Recalled, Receipt, Record, SealedShard, SendOutcome, Shard, Step, Stored, SweptShard, Tokens, User,
};
