//! A database of the running PostgreSQL, a Redis process of one's own, and a cable to cut.

use std::fs::File;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How long anything may take that a healthy machine does in a moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}

/// A loopback port that nothing listens on, below those the system hands out to clients.
pub(crate) fn free_port() -> u16 {
    // One sequence per process: whoever asks at the same time must not be given the same port.
    static DICE: Mutex<Option<u32>> = Mutex::new(None);
    let mut dice = DICE.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let seed = dice.unwrap_or_else(|| std::process::id().wrapping_mul(2_654_435_761));
        let next = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *dice = Some(next);
        let port = 10_000 + u16::try_from((next >> 8) % 20_000).unwrap();
        if StdListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn named_by(variable: &str) -> String {
    std::env::vars()
        .find_map(|(name, value)| (name == variable).then_some(value))
        .unwrap_or_else(|| panic!("{variable} is not set; run ./scripts/test"))
}

/// A setting that `scripts/test` exports.
pub(crate) fn exported(variable: &str) -> PathBuf {
    PathBuf::from(named_by(variable))
}

/// A database that lives as long as this.
pub(crate) struct Database {
    admin: String,
    name: String,
}

impl Database {
    pub(crate) async fn create() -> Self {
        let admin = named_by("TEST_DATABASE_URL");
        let name = format!("airi_e2e_{}_{}", std::process::id(), free_port());
        let mut connection = PgConnection::connect(&admin).await.expect("TEST_DATABASE_URL is not reachable");
        // The name is ours: digits and underscores.
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        Self { admin, name }
    }

    pub(crate) fn url(&self) -> String {
        self.at(None)
    }

    /// The same database through another address.
    pub(crate) fn at(&self, address: Option<SocketAddr>) -> String {
        let mut url = url::Url::parse(&self.admin).unwrap();
        url.set_path(&self.name);
        if let Some(address) = address {
            url.set_ip_host(address.ip()).unwrap();
            url.set_port(Some(address.port())).unwrap();
        }
        url.to_string()
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> (String, u16) {
        let url = url::Url::parse(&self.admin).unwrap();
        (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&admin).await.map_err(std::io::Error::other)?;
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::query(AssertSqlSafe(drop)).execute(&mut connection).await.map_err(std::io::Error::other)
            })
        });
        // A database left behind must not hide why the test failed.
        drop(dropping.join());
    }
}

/// A Redis that remembers across restarts.
pub(crate) struct Redis {
    port: u16,
    directory: tempfile::TempDir,
    process: Option<Child>,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        let mut redis = Self { port: free_port(), directory: tempfile::tempdir().unwrap(), process: None };
        redis.resume().await;
        redis
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What a command answers.
    pub(crate) async fn command(&self, name: &str, arguments: &[&str]) -> String {
        let client = redis::Client::open(self.url()).unwrap();
        eventually("Redis to answer", async || {
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd(name).arg(arguments).query_async(&mut connection).await.ok()
        })
        .await
    }

    /// Ends the process at once.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it where it was.
    pub(crate) async fn resume(&mut self) {
        let log = File::create(self.directory.path().join("log")).unwrap();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--port", &self.port.to_string(), "--dir", self.directory.path().to_str().unwrap()])
            .stdout(Stdio::from(log))
            .spawn()
            .expect("redis-server is not installed; run ./scripts/test");
        self.process = Some(process);
        let client = redis::Client::open(self.url()).unwrap();
        eventually("Redis to answer", async || {
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A TCP relay on loopback, to be cut and mended.
pub(crate) struct Cable {
    address: SocketAddr,
    target: (String, u16),
    relaying: Option<JoinHandle<()>>,
}

impl Cable {
    pub(crate) async fn to(target: (String, u16)) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut cable = Self { address, target, relaying: None };
        cable.mend().await;
        cable
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection and refuses new ones.
    pub(crate) async fn cut(&mut self) {
        if let Some(relaying) = self.relaying.take() {
            relaying.abort();
            drop(relaying.await);
        }
    }

    pub(crate) async fn mend(&mut self) {
        let listener = eventually("the cable's port", async || TcpListener::bind(self.address).await.ok()).await;
        let target = self.target.clone();
        #[expect(clippy::disallowed_methods, reason = "aborted by `cut` and `drop`")]
        let relaying = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    let mut far = TcpStream::connect((target.0.as_str(), target.1)).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        self.relaying = Some(relaying);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        if let Some(relaying) = &self.relaying {
            relaying.abort();
        }
    }
}
