//! A malformed request ends with an error, or goes back with length 0 where no status byte can
//! be written; and the queue goes on.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use vhost_user_iscsi_tests::disk::{DISK_BYTES, Disk, pattern};
use vhost_user_iscsi_tests::frontend::memory::Block;
use vhost_user_iscsi_tests::frontend::spec::{
    DESC_INDIRECT, DESC_WRITE, S_IOERR, S_OK, S_UNSUPP, S_UNTOUCHED, SECTOR_BYTES, T_DISCARD,
    T_FLUSH, T_IN, T_OUT, T_WRITE_ZEROES,
};
use vhost_user_iscsi_tests::frontend::{
    Descriptor, Error, Frontend, FrontendConfig, IO_LIMIT, Layout, Next, Request,
};

const DISK_SECTORS: u64 = DISK_BYTES / SECTOR_BYTES as u64;
const HEADER_BYTES: u32 = 16;

/// How a malformed chain may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The status byte says IOERR.
    IoError,
    /// No status byte was written, and the used length is 0.
    Unanswered,
    /// One of the two above, or UNSUPP: which, depends on how far the device follows the chain.
    Refused,
    /// Neither forbidden to answer nor to refuse: it only has to come back.
    Any,
}

/// A daemon, a front-end, and the parts of one request in guest memory.
struct Case {
    frontend: Frontend,
    header: Block,
    data: Block,
    status: Block,
    _disk: Disk,
}

impl Case {
    fn new(kind: u32, sector: u64) -> Self {
        let disk = Disk::new();
        let frontend = disk.connect(FrontendConfig::with_queues(2));
        let memory = frontend.memory();
        let header = memory.allocate(u64::from(HEADER_BYTES), 16);
        let data = memory.allocate(4096, 16);
        let status = memory.allocate(1, 1);
        memory.write(
            header.address,
            &Request {
                sector,
                ..Request::bare(kind)
            }
            .readable(),
        );
        memory.write(status.address, &[S_UNTOUCHED]);
        Self {
            header,
            data,
            status,
            frontend,
            _disk: disk,
        }
    }

    fn header(&self, next: Next) -> Descriptor {
        Descriptor {
            address: self.header.address,
            length_bytes: HEADER_BYTES,
            flags: 0,
            next,
        }
    }

    fn data_in(&self, length_bytes: u32, next: Next) -> Descriptor {
        Descriptor {
            address: self.data.address,
            length_bytes,
            flags: DESC_WRITE,
            next,
        }
    }

    fn data_out(&self, length_bytes: u32, next: Next) -> Descriptor {
        Descriptor {
            flags: 0,
            ..self.data_in(length_bytes, next)
        }
    }

    fn status(&self, next: Next) -> Descriptor {
        Descriptor {
            address: self.status.address,
            length_bytes: 1,
            flags: DESC_WRITE,
            next,
        }
    }

    fn status_byte(&self) -> u8 {
        self.frontend.memory().read(self.status.address, 1)[0]
    }

    /// Submits the chain, checks how it ends and that the queue goes on.
    fn ends(&mut self, chain: &[Descriptor], end: End) {
        let queue = self.frontend.queue(0);
        let head = queue.submit_raw(chain).unwrap();
        let done = queue.wait_used(IO_LIMIT).unwrap();
        assert_eq!(done.head, head);
        let (status, length) = (self.status_byte(), done.written_bytes);
        let unanswered = (status, length) == (S_UNTOUCHED, 0);
        let right = match end {
            End::IoError => status == S_IOERR,
            End::Unanswered => unanswered,
            End::Refused => unanswered || [S_IOERR, S_UNSUPP].contains(&status),
            End::Any => true,
        };
        assert!(
            right,
            "{end:?} expected, but status {status:#x} and length {length}"
        );
        goes_on(&mut self.frontend, 0);
    }

    /// As [`Case::ends`] for a chain inside an indirect table.
    fn ends_in_table(&mut self, chain: &[Descriptor], end: End) {
        let table = self.frontend.queue(0).indirect_table(chain);
        let length_bytes = u32::try_from(table.length_bytes).unwrap();
        self.ends(&[table_at(table.address, length_bytes)], end);
    }
}

fn table_at(address: u64, length_bytes: u32) -> Descriptor {
    Descriptor {
        address,
        length_bytes,
        flags: DESC_INDIRECT,
        next: Next::End,
    }
}

fn goes_on(frontend: &mut Frontend, queue: usize) {
    let queue = frontend.queue(queue);
    for _ in 0..3 {
        assert_eq!(queue.write(200, &pattern(1024)).unwrap(), S_OK);
        assert_eq!(queue.read(200, 1024).unwrap(), (S_OK, pattern(1024)));
    }
}

const TO_1: Next = Next::Place(1);
const TO_2: Next = Next::Place(2);

#[test]
fn a_well_formed_raw_chain_is_answered() {
    let mut case = Case::new(T_IN, 0);
    let chain = [
        case.header(TO_1),
        case.data_in(512, TO_2),
        case.status(Next::End),
    ];
    case.ends(&chain, End::Any);
    assert_eq!(case.status_byte(), S_OK);
}

#[test]
fn a_loop_goes_back_unanswered() {
    let mut case = Case::new(T_IN, 0);
    let chain = [
        case.header(TO_1),
        case.data_in(512, TO_2),
        case.status(Next::Place(1)),
    ];
    case.ends(&chain, End::Refused);
}

#[test]
fn a_descriptor_that_follows_itself_goes_back_unanswered() {
    let mut case = Case::new(T_IN, 0);
    let chain = [case.header(Next::Place(0))];
    case.ends(&chain, End::Unanswered);
}

#[test]
fn a_loop_in_an_indirect_table_is_refused() {
    let mut case = Case::new(T_IN, 0);
    let chain = [
        case.header(TO_1),
        case.data_in(512, TO_2),
        case.status(Next::Place(1)),
    ];
    case.ends_in_table(&chain, End::Refused);
}

#[test]
fn a_next_beyond_the_table_is_refused() {
    for beyond in [128, u16::MAX] {
        let mut case = Case::new(T_IN, 0);
        let chain = [case.header(TO_1), case.data_in(512, Next::Raw(beyond))];
        case.ends(&chain, End::Refused);
    }
}

#[test]
fn a_next_beyond_the_indirect_table_is_refused() {
    let mut case = Case::new(T_IN, 0);
    let chain = [case.header(TO_1), case.data_in(512, Next::Raw(2))];
    case.ends_in_table(&chain, End::Refused);
}

#[test]
fn data_outside_memory_is_an_error() {
    let end = Case::new(T_IN, 0).frontend.memory().end();
    for address in [0, end, end - 511, 1 << 40, u64::MAX - 511, u64::MAX] {
        for (kind, flags) in [(T_IN, DESC_WRITE), (T_OUT, 0)] {
            let mut case = Case::new(kind, 0);
            let data = Descriptor {
                address,
                flags,
                ..case.data_in(512, TO_2)
            };
            let chain = [case.header(TO_1), data, case.status(Next::End)];
            case.ends(&chain, End::IoError);
        }
    }
}

#[test]
fn a_header_outside_memory_is_an_error() {
    let mut case = Case::new(T_IN, 0);
    let header = Descriptor {
        address: 1 << 40,
        ..case.header(TO_1)
    };
    let chain = [header, case.data_in(512, TO_2), case.status(Next::End)];
    case.ends(&chain, End::Refused);
}

#[test]
fn a_status_outside_memory_goes_back_unanswered() {
    let mut case = Case::new(T_FLUSH, 0);
    let status = Descriptor {
        address: 1 << 40,
        ..case.status(Next::End)
    };
    let chain = [case.header(TO_1), status];
    case.ends(&chain, End::Unanswered);
}

#[test]
fn a_missing_status_goes_back_unanswered() {
    for kind in [T_OUT, T_FLUSH] {
        let mut case = Case::new(kind, 0);
        let chain = [case.header(TO_1), case.data_out(512, Next::End)];
        case.ends(&chain, End::Unanswered);
    }
    let mut case = Case::new(T_FLUSH, 0);
    let chain = [case.header(Next::End)];
    case.ends(&chain, End::Unanswered);
}

#[test]
fn a_missing_header_is_an_error() {
    let mut case = Case::new(T_IN, 0);
    let chain = [case.status(Next::End)];
    case.ends(&chain, End::IoError);
}

#[test]
fn a_short_header_is_an_error() {
    for length_bytes in [1, 15] {
        let mut case = Case::new(T_FLUSH, 0);
        let header = Descriptor {
            length_bytes,
            ..case.header(TO_1)
        };
        let chain = [header, case.status(Next::End)];
        case.ends(&chain, End::IoError);
    }
}

#[test]
fn a_header_for_the_device_to_write_is_an_error() {
    let mut case = Case::new(T_IN, 0);
    let header = Descriptor {
        flags: DESC_WRITE,
        ..case.header(TO_1)
    };
    let chain = [header, case.data_in(512, TO_2), case.status(Next::End)];
    case.ends(&chain, End::IoError);
}

#[test]
fn a_status_for_the_device_to_read_goes_back_unanswered() {
    let mut case = Case::new(T_FLUSH, 0);
    let status = Descriptor {
        flags: 0,
        ..case.status(Next::End)
    };
    let chain = [case.header(TO_1), status];
    case.ends(&chain, End::Unanswered);
}

#[test]
fn a_read_into_data_for_the_device_to_read_is_an_error() {
    let mut case = Case::new(T_IN, 0);
    let chain = [
        case.header(TO_1),
        case.data_out(512, TO_2),
        case.status(Next::End),
    ];
    case.ends(&chain, End::IoError);
}

#[test]
fn a_write_from_data_for_the_device_to_write_is_an_error() {
    let mut case = Case::new(T_OUT, 0);
    let chain = [
        case.header(TO_1),
        case.data_in(512, TO_2),
        case.status(Next::End),
    ];
    case.ends(&chain, End::IoError);
}

#[test]
fn writable_before_readable_is_refused() {
    let mut case = Case::new(T_IN, 0);
    let chain = [
        case.data_in(512, TO_1),
        case.header(TO_2),
        case.status(Next::End),
    ];
    case.ends(&chain, End::Refused);
}

#[test]
fn unaligned_sizes_are_an_error() {
    for length_bytes in [1, 511, 513, 1023] {
        let mut case = Case::new(T_IN, 0);
        let data = case.data_in(length_bytes, TO_2);
        let chain = [case.header(TO_1), data, case.status(Next::End)];
        case.ends(&chain, End::IoError);
        let mut case = Case::new(T_OUT, 0);
        let data = case.data_out(length_bytes, TO_2);
        let chain = [case.header(TO_1), data, case.status(Next::End)];
        case.ends(&chain, End::IoError);
    }
}

#[test]
fn a_descriptor_of_length_zero_comes_back() {
    let mut case = Case::new(T_IN, 0);
    let data = case.data_in(0, TO_2);
    let chain = [case.header(TO_1), data, case.status(Next::End)];
    case.ends(&chain, End::Any);
}

#[test]
fn a_table_inside_a_table_is_refused() {
    let mut case = Case::new(T_FLUSH, 0);
    let inner = [case.header(TO_1), case.status(Next::End)];
    let inner = case.frontend.queue(0).indirect_table(&inner);
    case.ends_in_table(&[table_at(inner.address, 32)], End::Refused);
}

#[test]
fn a_table_with_a_next_comes_back() {
    let mut case = Case::new(T_FLUSH, 0);
    let table = [case.header(TO_1), case.status(Next::End)];
    let table = case.frontend.queue(0).indirect_table(&table);
    let chain = [
        Descriptor {
            next: TO_1,
            ..table_at(table.address, 32)
        },
        case.status(Next::End),
    ];
    case.ends(&chain, End::Any);
}

#[test]
fn a_table_of_uneven_length_is_refused() {
    for length_bytes in [0, 15, 17, 31] {
        let mut case = Case::new(T_FLUSH, 0);
        let table = [case.header(TO_1), case.status(Next::End)];
        let table = case.frontend.queue(0).indirect_table(&table);
        case.ends(&[table_at(table.address, length_bytes)], End::Refused);
    }
}

#[test]
fn a_table_outside_memory_goes_back_unanswered() {
    for address in [0, 1 << 40, u64::MAX - 15] {
        let mut case = Case::new(T_FLUSH, 0);
        case.ends(&[table_at(address, 32)], End::Unanswered);
    }
}

#[test]
fn a_table_of_four_gibibytes_is_refused() {
    let mut case = Case::new(T_FLUSH, 0);
    let address = case.data.address;
    case.ends(&[table_at(address, u32::MAX - 15)], End::Refused);
}

#[test]
fn reads_and_writes_beyond_the_capacity_are_errors() {
    let too_far = [
        DISK_SECTORS - 1,
        DISK_SECTORS,
        1 << 54,
        1 << 55,
        (1 << 55) - 1,
        u64::MAX,
    ];
    for sector in too_far {
        for (kind, flags) in [(T_IN, DESC_WRITE), (T_OUT, 0)] {
            let mut case = Case::new(kind, sector);
            let data = Descriptor {
                flags,
                ..case.data_in(1024, TO_2)
            };
            let chain = [case.header(TO_1), data, case.status(Next::End)];
            case.ends(&chain, End::IoError);
        }
    }
}

fn status_of(frontend: &mut Frontend, request: Request) -> u8 {
    let layout = Layout::usual(&request);
    frontend.queue(0).run(request, &layout).unwrap().status
}

#[test]
fn ranges_beyond_the_capacity_are_errors() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    for kind in [T_DISCARD, T_WRITE_ZEROES] {
        for sector in [DISK_SECTORS - 7, DISK_SECTORS, 1 << 55, u64::MAX] {
            let request = Request::ranges(kind, &[(sector, 8, 0)]);
            assert_eq!(
                status_of(&mut frontend, request),
                S_IOERR,
                "type {kind}, {sector}"
            );
        }
        let request = Request::ranges(kind, &[(0, u32::MAX, 0)]);
        assert_eq!(status_of(&mut frontend, request), S_IOERR, "type {kind}");
    }
    goes_on(&mut frontend, 0);
}

#[test]
fn range_lists_of_a_wrong_length_are_errors() {
    let disk = Disk::new();
    let mut frontend = disk.connect(FrontendConfig::default());
    for kind in [T_DISCARD, T_WRITE_ZEROES] {
        for length in [0, 15, 17] {
            let request = Request {
                data_out: vec![0; length],
                ..Request::bare(kind)
            };
            assert_eq!(
                status_of(&mut frontend, request),
                S_IOERR,
                "type {kind}, {length} bytes"
            );
        }
    }
    goes_on(&mut frontend, 0);
}

#[test]
fn a_write_that_fails_changes_nothing() {
    let mut case = Case::new(T_OUT, DISK_SECTORS - 1);
    assert_eq!(
        case.frontend
            .queue(0)
            .write(DISK_SECTORS - 1, &pattern(512))
            .unwrap(),
        S_OK
    );
    let data = case.data_out(1024, TO_2);
    let chain = [case.header(TO_1), data, case.status(Next::End)];
    case.ends(&chain, End::IoError);
    assert_eq!(
        case.frontend
            .queue(0)
            .read(DISK_SECTORS - 1, 512)
            .unwrap()
            .1,
        pattern(512)
    );
}

#[test]
fn a_head_beyond_the_table_harms_nothing() {
    let mut case = Case::new(T_IN, 0);
    let queue = case.frontend.queue(0);
    queue.ring().publish(u16::MAX);
    queue.kick();
    let request = Request::read(0, 512);
    let layout = Layout::usual(&request);
    let head = queue.submit(request, &layout).unwrap();
    // Whether the wrong head comes back is the device's choice.
    let done = match queue.wait_used(IO_LIMIT) {
        Err(Error::NotInFlight(65535)) => queue.wait_used(IO_LIMIT),
        done => done,
    };
    assert_eq!(done.unwrap().head, head);
}

#[test]
fn an_available_index_that_jumps_harms_only_its_queue() {
    let mut case = Case::new(T_IN, 0);
    let queue = case.frontend.queue(0);
    queue.ring().jump(129);
    queue.kick();
    goes_on(&mut case.frontend, 1);
    case.frontend.reset().unwrap();
    goes_on(&mut case.frontend, 0);
    goes_on(&mut case.frontend, 1);
}

#[test]
fn malformed_chains_among_good_ones_do_not_disturb_these() {
    let mut case = Case::new(T_IN, u64::MAX);
    let bad = [
        case.header(TO_1),
        case.data_in(512, TO_2),
        case.status(Next::Place(1)),
    ];
    let queue = case.frontend.queue(0);
    let mut good = 0;
    for sector in 0..16 {
        let request = Request::write(sector, pattern(512));
        queue.submit(request, &Layout::merged()).unwrap();
        queue.submit_raw(&bad).unwrap();
    }
    while queue.in_flight() > 0 {
        let done = queue.wait_used(IO_LIMIT).unwrap();
        good += usize::from(done.status == S_OK);
    }
    assert_eq!(good, 16);
}
