//! Makes one segment of several: chosen by a pure plan, done elsewhere.
//!
//! What always holds: a plan is a function of the manifest, the policy and the rules, so that every replica of a shard merges the
//! same; inputs are consecutive; what comes out is what the inputs hold together, less what the rules drop; seq_ids never change.

mod heads;
mod newest;
mod plan;
mod rules;
mod run;

pub(crate) use newest::{Newest, Source};
pub use plan::{MergePlan, MergePolicy};
pub use rules::DropRules;
pub use run::{MergeRun, run, run_while, run_with_rows};
