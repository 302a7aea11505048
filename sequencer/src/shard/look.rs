//! Looks at a shard's applied state, whose rows may be in files.
//!
//! What always holds: a look that finds all it asks for in memory costs no more than the lock; what it does not find is read off
//! the async workers, and looked at again; what is handed out comes of one look that was complete.

use std::sync::Arc;

use logstore::Records;

use super::core::ShardCore;
use crate::runtime;
use crate::state::{Brought, Look, Missing};
use crate::{Error, Result};

/// Tries of one look. Each finds out all it can, so that three are enough; and what is sealed changes every few seconds, which makes
/// one begin anew.
const TRIES_MAX: usize = 32;

/// A look, and what came of it if it was complete.
type Tried<T> = std::result::Result<T, Missing>;

impl ShardCore {
    /// What `look` makes of applied state, or what it is missing.
    pub(crate) fn try_look<T>(&self, brought: &mut Brought, look: impl FnOnce(&Look<'_>, &Records) -> T) -> Tried<T> {
        let (state, records) = &*self.read();
        let seen = Look::new(state, brought);
        let found = look(&seen, records);
        if seen.is_complete() { Ok(found) } else { Err(seen.into_missing()) }
    }

    /// What `look` makes of applied state at one index; it is called again while rows it asks for are being brought.
    pub(crate) async fn look<T>(self: &Arc<Self>, mut look: impl FnMut(&Look<'_>, &Records) -> T) -> Result<T> {
        let mut brought = Brought::default();
        for _ in 0..TRIES_MAX {
            match self.try_look(&mut brought, &mut look) {
                Ok(found) => return Ok(found),
                Err(missing) => brought = self.bring(brought, missing).await?,
            }
        }
        Err(Error::Restless { shard: self.shard() })
    }

    /// The same, reading where it is called: not for async workers.
    pub(crate) fn look_here<T>(&self, look: impl Fn(&Look<'_>) -> T) -> Result<T> {
        let mut brought = Brought::default();
        for _ in 0..TRIES_MAX {
            match self.try_look(&mut brought, |state, _| look(state)) {
                Ok(found) => return Ok(found),
                Err(missing) => {
                    let read = brought.bring(missing, &**self.staging().source());
                    read.map_err(|source| Error::SealedState { shard: self.shard(), source })?;
                }
            }
        }
        Err(Error::Restless { shard: self.shard() })
    }

    /// Reads what is missing.
    async fn bring(&self, mut brought: Brought, missing: Missing) -> Result<Brought> {
        metrics::counter!("skein_state_looks_below_memory_total").increment(1);
        let (shard, source) = (self.shard(), self.staging().source().clone());
        let read = runtime::blocking(move || brought.bring(missing, &*source).map(|()| brought)).await;
        read.and_then(|read| read).map_err(|source| Error::SealedState { shard, source })
    }
}
