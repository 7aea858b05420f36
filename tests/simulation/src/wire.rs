//! A connection: two streams of bytes that are late, in pieces, damaged or cut.

use std::collections::VecDeque;

use crate::faults::{Chaos, Fault};

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// To the target.
    pub up: Pipe,
    /// To the initiator.
    pub down: Pipe,
    /// Nothing arrives any more, and nobody is told.
    is_black: bool,
    /// Either end has gone, or the network says so.
    pub is_cut: bool,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Pipe {
    chunks: VecDeque<(u64, Vec<u8>)>,
    arrived_bytes: u64,
    cut_after_bytes: Option<u64>,
    /// Both digests are in use: damage is noticed.
    has_digests: bool,
    /// The CRC of all that was sent: two runs of a seed have the same.
    pub fingerprint: u32,
}

impl Link {
    /// A new connection.
    pub fn new(has_digests: bool, chaos: &mut Chaos) -> Self {
        let pipe = || Pipe {
            has_digests,
            ..Pipe::default()
        };
        let mut link = Self {
            up: pipe(),
            down: pipe(),
            is_black: false,
            is_cut: false,
        };
        if chaos.rolls(Fault::Cut) {
            let most = chaos.rng.pick(&[60, 1_000, 20_000, 200_000]);
            let after = Some(chaos.rng.below(most));
            if chaos.rng.chance(50) {
                link.up.cut_after_bytes = after;
            } else {
                link.down.cut_after_bytes = after;
            }
        }
        link
    }

    /// Sends to the target.
    pub fn send_up(&mut self, bytes: Vec<u8>, now_ms: u64, chaos: &mut Chaos) {
        self.is_black |= chaos.fires(Fault::Blackhole);
        self.up.push(bytes, now_ms, chaos);
    }

    /// Sends to the initiator.
    pub fn send_down(&mut self, bytes: Vec<u8>, now_ms: u64, chaos: &mut Chaos) {
        self.is_black |= chaos.fires(Fault::Blackhole);
        self.down.push(bytes, now_ms, chaos);
    }

    /// What has arrived at the target.
    pub fn take_up(&mut self, now_ms: u64, chaos: &mut Chaos) -> Option<Vec<u8>> {
        if self.is_black {
            return None;
        }
        let (bytes, is_cut) = self.up.take(now_ms, chaos)?;
        self.is_cut |= is_cut;
        Some(bytes)
    }

    /// What has arrived at the initiator.
    pub fn take_down(&mut self, now_ms: u64, chaos: &mut Chaos) -> Option<Vec<u8>> {
        if self.is_black {
            return None;
        }
        let (bytes, is_cut) = self.down.take(now_ms, chaos)?;
        self.is_cut |= is_cut;
        Some(bytes)
    }

    /// When something arrives next.
    pub fn next_ms(&self) -> Option<u64> {
        let fronts = [self.up.chunks.front(), self.down.chunks.front()];
        let dues = fronts.into_iter().flatten().map(|(due_ms, _)| *due_ms);
        dues.min().filter(|_| !self.is_black)
    }
}

impl Pipe {
    fn push(&mut self, mut bytes: Vec<u8>, now_ms: u64, chaos: &mut Chaos) {
        self.fingerprint = crc32c::crc32c_append(self.fingerprint, &bytes);
        if self.has_digests && !bytes.is_empty() && chaos.fires(Fault::Corrupt) {
            let at = chaos.rng.index(bytes.len());
            bytes[at] ^= 1 << chaos.rng.below(8);
        }
        let latency_ms = if chaos.fires(Fault::Delay) {
            chaos.rng.between(3, 6_000)
        } else {
            chaos.rng.below(3)
        };
        let last_ms = self.chunks.back().map_or(0, |(due_ms, _)| *due_ms);
        self.chunks
            .push_back(((now_ms + latency_ms).max(last_ms), bytes));
    }

    fn take(&mut self, now_ms: u64, chaos: &mut Chaos) -> Option<(Vec<u8>, bool)> {
        let (due_ms, chunk) = self.chunks.front_mut()?;
        if *due_ms > now_ms {
            return None;
        }
        let mut bytes = std::mem::take(chunk);
        let is_whole = bytes.len() < 2 || !chaos.fires(Fault::Fragment);
        if is_whole {
            self.chunks.pop_front();
        } else {
            let length = 1 + chaos.rng.index(bytes.len() - 1);
            *chunk = bytes.split_off(length);
        }
        self.arrived_bytes += bytes.len() as u64;
        let excess = self
            .cut_after_bytes
            .and_then(|after| self.arrived_bytes.checked_sub(after))
            .filter(|_| !chaos.is_calm);
        if let Some(excess) = excess {
            chaos.count(Fault::Cut);
            bytes.truncate(bytes.len().saturating_sub(excess as usize));
        }
        Some((bytes, excess.is_some()))
    }
}
