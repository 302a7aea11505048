//! TLS 1.3 for the client port, by rustls with ring.
//!
//! What always holds: no older version is spoken, and no early data is accepted (it can be replayed).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is not PEM of the right kind.
    #[error("cannot read {what} from {path}: {why}")]
    Unreadable {
        /// "a certificate chain" or "a private key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not go together.
    #[error("certificate {cert} and key {key} cannot be used: {why}")]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The server's side of TLS, from a certificate chain and its key in PEM files.
pub fn server_config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |why: String| TlsError::Unusable { cert: cert.into(), key: key.into(), why };
    let chain = read_chain(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("a private key", key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.map_err(|error| unusable(error.to_string()))?.with_no_client_auth();
    builder.with_single_cert(chain, private).map(Arc::new).map_err(|error| unusable(error.to_string()))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "a certificate chain";
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(what, path, &error))?;
    let chain: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| unreadable(what, path, &error))?;
    if chain.is_empty() {
        return Err(TlsError::Unreadable { what, path: path.into(), why: "no certificate in it".into() });
    }
    Ok(chain)
}

fn unreadable(what: &'static str, path: &Path, error: &rustls_pki_types::pem::Error) -> TlsError {
    let why = match error {
        rustls_pki_types::pem::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    TlsError::Unreadable { what, path: path.into(), why }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Files {
        _dir: tempfile::TempDir,
        cert: PathBuf,
        key: PathBuf,
        der: CertificateDer<'static>,
    }

    fn self_signed() -> Files {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Files { _dir: dir, cert, key, der: made.cert.der().clone() }
    }

    async fn echo_through(files: &Files, version: &'static SupportedProtocolVersion) -> std::io::Result<Vec<u8>> {
        let acceptor = tokio_rustls::TlsAcceptor::from(server_config(&files.cert, &files.key).unwrap());
        let (client_side, server_side) = tokio::io::duplex(16 << 10);
        let server = tokio::spawn(async move {
            let mut stream = acceptor.accept(server_side).await?;
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await?;
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        });
        let mut roots = RootCertStore::empty();
        roots.add(files.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let connector = tokio_rustls::TlsConnector::from(config);
        let mut stream = connector.connect("localhost".try_into().unwrap(), client_side).await?;
        stream.write_all(b"hello").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        server.await.unwrap()?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_certificate_talks_tls_1_3() {
        assert_eq!(echo_through(&self_signed(), &rustls::version::TLS13).await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn tls_1_2_is_not_spoken() {
        assert!(echo_through(&self_signed(), &rustls::version::TLS12).await.is_err());
    }

    #[test]
    fn early_data_is_off() {
        let files = self_signed();
        assert_eq!(server_config(&files.cert, &files.key).unwrap().max_early_data_size, 0);
    }

    #[test]
    fn missing_swapped_and_foreign_files_are_refused_by_name() {
        let (files, other) = (self_signed(), self_signed());
        let missing = files.cert.with_file_name("none.pem");
        for (cert, key, named) in [
            (&missing, &files.key, "none.pem"),
            (&files.cert, &missing, "none.pem"),
            (&files.key, &files.cert, "key.pem"),
            (&files.cert, &other.key, "cert.pem"),
        ] {
            let refused = server_config(cert, key).unwrap_err().to_string();
            assert!(refused.contains(named), "{refused}");
        }
    }
}
