//! `docs/protocol.md` says what the code does: its tables are the code's, its drawn bytes are frames.

#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use fanout::{Code, Limits};
use gateway::wire::frame;
use gateway::wire::operation::Operation;
use gateway::wire::proto;
use prost::Message;

const PAGE: &str = include_str!("../../docs/protocol.md");

/// The rows of the table under a heading, as cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let section = PAGE.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|---"));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    rows.skip(1).map(cells).collect()
}

#[test]
fn the_page_lists_every_operation() {
    let on_page: Vec<_> = table("Operations").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let in_code: Vec<_> = Operation::ALL.iter().map(|o| (o.number().to_string(), o.name().to_string())).collect();
    assert_eq!(on_page, in_code);
}

#[test]
fn the_page_lists_every_error() {
    let on_page: Vec<_> = table("Errors").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let in_code: Vec<_> = Code::ALL.iter().map(|c| (c.number().to_string(), c.name().to_string())).collect();
    assert_eq!(on_page, in_code);
}

#[test]
fn the_page_lists_every_limit_with_its_default() {
    let in_code: Vec<_> = Limits::TABLE
        .iter()
        .map(|l| vec![l.name.to_string(), l.default.to_string(), l.unit.to_string(), l.at_limit.to_string()])
        .collect();
    assert_eq!(table("Limits"), in_code);
}

#[test]
fn the_drawn_bytes_are_a_ping_and_its_answer() {
    let hex = |line: &str| -> Option<Vec<u8>> {
        let byte = |text: &str| u8::from_str_radix(text, 16).ok().filter(|_| text.len() == 2);
        line.split_whitespace().map(byte).collect()
    };
    let drawn: Vec<_> = PAGE.lines().filter(|line| line.starts_with("    ")).filter_map(hex).collect();
    let [ping, pong] = &drawn[..] else { panic!("two frames are drawn, found {drawn:?}") };
    let ping = frame::decode(&mut BytesMut::from(&ping[..]), frame::CLIENT_FRAME_BYTES_MAX).unwrap().unwrap();
    assert_eq!((ping.header.flags, ping.header.operation, ping.header.request_id), (0, 2, 1));
    assert_eq!(proto::Ping::decode(ping.body).unwrap().echo, 7);
    let pong = frame::decode(&mut BytesMut::from(&pong[..]), frame::SERVER_FRAME_BYTES_MAX).unwrap().unwrap();
    assert_eq!((pong.header.flags, pong.header.operation, pong.header.request_id), (frame::FLAG_RESPONSE, 2, 1));
    let pong = proto::Pong::decode(pong.body).unwrap();
    assert_eq!((pong.echo, pong.server_time_ms), (7, 1_800_000_000_000));
}
