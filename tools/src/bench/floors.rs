//! What the machine itself can do, measured beside a run: figures without them say little.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::latency::Latency;

/// The file that is written again and again.
const FILE_BYTES: u64 = 64 << 20;
/// Journals write whole pages.
const PAGE_BYTES: usize = 4096;
/// How long each floor is measured.
const MEASURED: Duration = Duration::from_millis(700);

/// A bare loop that writes and syncs blocks of one size into a file already written once.
#[derive(Clone, Debug, Serialize)]
pub struct SyncFloor {
    /// Of each block.
    pub block_bytes: usize,
    /// Blocks written and synced a second.
    pub blocks_per_s: f64,
    /// One block.
    pub p50_us: f64,
    /// One block in a hundred.
    pub p99_us: f64,
}

/// A file already written once, to measure in; removed at the end.
pub struct FloorFile {
    file: File,
    path: PathBuf,
}

impl FloorFile {
    /// Writes one in `dir`. Well before measuring: writing it leaves disk and scheduler busy for a while.
    pub fn create(dir: &Path) -> std::io::Result<FloorFile> {
        let path = dir.join(format!("skein-bench-floor-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        let mut floor = FloorFile { file, path };
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES >> 20 {
            floor.file.write_all(&zeros)?;
        }
        floor.file.sync_all()?;
        Ok(floor)
    }

    /// Measures blocks of this size, in whole pages.
    pub fn measure(&self, block_bytes: usize) -> std::io::Result<SyncFloor> {
        write_and_sync(&self.file, block_bytes.max(1).next_multiple_of(PAGE_BYTES).min(FILE_BYTES as usize))
    }
}

impl Drop for FloorFile {
    fn drop(&mut self) {
        // Left behind it would only take room.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn write_and_sync(mut file: &File, block_bytes: usize) -> std::io::Result<SyncFloor> {
    let mut block = vec![0xa5; block_bytes];
    let mut latency = Latency::new();
    let (begun, mut at, mut blocks) = (Instant::now(), 0u64, 0u64);
    while begun.elapsed() < MEASURED {
        if at + block_bytes as u64 > FILE_BYTES {
            at = 0;
        }
        block[..8].copy_from_slice(&blocks.to_le_bytes());
        let before = Instant::now();
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&block)?;
        file.sync_data()?;
        latency.record(before.elapsed().as_nanos() as u64);
        at += block_bytes as u64;
        blocks += 1;
    }
    let p = latency.percentiles();
    let blocks_per_s = blocks as f64 / begun.elapsed().as_secs_f64();
    Ok(SyncFloor { block_bytes, blocks_per_s, p50_us: p.p50 * 1e3, p99_us: p.p99 * 1e3 })
}

/// p50 in µs of a small frame to another thread and back over loopback TCP.
pub fn loopback_round_trip_us() -> std::io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while far.read_exact(&mut bytes).is_ok() && far.write_all(&bytes).is_ok() {}
    });
    let (mut latency, mut bytes, begun) = (Latency::new(), [7; 64], Instant::now());
    while begun.elapsed() < MEASURED / 2 {
        let before = Instant::now();
        near.write_all(&bytes)?;
        near.read_exact(&mut bytes)?;
        latency.record(before.elapsed().as_nanos() as u64);
    }
    drop(near);
    // It ends with the connection.
    let _ = echo.join();
    Ok(latency.percentiles().p50 * 1e3)
}
