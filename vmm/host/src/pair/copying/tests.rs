use super::wire::{Said, receive, send};
use super::*;
use crate::configuration::Pace;
use crate::disk::{KeptChanges, Mirrored};
use lockstep_logging_channel::Generation;
use lockstep_logging_channel::transport::{Address, Connection, Listener, connect};
use lockstep_shared_disk::image::{
    COPY_BLOCK_BYTES, ChangedBlocks, Format, Identity, Image, Options, create,
};
use lockstep_shared_disk::{Line, MachineId};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// More than a batch of blocks, and a last one that is shorter.
const SIZE_BYTES: u64 = (BATCH_BLOCKS + 3) * COPY_BLOCK_BYTES + 4096;

const BLOCKS: u64 = SIZE_BYTES.div_ceil(COPY_BLOCK_BYTES);

/// An image in `folder` that has these bytes at the beginning of these blocks.
fn image(folder: &Path, name: &str, content: &[(u64, u8)]) -> Vec<Mirrored> {
    let path = folder.join(name);
    create(&path, SIZE_BYTES, Format::Raw, false).unwrap();
    let image = Image::open(&path, &Options::default()).unwrap();
    for (block, byte) in content {
        image.write_at(block * COPY_BLOCK_BYTES, &[*byte; 4096]).unwrap();
    }
    kept(image)
}

/// The image, with the marks that are beside it.
fn kept(image: Image) -> Vec<Mirrored> {
    let identity = Identity {
        name: "web".parse().unwrap(),
        machine: MachineId([9; 16]),
        generation: Generation(1),
        side: Line::shortened("holder"),
        clean: false,
        format: Format::Raw,
        size_bytes: SIZE_BYTES,
    };
    identity.write(image.path()).unwrap();
    vec![Mirrored {
        disk: 0,
        changes: Some(Arc::new(KeptChanges::open(&image).unwrap())),
        path: image.path().display().to_string(),
        image: Arc::new(image),
    }]
}

/// The same, opened again.
fn reopened(images: Vec<Mirrored>) -> Vec<Mirrored> {
    let path = images[0].image.path().to_owned();
    drop(images);
    kept(Image::open(&path, &Options::default()).unwrap())
}

/// Writes as a guest does.
fn write(images: &[Mirrored], block: u64, byte: u8) {
    let offset = block * COPY_BLOCK_BYTES;
    let changes = images[0].changes.as_ref().unwrap();
    changes.mark(Some(block), &(offset..offset + 512)).unwrap();
    images[0].image.write_at(offset, &[byte; 512]).unwrap();
}

/// Joins a newcomer. Gives what was compared, and the number of blocks that were written there.
async fn join(folder: &TempDir, holder: &[Mirrored], newcomer: &[Mirrored], name: u8) -> (Compared, u64) {
    let (mut to_newcomer, mut to_holder) = both(folder).await;
    let mut giving = Giving::of(holder.to_vec(), Pace::default());
    let given = async {
        giving.compare(&mut to_newcomer, |_| ()).await?;
        holder[0].changes.as_ref().unwrap().join([]);
        giving
            .finish_equal(&mut to_newcomer, [name; 16], Generation(name.into()))
            .await
    };
    let (given, taken) = tokio::join!(given, take(&mut to_holder, newcomer));
    given.unwrap();
    (giving.compared()[0].clone(), taken.unwrap())
}

/// Two images that have become equal by a join.
async fn pair(folder: &TempDir) -> (Vec<Mirrored>, Vec<Mirrored>) {
    let holder = image(folder.path(), "holder", &[(0, 1), (50, 2), (2000, 3)]);
    let newcomer = image(folder.path(), "newcomer", &[]);
    let (compared, taken) = join(folder, &holder, &newcomer, 1).await;
    assert_eq!((compared.blocks, compared.of, taken), (BLOCKS, BLOCKS, 3));
    (holder, newcomer)
}

#[tokio::test]
async fn who_comes_back_is_compared_where_either_side_has_written_and_nowhere_else() {
    let folder = TempDir::new().unwrap();
    let (holder, newcomer) = pair(&folder).await;
    // The newcomer has written what the holder has not, and the holder what the newcomer has not.
    write(&newcomer, 40, 7);
    write(&holder, 900, 8);
    write(&holder, 901, 9);
    let newcomer = reopened(newcomer);
    let (compared, taken) = join(&folder, &holder, &newcomer, 2).await;
    assert_eq!(
        compared.to_string(),
        format!("32 of {BLOCKS} blocks compared; bitmap of generation 1")
    );
    assert_eq!(taken, 3);
    assert!(bytes(&holder) == bytes(&newcomer));
    // Nothing was written since.
    let (holder, newcomer) = (reopened(holder), reopened(newcomer));
    let (compared, taken) = join(&folder, &holder, &newcomer, 3).await;
    assert_eq!((compared.blocks, compared.bitmap, taken), (0, Ok(2), 0));
}

#[tokio::test]
async fn all_is_compared_where_a_bitmap_is_gone_damaged_or_of_another_join() {
    let folder = TempDir::new().unwrap();
    let (holder, newcomer) = pair(&folder).await;
    let path = ChangedBlocks::path(newcomer[0].image.path());
    let old = std::fs::read(&path).unwrap();
    let damages: [(&str, &dyn Fn()); 3] = [
        ("there is none", &|| std::fs::remove_file(&path).unwrap()),
        ("damaged", &|| {
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }),
        ("of generation 1, and the holder's of generation 3", &|| {
            std::fs::write(&path, &old).unwrap();
        }),
    ];
    let mut newcomer = newcomer;
    for (nth, (expected, damage)) in (2..).zip(damages) {
        write(&newcomer, 40, 70 + nth);
        damage();
        newcomer = reopened(newcomer);
        let (compared, _) = join(&folder, &holder, &newcomer, nth).await;
        let said = compared.to_string();
        assert!(said.starts_with("all ") && said.contains(expected), "{said}");
        assert!(bytes(&holder) == bytes(&newcomer));
    }
}

#[tokio::test]
async fn a_newcomer_that_is_lost_before_it_is_durable_has_a_state_in_common_later() {
    let folder = TempDir::new().unwrap();
    let (holder, newcomer) = pair(&folder).await;
    write(&holder, 100, 5);
    let (mut to_newcomer, to_holder) = both(&folder).await;
    let mut giving = Giving::of(holder.clone(), Pace::default());
    let given = async {
        giving.compare(&mut to_newcomer, |_| ()).await?;
        holder[0].changes.as_ref().unwrap().join([]);
        giving
            .finish_equal(&mut to_newcomer, [2; 16], Generation(2))
            .await
    };
    let answering = async {
        // It answers, takes nothing, and is gone.
        let mut to_holder = to_holder;
        let Said::Asked { .. } = receive(&mut to_holder).await.unwrap() else {
            panic!("no question")
        };
        asking::answer(&mut to_holder, &newcomer[0]).await.unwrap();
        let Said::Digests { .. } = receive(&mut to_holder).await.unwrap() else {
            panic!("no digests")
        };
        send(&mut to_holder, &Said::Wanted { blocks: Vec::new() })
            .await
            .unwrap();
        let Said::Equal { .. } = receive(&mut to_holder).await.unwrap() else {
            panic!("no state")
        };
    };
    let (given, ()) = tokio::join!(given, answering);
    given.unwrap_err();
    holder[0].changes.as_ref().unwrap().alone();
    write(&holder, 200, 6);
    let newcomer = reopened(newcomer);
    let (compared, taken) = join(&folder, &holder, &newcomer, 3).await;
    assert_eq!((compared.blocks, taken), (32, 2), "{compared}");
    assert!(bytes(&holder) == bytes(&newcomer));
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
        changes: None,
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
