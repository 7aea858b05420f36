//! The target's medium and its cache.

/// The length of a block of the model disk.
pub const SECTOR_BYTES: usize = 512;

/// What is stored, and how much of it would survive a loss of power.
#[derive(Debug)]
pub struct Disk {
    bytes: Vec<u8>,
    /// By sector: when it was last changed, in steps; 0 when it went past the cache.
    changed: Vec<u64>,
    carried_out: u64,
    synced: u64,
}

impl Disk {
    /// A disk of zeros.
    pub fn new(sectors: usize) -> Self {
        Self {
            bytes: vec![0; sectors * SECTOR_BYTES],
            changed: vec![0; sectors],
            carried_out: 0,
            synced: 0,
        }
    }

    /// How many changes were carried out.
    pub fn carried_out(&self) -> u64 {
        self.carried_out
    }

    /// How many of them are stable.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether the sector would survive.
    pub fn is_stable(&self, sector: usize) -> bool {
        self.changed[sector] <= self.synced
    }

    /// The bytes of a sector.
    pub fn sector(&self, sector: usize) -> &[u8] {
        self.read(sector, 1)
    }

    /// The bytes of a run of sectors.
    pub fn read(&self, first: usize, count: usize) -> &[u8] {
        &self.bytes[first * SECTOR_BYTES..(first + count) * SECTOR_BYTES]
    }

    /// Whether the run lies on the disk.
    pub fn has(&self, first: usize, count: usize) -> bool {
        first + count <= self.changed.len()
    }

    /// Changes whole sectors; `is_stable` for FUA.
    pub fn write(&mut self, first: usize, bytes: &[u8], is_stable: bool) {
        self.carried_out += 1;
        let start = first * SECTOR_BYTES;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        let step = if is_stable { 0 } else { self.carried_out };
        self.changed[first..first + bytes.len() / SECTOR_BYTES].fill(step);
    }

    /// SYNCHRONIZE CACHE.
    pub fn sync(&mut self) {
        self.synced = self.carried_out;
    }
}
