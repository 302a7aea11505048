//! `skein config`: check and print the configuration, make keys.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args as ClapArgs, Subcommand};
use gateway::config::{Config, Sources, keys_of, load};

use crate::exit::Outcome;
use crate::output::{Format, Globals};

/// Every key with its default and what it means.
pub const COMMENTED: &str = include_str!("../skein.toml");

/// Arguments.
#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  skein config print > skein.toml\n  skein config init-keys --data-dir /var/lib/skein\n  \
                  skein config check --config skein.toml"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say whether a node would start with this configuration
    #[command(after_help = "Examples:\n  skein config check --config skein.toml\n  SKEIN_SHARDS=8 skein config check")]
    Check(SourceArgs),
    /// Print the configuration: every key commented with its default, or what results from file, environment and flags
    #[command(
        after_help = "Examples:\n  skein config print > skein.toml                      every key, its default, and what it means\n  \
                      skein config print --effective --config skein.toml   what a node would run with, as TOML\n  \
                      skein config print --effective -o json\n  skein config print --effective -o plain | grep limits"
    )]
    Print(PrintArgs),
    /// Make the keys a node needs without --dev; keys that exist stay
    #[command(after_help = "Examples:\n  skein config init-keys --data-dir /var/lib/skein")]
    InitKeys(KeyArgs),
}

/// Where a node's configuration comes from, beside the environment.
#[derive(ClapArgs, Clone, Debug, Default)]
pub struct SourceArgs {
    /// Configuration file (TOML)
    #[arg(long, env = "SKEIN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where everything the node keeps lies [default: skein-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where clients connect [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where health and metrics answer [default: 127.0.0.1:7401]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Any key: --set journal.file_bytes=64MiB
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
    /// Development mode: see skein server --help
    #[arg(long)]
    pub dev: bool,
}

#[derive(ClapArgs)]
struct PrintArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// What results from file, environment and flags, instead of the commented defaults
    #[arg(long)]
    effective: bool,
}

#[derive(ClapArgs)]
struct KeyArgs {
    /// The data directory the keys are for
    #[arg(long, value_name = "DIR", env = "SKEIN_DATA_DIR")]
    data_dir: PathBuf,
}

impl SourceArgs {
    /// The configuration they make, with this process's environment.
    pub fn load(&self) -> anyhow::Result<Config> {
        let environment =
            std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        Ok(load(&self.sources(environment.collect())?)?)
    }

    fn sources(&self, environment: Vec<(String, String)>) -> anyhow::Result<Sources> {
        let mut flags = self.set.clone();
        if let Some(dir) = &self.data_dir {
            flags.push(("data_dir".into(), dir.to_str().context("--data-dir is not UTF-8")?.into()));
        }
        flags.extend(self.listen.iter().map(|addr| ("listen".into(), addr.clone())));
        flags.extend(self.http.iter().map(|addr| ("http".into(), addr.clone())));
        Ok(Sources { dev: self.dev, file: self.config.clone(), environment, flags })
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().into(), value.trim().into()))
}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    match args.command {
        Command::Check(sources) => check(&sources, globals),
        Command::Print(args) => print(&args, globals),
        Command::InitKeys(args) => init_keys(&args, globals),
    }
}

fn check(sources: &SourceArgs, globals: &Globals) -> Outcome {
    let config = sources.load()?;
    let missing = gateway::node::check_files(&config)?;
    for path in &missing {
        eprintln!("skein: there is no {} yet; make keys with: skein config init-keys --data-dir DIR", path.display());
    }
    let keys = keys_of(&config).len();
    match globals.output {
        Format::Json => println!("{}", serde_json::json!({ "ok": true, "keys": keys })),
        Format::Table | Format::Plain => println!("ok: {keys} keys, data in {}", config.data_dir.display()),
    }
    Ok(())
}

fn print(args: &PrintArgs, globals: &Globals) -> Outcome {
    let config = if args.effective { args.sources.load()? } else { Config::default() };
    match globals.output {
        Format::Table if !args.effective => print!("{COMMENTED}"),
        Format::Table => print!("{}", config.to_toml()),
        Format::Json => println!("{}", serde_json::to_string(&config)?),
        Format::Plain => keys_of(&config).iter().for_each(|(key, value)| println!("{key}\t{value}")),
    }
    Ok(())
}

fn init_keys(args: &KeyArgs, globals: &Globals) -> Outcome {
    let made = gateway::node::create_keys(&args.data_dir)?;
    match globals.output {
        Format::Json => println!("{}", serde_json::json!({ "made": made })),
        Format::Table | Format::Plain => made.iter().for_each(|path| println!("{}", path.display())),
    }
    if made.is_empty() {
        eprintln!("skein: both keys exist already; nothing was changed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fanout::Limits;

    use super::*;

    fn load_text(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(&Sources { file: Some(file.path().into()), ..Sources::default() }).unwrap()
    }

    /// The dotted keys a TOML text says, by its lines.
    fn keys_said(text: &str) -> Vec<String> {
        let mut section = String::new();
        let mut keys = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = format!("{name}.");
            } else if let Some((key, _)) = line.split_once('=') {
                keys.push(format!("{section}{}", key.trim()));
            }
        }
        keys.sort();
        keys
    }

    #[test]
    fn the_commented_file_says_every_key_with_its_default() {
        let defaults = Config::default();
        assert_eq!(load_text(COMMENTED), defaults);
        let known: Vec<String> = keys_of(&defaults).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys_said(COMMENTED), known);
    }

    #[test]
    fn every_key_of_the_commented_file_is_preceded_by_words() {
        let lines: Vec<&str> = COMMENTED.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ") && !pair[1].starts_with('#')) {
            assert!(pair[0].starts_with('#') || pair[1].starts_with("key = "), "no words above {:?}", pair[1]);
        }
    }

    #[test]
    fn every_row_of_the_table_of_limits_is_a_key_and_says_what_happens_there() {
        for row in Limits::TABLE {
            let value = gateway::config::limit_text(&Limits::default(), row);
            let quoted = if row.unit == "bytes" { format!("\"{value}\"") } else { value };
            let line = format!("[{}]\n{} = {quoted}\n", row.at_limit, row.name);
            assert!(COMMENTED.contains(&line), "missing: {line}");
        }
    }

    #[test]
    fn what_is_printed_as_toml_reads_back_the_same() {
        let config = Config { shards: 7, ..Config::default() };
        assert_eq!(load_text(&config.to_toml()), config);
    }

    /// Every environment variable a command line option reads, down the tree of commands.
    fn variables(command: &clap::Command, into: &mut Vec<String>) {
        into.extend(command.get_arguments().filter_map(|option| Some(option.get_env()?.to_str()?.to_owned())));
        command.get_subcommands().for_each(|command| variables(command, into));
    }

    #[test]
    fn a_variable_of_another_command_never_keeps_a_node_from_starting() {
        let mut names = Vec::new();
        variables(&<crate::Cli as clap::CommandFactory>::command(), &mut names);
        assert!(names.contains(&"SKEIN_SERVER".to_owned()));
        for name in names.iter().filter(|name| !gateway::config::NOT_KEYS.contains(&name.as_str())) {
            let environment = vec![(name.clone(), "somewhere".to_owned())];
            let loaded = load(&Sources { environment, ..Sources::default() });
            assert!(
                !matches!(loaded, Err(gateway::config::ConfigError::UnknownKey { .. })),
                "{name} belongs into NOT_KEYS"
            );
        }
    }

    #[test]
    fn flags_win_over_set_and_the_environment() {
        let args = SourceArgs {
            listen: Some("127.0.0.1:1".into()),
            set: vec![("listen".into(), "127.0.0.1:2".into()), ("shards".into(), "9".into())],
            ..SourceArgs::default()
        };
        let environment = vec![("SKEIN_LISTEN".into(), "127.0.0.1:3".into()), ("SKEIN_SHARDS".into(), "3".into())];
        let config = load(&args.sources(environment).unwrap()).unwrap();
        assert_eq!((config.listen.port(), config.shards), (1, 9));
    }
}
