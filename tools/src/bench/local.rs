//! A dev node for as long as this process lives: stopped at its end, and on Ctrl-C.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use super::child::{ChildNode, Setting, free_port};

/// What the shell calls a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// How many nodes of this process are running: who stops the last one ends the process.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A node that runs beside this process.
pub struct LocalNode {
    /// Its client port.
    pub listen: SocketAddr,
    /// Its HTTP port.
    pub http: SocketAddr,
    /// Where its data lies.
    pub data_dir: PathBuf,
    /// Its process.
    pub pid: u32,
    running: Arc<Mutex<Option<Running>>>,
    /// Nothing is left to do but to run: being stopped is then no failure.
    idle: Arc<AtomicBool>,
}

struct Running {
    node: ChildNode,
    // Goes after the node.
    _temporary: Option<TempDir>,
}

impl LocalNode {
    /// Starts one, in a temporary directory unless one is given, on these ports where they are free.
    pub fn start(data_dir: Option<&Path>, port: Option<u16>, http_port: Option<u16>) -> anyhow::Result<LocalNode> {
        LocalNode::start_with(data_dir, port, http_port, &[])
    }

    /// The same, with other settings than a dev node has.
    pub fn start_with(
        data_dir: Option<&Path>,
        port: Option<u16>,
        http_port: Option<u16>,
        settings: &[Setting],
    ) -> anyhow::Result<LocalNode> {
        let temporary = match data_dir {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("skein-").tempdir()?),
        };
        let data_dir = match (data_dir, &temporary) {
            (Some(given), _) => given.to_owned(),
            (None, Some(made)) => made.path().join("data"),
            (None, None) => std::env::temp_dir(),
        };
        let node = ChildNode::start(&data_dir, free_port(port)?, free_port(http_port)?, settings)?;
        let (listen, http, pid) = (node.listen, node.http, node.pid());
        let running = Arc::new(Mutex::new(Some(Running { node, _temporary: temporary })));
        let local = LocalNode { listen, http, data_dir, pid, running, idle: Arc::default() };
        RUNNING.fetch_add(1, Ordering::SeqCst);
        local.stop_on_signals()?;
        Ok(local)
    }

    /// Stops it: what is in flight is finished.
    pub fn drain(self) -> anyhow::Result<()> {
        drain(&self.running)
    }

    /// Leaves it running until a signal ends it and this process; fails when it ends by itself.
    pub fn wait(&self) -> anyhow::Result<()> {
        self.idle.store(true, Ordering::Relaxed);
        loop {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            // None: a signal has come, and the thread it woke ends this process.
            if let Some(running) = &mut *running
                && let Some(status) = running.node.ended()?
            {
                anyhow::bail!("the server ended with {status}");
            }
        }
    }

    /// On Ctrl-C or SIGTERM the node is drained, its directory removed if it is temporary, and this process ends.
    fn stop_on_signals(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let (running, idle) = (self.running.clone(), self.idle.clone());
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            });
            eprintln!("skein: stopping the node");
            let drained = drain(&running);
            if let Err(error) = &drained {
                eprintln!("skein: {error:#}");
            }
            let code = if idle.load(Ordering::Relaxed) { i32::from(drained.is_err()) } else { EXIT_INTERRUPTED };
            if RUNNING.load(Ordering::SeqCst) == 0 {
                std::process::exit(code);
            }
        });
        Ok(())
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        // Killed, not drained: whoever wants more calls `drain`.
        if self.running.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            RUNNING.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn drain(running: &Mutex<Option<Running>>) -> anyhow::Result<()> {
    let taken = running.lock().unwrap_or_else(PoisonError::into_inner).take();
    taken.map_or(Ok(()), |running| {
        let drained = running.node.drain();
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        drained
    })
}
