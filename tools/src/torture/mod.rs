//! `skein torture`: real processes under faults, real clients, and a checker over everything they were told.
//!
//! Pure: the plan of faults ([`plan`]), the history ([`history`]), the checker ([`check`]). The rest starts nodes ([`cluster`]), drives load
//! ([`device`]), makes the faults ([`inject`]), reads everything back ([`read_back`]) and prints ([`figures`]).

mod act;
mod check;
mod cluster;
mod device;
mod fault;
mod figures;
mod finding;
mod history;
mod inject;
mod plan;
mod read_back;
mod recorder;
mod run;
mod stage;
mod story;
mod tally;

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args as ClapArgs;

use crate::exit::{Failure, Outcome};
use crate::output::Globals;
use fault::FaultKind;
use figures::Figures;
use history::History;
use plan::Wishes;

/// Arguments.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    skein torture --nodes 1 --faults kill,pause --duration 60s\n  \
    skein torture --nodes 1 --duration 20s --seed 7 --history run.jsonl -o json\n\n\
    It starts nodes of its own in a temporary directory. A seed gives the plan of faults and each client's choices; what the machine\n\
    makes of their timing is its own. Exit code 0: nothing was found; 5: a promise was broken; others: it could not be tried.")]
pub struct Args {
    /// Nodes to start
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Faults to make, one in force or beginning in any 5 s; none: the load alone
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_value = "kill,pause")]
    faults: Vec<FaultName>,
    /// How long the load lasts
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Of the plan and of each client's choices [default: by chance, printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write every event as a JSON line (docs/torture.md)
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Shortest pause
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = humantime::parse_duration)]
    pause_min: Duration,
    /// Longest pause, at most 5 s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pause_max: Duration,
    /// People, each with one client
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(3..=1000))]
    users: u32,
    /// Groups; there are as many 1:1s as people besides
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    groups: u32,
    /// Messages a second, in all
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Plant a bug that has to be found
    #[cfg(feature = "plants")]
    #[arg(long, value_name = "NAME")]
    plant: Option<logstore::plants::Plant>,
}

/// A fault as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FaultName {
    None,
    Kill,
    Pause,
    Partition,
}

impl FaultName {
    fn kind(self) -> Option<FaultKind> {
        match self {
            FaultName::None => None,
            FaultName::Kill => Some(FaultKind::Kill),
            FaultName::Pause => Some(FaultKind::Pause),
            FaultName::Partition => Some(FaultKind::Partition),
        }
    }
}

impl Args {
    fn wishes(&self, seed: u64) -> Wishes {
        Wishes {
            seed,
            duration: self.duration,
            nodes: self.nodes,
            kinds: self.faults.iter().filter_map(|name| name.kind()).collect(),
            lasts_min: self.pause_min,
            lasts_max: self.pause_max,
        }
    }

    /// What every node is given besides.
    fn server_arguments(&self) -> Vec<String> {
        #[cfg(feature = "plants")]
        if let Some(plant) = self.plant {
            return vec!["--plant".to_owned(), plant.name().to_owned()];
        }
        Vec::new()
    }
}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    let seed = args.seed.unwrap_or_else(rand::random);
    let plan = plan::plan(&args.wishes(seed)).map_err(|why| Failure::Usage(why.to_string()))?;
    eprintln!("torture: seed {seed}, {} nodes, {} faults", args.nodes, plan.len());
    plan.iter().for_each(|injection| eprintln!("torture: {injection}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let history = runtime.block_on(run::run(&args, globals, seed, plan))?;
    // Whatever still waits for a node that is no more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Some(path) = &args.history {
        write(path, &history)?;
    }
    let figures = Figures::of(&args, seed, &history, check::check(&history));
    figures.print(globals.output)?;
    figures.verdict()
}

fn write(path: &Path, history: &History) -> anyhow::Result<()> {
    let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    history.write(BufWriter::new(file)).with_context(|| format!("cannot write {}", path.display()))
}
