//! A port taken early and listened on late: a taken port is told before a long replay, and no client waits in a queue
//! that nobody serves.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::StartError;

/// Connections the kernel completes before they are accepted: a crowd reconnects within a second of a restart.
const BACKLOG: u32 = 4096;

/// A bound port.
pub(super) struct Port {
    /// With the number the system chose, if 0 was asked for.
    pub addr: SocketAddr,
    key: &'static str,
    socket: TcpSocket,
}

impl Port {
    /// Takes the port that `key` of the configuration names.
    pub fn bind(addr: SocketAddr, key: &'static str) -> Result<Port, StartError> {
        let refused = |error| start_error(&error, addr, key);
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(refused)?;
        // A node that restarts takes its port again while connections of its former life linger.
        socket.set_reuseaddr(true).map_err(refused)?;
        socket.bind(addr).map_err(refused)?;
        let addr = socket.local_addr().map_err(refused)?;
        Ok(Port { addr, key, socket })
    }

    /// From now on connections are completed.
    pub fn listen(self) -> Result<TcpListener, StartError> {
        let Port { addr, key, socket } = self;
        socket.listen(BACKLOG).map_err(|error| start_error(&error, addr, key))
    }
}

fn start_error(error: &std::io::Error, addr: SocketAddr, key: &str) -> StartError {
    match error.kind() {
        ErrorKind::AddrInUse => StartError::new(
            format!("address {addr} is in use by another process"),
            format!("stop that process, or choose another with --{key} (port 0: any free one)"),
        ),
        ErrorKind::PermissionDenied => StartError::new(
            format!("address {addr} may not be used by this user"),
            format!("choose another port with --{key}"),
        ),
        ErrorKind::AddrNotAvailable => StartError::new(
            format!("address {addr} is not one of this machine"),
            format!("choose another with --{key}"),
        ),
        _ => StartError::new(format!("cannot listen on {addr}: {error}"), format!("choose another with --{key}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_in_one_line_with_the_flag_to_change() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = taken.local_addr().unwrap();
        let refused = Port::bind(addr, "listen").and_then(Port::listen).unwrap_err().to_string();
        assert!(refused.contains(&addr.to_string()) && refused.contains("--listen"), "{refused}");
        assert!(!refused.contains('\n'));
    }

    #[tokio::test]
    async fn a_foreign_address_is_told() {
        let refused = Port::bind("192.0.2.1:7400".parse().unwrap(), "http").err().unwrap().to_string();
        assert!(refused.contains("192.0.2.1:7400") && refused.contains("--http"), "{refused}");
    }

    #[tokio::test]
    async fn port_0_becomes_a_real_one() {
        assert_ne!(Port::bind("127.0.0.1:0".parse().unwrap(), "listen").ok().unwrap().addr.port(), 0);
    }
}
