//! TLS towards the server: 1.3 only, against given or the system's roots.

use std::path::Path;
use std::sync::Arc;

use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Error, TlsProblem};

/// Where Linux distributions keep the system's roots, most common first.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How to speak TLS to a server.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Trusts the certificates in a PEM file.
    pub fn with_roots_in(file: &Path) -> Result<Tls, String> {
        let say = |error: &dyn std::fmt::Display| format!("cannot read certificates from {}: {error}", file.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| say(&error))? {
            roots.add(certificate.map_err(|error| say(&error))?).map_err(|error| say(&error))?;
        }
        if roots.is_empty() {
            return Err(format!("{} holds no certificate", file.display()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Tls { config: Arc::new(config) })
    }

    /// Trusts what this machine trusts.
    pub fn with_system_roots() -> Result<Tls, String> {
        let file = SYSTEM_ROOTS.iter().map(Path::new).find(|file| file.exists());
        Tls::with_roots_in(file.ok_or("this machine has no list of trusted certificates; name one")?)
    }

    pub(super) async fn handshake(&self, stream: TcpStream, server: &str) -> Result<TlsStream<TcpStream>, Error> {
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
        let problem = |why| Error::Tls { server: server.to_owned(), why };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| problem(TlsProblem::Failed(format!("{host}: {error}"))))?;
        TlsConnector::from(self.config.clone()).connect(name, stream).await.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error) => problem(problem_of(error)),
                // The network failed, not TLS: another attempt may do better.
                None => Error::Unreachable { server: server.to_owned(), reason: error.to_string() },
            }
        })
    }
}

/// What a failed handshake means to somebody who only wants to connect.
fn problem_of(error: &rustls::Error) -> TlsProblem {
    match error {
        rustls::Error::InvalidMessage(_) => TlsProblem::NotSpoken,
        rustls::Error::InvalidCertificate(why) => TlsProblem::NotTrusted(words_of(why)),
        other => TlsProblem::Failed(other.to_string()),
    }
}

fn words_of(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "nobody who is trusted here has signed it".into(),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is made for an authority (CA:TRUE), not for a server".into()
        }
        other => other.to_string(),
    }
}
