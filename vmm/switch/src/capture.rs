//! Frames as they enter the switch, in pcapng (draft-ietf-opsawg-pcapng), one interface per port.
//!
//! Each block is written at once, so that what was captured is there whatever ends the process. A
//! capture that cannot be written any more ends with a warning; the switch goes on. A FIFO whose
//! reader is slow misses frames: the switch waits for no reader, and says how many it left out.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;

use super::SwitchError;
use super::port_id::PortId;

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
const LINK_TYPE_ETHERNET: u32 = 1;
const OPTION_NAME: u16 = 2;

/// An open capture.
pub(super) struct Capture {
    file: Option<File>,
    interfaces: BTreeMap<PortId, u32>,
    /// The rest of blocks of which a part was written: at most those of one frame.
    rest: Vec<u8>,
    frames_left_out: u64,
}

impl Capture {
    /// Makes the file, or empties it.
    pub(super) fn create(path: &Path) -> Result<Self, SwitchError> {
        let failed = |source| SwitchError::Capture {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            // Means nothing to an ordinary file. A FIFO that nobody reads is refused, and one that
            // is full does not block.
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(failed)?;
        let mut capture = Self {
            file: Some(file),
            interfaces: BTreeMap::new(),
            rest: Vec::new(),
            frames_left_out: 0,
        };
        capture.write(section_header()).map_err(failed)?;
        Ok(capture)
    }

    /// Writes down a frame that entered by `port`.
    pub(super) fn frame(&mut self, port: PortId, frame: &[u8]) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros() as u64;
        let mut blocks = Vec::new();
        let known = self.interfaces.get(&port).copied();
        let interface = known.unwrap_or_else(|| {
            blocks.extend(interface_description(port));
            self.interfaces.len() as u32
        });
        blocks.extend(enhanced_packet(interface, now, frame));
        match self.write(blocks) {
            Ok(true) => {
                self.interfaces.insert(port, interface);
            }
            Ok(false) => self.leave_out(),
            Err(error) => {
                tracing::warn!(%error, "the capture ends here: it cannot be written");
                self.file = None;
            }
        }
    }

    /// Writes blocks, or as much of them as is taken now. False if nothing of them was written,
    /// because what came before waits.
    fn write(&mut self, blocks: Vec<u8>) -> io::Result<bool> {
        let before = std::mem::take(&mut self.rest);
        self.rest = self.write_some(before)?;
        if !self.rest.is_empty() {
            return Ok(false);
        }
        let all_bytes = blocks.len();
        let rest = self.write_some(blocks)?;
        let taken = rest.len() < all_bytes;
        if taken {
            self.rest = rest;
        }
        Ok(taken)
    }

    /// Gives back what is not taken now.
    fn write_some(&mut self, mut blocks: Vec<u8>) -> io::Result<Vec<u8>> {
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        while !blocks.is_empty() {
            match file.write(&blocks) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(blocks.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(blocks)
    }

    fn leave_out(&mut self) {
        self.frames_left_out += 1;
        if self.frames_left_out == 1 {
            tracing::warn!("the capture is not read as fast as frames come: some are left out");
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.frames_left_out > 0 {
            tracing::warn!(frames = self.frames_left_out, "left out of the capture");
        }
    }
}

fn block(kind: u32, body: &[&[u8]]) -> Vec<u8> {
    let mut body = body.concat();
    body.resize(body.len().next_multiple_of(4), 0);
    let total_bytes = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &total_bytes, &body, &total_bytes].concat()
}

fn section_header() -> Vec<u8> {
    let version = [1, 0, 0, 0];
    let length_unknown = u64::MAX.to_le_bytes();
    block(
        SECTION_HEADER,
        &[&BYTE_ORDER_MAGIC.to_le_bytes(), &version, &length_unknown],
    )
}

fn interface_description(port: PortId) -> Vec<u8> {
    let name = if port == PortId::HOST {
        "host".to_owned()
    } else {
        format!("port {}", port.0)
    };
    let mut option = [OPTION_NAME.to_le_bytes(), (name.len() as u16).to_le_bytes()].concat();
    option.extend_from_slice(name.as_bytes());
    option.resize(option.len().next_multiple_of(4), 0);
    let (no_snap_length, end_of_options) = ([0; 4], [0; 4]);
    let body = [
        &LINK_TYPE_ETHERNET.to_le_bytes()[..],
        &no_snap_length,
        &option,
        &end_of_options,
    ];
    block(INTERFACE_DESCRIPTION, &body)
}

/// Time in microseconds, the resolution where an interface names no other.
fn enhanced_packet(interface: u32, time_us: u64, frame: &[u8]) -> Vec<u8> {
    let length = (frame.len() as u32).to_le_bytes();
    let (high, low) = ((time_us >> 32) as u32, time_us as u32);
    block(
        ENHANCED_PACKET,
        &[
            &interface.to_le_bytes(),
            &high.to_le_bytes(),
            &low.to_le_bytes(),
            &length,
            &length,
            frame,
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds and bodies of the blocks of a file.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let length = word(&bytes[4..]) as usize;
            assert_eq!(word(&bytes[length - 4..]) as usize, length);
            blocks.push((word(bytes), bytes[8..length - 4].to_vec()));
            bytes = &bytes[length..];
        }
        blocks
    }

    #[test]
    fn each_port_is_an_interface_and_each_frame_a_packet() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("frames.pcapng");
        let mut capture = Capture::create(&path).unwrap();

        capture.frame(PortId(3), &[7; 61]);
        capture.frame(PortId::HOST, &[8; 60]);
        capture.frame(PortId(3), &[9; 60]);

        let blocks = blocks(&std::fs::read(&path).unwrap());
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, 1, 6, 1, 6, 6]);
        assert!(blocks[1].1.windows(6).any(|window| window == b"port 3"));
        assert!(blocks[3].1.windows(4).any(|window| window == b"host"));
        assert_eq!(
            (&blocks[2].1[..4], &blocks[2].1[12..16]),
            (&[0; 4][..], &[61, 0, 0, 0][..])
        );
        assert_eq!(&blocks[2].1[20..81], [7; 61]);
        assert_eq!(&blocks[4].1[..4], &[1, 0, 0, 0]);
    }

    #[test]
    fn a_reader_that_stands_still_costs_frames_and_no_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Capture::create(&path).is_err(), "nobody reads it");
        let mut reader = OpenOptions::new();
        let mut reader = reader
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)
            .unwrap();
        let mut capture = Capture::create(&path).unwrap();

        // More than any pipe holds.
        (0..2_000).for_each(|_| capture.frame(PortId(1), &[7; 1_500]));
        let mut captured = Vec::new();
        // As much as is there: then reading would block.
        let _ = std::io::Read::read_to_end(&mut reader, &mut captured);
        capture.frame(PortId(2), &[8; 60]);
        let _ = std::io::Read::read_to_end(&mut reader, &mut captured);

        let blocks = blocks(&captured);
        let packets = blocks.iter().filter(|(kind, _)| *kind == ENHANCED_PACKET).count() as u64;
        assert!(capture.frames_left_out > 0);
        assert_eq!(packets + capture.frames_left_out, 2_001);
        assert_eq!(blocks.last().unwrap().1[20..80], [8; 60]);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let told = Capture::create(Path::new("/nowhere/at/all.pcapng"))
            .err()
            .unwrap()
            .to_string();
        assert!(told.contains("/nowhere/at/all.pcapng"), "{told}");
    }
}
