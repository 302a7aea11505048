//! What was read and is not taken yet, in buffers that are used again.
//!
//! Messages are slices of the buffer they were read into, until the log has them. A busy connection would therefore
//! ask the allocator for a new buffer with every read, and the kernel to clear its pages. Instead it goes round a few
//! buffers: one that nothing points into any more is read into again. An idle connection has one small one.

use std::collections::VecDeque;

use bytes::BytesMut;

/// What an idle connection reads into.
const SIZE_MIN: usize = 2 << 10;
/// Holds the largest frame and as much again.
const SIZE_MAX: usize = 128 << 10;
/// Buffers kept while messages point into them: what a pipelining sender has on its way to the log.
const RESTING_MAX: usize = 4;

/// The bytes of a connection between its socket and its frames.
pub(super) struct Inbound {
    current: BytesMut,
    resting: VecDeque<BytesMut>,
    size: usize,
}

impl Inbound {
    pub(super) fn new() -> Inbound {
        Inbound { current: BytesMut::new(), resting: VecDeque::new(), size: SIZE_MIN }
    }

    /// Where frames are taken from.
    pub(super) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.current
    }

    /// Where to read into: there is room for at least a quarter of the present size.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        if self.current.capacity() - self.current.len() < self.size / 4 {
            self.make_room();
        }
        &mut self.current
    }

    /// A read took all the room there was: more at a time from now on.
    pub(super) fn was_filled(&mut self) {
        self.size = (self.size * 4).min(SIZE_MAX);
    }

    /// Gives memory back; what was read of a frame stays.
    pub(super) fn rest(&mut self) {
        self.resting = VecDeque::new();
        self.size = SIZE_MIN;
        if self.current.is_empty() {
            self.current = BytesMut::new();
        }
    }

    fn make_room(&mut self) {
        if self.current.try_reclaim(self.size / 2) {
            return;
        }
        let mut next = self.unused(self.current.len() + self.size / 2);
        next.extend_from_slice(&self.current);
        let mut old = std::mem::replace(&mut self.current, next);
        old.clear();
        if self.resting.len() < RESTING_MAX {
            self.resting.push_back(old);
        }
    }

    /// A buffer that nothing points into.
    fn unused(&mut self, bytes: usize) -> BytesMut {
        let bytes = bytes.max(self.size);
        let free = self.resting.iter_mut().position(|buffer| buffer.try_reclaim(bytes));
        free.and_then(|at| self.resting.remove(at)).unwrap_or_else(|| BytesMut::with_capacity(bytes))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Reads as much as there is room for and takes all of it.
    fn read(inbound: &mut Inbound) -> Bytes {
        let room = inbound.room();
        let count = room.capacity() - room.len();
        room.resize(room.len() + count, 7);
        inbound.was_filled();
        let len = inbound.bytes().len();
        inbound.bytes().split_to(len).freeze()
    }

    #[test]
    fn a_buffer_that_nothing_points_into_is_read_into_again() {
        let mut inbound = Inbound::new();
        let mut in_flight = VecDeque::new();
        let mut places = std::collections::HashSet::new();
        for _ in 0..1000 {
            in_flight.push_back(read(&mut inbound));
            places.insert(in_flight.back().unwrap().as_ptr());
            if in_flight.len() > 3 {
                in_flight.pop_front();
            }
        }
        assert!(places.len() < 16, "{} places for 1000 reads", places.len());
    }

    #[test]
    fn messages_that_stay_keep_their_bytes_and_cost_a_bounded_number_of_buffers() {
        let mut inbound = Inbound::new();
        let kept: Vec<Bytes> = (0..100).map(|_| read(&mut inbound)).collect();
        assert!(inbound.resting.len() <= RESTING_MAX);
        assert!(kept.iter().all(|bytes| bytes.iter().all(|byte| *byte == 7)));
    }

    #[test]
    fn a_part_of_a_frame_moves_along() {
        let mut inbound = Inbound::new();
        inbound.room().extend_from_slice(&[1; 2000]);
        inbound.was_filled();
        assert!(inbound.room().capacity() - 2000 >= SIZE_MIN);
        inbound.room().extend_from_slice(&[2; 1000]);
        inbound.rest();
        assert_eq!(inbound.bytes().len(), 3000);
        assert_eq!((inbound.bytes()[1999], inbound.bytes()[2000]), (1, 2));
    }

    #[test]
    fn at_rest_nothing_is_kept() {
        let mut inbound = Inbound::new();
        let kept: Vec<Bytes> = (0..10).map(|_| read(&mut inbound)).collect();
        drop(kept);
        inbound.rest();
        assert_eq!((inbound.current.capacity(), inbound.resting.capacity()), (0, 0));
        assert!(inbound.room().capacity() <= SIZE_MIN);
    }
}
