//! One socket: requests pipelined by id, answers matched to them, pushes as a bounded stream.
//!
//! What always holds: requests leave in the order in which [`Connection::begin`] returned; every request ends, with an
//! answer or a typed error; when the connection ends, all that wait are told why.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::push::{self, Push, Pushes};
use super::{Error, Refusal, Tls};
use crate::wire::frame::{self, Frame, HEADER_BYTES};
use crate::wire::operation::Operation;
use crate::wire::proto;

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 64 << 10;
/// A written-out buffer larger than this is given back rather than kept.
const KEPT_BUFFER_BYTES_MAX: usize = 256 << 10;

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// TLS; `None`: plain TCP.
    pub tls: Option<Tls>,
    /// Longest wait for a connection to stand.
    pub connect_timeout: Duration,
    /// Longest wait for an answer.
    pub request_timeout: Duration,
    /// Requests without an answer; one more waits.
    pub requests_in_flight_max: usize,
    /// Pushes not taken; one more stops reading.
    pub pushes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            tls: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            requests_in_flight_max: 256,
            pushes_max: 256,
        }
    }
}

/// A connection. Clones share it; it closes with the last one.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<Handle>,
}

/// Closes the connection when the last clone is gone; the tasks hold only `Shared`.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(closed("this side closed it"));
    }
}

struct Shared {
    calls: Mutex<Calls>,
    /// Encoded frames that wait for the writer.
    outbound: Mutex<BytesMut>,
    wake_writer: Notify,
    stop: CancellationToken,
    in_flight: Arc<Semaphore>,
    frame_bytes_max: AtomicUsize,
    /// Silence after which the writer sends a ping; 0: none before `hello`.
    heartbeat_ms: AtomicU64,
    request_timeout: Duration,
}

#[derive(Default)]
struct Calls {
    waiting: HashMap<u32, oneshot::Sender<Result<Bytes, Error>>>,
    last_id: u32,
    closed: Option<Error>,
    /// What the server said before it closed.
    closing: Option<Refusal>,
}

impl Connection {
    /// Connects to `server` (`host:port`).
    pub async fn connect(server: &str, options: Options) -> Result<(Connection, Pushes), Error> {
        let unreachable = |reason: String| Error::Unreachable { server: server.to_owned(), reason };
        let connecting = async {
            let stream = TcpStream::connect(server).await.map_err(|error| unreachable(error.to_string()))?;
            stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
            match &options.tls {
                None => Ok(Connection::over(stream, &options)),
                Some(tls) => Ok(Connection::over(tls.handshake(stream, server).await?, &options)),
            }
        };
        match timeout(options.connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(unreachable(format!("no answer within {} s", options.connect_timeout.as_secs_f64()))),
        }
    }

    /// Speaks over a stream that already stands.
    pub fn over<S>(stream: S, options: &Options) -> (Connection, Pushes)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            outbound: Mutex::default(),
            wake_writer: Notify::new(),
            stop: CancellationToken::new(),
            in_flight: Arc::new(Semaphore::new(options.requests_in_flight_max.max(1))),
            frame_bytes_max: AtomicUsize::new(frame::CLIENT_FRAME_BYTES_MAX),
            heartbeat_ms: AtomicU64::new(0),
            request_timeout: options.request_timeout,
        });
        let (sender, receiver) = mpsc::channel(options.pushes_max.max(1));
        let (read_half, write_half) = tokio::io::split(stream);
        tokio::spawn(run_until_closed(shared.clone(), read_frames(shared.clone(), read_half, sender)));
        tokio::spawn(run_until_closed(shared.clone(), write_frames(shared.clone(), write_half)));
        (Connection { handle: Arc::new(Handle { shared }) }, Pushes { receiver })
    }

    /// Sends a request; it has its place in the order when this returns. The answer is awaited apart.
    pub async fn begin<T: Message + Default>(
        &self,
        operation: Operation,
        body: &impl Message,
    ) -> Result<Reply<T>, Error> {
        let shared = &self.handle.shared;
        let bytes = HEADER_BYTES + body.encoded_len();
        let limit = shared.frame_bytes_max.load(Ordering::Relaxed);
        if bytes > limit {
            return Err(Error::TooLarge { bytes, limit });
        }
        let permit = shared.in_flight.clone().acquire_owned().await.map_err(|_| shared.closed_error())?;
        let (id, answer) = shared.enqueue(operation, body)?;
        shared.wake_writer.notify_one();
        Ok(Reply { answer, id, shared: shared.clone(), _permit: permit, body: PhantomData })
    }

    /// Sends a request and awaits its answer.
    pub async fn call<T: Message + Default>(&self, operation: Operation, body: &impl Message) -> Result<T, Error> {
        self.begin(operation, body).await?.wait().await
    }

    /// Closes the connection; whoever waits on it is told.
    pub fn close(&self) {
        self.handle.shared.close(closed("this side closed it"));
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.handle.shared.stop.is_cancelled()
    }

    /// Returns once it has ended, with the reason.
    pub async fn closed(&self) -> Error {
        self.handle.shared.stop.cancelled().await;
        self.handle.shared.closed_error()
    }

    /// Takes over what the server said in its greeting.
    pub(super) fn adopt(&self, hello: &proto::HelloReply) {
        let shared = &self.handle.shared;
        if hello.frame_bytes_max as usize > HEADER_BYTES {
            shared.frame_bytes_max.store(hello.frame_bytes_max as usize, Ordering::Relaxed);
        }
        shared.heartbeat_ms.store(hello.heartbeat_ms, Ordering::Relaxed);
        shared.wake_writer.notify_one();
    }
}

/// An answer to come. Dropping it forgets the request, which may be carried out nevertheless.
pub struct Reply<T> {
    answer: oneshot::Receiver<Result<Bytes, Error>>,
    id: u32,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
    body: PhantomData<fn() -> T>,
}

impl<T: Message + Default> Reply<T> {
    /// Awaits the answer.
    pub async fn wait(mut self) -> Result<T, Error> {
        let after = self.shared.request_timeout;
        match timeout(after, &mut self.answer).await {
            Ok(Ok(answer)) => push::parse(answer?),
            Ok(Err(_)) => Err(self.shared.closed_error()),
            Err(_) => Err(Error::Timeout { after }),
        }
    }
}

impl<T> Reply<T> {
    /// The request's id, as `accepted` pushes name it.
    pub fn request_id(&self) -> u32 {
        self.id
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.shared.calls.lock().waiting.remove(&self.id);
    }
}

impl Shared {
    /// Encodes a request behind those that wait, and notes who wants the answer.
    fn enqueue(
        &self,
        operation: Operation,
        body: &impl Message,
    ) -> Result<(u32, oneshot::Receiver<Result<Bytes, Error>>), Error> {
        let (sender, receiver) = oneshot::channel();
        let mut outbound = self.outbound.lock();
        let id = self.calls.lock().admit(sender)?;
        frame::encode(&mut outbound, 0, operation.number(), id, body);
        Ok((id, receiver))
    }

    /// A request whose answer nobody awaits: it keeps the connection alive.
    fn enqueue_ping(&self) {
        let mut outbound = self.outbound.lock();
        let id = self.calls.lock().next_id();
        frame::encode(&mut outbound, 0, Operation::Ping.number(), id, &proto::Ping { echo: 0 });
    }

    /// Ends the connection; the first reason stays.
    fn close(&self, reason: Error) {
        {
            let mut calls = self.calls.lock();
            if calls.closed.is_none() {
                let said = calls.closing.as_ref().map(|refusal| closed(format!("the server closed it: {refusal}")));
                calls.closed = Some(said.unwrap_or(reason));
            }
            // Dropped senders tell their receivers, which then ask for the reason.
            calls.waiting.clear();
        }
        self.in_flight.close();
        self.stop.cancel();
    }

    fn closed_error(&self) -> Error {
        self.calls.lock().closed.clone().unwrap_or_else(|| closed("this side closed it"))
    }

    fn heartbeat(&self) -> Option<Duration> {
        match self.heartbeat_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }
}

impl Calls {
    fn admit(&mut self, sender: oneshot::Sender<Result<Bytes, Error>>) -> Result<u32, Error> {
        if let Some(reason) = &self.closed {
            return Err(reason.clone());
        }
        let id = self.next_id();
        self.waiting.insert(id, sender);
        Ok(id)
    }

    /// The next id that nobody waits for; never 0, which is the mark of a push.
    fn next_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && !self.waiting.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

/// Runs one direction; whichever ends first ends the connection.
async fn run_until_closed(shared: Arc<Shared>, direction: impl Future<Output = Error>) {
    tokio::select! {
        reason = direction => shared.close(reason),
        () = shared.stop.cancelled() => {}
    }
}

/// Reads until the connection ends; returns why.
async fn read_frames(shared: Arc<Shared>, mut stream: impl AsyncRead + Unpin, pushes: mpsc::Sender<Push>) -> Error {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        loop {
            match frame::decode(&mut buffer, frame::SERVER_FRAME_BYTES_MAX) {
                Ok(Some(frame)) => {
                    if let Err(error) = take_frame(&shared, frame, &pushes).await {
                        return closed(error.to_string());
                    }
                }
                Ok(None) => break,
                Err(_) if is_tls(&buffer) => return Error::SpeaksTls,
                Err(error) => return closed(error.to_string()),
            }
        }
        buffer.reserve(READ_BYTES);
        let reading = stream.read_buf(&mut buffer);
        let read = match shared.heartbeat() {
            None => reading.await,
            // Pings are answered: a silence of two heartbeats and an answer's time is a dead peer.
            Some(beat) => match timeout(beat * 2 + shared.request_timeout, reading).await {
                Ok(read) => read,
                Err(_) => return closed("the server fell silent"),
            },
        };
        match read {
            Ok(0) => return closed("the server closed it"),
            Ok(_) => {}
            Err(error) => return closed(error.to_string()),
        }
    }
}

fn closed(reason: impl Into<String>) -> Error {
    Error::Closed { reason: reason.into() }
}

/// Whether bytes that are no frame are the alert with which TLS turns away who does not speak it.
fn is_tls(bytes: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const MAJOR_VERSION: u8 = 3;
    bytes.starts_with(&[ALERT, MAJOR_VERSION])
}

async fn take_frame(shared: &Shared, frame: Frame, pushes: &mpsc::Sender<Push>) -> Result<(), Error> {
    if frame.header.flags & frame::FLAG_PUSH != 0 {
        return take_push(shared, frame, pushes).await;
    }
    if frame.header.flags & frame::FLAG_RESPONSE == 0 {
        return Err(Error::Protocol("the server made a request".into()));
    }
    let waiting = shared.calls.lock().waiting.remove(&frame.header.request_id);
    // Nobody waits for answers to pings and to requests that were given up.
    if let Some(waiting) = waiting {
        let _ = waiting.send(answer_of(frame));
    }
    Ok(())
}

fn answer_of(frame: Frame) -> Result<Bytes, Error> {
    if frame.header.flags & frame::FLAG_ERROR == 0 {
        return Ok(frame.body);
    }
    let error: proto::Error = push::parse(frame.body)?;
    Err(Error::Refused(error.into()))
}

async fn take_push(shared: &Shared, frame: Frame, pushes: &mpsc::Sender<Push>) -> Result<(), Error> {
    let Some(push) = push::decode(frame)? else { return Ok(()) };
    if let Push::Closing(refusal) = &push {
        shared.calls.lock().closing = Some(refusal.clone());
    }
    // An error here means that nobody wants pushes.
    let _ = pushes.send(push).await;
    Ok(())
}

/// Writes whatever has been queued, in one call for as much as there is; returns why it ended.
async fn write_frames(shared: Arc<Shared>, mut stream: impl AsyncWrite + Unpin) -> Error {
    let mut writing = BytesMut::new();
    loop {
        std::mem::swap(&mut *shared.outbound.lock(), &mut writing);
        if writing.is_empty() {
            wait_for_work(&shared).await;
            continue;
        }
        let written = async {
            stream.write_all(&writing).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            return closed(error.to_string());
        }
        if writing.capacity() > KEPT_BUFFER_BYTES_MAX { writing = BytesMut::new() } else { writing.clear() }
    }
}

async fn wait_for_work(shared: &Shared) {
    match shared.heartbeat() {
        None => shared.wake_writer.notified().await,
        Some(beat) => {
            if timeout(beat, shared.wake_writer.notified()).await.is_err() {
                shared.enqueue_ping();
            }
        }
    }
}
