//! The public protocol: frames, operations, errors, bodies.

pub mod frame;
pub mod operation;

/// The bodies, generated from `proto/client.proto`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/skein.v1.rs"));
}
