//! A client that knows frames and bodies, and nothing else: what a test sends is what goes over the wire.

#![allow(dead_code)] // Each test file uses a part of it.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway::config::{Config, Size};
use gateway::node::Node;
use gateway::wire::frame::{self, FLAG_ERROR, FLAG_PUSH, FLAG_RESPONSE, Frame, SERVER_FRAME_BYTES_MAX};
use gateway::wire::operation::Operation;
use gateway::wire::{convert, proto};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Nothing on one machine takes longer.
const SOON: Duration = Duration::from_secs(20);

/// A dev node on ports of its own.
pub async fn start(data_dir: &Path) -> Node {
    start_with(data_dir, |_| {}).await
}

/// The same, with some of the configuration changed.
pub async fn start_with(data_dir: &Path, change: impl FnOnce(&mut Config)) -> Node {
    let mut config = Config {
        dev: true,
        data_dir: data_dir.to_path_buf(),
        listen: ([127, 0, 0, 1], 0).into(),
        http: ([127, 0, 0, 1], 0).into(),
        shards: 4,
        ..Config::default()
    };
    config.journal.file_bytes = Size(8 << 20);
    change(&mut config);
    Node::start(config).await.unwrap()
}

/// A UUIDv7 of now.
pub fn new_id() -> Bytes {
    convert::id_bytes(uuid::Uuid::now_v7().as_u128())
}

/// A socket, plain or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection.
pub struct Raw {
    pub stream: Box<dyn Stream>,
    buffer: BytesMut,
    request_id: u32,
    /// Pushes that came while something else was waited for.
    pushes: Vec<Frame>,
}

impl Raw {
    pub async fn connect(node: &Node) -> Raw {
        Raw::over(TcpStream::connect(node.client_addr()).await.unwrap())
    }

    /// A connection for which the kernel keeps little that nobody reads.
    pub async fn connect_with_small_buffer(node: &Node) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 << 10).unwrap();
        Raw::over(socket.connect(node.client_addr()).await.unwrap())
    }

    /// A connection in TLS to whoever has this certificate.
    pub async fn connect_tls(node: &Node, cert: rustls_pki_types::CertificateDer<'static>) -> Raw {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(node.client_addr()).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.unwrap();
        Raw::on(Box::new(tls))
    }

    fn over(stream: TcpStream) -> Raw {
        stream.set_nodelay(true).unwrap();
        Raw::on(Box::new(stream))
    }

    fn on(stream: Box<dyn Stream>) -> Raw {
        Raw { stream, buffer: BytesMut::new(), request_id: 0, pushes: Vec::new() }
    }

    /// A connection that has said hello.
    pub async fn signed_in(node: &Node, token: &str) -> Raw {
        let mut raw = Raw::connect(node).await;
        raw.hello(hello(token)).await;
        raw
    }

    /// A connection that follows the tails, all caught up; and what it was told meanwhile.
    pub async fn attached(node: &Node, token: &str, cursor: Option<proto::Cursor>) -> (Raw, Told) {
        Raw::connect(node).await.attach(token, cursor).await
    }

    pub async fn attach(mut self, token: &str, cursor: Option<proto::Cursor>) -> (Raw, Told) {
        let reply = self.hello(proto::Hello { attach: true, bodies: true, cursor, ..hello(token) }).await;
        let mut told = Told { history: reply.history, ..Told::default() };
        while !told.all {
            told.take(self.push().await);
        }
        (self, told)
    }

    pub async fn hello(&mut self, hello: proto::Hello) -> proto::HelloReply {
        self.ask(Operation::Hello, &hello).await.unwrap()
    }

    /// Writes a request and returns its id.
    pub async fn send(&mut self, operation: Operation, body: &impl Message) -> u32 {
        self.request_id += 1;
        let mut out = BytesMut::new();
        frame::encode(&mut out, 0, operation.number(), self.request_id, body);
        self.stream.write_all(&out).await.unwrap();
        self.request_id
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Asks and waits for the answer; pushes wait meanwhile.
    pub async fn ask<T: Message + Default>(
        &mut self,
        operation: Operation,
        body: &impl Message,
    ) -> Result<T, proto::Error> {
        let id = self.send(operation, body).await;
        self.answer(id).await
    }

    /// Asks as somebody would who knows a later version: with fields that are unknown here.
    pub async fn ask_with_more<T: Message + Default>(
        &mut self,
        operation: Operation,
        body: &impl Message,
    ) -> Result<T, proto::Error> {
        self.request_id += 1;
        let mut out = BytesMut::new();
        frame::encode_with(&mut out, 0, operation.number(), self.request_id, |out| {
            // Field 500 is a number, 501 bytes, 502 and 503 fixed.
            out.extend_from_slice(b"\xa0\x1f\x2a\xaa\x1f\x03new");
            body.encode_raw(out);
            out.extend_from_slice(b"\xb1\x1f\x01\x02\x03\x04\x05\x06\x07\x08\xbd\x1f\x01\x02\x03\x04");
        });
        self.stream.write_all(&out).await.unwrap();
        self.answer(self.request_id).await
    }

    pub async fn answer<T: Message + Default>(&mut self, id: u32) -> Result<T, proto::Error> {
        loop {
            let frame = self.frame().await.expect("the connection stays open");
            if frame.header.flags & FLAG_PUSH != 0 {
                self.pushes.push(frame);
                continue;
            }
            assert_eq!((frame.header.request_id, frame.header.flags & FLAG_RESPONSE), (id, FLAG_RESPONSE));
            return match frame.header.flags & FLAG_ERROR {
                0 => Ok(T::decode(frame.body).unwrap()),
                _ => Err(proto::Error::decode(frame.body).unwrap()),
            };
        }
    }

    /// The next push.
    pub async fn push(&mut self) -> Frame {
        if !self.pushes.is_empty() {
            return self.pushes.remove(0);
        }
        let frame = self.frame().await.expect("the connection stays open");
        assert_eq!(frame.header.flags, FLAG_PUSH);
        frame
    }

    /// The pushes that came while something else was waited for.
    pub fn pushed(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.pushes)
    }

    /// The next push of records.
    pub async fn deliver(&mut self) -> proto::Deliver {
        loop {
            let frame = self.push().await;
            if frame.header.operation == Operation::Deliver.number() {
                return proto::Deliver::decode(frame.body).unwrap();
            }
        }
    }

    /// The next frame; `None`: the other side has closed.
    pub async fn frame(&mut self) -> Option<Frame> {
        let read = async {
            loop {
                if let Some(frame) = frame::decode(&mut self.buffer, SERVER_FRAME_BYTES_MAX).unwrap() {
                    return Some(frame);
                }
                self.buffer.reserve(4096);
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(SOON, read).await.expect("an answer within 20 s")
    }

    /// What comes next, whatever it is; `None`: the other side has closed.
    pub async fn raw_bytes(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let read = tokio::time::timeout(SOON, self.stream.read(&mut bytes)).await.expect("something within 20 s");
        read.ok().filter(|count| *count > 0).map(|count| bytes[..count].to_vec())
    }

    /// What a closing connection says last.
    pub async fn closing(&mut self) -> Option<proto::Error> {
        let mut last = None;
        while let Some(frame) = self.frame().await {
            if frame.header.operation == Operation::Closing.number() {
                last = Some(proto::Error::decode(frame.body).unwrap());
            }
        }
        last
    }

    /// Sends texts to one conversation and waits until they are durable.
    pub async fn send_texts(&mut self, conversation: &Bytes, texts: &[&str]) -> proto::SendReply {
        let messages = texts.iter().map(|text| text_message(conversation, text)).collect();
        self.ask(Operation::Send, &proto::Send { messages, ..Default::default() }).await.unwrap()
    }

    pub async fn history(&mut self, conversation: &Bytes) -> Vec<proto::Record> {
        let request = proto::History { conversation: conversation.clone(), ..Default::default() };
        self.ask::<proto::HistoryReply>(Operation::History, &request).await.unwrap().records
    }
}

/// What an attached device knows.
#[derive(Default)]
pub struct Told {
    pub history: Bytes,
    pub rows: Vec<proto::Conversation>,
    pub records: Vec<proto::Record>,
    pub steps: Vec<proto::CursorStep>,
    pub reset: bool,
    pub all: bool,
}

impl Told {
    pub fn take(&mut self, frame: Frame) {
        let mut step = |step: proto::CursorStep| {
            self.steps.retain(|s| s.slot != step.slot);
            self.steps.push(step);
        };
        match Operation::from_number(frame.header.operation).unwrap() {
            Operation::Attached => self.rows.extend(proto::Attached::decode(frame.body).unwrap().conversations),
            Operation::Deliver => {
                let deliver = proto::Deliver::decode(frame.body).unwrap();
                self.records.extend(deliver.records);
                deliver.step.into_iter().for_each(&mut step);
            }
            Operation::CaughtUp => {
                let caught_up = proto::CaughtUp::decode(frame.body).unwrap();
                caught_up.step.into_iter().for_each(&mut step);
                self.all = caught_up.all;
            }
            Operation::CursorReset => self.reset = true,
            _ => {}
        }
    }

    pub fn cursor(&self) -> Option<proto::Cursor> {
        Some(proto::Cursor { history: self.history.clone(), steps: self.steps.clone() })
    }

    /// The texts of one conversation, in the order told.
    pub fn texts(&self, conversation: &Bytes) -> Vec<String> {
        texts(self.records.iter().filter(|record| record.conversation == conversation))
    }
}

pub fn texts<'a>(records: impl IntoIterator<Item = &'a proto::Record>) -> Vec<String> {
    let of_text = records.into_iter().filter(|record| record.kind == 1);
    of_text.map(|record| String::from_utf8(record.content.to_vec()).unwrap()).collect()
}

pub fn hello(token: &str) -> proto::Hello {
    proto::Hello { version: 1, token: token.into(), device: "test".into(), ..Default::default() }
}

pub fn text_message(conversation: &Bytes, text: &str) -> proto::Outgoing {
    proto::Outgoing {
        conversation: conversation.clone(),
        client_msg_id: new_id(),
        kind: 1,
        content: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// Registers an account.
pub async fn register(node: &Node, name: &str) -> proto::Tokens {
    let request = proto::Register { name: name.into(), password: format!("{name}-password"), request_id: new_id() };
    Raw::connect(node).await.ask(Operation::Register, &request).await.unwrap()
}

/// Opens the 1:1 with somebody.
pub async fn open(raw: &mut Raw, name: &str) -> Bytes {
    let request = proto::OpenDirect { name: name.into(), ..Default::default() };
    raw.ask::<proto::Conversation>(Operation::OpenDirect, &request).await.unwrap().conversation
}
