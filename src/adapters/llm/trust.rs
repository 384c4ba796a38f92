//! Whom to trust where the machine does not say.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// TLS that trusts the authorities browsers trust, from a list inside the binary.
pub(super) fn compiled_in() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The client offers what it speaks only in configurations it makes itself.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_not_empty_and_both_protocols_are_offered() {
        assert!(webpki_roots::TLS_SERVER_ROOTS.len() > 50);
        assert_eq!(compiled_in().unwrap().alpn_protocols.len(), 2);
    }
}
