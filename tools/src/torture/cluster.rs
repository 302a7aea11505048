//! Nodes of this command's own: real processes, in a directory that goes with them.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::fault::FaultKind;
use super::history::Replica;
use crate::bench::child::{ChildNode, Setting, free_port};
use crate::exit::Failure;

/// Sealed every two seconds: starts begin from segments, and kills fall into their making.
const SETTINGS: &[Setting] = &[("sequencer.seal_age", "2s"), ("journal.file_bytes", "4MiB")];
/// Of a dev node.
pub const SHARDS: u16 = 4;

/// The nodes. Dropping it kills them.
pub struct Cluster {
    nodes: Vec<Node>,
    // Goes after the nodes.
    _dir: tempfile::TempDir,
}

struct Node {
    listen: SocketAddr,
    http: SocketAddr,
    data_dir: PathBuf,
    /// More than every node is given.
    arguments: Vec<String>,
    /// `None`: killed.
    child: Option<ChildNode>,
}

impl Cluster {
    /// Starts `nodes` of them, each with `arguments` besides.
    pub fn start(nodes: u16, arguments: &[String]) -> Result<Cluster, Failure> {
        if nodes != 1 {
            return Err(Failure::Usage(format!(
                "{nodes} nodes would be {nodes} separate servers: a cluster of several cannot be started yet; --nodes 1"
            )));
        }
        let dir = tempfile::Builder::new().prefix("skein-torture-").tempdir()?;
        let node = |number: u16| -> anyhow::Result<Node> {
            let (listen, http) = (free_port(None)?, free_port(None)?);
            let data_dir = dir.path().join(format!("node-{number}"));
            let mut node = Node { listen, http, data_dir, arguments: arguments.to_vec(), child: None };
            node.start()?;
            Ok(node)
        };
        let nodes = (1..=nodes).map(node).collect::<anyhow::Result<_>>()?;
        Ok(Cluster { nodes, _dir: dir })
    }

    /// Where each takes clients, in order.
    pub fn listen(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.listen).collect()
    }

    /// Where the first one's data lies.
    pub fn data_dir(&self) -> PathBuf {
        self.nodes[0].data_dir.clone()
    }

    /// What a node leads.
    pub fn led_by(&self, _replica: Replica) -> Vec<u16> {
        // Of one node: everything.
        (0..SHARDS).collect()
    }

    /// Makes a fault; returns when it holds.
    pub fn hit(&mut self, replica: Replica, kind: FaultKind) -> anyhow::Result<()> {
        self.all_run()?;
        let node = self.node(replica)?;
        match kind {
            FaultKind::Kill => node.child = None,
            FaultKind::Pause => node.signal(Signal::STOP)?,
            FaultKind::Partition => bail!("one node cannot be cut off from others"),
        }
        Ok(())
    }

    /// Ends a fault; returns when the node is ready.
    pub fn heal(&mut self, replica: Replica, kind: FaultKind) -> anyhow::Result<()> {
        let node = self.node(replica)?;
        match kind {
            FaultKind::Kill => node.start(),
            FaultKind::Pause => node.signal(Signal::CONT),
            FaultKind::Partition => Ok(()),
        }
    }

    /// Fails if a node ended that nobody killed.
    pub fn all_run(&mut self) -> anyhow::Result<()> {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = node.child.as_mut().map(ChildNode::ended).transpose()?.flatten() {
                bail!(
                    "node {} ended by itself with {status}{}",
                    at + 1,
                    crate::bench::child::last_words(&node.data_dir)
                );
            }
        }
        Ok(())
    }

    /// Kills all, at once.
    pub fn end(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.child = None);
    }

    fn node(&mut self, replica: Replica) -> anyhow::Result<&mut Node> {
        let at = usize::from(replica.0).checked_sub(1);
        at.and_then(|at| self.nodes.get_mut(at)).with_context(|| format!("there is no node {}", replica.0))
    }
}

impl Node {
    fn start(&mut self) -> anyhow::Result<()> {
        let child = ChildNode::start_with(&self.data_dir, self.listen, self.http, SETTINGS, &self.arguments)?;
        self.child = Some(child);
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the node does not run")?;
        let pid = i32::try_from(child.pid()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }
}
