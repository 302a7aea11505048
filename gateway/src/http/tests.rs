use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ready::ShardProbe;
use super::*;

struct Server {
    addr: std::net::SocketAddr,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (readiness, stop) = (Arc::new(Readiness::starting()), CancellationToken::new());
    let status = |query: StatusQuery| Status {
        version: "1",
        node: 1,
        history: "h".into(),
        dev: true,
        durability: status::DURABILITY,
        data_dir: "d".into(),
        listen: "l".into(),
        tls: false,
        connections: 3,
        uptime_seconds: 0,
        written_bytes: Default::default(),
        shards: vec![sequencer::ShardStatus { digest: query.digest.then_some(0xfeed), ..Default::default() }.into()],
    };
    let pages = Pages { readiness: readiness.clone(), metrics: metrics::install(), status: Arc::new(status) };
    let task = tokio::spawn(serve(listener, pages, stop.clone()));
    Server { addr, readiness, stop, task }
}

impl Server {
    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn health_answers_before_the_node_is_ready() {
    let server = start().await;
    assert!(server.get("/healthz").await.starts_with("HTTP/1.1 200"));
    let answer = server.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("starting"), "{answer}");
}

#[tokio::test]
async fn readiness_turns_with_the_shards_and_names_the_one_that_cannot_commit() {
    let server = start().await;
    let probes = |ready: bool| -> Probes {
        let reason = (!ready).then(|| "no answer".into());
        let bad = ShardProbe { shard: 3, ready, took_ms: None, reason, troubles: Vec::new() };
        Arc::new(move || {
            let shards = vec![bad.clone()];
            async move { shards }.boxed()
        })
    };
    server.readiness.serve(probes(false)).await;
    let answer = server.get("/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("\"shard\":3") && answer.contains("no answer"),
        "{answer}"
    );
    let server = start().await;
    server.readiness.serve(probes(true)).await;
    assert!(server.get("/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn metrics_count_stored_messages_from_the_start() {
    let server = start().await;
    let answer = server.get("/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\nskein_messages_stored_total "), "{answer}");
}

#[tokio::test]
async fn status_says_what_an_acknowledgement_means() {
    let server = start().await;
    let answer = server.get("/status").await;
    assert!(answer.contains("\"durability\":\"every acknowledged message is fsynced\""), "{answer}");
}

#[tokio::test]
async fn status_has_a_digest_only_if_it_is_asked_for() {
    let server = start().await;
    assert!(!server.get("/status").await.contains("digest"));
    assert!(!server.get("/status?digest=false").await.contains("feed"));
    let asked = server.get("/status?digest=true").await;
    assert!(asked.contains("\"digest\":\"0000000000000000000000000000feed\""), "{asked}");
    assert!(server.get("/status?digset=true").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn an_unknown_page_is_not_found_and_a_stop_stops() {
    let server = start().await;
    assert!(server.get("/nothing").await.starts_with("HTTP/1.1 404"));
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap();
}
