use super::*;

#[test]
fn images_are_compared_by_their_content_whatever_their_format() {
    let folder = folder();
    let size = 1 << 40;
    let images = FORMATS.map(|format| {
        let path = made(&folder, &format.to_string(), size, format);
        Image::open(&path, &Options::default()).unwrap()
    });
    let [raw, qcow2] = &images;
    let told = |left: &Image, right: &Image| {
        let mut blocks = Vec::new();
        let compared = compare(left, right, |block| blocks.push(block)).unwrap();
        (compared, blocks)
    };
    let (compared, blocks) = told(raw, qcow2);
    assert!(
        compared.is_equal() && blocks.is_empty(),
        "{compared:?}, {blocks:?}"
    );
    for image in &images {
        image.write_at(5 * COPY_BLOCK_BYTES - 3, b"equal").unwrap();
    }
    raw.write_at(size - 2, b"!!").unwrap();
    qcow2.write_at(7 * COPY_BLOCK_BYTES + 9, b"...").unwrap();
    for (left, right) in [(raw, qcow2), (qcow2, raw)] {
        let (compared, blocks) = told(left, right);
        assert_eq!(
            (compared.blocks, compared.bytes, compared.first_byte),
            (2, 5, Some(7 * COPY_BLOCK_BYTES + 9))
        );
        assert_eq!(compared.first_block(), Some(7));
        assert!(!compared.is_equal());
        assert!(blocks.is_sorted() && blocks.len() < 100, "{blocks:?}");
    }
    let small = made(&folder, "small", 512, Format::Raw);
    let small = Image::open(&small, &Options::default()).unwrap();
    let (compared, _) = told(&small, raw);
    assert_eq!((compared.blocks, compared.sizes_bytes), (0, [512, size]));
    assert!(!compared.is_equal());
}

#[test]
fn an_image_in_use_is_looked_at_and_its_user_is_named() {
    let folder = folder();
    let path = made(&folder, "disk", MIB, Format::Qcow2);
    assert_eq!(look(&path).unwrap().user, User::None);
    let image = Image::open(&path, &Options::default()).unwrap();
    let found = look(&path).unwrap();
    let User::Some(Some(holder)) = found.user else {
        panic!("no user is named: {found:?}")
    };
    assert_eq!(holder.process, std::process::id());
    assert_eq!((found.format, found.size_bytes), (Some(Format::Qcow2), Some(MIB)));
    assert!(found.refused.is_none());
    assert!(matches!(check(&path), Err(ImageError::InUse { .. })));
    drop(image);
    let sound = check(&path).unwrap();
    assert_eq!(sound.tables.unwrap().data_clusters, 0);
}

/// tmpfs has no FALLOC_FL_ZERO_RANGE: zeroes are written. Others have it.
#[test]
fn zeroes_are_written_where_the_file_system_cannot_make_them() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = made(&folder, "disk", 4 * MIB, Format::Raw);
    let image = Image::open(&path, &Options::default()).unwrap();
    let mut expected = vec![7; 4 * MIB as usize];
    image.write_at(0, &expected).unwrap();
    for (offset, length, may_unmap) in [(100, 3 * MIB, false), (3 * MIB + 4096, 8192, true), (0, 1, false)] {
        image.write_zeroes(offset, length, may_unmap).unwrap();
        expected[offset as usize..][..length as usize].fill(0);
        assert!(content(&image) == expected);
    }
    image.flush().unwrap();
}
