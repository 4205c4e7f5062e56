//! TLS: RTMPS for broadcasters, and the trust in callbacks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, ensure};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::AbortOnDrop;
use super::socket::{Next, Pace, Rhythm, Socket};
use super::watch::watch;

/// What we show to broadcasters; may change while we listen.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Identity {
    /// From two PEM files.
    ///
    /// # Errors
    /// They cannot be read, or do not belong together.
    pub(super) fn read(certificate: &Path, key: &Path) -> anyhow::Result<Arc<Self>> {
        let current = RwLock::new(read(certificate, key)?);
        Ok(Arc::new(Self { certificate: certificate.to_owned(), key: key.to_owned(), current }))
    }

    /// Keeps to what the files hold, as long as what is returned lives.
    pub(super) fn watch(self: &Arc<Self>) -> AbortOnDrop {
        let identity = Arc::clone(self);
        let files = vec![self.certificate.clone(), self.key.clone()];
        let read_again = move || {
            // Between the change of one file and that of the other they do not fit; the second change is seen as well.
            let read = read(&identity.certificate, &identity.key)?;
            *identity.current.write().unwrap_or_else(PoisonError::into_inner) = read;
            Ok(format!("TLS certificate read again from {}", identity.certificate.display()))
        };
        AbortOnDrop::spawn(watch(files, read_again))
    }

    /// Takes TLS connections.
    ///
    /// # Errors
    /// Of the library's set-up.
    pub(super) fn acceptor(self: &Arc<Self>) -> anyhow::Result<TlsAcceptor> {
        let resolver = Arc::new(Resolver(Arc::clone(self)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .context("set up TLS")?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        // Broadcasters connect seldom: what would be kept for resumption is memory for strangers.
        config.session_storage = Arc::new(tokio_rustls::rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Pace for Box<TlsStream<Socket>> {
    fn pace(&mut self, rhythm: &Rhythm) {
        self.get_mut().0.pace(rhythm);
    }

    fn expect(&mut self, next: Next) {
        self.get_mut().0.expect(next);
    }

    fn hasten(&mut self) {
        self.get_mut().0.hasten();
    }

    fn read_bytes(&self) -> usize {
        self.get_ref().0.read_bytes()
    }
}

struct Resolver(Arc<Identity>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Trusts whom the system trusts.
///
/// # Errors
/// The system trusts nobody.
pub(super) fn connector() -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ensure!(
        !roots.is_empty(),
        "find the system's trusted certificates (the package ca-certificates, or SSL_CERT_FILE)"
    );
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn read(certificate: &Path, key: &Path) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("read the TLS certificate {}", certificate.display()))?;
    ensure!(!chain.is_empty(), "find a TLS certificate in {}", certificate.display());
    let secret =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("read the TLS private key {}", key.display()))?;
    let certified = CertifiedKey::from_der(chain, secret, &provider())
        .with_context(|| format!("join {} and {}", certificate.display(), key.display()))?;
    Ok(Arc::new(certified))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;

    /// Writes a certificate for `localhost` with its key, and returns a client's trust in it.
    pub(in crate::server) fn make(certificate: &Path, key: &Path) -> TlsConnector {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(certificate, made.cert.pem()).unwrap();
        fs::write(key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key, other] = ["c.pem", "k.pem", "o.pem"].map(|name| folder.path().join(name));
        assert!(Identity::read(&certificate, &key).is_err());
        make(&certificate, &other);
        make(&folder.path().join("x.pem"), &key);
        let error = format!("{:#}", Identity::read(&certificate, &key).unwrap_err());
        assert!(error.contains("join"), "{error}");
        assert!(Identity::read(&certificate, &other).is_ok());
    }
}
