//! The lists.
//!
//! They hold what we call, what Rust's library and the C library (glibc and musl) call for us, and, for
//! the control plane, what a module of the resolver may call. An older kernel or library takes another
//! way to the same end, so a way and the one that it replaced stand side by side.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::Threads;

/// By number of the call; a call without rules matches whatever its arguments are.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Every thread: bytes in and out, waiting, memory, time, locks, signals, its own end.
const ALL_THREADS: &[c_long] = &[
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_pwait,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_epoll_ctl,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_getcpu,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prctl,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The C library looks up the number of processors, and how memory is committed, to tune its
    // allocator; a backtrace looks for symbols. Refused to lanes, see `refused`.
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_getcwd,
];

/// The same by their older names, which aarch64 never had.
#[cfg(target_arch = "x86_64")]
const ALL_THREADS_OLD: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_time,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
];
#[cfg(target_arch = "aarch64")]
const ALL_THREADS_OLD: &[c_long] = &[];

/// Lanes have no use for files: what of [`ALL_THREADS`] is refused to them.
const FILES: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getcwd,
];
#[cfg(target_arch = "x86_64")]
const FILES_OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
];
#[cfg(target_arch = "aarch64")]
const FILES_OLD: &[c_long] = &[];

/// The control plane: connections, front-ends and their memory, socket and lock files, the resolver.
const CONTROL: &[c_long] = &[
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmmsg,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_dup,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fstatfs,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_unlinkat,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_flock,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Refused, so that a thread is started by clone, whose flags a filter can see; see `missing`.
    libc::SYS_clone3,
];

#[cfg(target_arch = "x86_64")]
const CONTROL_OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_unlink,
    libc::SYS_chmod,
    libc::SYS_chown,
];
#[cfg(target_arch = "aarch64")]
const CONTROL_OLD: &[c_long] = &[];

/// What a socket may be of. Of netlink's only routes, which the resolver asks for addresses.
const FAMILIES: [c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Non-blocking sockets, bytes that are not sent yet, bytes of an answer (resolver), whether something
/// is a terminal, and the number of an interface (link-local addresses).
#[allow(
    clippy::unnecessary_cast,
    clippy::cast_sign_loss,
    reason = "they are ints with musl"
)]
const IOCTLS: [u64; 5] = [
    libc::FIONBIO as u64,
    libc::TIOCOUTQ as u64,
    libc::FIONREAD as u64,
    libc::TCGETS as u64,
    libc::SIOCGIFINDEX as u64,
];

/// Names of threads and of memory, exact timers, and what installing a filter begins with.
const PRCTLS: [c_int; 5] = [
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_SET_TIMERSLACK,
    libc::PR_SET_NO_NEW_PRIVS,
];

/// New namespaces, which a thread needs none of.
const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

pub(super) fn filters(threads: Threads, is_enforced: bool) -> Result<Vec<BpfProgram>, Error> {
    let beyond = if is_enforced {
        SeccompAction::KillProcess
    } else {
        SeccompAction::Log
    };
    let refusal = |code: c_int| match u32::try_from(code) {
        Ok(code) if is_enforced => SeccompAction::Errno(code),
        _ => SeccompAction::Log,
    };
    let refused = refused(threads)?;
    let allowed = allowed(threads)?;
    let mut filters = vec![
        compile(refused, SeccompAction::Allow, refusal(libc::EACCES))?,
        // Last: it has no place for the call that installs filters, where the thread is a lane.
        compile(allowed, beyond, SeccompAction::Allow)?,
    ];
    // Not logged: there is no way around it, and nothing amiss.
    if threads == Threads::Control && is_enforced {
        let missing = Rules::from([(libc::SYS_clone3, Vec::new())]);
        filters.insert(
            0,
            compile(missing, SeccompAction::Allow, refusal(libc::ENOSYS))?,
        );
    }
    Ok(filters)
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, action, ARCH)?.try_into()
}

/// The list.
fn allowed(threads: Threads) -> Result<Rules, BackendError> {
    let calls = [ALL_THREADS, ALL_THREADS_OLD];
    let of_control = [CONTROL, CONTROL_OLD];
    let more = of_control.iter().filter(|_| threads == Threads::Control);
    let calls = calls.iter().chain(more).copied().flatten();
    let mut rules: Rules = calls.map(|call| (*call, Vec::new())).collect();
    rules.extend(signals_to_ourselves()?);
    if threads == Threads::Control {
        rules.extend(narrowed()?);
    }
    Ok(rules)
}

/// abort(3), raise(3), and a debug build that kills itself: nobody else is signalled.
fn signals_to_ourselves() -> Result<Rules, BackendError> {
    let ourselves = u64::from(std::process::id());
    let to_us = || rule(&[(0, SeccompCmpOp::Eq, ourselves)]);
    let mut rules = Rules::from([
        (libc::SYS_tgkill, vec![to_us()?]),
        (libc::SYS_kill, vec![to_us()?]),
    ]);
    // musl's raise(3) names a thread alone.
    if cfg!(target_env = "musl") {
        rules.insert(libc::SYS_tkill, Vec::new());
    }
    Ok(rules)
}

/// What the control plane may call with some arguments only. None of it is on the path of a request.
fn narrowed() -> Result<Rules, BackendError> {
    let family = |family: c_int| rule(&[(0, SeccompCmpOp::Eq, value(family))]);
    let netlink = rule(&[
        (0, SeccompCmpOp::Eq, value(libc::AF_NETLINK)),
        (2, SeccompCmpOp::Eq, value(libc::NETLINK_ROUTE)),
    ])?;
    let families = FAMILIES.into_iter().map(family);
    let sockets: Result<Vec<_>, _> = families.chain([Ok(netlink)]).collect();
    let is_thread = value(libc::CLONE_VM | libc::CLONE_THREAD);
    let flags = SeccompCmpOp::MaskedEq(is_thread | value(NAMESPACES));
    let adds_filter = u64::from(libc::SECCOMP_SET_MODE_FILTER);
    Ok(Rules::from([
        (libc::SYS_socket, sockets?),
        (libc::SYS_socketpair, vec![family(libc::AF_UNIX)?]),
        (libc::SYS_clone, vec![rule(&[(0, flags, is_thread)])?]),
        // For lanes.
        (
            libc::SYS_seccomp,
            vec![rule(&[(0, SeccompCmpOp::Eq, adds_filter)])?],
        ),
        // Limits of our own.
        (
            libc::SYS_prlimit64,
            vec![rule(&[(0, SeccompCmpOp::Eq, 0)])?],
        ),
    ]))
}

/// What is answered with an error although it is on the list.
fn refused(threads: Threads) -> Result<Rules, BackendError> {
    let executable = SeccompCmpOp::MaskedEq(value(libc::PROT_EXEC));
    let executable = || rule(&[(2, executable.clone(), value(libc::PROT_EXEC))]);
    let others = |argument, known: &[u64]| {
        let differs = |known: &u64| (argument, SeccompCmpOp::Ne, *known);
        rule(&known.iter().map(differs).collect::<Vec<_>>())
    };
    let mut rules = Rules::from([
        // No code but what was mapped at the start.
        (libc::SYS_mmap, vec![executable()?]),
        (libc::SYS_mprotect, vec![executable()?]),
        (libc::SYS_ioctl, vec![others(1, &IOCTLS)?]),
        (libc::SYS_prctl, vec![others(0, &PRCTLS.map(value))?]),
    ]);
    if threads == Threads::Lanes {
        let files = FILES.iter().chain(FILES_OLD);
        rules.extend(files.map(|call| (*call, Vec::new())));
    }
    Ok(rules)
}

/// Matches when all of these hold: number of the argument, comparison, value. The lower half counts:
/// all of these arguments are ints, or flags of 32 bits.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, BackendError> {
    let condition = |(argument, operator, value): &(u8, SeccompCmpOp, u64)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
    };
    SeccompRule::new(conditions.iter().map(condition).collect::<Result<_, _>>()?)
}

/// An int as a filter sees it.
fn value(number: c_int) -> u64 {
    u64::from(number.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Threads; 2] = [Threads::Control, Threads::Lanes];

    #[test]
    fn what_is_on_the_path_of_a_request_is_allowed_whatever_its_arguments() {
        for call in [
            libc::SYS_recvmsg,
            libc::SYS_sendmsg,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_sched_yield,
            libc::SYS_setsockopt,
            libc::SYS_futex,
            libc::SYS_clock_gettime,
        ] {
            for threads in BOTH {
                assert!(allowed(threads).unwrap()[&call].is_empty(), "{call}");
                assert!(!refused(threads).unwrap().contains_key(&call), "{call}");
            }
        }
    }

    #[test]
    fn nothing_that_gains_or_reaches_more_is_on_a_list() {
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_chroot,
            libc::SYS_pivot_root,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setgroups,
            libc::SYS_capset,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_open_by_handle_at,
            libc::SYS_keyctl,
            libc::SYS_shmat,
            libc::SYS_mknodat,
            libc::SYS_symlinkat,
            libc::SYS_linkat,
            libc::SYS_renameat2,
            libc::SYS_pidfd_getfd,
        ] {
            for threads in BOTH {
                assert!(!allowed(threads).unwrap().contains_key(&call), "{call}");
            }
        }
    }

    #[test]
    fn what_a_lane_may_the_control_plane_may_too_or_the_lane_could_not_anyway() {
        let control = allowed(Threads::Control).unwrap();
        let lanes = allowed(Threads::Lanes).unwrap();
        assert!(lanes.keys().all(|call| control.contains_key(call)));
        assert!(lanes.len() < control.len());
        let refused = refused(Threads::Lanes).unwrap();
        assert!(refused.keys().all(|call| lanes.contains_key(call)));
    }
}
