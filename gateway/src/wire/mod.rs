//! The public protocol: frames, operations, errors, bodies.

pub mod convert;
pub mod frame;
pub mod operation;
mod reader;
pub mod record;
pub mod send;

/// The bodies, generated from `proto/client.proto`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/skein.v1.rs"));
}
