//! A lone send: one message at a time over one connection, nobody else about.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gateway::wire::operation::Operation;
use gateway::wire::proto;

use super::plan::Party;
use crate::bench::accounts::client_name;
use crate::bench::ids::MessageIds;
use crate::bench::latency::{Latency, Percentiles};
use crate::bench::poll::Poller;
use crate::bench::wire::{Id, Link, SendAck, decode, error_of};

/// How long it is measured; at most so many sends.
const MEASURED: Duration = Duration::from_millis(700);
const SENDS_MAX: u32 = 5_000;
/// Not counted: the first are slower.
const WARM_UP: u32 = 50;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Send → durable ack, one at a time, in a conversation nobody listens to.
pub fn lone_send(server: SocketAddr, party: &Party, conversation: &Id) -> anyhow::Result<Percentiles> {
    let mut caller = Caller { link: Link::connect(server, TIMEOUT)?, poller: Poller::new()? };
    caller.poller.add(caller.link.stream(), 0)?;
    let hello = proto::Hello {
        version: 1,
        token: party.token.clone(),
        device: "bench".into(),
        client: client_name(),
        ..Default::default()
    };
    caller.link.outbox.put(Operation::Hello, 1, &hello);
    let welcome: proto::HelloReply = caller.answer(1, decode)?;
    let (mut ids, mut latency, mut ack) = (MessageIds::new(), Latency::new(), SendAck::default());
    ids.set_server_time(welcome.server_time_ms);
    let begun = Instant::now();
    for n in 0..SENDS_MAX {
        ids.look_at_clock();
        let mut frame = caller.link.outbox.begin_send(n + 2, 1);
        frame.push(conversation, &ids.id(), &[b'x'; 200]);
        frame.finish();
        let before = Instant::now();
        caller.answer(n + 2, |body| ack.read(body))?;
        if ack.seq_ids.contains(&0) {
            bail!("a lone send was refused: {:?}", ack.refusals);
        }
        if n >= WARM_UP {
            latency.record(before.elapsed().as_nanos() as u64);
        }
        if begun.elapsed() > MEASURED {
            break;
        }
    }
    Ok(latency.percentiles())
}

struct Caller {
    link: Link,
    poller: Poller,
}

impl Caller {
    /// Writes what is in the outbox and waits for the answer of this id.
    fn answer<T>(
        &mut self,
        id: u32,
        read: impl FnOnce(&[u8]) -> Result<T, crate::bench::wire::Malformed>,
    ) -> anyhow::Result<T> {
        self.link.flush()?;
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            self.poller.wait(TIMEOUT, |_| {})?;
            self.link.receive().context("the connection ended")?;
            while let Some((header, at)) = self.link.inbox.next_frame()? {
                let body = self.link.inbox.body(at);
                if header.request_id == id {
                    if let Some(error) = error_of(&header, body)? {
                        bail!("refused: {}", error.message);
                    }
                    return Ok(read(body)?);
                }
            }
        }
        bail!("no answer within {} s", TIMEOUT.as_secs())
    }
}
