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
  Ctrl-A s       type `stty rows R cols C` into the guest, as large as the terminal is
  Ctrl-A h       print this
Every other key goes to the guest as soon as it reads its console. Until then,
and where it never does, Ctrl-C stops lockstep, and Ctrl-Z suspends it.";

/// A wish of whoever types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The end of the program.
    Stop,
    /// What Ctrl-Z is for on a terminal that keeps its signals.
    Suspend,
    /// The terminal's size, for the guest's shell.
    Size,
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
    /// Puts what is the guest's behind `for_guest`, and has wishes carried out where they are typed:
    /// one may type into the guest itself. A key behind [`ESCAPE`] that has no meaning is nobody's.
    pub(super) fn tell_apart(
        &mut self,
        bytes: &[u8],
        for_guest: &mut Vec<u8>,
        mut carry_out: impl FnMut(Wish, &mut Vec<u8>),
    ) {
        for byte in bytes {
            match (std::mem::take(&mut self.escaped), *byte) {
                (false, ESCAPE) => self.escaped = true,
                (false, byte) => for_guest.push(byte),
                (true, ESCAPE | b'a') => for_guest.push(ESCAPE),
                (true, b'x') => carry_out(Wish::Stop, for_guest),
                (true, b'z') => carry_out(Wish::Suspend, for_guest),
                (true, b's') => carry_out(Wish::Size, for_guest),
                (true, b'h' | b'?') => carry_out(Wish::Help, for_guest),
                (true, _) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_apart(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Wish>) {
        let (mut typed, mut for_guest, mut wishes) = (Typed::default(), Vec::new(), Vec::new());
        for piece in pieces {
            typed.tell_apart(piece, &mut for_guest, |wish, for_guest| {
                for_guest.extend(if wish == Wish::Size {
                    b"[size]"
                } else {
                    b"".as_slice()
                });
                wishes.push(wish);
            });
        }
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
        assert_eq!(
            told_apart(&[b"a\x01sb"]),
            (b"a[size]b".to_vec(), vec![Wish::Size])
        );
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
