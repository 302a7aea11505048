//! Listens: accepts sockets, makes them quick, wraps them in TLS when there is a certificate, hands them to drivers.

mod tcp;
mod tls;

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::session::Gateway;

/// Accepts connections until `stopping`.
pub(crate) async fn accept(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    stopping: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    while let Some(stream) = tcp::next(&listener, &stopping).await {
        match gateway.enter() {
            Some(entered) => {
                tokio::spawn(serve(entered, stream, acceptor.clone()));
            }
            None => {
                gateway.figures().connections_refused.increment(1);
                tcp::refuse(stream);
            }
        }
    }
}

async fn serve(entered: crate::session::Entered, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
    let Some(acceptor) = acceptor else { return entered.run(stream).await };
    match tls::handshake(&acceptor, stream, entered.gateway().limits()).await {
        Ok(stream) => entered.run(stream).await,
        Err(error) => tracing::debug!(%error, "TLS handshake failed"),
    }
}
