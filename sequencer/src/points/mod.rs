//! Shards brought from a save to a later moment of their logs, before a node starts on them.
//!
//! ```text
//!   shard 1   save ---- entries ----|--- - -        every entry whose log time is not after the moment is applied,
//!   shard 2   save -------- entries |-- - -         none that is later; then a Seal
//!   shard 3   save -- entries ------|---- - -
//!                                   moment
//! ```
//!
//! What always holds: entries are applied by the same `apply` as on a node, so ids, seq_ids and times are those that were given out. The
//! moment is *causal*, whatever each log's clock said:
//! - an effect that a target has not applied by then is still in the outbox it comes from, though the acknowledgement may be in that
//!   shard's log already: such acknowledgements count only as far as the target has come (`told`). To deliver an effect twice changes nothing;
//! - no shard has applied an effect that its source has not emitted by then: where times contradict the order of things (a clock was set
//!   back), the target ends before the entry that did (`cut`), and what comes out says so.

mod cut;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;

use logstore::id::{LogIndex, ShardId, TimeMs};
use logstore::io::Disk;
use logstore::{Entry, Manifest};

use crate::Error;
use crate::founding::Planted;
use crate::shard::ReplayedShard;
use crate::state::ShardState;
use cut::{Base, Cut, Limits};

/// A shard is cut lower only where clocks were set back; a chain of so many is no clock.
const ROUNDS_MAX: usize = 64;

/// The entries of a shard above its base, in order, one after the other.
pub type EntryRun<'a, E> = Box<dyn Iterator<Item = std::result::Result<Entry, E>> + 'a>;

/// A shard at its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its Seal, where its log goes on.
    pub planted: Planted,
    /// The last entry of its log that it has seen.
    pub upto: LogIndex,
    /// The log time there.
    pub time: TimeMs,
    /// Whether it ends before the moment, because an effect that it applied next had not been emitted by then.
    pub is_cut_lower: bool,
}

/// What was put into outboxes by the moment: of each shard, in which life, and for each target the number of the last effect.
struct Emitted {
    incarnation: u64,
    last: BTreeMap<ShardId, u64>,
}

/// Brings shards, whose segments lie on `disk` as `bases` list them, to the moment `at`: they hold everything of their logs whose time is
/// not after it. `entries` gives those of a shard from the first above its base on; it is asked more than once.
pub fn replay_to<'a, E: From<Error>>(
    disk: &Arc<dyn Disk>,
    bases: &[Manifest],
    at: TimeMs,
    entries: &dyn Fn(ShardId) -> std::result::Result<EntryRun<'a, E>, E>,
) -> std::result::Result<Vec<Reached>, E> {
    let mut limits = Limits::new();
    for _ in 0..ROUNDS_MAX {
        let cuts = cuts(disk, bases, at, &limits, entries)?;
        let mut reached = Vec::with_capacity(bases.len());
        let mut emitted = BTreeMap::new();
        for (shard, cut) in &cuts {
            let (planted, of_it) = replay(disk, *shard, &cuts, entries(*shard)?)?;
            emitted.insert(*shard, of_it);
            reached.push(Reached { planted, upto: cut.last, time: cut.time, is_cut_lower: cut.is_lower });
        }
        if !lower(&mut limits, &cuts, &emitted) {
            return Ok(reached);
        }
    }
    let what = format!("the times of its log and those of others contradict each other {ROUNDS_MAX} times over");
    Err(Error::Rows { shard: bases[0].shard(), what }.into())
}

/// Lays the bases down anew and looks where each shard ends.
fn cuts<'a, E: From<Error>>(
    disk: &Arc<dyn Disk>,
    bases: &[Manifest],
    at: TimeMs,
    limits: &Limits,
    entries: &dyn Fn(ShardId) -> std::result::Result<EntryRun<'a, E>, E>,
) -> std::result::Result<BTreeMap<ShardId, Cut>, E> {
    let shards: Vec<ShardId> = bases.iter().map(Manifest::shard).collect();
    let mut cuts = BTreeMap::new();
    for base in bases {
        let shard = base.shard();
        base.store(&**disk).map_err(Error::from)?;
        let base = ReplayedShard::open(disk, shard)?.look(|state| Base::of(state, &shards));
        cuts.insert(shard, cut::cut(base, at, limits, entries(shard)?)?);
    }
    Ok(cuts)
}

/// Applies a shard's entries up to its cut, and seals it.
fn replay<'a, E: From<Error>>(
    disk: &Arc<dyn Disk>,
    shard: ShardId,
    cuts: &BTreeMap<ShardId, Cut>,
    entries: EntryRun<'a, E>,
) -> std::result::Result<(Planted, Emitted), E> {
    let mut replica = ReplayedShard::open(disk, shard)?;
    let applied_by = |to: ShardId, incarnation| cuts.get(&to).map_or(0, |cut| cut.applied_of(shard, incarnation));
    for entry in entries {
        let entry = entry?;
        if entry.id.index > cuts[&shard].last {
            break;
        }
        replica.apply(&told::with_acknowledgements_upto(entry, &applied_by))?;
    }
    let emitted = replica.look(|state| emitted(state, cuts.keys()));
    Ok((Planted { shard, sealed: replica.seal()? }, emitted))
}

fn emitted<'s>(state: &ShardState, to: impl Iterator<Item = &'s ShardId>) -> Emitted {
    let last = to.map(|to| (*to, state.last_effect_for(*to))).collect();
    Emitted { incarnation: state.incarnation(), last }
}

/// Finds shards that have applied what was not emitted; states whether there are any.
fn lower(limits: &mut Limits, cuts: &BTreeMap<ShardId, Cut>, emitted: &BTreeMap<ShardId, Emitted>) -> bool {
    let mut is_any = false;
    for (target, cut) in cuts {
        for (from, of) in emitted {
            let last = of.last.get(target).copied().unwrap_or(0);
            if cut.applied_of(*from, of.incarnation) > last {
                limits.insert((*target, *from), last);
                is_any = true;
            }
        }
    }
    is_any
}
