//! Requests of clients, and the guest's replies, as frames.

/// Bytes of a request without a payload: client, wish, number.
const REQUEST_BYTES: usize = 6;

/// Request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client.
    pub client: u8,
    /// Its how manieth request.
    pub number: u32,
    /// True if the guest is to power off.
    pub power_off: bool,
}

impl Request {
    /// As a frame of at least `bytes`.
    #[must_use]
    pub fn to_frame(self, bytes: usize) -> Vec<u8> {
        let mut frame = Vec::with_capacity(bytes.max(REQUEST_BYTES));
        frame.extend([self.client, u8::from(self.power_off)]);
        frame.extend(self.number.to_le_bytes());
        frame.resize(frame.len().max(bytes), self.client);
        frame
    }

    /// The request that this frame is.
    #[must_use]
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        let (&[client, power_off], rest) = frame.split_first_chunk::<2>()?;
        let number = u32::from_le_bytes(*rest.first_chunk::<4>()?);
        Some(Self {
            client,
            number,
            power_off: power_off == 1,
        })
    }
}

/// Answer of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// To whom.
    pub client: u8,
    /// To which request.
    pub number: u32,
    /// The place of what it wrote in the guest's log.
    pub index: u32,
    /// Everything that has entered, as one word.
    pub chain: u64,
    /// Guest time.
    pub time_ns: u64,
}

impl Reply {
    /// As a frame of at least `length` bytes: who writes much is answered as much.
    #[must_use]
    pub fn to_bytes(self, length: usize) -> Vec<u8> {
        let mut bytes = vec![self.client];
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.index.to_le_bytes());
        bytes.extend(self.chain.to_le_bytes());
        bytes.extend(self.time_ns.to_le_bytes());
        bytes.resize(bytes.len().max(length), self.client);
        bytes
    }

    /// The answer in these bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[client], rest) = bytes.split_first_chunk::<1>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let (chain, rest) = rest.split_first_chunk::<8>()?;
        let (number, index) = (u32::from_le_bytes(*number), u32::from_le_bytes(*index));
        let (chain, time_ns) = (
            u64::from_le_bytes(*chain),
            u64::from_le_bytes(*rest.first_chunk::<8>()?),
        );
        Some(Self {
            client,
            number,
            index,
            chain,
            time_ns,
        })
    }
}
