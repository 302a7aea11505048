//! TLS around a socket.

use std::io;
use std::time::Duration;

use fanout::Limits;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The handshake, within the time a client has to say something.
pub(super) async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    limits: &Limits,
) -> io::Result<TlsStream<TcpStream>> {
    let within = Duration::from_secs(limits.handshake_seconds);
    tokio::time::timeout(within, acceptor.accept(stream)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
