use super::*;
use crate::configuration::Pace;
use crate::disk::Mirrored;
use lockstep_logging_channel::transport::{Address, Connection, Listener, connect};
use lockstep_shared_disk::image::{COPY_BLOCK_BYTES, Format, Image, Options, create};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// More than a batch of blocks, and a last one that is shorter.
const SIZE_BYTES: u64 = (BATCH_BLOCKS + 3) * COPY_BLOCK_BYTES + 4096;

/// An image in `folder` that has these bytes at the beginning of these blocks.
fn image(folder: &Path, name: &str, content: &[(u64, u8)]) -> Vec<Mirrored> {
    let path = folder.join(name);
    create(&path, SIZE_BYTES, Format::Raw, false).unwrap();
    let image = Image::open(&path, &Options::default()).unwrap();
    for (block, byte) in content {
        image.write_at(block * COPY_BLOCK_BYTES, &[*byte; 4096]).unwrap();
    }
    let path = path.display().to_string();
    vec![Mirrored {
        disk: 0,
        image: Arc::new(image),
        path,
    }]
}

async fn both(folder: &TempDir) -> (Connection, Connection) {
    let path = folder.path().join("channel");
    let address: Address = format!("unix:{}", path.display()).parse().unwrap();
    let listener = Listener::bind(&address).await.unwrap();
    let (one, other) = tokio::join!(connect(&address, Duration::from_secs(60)), listener.accept());
    (one.unwrap(), other.unwrap())
}

fn bytes(images: &[Mirrored]) -> Vec<u8> {
    let mut bytes = vec![0; SIZE_BYTES as usize];
    images[0].image.read_at(0, &mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn what_differs_is_copied_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let last = BATCH_BLOCKS + 3;
    let holder = image(folder.path(), "holder", &[(0, 1), (5, 2), (last, 3)]);
    let newcomer = image(folder.path(), "newcomer", &[(0, 1), (5, 9), (BATCH_BLOCKS, 4)]);
    let (mut to_newcomer, mut to_holder) = both(&folder).await;
    let mut giving = Giving::of(holder.clone(), Pace::default());
    let given = async {
        giving.compare(&mut to_newcomer, |_| ()).await?;
        giving.finish(&mut to_newcomer).await
    };
    let (given, taken) = tokio::join!(given, take(&mut to_holder, &newcomer));
    given.unwrap();
    assert_eq!(
        taken.unwrap(),
        3,
        "block 5, one that is zeros again, and the last"
    );
    assert!(bytes(&holder) == bytes(&newcomer));
    assert_eq!(giving.given().compared_bytes, SIZE_BYTES);
}

#[tokio::test]
async fn blocks_that_were_written_meanwhile_follow() {
    let folder = TempDir::new().unwrap();
    let holder = image(folder.path(), "holder", &[]);
    let newcomer = image(folder.path(), "newcomer", &[]);
    let (mut to_newcomer, mut to_holder) = both(&folder).await;
    holder[0].image.write_at(7 * COPY_BLOCK_BYTES, &[8; 512]).unwrap();
    let mut giving = Giving::of(holder.clone(), Pace::default());
    let given = async {
        giving.blocks(&mut to_newcomer, 0, BTreeSet::from([7])).await?;
        giving.finish(&mut to_newcomer).await
    };
    let (given, taken) = tokio::join!(given, take(&mut to_holder, &newcomer));
    given.unwrap();
    assert_eq!(taken.unwrap(), 1);
    assert!(bytes(&holder) == bytes(&newcomer));
}

#[tokio::test]
async fn an_image_that_is_only_read_and_differs_is_refused_by_its_first_block() {
    let folder = TempDir::new().unwrap();
    let holder = image(folder.path(), "holder", &[(6, 2)]);
    let newcomer = image(folder.path(), "newcomer", &[]);
    let path = folder.path().join("newcomer");
    drop(newcomer);
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    let newcomer = vec![Mirrored {
        disk: 0,
        image: Arc::new(Image::open(&path, &options).unwrap()),
        path: "newcomer".to_owned(),
    }];
    let (mut to_newcomer, to_holder) = both(&folder).await;
    let mut giving = Giving::of(holder, Pace::default());
    let taking = async {
        let mut to_holder = to_holder;
        take(&mut to_holder, &newcomer).await
    };
    let (given, taken) = tokio::join!(giving.compare(&mut to_newcomer, |_| ()), taking);
    given.unwrap_err();
    let why = taken.unwrap_err().to_string();
    assert!(
        why.contains(&format!("at byte {}", 6 * COPY_BLOCK_BYTES)),
        "{why}"
    );
}
