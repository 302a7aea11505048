//! `skein token mint`: an access token without a password.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use clap::Args as ClapArgs;

use super::{TOKEN_LIFETIME, connect};
use crate::bench::accounts::AdminArgs;
use crate::exit::Failure;
use crate::output::{Format, Globals, Printer};

/// Arguments.
#[derive(ClapArgs)]
pub struct Args {
    /// Whose
    #[arg(value_name = "NAME")]
    name: String,
    /// How long it is good: at least 1s, at most the node's auth.refresh_token_lifetime [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    lifetime: Option<Duration>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What two clocks may differ by, and whole seconds cut off, before a lifetime counts as another.
const CLOCK_DIFFERENCE_MS: u64 = 120_000;

fn lifetime(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_secs(1) { Err("at least 1s".into()) } else { Ok(time) }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Runs it.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let (connection, _) = connect(&args.admin, globals).await?;
    let asked = args.lifetime.unwrap_or(TOKEN_LIFETIME);
    let minted = connection.mint_tokens(&[args.name], asked).await?;
    let tokens = minted.first().ok_or_else(|| anyhow!("the server answered no token"))?;
    let given_ms = tokens.access_expires.0.saturating_sub(now_ms());
    if given_ms + CLOCK_DIFFERENCE_MS < asked.as_millis() as u64 {
        let given = humantime::format_duration(Duration::from_secs(given_ms / 1000));
        eprintln!("skein: the server gives no token for that long; this one is good for {given}");
    }
    match printer.format() {
        Format::Json => printer.line(
            &serde_json::json!({
                "name": tokens.user.name,
                "user": tokens.user.id.to_string(),
                "token": tokens.access_token,
                "expires_at_ms": tokens.access_expires.0,
            })
            .to_string(),
        )?,
        _ => printer.line(&tokens.access_token)?,
    }
    printer.flush()
}
