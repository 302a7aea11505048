//! What every command has in common: where the server is, who asks, and how answers are printed.

use clap::{Args, ValueEnum};

/// How answers are printed on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON value a line.
    Json,
    /// Bare values, tab-separated.
    Plain,
}

/// Options every command understands.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// How answers are printed on stdout
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value = "table")]
    pub output: Format,
    /// Address of the server's client port [default: the profile's, else 127.0.0.1:7400]
    #[arg(long, global = true, env = "SKEIN_SERVER", value_name = "ADDR")]
    pub server: Option<String>,
    /// Saved sign-in to use
    #[arg(long, global = true, env = "SKEIN_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
}
