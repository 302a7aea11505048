//! Sealed files from outside: what goes in comes out, what is damaged is named, what crashes is whole or not there.
#![allow(clippy::unwrap_used, reason = "tests")]

mod damage;
mod refusal;
mod round_trip;
mod support;
