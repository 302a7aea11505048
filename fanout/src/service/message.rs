//! Sending and reading messages.

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConnectionId, ConversationId, SeqId, UserId};
use sequencer::{Record, Stored};

use crate::Fault;

/// A message as a client hands it over, its place in the pipeline counted by the gateway.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub conversation: ConversationId,
    /// Its id.
    pub client_msg_id: ClientMsgId,
    /// What it is.
    pub kind: RecordKind,
    /// Its body.
    pub body: Bytes,
    /// The pipeline's epoch.
    pub epoch: u32,
    /// Place in (connection, epoch, conversation), from 1.
    pub n: u64,
}

/// What became of one message.
pub type SendOutcome = Result<Stored, Fault>;

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// First wanted (newest first: last wanted, 0: the head).
    pub from: SeqId,
    /// The other end, inclusive; 0: as far as there is.
    pub to: SeqId,
    /// Most records.
    pub limit: usize,
    /// Descending.
    pub newest_first: bool,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// In the order asked for.
    pub records: Vec<Record>,
    /// The newest record the reader may see.
    pub head: SeqId,
    /// Where the next page begins; `None`: complete.
    pub next_from: Option<SeqId>,
}

/// The rules of messages.
pub struct Messages {}

impl Messages {
    /// What is wrong with a message whatever the log says, or `None`. Asked before its place in the pipeline is
    /// counted: a message refused here takes no `n`, so it stops nothing that follows.
    pub fn check(&self, sender: UserId, message: &Outgoing) -> Option<Fault> {
        let _ = (sender, message);
        unimplemented!()
    }

    /// What is wrong with this many messages in one request, or `None`; asked before any of them is counted.
    pub fn check_count(&self, messages: usize) -> Option<Fault> {
        let _ = messages;
        unimplemented!()
    }

    /// Sends messages of one request, each to its shard; messages of one conversation keep their order, refusals included.
    /// Each has passed [`Messages::check`].
    ///
    /// `done` is called once, when every message is durable or refused, with one outcome each, in order; on a worker
    /// of the sequencer, so it must not block. Nothing is allocated per message beyond what the request brought.
    pub fn send(
        &self,
        sender: UserId,
        origin: ConnectionId,
        messages: Vec<Outgoing>,
        done: Box<dyn FnOnce(Vec<SendOutcome>) + Send>,
    ) {
        let _ = (sender, origin, messages, done);
        unimplemented!()
    }

    /// A page of history, clipped to what the reader may see.
    pub async fn history(&self, reader: UserId, query: HistoryQuery) -> Result<HistoryPage, Fault> {
        let _ = (reader, query);
        unimplemented!()
    }
}
