//! What every command has in common: where the server is, who asks, and how answers are printed.
//!
//! Answers go to stdout, words to stderr. JSON is one value a line. In tables and plain lines control characters are
//! shown as escapes, so that nobody's message moves anybody's cursor.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::exit::Failure;

/// How answers are printed on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON value a line.
    Json,
    /// Bare values, tab-separated.
    Plain,
}

/// Options every command understands.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// How answers are printed on stdout
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value = "table")]
    pub output: Format,
    /// Address of the server's client port [default: the profile's, else 127.0.0.1:7400]
    #[arg(long, global = true, env = "SKEIN_SERVER", value_name = "ADDR")]
    pub server: Option<String>,
    /// Saved sign-in to use [default: the last one signed in]
    #[arg(long, global = true, env = "SKEIN_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// Speak TLS, trusting what this machine trusts
    #[arg(long, global = true, env = "SKEIN_TLS")]
    pub tls: bool,
    /// Speak TLS, trusting the certificates in this PEM file
    #[arg(long, global = true, env = "SKEIN_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

impl Globals {
    /// The same for a server that this process has started itself, without TLS.
    pub fn with_local(&self, server: std::net::SocketAddr) -> Globals {
        Globals { server: Some(server.to_string()), tls: false, ca: None, ..self.clone() }
    }
}

/// Something that is printed as a row of a table, a JSON object or a plain line.
pub trait Row: Serialize {
    /// The table's head.
    const COLUMNS: &'static [&'static str];
    /// One cell a column.
    fn cells(&self) -> Vec<String>;
}

/// Prints answers on stdout.
pub struct Printer {
    format: Format,
    out: BufWriter<Stdout>,
}

impl Printer {
    /// In the format asked for.
    pub fn new(globals: &Globals) -> Printer {
        Printer { format: globals.output, out: BufWriter::new(io::stdout()) }
    }

    /// The format asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Prints a list.
    pub fn list<R: Row>(&mut self, rows: &[R]) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.table(rows)?,
            _ => rows.iter().try_for_each(|row| self.put(row))?,
        }
        self.flush()
    }

    /// Prints one answer: in a table one line a column.
    pub fn one<R: Row>(&mut self, row: &R) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                let width = R::COLUMNS.iter().map(|column| column.len()).max().unwrap_or(0);
                for (column, cell) in R::COLUMNS.iter().zip(row.cells()) {
                    self.line(&format!("{column:<width$}  {}", visible(&cell)))?;
                }
            }
            _ => self.put(row)?,
        }
        self.flush()
    }

    /// Prints one row of many, as they come: in a table as a line of its cells.
    pub fn row<R: Row>(&mut self, row: &R) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                let cells: Vec<_> = row.cells().iter().map(|cell| visible(cell)).collect();
                self.line(cells.join("  ").trim_end())
            }
            _ => self.put(row),
        }
    }

    /// Prints a line as it is.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        written(writeln!(self.out, "{line}"))
    }

    /// Gives what was printed to whoever reads stdout.
    pub fn flush(&mut self) -> Result<(), Failure> {
        written(self.out.flush())
    }

    fn put<R: Row>(&mut self, row: &R) -> Result<(), Failure> {
        let line = match self.format {
            Format::Json => serde_json::to_string(row)?,
            _ => row.cells().iter().map(|cell| visible(cell)).collect::<Vec<_>>().join("\t"),
        };
        self.line(&line)
    }

    fn table<R: Row>(&mut self, rows: &[R]) -> Result<(), Failure> {
        let cells: Vec<Vec<String>> =
            rows.iter().map(|row| row.cells().iter().map(|cell| visible(cell)).collect()).collect();
        let head: Vec<String> = R::COLUMNS.iter().map(|column| column.to_string()).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|at| cells.iter().chain([&head]).map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        for row in [&head].into_iter().chain(&cells) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// The text with control characters, line ends and tabs as escapes.
pub fn visible(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() || is_reordering(c)) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut out, c| {
        if c.is_control() || is_reordering(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}

/// Characters that turn around the rest of a line.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whoever reads stdout may stop reading: that ends the program without a complaint.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(Failure::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobodys_message_moves_anybodys_cursor() {
        assert_eq!(visible("grüße 你好 🦆"), "grüße 你好 🦆");
        assert_eq!(visible("a\tb\nc\u{1b}[2J"), "a\\tb\\nc\\u{1b}[2J");
        assert_eq!(visible("abc\u{202e}def"), "abc\\u{202e}def");
    }
}
