//! HEAD and GET.

use std::time::{Duration, SystemTime};

use pailfs::error::Error;
use pailfs::types::{ByteRange, ETag};

use crate::world::{collect, on_every_store, pattern};

#[test]
fn head_tells_what_put_made() {
    on_every_store(|world| async move {
        let before = SystemTime::now() - Duration::from_secs(5);
        let put = world.put("a", "twelve bytes").await;
        let info = world.store.head(&world.key("a")).await.unwrap();
        assert_eq!((info.version.size, &info.version.etag), (12, &put.etag));
        assert!(info.version.same_bytes(&put));
        assert!(info.version.modified >= before && info.version.modified <= SystemTime::now() + Duration::from_secs(5));
        assert_eq!(info.crc64nvme, Some(crc(b"twelve bytes")));
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    on_every_store(|world| async move {
        let key = world.key("absent");
        assert!(matches!(world.store.head(&key).await, Err(Error::NotFound)));
        assert!(matches!(world.store.get(&key, None, None).await, Err(Error::NotFound)));
        assert!(matches!(world.store.get(&key, Some(ByteRange::new(0, 5)), None).await, Err(Error::NotFound)));
    });
}

#[test]
fn a_whole_get_gives_all_bytes() {
    on_every_store(|world| async move {
        let bytes = pattern(300_000);
        let version = world.put("a", bytes.clone()).await;
        let reply = world.store.get(&world.key("a"), None, None).await.unwrap();
        assert_eq!(reply.range, ByteRange::new(0, 300_000));
        assert!(reply.info.version.same_bytes(&version));
        assert!(collect(reply).await.unwrap() == bytes);
    });
}

#[test]
fn an_empty_object_is_read() {
    on_every_store(|world| async move {
        world.put("empty", "").await;
        assert_eq!(world.store.head(&world.key("empty")).await.unwrap().version.size, 0);
        assert!(world.bytes("empty").await.is_empty());
        let ranged = world.store.get(&world.key("empty"), Some(ByteRange::new(0, 1)), None).await;
        assert!(matches!(ranged, Err(Error::RangeNotSatisfiable)), "{ranged:?}");
    });
}

#[test]
fn a_range_gives_its_bytes_and_is_cut_at_the_end() {
    on_every_store(|world| async move {
        let bytes = pattern(1000);
        world.put("a", bytes.clone()).await;
        let key = world.key("a");
        for (start, end) in [(0, 1), (0, 1000), (10, 20), (999, 1000), (990, 5000), (0, u64::MAX / 2)] {
            let reply = world.store.get(&key, Some(ByteRange::new(start, end)), None).await.unwrap();
            let cut = ByteRange::new(start, end.min(1000));
            assert_eq!((reply.range, reply.info.version.size), (cut, 1000));
            assert!(collect(reply).await.unwrap() == bytes[cut.start as usize..cut.end as usize]);
        }
    });
}

#[test]
fn a_range_past_the_end_is_refused() {
    on_every_store(|world| async move {
        world.put("a", "0123456789").await;
        let past = world.store.get(&world.key("a"), Some(ByteRange::new(10, 20)), None).await;
        assert!(matches!(past, Err(Error::RangeNotSatisfiable)), "{past:?}");
        let empty = world.store.get(&world.key("a"), Some(ByteRange::new(3, 3)), None).await;
        assert!(matches!(empty, Err(Error::InvalidArgument(_))), "{empty:?}");
    });
}

#[test]
fn a_get_is_pinned_to_its_version() {
    on_every_store(|world| async move {
        let key = world.key("a");
        let old = world.put("a", "old").await;
        assert!(world.store.get(&key, None, Some(&old.etag)).await.is_ok());
        world.put("a", "new bytes").await;
        for range in [None, Some(ByteRange::new(0, 3))] {
            let stale = world.store.get(&key, range, Some(&old.etag)).await;
            assert!(matches!(stale, Err(Error::PreconditionFailed)), "{stale:?}");
        }
        let never = world.store.get(&key, None, Some(&ETag::parse("0123"))).await;
        assert!(matches!(never, Err(Error::PreconditionFailed)), "{never:?}");
    });
}

#[test]
fn many_bodies_are_read_at_once() {
    on_every_store(|world| async move {
        let bytes = pattern(2 << 20);
        world.put("a", bytes.clone()).await;
        let reads = (0..24u64).map(|i| {
            let range = ByteRange::at(i * 80_000, 80_000);
            let (world, bytes) = (&world, &bytes);
            async move {
                let reply = world.store.get(&world.key("a"), Some(range), None).await.unwrap();
                assert!(collect(reply).await.unwrap() == bytes[range.start as usize..range.end as usize]);
            }
        });
        futures_util::future::join_all(reads).await;
    });
}

pub fn crc(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}
