//! A node as a child process of this one: for the demo, benches and tests that kill it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// A node on an empty directory is ready in well under a second; one that replays a large journal takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a drained node to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A key of the configuration, and its value.
pub type Setting = (&'static str, &'static str);

/// A dev node in a process group of its own, so that Ctrl-C reaches only who started it. Dropping it kills it.
pub struct ChildNode {
    child: Child,
    /// Its client port.
    pub listen: SocketAddr,
    /// Its HTTP port.
    pub http: SocketAddr,
    /// Where its data lies; its words are in a `.log` file beside it.
    pub data_dir: PathBuf,
}

impl ChildNode {
    /// Starts `skein server --dev` and waits until it is ready.
    pub fn start(
        data_dir: &Path,
        listen: SocketAddr,
        http: SocketAddr,
        settings: &[Setting],
    ) -> anyhow::Result<ChildNode> {
        ChildNode::start_with(data_dir, listen, http, settings, &[])
    }

    /// The same, with more arguments.
    pub fn start_with(
        data_dir: &Path,
        listen: SocketAddr,
        http: SocketAddr,
        settings: &[Setting],
        arguments: &[String],
    ) -> anyhow::Result<ChildNode> {
        std::fs::create_dir_all(data_dir).with_context(|| format!("cannot create {}", data_dir.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        // What is meant for another node, or for commands that ask one, does not configure this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        let child = command
            .args(["server", "--dev", "--data-dir"])
            .arg(data_dir)
            .args(["--listen", &listen.to_string(), "--http", &http.to_string()])
            .args(settings.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log_file(data_dir)?)
            .stderr(log_file(data_dir)?)
            .process_group(0)
            .spawn()
            .context("cannot start the server")?;
        let mut node = ChildNode { child, listen, http, data_dir: data_dir.to_owned() };
        node.wait_until_ready()?;
        Ok(node)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks it to finish what is in flight and end.
    pub fn drain(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("the server ended with {status}{}", last_words(&self.data_dir));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        bail!("the server did not end within {} s of being asked to", STOP_TIMEOUT.as_secs())
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}{}", last_words(&self.data_dir));
            }
            if get(self.http, "/readyz").is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        bail!("the server was not ready within {} s{}", START_TIMEOUT.as_secs(), last_words(&self.data_dir))
    }
}

impl Drop for ChildNode {
    fn drop(&mut self) {
        // It may have ended already; either way nothing of it is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ours(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"SKEIN_")
}

fn log_file(data_dir: &Path) -> anyhow::Result<std::fs::File> {
    let path = data_dir.with_extension("log");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// The last line that the node of a data directory said, behind a colon.
pub fn last_words(data_dir: &Path) -> String {
    let log = std::fs::read_to_string(data_dir.with_extension("log")).unwrap_or_default();
    log.lines().last().map_or(String::new(), |line| format!(": {line}"))
}

/// Loopback ports: the wanted ones where they are free, else others.
pub fn free_port(wanted: Option<u16>) -> std::io::Result<SocketAddr> {
    let loopback = std::net::Ipv4Addr::LOCALHOST;
    let bound = match wanted.map(|port| TcpListener::bind((loopback, port))) {
        Some(Ok(listener)) => listener,
        _ => TcpListener::bind((loopback, 0))?,
    };
    bound.local_addr()
}

/// An HTTP answer.
pub struct Answer {
    /// 200 and so on.
    pub status: u16,
    /// What came after the head.
    pub body: String,
}

/// Longest answer taken.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Asks a page of a node's HTTP port.
pub fn get(http: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&http, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")?;
    Ok(Answer { status, body: body.to_owned() })
}
