//! The vCPU's binary statistics: emulated instructions, and exits.
//!
//! Source: Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD.

#![allow(unsafe_code, reason = "an ioctl that returns a descriptor")]

use kvm_ioctls::VcpuFd;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use vmm_sys_util::ioctl::ioctl;

mod number {
    #![allow(missing_docs, reason = "the macro takes no comment")]
    vmm_sys_util::ioctl_io_nr!(KVM_GET_STATS_FD, 0xae, 0xce);
}

/// `struct kvm_stats_header`: flags, name_size, num_desc, id_offset, desc_offset, data_offset.
const HEADER_BYTES: usize = 24;
/// `struct kvm_stats_desc` without its name: flags, exponent, size, offset, bucket_size.
const DESCRIPTOR_BYTES: usize = 16;
/// More than any kernel has; the header is not trusted to bound the search.
const DESCRIPTORS_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 256;

/// Open statistics of one vCPU.
pub struct Statistics {
    file: File,
    instructions_at: u64,
    exits_at: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

impl Statistics {
    /// Opens them.
    ///
    /// # Errors
    /// The host's, or that a statistic is not there.
    pub fn open(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the ioctl takes no argument and returns a new descriptor or an error.
        let descriptor = unsafe { ioctl(vcpu, number::KVM_GET_STATS_FD()) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(descriptor) };
        let instructions_at = offset_of(&file, "insn_emulation")?;
        let exits_at = offset_of(&file, "exits")?;
        Ok(Self {
            file,
            instructions_at,
            exits_at,
        })
    }

    /// Emulated instructions and exits so far.
    ///
    /// # Errors
    /// The host's.
    pub fn read(&self) -> io::Result<(u64, u64)> {
        Ok((self.read_at(self.instructions_at)?, self.read_at(self.exits_at)?))
    }

    fn read_at(&self, offset: u64) -> io::Result<u64> {
        let mut value = [0; 8];
        self.file.read_exact_at(&mut value, offset)?;
        Ok(u64::from_le_bytes(value))
    }
}

fn offset_of(file: &File, wanted: &str) -> io::Result<u64> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)?;
    let field = |at| u32_at(&header, at).unwrap_or(0);
    let (name_bytes, count) = (field(4) as usize, field(8) as usize);
    let (descriptors_at, data_at) = (u64::from(field(16)), u64::from(field(20)));
    if name_bytes > NAME_BYTES_MAX || count > DESCRIPTORS_MAX {
        return Err(io::Error::other("its statistics are in an unknown form"));
    }
    let descriptor_bytes = DESCRIPTOR_BYTES + name_bytes;
    let mut descriptor = vec![0; descriptor_bytes];
    for index in 0..count {
        file.read_exact_at(
            &mut descriptor,
            descriptors_at + (index * descriptor_bytes) as u64,
        )?;
        let name = descriptor.get(DESCRIPTOR_BYTES..).unwrap_or_default();
        if name.split(|byte| *byte == 0).next() == Some(wanted.as_bytes()) {
            return Ok(data_at + u64::from(u32_at(&descriptor, 8).unwrap_or(0)));
        }
    }
    Err(io::Error::other(format!("it has no statistic `{wanted}`")))
}
