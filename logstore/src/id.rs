//! The numbers that name things, each with a type of its own.
//!
//! They live in the lowest crate because record heads are made of them. `logstore` treats all of
//! them as opaque: it compares and stores them, and never asks what a user or a peer is.
//!
//! What always holds: an id is never reused, and the two functions that place things
//! ([`ConversationId::bucket`] and the constructors of [`ConversationId`]) never change, because
//! their results are on disk.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A Raft group that owns buckets. 12 bits of it go into every [`ServerMsgId`]. Never reused.
    ShardId(u16)
}
number! {
    /// A replica's process identity in Raft. 0 is never a node.
    NodeId(u64)
}
number! {
    /// `hash(conversation) % 65536`: the unit in which conversations are handed between shards.
    Bucket(u16)
}
number! {
    /// Position of an entry in one shard's Raft log. 0 is "before the first entry".
    LogIndex(u64)
}
number! {
    /// A Raft term.
    Term(u64)
}
number! {
    /// Which seal of its shard a segment holds: 1, 2, 3, ... without gap, the number of the generation that was frozen.
    /// 0 is "none". Not to be confused with [`Ordinal`], which counts messages.
    SegmentOrdinal(u64)
}
number! {
    /// Position in a conversation: 1, 2, 3, ... without gap. 0 is "before the first record".
    SeqId(u64)
}
number! {
    /// How many countable messages the conversation has had up to and including a record.
    Ordinal(u64)
}
number! {
    /// Snowflake of a stored record: 41 bits ms since [`ServerMsgId::EPOCH_MS`], 12 bits shard, 10 bits counter.
    ServerMsgId(u64)
}
number! {
    /// UUIDv7 a client chose at its first attempt to send.
    ClientMsgId(u128)
}
number! {
    /// 64-bit hash (XXH3) of kind and body: tells a retry from another message under the same id.
    BodyHash(u64)
}
number! {
    /// An account. Below 2^62, so that two of them name a 1:1 conversation. 0 is nobody (the system).
    UserId(u64)
}
number! {
    /// Milliseconds since the Unix epoch. In state it is the log's own monotonic time, never a clock's.
    TimeMs(u64)
}
number! {
    /// One client connection, unique over the life of the cluster (random start per process, then counted).
    /// 0 is "none".
    ConnectionId(u64)
}
number! {
    /// A life of the cluster's history: new at init, restore and forced quorum.
    HistoryId(u128)
}

impl SeqId {
    /// The position after this one.
    pub fn next(self) -> SeqId {
        SeqId(self.0 + 1)
    }
}

impl SegmentOrdinal {
    /// The first seal of a shard.
    pub const FIRST: SegmentOrdinal = SegmentOrdinal(1);

    /// The seal after this one.
    pub fn next(self) -> SegmentOrdinal {
        SegmentOrdinal(self.0 + 1)
    }
}

impl LogIndex {
    /// The index after this one.
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

impl ServerMsgId {
    /// 2025-01-01T00:00:00Z: where the 41 bits of milliseconds begin (they last until 2094).
    pub const EPOCH_MS: u64 = 1_735_689_600_000;

    /// Packs the three parts. `counter` must be below 1024 and `shard` below 4096.
    pub fn pack(time: TimeMs, shard: ShardId, counter: u16) -> ServerMsgId {
        debug_assert!(shard.0 < 4096 && counter < 1024);
        let ms = time.0.saturating_sub(Self::EPOCH_MS) & ((1 << 41) - 1);
        ServerMsgId(ms << 22 | u64::from(shard.0) << 10 | u64::from(counter))
    }

    /// The shard that gave it.
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> 10) as u16 & 0xfff)
    }

    /// The millisecond part as Unix time.
    pub fn time(self) -> TimeMs {
        TimeMs((self.0 >> 22) + Self::EPOCH_MS)
    }
}

/// Names a conversation: the unit of order.
///
/// ```text
/// 127 126 125                           64 63                              0
/// +------+--------------------------------+---------------------------------+
/// | kind |  direct: the lower user id     |  direct: the higher user id     |
/// | 2 b  |  group, system: 0              |  group: group id, system: user  |
/// +------+--------------------------------+---------------------------------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ConversationId(pub u128);

/// What a [`ConversationId`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationName {
    /// A 1:1 of two users, the lower id first (equal: somebody's notes to self).
    Direct(UserId, UserId),
    /// A group by its number.
    Group(u64),
    /// A user's own system log.
    System(UserId),
}

impl ConversationId {
    const KIND_SHIFT: u32 = 126;
    const DIRECT: u128 = 1;
    const GROUP: u128 = 2;
    const SYSTEM: u128 = 3;
    /// User ids and group numbers stay below this.
    pub const ID_LIMIT: u64 = 1 << 62;

    /// The 1:1 of two users, in whichever order they are given.
    pub fn direct(a: UserId, b: UserId) -> ConversationId {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        debug_assert!(high.0 < Self::ID_LIMIT);
        ConversationId(Self::DIRECT << Self::KIND_SHIFT | u128::from(low.0) << 64 | u128::from(high.0))
    }

    /// The group with this number.
    pub fn group(number: u64) -> ConversationId {
        debug_assert!(number < Self::ID_LIMIT);
        ConversationId(Self::GROUP << Self::KIND_SHIFT | u128::from(number))
    }

    /// The system log of a user; its bucket is also where the user's own rows live.
    pub fn system(user: UserId) -> ConversationId {
        ConversationId(Self::SYSTEM << Self::KIND_SHIFT | u128::from(user.0))
    }

    /// What this id names, or `None` if no constructor could have made it.
    pub fn name(self) -> Option<ConversationName> {
        let high = (self.0 >> 64) as u64 & (Self::ID_LIMIT - 1);
        let low = self.0 as u64;
        if low >= Self::ID_LIMIT {
            return None;
        }
        match (self.0 >> Self::KIND_SHIFT, high) {
            (Self::DIRECT, a) if a <= low => Some(ConversationName::Direct(UserId(a), UserId(low))),
            (Self::GROUP, 0) => Some(ConversationName::Group(low)),
            (Self::SYSTEM, 0) => Some(ConversationName::System(UserId(low))),
            _ => None,
        }
    }

    /// The bucket: the low 16 bits of XXH3-64 over the id's 16 little-endian bytes. Fixed for ever.
    pub fn bucket(self) -> Bucket {
        Bucket(xxhash_rust::xxh3::xxh3_64(&self.0.to_le_bytes()) as u16)
    }

    /// The id's 16 bytes, big-endian, as they travel to clients and sort on disk.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The inverse of [`ConversationId::to_bytes`]; any 16 bytes are accepted, see [`ConversationId::name`].
    pub fn from_bytes(bytes: [u8; 16]) -> ConversationId {
        ConversationId(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConversationId({:032x})", self.0)
    }
}

/// Where an entry stands in a shard's log: (term, leader, index), as Raft names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term in which the entry was proposed.
    pub term: Term,
    /// The node that proposed it.
    pub leader: NodeId,
    /// Its position.
    pub index: LogIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_id_tells_what_it_names() {
        let (a, b) = (UserId(7), UserId(3));
        assert_eq!(ConversationId::direct(a, b), ConversationId::direct(b, a));
        assert_eq!(ConversationId::direct(a, b).name(), Some(ConversationName::Direct(b, a)));
        assert_eq!(ConversationId::group(9).name(), Some(ConversationName::Group(9)));
        assert_eq!(ConversationId::system(a).name(), Some(ConversationName::System(a)));
        assert_eq!(ConversationId(5).name(), None);
    }

    #[test]
    fn buckets_never_change() {
        assert_eq!(ConversationId::group(1).bucket(), ConversationId::group(1).bucket());
        let bytes = ConversationId::direct(UserId(1), UserId(2)).to_bytes();
        assert_eq!(ConversationId::from_bytes(bytes), ConversationId::direct(UserId(1), UserId(2)));
    }

    #[test]
    fn a_server_msg_id_sorts_by_time_then_counter() {
        let early = ServerMsgId::pack(TimeMs(ServerMsgId::EPOCH_MS + 5), ShardId(4095), 1023);
        let late = ServerMsgId::pack(TimeMs(ServerMsgId::EPOCH_MS + 6), ShardId(0), 0);
        assert!(early < late);
        assert_eq!(late.time(), TimeMs(ServerMsgId::EPOCH_MS + 6));
        assert_eq!((early.shard(), late.shard()), (ShardId(4095), ShardId(0)));
    }
}
