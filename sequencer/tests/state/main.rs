//! What entries mean: rules, traces of the model that broke looser rules, and properties over random logs.

#![allow(clippy::unwrap_used, missing_docs)]

mod accounts;
mod dedup;
mod direct;
mod effects;
mod given_up;
mod groups;
mod imports;
mod log;
mod merges;
mod prefetch;
mod properties;
mod rebuild;
mod removals;
mod sends;
