//! A digest of the state, equal on every replica at the same index, wherever its rows are.
//!
//! What always holds: the digests of rows are added, so that neither their order matters nor what is in memory of them. Places and
//! figures say nothing that other rows do not say, and are left out.

use std::hash::{Hash, Hasher};
use std::io;

use xxhash_rust::xxh3::Xxh3;

use super::{Key, ShardState};
use crate::store::{Row, Table, Weigh};

/// Rows that are read from below memory at once.
const ROWS_AT_ONCE: usize = 4096;

impl ShardState {
    /// A digest of everything, for a state that is whole. Walks all rows: for tests and operators.
    pub fn digest(&self) -> u128 {
        assert!(self.is_whole, "rows of this state are in files, too");
        self.digest_of_own()
            .wrapping_add(digest_rows(0, self.conversations.iter()))
            .wrapping_add(digest_rows(1, self.members.iter()))
            .wrapping_add(digest_rows(2, self.users.iter()))
            .wrapping_add(digest_rows(3, self.names.iter()))
            .wrapping_add(digest_rows(4, self.relations.iter()))
    }

    /// A digest of everything. May read all sealed rows from files: not for async workers, and while it takes nothing is
    /// applied.
    pub fn digest_over_sealed(&self) -> io::Result<u128> {
        if self.is_whole {
            return Ok(self.digest());
        }
        let unsealed = self
            .digest_of_own()
            .wrapping_add(digest_rows(0, self.conversations.unsealed()))
            .wrapping_add(digest_rows(1, self.members.unsealed()))
            .wrapping_add(digest_rows(2, self.users.unsealed()))
            .wrapping_add(digest_rows(3, self.names.unsealed()))
            .wrapping_add(digest_rows(4, self.relations.unsealed()));
        let (mut sum, mut after) = (unsealed, None);
        loop {
            let run = self.below.scan(&[], after.as_deref(), ROWS_AT_ONCE)?;
            sum = run.rows.iter().fold(sum, |sum, (key, row)| sum.wrapping_add(self.digest_of_sealed(key, row)));
            after = match run.next_after {
                Some(after) => Some(after),
                None => return Ok(sum),
            };
        }
    }

    /// The shard's own row and what is always in memory.
    fn digest_of_own(&self) -> u128 {
        let mut own = Xxh3::new();
        (self.applied.0, self.dedup.bounds(), &self.own).hash(&mut own);
        own.digest128()
            .wrapping_add(digest_rows(5, self.outboxes.iter()))
            .wrapping_add(digest_rows(6, self.inboxes.iter()))
    }

    /// 0 for a row that memory has a newer one of, or that is not part of the digest.
    fn digest_of_sealed(&self, key: &Key, row: &Row) -> u128 {
        match (key, row) {
            (Key::Conversation(id), Row::Conversation(row)) => sealed(0, &self.conversations, id, row),
            (Key::Member(conversation, user), Row::Member(row)) => {
                sealed(1, &self.members, &(*conversation, *user), row)
            }
            (Key::User(id), Row::User(row)) => sealed(2, &self.users, id, row),
            (Key::Name(name), Row::Name(row)) => sealed(3, &self.names, name, row),
            (Key::Relation(user, peer), Row::Relation(row)) => sealed(4, &self.relations, &(*user, *peer), row),
            _ => 0,
        }
    }
}

fn sealed<K: Hash + Eq + Clone, V: Hash + Clone + Weigh>(number: u8, table: &Table<K, V>, key: &K, row: &V) -> u128 {
    if table.is_unsealed(key) { 0 } else { digest_row(number, (key, row)) }
}

fn digest_rows<'a, K: Hash + 'a, V: Hash + 'a>(table: u8, rows: impl Iterator<Item = (&'a K, &'a V)>) -> u128 {
    rows.fold(0, |sum: u128, row| sum.wrapping_add(digest_row(table, row)))
}

fn digest_row<K: Hash, V: Hash>(table: u8, row: (&K, &V)) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.write_u8(table);
    row.hash(&mut hasher);
    hasher.digest128()
}
