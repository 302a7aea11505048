//! One client connection: a machine that decides, a driver that reads and writes, and between them and everybody else
//! the [`Connection`]: what may be queued for the client, by whom, and when the driver hears of it.

pub mod catch_up;
mod driver;
pub mod feed;
mod held;
mod inbound;
mod machine;
mod own;
pub(crate) mod pipeline;
mod shared;

pub use driver::drive;
pub use machine::{Caller, Timing};
pub use shared::{Connection, InFlight, Shared, SignedIn};
