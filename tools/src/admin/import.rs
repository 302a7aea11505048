//! `skein user import`: accounts from JSON lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args as ClapArgs;
use gateway::client::Connection;
use serde::{Deserialize, Serialize};

use super::connect;
use crate::bench::accounts::AdminArgs;
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};

/// Accounts in one request.
const ACCOUNTS_A_REQUEST: usize = 256;
/// Names and PHC strings are far shorter.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// Arguments.
#[derive(ClapArgs)]
pub struct Args {
    /// JSON lines; `-`: standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    #[serde(default)]
    password_phc: String,
}

#[derive(Serialize)]
struct Account {
    name: String,
    user: String,
}

impl Row for Account {
    const COLUMNS: &'static [&'static str] = &["name", "user"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.user.clone()]
    }
}

/// Runs it.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let mut input = open(&args.file)?;
    let (connection, _) = connect(&args.admin, globals).await?;
    let mut line_number = 0;
    let mut import = Import { connection, imported: 0, refused: 0 };
    loop {
        let batch = read_batch(&mut input, &mut line_number).with_context(|| args.file.display().to_string())?;
        if batch.is_empty() {
            break;
        }
        import.send(batch, printer).await?;
    }
    printer.flush()?;
    eprintln!("{} accounts stand, {} were refused", import.imported, import.refused);
    match import.refused {
        0 => Ok(()),
        refused => Err(Failure::Refused(anyhow!("{refused} accounts were refused"))),
    }
}

struct Import {
    connection: Connection,
    imported: u64,
    refused: u64,
}

impl Import {
    async fn send(&mut self, batch: Vec<(String, String)>, printer: &mut Printer) -> Result<(), Failure> {
        let (users, refusals) = self.connection.import_users(&batch).await?;
        for user in users {
            printer.row(&Account { name: user.name, user: user.id.to_string() })?;
            self.imported += 1;
        }
        for (at, refusal) in refusals {
            let name = batch.get(at).map_or("", |(name, _)| name);
            eprintln!("skein: account {name:?}: {refusal}");
            self.refused += 1;
        }
        Ok(())
    }
}

fn open(file: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Box::new(BufReader::new(opened)))
}

/// As many accounts as go into a request; empty: the end. Empty lines are skipped.
fn read_batch(input: &mut impl BufRead, line_number: &mut u64) -> anyhow::Result<Vec<(String, String)>> {
    let mut batch = Vec::new();
    let mut line = String::new();
    while batch.len() < ACCOUNTS_A_REQUEST {
        line.clear();
        let say = |number: u64| format!("line {number}");
        if input.by_ref().take(LINE_BYTES_MAX).read_line(&mut line).with_context(|| say(*line_number + 1))? == 0 {
            break;
        }
        *line_number += 1;
        if line.len() as u64 == LINE_BYTES_MAX && !line.ends_with('\n') {
            bail!("line {line_number} is longer than {LINE_BYTES_MAX} bytes");
        }
        if !line.trim().is_empty() {
            let account: Line = serde_json::from_str(&line).with_context(|| say(*line_number))?;
            batch.push((account.name, account.password_phc));
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<(String, String)>> {
        read_batch(&mut text.as_bytes(), &mut 0)
    }

    #[test]
    fn a_password_is_optional_and_empty_lines_are_skipped() {
        let text = "{\"name\":\"a\"}\n\n{\"name\":\"b\",\"password_phc\":\"$x\"}";
        assert_eq!(read(text).unwrap(), [("a".into(), "".into()), ("b".into(), "$x".to_string())]);
    }

    #[test]
    fn a_line_that_is_not_an_account_is_named() {
        for text in ["{\"name\":\"a\"}\nnonsense\n", "{\"name\":\"a\"}\n{\"name\":\"b\",\"password\":\"clear\"}\n"] {
            assert!(format!("{:#}", read(text).unwrap_err()).contains("line 2"));
        }
        let endless = format!("{{\"name\":\"{}\"}}", "x".repeat(LINE_BYTES_MAX as usize));
        assert!(read(&endless).unwrap_err().to_string().contains("longer than"));
    }
}
