//! The built binary, started, stopped and asked on the command line.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::books::Books;
use crate::caller::Caller;
use crate::stores::{Cable, Database, Redis, eventually, free_port};

const BINARY: &str = env!("CARGO_BIN_EXE_airi-server");

/// Which stores the server stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Its own, in the data directory.
    Embedded,
    /// PostgreSQL and Redis.
    Services,
}

/// One installation: a data directory, stores, settings, and the process while it runs. Ended by `drop`.
pub(crate) struct Server {
    directory: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    process: Option<Child>,
    pub(crate) database: Option<Database>,
    pub(crate) redis: Option<Redis>,
    /// Between the server and PostgreSQL.
    pub(crate) cable: Option<Cable>,
}

impl Server {
    /// An installation that is not running yet.
    pub(crate) async fn install(mode: Mode) -> Self {
        let (mut database, mut redis, mut cable) = (None, None, None);
        if mode == Mode::Services {
            let created = Database::create().await;
            cable = Some(Cable::to(created.address()).await);
            database = Some(created);
            redis = Some(Redis::start().await);
        }
        let directory = tempfile::tempdir().unwrap();
        let mut server =
            Self { directory, port: free_port(), settings: Vec::new(), process: None, database, redis, cable };
        server.set("HOST", "127.0.0.1");
        server.set("PORT", &server.port.to_string());
        server.set("AIRI_DATA_DIR", &server.data().display().to_string());
        server.set("ALLOW_INSECURE_UPSTREAMS", "true");
        server.set("DB_POOL_CONNECTION_TIMEOUT_MS", "2000");
        if let (Some(database), Some(redis), Some(cable)) = (&server.database, &server.redis, &server.cable) {
            let (database, redis) = (database.at(Some(cable.address())), redis.url());
            server.set("DATABASE_URL", &database);
            server.set("REDIS_URL", &redis);
            server.set("BETTER_AUTH_SECRET", "e2e-secret-e2e-secret-e2e-secret-0123456789");
            server.set("LLM_ROUTER_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        }
        server
    }

    /// Another process on the same stores; they must outlive it.
    pub(crate) fn twin(&self) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let settings = self.settings.clone();
        let mut twin = Self { directory, port, settings, process: None, database: None, redis: None, cable: None };
        twin.set("PORT", &twin.port.to_string());
        twin.set("AIRI_DATA_DIR", &twin.data().display().to_string());
        twin
    }

    /// Changes a setting of the processes to come.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A process of this installation with nothing but its settings around it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.directory.path()).env_clear().envs(self.settings.iter().cloned());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that must succeed prints, without the line end.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} ended with {}:\n{said}\n{complained}", output.status);
        said.trim_end().to_owned()
    }

    /// Applies a routing document. One process holds an embedded data directory: do this before `start`.
    pub(crate) fn route(&self, document: &Value) {
        let file = self.directory.path().join("router.json");
        fs::write(&file, document.to_string()).unwrap();
        self.ask(&["router", "apply", "--file", file.to_str().unwrap()]);
    }

    /// A configuration entry as stored.
    pub(crate) async fn entry(&self, name: &str) -> Value {
        let text: String = match &self.redis {
            Some(redis) => redis.command("GET", &[&format!("config:{name}")]).await,
            None => self.books().await.entry(name).await,
        };
        serde_json::from_str(&text).unwrap()
    }

    /// Writes a configuration entry past every check. Do this after another command and before `start`.
    pub(crate) async fn configure(&self, name: &str, value: &Value) {
        let text = value.to_string();
        match &self.redis {
            Some(redis) => assert_eq!(redis.command("SET", &[&format!("config:{name}"), &text]).await, "OK"),
            None => Books::configure(&self.data(), name, &text).await,
        }
    }

    /// A user with this much to spend. Do this before `start`, too.
    pub(crate) fn user(&self, name: &str, flux: i64) -> Caller {
        let email = format!("{name}@e2e.test");
        let id = self.ask(&["user", "create", "--email", &email, "--name", name, "--verified"]);
        let token = self.ask(&["user", "token", "--email", &email]);
        if flux > 0 {
            self.ask(&["flux", "grant", "--email", &email, "--amount", &flux.to_string(), "--reason", "e2e"]);
        }
        Caller::new(self.url(), id, token)
    }

    /// Starts serving and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = self.command(&["serve"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let ready = format!("{}/readyz", self.url());
        let client = crate::caller::client();
        eventually("the server to be ready", async || {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            let answer = client.get(&ready).send().await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server does not run").id()
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        assert!(Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap().success());
        let mut process = self.process.take().unwrap();
        let ended = eventually("the server to end", async || process.try_wait().unwrap()).await;
        assert_eq!(process.wait().unwrap(), ended);
        ended
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Everything the process said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The ledger and the request log, read past the server.
    pub(crate) async fn books(&self) -> Books {
        match &self.database {
            Some(database) => Books::postgres(&database.url()).await,
            None => Books::sqlite(&self.data()).await,
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test says what the server said")]
impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.char_indices().rev().nth(6_000).map_or(log.as_str(), |(at, _)| &log[at..]);
            eprintln!("== the server said, at last:\n{tail}");
        }
    }
}

/// Each test of the list once per mode.
macro_rules! in_both_modes {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name($crate::server::Mode::Embedded).await; })+
        }
        mod services {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name($crate::server::Mode::Services).await; })+
        }
    };
}
pub(crate) use in_both_modes;
