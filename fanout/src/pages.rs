//! Reading pages of records within what is visible, in either direction.
//!
//! What always holds: a page ends after the record with which it reaches one of its bounds, so one that is not empty
//! always makes progress, and nothing outside the visible spans is ever read.

use std::future::Future;

use logstore::id::{ConversationId, SeqId};
use sequencer::{Record, Result, Shard};

use crate::visible::{Span, Visible};

/// Where records are read from: a shard, or a list in tests.
pub(crate) trait RecordSource: Sync {
    /// Records `from..=to`, ascending, at most `records_max` and about `bytes_max` bytes of bodies, at least one if any.
    fn records(
        &self,
        conversation: ConversationId,
        from: SeqId,
        to: SeqId,
        records_max: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Record>>> + Send;
}

impl RecordSource for Shard {
    async fn records(
        &self,
        conversation: ConversationId,
        from: SeqId,
        to: SeqId,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>> {
        self.history(conversation, from, to, records_max, bytes_max).await
    }
}

/// How much may still be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub records: usize,
    pub bytes: usize,
}

impl Budget {
    /// What a record costs beside its body when it is sent: ids, times and framing, generously.
    const RECORD_BYTES: usize = 96;

    /// Whether nothing more may be read.
    pub fn is_spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }

    fn spend(&mut self, record: &Record) {
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(record.body.len() + Self::RECORD_BYTES);
    }

    /// Records of a read that fit, the one that spends the budget included.
    fn take(&mut self, records: impl Iterator<Item = Record>, page: &mut Vec<Record>) {
        for record in records {
            if self.is_spent() {
                return;
            }
            self.spend(&record);
            page.push(record);
        }
    }
}

/// The oldest of what is visible, ascending.
pub(crate) async fn oldest_first(
    source: &impl RecordSource,
    conversation: ConversationId,
    visible: &Visible,
    budget: &mut Budget,
) -> Result<Vec<Record>> {
    let mut page = Vec::new();
    for span in visible.spans() {
        let mut rest = Some(*span);
        while let Some(span) = rest.filter(|_| !budget.is_spent()) {
            let wanted = budget.records.min(span.len() as usize);
            let read = source.records(conversation, span.first, span.last, wanted, budget.bytes).await?;
            let Some(last) = read.last().map(|r| r.head.seq) else { break };
            budget.take(read.into_iter(), &mut page);
            rest = (last < span.last).then(|| Span { first: last.next(), last: span.last });
        }
    }
    Ok(page)
}

/// Records read at once when a page is filled from its newest end: a screen, so that most pages are one or two reads.
const CHUNK_RECORDS: u64 = 64;

/// The newest of what is visible, descending.
pub(crate) async fn newest_first(
    source: &impl RecordSource,
    conversation: ConversationId,
    visible: &Visible,
    budget: &mut Budget,
) -> Result<Vec<Record>> {
    let mut page = Vec::new();
    let mut rest = visible.clone();
    while !budget.is_spent() && rest.head() != SeqId(0) {
        let chunk = rest.newest(CHUNK_RECORDS.min(budget.records as u64));
        let mut all = Budget { records: usize::MAX, bytes: usize::MAX };
        let read = oldest_first(source, conversation, &chunk, &mut all).await?;
        budget.take(read.into_iter().rev(), &mut page);
        rest = chunk.spans().first().map_or_else(Visible::default, |s| rest.within(SeqId(0), SeqId(s.first.0 - 1)));
    }
    Ok(page)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::visible::tests::member;
    use bytes::Bytes;
    use logstore::id::*;
    use logstore::{BodyPlace, RecordHead, RecordKind};
    use proptest::prelude::*;

    /// A record of `bytes` bytes as history returns it.
    pub(crate) fn record(conversation: ConversationId, seq: u64, sender: UserId, bytes: usize) -> Record {
        let head = RecordHead {
            conversation,
            seq: SeqId(seq),
            ordinal: Ordinal(seq),
            kind: RecordKind::TEXT,
            sender,
            server_msg_id: ServerMsgId(seq),
            client_msg_id: ClientMsgId(u128::from(seq)),
            body_hash: BodyHash(0),
            time: TimeMs(seq),
            index: LogIndex(seq),
            body: BodyPlace::InEntry { offset: 0, len: bytes as u32 },
        };
        Record { head, body: Bytes::from(vec![b'x'; bytes]) }
    }

    /// A conversation as a list; gives at most `read_max` records a read.
    pub(crate) struct Listed {
        pub records: Vec<Record>,
        pub read_max: usize,
    }

    impl RecordSource for Listed {
        async fn records(
            &self,
            _: ConversationId,
            from: SeqId,
            to: SeqId,
            records_max: usize,
            _: usize,
        ) -> Result<Vec<Record>> {
            let wanted = self.records.iter().filter(|r| from <= r.head.seq && r.head.seq <= to);
            Ok(wanted.take(records_max.min(self.read_max)).cloned().collect())
        }
    }

    pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    proptest! {
        #[test]
        fn pages_follow_each_other_without_gap_or_overlap(
            lens in prop::collection::vec(0usize..400, 0..300),
            read_max in 1usize..40,
            records in 1usize..100,
            bytes in 1usize..4000,
            leave in 0u64..300,
        ) {
            let id = ConversationId::group(1);
            let list: Vec<Record> =
                lens.iter().enumerate().map(|(i, &len)| record(id, i as u64 + 1, UserId(1), len)).collect();
            let head = SeqId(list.len() as u64);
            let source = Listed { records: list, read_max };
            let visible = Visible::of(&member(&[(1, Some(leave)), (leave + 5, None)], 0), head);
            let expected: Vec<u64> = visible.spans().iter().flat_map(|s| s.first.0..=s.last.0).collect();

            let (mut up, mut rest) = (Vec::new(), visible.clone());
            while rest.head() != SeqId(0) {
                let page = block_on(oldest_first(&source, id, &rest, &mut Budget { records, bytes })).unwrap();
                prop_assert!(!page.is_empty() && page.len() <= records);
                up.extend(page.iter().map(|r| r.head.seq.0));
                rest = rest.within(SeqId(up.last().unwrap() + 1), head);
            }
            prop_assert_eq!(&up, &expected);

            let (mut down, mut rest) = (Vec::new(), visible);
            while rest.head() != SeqId(0) {
                let page = block_on(newest_first(&source, id, &rest, &mut Budget { records, bytes })).unwrap();
                prop_assert!(!page.is_empty() && page.len() <= records);
                down.extend(page.iter().map(|r| r.head.seq.0));
                rest = rest.within(SeqId(0), SeqId(down.last().unwrap() - 1));
            }
            down.reverse();
            prop_assert_eq!(&down, &expected);
        }
    }
}
