//! Finding out what a logical unit is: a small machine that asks and never waits.

use alloc::string::String;
use alloc::vec::Vec;

use super::facts::{BlockLimits, CommandWidth, Identity, LunFacts, Provisioning};
use super::probe_error::{Ending, ProbeError};
use crate::scsi::capacity::{self, Capacity};
use crate::scsi::command::{ScsiAnswer, ScsiCommand};
use crate::scsi::inquiry::{self, DeviceType, PeripheralQualifier};
use crate::scsi::mode_sense::{self, DiskMode};
use crate::scsi::sense::{Sense, UnitAttention};
use crate::scsi::sense_action::{GiveUp, Retry, SenseAction};
use crate::scsi::status::ScsiStatus;
use crate::scsi::vpd::{self, ProvisioningPage, VpdPage};
use crate::scsi::{ParameterError, sync_cache, test_unit_ready};

/// The most commands of one probe that may be answered with a unit attention or be aborted: a LUN
/// has a handful of conditions pending after a reset, so more means that it does not come to rest.
pub const MAX_TRIES_IN_VAIN: u32 = 32;

/// The pages that are read where the LUN has them; the first says which.
const PAGES: [u8; 5] = [
    vpd::UNIT_SERIAL_NUMBER,
    vpd::DEVICE_IDENTIFICATION,
    vpd::BLOCK_LIMITS,
    vpd::BLOCK_DEVICE_CHARACTERISTICS,
    vpd::LOGICAL_BLOCK_PROVISIONING,
];
/// How much of a page is asked for at first; the rest of a longer one in a second command. Old
/// devices have a length field of one byte.
const FIRST_PAGE_BYTES: u16 = 252;

/// One way to ask for mode pages.
struct ModeTry {
    command: fn(u8) -> ScsiCommand,
    parse: fn(&[u8]) -> Result<DiskMode, ParameterError>,
    page: u8,
}

impl ModeTry {
    const fn six(page: u8) -> Self {
        Self {
            command: mode_sense::command_6,
            parse: mode_sense::parse_6,
            page,
        }
    }

    const fn ten(page: u8) -> Self {
        Self {
            command: mode_sense::command_10,
            parse: mode_sense::parse_10,
            page,
        }
    }
}

/// The ways to ask for mode pages, until one brings the caching page: a LUN that refuses one form
/// may take another.
const MODE_TRIES: [ModeTry; 4] = [
    ModeTry::six(mode_sense::CACHING_PAGE),
    ModeTry::ten(mode_sense::CACHING_PAGE),
    ModeTry::six(mode_sense::ALL_PAGES),
    ModeTry::ten(mode_sense::ALL_PAGES),
];

/// Finds out what a logical unit is, and whether it can serve as a disk.
///
/// Call [`Probe::next`] for the command to run, run it, hand what came back to [`Probe::answer`],
/// and so on until `next` says [`ProbeStep::Done`]. Whoever runs the commands sets the time-outs.
/// After an error the probe is of no further use; when the error
/// [is retryable](ProbeError::is_retryable), start a new one a little later.
///
/// The number of commands is bounded, whatever the target answers. None of them changes the disk:
/// SYNCHRONIZE CACHE for one block is the only one that touches the medium, it comes last, and only
/// to a LUN that may have a volatile cache.
#[derive(Debug)]
pub struct Probe {
    step: Step,
    /// Pages still to be read, the last one first.
    pages: Vec<u8>,
    /// How much of the current page is asked for.
    page_bytes: u16,
    /// VPD page B2h, once it has been read.
    provisioning_page: Option<ProvisioningPage>,
    /// The caching page has been read, so that `facts.write_cache` is more than an assumption.
    caching_page_seen: bool,
    /// How many commands were not carried out.
    tries_in_vain: u32,
    /// Only what may have changed is asked for.
    is_review: bool,
    /// What is known so far.
    facts: LunFacts,
}

/// What to do next.
#[derive(Debug)]
pub enum ProbeStep {
    /// Run this command and hand in its answer.
    Run(ScsiCommand),
    /// The probe is over: this is the disk.
    Done(LunFacts),
}

/// Which answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Inquiry,
    SupportedPages,
    Page(u8),
    TestUnitReady,
    Capacity16,
    Capacity10,
    /// An index into [`MODE_TRIES`].
    Mode(usize),
    SyncCache(CommandWidth),
    Done,
}

/// What an answer amounts to.
enum Verdict {
    /// The command succeeded.
    Success,
    /// The target does not implement the command in this form.
    Refused(Ending),
    /// The command was not carried out: send it again.
    Again,
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe {
    /// A probe that knows nothing yet.
    pub fn new() -> Self {
        Self {
            step: Step::Inquiry,
            pages: Vec::new(),
            page_bytes: FIRST_PAGE_BYTES,
            provisioning_page: None,
            caching_page_seen: false,
            tries_in_vain: 0,
            is_review: false,
            facts: nothing_known(),
        }
    }

    /// A probe that reviews what is known already: it asks for size, write protection and write cache
    /// only, in two commands as a rule, and comes to `facts` again when these are as they were.
    ///
    /// It does not look at who the disk is. So whoever finds a difference probes it anew before
    /// acting on it. When the target itself tells of a change meanwhile, this becomes such a probe.
    pub fn review(facts: LunFacts) -> Self {
        let step = match facts.width {
            CommandWidth::Ten => Step::Capacity10,
            CommandWidth::Sixteen => Step::Capacity16,
        };
        Self {
            step,
            is_review: true,
            facts,
            ..Self::new()
        }
    }

    /// What to do next; the same again until an answer has been handed in.
    pub fn next(&self) -> ProbeStep {
        match self.command() {
            Some(command) => ProbeStep::Run(command),
            None => ProbeStep::Done(self.facts.clone()),
        }
    }

    /// Takes the answer to the command of the last [`Probe::next`]; after `Done` it is ignored.
    pub fn answer(&mut self, answer: ScsiAnswer<'_>) -> Result<(), ProbeError> {
        match self.judge(&answer)? {
            Verdict::Success => self.accept(answer.data),
            Verdict::Refused(ending) => self.refused(ending),
            Verdict::Again => Ok(()),
        }
    }

    fn command(&self) -> Option<ScsiCommand> {
        Some(match self.step {
            Step::Inquiry => inquiry::command(),
            Step::SupportedPages => inquiry::vpd_command(vpd::SUPPORTED_PAGES, self.page_bytes),
            Step::Page(page) => inquiry::vpd_command(page, self.page_bytes),
            Step::TestUnitReady => test_unit_ready::command(),
            Step::Capacity16 => capacity::command_16(),
            Step::Capacity10 => capacity::command_10(),
            Step::Mode(index) => {
                let mode = MODE_TRIES.get(index)?;
                (mode.command)(mode.page)
            }
            Step::SyncCache(CommandWidth::Sixteen) => sync_cache::probe_16(),
            Step::SyncCache(CommandWidth::Ten) => sync_cache::probe_10(),
            Step::Done => return None,
        })
    }

    /// The name of the awaited command.
    fn name(&self) -> &'static str {
        self.command().map_or("a command", |command| command.name())
    }

    fn judge(&mut self, answer: &ScsiAnswer<'_>) -> Result<Verdict, ProbeError> {
        let command = self.name();
        let status = ScsiStatus(answer.status);
        match status {
            ScsiStatus::CHECK_CONDITION => self.judge_sense(Sense::parse(answer.sense)),
            ScsiStatus::TASK_ABORTED => self.again(Ending {
                status,
                sense: None,
            }),
            ScsiStatus::BUSY | ScsiStatus::TASK_SET_FULL | ScsiStatus::ACA_ACTIVE => {
                Err(ProbeError::Busy { command, status })
            }
            // Whoever may not flush has learned all the same that flushing is implemented.
            ScsiStatus::RESERVATION_CONFLICT if matches!(self.step, Step::SyncCache(_)) => {
                Ok(Verdict::Success)
            }
            ScsiStatus::RESERVATION_CONFLICT => Err(ProbeError::Reserved { command }),
            status if status.is_success() => Ok(Verdict::Success),
            status => Err(ProbeError::Failed {
                command,
                ending: Ending {
                    status,
                    sense: None,
                },
            }),
        }
    }

    fn judge_sense(&mut self, sense: Option<Sense>) -> Result<Verdict, ProbeError> {
        let ending = Ending {
            status: ScsiStatus::CHECK_CONDITION,
            sense,
        };
        let Some(sense) = sense else {
            return self.again(ending);
        };
        match SenseAction::of(&sense) {
            SenseAction::Success => Ok(Verdict::Success),
            SenseAction::Retry(
                Retry::BecomingReady | Retry::PathUnavailable | Retry::NoResources,
            ) => Err(ProbeError::NotReady(sense)),
            SenseAction::Retry(
                Retry::UnitAttention | Retry::Aborted | Retry::DeferredError | Retry::NoReason,
            ) => {
                if sense
                    .unit_attention()
                    .is_some_and(UnitAttention::outdates_facts)
                {
                    self.start_again();
                }
                self.again(ending)
            }
            SenseAction::GiveUp(GiveUp::LunNotSupported) => Err(ProbeError::NoSuchLun),
            SenseAction::GiveUp(
                GiveUp::InvalidOpcode
                | GiveUp::InvalidField
                | GiveUp::IllegalRequest
                | GiveUp::OutOfRange,
            ) => Ok(Verdict::Refused(ending)),
            SenseAction::GiveUp(_) => Err(ProbeError::Failed {
                command: self.name(),
                ending,
            }),
        }
    }

    fn again(&mut self, ending: Ending) -> Result<Verdict, ProbeError> {
        self.tries_in_vain += 1;
        if self.tries_in_vain > MAX_TRIES_IN_VAIN {
            let (command, tries) = (self.name(), self.tries_in_vain);
            return Err(ProbeError::Unsettled {
                command,
                tries,
                ending,
            });
        }
        Ok(Verdict::Again)
    }

    /// Forgets all but the number of tries: what has been learned may be outdated.
    fn start_again(&mut self) {
        *self = Self {
            tries_in_vain: self.tries_in_vain,
            ..Self::new()
        };
    }

    fn accept(&mut self, data: &[u8]) -> Result<(), ProbeError> {
        match self.step {
            Step::Inquiry => self.take_inquiry(data)?,
            Step::SupportedPages | Step::Page(_) if self.is_cut_short(data) => {
                self.page_bytes = whole_page_bytes(data);
            }
            Step::SupportedPages => self.take_supported_pages(data),
            Step::Page(page) => self.take_page(page, data),
            Step::TestUnitReady => self.step = Step::Capacity16,
            Step::Capacity16 => {
                let capacity = self.understood(capacity::parse_16(data))?;
                self.take_capacity(&capacity, CommandWidth::Sixteen)?;
            }
            Step::Capacity10 => {
                let capacity = self.understood(capacity::parse_10(data))?;
                self.take_capacity_10(&capacity)?;
            }
            Step::Mode(index) => self.take_mode(index, data),
            Step::SyncCache(width) => self.take_sync_cache(width),
            Step::Done => {}
        }
        Ok(())
    }

    fn refused(&mut self, ending: Ending) -> Result<(), ProbeError> {
        match self.step {
            Step::Inquiry | Step::Capacity10 => {
                return Err(ProbeError::Failed {
                    command: self.name(),
                    ending,
                });
            }
            Step::SupportedPages | Step::Page(_) => self.next_page(),
            // Nothing that refuses to tell whether it is ready says that it is not.
            Step::TestUnitReady => self.step = Step::Capacity16,
            Step::Capacity16 => self.step = Step::Capacity10,
            Step::Mode(index) => self.next_mode(index),
            Step::SyncCache(CommandWidth::Sixteen) => {
                self.step = Step::SyncCache(CommandWidth::Ten);
            }
            Step::SyncCache(CommandWidth::Ten) => self.take_no_sync_cache(),
            Step::Done => {}
        }
        Ok(())
    }

    fn understood<T>(&self, parsed: Result<T, ParameterError>) -> Result<T, ProbeError> {
        let command = self.name();
        parsed.map_err(|reason| ProbeError::Malformed { command, reason })
    }

    fn take_inquiry(&mut self, data: &[u8]) -> Result<(), ProbeError> {
        let inquiry = self.understood(inquiry::parse(data))?;
        match inquiry.qualifier {
            PeripheralQualifier::Connected => {}
            PeripheralQualifier::NotConnected => return Err(ProbeError::NotConnected),
            PeripheralQualifier::Impossible | PeripheralQualifier::Other(_) => {
                return Err(ProbeError::NoSuchLun);
            }
        }
        if inquiry.device_type != DeviceType::DISK {
            return Err(ProbeError::NotADisk(inquiry.device_type));
        }
        self.facts.vendor = inquiry.vendor;
        self.facts.product = inquiry.product;
        self.facts.revision = inquiry.revision;
        self.step = Step::SupportedPages;
        Ok(())
    }

    /// Whether the page in `data` is longer than what was asked for at first; then the same command
    /// comes again, once, with the length of the whole page.
    fn is_cut_short(&self, data: &[u8]) -> bool {
        self.page_bytes == FIRST_PAGE_BYTES && whole_page_bytes(data) > FIRST_PAGE_BYTES
    }

    /// A target that answers with something else than the page has no pages.
    fn take_supported_pages(&mut self, data: &[u8]) {
        if let Ok(page) = VpdPage::parse(vpd::SUPPORTED_PAGES, data) {
            let listed = |code: &u8| page.supported_pages().contains(code);
            self.pages = PAGES.into_iter().rev().filter(listed).collect();
        }
        self.next_page();
    }

    /// A target that answers with something else than the page does not have it.
    fn take_page(&mut self, code: u8, data: &[u8]) {
        if let Ok(page) = VpdPage::parse(code, data) {
            let facts = &mut self.facts;
            match code {
                vpd::UNIT_SERIAL_NUMBER => facts.identity.serial = page.serial().to_vec(),
                vpd::DEVICE_IDENTIFICATION => {
                    facts.identity.designators = page.logical_unit_designators();
                }
                vpd::BLOCK_LIMITS => facts.limits = page.block_limits(),
                vpd::BLOCK_DEVICE_CHARACTERISTICS => facts.rotates = page.rotates(),
                vpd::LOGICAL_BLOCK_PROVISIONING => {
                    self.provisioning_page = Some(page.provisioning());
                }
                _ => {}
            }
        }
        self.next_page();
    }

    fn next_page(&mut self) {
        self.page_bytes = FIRST_PAGE_BYTES;
        self.step = self.pages.pop().map_or(Step::TestUnitReady, Step::Page);
    }

    /// READ CAPACITY(10) ends below 2^32 - 1 blocks; what lies beyond only the other can tell.
    fn take_capacity_10(&mut self, capacity: &Capacity) -> Result<(), ProbeError> {
        if capacity.last_block == u64::from(u32::MAX) {
            return Err(ProbeError::SizeUnknown);
        }
        self.take_capacity(capacity, CommandWidth::Ten)
    }

    fn take_capacity(
        &mut self,
        capacity: &Capacity,
        width: CommandWidth,
    ) -> Result<(), ProbeError> {
        let facts = &mut self.facts;
        facts.capacity_blocks = checked_capacity_blocks(capacity)?;
        facts.block_length_bytes = capacity.block_length_bytes;
        facts.identity.block_length_bytes = capacity.block_length_bytes;
        facts.physical_block_exponent = capacity.physical_block_exponent;
        facts.lowest_aligned_block = capacity.lowest_aligned_block;
        facts.width = width;
        if !self.is_review {
            facts.sync_cache = width;
            facts.provisioning = provisioning(capacity, self.provisioning_page, &facts.limits);
        }
        self.step = Step::Mode(0);
        Ok(())
    }

    fn take_mode(&mut self, index: usize, data: &[u8]) {
        let parsed = MODE_TRIES.get(index).map(|mode| (mode.parse)(data));
        let Some(Ok(mode)) = parsed else {
            return self.next_mode(index);
        };
        self.facts.write_protected = mode.write_protected;
        self.facts.fua = mode.dpofua;
        match mode.write_cache {
            None => self.next_mode(index),
            Some(write_cache) => {
                self.facts.write_cache = write_cache;
                self.caching_page_seen = true;
                self.after_mode();
            }
        }
    }

    fn next_mode(&mut self, index: usize) {
        match index + 1 {
            next if next < MODE_TRIES.len() => self.step = Step::Mode(next),
            _ => self.after_mode(),
        }
    }

    /// How to flush has to be known only where there may be something to flush.
    fn after_mode(&mut self) {
        let has_to_flush = self.facts.write_cache && !self.facts.write_protected;
        self.step = match has_to_flush && !self.is_review {
            true => Step::SyncCache(self.facts.sync_cache),
            false => Step::Done,
        };
    }

    fn take_sync_cache(&mut self, width: CommandWidth) {
        self.facts.sync_cache = width;
        self.step = Step::Done;
    }

    /// No form of SYNCHRONIZE CACHE is implemented. Where the caching page says that there is a
    /// cache, flushes will be sent all the same and fail, since they cannot be kept. Without that
    /// page nothing hints at a volatile cache, which SBC-4 has both for.
    fn take_no_sync_cache(&mut self) {
        self.facts.write_cache = self.caching_page_seen;
        self.step = Step::Done;
    }
}

/// The length of the page that starts with `data`, as far as an allocation length can say it.
fn whole_page_bytes(data: &[u8]) -> u16 {
    u16::try_from(vpd::stated_length_bytes(data)).unwrap_or(u16::MAX)
}

/// The number of blocks, of a disk that can be served.
fn checked_capacity_blocks(capacity: &Capacity) -> Result<u64, ProbeError> {
    let block_length_bytes = capacity.block_length_bytes;
    if !matches!(block_length_bytes, 512 | 4096) {
        return Err(ProbeError::BlockLength(block_length_bytes));
    }
    // A target without blocks reports the address before block 0.
    let blocks = capacity
        .last_block
        .checked_add(1)
        .ok_or(ProbeError::ZeroCapacity)?;
    let bytes = blocks.checked_mul(u64::from(block_length_bytes));
    bytes
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .map(|_| blocks)
        .ok_or(ProbeError::TooLarge {
            blocks,
            block_length_bytes,
        })
}

/// What a thin disk can do. VPD page B2h is optional: without it, a limit for UNMAP in page B0h
/// says that there is UNMAP, and else WRITE SAME with its UNMAP bit is the way (as Linux does).
fn provisioning(
    capacity: &Capacity,
    page: Option<ProvisioningPage>,
    limits: &BlockLimits,
) -> Provisioning {
    let thin = capacity.provisioning_management;
    let has_unmap_limit = limits.max_unmap_blocks.is_some_and(|blocks| blocks != 0);
    let page = page.unwrap_or(ProvisioningPage {
        unmap: thin && has_unmap_limit,
        write_same_unmap: thin && !has_unmap_limit,
        reads_zeros: false,
    });
    Provisioning {
        thin,
        reads_zeros: capacity.reads_zeros || page.reads_zeros,
        unmap: page.unmap && limits.max_unmap_blocks != Some(0),
        write_same_unmap: page.write_same_unmap,
    }
}

/// The facts before the first answer: what is assumed of a disk that does not say.
fn nothing_known() -> LunFacts {
    LunFacts {
        identity: Identity {
            designators: Vec::new(),
            serial: Vec::new(),
            block_length_bytes: 0,
        },
        vendor: String::new(),
        product: String::new(),
        revision: String::new(),
        block_length_bytes: 0,
        capacity_blocks: 0,
        physical_block_exponent: 0,
        lowest_aligned_block: 0,
        write_protected: false,
        write_cache: true,
        fua: false,
        width: CommandWidth::Sixteen,
        sync_cache: CommandWidth::Sixteen,
        provisioning: Provisioning::default(),
        limits: BlockLimits::default(),
        rotates: None,
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
