//! The SCSI side: logical units and what they answer. Knows nothing of iSCSI PDUs.

mod block;
mod capacity;
mod inquiry;
mod mode;
mod provisioning;
pub(crate) mod sense;

use crate::bytes::{be16, be32, len32, u8_at};
use crate::config::{LunAddressing, LunConfig, TargetConfig, opcode};
use crate::data::{Data, DataOut};
use crate::disk::Disk;
use sense::Sense;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A command descriptor block, shorter ones filled up with zeros.
pub(crate) type Cdb = [u8; 16];

/// SCSI status codes used here.
pub(crate) const GOOD: u8 = 0x00;
pub(crate) const CHECK_CONDITION: u8 = 0x02;

/// What a command came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u8,
    pub(crate) sense: Option<Sense>,
    /// Data for the initiator, as much as the command wants to transfer.
    pub(crate) data: Data<'static>,
    /// How much data the command wants from the initiator.
    pub(crate) data_out_bytes: u32,
}

impl Reply {
    pub(crate) fn good() -> Self {
        Self::default()
    }

    pub(crate) fn data(data: impl Into<Data<'static>>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }

    /// Good, having taken this much data.
    pub(crate) fn took(data_out_bytes: u32) -> Self {
        Self {
            data_out_bytes,
            ..Self::default()
        }
    }

    pub(crate) fn check(sense: Sense) -> Self {
        Self {
            status: CHECK_CONDITION,
            sense: Some(sense),
            ..Self::default()
        }
    }
}

/// What a command does: its reply, or the sense of its failure.
type Outcome = Result<Reply, Sense>;

/// One logical unit at run time.
#[derive(Debug)]
pub(crate) struct Lun {
    pub(crate) number: u16,
    pub(crate) config: LunConfig,
    pub(crate) disk: Arc<Disk>,
    capacity_bytes: AtomicU64,
    write_protected: AtomicBool,
    /// Whether `attentions` has any: without, a command need not take the lock.
    has_attentions: AtomicBool,
    attentions: Mutex<VecDeque<Sense>>,
    /// VPD page 80h and the NAA designator when the configuration names none.
    default_identity: u64,
}

impl Lun {
    fn new(number: u16, config: LunConfig, default_identity: u64) -> Self {
        let disk = config
            .disk
            .clone()
            .unwrap_or_else(|| Arc::new(Disk::sparse(1 << 30)));
        Self {
            number,
            disk,
            capacity_bytes: AtomicU64::new(config.capacity_bytes),
            write_protected: AtomicBool::new(config.write_protected),
            has_attentions: AtomicBool::new(!config.unit_attentions.is_empty()),
            attentions: Mutex::new(config.unit_attentions.iter().copied().collect()),
            default_identity,
            config,
        }
    }

    fn block_bytes(&self) -> u64 {
        u64::from(self.config.block_bytes.max(512))
    }

    /// Capacity, blocks.
    fn blocks(&self) -> u64 {
        self.capacity_bytes.load(Ordering::Relaxed) / self.block_bytes()
    }

    pub(crate) fn set_capacity_bytes(&self, capacity_bytes: u64) {
        self.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_write_protected(&self, on: bool) {
        self.write_protected.store(on, Ordering::Relaxed);
    }

    fn write_protected(&self) -> bool {
        self.write_protected.load(Ordering::Relaxed)
    }

    /// Adds a unit attention for whoever comes first.
    pub(crate) fn push_attention(&self, sense: Sense) {
        let mut attentions = self.attentions();
        attentions.push_back(sense);
        self.has_attentions.store(true, Ordering::Release);
    }

    fn pop_attention(&self) -> Option<Sense> {
        if !self.has_attentions.load(Ordering::Acquire) {
            return None;
        }
        let mut attentions = self.attentions();
        let next = attentions.pop_front();
        self.has_attentions
            .store(!attentions.is_empty(), Ordering::Release);
        next
    }

    fn attentions(&self) -> MutexGuard<'_, VecDeque<Sense>> {
        self.attentions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Types that are read and written in blocks: disk, CD, optical, simplified disk.
    fn is_block_device(&self) -> bool {
        matches!(self.config.device_type, 0x00 | 0x05 | 0x07 | 0x0e)
    }
}

/// All logical units of a target.
#[derive(Debug)]
pub(crate) struct Luns {
    pub(crate) units: BTreeMap<u16, Lun>,
    addressing: LunAddressing,
}

impl Luns {
    pub(crate) fn new(config: &TargetConfig) -> Self {
        let name = config.target_names.first().map_or("", String::as_str);
        let unit = |(number, lun): (&u16, &LunConfig)| {
            let identity = fingerprint(name, *number);
            (*number, Lun::new(*number, lun.clone(), identity))
        };
        Self {
            units: config.luns.iter().map(unit).collect(),
            addressing: config.lun_addressing,
        }
    }

    /// The unit that an eight-byte LUN field addresses.
    pub(crate) fn find(&self, field: &[u8; 8]) -> Option<&Lun> {
        self.units.get(&lun_number(field)?)
    }

    /// Whether a command is a write to a disk that keeps nothing: its data need not be gathered.
    pub(crate) fn drops(&self, field: &[u8; 8], cdb: &Cdb) -> bool {
        block::is_write(cdb) && self.find(field).is_some_and(|lun| !lun.disk.keeps())
    }

    /// Carries a command out. `attention` is a unit attention of this session alone.
    pub(crate) fn execute(
        &self,
        field: &[u8; 8],
        cdb: &Cdb,
        data_out: &DataOut<'_>,
        attention: impl FnOnce() -> Option<Sense>,
    ) -> Reply {
        let outcome = match self.find(field) {
            None => self.execute_without_lun(cdb),
            Some(lun) => {
                let passes = matches!(
                    cdb[0],
                    opcode::INQUIRY | opcode::REPORT_LUNS | opcode::REQUEST_SENSE
                );
                let pending = if passes {
                    None
                } else {
                    attention().or_else(|| lun.pop_attention())
                };
                pending.map_or_else(|| self.dispatch(lun, cdb, data_out), Err)
            }
        };
        outcome.unwrap_or_else(Reply::check)
    }

    /// What is answered where there is no LUN (SPC-5 section 6.7.2; REPORT LUNS goes to LUN 0).
    fn execute_without_lun(&self, cdb: &Cdb) -> Outcome {
        match cdb[0] {
            opcode::INQUIRY => inquiry::absent(cdb),
            opcode::REPORT_LUNS => self.report_luns(cdb),
            opcode::REQUEST_SENSE => request_sense(cdb, Some(Sense::NO_SUCH_LUN)),
            _ => Err(Sense::NO_SUCH_LUN),
        }
    }

    fn dispatch(&self, lun: &Lun, cdb: &Cdb, data_out: &DataOut<'_>) -> Outcome {
        if lun.config.refused_opcodes.contains(&cdb[0]) {
            return Err(Sense::INVALID_OPCODE);
        }
        match cdb[0] {
            opcode::INQUIRY => inquiry::execute(lun, cdb),
            opcode::REPORT_LUNS => self.report_luns(cdb),
            opcode::REQUEST_SENSE => request_sense(cdb, lun.pop_attention()),
            opcode::TEST_UNIT_READY => Ok(Reply::good()),
            _ if lun.is_block_device() => dispatch_block(lun, cdb, data_out),
            _ => Err(Sense::INVALID_OPCODE),
        }
    }

    /// REPORT LUNS (SPC-5 section 6.33).
    fn report_luns(&self, cdb: &Cdb) -> Outcome {
        let allocation = be32(cdb, 6) as usize;
        // SELECT REPORT: 0 and 2 report logical units, 1 well known ones, of which there are none.
        let fields: Vec<[u8; 8]> = match u8_at(cdb, 2) {
            0 | 2 => self
                .units
                .keys()
                .map(|number| lun_field(*number, self.addressing))
                .collect(),
            1 => Vec::new(),
            _ => return Err(Sense::INVALID_FIELD),
        };
        let mut data = len32(fields.len() * 8).to_be_bytes().to_vec();
        data.resize(8, 0);
        data.extend(fields.concat());
        Ok(truncated(data, allocation))
    }
}

fn dispatch_block(lun: &Lun, cdb: &Cdb, data_out: &DataOut<'_>) -> Outcome {
    match cdb[0] {
        0x25 | 0x9e => capacity::execute(lun, cdb),
        0x1a | 0x5a => mode::sense(lun, cdb),
        0x1b => Ok(Reply::good()),
        0x41 | 0x93 => provisioning::write_same(lun, cdb, data_out.bytes()),
        0x42 => provisioning::unmap(lun, cdb, data_out.bytes()),
        _ => block::execute(lun, cdb, data_out),
    }
}

fn request_sense(cdb: &Cdb, sense: Option<Sense>) -> Outcome {
    let sense = sense.unwrap_or(Sense::new(0, 0, 0));
    Ok(truncated(
        sense.encode(cdb[1] & 1 != 0),
        usize::from(cdb[4]),
    ))
}

/// At most ALLOCATION LENGTH bytes: the rest is not a residual, it is not wanted.
fn truncated(mut data: Vec<u8>, allocation: usize) -> Reply {
    data.truncate(allocation);
    Reply::data(data)
}

/// LUN number of a single-level address, peripheral or flat (SAM-5 section 4.7.5).
pub(crate) fn lun_number(field: &[u8; 8]) -> Option<u16> {
    let rest_is_zero = field.iter().skip(2).all(|byte| *byte == 0);
    let number = be16(field, 0) & 0x3fff;
    match field[0] >> 6 {
        0 if rest_is_zero && number < 256 => Some(number),
        1 if rest_is_zero => Some(number),
        _ => None,
    }
}

/// The address of a LUN number.
pub(crate) fn lun_field(number: u16, addressing: LunAddressing) -> [u8; 8] {
    let flat = addressing == LunAddressing::Flat || number > 255;
    let [high, low] = number.to_be_bytes();
    [
        if flat { 0x40 | high & 0x3f } else { 0 },
        low,
        0,
        0,
        0,
        0,
        0,
        0,
    ]
}

/// FNV-1a of name and number: an identity that is the same in every run.
fn fingerprint(name: &str, number: u16) -> u64 {
    let bytes = name.bytes().chain(number.to_be_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
pub(crate) fn lun_for_tests(config: LunConfig) -> Lun {
    Lun::new(0, config, 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_address_formats_up_to_the_largest_number() {
        for number in [0, 1, 255, 256, 16_383] {
            assert_eq!(
                lun_number(&lun_field(number, LunAddressing::Flat)),
                Some(number)
            );
            assert_eq!(
                lun_number(&lun_field(number, LunAddressing::Peripheral)),
                Some(number)
            );
        }
    }

    #[test]
    fn knows_no_lun_at_extended_or_second_level_addresses() {
        assert_eq!(lun_number(&[0xc1, 1, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(lun_number(&[0, 1, 0, 1, 0, 0, 0, 0]), None);
        assert_eq!(lun_number(&[1, 1, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn delivers_one_unit_attention_per_command_but_not_to_inquiry() {
        let lun = LunConfig {
            unit_attentions: vec![Sense::RESET_OCCURRED, Sense::CAPACITY_CHANGED],
            ..LunConfig::default()
        };
        let config = TargetConfig {
            luns: BTreeMap::from([(0, lun)]),
            ..TargetConfig::default()
        };
        let luns = Luns::new(&config);
        let ask = |opcode| {
            let mut cdb = [0; 16];
            cdb[0] = opcode;
            luns.execute(&[0; 8], &cdb, &DataOut::NONE, || None).sense
        };
        assert_eq!(ask(opcode::INQUIRY), None);
        assert_eq!(ask(opcode::TEST_UNIT_READY), Some(Sense::RESET_OCCURRED));
        assert_eq!(ask(opcode::TEST_UNIT_READY), Some(Sense::CAPACITY_CHANGED));
        assert_eq!(ask(opcode::TEST_UNIT_READY), None);
    }
}
