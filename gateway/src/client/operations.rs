//! Every operation of the protocol as a method.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use logstore::id::{ClientMsgId, ConnectionId, ConversationId, SeqId, ShardId, TimeMs, UserId};

use super::connection::{Connection, Reply};
use super::convert::{all, conversation_bytes, refusals, send_outcomes};
use super::{
    CompactPlan, Conversation, Erasure, Error, Group, HistoryPage, HistoryQuery, MemberPage, MessageClock, Outgoing,
    Probe, Refusal, SealedShard, SendOutcome, Shard, SweptShard, Tokens, User,
};
use crate::wire::operation::Operation;
use crate::wire::{frame, proto};
use sequencer::Retention;

/// What this side calls itself.
const CLIENT_NAME: &str = concat!("skein ", env!("CARGO_PKG_VERSION"));

/// Who greets, and what for.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    /// Access token.
    pub token: String,
    /// Stable per installation.
    pub device: String,
    /// How far this device has been told; `None`: nothing yet.
    pub cursor: Option<proto::Cursor>,
    /// Whether pushes are wanted.
    pub attach: bool,
    /// Whether missed records are wanted too, or only rows.
    pub bodies: bool,
}

/// What the server answers a greeting with.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// Who this is.
    pub user: User,
    /// The connection's number.
    pub connection: ConnectionId,
    /// The cluster's history.
    pub history: Bytes,
    /// `caught_up` arrives for each of these.
    pub slots: u32,
    /// Messages in one send.
    pub batch_messages_max: usize,
    /// Bytes of the largest frame, header included.
    pub frame_bytes_max: usize,
    /// Bytes of the longest text.
    pub text_bytes_max: usize,
    /// For ids of messages.
    pub clock: MessageClock,
}

impl Connection {
    /// Says who is here; the first request of a connection that acts for a user.
    pub async fn hello(&self, greeting: Greeting) -> Result<Welcome, Error> {
        let body = proto::Hello {
            version: u32::from(frame::VERSION),
            capabilities: Vec::new(),
            token: greeting.token,
            device: greeting.device,
            cursor: greeting.cursor,
            client: CLIENT_NAME.into(),
            attach: greeting.attach,
            bodies: greeting.bodies,
        };
        let reply: proto::HelloReply = self.call(Operation::Hello, &body).await?;
        self.adopt(&reply);
        Ok(Welcome {
            user: User { id: UserId(reply.user), name: reply.name },
            connection: ConnectionId(reply.connection),
            history: reply.history,
            slots: reply.slots,
            batch_messages_max: reply.batch_messages_max.max(1) as usize,
            frame_bytes_max: reply.frame_bytes_max as usize,
            text_bytes_max: reply.text_bytes_max as usize,
            clock: MessageClock::new(TimeMs(reply.server_time_ms), SystemTime::now()),
        })
    }

    /// A round trip; answers the server's time.
    pub async fn ping(&self) -> Result<TimeMs, Error> {
        let pong: proto::Pong = self.call(Operation::Ping, &proto::Ping { echo: 1 }).await?;
        Ok(TimeMs(pong.server_time_ms))
    }

    // ---- accounts ---------------------------------------------------------------------------------

    /// Creates an account and signs in. Repeated under the same `request` it is the same registration.
    pub async fn register(&self, name: &str, password: &str, request: ClientMsgId) -> Result<Tokens, Error> {
        let body = proto::Register { name: name.into(), password: password.into(), request_id: request_bytes(request) };
        Ok(self.call::<proto::Tokens>(Operation::Register, &body).await?.into())
    }

    /// Signs in.
    pub async fn login(&self, name: &str, password: &str) -> Result<Tokens, Error> {
        let body = proto::Login { name: name.into(), password: password.into() };
        Ok(self.call::<proto::Tokens>(Operation::Login, &body).await?.into())
    }

    /// Exchanges a refresh token for the next pair.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens, Error> {
        let body = proto::Refresh { refresh_token: refresh_token.into() };
        Ok(self.call::<proto::Tokens>(Operation::Refresh, &body).await?.into())
    }

    /// Accounts by name and by number; unknown ones are absent.
    pub async fn find_users(&self, names: &[String], ids: &[UserId]) -> Result<Vec<User>, Error> {
        let body = proto::FindUsers { names: names.to_vec(), ids: numbers(ids) };
        let found: proto::FoundUsers = self.call(Operation::FindUsers, &body).await?;
        Ok(found.users.into_iter().map(User::from).collect())
    }

    // ---- messages ---------------------------------------------------------------------------------

    /// Sends a batch and awaits its durable ack: one outcome a message, in order.
    pub async fn send(&self, epoch: u32, messages: &[Outgoing]) -> Result<Vec<SendOutcome>, Error> {
        self.begin_send(epoch, messages, false).await?.wait().await
    }

    /// Sends a batch; it has its place in the pipeline when this returns.
    pub async fn begin_send(&self, epoch: u32, messages: &[Outgoing], accepted: bool) -> Result<SendReply, Error> {
        let body =
            proto::Send { epoch, messages: messages.iter().map(Outgoing::to_wire).collect(), want_accepted: accepted };
        Ok(SendReply { reply: self.begin(Operation::Send, &body).await?, messages: messages.len() })
    }

    /// A page of history.
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, Error> {
        let body = proto::History {
            conversation: conversation_bytes(query.conversation),
            from_seq: query.from.0,
            to_seq: query.to.0,
            limit: query.limit,
            newest_first: query.newest_first,
        };
        self.call::<proto::HistoryReply>(Operation::History, &body).await?.try_into()
    }

    /// Recalls a message; as administrator: anybody's. Answers the record that says so, 0 if its content was gone already.
    pub async fn recall(&self, conversation: ConversationId, seq: SeqId, request: ClientMsgId) -> Result<SeqId, Error> {
        let body = proto::Recall {
            conversation: conversation_bytes(conversation),
            seq_id: seq.0,
            request_id: request_bytes(request),
        };
        Ok(SeqId(self.call::<proto::RecallReply>(Operation::Recall, &body).await?.seq_id))
    }

    /// Says how far this device has received; answers (position, why) for each that was refused.
    pub async fn delivered(&self, upto: &[(ConversationId, SeqId)]) -> Result<Vec<(usize, Refusal)>, Error> {
        self.move_cursors(Operation::Delivered, upto).await
    }

    /// Says how far the user has read; answers (position, why) for each that was refused.
    pub async fn read(&self, upto: &[(ConversationId, SeqId)]) -> Result<Vec<(usize, Refusal)>, Error> {
        self.move_cursors(Operation::Read, upto).await
    }

    async fn move_cursors(
        &self,
        operation: Operation,
        upto: &[(ConversationId, SeqId)],
    ) -> Result<Vec<(usize, Refusal)>, Error> {
        let to_move = |&(conversation, seq): &(ConversationId, SeqId)| proto::CursorMove {
            conversation: conversation_bytes(conversation),
            seq_id: seq.0,
        };
        let body = proto::Cursors { moves: upto.iter().map(to_move).collect() };
        Ok(refusals(self.call::<proto::CursorsReply>(operation, &body).await?.refusals))
    }

    // ---- conversations ----------------------------------------------------------------------------

    /// The 1:1 with a user, opened if it is new.
    pub async fn open_direct(&self, user: UserId) -> Result<Conversation, Error> {
        let body = proto::OpenDirect { user: user.0, name: String::new() };
        self.call::<proto::Conversation>(Operation::OpenDirect, &body).await?.try_into()
    }

    /// The 1:1 with the user of that name, opened if it is new.
    pub async fn open_direct_named(&self, name: &str) -> Result<Conversation, Error> {
        let body = proto::OpenDirect { user: 0, name: name.into() };
        self.call::<proto::Conversation>(Operation::OpenDirect, &body).await?.try_into()
    }

    /// A page of the user's conversations, and where the next begins (empty: complete).
    pub async fn list_conversations(
        &self,
        limit: u32,
        after: Bytes,
        with_left: bool,
    ) -> Result<(Vec<Conversation>, Bytes), Error> {
        let body = proto::ListConversations { limit, after, with_left };
        let list: proto::ConversationList = self.call(Operation::ListConversations, &body).await?;
        Ok((all(list.conversations)?, list.next_after))
    }

    /// Creates a group. Repeated under the same `request` it is the same group.
    pub async fn create_group(&self, name: &str, members: &[UserId], request: ClientMsgId) -> Result<Group, Error> {
        let body =
            proto::CreateGroup { name: name.into(), members: numbers(members), request_id: request_bytes(request) };
        self.call::<proto::GroupReply>(Operation::CreateGroup, &body).await?.try_into()
    }

    /// Adds members to a group.
    pub async fn add_members(
        &self,
        group: ConversationId,
        users: &[UserId],
        request: ClientMsgId,
    ) -> Result<Group, Error> {
        self.change_members(Operation::AddMembers, group, users, request).await
    }

    /// Removes members from a group.
    pub async fn remove_members(
        &self,
        group: ConversationId,
        users: &[UserId],
        request: ClientMsgId,
    ) -> Result<Group, Error> {
        self.change_members(Operation::RemoveMembers, group, users, request).await
    }

    async fn change_members(
        &self,
        operation: Operation,
        group: ConversationId,
        users: &[UserId],
        request: ClientMsgId,
    ) -> Result<Group, Error> {
        let body = proto::ChangeMembers {
            conversation: conversation_bytes(group),
            users: numbers(users),
            request_id: request_bytes(request),
        };
        self.call::<proto::GroupReply>(operation, &body).await?.try_into()
    }

    /// Leaves a group.
    pub async fn leave_group(&self, group: ConversationId, request: ClientMsgId) -> Result<Group, Error> {
        let body = proto::LeaveGroup { conversation: conversation_bytes(group), request_id: request_bytes(request) };
        self.call::<proto::GroupReply>(Operation::LeaveGroup, &body).await?.try_into()
    }

    /// A page of a group's members.
    pub async fn list_members(
        &self,
        group: ConversationId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<MemberPage, Error> {
        let body = proto::ListMembers {
            conversation: conversation_bytes(group),
            after: after.map_or(0, |user| user.0),
            limit,
        };
        Ok(self.call::<proto::MemberList>(Operation::ListMembers, &body).await?.into())
    }

    // ---- administration ---------------------------------------------------------------------------

    /// Creates accounts, given as (name, argon2id PHC string or nothing). Accounts that exist are answered as they are.
    /// Answers those that stand now, and (position, why) for each that was refused.
    pub async fn import_users(&self, users: &[(String, String)]) -> Result<(Vec<User>, Vec<(usize, Refusal)>), Error> {
        let import =
            |(name, phc): &(String, String)| proto::ImportUser { name: name.clone(), password_phc: phc.clone() };
        let body = proto::ImportUsers { users: users.iter().map(import).collect() };
        let imported: proto::ImportedUsers = self.call(Operation::ImportUsers, &body).await?;
        Ok((imported.users.into_iter().map(User::from).collect(), refusals(imported.refusals)))
    }

    /// Access tokens without a password, one a name, in order.
    pub async fn mint_tokens(&self, names: &[String], lifetime: Duration) -> Result<Vec<Tokens>, Error> {
        let body = proto::MintTokens { names: names.to_vec(), lifetime_ms: lifetime.as_millis() as u64 };
        let minted: proto::MintedTokens = self.call(Operation::MintTokens, &body).await?;
        if minted.tokens.len() != names.len() {
            return Err(Error::Protocol(format!("{} tokens for {} names", minted.tokens.len(), names.len())));
        }
        Ok(minted.tokens.into_iter().map(Tokens::from).collect())
    }

    /// The node's shards; with a digest of their states, which takes a walk of every row, if that is asked for.
    pub async fn list_shards(&self, digest: bool) -> Result<Vec<Shard>, Error> {
        all(self.call::<proto::ShardList>(Operation::ListShards, &proto::ListShards { digest }).await?.shards)
    }

    /// Seals shards (none named: all) and waits until every segment is durable: give the connection the patience.
    pub async fn seal_shards(&self, shards: &[ShardId]) -> Result<Vec<SealedShard>, Error> {
        let body = proto::SealShards { shards: shards.iter().map(|shard| u32::from(shard.0)).collect() };
        all(self.call::<proto::SealedShards>(Operation::SealShards, &body).await?.shards)
    }

    /// Trims a conversation: nothing before a record is left. Answers where it begins now, and how many messages this removed.
    pub async fn trim(&self, conversation: ConversationId, before: SeqId) -> Result<(SeqId, u64), Error> {
        let body = proto::Trim { conversation: conversation_bytes(conversation), before_seq: before.0 };
        let done: proto::TrimReply = self.call(Operation::Trim, &body).await?;
        Ok((SeqId(done.before_seq), done.messages))
    }

    /// Says how long a conversation keeps its records; `None`: as the server's configuration says.
    pub async fn retain(&self, conversation: ConversationId, retention: Option<Retention>) -> Result<(), Error> {
        let by_default = retention.is_none();
        let Retention { age_ms, records } = retention.unwrap_or_default();
        let body = proto::Retain { conversation: conversation_bytes(conversation), by_default, age_ms, records };
        self.call::<proto::RetainReply>(Operation::Retain, &body).await.map(drop)
    }

    /// Begins to erase a user's messages; answers what is not done yet: [`Connection::list_erasures`] says when it is.
    pub async fn erase_user(&self, name: &str) -> Result<Vec<Erasure>, Error> {
        let body = proto::EraseUser { name: name.into(), user: 0 };
        all(self.call::<proto::Erasures>(Operation::EraseUser, &body).await?.erasures)
    }

    /// The erasures that are not done.
    pub async fn list_erasures(&self) -> Result<Vec<Erasure>, Error> {
        all(self.call::<proto::Erasures>(Operation::ListErasures, &proto::ListErasures {}).await?.erasures)
    }

    /// Trims what need not be kept, for some seconds at most; forced: however much it is.
    pub async fn sweep(&self, force: bool, within: Duration) -> Result<Vec<SweptShard>, Error> {
        let body = proto::Sweep { force, within_ms: within.as_millis() as u64 };
        all(self.call::<proto::SweptShards>(Operation::Sweep, &body).await?.shards)
    }

    /// The merges and rewrites that are due; begins everything that waits to be dropped, if asked to.
    pub async fn compact(&self, begin: bool) -> Result<Vec<CompactPlan>, Error> {
        all(self.call::<proto::CompactPlans>(Operation::Compact, &proto::Compact { begin }).await?.plans)
    }

    /// A durable commit on every shard, and one lone durable append.
    pub async fn probe(&self) -> Result<Probe, Error> {
        Ok(self.call::<proto::ProbeReply>(Operation::Probe, &proto::Probe {}).await?.into())
    }
}

/// The durable ack of a batch, to come.
pub struct SendReply {
    reply: Reply<proto::SendReply>,
    messages: usize,
}

impl SendReply {
    /// Awaits it: one outcome a message, in order.
    pub async fn wait(self) -> Result<Vec<SendOutcome>, Error> {
        send_outcomes(self.reply.wait().await?, self.messages)
    }

    /// The request's id, as `accepted` pushes name it.
    pub fn request_id(&self) -> u32 {
        self.reply.request_id()
    }
}

fn request_bytes(request: ClientMsgId) -> Bytes {
    Bytes::copy_from_slice(&request.0.to_be_bytes())
}

fn numbers(users: &[UserId]) -> Vec<u64> {
    users.iter().map(|user| user.0).collect()
}
