//! The model disk: knows what each sector may hold, and that each request ends once.

use iscsi_core::disk::request::{BlockOperation, Extent};

use crate::Failure;
use crate::target::disk::{Disk, SECTOR_BYTES};

/// What a sector of zeros counts as.
const ZEROS: u64 = 0;

/// All that the guest did, and when. Time is counted in starts and ends of requests.
#[derive(Debug)]
pub struct Judge {
    now: u64,
    requests: Vec<Request>,
    /// By sector, everything that was to change it.
    changes: Vec<Vec<Change>>,
    /// How much the target had carried out when the last write was acknowledged.
    acknowledged_at: u64,
    has_cache: bool,
    /// How many requests ended.
    pub ended: usize,
    /// How many of them with an error, discards left out.
    pub failed: u64,
}

#[derive(Debug)]
struct Request {
    operation: BlockOperation,
    extents: Vec<Extent>,
    started: u64,
    is_over: bool,
    /// For a flush: what the target has to have made stable.
    acknowledged_at: u64,
}

/// A write, or whatever else changes a sector.
#[derive(Clone, Copy, Debug)]
struct Change {
    owner: u64,
    value: u64,
    start: u64,
    /// From here on it can no longer happen.
    end: u64,
    /// It has happened; else it may have, wholly or in part.
    is_certain: bool,
}

impl Judge {
    /// A disk of `sectors` zeros.
    pub fn new(sectors: usize, has_cache: bool) -> Self {
        let zeros = Change {
            owner: 0,
            value: ZEROS,
            start: 0,
            end: 0,
            is_certain: true,
        };
        Self {
            now: 1,
            requests: Vec::new(),
            changes: vec![vec![zeros]; sectors],
            acknowledged_at: 0,
            has_cache,
            ended: 0,
            failed: 0,
        }
    }

    /// How many requests have been made.
    pub fn made(&self) -> usize {
        self.requests.len()
    }

    /// A request begins; the result is its number, never 0.
    pub fn start(&mut self, operation: BlockOperation, extents: &[Extent]) -> u64 {
        self.now += 1;
        self.requests.push(Request {
            operation,
            extents: extents.to_vec(),
            started: self.now,
            is_over: false,
            acknowledged_at: self.acknowledged_at,
        });
        let owner = self.requests.len() as u64;
        let value = match operation {
            BlockOperation::Read | BlockOperation::Flush => return owner,
            BlockOperation::Write { .. } => owner,
            BlockOperation::Discard | BlockOperation::WriteZeroes { .. } => ZEROS,
        };
        for sector in extents.iter().flat_map(sectors) {
            self.changes[sector].push(Change {
                owner,
                value,
                start: self.now,
                end: u64::MAX,
                is_certain: false,
            });
        }
        owner
    }

    /// What a write of number `owner` puts into its buffer.
    pub fn fill(owner: u64, extent: &Extent) -> Vec<u8> {
        sectors(extent)
            .flat_map(|sector| {
                let mut unit = owner.to_le_bytes().to_vec();
                unit.extend((sector as u64).to_le_bytes());
                unit.repeat(SECTOR_BYTES / unit.len())
            })
            .collect()
    }

    /// A request ends: the guest sees it.
    pub fn end(
        &mut self,
        owner: u64,
        is_good: bool,
        buffer: &[u8],
        disk: &Disk,
    ) -> Result<(), Failure> {
        self.now += 1;
        let Some(request) = self.requests.get_mut(owner as usize - 1) else {
            return Err(format!("request {owner} ended, but was never made"));
        };
        if std::mem::replace(&mut request.is_over, true) {
            return Err(format!("request {owner} ended twice"));
        }
        self.ended += 1;
        let (operation, extents) = (request.operation, request.extents.clone());
        // A refused discard is told to the driver as unsupported.
        self.failed += u64::from(!is_good && operation != BlockOperation::Discard);
        match operation {
            BlockOperation::Read if is_good => self.check_read(owner, &extents, buffer)?,
            BlockOperation::Flush if is_good => self.check_flush(owner, disk)?,
            BlockOperation::Read | BlockOperation::Flush => {}
            BlockOperation::Discard => self.end_changes(owner, &extents, false),
            BlockOperation::Write { stable } | BlockOperation::WriteZeroes { stable, .. } => {
                if is_good && stable {
                    self.check_stable(owner, &extents, disk)?;
                }
                self.end_changes(owner, &extents, is_good);
                if is_good {
                    self.acknowledged_at = disk.carried_out();
                }
            }
        }
        Ok(())
    }

    /// Every request has ended: is everything on the disk that should be?
    pub fn check_disk(&self, disk: &Disk) -> Result<(), Failure> {
        if let Some(at) = self.requests.iter().position(|request| !request.is_over) {
            return Err(format!("request {} never ended", at + 1));
        }
        for sector in 0..self.changes.len() {
            self.check_sector(sector, disk.sector(sector), self.now, "at the end")?;
        }
        Ok(())
    }

    fn end_changes(&mut self, owner: u64, extents: &[Extent], is_certain: bool) {
        for sector in extents.iter().flat_map(sectors) {
            let changes = self.changes[sector].iter_mut();
            for change in changes.filter(|change| change.owner == owner) {
                (change.end, change.is_certain) = (self.now, is_certain);
            }
        }
    }

    fn check_read(&self, owner: u64, extents: &[Extent], buffer: &[u8]) -> Result<(), Failure> {
        let started = self.requests[owner as usize - 1].started;
        let what = format!("read by request {owner}");
        let sectors = extents.iter().flat_map(sectors);
        for (sector, bytes) in sectors.zip(buffer.chunks(SECTOR_BYTES)) {
            self.check_sector(sector, bytes, started, &what)?;
        }
        Ok(())
    }

    /// A value is right when some change may have brought it, and no other has certainly replaced
    /// it between the end of that change and the start of the look at it.
    fn check_sector(
        &self,
        sector: usize,
        bytes: &[u8],
        looked: u64,
        what: &str,
    ) -> Result<(), Failure> {
        let value = value_of(sector, bytes)
            .ok_or_else(|| format!("sector {sector} {what} is torn: {:02x?}", &bytes[..32]))?;
        let changes = &self.changes[sector];
        let is_replaced = |change: &Change| {
            let mut others = changes.iter();
            others.any(|other| other.is_certain && other.start > change.end && other.end < looked)
        };
        let mut sources = changes.iter().filter(|change| change.value == value);
        if sources.any(|change| !is_replaced(change)) {
            return Ok(());
        }
        Err(format!(
            "sector {sector} {what} holds what request {value} wrote, which is stale: {changes:?}"
        ))
    }

    fn check_flush(&self, owner: u64, disk: &Disk) -> Result<(), Failure> {
        let needed = self.requests[owner as usize - 1].acknowledged_at;
        if self.has_cache && disk.synced() < needed {
            return Err(format!(
                "flush {owner} was acknowledged; the target has synced {} of {needed} steps",
                disk.synced()
            ));
        }
        Ok(())
    }

    fn check_stable(&self, owner: u64, extents: &[Extent], disk: &Disk) -> Result<(), Failure> {
        let started = self.requests[owner as usize - 1].started;
        for sector in extents.iter().flat_map(sectors) {
            // Whoever else was at the sector meanwhile may have made it unstable again.
            let mut changes = self.changes[sector].iter();
            let is_alone = !changes.any(|other| other.owner != owner && other.end >= started);
            if self.has_cache && is_alone && !disk.is_stable(sector) {
                return Err(format!(
                    "sector {sector} of the stable write {owner} was acknowledged from the cache"
                ));
            }
        }
        Ok(())
    }
}

/// Whose bytes these are; `None` when they are nobody's, or several writers'.
fn value_of(sector: usize, bytes: &[u8]) -> Option<u64> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Some(ZEROS);
    }
    let (unit, _) = bytes.split_at_checked(16)?;
    let owner = u64::from_le_bytes(*unit.first_chunk()?);
    let is_of_sector = unit[8..] == (sector as u64).to_le_bytes();
    let is_whole = bytes.chunks(16).all(|chunk| chunk == unit);
    (is_of_sector && is_whole && bytes.len() == SECTOR_BYTES).then_some(owner)
}

fn sectors(extent: &Extent) -> std::ops::Range<usize> {
    let first = extent.sector as usize;
    first..first + extent.length_bytes as usize / SECTOR_BYTES
}
