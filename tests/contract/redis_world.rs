//! The Redis named by `TEST_REDIS_URL`, one namespace per case, and private servers that can be stopped.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use airi_server::adapters::redis::{Redis, RedisSettings};
use redis::{Commands, Connection};

use super::world::Notebook;

pub fn url() -> String {
    std::env::vars()
        .find_map(|(name, value)| (name == "TEST_REDIS_URL").then_some(value))
        .unwrap_or_else(|| panic!("set TEST_REDIS_URL to a Redis these tests may write to"))
}

/// Names of one case; wiped when it ends.
pub struct Namespace {
    pub name: String,
    pub redis: Redis,
    pub journal: Arc<Notebook>,
}

impl Namespace {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let nanos = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let name = format!("test-{}-{nanos}-{}:", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let settings = RedisSettings { namespace: name.clone(), ..RedisSettings::at(url()) };
        Self { name, redis: Redis::new(&settings).unwrap(), journal: Arc::default() }
    }

    pub fn key(&self, key: &str) -> String {
        format!("{}{key}", self.name)
    }

    /// A connection of another program.
    pub fn raw(&self) -> Connection {
        redis::Client::open(url()).unwrap().get_connection().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut raw = self.raw();
        let keys: Vec<String> = raw.scan_match(format!("{}*", self.name)).unwrap().filter_map(Result::ok).collect();
        for key in keys {
            let _: () = raw.del(key).unwrap();
        }
    }
}

/// A server of our own on a free port.
pub struct PrivateRedis {
    port: u16,
    home: tempfile::TempDir,
    server: Option<Child>,
}

impl PrivateRedis {
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut own = Self { port, home: tempfile::tempdir().unwrap(), server: None };
        own.restart();
        own
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn redis(&self) -> Redis {
        Redis::new(&RedisSettings::at(self.url())).unwrap()
    }

    pub fn raw(&self) -> Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    pub fn restart(&mut self) {
        self.stop();
        let port = self.port.to_string();
        let server = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(self.home.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(server);
        let client = redis::Client::open(self.url()).unwrap();
        for _ in 0..500 {
            if client.get_connection().is_ok_and(|mut raw| redis::cmd("PING").exec(&mut raw).is_ok()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server did not start");
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        self.stop();
    }
}
