//! `skein token mint`: an access token without a password.

use std::time::Duration;

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
    /// How long it is good [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    lifetime: Option<Duration>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs it.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let (connection, _) = connect(&args.admin, globals).await?;
    let minted = connection.mint_tokens(&[args.name], args.lifetime.unwrap_or(TOKEN_LIFETIME)).await?;
    let tokens = minted.first().ok_or_else(|| anyhow!("the server answered no token"))?;
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
