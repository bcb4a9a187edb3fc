//! A real switch on a thread of its own, in a directory of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::{Ready, SwitchArguments, SwitchError, serve};
use lockstep_network::{Attachment, Link};

/// Far more than anything here takes: who waits this long waits for something that does not come.
pub(super) const SOON: Duration = Duration::from_secs(60);

pub(super) struct RunningSwitch {
    pub(super) ready: Ready,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), SwitchError>>>,
    pub(super) directory: tempfile::TempDir,
}

/// Arguments for a switch in `directory` that forwards a free port to 10.0.2.15:6379.
pub(super) fn arguments(directory: &tempfile::TempDir) -> SwitchArguments {
    SwitchArguments {
        socket: directory.path().join("switch"),
        forward: vec!["127.0.0.1:0:10.0.2.15:6379".parse().unwrap()],
        address: Default::default(),
        pcap: None,
    }
}

impl RunningSwitch {
    pub(super) fn start() -> Self {
        Self::start_with(|_| {}, false)
    }

    /// With changed arguments; where `hurried`, tokio's waits take no time when nothing else
    /// happens.
    pub(super) fn start_with(change: impl FnOnce(&mut SwitchArguments), hurried: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut arguments = arguments(&directory);
        change(&mut arguments);
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().start_paused(hurried).build().unwrap();
            let tell = move |ready: &Ready| tell.send(ready.clone()).unwrap();
            runtime.block_on(serve(&arguments, tell, async {
                let _ = stopped.await;
            }))
        });
        let ready = told.recv_timeout(SOON).expect("the switch starts");
        Self {
            ready,
            stop: Some(stop),
            thread: Some(thread),
            directory,
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.ready.socket.clone()
    }

    pub(super) fn attach(&self) -> Link {
        Attachment::Switch(self.socket()).attach().unwrap()
    }

    pub(super) fn forwarded(&self) -> SocketAddr {
        self.ready.forwards[0].0.into()
    }

    /// A client of the forward, which gives up reading and writing after [`SOON`].
    pub(super) fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.forwarded()).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.set_write_timeout(Some(SOON)).unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    pub(super) fn stop(&mut self) -> Result<(), SwitchError> {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for RunningSwitch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
