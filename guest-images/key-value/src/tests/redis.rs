//! A real `redis-server` of our own, to compare with.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The server under the name of its checker, which Debian's redis-tools bring without a service that starts by itself: one program, which
/// looks at its name.
fn checker_as_server() -> Command {
    let mut command = Command::new("redis-check-rdb");
    command.arg0("redis-server");
    command
}

/// Stops the server and removes its directory when dropped.
pub(crate) struct Redis {
    process: Child,
    directory: PathBuf,
}

impl Redis {
    /// Starts one, and waits until it listens. None if this machine has none, which is said.
    pub(crate) fn start(name: &str) -> Option<Self> {
        let directory = std::env::temp_dir().join(format!("lockstep-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let start = |mut command: Command| {
            let options = [
                "--port",
                "0",
                "--save",
                "",
                "--proto-max-bulk-len",
                "1048576",
                "--unixsocket",
            ];
            command
                .args(options)
                .arg(directory.join("socket"))
                .current_dir(&directory)
                .stdout(Stdio::piped())
                .spawn()
        };
        let started = start(Command::new("redis-server")).or_else(|_| start(checker_as_server()));
        let Ok(mut process) = started else {
            std::fs::remove_dir_all(&directory).unwrap();
            skip(name);
            return None;
        };
        let output = process.stdout.take().unwrap();
        let redis = Self { process, directory };
        wait_for(output, "ready to accept connections");
        Some(redis)
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).unwrap()
    }

    /// Sends bytes over a connection of their own, closes it for writing, gives what comes back until it ends.
    pub(crate) fn send_alone(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may close before it has read all of it.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        reply
    }

    fn socket(&self) -> impl AsRef<Path> {
        self.directory.join("socket")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Says so past the test runner's capturing.
fn skip(test: &str) {
    const WHY: &str = "no redis-server to compare with";
    assert!(
        std::env::var_os("LOCKSTEP_TESTS_NO_SKIP").is_none(),
        "{test} would be skipped: {WHY}"
    );
    // A closed standard error is nobody's to see.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {WHY}");
}

fn wait_for(mut output: impl Read, text: &str) {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(text.as_bytes()) {
        output
            .read_exact(&mut byte)
            .expect("redis-server ended before it was ready");
        seen.extend_from_slice(&byte);
    }
}
