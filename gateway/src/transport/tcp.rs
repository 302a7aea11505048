//! Plain sockets.

use std::time::Duration;

use bytes::BytesMut;
use fanout::{Code, Fault};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::wire::convert;
use crate::wire::frame::{self, FLAG_PUSH};
use crate::wire::operation::Operation;

/// Before accepting again when the system has no more sockets to give.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// When somebody who was turned away should come back.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The next socket; `None` when no more are wanted.
pub(super) async fn next(listener: &TcpListener, stopping: &CancellationToken) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Frames are written whole, waiting for more would only delay them. A socket that refuses is slow, not wrong.
                let _ = stream.set_nodelay(true);
                return Some(stream);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Tells a client that the node is full, as far as that can be done without waiting, and closes.
pub(super) fn refuse(stream: TcpStream) {
    let fault = Fault::later(Code::Busy, "this node has as many connections as it may", RETRY_AFTER);
    let mut out = BytesMut::new();
    frame::encode(&mut out, FLAG_PUSH, Operation::Closing.number(), 0, &convert::error(&fault));
    // A new socket's buffer has room for it; if not, the client sees a plain close.
    let _ = stream.try_write(&out);
}
