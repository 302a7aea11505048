//! Carries out a merge plan.
//!
//! What always holds: one block of each input is in memory at a time; items come in the order of (bucket, conversation), of one
//! conversation in the order of the inputs, which is that of seq; the inputs stay as they are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;
use std::sync::Arc;

use super::newest::{Newest, Source};
use super::plan::MergePlan;
use super::{DropRules, heads};
use crate::id::{Bucket, ConversationId, SegmentOrdinal};
use crate::io::Disk;
use crate::segment::{
    BuildOptions, DeltaRow, Item, Items, NewSegment, Pace, Segment, SegmentBuilder, SegmentId, SegmentInfo,
};
use crate::segment_set::SegmentSet;
use crate::{Error, Result};

/// What a merge needs beside its plan.
pub struct MergeRun<'a> {
    /// Where the new segment is written.
    pub disk: &'a Arc<dyn Disk>,
    /// The segments of the shard.
    pub set: &'a SegmentSet,
    /// The sizes of its parts; the result does not depend on them.
    pub options: &'a BuildOptions,
    /// Told before each write how many bytes it is.
    pub pace: &'a mut Pace<'a>,
}

/// Writes what the plan makes of its inputs. Nothing lists it yet: see [`crate::Manifest::merged`].
pub fn run(plan: &MergePlan, with: MergeRun<'_>) -> Result<SegmentInfo> {
    run_while(plan, with, &|| true)
}

/// [`run`], given up with [`Error::Cancelled`] once `goes_on` says no; asked for each conversation and row.
pub fn run_while(plan: &MergePlan, with: MergeRun<'_>, goes_on: &dyn Fn() -> bool) -> Result<SegmentInfo> {
    make(plan, with, &[], goes_on)
}

/// [`run`] with more state rows, in the order of keys: they take the place of those of the inputs.
pub fn run_with_rows(plan: &MergePlan, with: MergeRun<'_>, rows: &[DeltaRow]) -> Result<SegmentInfo> {
    make(plan, with, rows, &|| true)
}

fn make(plan: &MergePlan, with: MergeRun<'_>, rows: &[DeltaRow], goes_on: &dyn Fn() -> bool) -> Result<SegmentInfo> {
    let MergeRun { disk, set, options, pace } = with;
    let inputs = plan.inputs.iter().map(|id| input(set, plan, id)).collect::<Result<Vec<_>>>()?;
    let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else {
        return Err(Error::BadPlan { plan: plan.to_string(), what: "it has no inputs".to_owned() });
    };
    if inputs.windows(2).any(|pair| pair[0].span().last.next() != pair[1].span().first) {
        return Err(Error::BadPlan { plan: plan.to_string(), what: "its inputs are not consecutive".to_owned() });
    }
    let span = plan.span(&first.span(), &last.span());
    let new = NewSegment {
        disk,
        span,
        log_time: last.info().log_time,
        options,
        previous: &|conversation| previous(&inputs, conversation),
        heads: plan.has_heads.then(|| heads::carried(set, span.first, span.last)).transpose()?,
        pace,
    };
    let mut builder = SegmentBuilder::create(new)?;
    push_items(&inputs, &plan.rules, &mut builder, goes_on)?;
    push_delta(&inputs, rows, plan.drops_tombstones, &mut builder, goes_on)?;
    builder.finish()
}

fn input(set: &SegmentSet, plan: &MergePlan, id: &SegmentId) -> Result<Arc<Segment>> {
    let segment =
        set.segment(id.first).filter(|segment| segment.info().id() == *id && segment.span().shard == plan.shard);
    let missing = || Error::BadPlan { plan: plan.to_string(), what: format!("there is no segment {id}") };
    segment.cloned().ok_or_else(missing)
}

/// What the oldest input that holds a conversation says comes before it.
fn previous(inputs: &[Arc<Segment>], conversation: ConversationId) -> Result<Option<SegmentOrdinal>> {
    for input in inputs {
        if let Some(row) = input.find(conversation)? {
            return Ok(Some(row.previous_segment).filter(|previous| previous.0 > 0));
        }
    }
    Ok(None)
}

fn go_on(goes_on: &dyn Fn() -> bool) -> Result<()> {
    if goes_on() { Ok(()) } else { Err(Error::Cancelled) }
}

fn push_items(
    inputs: &[Arc<Segment>],
    rules: &DropRules,
    builder: &mut SegmentBuilder<'_>,
    goes_on: &dyn Fn() -> bool,
) -> Result<()> {
    let mut sources: Vec<_> = inputs.iter().map(|input| input.items().peekable()).collect();
    let mut turns = BinaryHeap::new();
    for (place, source) in sources.iter_mut().enumerate() {
        turns.extend(turn(place, source)?);
    }
    while let Some(Reverse((key, place))) = turns.pop() {
        go_on(goes_on)?;
        let source = &mut sources[place];
        while let Some(item) = source.next_if(|item| item.as_ref().map_or(true, |item| sort_key(item) == key)) {
            builder.push(rules.apply(item?))?;
        }
        turns.extend(turn(place, source)?);
    }
    Ok(())
}

/// The next conversation of a source, and whose turn it is: of one conversation the oldest source's.
type Turn = Reverse<((Bucket, ConversationId), usize)>;

fn turn(place: usize, source: &mut Peekable<Items>) -> Result<Option<Turn>> {
    match source.next_if(Result::is_err) {
        Some(Err(error)) => Err(error),
        _ => Ok(source.peek().and_then(|item| item.as_ref().ok()).map(|item| Reverse((sort_key(item), place)))),
    }
}

fn sort_key(item: &Item) -> (Bucket, ConversationId) {
    (item.conversation().bucket(), item.conversation())
}

fn push_delta(
    inputs: &[Arc<Segment>],
    rows: &[DeltaRow],
    drops_tombstones: bool,
    builder: &mut SegmentBuilder<'_>,
    goes_on: &dyn Fn() -> bool,
) -> Result<()> {
    let sources = inputs.iter().map(|input| Box::new(input.delta_rows()) as Source<'_, DeltaRow>);
    let newest = Box::new(rows.iter().cloned().map(Ok)) as Source<'_, DeltaRow>;
    for row in Newest::new(sources.chain([newest]), |row: &DeltaRow| row.key.clone())? {
        let row = row?;
        go_on(goes_on)?;
        if row.value.is_some() || !drops_tombstones {
            builder.push_delta(&row)?;
        }
    }
    Ok(())
}
