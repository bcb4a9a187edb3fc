//! Keys of a terminal that are for this program and not for the guest: Ctrl-A and a letter, as QEMU
//! has them.

/// Ctrl-A.
const ESCAPE: u8 = 0x01;

/// The keys, for people.
pub const KEYS: &str = "\
Keys, where standard input is a terminal:
  Ctrl-A x       stop lockstep in good order, as SIGINT does
  Ctrl-A z       suspend lockstep, until the shell's `fg`
  Ctrl-A Ctrl-A  send Ctrl-A to the guest
  Ctrl-A h       print this
Every other key goes to the guest as soon as it reads its console. Until then,
and where it never does, Ctrl-C stops lockstep, and Ctrl-Z suspends it.
The guest is not told how large the terminal is: type `resize` in it.";

/// A wish of whoever types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The end of the program.
    Stop,
    /// What Ctrl-Z is for on a terminal that keeps its signals.
    Suspend,
    /// The keys.
    Help,
}

/// What is typed, as it is told apart.
#[derive(Debug, Default)]
pub(super) struct Typed {
    /// The last byte was [`ESCAPE`], and the next says what it is for.
    escaped: bool,
}

impl Typed {
    /// Puts what is the guest's behind `for_guest`, and gives the wishes, in order. A key behind
    /// [`ESCAPE`] that has no meaning is nobody's.
    pub(super) fn tell_apart(&mut self, bytes: &[u8], for_guest: &mut Vec<u8>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for byte in bytes {
            match (std::mem::take(&mut self.escaped), *byte) {
                (false, ESCAPE) => self.escaped = true,
                (false, byte) => for_guest.push(byte),
                (true, ESCAPE | b'a') => for_guest.push(ESCAPE),
                (true, b'x') => wishes.push(Wish::Stop),
                (true, b'z') => wishes.push(Wish::Suspend),
                (true, b'h' | b'?') => wishes.push(Wish::Help),
                (true, _) => {}
            }
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_apart(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Wish>) {
        let (mut typed, mut for_guest) = (Typed::default(), Vec::new());
        let wishes = pieces
            .iter()
            .flat_map(|piece| typed.tell_apart(piece, &mut for_guest))
            .collect();
        (for_guest, wishes)
    }

    #[test]
    fn every_byte_but_the_escape_is_the_guest_s() {
        let all: Vec<u8> = (0..=u8::MAX).filter(|byte| *byte != ESCAPE).collect();
        assert_eq!(told_apart(&[&all]), (all, Vec::new()));
    }

    #[test]
    fn the_key_behind_an_escape_says_what_is_wanted_however_they_are_read() {
        assert_eq!(told_apart(&[b"a\x01xb"]), (b"ab".to_vec(), vec![Wish::Stop]));
        assert_eq!(told_apart(&[b"\x01", b"z"]), (Vec::new(), vec![Wish::Suspend]));
        assert_eq!(
            told_apart(&[b"\x01h\x01?"]),
            (Vec::new(), vec![Wish::Help, Wish::Help])
        );
        assert_eq!(told_apart(&[b"\x01q!"]), (b"!".to_vec(), Vec::new()));
    }

    #[test]
    fn an_escape_twice_is_one_for_the_guest() {
        assert_eq!(
            told_apart(&[b"\x01\x01x", b"\x01a"]),
            (b"\x01x\x01".to_vec(), Vec::new())
        );
    }
}
