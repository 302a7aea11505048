//! Sealed files from outside: what goes in comes out, what is damaged is named, what crashes is whole or not there.
#![allow(clippy::unwrap_used, reason = "tests")]

mod crash;
mod damage;
mod fixture;
mod manifest;
mod merge;
mod paged;
mod pages;
mod refusal;
mod round_trip;
mod shard;
mod support;
