//! openraft's state machine: hands committed entries to the shard's core, in order.
//!
//! What always holds: after a restart it is where its sealed segments end, and openraft applies every committed entry of
//! the journal above that again. A snapshot is a *manifest*: it says up to where this replica's segments reach and who
//! the members are there; the segments are where they are. One that stands for entries no segment here holds can only be
//! installed while the state it stands for is empty.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::raft::checkpoint::{Checkpoint, Membership};
use crate::raft::types::{RaftEntry, RaftLogId, RaftPayload, Response, TypeConfig, index_of};
use crate::shard::core::ShardCore;

type Meta = SnapshotMetaOf<TypeConfig>;

/// Entries applied before readers are told, when there are many at once (a replay).
const ENTRIES_PER_WAKE: usize = 64;

/// What a snapshot carries beside its meta data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Entries with commands that the state was made of. No segment holds them.
    pub(crate) entries: u64,
}

/// Applies a shard's entries.
pub(crate) struct StateMachine {
    core: Arc<ShardCore>,
    last_applied: Option<RaftLogId>,
    membership: Membership,
    entries: u64,
    manifest: Arc<parking_lot::Mutex<Option<(Meta, Manifest)>>>,
}

impl StateMachine {
    /// One over the shard's core, whose state is as of `checkpoint`: empty, if there is none.
    pub(crate) fn new(core: Arc<ShardCore>, checkpoint: Option<Checkpoint>) -> StateMachine {
        let manifest = Arc::new(parking_lot::Mutex::new(checkpoint.as_ref().map(of_checkpoint)));
        let (last_applied, membership) = match checkpoint {
            Some(Checkpoint { sealed, membership }) => (Some(sealed), membership),
            None => (None, Membership::default()),
        };
        StateMachine { core, last_applied, membership, entries: 0, manifest }
    }

    /// Applies one entry and answers whoever proposed it.
    fn apply_one(&mut self, entry: RaftEntry, responder: Option<ApplyResponder<TypeConfig>>) {
        let index = index_of(entry.log_id.index);
        let batch = match &entry.payload {
            RaftPayload::Normal(payload) => {
                self.entries += 1;
                let batch = self.core.apply(index, &payload.0);
                if let Some(generation) = batch.applied.sealed {
                    let checkpoint = Checkpoint { sealed: entry.log_id, membership: self.membership.clone() };
                    self.core.froze(generation, checkpoint);
                }
                Some(batch)
            }
            RaftPayload::Blank => self.core.skip(index),
            RaftPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership.clone());
                self.core.skip(index)
            }
        };
        self.last_applied = Some(entry.log_id);
        if let Some(responder) = responder {
            responder.send(Response { batch });
        }
    }

    fn meta(&self) -> Meta {
        Meta { last_log_id: self.last_applied, last_membership: self.membership.clone() }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Manifest;
    type SnapshotBuilder = ManifestBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, Membership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut since_wake = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            if let RaftPayload::Normal(payload) = &entry.payload {
                self.core.ready(index_of(entry.log_id.index), &payload.0).await;
            }
            self.apply_one(entry, responder);
            since_wake += 1;
            if since_wake == ENTRIES_PER_WAKE {
                self.core.wake();
                since_wake = 0;
            }
        }
        self.core.wake();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> ManifestBuilder {
        let unsealed = || (self.meta(), Manifest { entries: self.entries });
        let built = self.core.sealing().checkpoint().as_ref().map_or_else(unsealed, of_checkpoint);
        ManifestBuilder { built, current: self.manifest.clone() }
    }

    async fn install_snapshot(&mut self, meta: &Meta, manifest: Manifest) -> io::Result<()> {
        let shard = self.core.shard();
        if manifest.entries > 0 {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "shard {shard}: the snapshot stands for {} entries and names no segment that holds them: \
                     there is nothing to install from",
                    manifest.entries
                ),
            ));
        }
        if meta.last_log_id > self.last_applied {
            self.last_applied = meta.last_log_id;
            self.membership = meta.last_membership.clone();
            self.core.skip_to(meta.last_log_id.as_ref().map_or(logstore::id::LogIndex(0), |id| index_of(id.index)));
        }
        keep_newer(&self.manifest, (meta.clone(), manifest));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, Manifest>>> {
        let manifest = self.manifest.lock().clone();
        Ok(manifest.map(|(meta, snapshot)| SnapshotOf::<TypeConfig, Manifest> { meta, snapshot }))
    }
}

/// What a replica can say of entries its segments hold.
fn of_checkpoint(checkpoint: &Checkpoint) -> (Meta, Manifest) {
    let last_membership = checkpoint.membership.clone();
    (Meta { last_log_id: Some(checkpoint.sealed), last_membership }, Manifest { entries: 0 })
}

/// Builds the manifest of the moment it was made.
pub(crate) struct ManifestBuilder {
    built: (Meta, Manifest),
    current: Arc<parking_lot::Mutex<Option<(Meta, Manifest)>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for ManifestBuilder {
    type SnapshotData = Manifest;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, Manifest>> {
        keep_newer(&self.current, self.built.clone());
        let (meta, snapshot) = self.built.clone();
        Ok(SnapshotOf::<TypeConfig, Manifest> { meta, snapshot })
    }
}

/// A snapshot is replaced only by a newer one.
fn keep_newer(current: &parking_lot::Mutex<Option<(Meta, Manifest)>>, new: (Meta, Manifest)) {
    let mut current = current.lock();
    if current.as_ref().is_none_or(|(meta, _)| meta.last_log_id < new.0.last_log_id) {
        *current = Some(new);
    }
}
