//! The client library: one connection, pipelined requests, gap-checked deliveries, reconnecting sessions.
