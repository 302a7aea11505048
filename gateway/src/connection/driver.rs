//! Carries out what a connection's machine decides: one task that reads, answers and writes.
//!
//! One loop, one enum of everything that can happen. What always holds: whatever is queued goes out before more is
//! taken in; frames are not taken while too much of this client is in flight or unread; an idle connection keeps no
//! large buffer.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fanout::{Code, Fault};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant as TokioInstant, Sleep};

use super::Connection;
use super::inbound::Inbound;
use super::machine::{End, Machine, Timing};
use super::pipeline::Pipeline;
use super::shared::QUIET_BUFFER_BYTES;
use crate::operation;
use crate::session::Gateway;
use crate::wire::frame::{self, Frame, Header};
use crate::wire::operation::Operation;

/// Bytes of requests in flight of one connection: their frames stay in memory until they are answered.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// What a closing socket still takes in, and how long, so that a reset does not overtake the farewell.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Serves a connection until it ends.
pub async fn drive<S: AsyncRead + AsyncWrite + Unpin>(stream: S, gateway: Arc<Gateway>, connection: Arc<Connection>) {
    let machine = Machine::new(Timing::new(gateway.limits()), Instant::now());
    let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut driver = Driver {
        stream,
        gateway,
        connection,
        machine,
        pipeline: Pipeline::default(),
        inbound: Inbound::new(),
        more: false,
        writing: BytesMut::new(),
        written: 0,
        unflushed: false,
        timer,
    };
    driver.run().await;
    driver.connection.end();
    driver.farewell().await;
}

/// What can happen to a connection.
enum Event {
    /// Bytes were read, or frames that had to wait can be taken.
    Received,
    /// The other side has closed.
    Gone,
    /// The socket failed.
    Broken(std::io::Error),
    /// Somebody wants nothing new to be begun.
    Drain,
    /// Everything is written and the connection is to close.
    Finished,
    /// A reader that lagged has drained.
    Drained,
    /// A deadline has come.
    Deadline,
}

struct Driver<S> {
    stream: S,
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    machine: Machine,
    pipeline: Pipeline,
    inbound: Inbound,
    /// `inbound` may hold a whole frame.
    more: bool,
    writing: BytesMut,
    written: usize,
    unflushed: bool,
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    async fn run(&mut self) {
        self.rearm();
        loop {
            match std::future::poll_fn(|cx| self.poll_event(cx)).await {
                Event::Received => self.take_frames(),
                Event::Drain => self.machine.drain(),
                Event::Drained => self.catch_up(),
                Event::Deadline => {
                    if !self.keep_time() {
                        return;
                    }
                }
                Event::Gone | Event::Finished => return,
                Event::Broken(error) => {
                    tracing::debug!(connection = %self.connection.id(), %error, "connection failed");
                    return;
                }
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.connection.watch(cx.waker());
        if let Poll::Ready(event) = self.poll_write(cx) {
            return Poll::Ready(event);
        }
        if self.machine.is_open() && self.takes_frames() {
            if self.more {
                return Poll::Ready(Event::Received);
            }
            if let Poll::Ready(event) = self.poll_read(cx) {
                return Poll::Ready(event);
            }
        }
        self.timer.as_mut().poll(cx).map(|()| Event::Deadline)
    }

    /// Writes until nothing is left or the socket takes no more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            if self.writing.is_empty()
                && let Some(event) = self.collect()
            {
                return Poll::Ready(event);
            }
            if self.writing.is_empty() {
                return self.poll_flush(cx);
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.writing[self.written..]) {
                Poll::Ready(Ok(count)) if count > 0 => self.wrote(count),
                Poll::Ready(Ok(_)) => return Poll::Ready(Event::Gone),
                Poll::Ready(Err(error)) => return Poll::Ready(Event::Broken(error)),
                Poll::Pending => {
                    self.machine.blocked(Instant::now());
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes what is queued and hears what others want.
    fn collect(&mut self) -> Option<Event> {
        let orders = self.connection.collect(&mut self.writing);
        if orders.drain && self.machine.begins_draining() {
            return Some(Event::Drain);
        }
        if orders.close && self.machine.is_open() {
            self.machine.close(Instant::now());
            self.rearm();
        }
        if orders.close && self.writing.is_empty() && !self.unflushed {
            return Some(Event::Finished);
        }
        orders.catch_up.then_some(Event::Drained)
    }

    fn wrote(&mut self, count: usize) {
        self.written += count;
        self.unflushed = true;
        let left = self.written < self.writing.len();
        if left || self.machine.is_stalled() {
            self.machine.progressed(left, Instant::now());
        }
        if !left {
            self.writing.clear();
            self.written = 0;
        }
    }

    /// TLS keeps what it has encrypted until it is flushed.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if !self.unflushed {
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                self.machine.progressed(false, Instant::now());
                // What ordered the end may have been heard before this was flushed.
                if self.machine.is_open() { Poll::Pending } else { Poll::Ready(Event::Finished) }
            }
            Poll::Ready(Err(error)) => Poll::Ready(Event::Broken(error)),
            Poll::Pending => {
                self.machine.blocked(Instant::now());
                Poll::Pending
            }
        }
    }

    fn takes_frames(&self) -> bool {
        let limits = self.gateway.limits();
        self.has_reply_room(limits.outbound_bytes as usize)
            && self.connection.takes_requests(limits.requests_in_flight as usize, REQUEST_BYTES_MAX)
    }

    /// Replies have as much room again as pushes; a client that reads neither gets no more of them.
    fn has_reply_room(&self, outbound_bytes: usize) -> bool {
        self.writing.is_empty()
            || self.writing.len() - self.written + self.connection.queued_bytes() <= 2 * outbound_bytes
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let buffer = self.inbound.room();
        let room = buffer.capacity() - buffer.len();
        match pin!(self.stream.read_buf(buffer)).poll(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Event::Gone),
            Poll::Ready(Ok(count)) => {
                self.more = true;
                if count == room {
                    self.inbound.was_filled();
                }
                Poll::Ready(Event::Received)
            }
            Poll::Ready(Err(error)) => Poll::Ready(Event::Broken(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes whole frames off what was read, as long as they may be begun.
    fn take_frames(&mut self) {
        self.more = false;
        let now = Instant::now();
        while self.machine.is_open() {
            match frame::decode(self.inbound.bytes(), self.gateway.limits().frame_bytes as usize) {
                Ok(Some(frame)) => {
                    self.machine.heard(now);
                    self.take(frame);
                }
                Ok(None) => return,
                Err(error) => {
                    self.gateway.figures().frames_rejected.increment(1);
                    return self.close(&Fault::new(Code::BadFrame, error.to_string()));
                }
            }
            if !self.takes_frames() {
                self.more = true;
                return;
            }
        }
    }

    fn take(&mut self, Frame { header, body }: Frame) {
        let known = Operation::from_number(header.operation)
            .ok_or_else(|| Fault::new(Code::UnknownOperation, format!("no operation {}", header.operation)));
        let done = known.and_then(|operation| {
            self.machine.admit(operation)?;
            self.begin(operation, header, body)
        });
        if let Err(fault) = done {
            self.gateway.figures().requests_refused.increment(1);
            self.connection.refuse(header.operation, header.request_id, &fault);
        }
    }

    /// Begins a request that may be asked for. What is quick is done here; what waits gets a task of its own.
    fn begin(&mut self, operation: Operation, header: Header, body: Bytes) -> Result<(), Fault> {
        match operation {
            Operation::Send => {
                let caller = self.machine.caller();
                operation::message::send(&self.gateway, &self.connection, &mut self.pipeline, caller, header, body)
            }
            Operation::Hello => self.hello(header, &body),
            _ => match operation::answer_now(&self.gateway, self.machine.caller(), operation, &body) {
                Some(answer) => {
                    let answer = answer?;
                    self.connection.reply(header.operation, header.request_id, |out| out.extend_from_slice(&answer));
                    Ok(())
                }
                None => {
                    operation::spawn(&self.gateway, &self.connection, self.machine.caller(), operation, header, body);
                    Ok(())
                }
            },
        }
    }

    fn hello(&mut self, header: Header, body: &Bytes) -> Result<(), Fault> {
        let claims = operation::hello::greet(&self.gateway, &self.connection, header, body)?;
        self.machine.greet(&claims);
        self.rearm();
        Ok(())
    }

    fn catch_up(&self) {
        self.gateway.catch_up(&self.connection);
    }

    fn close(&mut self, fault: &Fault) {
        self.connection.close(Some(fault));
        self.machine.close(Instant::now());
        self.rearm();
    }

    /// What time has done; `false`: the connection is over.
    fn keep_time(&mut self) -> bool {
        match self.machine.elapsed(Instant::now(), self.gateway.now()) {
            Some(End::Silent(why)) => {
                tracing::debug!(connection = %self.connection.id(), why, "connection given up");
                return false;
            }
            Some(End::Tell(fault)) => self.close(&fault),
            None => {
                self.rest();
                self.rearm();
            }
        }
        true
    }

    fn rearm(&mut self) {
        let deadline = self.machine.deadline(Instant::now(), self.gateway.now());
        self.timer.as_mut().reset(TokioInstant::from_std(deadline));
    }

    /// Gives back the memory of buffers that are empty.
    fn rest(&mut self) {
        self.inbound.rest();
        if self.writing.is_empty() && self.writing.capacity() > QUIET_BUFFER_BYTES {
            self.writing = BytesMut::new();
        }
        self.connection.rest();
    }

    /// Closes the socket so that the other side can read all that was written, whatever it still sends.
    async fn farewell(&mut self) {
        let linger = async {
            if self.stream.shutdown().await.is_err() {
                return;
            }
            let mut left = LINGER_BYTES;
            while left > 0 {
                self.inbound.bytes().clear();
                match self.stream.read_buf(self.inbound.room()).await {
                    Ok(count) if count > 0 => left = left.saturating_sub(count),
                    _ => return,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, linger).await;
    }
}
