//! What the kernel can wall off, prepared before the Python side raises it: a Landlock rule set and a seccomp filter.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// A Landlock rule set under which only `readable` may be read and nothing written; `None` where the kernel has no Landlock.
///
/// The scratch folder is added where it is made. The descriptor is inherited by processes started from here on.
pub fn ruleset(readable: &[PathBuf]) -> Result<Option<OwnedFd>, String> {
    let build = || -> Result<Option<OwnedFd>, Box<dyn std::error::Error>> {
        // ABI 6 is the last that adds what we use; on an older kernel the crate leaves out what it does not know.
        let abi = ABI::V6;
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::from_all(abi))?;
        let mut created = ruleset.create()?;
        for path in readable {
            let rights = match path.is_dir() {
                true => AccessFs::ReadFile | AccessFs::ReadDir,
                false => AccessFs::ReadFile.into(),
            };
            created = created.add_rule(PathBeneath::new(PathFd::new(path)?, rights))?;
        }
        Ok(created.into())
    };
    let ruleset = build().map_err(|error| error.to_string())?;
    if let Some(fd) = &ruleset {
        inherit(fd)?;
    }
    Ok(ruleset)
}

/// Lets a descriptor outlive `exec`.
#[allow(unsafe_code, reason = "the standard library cannot clear FD_CLOEXEC; the descriptor is open and ours")]
fn inherit(fd: &OwnedFd) -> Result<(), String> {
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) };
    if done == -1 { Err(std::io::Error::last_os_error().to_string()) } else { Ok(()) }
}

/// The seccomp filter as the kernel's `struct sock_filter` array.
///
/// It lists what a single-threaded computation on its own memory and files needs; every other call (processes, threads,
/// sockets, signals, `ptrace`, `mount`, `bpf`, `io_uring`, `keyctl`, new `prctl`s, …) fails with `EPERM`.
pub fn filter() -> Result<Vec<u8>, String> {
    let build = || -> Result<BpfProgram, Box<dyn std::error::Error>> {
        let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
            ALLOWED.iter().chain(ALLOWED_HERE).map(|&call| (call, Vec::new())).collect();
        for &(call, argument, values) in CONDITIONAL {
            let rule = |&value| {
                let equal = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)?;
                SeccompRule::new(vec![equal])
            };
            rules.insert(call, values.iter().map(rule).collect::<Result<_, _>>()?);
        }
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
        Ok(filter.try_into()?)
    };
    let program = build().map_err(|error| error.to_string())?;
    let bytes = |i: &seccompiler::sock_filter| {
        let mut bytes = i.code.to_ne_bytes().to_vec();
        bytes.extend([i.jt, i.jf]);
        bytes.extend(i.k.to_ne_bytes());
        bytes
    };
    Ok(program.iter().flat_map(bytes).collect())
}

/// Calls allowed when an argument (by index) has one of the values.
const CONDITIONAL: &[(i64, u8, &[u64])] = &[
    // TCGETS (is it a terminal?), FIONCLEX, FIOCLEX; no terminal is ever open here.
    (libc::SYS_ioctl, 1, &[0x5401, 0x5450, 0x5451]),
    // Duplicate, flags, locks; not F_SETOWN and F_SETSIG, which send signals to others.
    (libc::SYS_fcntl, 1, &[0, 1, 2, 3, 4, 5, 6, 7, 1030]),
    // Reading limits, never setting them.
    (libc::SYS_prlimit64, 2, &[0]),
];

const ALLOWED: &[i64] = &[
    // memory
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // files; not their modes, times or lengths by name, which Landlock does not guard everywhere
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_umask,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // time, and signals to oneself by a timer
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // oneself
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Older forms of the same calls, which only some processors have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_symlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_time,
    libc::SYS_alarm,
    libc::SYS_pause,
    libc::SYS_arch_prctl,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[i64] = &[libc::SYS_renameat];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ALLOWED_HERE: &[i64] = &[];

/// The number of `pivot_root`, for which no C library has a function.
pub const PIVOT_ROOT: i64 = libc::SYS_pivot_root;

/// Folders of shared libraries and tables that Python's own modules read, as far as they exist.
pub fn system_folders() -> impl Iterator<Item = PathBuf> {
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| Path::new(path).exists())
}
