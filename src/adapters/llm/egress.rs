//! The same way out for adapters that speak other protocols: the client, the judgement of addresses, and bare
//! connections. `compose.rs` hands them over, so that one setting and one list of refused networks hold for all.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::Client;
use tokio::net::TcpStream;
use url::Url;

use super::addresses::{judge, parse};
use super::{HttpUpstream, trust};

/// Reads an `http` or `https` address and refuses those an upstream may not have; the reason names neither host nor path.
pub type Admit = Arc<dyn Fn(&str) -> Result<Url, String> + Send + Sync>;

/// Connects to the first admitted address of a host.
pub type Connect = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync>;

impl HttpUpstream {
    /// The pooled client: it follows no redirect and resolves names to admitted addresses only.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Judges addresses as this client does.
    pub fn admit(&self) -> Admit {
        let reach = self.reach;
        Arc::new(move |text| parse(text, reach).map_err(|why| why.to_string()))
    }

    /// Connects as this client does.
    pub fn connect(&self) -> Connect {
        let reach = self.reach;
        Arc::new(move |host, port| {
            Box::pin(async move {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in tokio::net::lookup_host((host.as_str(), port)).await? {
                    if let Err(why) = judge(address.ip(), reach) {
                        last = io::Error::other(why);
                        continue;
                    }
                    match TcpStream::connect(address).await {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return Ok(stream);
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            })
        })
    }
}

/// TLS for bare connections: trusts the authorities compiled in, and offers no protocol but the one spoken.
pub fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let mut config = trust::compiled_in()?;
    config.alpn_protocols.clear();
    Ok(config)
}
