//! `skein server`: run a node.

use std::io::IsTerminal;

use clap::Args as ClapArgs;
use gateway::config::{Config, LogFormat};
use gateway::node::{DEMO_ACCOUNTS, DEMO_GROUP, Node, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::SourceArgs;
use crate::exit::{Failure, Outcome};

/// Arguments.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  skein server --dev                              a node to try things on, data in ./skein-data
  skein server --dev --data-dir /tmp/skein --listen 127.0.0.1:0 --http 127.0.0.1:0
  skein config print > skein.toml                 every key, its default, and what it means
  skein config init-keys --data-dir /var/lib/skein
  skein server --config skein.toml                a node in earnest
  skein server --config skein.toml --read-around-damage   what is left of one, for reading

--dev relaxes: keys are made in the data directory; three demo accounts with published passwords and a group are
there; 4 shards and smaller files. It listens on loopback addresses only, and fsyncs as always.

SIGTERM or SIGINT: clients are told to go, what is in progress is finished, exit code 0. A second signal ends at once.
Exit codes: 1 does not start (the line says why and what to do), 70 a write or sync failed while running.")]
pub struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    /// Serve what is sound of a damaged data directory, for reading alone; nothing in it is changed
    #[arg(long)]
    read_around_damage: bool,
    /// Plant a bug, for the checker of `skein torture` to find
    #[cfg(feature = "plants")]
    #[arg(long, value_name = "NAME", hide = true)]
    plant: Option<logstore::plants::Plant>,
}

/// Runs it.
pub fn run(args: Args) -> Outcome {
    if !args.sources.dev && args.sources.config.is_none() {
        return Err(Failure::Usage(
            "say how: skein server --dev, or skein server --config skein.toml (skein config print shows one)".into(),
        ));
    }
    let config = args.sources.load()?;
    #[cfg(feature = "plants")]
    args.plant.into_iter().for_each(logstore::plants::plant);
    start_logging(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config, args.read_around_damage))?;
    // Whatever still runs belongs to connections that did not go in time.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(())
}

async fn serve(config: Config, around_damage: bool) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let node = tokio::select! {
        node = start(config.clone(), around_damage) => node?,
        // Nothing is accepted yet, so there is nothing to finish.
        () = signals.next() => return Ok(()),
    };
    eprintln!("{}", if around_damage { read_only_message(&node) } else { start_message(&node, &config) });
    signals.next().await;
    tracing::info!("draining: no new connections, finishing what is in progress");
    tokio::select! {
        () = node.drain() => tracing::info!("stopped"),
        () = signals.next() => return Err(Failure::Interrupted),
    }
    Ok(())
}

async fn start(config: Config, around_damage: bool) -> Result<Node, StartError> {
    if around_damage { Node::start_around_damage(config).await } else { Node::start(config).await }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn start_logging(config: &Config) -> anyhow::Result<()> {
    use tracing_subscriber::{EnvFilter, fmt};

    let asked = &config.log.level;
    // openraft tells much at info that says nothing to an operator, and its core warns of every vote that a first election
    // overtakes; who wants that names it.
    let quiet = "openraft=warn,openraft::core::raft_core=error";
    let directives = if asked.contains("openraft") { asked.clone() } else { format!("{asked},{quiet}") };
    let filter =
        EnvFilter::try_new(&directives).map_err(|error| anyhow::anyhow!("key \"log.level\": {asked:?}: {error}"))?;
    let terminal = std::io::stderr().is_terminal();
    let human = match config.log.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal || config.dev,
    };
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started =
        if human { lines.with_ansi(terminal).try_init() } else { lines.json().flatten_event(true).try_init() };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// What runs, where, what an acknowledgement means, what is relaxed, and what to type next.
fn start_message(node: &Node, config: &Config) -> String {
    let data = std::path::absolute(node.data_dir()).unwrap_or_else(|_| node.data_dir().to_path_buf());
    let tls = if config.has_tls() { "TLS 1.3" } else { "plain TCP" };
    let mut lines = vec![
        format!("skein {} is ready{}", env!("CARGO_PKG_VERSION"), if config.dev { ", for development" } else { "" }),
        format!("  clients     {} ({tls})", node.client_addr()),
        format!("  http        http://{}  /healthz /readyz /metrics /status", node.http_addr()),
        format!("  data        {}", data.display()),
        "  durability  every acknowledged message is fsynced".into(),
    ];
    if config.dev {
        let tls = if config.has_tls() { "loopback only" } else { "loopback only, no TLS" };
        let names = DEMO_ACCOUNTS.map(|(name, _)| name).join(", ");
        let passwords = DEMO_ACCOUNTS.map(|(_, password)| password).join(", ");
        lines.push(format!("  relaxed     keys made in {}", data.join("keys").display()));
        lines.push(format!("              demo accounts {names}; passwords {passwords}; group {DEMO_GROUP:?}"));
        lines.push(format!("              {tls}"));
    }
    lines.extend(next_commands(node, config).into_iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

/// What a node that reads around damage says.
fn read_only_message(node: &Node) -> String {
    let data = node.data_dir().display();
    let damaged = node.sequencer().shards().iter().filter(|shard| shard.is_damaged()).count();
    [
        format!(
            "skein {} reads around damage: NOTHING IS WRITTEN, all that would write is refused",
            env!("CARGO_PKG_VERSION")
        ),
        format!("  clients     {}", node.client_addr()),
        format!("  http        http://{}  /readyz and /status name what is damaged", node.http_addr()),
        format!("  data        {data}: {damaged} of {} shards are damaged", node.sequencer().shards().len()),
        format!("  next        skein log verify --data-dir {data}"),
    ]
    .join("\n")
}

fn next_commands(node: &Node, config: &Config) -> Vec<String> {
    let mut server = match node.client_addr().to_string().as_str() {
        "127.0.0.1:7400" => String::new(),
        other => format!(" --server {other}"),
    };
    if config.has_tls() {
        server.push_str(&format!(" --ca {}", config.tls.cert.display()));
    }
    if !config.dev {
        return vec![format!("next        skein health{server} --admin-key {}", node.admin_key_file().display())];
    }
    let (name, password) = DEMO_ACCOUNTS[0];
    let peer = DEMO_ACCOUNTS[1].0;
    vec![
        format!("next        echo {password} | skein{server} login {name} --password-stdin"),
        format!("            skein{server} send --to {peer} 'hello'"),
    ]
}
