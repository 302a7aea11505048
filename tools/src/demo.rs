//! `skein demo`: the whole job in one command.
//!
//! A dev node as a child process, a replay of real-looking chat against it, verified; then the node is left running.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args as ClapArgs;
use gateway::node::DEMO_ACCOUNTS;

use crate::bench::accounts::AdminArgs;
use crate::bench::local::LocalNode;
use crate::exit::Outcome;
use crate::output::Globals;
use crate::replay::{self, Chat};

/// Some 500 messages in many languages and scripts, written for the purpose.
const SAMPLE: &[u8] = include_bytes!("../sample/sample.jsonl");
/// Where a node listens by default; others are taken where these are in use.
const PORTS: (u16, u16) = (7400, 7401);

/// Arguments.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    skein demo\n  \
    skein demo --file chat.jsonl.gz --data-dir ./skein-data\n  \
    skein demo --exit")]
pub struct Args {
    /// Another chat file than the sample: JSON lines, plain or gzip
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where the node keeps its data [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
    /// Stop the node at the end instead of leaving it running
    #[arg(long)]
    exit: bool,
}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    let chat = match &args.file {
        Some(file) => Chat::open(file).with_context(|| file.display().to_string())?,
        None => Chat::read(SAMPLE).context("the sample")?,
    };
    let node = LocalNode::start(args.data_dir.as_deref(), Some(PORTS.0), Some(PORTS.1))?;
    eprintln!("demo: a dev node runs, clients {}, http http://{}", node.listen, node.http);
    eprintln!("demo: its data is in {}; every acknowledged message is fsynced", node.data_dir.display());
    if (node.listen.port(), node.http.port()) != PORTS {
        eprintln!("demo: ports {} and {} were not both free, so it has others", PORTS.0, PORTS.1);
    }
    eprintln!(
        "demo: replaying {} messages of {} conversations as their {} senders",
        chat.messages.len(),
        chat.conversations.len(),
        chat.users.len()
    );
    let admin = AdminArgs { data_dir: Some(node.data_dir.clone()), admin_key: None };
    let figures = replay::replay(chat, &admin, &globals.with_local(node.listen), None, None)?;
    replay::print(&figures, globals.output)?;
    replay::verdict(&figures)?;
    if args.exit {
        node.drain()?;
        eprintln!("demo: verified; the node is stopped");
        return Ok(());
    }
    eprintln!("{}", next_commands(&node.listen.to_string(), node.listen.port() == PORTS.0, &node.data_dir));
    Ok(node.wait()?)
}

/// What to type next.
fn next_commands(server: &str, usual: bool, data_dir: &Path) -> String {
    let ((name, password), (peer, _)) = (DEMO_ACCOUNTS[0], DEMO_ACCOUNTS[1]);
    let server = if usual { String::new() } else { format!(" --server {server}") };
    [
        "demo: verified. The node goes on running; Ctrl-C stops it. In another terminal:".to_owned(),
        format!("  echo {password} | skein{server} login {name} --password-stdin"),
        format!("  skein{server} send --to {peer} 'hello'"),
        format!("  skein{server} history --with {peer}"),
        format!("  skein{server} health --data-dir {}", data_dir.display()),
    ]
    .join("\n")
}
