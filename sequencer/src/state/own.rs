//! The shard's own row: which buckets are its, what time its log says it is, the numbers it gives out, and which seals are to be one
//! segment.
//!
//! What always holds: the time never falls, and no `ServerMsgId` or `UserId` is given out twice.

use logstore::id::{BodyHash, Bucket, HistoryId, SeqId, ServerMsgId, ShardId, TimeMs, UserId};

use super::{Erasures, Layout, Trimmed};

/// What a shard knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnRow {
    /// The shard.
    pub shard: ShardId,
    /// `None` until `Init`.
    pub history: Option<HistoryId>,
    /// The life of its outbox, counted from 1; 0 before `Init`.
    pub incarnation: u64,
    /// The version of `table`.
    pub table_epoch: u64,
    /// The cluster's bucket table.
    pub table: Vec<(Bucket, Bucket, ShardId)>,
    /// The log's monotonic time.
    pub time: TimeMs,
    /// The last id given to a record: ms since the epoch, counter.
    pub(crate) last_record: (u64, u16),
    /// The last id given to an account: ms since the epoch, counter.
    pub(crate) last_user: (u64, u16),
    /// Countable messages ever accepted.
    pub(crate) stored: u64,
    /// A chained digest of all records ever accepted, in order.
    pub(crate) accepted: u64,
    /// The merges that the log has asked for.
    pub layout: Layout,
    /// Whose messages are being erased.
    pub erasures: Erasures,
    /// How much trims have removed.
    pub trimmed: Trimmed,
    /// One bit a bucket.
    owned: Vec<u64>,
}

/// The 41 bits of milliseconds in an id end here (2094): a time beyond it is taken for this one.
const TIME_MAX: TimeMs = TimeMs(ServerMsgId::EPOCH_MS + (1 << 41) - 1);

impl OwnRow {
    /// Ids of records in one ms: 10 bits.
    pub(crate) const RECORDS_PER_MS: u16 = 1 << 10;
    /// Ids of accounts in one ms: 9 bits.
    pub(crate) const USERS_PER_MS: u16 = 1 << 9;

    /// The row before the first entry.
    pub fn new(shard: ShardId) -> OwnRow {
        OwnRow {
            shard,
            history: None,
            incarnation: 0,
            table_epoch: 0,
            table: Vec::new(),
            time: TimeMs(0),
            last_record: (0, 0),
            last_user: (0, 0),
            stored: 0,
            accepted: 0,
            layout: Layout::default(),
            erasures: Erasures::default(),
            trimmed: Trimmed::default(),
            owned: vec![0; 65536 / 64],
        }
    }

    /// Takes over the bucket table.
    pub fn set_table(&mut self, epoch: u64, table: Vec<(Bucket, Bucket, ShardId)>) {
        self.table_epoch = epoch;
        self.table = table;
        for bucket in (0..=u16::MAX).map(Bucket) {
            if self.shard_of(bucket) == Some(self.shard) {
                self.owned[usize::from(bucket.0 / 64)] |= 1 << (bucket.0 % 64);
            }
        }
    }

    /// The shard that owns a bucket, as far as this one knows.
    pub fn shard_of(&self, bucket: Bucket) -> Option<ShardId> {
        let holds = |(from, to, _): &&(Bucket, Bucket, ShardId)| (*from..=*to).contains(&bucket);
        self.table.iter().find(holds).map(|(_, _, shard)| *shard)
    }

    /// Whether this shard owns a bucket.
    pub fn owns(&self, bucket: Bucket) -> bool {
        self.owned[usize::from(bucket.0 / 64)] >> (bucket.0 % 64) & 1 == 1
    }

    /// How many buckets this shard owns.
    pub fn buckets_owned(&self) -> u32 {
        self.owned.iter().map(|bits| bits.count_ones()).sum()
    }

    /// Moves the log's time on to an entry's.
    pub fn advance(&mut self, entry: TimeMs) {
        self.time = OwnRow::time_after(self.time, entry);
    }

    /// The log's time after an entry of this one.
    pub(crate) fn time_after(log: TimeMs, entry: TimeMs) -> TimeMs {
        log.max(entry.min(TIME_MAX))
    }

    /// The id of the next record: at the log's time, or just above the last one. A full counter borrows the next ms.
    pub fn next_server_msg_id(&mut self) -> ServerMsgId {
        let (ms, counter) = next(&mut self.last_record, self.time, OwnRow::RECORDS_PER_MS);
        ServerMsgId::pack(TimeMs(ServerMsgId::EPOCH_MS + ms), self.shard, counter)
    }

    /// The id of the next account: 41 bits of ms, 12 of shard, 9 of counter, 62 in all. Never 0: the first one follows (0, 0).
    pub fn next_user_id(&mut self) -> UserId {
        let (ms, counter) = next(&mut self.last_user, self.time, OwnRow::USERS_PER_MS);
        UserId((ms & ((1 << 41) - 1)) << 21 | u64::from(self.shard.0 & 0xfff) << 9 | u64::from(counter))
    }

    /// Ids up to these are taken, whoever gave them out: those that follow are higher.
    pub(crate) fn take_ids_upto(&mut self, record: ServerMsgId, user: UserId) {
        let taken = |ms: u64, per_ms: u16| (ms, per_ms - 1);
        self.last_record = self.last_record.max(taken(record.0 >> 22, OwnRow::RECORDS_PER_MS));
        self.last_user = self.last_user.max(taken(user.0 >> 21, OwnRow::USERS_PER_MS));
    }

    /// Whether an id of a record may still be given out here.
    pub(crate) fn is_to_come(&self, record: ServerMsgId) -> bool {
        (record.0 >> 22, (record.0 & 0x3ff) as u16) > self.last_record
    }

    /// Chains an accepted record into the digest of all of them.
    pub fn note_accepted(&mut self, seq: SeqId, id: ServerMsgId, body_hash: BodyHash, is_countable: bool) {
        self.stored += u64::from(is_countable);
        let mixed = u128::from(self.accepted ^ id.0) * u128::from(body_hash.0 ^ seq.0 ^ 0x9e37_79b9_7f4a_7c15);
        self.accepted =
            (mixed as u64 ^ (mixed >> 64) as u64).wrapping_add(self.accepted.rotate_left(23)).wrapping_add(id.0);
    }
}

/// The number after `last`, at `time` if that is later.
fn next(last: &mut (u64, u16), time: TimeMs, counter_limit: u16) -> (u64, u16) {
    let now = (time.0.saturating_sub(ServerMsgId::EPOCH_MS), 0);
    let following = if last.1 + 1 < counter_limit { (last.0, last.1 + 1) } else { (last.0 + 1, 0) };
    *last = now.max(following);
    *last
}
