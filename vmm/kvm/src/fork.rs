//! An image of guest memory at one moment, by fork(2): the child has it, copy on write, while the
//! guest runs on here, and does nothing but write pages of it into a pipe.
//!
//! ```text
//!   this process: fork ----- the guest runs on ----- reads pages ----- reaps
//!   the child:      +-- closes everything but the pipe -- index, page, index, page, … END -- _exit
//! ```
//!
//! The child is one thread of a program with many. It allocates nothing, takes no lock and calls
//! nothing but the kernel (signal-safety(7)). It dies with the thread that made it
//! (PR_SET_PDEATHSIG), so it never outlives the machine, and has no socket, no listening address
//! and no file of this process but its end of the pipe.

#![allow(unsafe_code, reason = "fork, and guest memory as the kernel sees it")]

use lockstep_core::machine::memory::{self, Memory};
use lockstep_core::machine::page_set::PageSet;
use lockstep_core::machine::saved::Page;
use lockstep_core::machine::saved::pages::PAGE_BYTES;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Bytes of the pipe: the most that an unprivileged process may ask for. A smaller one is slower,
/// and no harm.
const PIPE_BYTES: i32 = 1 << 20;
/// Pages in one system call of the child: two parts each, of the 1,024 that writev(2) takes.
const PAGES_AT_ONCE: usize = 64;
/// In the place of an index: there are no more pages.
const END: u64 = u64::MAX;

/// The pages of an image, as they come out of the pipe.
pub struct Image {
    pages: BufReader<File>,
    child: Pid,
    ended: bool,
}

/// Values that the child needs: addresses, and no object that could want to be dropped.
#[derive(Clone, Copy)]
struct Task {
    memory: *const u8,
    pages: u64,
    words: *const u64,
    words_len: usize,
    pipe: RawFd,
    parent: libc::pid_t,
}

impl Image {
    /// The image of `pages` of `memory`. For use where the guest stands: it may run on at once.
    ///
    /// # Errors
    /// The host's failure.
    pub fn fork(memory: &Memory, pages: &PageSet) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let _smaller = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let task = Task {
            memory: memory
                .get_host_address(GuestAddress(0))
                .map_err(io::Error::other)?,
            pages: memory::size_bytes(memory) / PAGE_BYTES as u64,
            words: pages.words().as_ptr(),
            words_len: pages.words().len(),
            pipe: write.as_raw_fd(),
            parent: std::process::id() as libc::pid_t,
        };
        let child = in_child(task)?;
        Ok(Self::of(read, child))
    }

    fn of(read: OwnedFd, child: Pid) -> Self {
        Self {
            pages: BufReader::with_capacity(PIPE_BYTES as usize, File::from(read)),
            child,
            ended: false,
        }
    }

    /// The child.
    #[must_use]
    pub fn child(&self) -> Pid {
        self.child
    }

    /// The next pages, `count` at most; none when all have come.
    ///
    /// # Errors
    /// The child is gone before its last page.
    pub fn next_pages(&mut self, count: usize) -> io::Result<Vec<Page>> {
        let mut pages = Vec::with_capacity(count);
        while pages.len() < count && !self.ended {
            let mut index = [0; 8];
            self.pages.read_exact(&mut index)?;
            let index = u64::from_ne_bytes(index);
            if index == END {
                self.ended = true;
                break;
            }
            let mut bytes = [0; PAGE_BYTES];
            self.pages.read_exact(&mut bytes)?;
            pages.push(Page { index, bytes });
        }
        Ok(pages)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Nobody else reaps it, so the number is still the child's, dead or not.
        let _ = kill(self.child, Signal::SIGKILL);
        let _ = waitpid(self.child, None);
    }
}

/// Runs `task` in a child.
fn in_child(task: Task) -> io::Result<Pid> {
    // A signal's handler must not run in the child: it would say this process's things through what
    // both share.
    let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
    // SAFETY: no flag but the signal at its end, and no stack: a fork(2), which copies this thread
    // only. Its child calls `run` and nothing else.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: this is the child of a fork, with this process's memory as it was; `task` has its
        // addresses.
        unsafe { run(task) }
    }
    let failed = io::Error::last_os_error();
    before.thread_set_mask()?;
    match child {
        -1 => Err(failed),
        child => Ok(Pid::from_raw(child as i32)),
    }
}

/// The child's whole life. Nothing here may allocate, lock, panic or return.
///
/// # Safety
/// Only in a child that was just forked. The addresses of `task` are readable.
unsafe fn run(task: Task) -> ! {
    // SAFETY: system calls with plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // Whoever was killed before the line above has no child that knows it.
        if libc::getppid() != task.parent {
            libc::_exit(1);
        }
        let pipe = task.pipe as libc::c_uint;
        if pipe > 0 && libc::syscall(libc::SYS_close_range, 0, pipe - 1, 0) != 0 {
            libc::_exit(2);
        }
        if libc::syscall(libc::SYS_close_range, pipe + 1, libc::c_uint::MAX, 0) != 0 {
            libc::_exit(2);
        }
    }
    let mut indices = [0_u64; PAGES_AT_ONCE];
    let nothing = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    let mut parts = [nothing; 2 * PAGES_AT_ONCE];
    let mut used = 0;
    let mut word = 0;
    while word < task.words_len {
        // SAFETY: within the words of the set, which this process has had since before the fork.
        let mut bits = unsafe { *task.words.add(word) };
        while bits != 0 {
            let index = word as u64 * 64 + u64::from(bits.trailing_zeros());
            bits &= bits - 1;
            if index >= task.pages {
                break;
            }
            // SAFETY: `used` is below the length of `indices`, and twice that below the length of
            // `parts`; the page is in guest memory.
            unsafe {
                let place = indices.as_mut_ptr().add(used);
                *place = index;
                *parts.as_mut_ptr().add(2 * used) = libc::iovec {
                    iov_base: place.cast(),
                    iov_len: 8,
                };
                *parts.as_mut_ptr().add(2 * used + 1) = libc::iovec {
                    iov_base: task.memory.add(index as usize * PAGE_BYTES).cast_mut().cast(),
                    iov_len: PAGE_BYTES,
                };
            }
            used += 1;
            if used == PAGES_AT_ONCE {
                // SAFETY: all parts were set.
                unsafe { write_all(task.pipe, parts.as_mut_ptr(), 2 * used) };
                used = 0;
            }
        }
        word += 1;
    }
    let mut end = END;
    let mut last = libc::iovec {
        iov_base: (&raw mut end).cast(),
        iov_len: 8,
    };
    // SAFETY: the first parts were set; `last` is one part.
    unsafe {
        write_all(task.pipe, parts.as_mut_ptr(), 2 * used);
        write_all(task.pipe, &raw mut last, 1);
        libc::_exit(0)
    }
}

/// Writes all of `count` parts, or exits.
///
/// # Safety
/// As [`run`]; `parts` has that many.
unsafe fn write_all(pipe: RawFd, parts: *mut libc::iovec, count: usize) {
    let mut done = 0;
    while done < count {
        // SAFETY: the parts from `done` on.
        let written = unsafe { libc::writev(pipe, parts.add(done), (count - done) as libc::c_int) };
        if written <= 0 {
            // Signals are blocked: the reader is gone.
            // SAFETY: ends the child.
            unsafe { libc::_exit(3) };
        }
        let mut written = written as usize;
        while done < count {
            // SAFETY: `done` is below `count`.
            let part = unsafe { &mut *parts.add(done) };
            if written < part.iov_len {
                // SAFETY: within the part.
                part.iov_base = unsafe { part.iov_base.cast::<u8>().add(written) }.cast();
                part.iov_len -= written;
                break;
            }
            written -= part.iov_len;
            done += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_core::machine::memory::MEMORY_BYTES_MIN;
    use std::io::Write;
    use std::os::fd::FromRawFd;
    use std::process::{Command, Stdio};
    use vm_memory::Bytes;

    const PAGES: u64 = MEMORY_BYTES_MIN / PAGE_BYTES as u64;
    /// Set for the process that a test kills.
    const VICTIM: &str = "LOCKSTEP_FORK_VICTIM";
    const LIMIT_MS: i32 = 60_000;

    /// Memory with its ordinal in each page: twice what the pipe takes.
    fn numbered() -> Memory {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        for page in 0..PAGES {
            memory
                .write_obj(page, GuestAddress(page * PAGE_BYTES as u64))
                .unwrap();
        }
        memory
    }

    fn number(page: &Page) -> u64 {
        u64::from_ne_bytes(*page.bytes.first_chunk().unwrap())
    }

    #[test]
    fn the_image_is_of_its_moment_and_of_the_pages_that_were_asked_for() {
        let memory = numbered();
        let mut asked = PageSet::first(PAGES - 3);
        asked.insert(PAGES + 7);
        let mut image = Image::fork(&memory, &asked).unwrap();
        for page in 0..PAGES {
            memory
                .write_obj(u64::MAX, GuestAddress(page * PAGE_BYTES as u64))
                .unwrap();
        }

        let mut seen = Vec::new();
        loop {
            let pages = image.next_pages(31).unwrap();
            if pages.is_empty() {
                break;
            }
            seen.extend(pages.iter().map(|page| (page.index, number(page))));
        }

        assert_eq!(seen, (0..PAGES - 3).map(|page| (page, page)).collect::<Vec<_>>());
        assert!(image.next_pages(1).unwrap().is_empty(), "it stays at its end");
    }

    #[test]
    fn the_child_has_nothing_but_the_pipe_and_is_reaped() {
        let mut image = Image::fork(&numbered(), &PageSet::first(PAGES)).unwrap();
        // It has closed what it must not have before it writes, and waits for the pipe now.
        image.next_pages(1).unwrap();
        let process = format!("/proc/{}", image.child());
        let open: Vec<_> = std::fs::read_dir(format!("{process}/fd"))
            .unwrap()
            .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap())
            .collect();
        assert!(
            matches!(open.as_slice(), [pipe] if pipe.to_string_lossy().starts_with("pipe:")),
            "{open:?}"
        );

        drop(image);

        assert!(!std::fs::exists(process).unwrap());
    }

    #[test]
    fn a_child_that_dies_is_an_error() {
        let mut image = Image::fork(&numbered(), &PageSet::first(PAGES)).unwrap();
        image.next_pages(1).unwrap();
        kill(image.child(), Signal::SIGKILL).unwrap();
        let outcome = (0..PAGES).try_for_each(|_| image.next_pages(31).map(drop));
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Run in a process of its own by the test below.
    #[test]
    fn victim() {
        if std::env::var_os(VICTIM).is_none() {
            return;
        }
        let mut image = Image::fork(&numbered(), &PageSet::first(PAGES)).unwrap();
        image.next_pages(1).unwrap();
        // Past the test runner's capturing.
        writeln!(io::stderr(), "child {}", image.child()).unwrap();
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn the_child_dies_with_its_parent() {
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fork::tests::victim"])
            .env(VICTIM, "1")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = io::BufRead::lines(BufReader::new(parent.stderr.take().unwrap()));
        let child = lines.find_map(|line| line.unwrap().strip_prefix("child ")?.parse::<i32>().ok());
        // SAFETY: opens a process by its number.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, child.unwrap(), 0) };
        assert!(process >= 0, "{}", io::Error::last_os_error());
        // SAFETY: it was just opened, and nothing else has it.
        let process = unsafe { OwnedFd::from_raw_fd(process as RawFd) };

        parent.kill().unwrap();
        parent.wait().unwrap();

        let mut ended = libc::pollfd {
            fd: process.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure, which lives across the call.
        let ready = unsafe { libc::poll(&raw mut ended, 1, LIMIT_MS) };
        assert_eq!(ready, 1, "the child outlives its parent");
    }
}
