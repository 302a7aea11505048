//! `skein send`: the words given, or each line of standard input.
//!
//! One line is printed a message, in order, once it is durable or refused. A connection that ends is made again and
//! what was not acknowledged is sent again under the same ids, so that nothing is stored twice.

use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args as ClapArgs;
use futures::FutureExt;
use gateway::client::{Event, MessageClock, Outgoing, SendOutcome, Session, SessionOptions, SessionSender, Ticket};
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConversationId};
use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::identity::Identity;
use super::log_time;
use super::record::uuid;
use super::target::Target;
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};

/// Lines given to the session at a time.
const LINES_A_BATCH: usize = 256;
/// Longer lines are an error before they are in memory; the server's limit on texts is far below.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Messages whose ack is not printed; beyond, reading waits.
const UNPRINTED_MAX: usize = 8192;

/// Arguments.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:\n  \
    skein send --to bob hello, how are you\n  \
    skein send --group welcome 'good morning'\n  \
    ls | skein send --to bob -o json\n\n\
    Prints one line a message, in order, once it is durable or refused.\n\
    Exit codes: 0 all durable, 3 one or more refused, 4 no server there.")]
pub struct Args {
    #[command(flatten)]
    to: Recipient,
    /// The message; without it every line of standard input is one
    #[arg(value_name = "TEXT")]
    text: Vec<String>,
    /// Send under this client_msg_id (a UUIDv7), to repeat an attempt whose outcome is unknown
    #[arg(long, value_name = "UUID", requires = "text")]
    id: Option<Uuid>,
    /// How long to try again when the connection is lost, or the server takes nothing
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
}

/// Where to.
#[derive(ClapArgs, Debug)]
#[group(required = true, multiple = false)]
pub struct Recipient {
    /// To this user
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// To the group with this id, or of this name if you are in only one of that name
    #[arg(long, value_name = "ID")]
    group: Option<String>,
}

#[derive(Serialize)]
struct Ack {
    conversation: String,
    /// 0: refused.
    seq_id: u64,
    server_msg_id: String,
    client_msg_id: String,
    sent_at: String,
    duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Refused>,
}

#[derive(Serialize)]
struct Refused {
    code: u32,
    name: &'static str,
    message: String,
}

impl Row for Ack {
    const COLUMNS: &'static [&'static str] = &["seq", "server msg id", "client msg id", "sent at", "note"];

    fn cells(&self) -> Vec<String> {
        let note = match (&self.error, self.duplicate) {
            (Some(refused), _) => format!("{}: {}", refused.name, refused.message),
            (None, true) => "stored by an earlier attempt".into(),
            (None, false) => String::new(),
        };
        let seq = self.seq_id.to_string();
        vec![seq, self.server_msg_id.clone(), self.client_msg_id.clone(), self.sent_at.clone(), note]
    }
}

/// Runs it.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let identity = Identity::of(globals)?;
    let signed = identity.connect().await?;
    let target = Target { with: args.to.to.clone(), group: args.to.group.clone() };
    let conversation = target.open(&signed).await?;
    drop(signed);
    let options = SessionOptions { attach: false, give_up_after: Some(args.retry_for), ..SessionOptions::default() };
    let mut session = identity.session(options).await?;
    let sender = session.sender();
    let (queue, unprinted) = mpsc::channel(UNPRINTED_MAX);
    let giving = async {
        let messages = Messages { conversation, sender, queue };
        if args.text.is_empty() {
            messages.give_lines(BufReader::with_capacity(64 << 10, tokio::io::stdin())).await
        } else {
            messages.give(vec![args.text.join(" ").into_bytes()], args.id).await
        }
    };
    let printing = print_acks(conversation, unprinted, printer);
    let both = async { tokio::try_join!(giving, printing) };
    tokio::select! {
        done = both => verdict(done?.1),
        error = say_what_happens(&mut session) => Err(error),
    }
}

/// How many of how many were refused.
#[derive(Clone, Copy, Default)]
struct Tally {
    refused: u64,
    messages: u64,
}

fn verdict(tally: Tally) -> Result<(), Failure> {
    match tally.refused {
        0 => Ok(()),
        refused => Err(Failure::Refused(anyhow!("{refused} of {} messages were refused", tally.messages))),
    }
}

/// Where messages go, and who prints what becomes of them.
struct Messages {
    conversation: ConversationId,
    sender: SessionSender,
    queue: mpsc::Sender<(ClientMsgId, Ticket)>,
}

impl Messages {
    async fn give_lines(self, mut input: impl AsyncBufRead + Unpin) -> Result<(), Failure> {
        loop {
            let lines = read_lines(&mut input).await?;
            if lines.is_empty() {
                return Ok(());
            }
            self.give_some(lines, None).await?;
        }
    }

    async fn give(self, texts: Vec<Vec<u8>>, id: Option<Uuid>) -> Result<(), Failure> {
        self.give_some(texts, id).await
    }

    async fn give_some(&self, texts: Vec<Vec<u8>>, id: Option<Uuid>) -> Result<(), Failure> {
        let clock = self.sender.clock();
        let messages: Vec<_> = texts.into_iter().map(|text| self.message(text, id, clock)).collect();
        let ids: Vec<_> = messages.iter().map(|message| message.client_msg_id).collect();
        let tickets = self.sender.send_all(messages).await?;
        for each in ids.into_iter().zip(tickets) {
            if self.queue.send(each).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn message(&self, text: Vec<u8>, id: Option<Uuid>, clock: MessageClock) -> Outgoing {
        Outgoing {
            conversation: self.conversation,
            client_msg_id: id.map_or_else(|| clock.id(), |id| ClientMsgId(id.as_u128())),
            kind: RecordKind::TEXT,
            // Bytes that are not UTF-8 are the server's to refuse, each message for itself.
            content: Bytes::from(text),
        }
    }
}

async fn print_acks(
    conversation: ConversationId,
    mut unprinted: mpsc::Receiver<(ClientMsgId, Ticket)>,
    printer: &mut Printer,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    while let Some((id, mut ticket)) = unprinted.recv().await {
        let settled = match ticket.settle().now_or_never() {
            Some(settled) => settled,
            None => {
                // What is known is shown before the next is waited for.
                printer.flush()?;
                ticket.settled().await
            }
        };
        let Ok(outcome) = settled else {
            // The session is over; why is told by its events.
            return std::future::pending().await;
        };
        tally.messages += 1;
        if let Err(refusal) = &outcome {
            tally.refused += 1;
            eprintln!("skein: message {}: {refusal}", tally.messages);
        }
        printer.row(&ack(conversation, id, outcome))?;
        if unprinted.is_empty() {
            printer.flush()?;
        }
    }
    printer.flush()?;
    Ok(tally)
}

fn ack(conversation: ConversationId, id: ClientMsgId, outcome: SendOutcome) -> Ack {
    let (stored, refusal) = match outcome {
        Ok(stored) => (Some(stored), None),
        Err(refusal) => (None, Some(refusal)),
    };
    Ack {
        conversation: conversation.to_string(),
        seq_id: stored.map_or(0, |stored| stored.seq_id.0),
        server_msg_id: stored.map_or_else(String::new, |stored| stored.server_msg_id.to_string()),
        client_msg_id: uuid(id),
        sent_at: stored.map_or_else(String::new, |stored| log_time(stored.time)),
        duplicate: stored.is_some_and(|stored| stored.duplicate),
        error: refusal.map(|r| Refused { code: r.number, name: r.name(), message: r.message }),
    }
}

/// Tells on stderr how the connection fares; returns when the session is over.
pub async fn say_what_happens(session: &mut Session) -> Failure {
    loop {
        match session.next().await {
            Ok(event) => say(&event),
            Err(error) => return error.into(),
        }
    }
}

/// Tells on stderr what somebody who waits wants to know.
pub fn say(event: &Event) {
    match event {
        Event::Offline { error, retry_in } => {
            eprintln!("skein: {error}; trying again in {} ms", retry_in.as_millis());
        }
        Event::Stalled(refusal) => eprintln!("skein: nothing is taken for now: {refusal}; trying again"),
        Event::Draining { reason } => eprintln!("skein: the server is about to stop: {reason}"),
        Event::Reset { .. } => eprintln!("skein: the server went back to an earlier state"),
        _ => {}
    }
}

/// Waits for a line, and takes those that are there already; empty: the end.
async fn read_lines(input: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<Vec<u8>>, Failure> {
    let mut lines = Vec::new();
    while lines.len() < LINES_A_BATCH {
        let Some(line) = read_line(input).await? else { break };
        lines.push(line);
        // What is buffered can be looked at without waiting only through a poll that is ready.
        let more = input.fill_buf().now_or_never();
        if !matches!(more, Some(Ok(buffer)) if buffer.contains(&b'\n')) {
            break;
        }
    }
    Ok(lines)
}

/// One line without its end; `None`: there are no more.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            return Ok((!line.is_empty()).then_some(line));
        }
        let (taken, ends) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        if line.len() + taken > LINE_BYTES_MAX {
            return Err(anyhow!("a line of standard input is longer than {LINE_BYTES_MAX} bytes").into());
        }
        line.extend_from_slice(&buffer[..taken]);
        input.consume(taken);
        if ends {
            line.pop();
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_taken_byte_for_byte_the_last_one_without_an_end_too() {
        let mut input = BufReader::new(&b"one\n\n\xff tw\to \r\nthree"[..]);
        let mut lines = Vec::new();
        loop {
            let some = read_lines(&mut input).await.unwrap();
            if some.is_empty() {
                break;
            }
            lines.extend(some);
        }
        assert_eq!(lines, [&b"one"[..], b"", b"\xff tw\to \r", b"three"]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_before_it_fills_memory() {
        let endless = vec![b'x'; LINE_BYTES_MAX + 1];
        assert!(read_lines(&mut BufReader::new(&endless[..])).await.is_err());
    }
}
