//! What the log says of a request, and what it never says.

use std::io;
use std::sync::{Arc, Mutex};

use tracing::Level;
use tracing::subscriber::DefaultGuard;

use crate::world::{UNLUCKY, USER, World};

/// Collects lines of this thread, on which a test's runtime runs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn listen(&self) -> DefaultGuard {
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || lines.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

async fn lines_of(path: &str, token: &'static str) -> String {
    let lines = Lines::default();
    let _listening = lines.listen();
    World::default().client().get(path).header("authorization", token).send().await;
    lines.text()
}

#[tokio::test]
async fn a_request_is_one_line_without_its_query_and_its_token() {
    let text = lines_of("/api/v1/flux?token=hunter2", USER).await;
    assert_eq!(text.lines().filter(|line| line.contains("GET /api/v1/flux 200")).count(), 1, "{text}");
    for field in ["INFO", "status=200", "took_ms=", "request.id=", "user.id=\"u1\""] {
        assert!(text.contains(field), "{field} in {text}");
    }
    assert!(!text.contains("hunter2") && !text.contains("Bearer"), "{text}");
}

#[tokio::test]
async fn a_failure_of_ours_is_told_once_with_its_causes() {
    let text = lines_of("/api/v1/flux", UNLUCKY).await;
    let errors: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert!(errors[0].contains("double.call unavailable: host db.internal refused"), "{text}");
}

#[tokio::test]
async fn strangers_are_not_worth_a_line_of_their_own() {
    let text = lines_of("/api/v1/flux", "Bearer unknown").await;
    assert!(!text.contains("UNAUTHORIZED"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test]
async fn probes_whisper() {
    let text = lines_of("/livez", "").await;
    assert!(text.contains("DEBUG") && !text.contains("INFO"), "{text}");
}
