//! Confinement of programs that read untrusted text. An attacker who takes over such a program can write
//! only in the program's own directory, reaches no network, and has bounded CPU time, memory and files.
//!
//! Landlock and seccomp confine a thread and the processes that it starts. So each child is started by a
//! thread of its own, which is confined first and ends afterwards. A child may still read all files that
//! voxline may read.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Once;
use std::thread;

/// Upper bounds of one process, from its start to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// CPU time, in seconds. A process that exceeds it is killed.
    pub(crate) cpu_seconds: u64,
    /// Address space, in bytes.
    pub(crate) memory: u64,
}

/// Largest file that a process may write, in bytes: as much as it may answer by a pipe.
const MAX_FILE: u64 = super::MAX_OUTPUT;

/// Largest number of open files of a process. espeak-ng and festival were seen with 3 and 6.
const MAX_FILES: u64 = 64;

/// A part of the confinement that the kernel, or the environment that started voxline, refused.
#[derive(Debug)]
struct Refusal {
    /// Name of the part.
    part: &'static str,
    /// Error of the operating system.
    reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.reason)
    }
}

/// Guard that limits the warning to one, since a gateway starts a process for each sentence.
static TOLD: Once = Once::new();

impl Limits {
    /// Starts a process that can write only beneath `directory`, or nowhere without one. If the system
    /// refuses a part of the confinement, the first such process is reported in the log, and all
    /// processes run without that part.
    pub(super) fn spawn(&self, command: &mut Command, directory: Option<&Path>) -> io::Result<Child> {
        let (child, refusals) = self.start(command, directory)?;
        if !refusals.is_empty() {
            TOLD.call_once(|| {
                let refused = refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ");
                tracing::warn!(refused, "programs that speak run less confined than they should");
            });
        }
        Ok(child)
    }

    fn start(&self, command: &mut Command, directory: Option<&Path>) -> io::Result<(Child, Vec<Refusal>)> {
        let (child, mut refusals) = thread::scope(|scope| {
            let confined = scope.spawn(|| {
                let refusals = system::confine_thread(directory);
                command.spawn().map(|child| (child, refusals))
            });
            confined.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it died")))
        })?;
        refusals.extend(system::limit(&child, self));
        Ok((child, refusals))
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::collections::BTreeMap;
    use std::error::Error;
    use std::path::Path;
    use std::process::Child;

    use landlock::{
        ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
        Scope,
    };
    use rustix::io::Errno;
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

    use super::{Limits, MAX_FILE, MAX_FILES, Refusal};

    /// Rights that are asked of the kernel: all write rights up to this version of Landlock (Linux 6.12),
    /// which also keeps signals and abstract sockets within the process's own domain. Older kernels grant
    /// what they support.
    const LANDLOCK: ABI = ABI::V6;

    /// System calls that no speech program needs, and with which an attacker would reach other machines,
    /// other processes, or parts of the kernel with a history of faults. The calls fail with EPERM.
    const DENIED: &[i64] = &[
        libc::SYS_socket,
        libc::SYS_socketpair,
        // io_uring opens sockets without the call of that name.
        libc::SYS_io_uring_setup,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_unshare,
        libc::SYS_setns,
    ];

    /// Confines the calling thread, and all processes that it starts, for good. Returns the parts that
    /// were refused.
    pub(super) fn confine_thread(directory: Option<&Path>) -> Vec<Refusal> {
        let refused = |part, result: Result<(), Box<dyn Error>>| {
            result.err().map(|error| Refusal { part, reason: error.to_string() })
        };
        [refused("writes", confine_writes(directory)), refused("system calls", deny_calls())]
            .into_iter()
            .flatten()
            .collect()
    }

    fn confine_writes(directory: Option<&Path>) -> Result<(), Box<dyn Error>> {
        let writing = AccessFs::from_write(LANDLOCK);
        let mut rules =
            Ruleset::default().handle_access(writing)?.scope(Scope::from_all(LANDLOCK))?.create()?;
        if let Some(directory) = directory {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, writing))?;
        }
        let status = rules.restrict_self()?;
        if status.ruleset == RulesetStatus::NotEnforced {
            return Err(format!("Landlock: {:?}", status.landlock).into());
        }
        Ok(())
    }

    fn deny_calls() -> Result<(), Box<dyn Error>> {
        let eperm = SeccompAction::Errno(Errno::PERM.raw_os_error().cast_unsigned());
        let denied: BTreeMap<i64, Vec<_>> = DENIED.iter().map(|&call| (call, Vec::new())).collect();
        let filter =
            SeccompFilter::new(denied, SeccompAction::Allow, eperm, std::env::consts::ARCH.try_into()?)?;
        let filter: BpfProgram = filter.try_into()?;
        Ok(seccompiler::apply_filter(&filter)?)
    }

    /// Limits a running child. The number of processes is not limited, since the kernel counts those of
    /// the whole user.
    pub(super) fn limit(child: &Child, limits: &Limits) -> Option<Refusal> {
        let pid = Pid::from_child(child);
        let refusal = [
            (Resource::Cpu, limits.cpu_seconds),
            (Resource::As, limits.memory),
            (Resource::Fsize, MAX_FILE),
            (Resource::Nofile, MAX_FILES),
            (Resource::Core, 0),
        ]
        .into_iter()
        .find_map(|(resource, most)| {
            prlimit(Some(pid), resource, Rlimit { current: Some(most), maximum: Some(most) }).err()
        });
        // A child that has ended already needs no limits.
        let refusal = refusal.filter(|&error| error != Errno::SRCH)?;
        Some(Refusal { part: "limits", reason: refusal.to_string() })
    }
}

/// Other systems have other means, which are not implemented.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::path::Path;
    use std::process::Child;

    use super::{Limits, Refusal};

    pub(super) fn confine_thread(_: Option<&Path>) -> Vec<Refusal> {
        vec![Refusal { part: "all", reason: "there is no confinement on this system".to_owned() }]
    }

    pub(super) fn limit(_: &Child, _: &Limits) -> Option<Refusal> {
        None
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Write;
    use std::net::TcpListener;
    use std::process::{Output, Stdio};

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

    use super::*;

    const LIMITS: Limits = Limits { cpu_seconds: 1, memory: 1 << 30 };

    /// Runs a bash script in a confined process, which gets its first line only when all limits are in
    /// force.
    fn run(script: &str, directory: Option<&Path>) -> (Output, Vec<&'static str>) {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("read -r line; {script}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, refusals) = LIMITS.start(&mut command, directory).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        (child.wait_with_output().unwrap(), refusals.iter().map(|refusal| refusal.part).collect())
    }

    fn said(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn a_confined_process_writes_in_its_own_directory_alone() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("kept"), "kept").unwrap();
        let script = format!(
            "cd {}; echo mine > mine && cat mine; echo x > {other}/new; echo x >> {other}/kept; rm {other}/kept; mkdir {other}/d; \
             cat {other}/kept",
            own.path().display(),
            other = other.path().display(),
        );
        let (output, refused) = run(&script, Some(own.path()));
        assert_eq!(refused, [""; 0]);
        assert_eq!(said(&output.stdout), "mine\nkept", "{}", said(&output.stderr));
        assert_eq!(said(&output.stderr).matches("Permission denied").count(), 4, "{}", said(&output.stderr));
        let left: Vec<_> = fs::read_dir(&other).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        // Without a directory, the process can write nowhere.
        let (output, _) = run(&format!("echo x > {}/new", own.path().display()), None);
        assert!(said(&output.stderr).contains("Permission denied"), "{}", said(&output.stderr));
    }

    #[test]
    fn a_confined_process_opens_no_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}", listener.local_addr().unwrap().port());
        let (output, _) = run(&script, None);
        assert!(said(&output.stderr).contains("Operation not permitted"), "{}", said(&output.stderr));
        assert!(!output.status.success());
        // The same script connects without confinement.
        let free = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(free.status.success(), "{}", said(&free.stderr));
    }

    #[test]
    fn a_confined_process_has_limits() {
        let (output, _) = run("ulimit -t; ulimit -v; ulimit -f; ulimit -n; ulimit -c", None);
        // bash counts memory in KiB, and files as well.
        assert_eq!(said(&output.stdout), format!("1\n{}\n{}\n{MAX_FILES}\n0\n", 1 << 20, MAX_FILE >> 10));
        let (output, _) = run("while :; do :; done", None);
        assert_eq!(output.status.code(), None, "{:?}", output.status);
    }

    /// Simulates a unit that allows none of these calls and answers them with EPERM.
    #[test]
    fn where_the_system_refuses_confinement_programs_run_all_the_same() {
        let refused = [
            libc::SYS_landlock_create_ruleset,
            libc::SYS_landlock_restrict_self,
            libc::SYS_seccomp,
            libc::SYS_prlimit64,
        ];
        let calls: BTreeMap<i64, Vec<_>> = refused.into_iter().map(|call| (call, Vec::new())).collect();
        let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter: BpfProgram =
            SeccompFilter::new(calls, SeccompAction::Allow, eperm, architecture).unwrap().try_into().unwrap();
        // The filter stays with its thread and the threads that it starts.
        thread::spawn(move || {
            seccompiler::apply_filter(&filter).unwrap();
            let (output, refused) = run("echo $line", None);
            assert_eq!(said(&output.stdout), "go\n");
            assert_eq!(refused, ["writes", "system calls", "limits"]);
        })
        .join()
        .unwrap();
    }
}
