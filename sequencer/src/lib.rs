//! Puts messages in order: Raft groups (shards) over the shared journal, and the deterministic state
//! that says what an entry means.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
mod codec;
mod command;
pub mod erased_again;
mod error;
pub mod founding;
mod outcome;
pub mod points;
mod raft;
mod runtime;
mod sealed_history;
mod shard;
pub mod state;
pub mod store;

pub use clock::{Clock, SystemClock};
pub use codec::{BatchBuilder, Malformed, encoded_len};
pub use command::{
    AccountSeed, Batch, Command, CursorMove, Effect, GroupChange, Import, ImportId, ImportedRecord, Recall, Retention,
    Send,
};
pub use error::{Error, Result};
pub use outcome::{Applied, CommittedRecord, CursorMoved, Outcome, Refusal, Stored};
pub use runtime::{Machine, Simulation};
pub use sealed_history::sealed_history;
pub use shard::{
    Capacity, CompactPlan, Cut, PipelineSlot, Proposal, ProposalResult, Record, Sequencer, SequencerOptions, Shard,
    ShardStatus, TailBatch, TailReader, TailStep,
};
