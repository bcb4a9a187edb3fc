//! The saved form of the model guest: what it has beside its registers and its memory.

use lockstep_core::machine::devices::saved::SavedDevice;

use super::disk_guest::GuestDisk;
use super::guest::{CLIENTS_MAX, Guest, Work};
use super::requests::Request;

/// Name of its one device, which has everything.
const DEVICE: &str = "queues";

/// Numbers, one after the other.
#[derive(Default)]
struct Words(Vec<u64>);

impl Words {
    fn put(&mut self, words: impl IntoIterator<Item = u64>) {
        self.0.extend(words);
    }

    fn put_request(&mut self, request: Request, bytes: usize) {
        let Request {
            client,
            number,
            power_off,
        } = request;
        self.put([client.into(), number.into(), power_off.into(), bytes as u64]);
    }

    fn put_work(&mut self, work: Work) {
        match work {
            Work::Stretch(steps) => self.put([0, steps]),
            Work::AskTime => self.put([1]),
            Work::AskTsc => self.put([2]),
            Work::AskWall => self.put([3]),
            Work::AskRandom => self.put([4]),
            Work::Compute => self.put([5]),
            Work::Reply(request, bytes) => {
                self.put([6]);
                self.put_request(request, bytes);
            }
            Work::Note => self.put([7]),
            Work::Tick => self.put([8]),
            Work::PowerOff => self.put([9]),
            Work::Disk => self.put([10]),
        }
    }
}

/// Numbers that are read in the same order; none where they are over.
struct Reading<I>(I);

impl<I: Iterator<Item = u64>> Reading<I> {
    fn next(&mut self) -> Option<u64> {
        self.0.next()
    }

    fn request(&mut self) -> Option<(Request, usize)> {
        let request = Request {
            client: self.next()? as u8,
            number: self.next()? as u32,
            power_off: self.next()? == 1,
        };
        Some((request, self.next()? as usize))
    }

    fn work(&mut self) -> Option<Work> {
        Some(match self.next()? {
            0 => Work::Stretch(self.next()?),
            1 => Work::AskTime,
            2 => Work::AskTsc,
            3 => Work::AskWall,
            4 => Work::AskRandom,
            5 => Work::Compute,
            6 => {
                let (request, bytes) = self.request()?;
                Work::Reply(request, bytes)
            }
            7 => Work::Note,
            8 => Work::Tick,
            9 => Work::PowerOff,
            10 => Work::Disk,
            _ => return None,
        })
    }
}

impl Guest {
    /// Its devices.
    pub(super) fn saved_devices(&self) -> Vec<SavedDevice> {
        let mut words = Words::default();
        let counts = [self.frames.len(), self.work.len(), self.log.len()];
        words.put(counts.map(|count| count as u64));
        words.put([self.timer_at_ns, self.time_ns, self.tsc, self.wall_ns]);
        for (number, place) in self.newest {
            words.put([number.into(), place.into()]);
        }
        for frame in &self.frames {
            let request = Request::of_frame(frame).unwrap_or(Request {
                client: u8::MAX,
                number: 0,
                power_off: false,
            });
            words.put_request(request, frame.len());
        }
        self.work.iter().for_each(|work| words.put_work(*work));
        words.put(self.disk.words());
        let state = words.0.into_iter().flat_map(u64::to_le_bytes).collect();
        let name = DEVICE.to_owned();
        vec![SavedDevice { name, state }]
    }

    /// Takes over devices. Its log is as long as it was there: what it has is memory. None where
    /// they are not its own.
    pub(super) fn restore_devices(&mut self, devices: &[SavedDevice]) -> Option<()> {
        let [device] = devices else { return None };
        let (words, rest) = device.state.as_chunks::<8>();
        if !rest.is_empty() {
            return None;
        }
        let mut words = Reading(words.iter().map(|word| u64::from_le_bytes(*word)));
        let [frames, work, entries] = [words.next()?, words.next()?, words.next()?];
        for place in [
            &mut self.timer_at_ns,
            &mut self.time_ns,
            &mut self.tsc,
            &mut self.wall_ns,
        ] {
            *place = words.next()?;
        }
        let mut newest = [(0, 0); CLIENTS_MAX];
        for (number, place) in &mut newest {
            (*number, *place) = (words.next()? as u32, words.next()? as u32);
        }
        self.newest = newest;
        let frame = |(request, bytes): (Request, usize)| request.to_frame(bytes);
        self.frames = (0..frames)
            .map(|_| words.request().map(frame))
            .collect::<Option<_>>()?;
        self.work = (0..work).map(|_| words.work()).collect::<Option<_>>()?;
        self.log.resize(entries as usize, (u8::MAX, 0));
        self.disk = GuestDisk::restored(words.0)?;
        Some(())
    }
}
